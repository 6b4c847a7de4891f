// SPDX-License-Identifier: GPL-2.0
//! What an implementation of an older version has to do before it may use the filesystem.

use zerocopy::byteorder::little_endian::{U16, U64};
use zerocopy::{FromBytes as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::field::FIELD_HEADER_BYTES;
use super::Field;
use crate::error::{ErrorId, Invalid};
use crate::super_block::SuperBlock;
use crate::version::Version;

/// A record up to its list of errors (20 bytes).
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
struct DiskDowngrade {
    version: U16,
    recovery_passes: [U64; 2],
    nr_errors: U16,
}

const RECORD_BYTES: usize = core::mem::size_of::<DiskDowngrade>();

const _: () = assert!(RECORD_BYTES == 20);

/// One record: to go below `version`, run these passes and expect these errors.
#[derive(Copy, Clone, Debug)]
pub struct Downgrade<'a> {
    /// The version that is left.
    pub version: Version,
    /// Bit n: the recovery pass with stable number n has to run.
    pub recovery_passes: [u64; 2],
    errors: &'a [U16],
}

impl<'a> Downgrade<'a> {
    /// The errors to be repaired without a report.
    pub fn errors(&self) -> impl Iterator<Item = ErrorId> + 'a {
        self.errors.iter().map(|e| ErrorId(e.get()))
    }
}

/// The records.
#[derive(Copy, Clone, Debug, Default)]
pub struct Downgrades<'a> {
    bytes: &'a [u8],
}

impl<'a> Downgrades<'a> {
    /// Of a field of type downgrade.
    pub fn new(field: &Field<'a>) -> Self {
        Downgrades {
            bytes: field.bytes(),
        }
    }

    /// The records. Ends where the next would not fit, which is also how the padding is skipped.
    pub fn iter(&self) -> impl Iterator<Item = Downgrade<'a>> {
        self.with_offsets().map(|(_, d)| d)
    }

    fn with_offsets(&self) -> impl Iterator<Item = (usize, Downgrade<'a>)> {
        let bytes = self.bytes;
        let mut at = FIELD_HEADER_BYTES;
        core::iter::from_fn(move || {
            let rest = bytes.get(at..)?;
            let (head, rest) = DiskDowngrade::ref_from_prefix(rest).ok()?;
            let nr = usize::from(head.nr_errors.get());
            let (errors, _) = <[U16]>::ref_from_prefix_with_elems(rest, nr).ok()?;
            let offset = at;
            at += RECORD_BYTES + 2 * nr;
            Some((
                offset,
                Downgrade {
                    version: Version(head.version.get()),
                    recovery_passes: head.recovery_passes.map(|p| p.get()),
                    errors,
                },
            ))
        })
        // Padding reads as a record for version 0.
        .take_while(|(_, d)| d.version.0 != 0)
    }

    /// Checks the field. Errors count bytes from its start.
    pub fn validate(&self, sb: &SuperBlock<'_>) -> Result<(), Invalid> {
        let major = sb.version().major();
        for (at, d) in self.with_offsets() {
            if d.version.major() != major {
                return Err(Invalid::plain(
                    "downgrade: record for another major version",
                    at,
                    d.version.major().into(),
                    major.into(),
                ));
            }
        }
        Ok(())
    }
}

/// Appends a record to a payload that is filled up to `at`; returns the new end, `None` if it does
/// not fit.
pub fn encode(
    payload: &mut [u8],
    at: usize,
    version: Version,
    recovery_passes: [u64; 2],
    errors: &[ErrorId],
) -> Option<usize> {
    let head = DiskDowngrade {
        version: U16::new(version.0),
        recovery_passes: recovery_passes.map(U64::new),
        nr_errors: U16::new(u16::try_from(errors.len()).ok()?),
    };
    let end = at.checked_add(RECORD_BYTES + 2 * errors.len())?;
    let room = payload.get_mut(at..end)?;
    let ids = errors.iter().flat_map(|e| e.0.to_le_bytes());
    let source = head.as_bytes().iter().copied().chain(ids);
    for (to, from) in room.iter_mut().zip(source) {
        *to = from;
    }
    Some(end)
}
