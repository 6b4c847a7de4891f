// SPDX-License-Identifier: GPL-2.0
//! Buckets: what each holds, how full it is, and its generation. The key is `device : bucket : 0`.
//!
//! Four generations of the value exist; all decode to one [`Alloc`], and only the newest is
//! written. A bucket without key is free, with everything zero.

use core::fmt;

use crate::bkey::{KeyRef, KeyType};
use crate::error::{ErrorId, Invalid};
use crate::keys::data_type::DataType;
use crate::keys::layout::BuildError;

mod v1;
mod v2;
mod v4;

/// Highest value of the io clock that keys hold: what fits beside an lru's number.
pub const IO_TIME_MAX: u64 = (1 << 48) - 1;
/// How far a bucket's generation may be ahead of the oldest pointer to it before the bucket may
/// not be used again until the pointers have been looked through.
pub const GC_GEN_MAX: u8 = 96;
/// The words [`Alloc::build`] uses.
pub const ALLOC_WORDS: usize = 8;

/// The state of a bucket, decoded from any generation of the value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Alloc {
    /// Sequence number of the journal entry to be on disk before the bucket is reused; 0 for none.
    pub journal_seq: u64,
    /// To be discarded before it is reused.
    pub need_discard: bool,
    /// The generation is to be raised when the bucket becomes empty.
    pub need_inc_gen: bool,
    /// Generation.
    pub generation: u8,
    /// No pointer to the bucket has an older generation.
    pub oldest_gen: u8,
    /// What the bucket holds.
    pub data_type: DataType,
    /// Redundancy of the stripe that the bucket is in, else 0.
    pub stripe_redundancy: u8,
    /// Live sectors, neither cached nor in a stripe.
    pub dirty_sectors: u32,
    /// Live cached sectors.
    pub cached_sectors: u32,
    /// Live sectors in a stripe.
    pub stripe_sectors: u32,
    /// The io clock at the last read and the last write.
    pub io_time: [u64; 2],
    /// The stripe that the bucket is in, else 0.
    pub stripe: u32,
    /// No longer used, kept.
    pub nr_external_backpointers: u32,
    /// No longer used, kept.
    pub fragmentation_lru: u64,
}

impl Alloc {
    /// Reads the value of a key of any alloc type.
    pub fn parse(key: KeyRef<'_>) -> Result<Self, Invalid> {
        let bytes = key.value_bytes();
        match key.key.key_type {
            KeyType::ALLOC => v1::parse(bytes),
            KeyType::ALLOC_V2 => v2::parse_v2(bytes),
            KeyType::ALLOC_V3 => v2::parse_v3(bytes),
            _ => v4::parse(bytes),
        }
    }

    /// Writes an `alloc_v4` value; returns the words used, [`ALLOC_WORDS`].
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        v4::build(self, out)
    }

    /// What the bucket holds given its counters, if its live data is of type `want`.
    pub fn data_type_if(&self, want: DataType) -> DataType {
        if self.stripe != 0 {
            if want == DataType::PARITY {
                DataType::PARITY
            } else {
                DataType::STRIPE
            }
        } else if self.dirty_sectors != 0 || self.stripe_sectors != 0 {
            want
        } else if self.cached_sectors != 0 {
            DataType::CACHED
        } else if self.need_discard {
            DataType::NEED_DISCARD
        } else if self.gc_gen() >= GC_GEN_MAX {
            DataType::NEED_GC_GENS
        } else {
            DataType::FREE
        }
    }

    /// How far the generation is ahead of the oldest pointer's.
    pub const fn gc_gen(&self) -> u8 {
        self.generation.wrapping_sub(self.oldest_gen)
    }

    /// Sectors in use.
    pub const fn used_sectors(&self) -> u64 {
        if self.data_type.0 == DataType::CACHED.0 {
            self.cached_sectors as u64
        } else {
            self.dirty_sectors as u64 + self.stripe_sectors as u64
        }
    }

    /// Sectors of a bucket in use that are not.
    pub const fn fragmented_sectors(&self, bucket_size: u32) -> u64 {
        match self.used_sectors() {
            0 => 0,
            used => (bucket_size as u64).saturating_sub(used),
        }
    }

    /// The bucket's offset in the freespace btree: emptier generations come first.
    pub const fn freespace_offset(&self, bucket: u64) -> u64 {
        bucket | ((self.gc_gen() as u64 >> 4) << 56)
    }

    /// Checks a key of any alloc type.
    pub(crate) fn validate(key: KeyRef<'_>) -> Result<(), Invalid> {
        match key.key.key_type {
            KeyType::ALLOC => v1::validate(key.value_bytes()),
            KeyType::ALLOC_V4 => {
                v4::validate_layout(key.value_bytes())?;
                Self::parse(key)?.validate_state()
            }
            _ => Self::parse(key).map(drop),
        }
    }

    fn validate_state(&self) -> Result<(), Invalid> {
        let want = self.data_type_if(self.data_type);
        if self.data_type != want {
            return Err(Invalid::new(
                ErrorId::ALLOC_KEY_DATA_TYPE_BAD,
                "data type of a bucket does not go with its counters",
                14,
                self.data_type.0.into(),
                want.0.into(),
            ));
        }
        if let Some(t) = self.io_time.iter().find(|t| **t > IO_TIME_MAX) {
            return Err(Invalid::new(
                ErrorId::ALLOC_KEY_IO_TIME_BAD,
                "io time of a bucket out of range",
                24,
                *t,
                IO_TIME_MAX,
            ));
        }
        let live = u64::from(self.dirty_sectors) + u64::from(self.stripe_sectors);
        let cached = u64::from(self.cached_sectors);
        match self.data_type {
            DataType::FREE | DataType::NEED_GC_GENS | DataType::NEED_DISCARD
                if live != 0 || cached != 0 || self.stripe != 0 =>
            {
                Err(Invalid::new(
                    ErrorId::ALLOC_KEY_EMPTY_BUT_HAVE_DATA,
                    "empty bucket has sectors in use or a stripe",
                    16,
                    live + cached,
                    0,
                ))
            }
            DataType::SB
            | DataType::JOURNAL
            | DataType::BTREE
            | DataType::USER
            | DataType::PARITY
                if live == 0 =>
            {
                Err(Invalid::new(
                    ErrorId::ALLOC_KEY_DIRTY_SECTORS_0,
                    "bucket in use has no sectors in use",
                    16,
                    0,
                    1,
                ))
            }
            DataType::CACHED if cached == 0 || live != 0 || self.stripe != 0 => Err(Invalid::new(
                ErrorId::ALLOC_KEY_CACHED_INCONSISTENCY,
                "cached bucket without cached sectors, or with others",
                20,
                live,
                0,
            )),
            DataType::CACHED if matches!(self.io_time, [0, _]) => Err(Invalid::new(
                ErrorId::ALLOC_KEY_CACHED_BUT_READ_TIME_ZERO,
                "cached bucket without time of reading",
                24,
                0,
                1,
            )),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Alloc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [read, write] = self.io_time;
        write!(
            f,
            "gen {} oldest_gen {} data_type {} journal_seq {} need_discard {} need_inc_gen {}",
            self.generation,
            self.oldest_gen,
            self.data_type,
            self.journal_seq,
            u8::from(self.need_discard),
            u8::from(self.need_inc_gen)
        )?;
        write!(
            f,
            " dirty_sectors {} stripe_sectors {} cached_sectors {} stripe {} redundancy {} \
             io_time[READ] {read} io_time[WRITE] {write}",
            self.dirty_sectors,
            self.stripe_sectors,
            self.cached_sectors,
            self.stripe,
            self.stripe_redundancy
        )
    }
}
