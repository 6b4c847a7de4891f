// SPDX-License-Identifier: GPL-2.0
//! Quota limits that hold for all ids.

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Field;
use crate::error::Invalid;

/// Limits of one counter.
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
pub struct QuotaCounter {
    /// Seconds for which the soft limit may be exceeded.
    pub timelimit: U32,
    /// Number of warnings.
    pub warnlimit: U32,
}

/// Limits of one type of quota (24 bytes).
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
pub struct QuotaType {
    /// Flags.
    pub flags: U64,
    /// Space.
    pub space: QuotaCounter,
    /// Inodes.
    pub inodes: QuotaCounter,
}

/// The payload of the field (72 bytes): users, groups, projects.
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
pub struct Quota {
    /// User, group, project.
    pub types: [QuotaType; 3],
}

const _: () = assert!(core::mem::size_of::<Quota>() == 72);

impl Quota {
    /// Reads the field. Errors count bytes from its start.
    pub fn parse(field: &Field<'_>) -> Result<Self, Invalid> {
        match Quota::read_from_prefix(field.payload().as_bytes()) {
            Ok((quota, _)) => Ok(quota),
            Err(_) => {
                let got = field.bytes().len() as u64;
                Err(Invalid::plain("quota: field too short", 0, got, 80))
            }
        }
    }
}
