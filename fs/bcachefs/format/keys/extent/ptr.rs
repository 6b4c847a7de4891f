// SPDX-License-Identifier: GPL-2.0
//! The pointer entry: one copy of the data on one device.
//!
//! One word: bit 0 set; bit 1 cached; bit 3 unwritten; bits 4..48 sector on the device; bits 48..56
//! device index; bits 56..64 generation of the bucket.

use core::fmt;

use crate::keys::layout::{bits, with_bits};

/// Device index that stands for a device that has been removed.
pub const DEV_INVALID: u8 = 255;

/// Highest number a pointer's sector can hold.
pub const PTR_OFFSET_MAX: u64 = (1 << 44) - 1;

/// A pointer entry, kept as its word so that unused bits survive a rewrite.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ptr(u64);

impl Ptr {
    /// A dirty, written pointer to `offset` (sectors, below 2^44) of device `dev`.
    pub const fn new(dev: u8, offset: u64, generation: u8) -> Self {
        let word = with_bits(1, 4, 48, offset);
        let word = with_bits(word, 48, 56, dev as u64);
        Self(with_bits(word, 56, 64, generation as u64))
    }

    /// Takes an entry's word; the caller has found bit 0 set.
    pub(crate) const fn from_word(word: u64) -> Self {
        Self(word | 1)
    }

    /// The entry as stored.
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Whether this is a redundant copy that may vanish at any time.
    pub const fn cached(self) -> bool {
        bits(self.0, 1, 2) != 0
    }

    /// Whether the space is allocated but reads as zeros.
    pub const fn unwritten(self) -> bool {
        bits(self.0, 3, 4) != 0
    }

    /// First sector on the device.
    pub const fn offset(self) -> u64 {
        bits(self.0, 4, 48)
    }

    /// Member index of the device; [`DEV_INVALID`] if it is gone.
    pub const fn dev(self) -> u8 {
        bits(self.0, 48, 56) as u8
    }

    /// Generation of the bucket when the pointer was made.
    pub const fn generation(self) -> u8 {
        bits(self.0, 56, 64) as u8
    }

    /// The same pointer marked cached or dirty.
    pub const fn with_cached(self, cached: bool) -> Self {
        Self(with_bits(self.0, 1, 2, cached as u64))
    }

    /// The same pointer marked unwritten or written.
    pub const fn with_unwritten(self, unwritten: bool) -> Self {
        Self(with_bits(self.0, 3, 4, unwritten as u64))
    }

    /// The same pointer at another sector (below 2^44).
    pub const fn with_offset(self, offset: u64) -> Self {
        Self(with_bits(self.0, 4, 48, offset))
    }

    /// The same pointer with another bucket generation.
    pub const fn with_generation(self, generation: u8) -> Self {
        Self(with_bits(self.0, 56, 64, generation as u64))
    }

    /// How many generations the bucket, now at `bucket_gen`, is ahead of this pointer. Zero or
    /// less (generations wrap, so the difference is read as signed) means not stale.
    pub const fn staleness(self, bucket_gen: u8) -> i8 {
        bucket_gen.wrapping_sub(self.generation()) as i8
    }
}

impl fmt::Display for Ptr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ptr {}:{} gen {}",
            self.dev(),
            self.offset(),
            self.generation()
        )?;
        if self.cached() {
            f.write_str(" cached")?;
        }
        if self.unwritten() {
            f.write_str(" unwritten")?;
        }
        Ok(())
    }
}
