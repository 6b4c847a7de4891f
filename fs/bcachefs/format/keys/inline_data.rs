// SPDX-License-Identifier: GPL-2.0
//! File data held in the key itself.
//!
//! The value is the bytes, padded with zeros to whole words: how many of the last word's bytes are
//! data only the inode's size says. Reading past them, up to the key's size, gives zeros.

use core::fmt;

use crate::bkey::KeyRef;
use crate::keys::layout::{BuildError, ValueWriter};

/// The bytes of an inline extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InlineData<'a> {
    /// The data, including up to seven bytes of padding.
    pub bytes: &'a [u8],
}

impl<'a> InlineData<'a> {
    /// Looks at the value of a key of type `inline_data`.
    pub fn new(key: KeyRef<'a>) -> Self {
        Self {
            bytes: key.value_bytes(),
        }
    }

    /// Writes the value; returns the words used.
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        let mut w = ValueWriter::new(out);
        w.bytes(self.bytes)?;
        w.finish()
    }
}

impl fmt::Display for InlineData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "datalen {}:", self.bytes.len())?;
        for b in self.bytes.iter().take(32) {
            write!(f, " {b:02x}")?;
        }
        if self.bytes.len() > 32 {
            f.write_str(" ...")?;
        }
        Ok(())
    }
}
