// SPDX-License-Identifier: GPL-2.0
//! The clean section: what the last journal entry said, kept so that the journal need not be read
//! after a clean shutdown.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Field;
use crate::error::{ErrorId, Invalid};
use crate::jset::Entries;

/// The payload of the field up to its records (16 bytes).
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
pub struct DiskClean {
    /// Zero.
    pub flags: U32,
    /// Unused.
    pub read_clock: U16,
    /// Unused.
    pub write_clock: U16,
    /// Sequence number of the last journal entry.
    pub journal_seq: U64,
}

const HEADER_U64S: usize = core::mem::size_of::<DiskClean>() / 8;
/// Byte offset of the records in the field.
const ENTRIES_AT: usize = 24;

const _: () = assert!(core::mem::size_of::<DiskClean>() == 16);

/// The clean section.
#[derive(Copy, Clone, Debug)]
pub struct Clean<'a> {
    header: &'a DiskClean,
    entries: &'a [u64],
}

impl<'a> Clean<'a> {
    /// Reads the field. Errors count bytes from its start.
    pub fn parse(field: &Field<'a>) -> Result<Self, Invalid> {
        let payload = field.payload();
        let header = DiskClean::ref_from_prefix(payload.as_bytes());
        match (header, payload.get(HEADER_U64S..)) {
            (Ok((header, _)), Some(entries)) => Ok(Clean { header, entries }),
            _ => {
                let got = field.bytes().len() as u64;
                let what = "clean section: field too short";
                Err(Invalid::plain(what, 0, got, ENTRIES_AT as u64))
            }
        }
    }

    /// Sequence number of the last journal entry.
    pub fn journal_seq(&self) -> u64 {
        self.header.journal_seq.get()
    }

    /// The records: roots, counters, clocks, then empty ones.
    pub const fn entries(&self) -> Entries<'a> {
        Entries::new(self.entries)
    }

    /// Checks that the records fill the field. Errors count bytes from the start of the field.
    pub fn validate(&self) -> Result<(), Invalid> {
        for entry in self.entries() {
            entry.map_err(|mut e| {
                e.id = ErrorId::SB_CLEAN_ENTRY_OVERRUN;
                e.within(ENTRIES_AT)
            })?;
        }
        Ok(())
    }
}

/// Writes the fixed part of the payload; records go after it, the rest stays zero. Returns the room
/// for records.
pub fn encode(journal_seq: u64, payload: &mut [u64]) -> Option<&mut [u64]> {
    payload.fill(0);
    let (header, entries) = payload.split_at_mut_checked(HEADER_U64S)?;
    let header = DiskClean::mut_from_bytes(header.as_mut_bytes()).ok()?;
    header.journal_seq = U64::new(journal_seq);
    Some(entries)
}
