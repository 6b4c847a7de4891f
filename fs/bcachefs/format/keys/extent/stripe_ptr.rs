// SPDX-License-Identifier: GPL-2.0
//! The stripe pointer entry: the next pointer's data is a block of an erasure-coded stripe.
//!
//! One word: bit 4 set, bits 0..4 clear; bits 5..13 block; bits 13..17 redundancy; bits 17..64
//! index of the stripe.

use core::fmt;

use crate::keys::layout::{bits, with_bits};

/// A stripe pointer entry; applies to exactly the pointer that follows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StripePtr(u64);

impl StripePtr {
    /// An entry for `block` of stripe `idx` (below 2^47), which survives the loss of `redundancy`
    /// (below 16) blocks.
    pub const fn new(idx: u64, block: u8, redundancy: u8) -> Self {
        let word = with_bits(1 << 4, 5, 13, block as u64);
        let word = with_bits(word, 13, 17, redundancy as u64);
        Self(with_bits(word, 17, 64, idx))
    }

    /// Takes an entry's word; the caller has found its lowest set bit to be 4.
    pub(crate) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The entry as stored.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Block of the stripe.
    pub const fn block(self) -> u8 {
        bits(self.0, 5, 13) as u8
    }

    /// How many blocks of the stripe may be lost.
    pub const fn redundancy(self) -> u8 {
        bits(self.0, 13, 17) as u8
    }

    /// Index of the stripe, the offset of its key in the stripes btree.
    pub const fn idx(self) -> u64 {
        bits(self.0, 17, 64)
    }
}

impl fmt::Display for StripePtr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stripe {} block {} redundancy {}",
            self.idx(),
            self.block(),
            self.redundancy()
        )
    }
}
