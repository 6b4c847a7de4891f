// SPDX-License-Identifier: GPL-2.0
//! Lists of buckets in the order in which to reuse or evacuate them.
//!
//! An entry is a key without value in the lru btree, at
//! `(list << 48 | time) : (device << 48 | bucket) : 0`. Before that, entries had a value, which is
//! still decoded.

use core::fmt;

use crate::bkey::KeyRef;
use crate::error::{ErrorId, Invalid};
use crate::keys::layout::{array_at, too_small, BuildError, ValueWriter};
use crate::pos::Bpos;

/// Bits of a position below the list's number, or the device's.
const TIME_BITS: u32 = 48;
/// The list of buckets by how much of them is unused; others are the cached buckets of one device.
pub const LRU_FRAGMENTATION: u16 = u16::MAX;

/// The position of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LruPos {
    /// The list: a device's index, or [`LRU_FRAGMENTATION`].
    pub list: u16,
    /// Where in the list; 48 bits, 0 in no valid entry.
    pub time: u64,
    /// Device of the bucket.
    pub dev: u16,
    /// The bucket; 48 bits.
    pub bucket: u64,
}

impl LruPos {
    /// Takes a position apart.
    pub const fn from_pos(pos: Bpos) -> Self {
        const LOW: u64 = (1 << TIME_BITS) - 1;
        Self {
            list: (pos.inode >> TIME_BITS) as u16,
            time: pos.inode & LOW,
            dev: (pos.offset >> TIME_BITS) as u16,
            bucket: pos.offset & LOW,
        }
    }

    /// Puts the position together.
    pub const fn to_pos(self) -> Bpos {
        Bpos::new(
            (self.list as u64) << TIME_BITS | self.time,
            (self.dev as u64) << TIME_BITS | self.bucket,
        )
    }
}

impl fmt::Display for LruPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "list {} time {} bucket {}:{}",
            self.list, self.time, self.dev, self.bucket
        )
    }
}

/// The old value of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lru {
    /// Index in the list.
    pub idx: u64,
}

impl Lru {
    /// Reads the value of a key of type `lru`.
    pub fn parse(key: KeyRef<'_>) -> Result<Self, Invalid> {
        let bytes = key.value_bytes();
        match array_at(bytes, 0) {
            Some(idx) => Ok(Self {
                idx: u64::from_le_bytes(idx),
            }),
            None => Err(too_small(bytes.len(), 8)),
        }
    }

    /// Writes the value; returns the words used.
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        let mut w = ValueWriter::new(out);
        w.word(self.idx)?;
        w.finish()
    }
}

/// Checks the position of an entry, whatever its type.
pub(crate) fn validate_pos(key: KeyRef<'_>) -> Result<(), Invalid> {
    let pos = LruPos::from_pos(key.key.pos);
    if pos.time == 0 {
        return Err(Invalid::new(
            ErrorId::LRU_ENTRY_AT_TIME_0,
            "lru entry at time 0",
            0,
            0,
            1,
        ));
    }
    Ok(())
}

impl fmt::Display for Lru {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "idx {}", self.idx)
    }
}
