// SPDX-License-Identifier: GPL-2.0
//! Quota limits. The key is `kind : id : 0`. Usage is not stored.

use core::fmt;

use zerocopy::byteorder::little_endian::U64;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bkey::KeyRef;
use crate::error::{ErrorId, Invalid};
use crate::keys::layout::{assert_layout, build_struct, read_fixed, BuildError};

/// Number of kinds of quota: user, group, project.
pub const QUOTA_TYPES: u64 = 3;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskQuota {
    space_hard: U64,
    space_soft: U64,
    inodes_hard: U64,
    inodes_soft: U64,
}

assert_layout!(DiskQuota, 32, {
    space_hard: 0, space_soft: 8, inodes_hard: 16, inodes_soft: 24,
});

/// The two limits on one resource; 0 is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QuotaLimit {
    /// Never exceeded.
    pub hard: u64,
    /// Exceeded for a while only.
    pub soft: u64,
}

/// The limits of one user, group or project.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Quota {
    /// On space, in sectors.
    pub space: QuotaLimit,
    /// On the number of inodes.
    pub inodes: QuotaLimit,
}

impl Quota {
    /// Reads the value of a key of type `quota`.
    pub fn parse(key: KeyRef<'_>) -> Result<Self, Invalid> {
        let raw: DiskQuota = read_fixed(key.value_bytes(), size_of::<DiskQuota>())?;
        Ok(Self {
            space: QuotaLimit {
                hard: raw.space_hard.get(),
                soft: raw.space_soft.get(),
            },
            inodes: QuotaLimit {
                hard: raw.inodes_hard.get(),
                soft: raw.inodes_soft.get(),
            },
        })
    }

    /// Writes the value; returns the words used.
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        build_struct(
            &DiskQuota {
                space_hard: U64::new(self.space.hard),
                space_soft: U64::new(self.space.soft),
                inodes_hard: U64::new(self.inodes.hard),
                inodes_soft: U64::new(self.inodes.soft),
            },
            out,
        )
    }

    /// Checks a key of type `quota`.
    pub(crate) fn validate(key: KeyRef<'_>) -> Result<(), Invalid> {
        if key.key.pos.inode >= QUOTA_TYPES {
            return Err(Invalid::new(
                ErrorId::QUOTA_TYPE_INVALID,
                "unknown kind of quota",
                0,
                key.key.pos.inode,
                QUOTA_TYPES - 1,
            ));
        }
        Self::parse(key).map(drop)
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "space hard {} soft {} inodes hard {} soft {}",
            self.space.hard, self.space.soft, self.inodes.hard, self.inodes.soft
        )
    }
}
