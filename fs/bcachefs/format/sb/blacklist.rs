// SPDX-License-Identifier: GPL-2.0
//! Journal sequence numbers that are blacklisted: btree updates under them never became durable.

use zerocopy::byteorder::little_endian::U64;
use zerocopy::{FromBytes as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Field;
use crate::error::Invalid;

/// A range of sequence numbers as stored: from `start` to before `end` (16 bytes).
#[derive(
    Copy,
    Clone,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(C)]
pub struct BlacklistEntry {
    /// First number.
    pub start: U64,
    /// First number after the range.
    pub end: U64,
}

const _: () = assert!(core::mem::size_of::<BlacklistEntry>() == 16);

/// The ranges, ascending.
#[derive(Copy, Clone, Debug, Default)]
pub struct Blacklist<'a> {
    entries: &'a [BlacklistEntry],
}

impl<'a> Blacklist<'a> {
    /// Of a field of type journal_seq_blacklist.
    pub fn new(field: &Field<'a>) -> Self {
        let bytes = field.payload().as_bytes();
        let nr = bytes.len() / core::mem::size_of::<BlacklistEntry>();
        let entries = <[BlacklistEntry]>::ref_from_prefix_with_elems(bytes, nr);
        Blacklist {
            entries: entries.map_or(&[], |(e, _)| e),
        }
    }

    /// The ranges.
    pub const fn entries(&self) -> &'a [BlacklistEntry] {
        self.entries
    }

    /// Whether `seq` is blacklisted. Needs a validated list; 0 never is.
    pub fn contains(&self, seq: u64) -> bool {
        let after = self.entries.partition_point(|e| e.start.get() <= seq);
        let last = after.checked_sub(1).and_then(|i| self.entries.get(i));
        seq != 0 && last.is_some_and(|e| seq < e.end.get())
    }

    /// Checks the field. Errors count bytes from its start.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut prev_end = 0;
        for (i, e) in self.entries.iter().enumerate() {
            let (start, end) = (e.start.get(), e.end.get());
            if start >= end {
                let what = "journal sequence blacklist: empty range";
                return Err(Invalid::plain(what, 8 + 16 * i, start, end));
            }
            if start < prev_end {
                let what = "journal sequence blacklist: ranges overlap or are out of order";
                return Err(Invalid::plain(what, 8 + 16 * i, start, prev_end));
            }
            prev_end = end;
        }
        Ok(())
    }
}
