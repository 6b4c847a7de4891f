// SPDX-License-Identifier: GPL-2.0
//! The keys inside a journal record. They are always unpacked.

use crate::bkey::{Bkey, KeyRef, BKEY_U64S, KEY_FORMAT_CURRENT};
use crate::error::{ErrorId, Invalid};

/// Iterator over the keys of a record. Yields one error and ends where a key is malformed, since
/// nothing after it can be found.
#[derive(Clone, Debug)]
pub struct JournalKeys<'a> {
    words: &'a [u64],
    at: usize,
    base: usize,
}

impl<'a> JournalKeys<'a> {
    /// Over `words`; errors count bytes from `base` bytes before them.
    pub(crate) const fn new(words: &'a [u64], base: usize) -> Self {
        JournalKeys { words, at: 0, base }
    }

    /// Over keys that lie behind one another, as in a journal record.
    pub const fn over(words: &'a [u64]) -> Self {
        Self::new(words, 0)
    }

    /// Whether no key is left.
    pub const fn is_empty(&self) -> bool {
        self.at >= self.words.len()
    }

    /// The word, counted from the start of the record's payload, at which the next key starts.
    pub const fn offset_u64s(&self) -> usize {
        self.at
    }

    fn fail(&mut self, id: ErrorId, what: &'static str, got: u64, want: u64) -> Invalid {
        let offset = self.base + self.at * 8;
        self.at = self.words.len();
        Invalid::new(id, what, offset, got, want)
    }
}

impl<'a> Iterator for JournalKeys<'a> {
    type Item = Result<KeyRef<'a>, Invalid>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.words.get(self.at..).filter(|r| !r.is_empty())?;
        let w0 = rest.first().copied().unwrap_or(0);
        let u64s = (w0 & 0xff) as usize;
        if u64s < usize::from(BKEY_U64S) {
            return Some(Err(self.fail(
                ErrorId::JOURNAL_ENTRY_BKEY_U64S_0,
                "key in journal is shorter than a key header",
                u64s as u64,
                BKEY_U64S.into(),
            )));
        }
        let format = (w0 >> 8 & 0x7f) as u8;
        if format != KEY_FORMAT_CURRENT {
            return Some(Err(self.fail(
                ErrorId::JOURNAL_ENTRY_BKEY_BAD_FORMAT,
                "key in journal is not unpacked",
                format.into(),
                KEY_FORMAT_CURRENT.into(),
            )));
        }
        let (Some(header), Some(value)) =
            (rest.first_chunk(), rest.get(usize::from(BKEY_U64S)..u64s))
        else {
            let left = rest.len() as u64;
            return Some(Err(self.fail(
                ErrorId::JOURNAL_ENTRY_BKEY_PAST_END,
                "key extends past the end of its record",
                u64s as u64,
                left,
            )));
        };
        self.at += u64s;
        Some(Ok(KeyRef {
            key: Bkey::from_words(header),
            value,
        }))
    }
}
