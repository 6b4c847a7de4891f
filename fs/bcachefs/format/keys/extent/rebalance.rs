// SPDX-License-Identifier: GPL-2.0
//! The rebalance entry: where and how the extent should end up in the background.
//!
//! One word: bit 5 set, bits 0..5 clear; bits 40..48 compression option; bits 48..64 target.

use core::fmt;

use crate::keys::compression::CompressionOpt;
use crate::keys::layout::{bits, with_bits};

/// A rebalance entry; at most one per key, in any place among the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rebalance(u64);

impl Rebalance {
    /// An entry asking for `compression` and `target` (0: none wanted).
    pub const fn new(compression: CompressionOpt, target: u16) -> Self {
        let word = with_bits(1 << 5, 40, 48, compression.0 as u64);
        Self(with_bits(word, 48, 64, target as u64))
    }

    /// Takes an entry's word; the caller has found its lowest set bit to be 5.
    pub(crate) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The entry as stored.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The wanted compression, in the coding of the option.
    pub const fn compression(self) -> CompressionOpt {
        CompressionOpt(bits(self.0, 40, 48) as u8)
    }

    /// The wanted target: 0 none, 1..=256 device index + 1, above that disk group index + 257.
    pub const fn target(self) -> u16 {
        bits(self.0, 48, 64) as u16
    }
}

impl fmt::Display for Rebalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rebalance compression {} target {}",
            self.compression(),
            self.target()
        )
    }
}
