// SPDX-License-Identifier: GPL-2.0
//! Flags of an inode: bits 0..20 of its flags word.

use core::fmt;
use core::ops::BitOr;

/// A set of flags. Unknown ones are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct InodeFlags(pub u32);

impl InodeFlags {
    /// No flags.
    pub const NONE: Self = Self(0);
    /// Writes are synchronous.
    pub const SYNC: Self = Self(1 << 0);
    /// Cannot be changed.
    pub const IMMUTABLE: Self = Self(1 << 1);
    /// Can only be appended to.
    pub const APPEND: Self = Self(1 << 2);
    /// Left out by backup programs.
    pub const NODUMP: Self = Self(1 << 3);
    /// The time of access is not kept.
    pub const NOATIME: Self = Self(1 << 4);
    /// Legacy: the size may be wrong; while set, writes do not raise it.
    pub const I_SIZE_DIRTY: Self = Self(1 << 5);
    /// Legacy: the number of sectors may be wrong.
    pub const I_SECTORS_DIRTY: Self = Self(1 << 6);
    /// There are no names left.
    pub const UNLINKED: Self = Self(1 << 7);
    /// Legacy, without effect.
    pub const BACKPTR_UNTRUSTED: Self = Self(1 << 8);
    /// A version of this inode exists in a descendant snapshot.
    pub const HAS_CHILD_SNAPSHOT: Self = Self(1 << 9);

    const NAMES: [&'static str; 10] = [
        "sync",
        "immutable",
        "append",
        "nodump",
        "noatime",
        "i_size_dirty",
        "i_sectors_dirty",
        "unlinked",
        "backptr_untrusted",
        "has_child_snapshot",
    ];

    /// The bits of the flags word that are flags.
    pub(crate) const MASK: u32 = (1 << 20) - 1;

    /// Whether all of `flags` are set.
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// The set with `flags` added.
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }

    /// The set with `flags` taken out.
    pub const fn without(self, flags: Self) -> Self {
        Self(self.0 & !flags.0)
    }
}

impl BitOr for InodeFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

impl fmt::Display for InodeFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut sep = "";
        for (i, name) in Self::NAMES.iter().enumerate() {
            if self.0 & (1 << i) != 0 {
                write!(f, "{sep}{name}")?;
                sep = ",";
                rest &= !(1 << i);
            }
        }
        if rest != 0 {
            write!(f, "{sep}{rest:#x}")?;
        }
        Ok(())
    }
}
