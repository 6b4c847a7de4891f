// SPDX-License-Identifier: GPL-2.0
//! Generations of 256 buckets in one key, for quick reading at mount. The key is
//! `device : bucket / 256 : 0`; a missing key stands for zeros.

use core::fmt;

use crate::bkey::KeyRef;
use crate::error::{ErrorId, Invalid};
use crate::keys::layout::{BuildError, ValueWriter};

/// Buckets per key.
pub const BUCKETS_PER_KEY: usize = 256;

/// A view of a `bucket_gens` value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BucketGens<'a> {
    /// Generations, by the low 8 bits of the bucket's number.
    pub gens: &'a [u8; BUCKETS_PER_KEY],
}

impl<'a> BucketGens<'a> {
    /// Looks at the value of a key of type `bucket_gens`.
    pub fn parse(key: KeyRef<'a>) -> Result<Self, Invalid> {
        let bytes = key.value_bytes();
        match <&[u8; BUCKETS_PER_KEY]>::try_from(bytes) {
            Ok(gens) => Ok(Self { gens }),
            Err(_) => Err(Invalid::new(
                ErrorId::BUCKET_GENS_VAL_SIZE_BAD,
                "wrong size of a bucket_gens value",
                0,
                bytes.len() as u64,
                BUCKETS_PER_KEY as u64,
            )),
        }
    }

    /// The generation of `bucket`, one of those in this key.
    pub fn get(&self, bucket: u64) -> u8 {
        // The mask keeps it in range.
        self.gens
            .get((bucket & 0xff) as usize)
            .copied()
            .unwrap_or(0)
    }

    /// Writes the value; returns the words used.
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        let mut w = ValueWriter::new(out);
        w.bytes(self.gens)?;
        w.finish()
    }
}

impl fmt::Display for BucketGens<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sep = "";
        for g in self.gens {
            write!(f, "{sep}{g}")?;
            sep = " ";
        }
        Ok(())
    }
}
