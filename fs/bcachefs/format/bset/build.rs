// SPDX-License-Identifier: GPL-2.0
//! Filling a bset with keys.

use core::fmt;

use super::PackedRef;
use crate::bkey::{Bkey, KeyRef, BKEY_U64S};
use crate::packed::BkeyFormat;
use crate::pos::Bpos;

/// The bit of a key's first word that is never set on disk.
const NEEDS_WHITEOUT: u64 = 1 << 15;

/// Why a key could not be added.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum PushError {
    /// The buffer, or the 65535 words a bset can count, is full.
    Full,
    /// Not above the key added before.
    OutOfOrder,
    /// The header's length does not match the value.
    BadLength,
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PushError::Full => "no room for the key",
            PushError::OutOfOrder => "key is not above the one before it",
            PushError::BadLength => "key length does not match its value",
        })
    }
}

/// Writes keys, in ascending order, into a caller's buffer.
#[derive(Debug)]
pub struct BsetBuilder<'a> {
    words: &'a mut [u64],
    used: usize,
    format: BkeyFormat,
    last: Option<Bpos>,
}

impl<'a> BsetBuilder<'a> {
    /// Starts an empty bset in `words`, the space after its header.
    pub fn new(words: &'a mut [u64], format: BkeyFormat) -> Self {
        BsetBuilder {
            words,
            used: 0,
            format,
            last: None,
        }
    }

    /// Words used so far.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Adds a key: packed if the node's format can hold it, unpacked otherwise. On failure nothing
    /// is changed.
    pub fn push(&mut self, key: &KeyRef<'_>) -> Result<(), PushError> {
        let mut header: Bkey = key.key;
        header.needs_whiteout = false;
        if usize::from(header.u64s) != usize::from(BKEY_U64S) + key.value.len() {
            return Err(PushError::BadLength);
        }
        if self.last.is_some_and(|last| last >= header.pos) {
            return Err(PushError::OutOfOrder);
        }
        match self.format.pack(&header) {
            Some(packed) => self.append(packed.words(), key.value)?,
            None => self.append(&header.to_words(), key.value)?,
        }
        self.last = Some(header.pos);
        Ok(())
    }

    /// Adds a key as it is, which must be in the builder's format and above the key added before; neither is checked. The hint that
    /// an older bset holds a key at its position is left out.
    pub fn push_packed(&mut self, key: PackedRef<'_>) -> Result<(), PushError> {
        let Some((first, rest)) = key.words().split_first() else {
            return Err(PushError::BadLength);
        };
        self.append(&[*first & !NEEDS_WHITEOUT], rest)
    }

    fn append(&mut self, header: &[u64], value: &[u64]) -> Result<(), PushError> {
        let mid = self.used + header.len();
        let end = mid + value.len();
        if end > usize::from(u16::MAX) {
            return Err(PushError::Full);
        }
        let room = self.words.get_mut(self.used..end).ok_or(PushError::Full)?;
        let source = header.iter().chain(value);
        for (to, from) in room.iter_mut().zip(source) {
            *to = *from;
        }
        self.used = end;
        Ok(())
    }

    /// Ends the bset: the number of words of keys.
    pub fn finish(self) -> u16 {
        // `append` keeps the count within 16 bits.
        self.used as u16
    }
}
