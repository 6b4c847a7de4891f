// SPDX-License-Identifier: GPL-2.0
//! Counts of the errors seen, by id.

use zerocopy::byteorder::little_endian::U64;
use zerocopy::{FromBytes as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Field;
use crate::error::{ErrorId, Invalid};

/// Largest count that can be stored.
pub const COUNT_MAX: u64 = (1 << 48) - 1;

/// How often an error was seen (16 bytes).
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
pub struct ErrorCount {
    /// Bits 0..16 id, the rest the count.
    pub v: U64,
    /// When it was last seen, in seconds.
    pub last_error_time: U64,
}

const _: () = assert!(core::mem::size_of::<ErrorCount>() == 16);

impl ErrorCount {
    /// `count` errors of kind `id`, the last at `last_error_time`. Counts beyond [`COUNT_MAX`] stay
    /// there.
    pub fn new(id: ErrorId, count: u64, last_error_time: u64) -> Self {
        ErrorCount {
            v: U64::new(u64::from(id.0) | count.min(COUNT_MAX) << 16),
            last_error_time: U64::new(last_error_time),
        }
    }

    /// Kind of error.
    pub fn id(&self) -> ErrorId {
        ErrorId(self.v.get() as u16)
    }

    /// How often it was seen.
    pub fn count(&self) -> u64 {
        self.v.get() >> 16
    }
}

/// The counts, by ascending id.
#[derive(Copy, Clone, Debug, Default)]
pub struct Errors<'a> {
    entries: &'a [ErrorCount],
}

impl<'a> Errors<'a> {
    /// Of a field of type errors.
    pub fn new(field: &Field<'a>) -> Self {
        let bytes = field.payload().as_bytes();
        let nr = bytes.len() / core::mem::size_of::<ErrorCount>();
        let entries = <[ErrorCount]>::ref_from_prefix_with_elems(bytes, nr);
        Errors {
            entries: entries.map_or(&[], |(e, _)| e),
        }
    }

    /// The counts.
    pub const fn entries(&self) -> &'a [ErrorCount] {
        self.entries
    }

    /// Checks the field. Errors count bytes from its start.
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut next = 0;
        for (i, e) in self.entries.iter().enumerate() {
            let id = u64::from(e.id().0);
            if e.count() == 0 {
                return Err(Invalid::plain("errors: count of 0", 8 + 16 * i, 0, 1));
            }
            if id < next {
                let what = "errors: ids out of order";
                return Err(Invalid::plain(what, 8 + 16 * i, id, next));
            }
            next = id + 1;
        }
        Ok(())
    }
}
