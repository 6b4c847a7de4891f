// SPDX-License-Identifier: GPL-2.0
//! Writing sequences of entries.

use crate::keys::extent::crc::{Crc, CrcKind};
use crate::keys::extent::ptr::Ptr;
use crate::keys::extent::rebalance::Rebalance;
use crate::keys::extent::stripe_ptr::StripePtr;
use crate::keys::layout::{BuildError, ValueWriter};

/// Appends entries to a value in the caller's words.
pub struct EntryWriter<'a> {
    out: ValueWriter<'a>,
}

impl<'a> EntryWriter<'a> {
    /// Starts a value of entries only, as in type `extent`.
    pub fn new(words: &'a mut [u64]) -> Self {
        Self {
            out: ValueWriter::new(words),
        }
    }

    /// Starts a value of type `reflink_v`: the reference count comes before the entries.
    pub fn reflink_v(words: &'a mut [u64], refcount: u64) -> Result<Self, BuildError> {
        let mut w = Self::new(words);
        w.out.word(refcount)?;
        Ok(w)
    }

    /// Appends a pointer.
    pub fn ptr(&mut self, ptr: Ptr) -> Result<&mut Self, BuildError> {
        self.out.word(ptr.word())?;
        Ok(self)
    }

    /// Appends a checksum entry in the smallest encoding that holds it.
    pub fn crc(&mut self, crc: &Crc) -> Result<&mut Self, BuildError> {
        let kind = crc
            .smallest_kind()
            .ok_or(BuildError::Unrepresentable("crc"))?;
        self.crc_as(kind, crc)
    }

    /// Appends a checksum entry in a given encoding.
    pub fn crc_as(&mut self, kind: CrcKind, crc: &Crc) -> Result<&mut Self, BuildError> {
        let words = crc.encode(kind).ok_or(BuildError::Unrepresentable("crc"))?;
        for word in words.into_iter().take(kind.words()) {
            self.out.word(word)?;
        }
        Ok(self)
    }

    /// Appends a stripe pointer, to be followed by its pointer.
    pub fn stripe_ptr(&mut self, stripe: StripePtr) -> Result<&mut Self, BuildError> {
        self.out.word(stripe.word())?;
        Ok(self)
    }

    /// Appends a rebalance entry.
    pub fn rebalance(&mut self, rebalance: Rebalance) -> Result<&mut Self, BuildError> {
        self.out.word(rebalance.word())?;
        Ok(self)
    }

    /// Ends the value; its length in words.
    pub fn finish(self) -> Result<usize, BuildError> {
        self.out.finish()
    }
}
