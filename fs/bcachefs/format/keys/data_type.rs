// SPDX-License-Identifier: GPL-2.0
//! What a bucket holds.

use core::fmt;

/// What a bucket, or a set of replicas, holds. Open: unknown numbers are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct DataType(pub u8);

impl DataType {
    /// Nothing.
    pub const FREE: Self = Self(0);
    /// Superblocks.
    pub const SB: Self = Self(1);
    /// Journal.
    pub const JOURNAL: Self = Self(2);
    /// Btree nodes.
    pub const BTREE: Self = Self(3);
    /// File data.
    pub const USER: Self = Self(4);
    /// Redundant copies of file data.
    pub const CACHED: Self = Self(5);
    /// Parity of a stripe.
    pub const PARITY: Self = Self(6);
    /// Data in a stripe.
    pub const STRIPE: Self = Self(7);
    /// Nothing, but old pointers to the bucket have to be looked for first.
    pub const NEED_GC_GENS: Self = Self(8);
    /// Nothing, but the bucket is to be discarded first.
    pub const NEED_DISCARD: Self = Self(9);
    /// In accounting only: sectors in a bucket of a stripe that are not covered by it.
    pub const UNSTRIPED: Self = Self(10);

    const NAMES: [&'static str; 11] = [
        "free",
        "sb",
        "journal",
        "btree",
        "user",
        "cached",
        "parity",
        "stripe",
        "need_gc_gens",
        "need_discard",
        "unstriped",
    ];

    /// Number of types known.
    pub const COUNT: u8 = Self::NAMES.len() as u8;

    /// Whether the number is defined.
    pub const fn is_known(self) -> bool {
        self.0 < Self::COUNT
    }

    /// Whether a bucket of this type holds nothing.
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::FREE | Self::NEED_GC_GENS | Self::NEED_DISCARD)
    }

    /// Whether data of both types can share a bucket.
    pub fn can_share(self, other: Self) -> bool {
        let norm = |t| match t {
            Self::CACHED | Self::STRIPE => Self::USER,
            t => t,
        };
        self.is_empty() || other.is_empty() || norm(self) == norm(other)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.get(usize::from(self.0)) {
            Some(name) => f.write_str(name),
            None => write!(f, "unknown({})", self.0),
        }
    }
}
