// SPDX-License-Identifier: GPL-2.0
//! Cookies: a counter as a marker; in the rebalance btree it asks for a scan of an inode's extents.

use core::fmt;

use crate::bkey::KeyRef;
use crate::error::Invalid;
use crate::keys::layout::{array_at, too_small, BuildError, ValueWriter};

/// The value of a `cookie` key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cookie {
    /// The counter.
    pub cookie: u64,
}

impl Cookie {
    /// Reads the value of a key of type `cookie`.
    pub fn parse(key: KeyRef<'_>) -> Result<Self, Invalid> {
        let bytes = key.value_bytes();
        match array_at(bytes, 0) {
            Some(cookie) => Ok(Self {
                cookie: u64::from_le_bytes(cookie),
            }),
            None => Err(too_small(bytes.len(), 8)),
        }
    }

    /// Writes the value; returns the words used.
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        let mut w = ValueWriter::new(out);
        w.word(self.cookie)?;
        w.finish()
    }
}

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cookie {}", self.cookie)
    }
}
