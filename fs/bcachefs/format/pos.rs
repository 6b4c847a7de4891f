// SPDX-License-Identifier: GPL-2.0
//! Positions in a btree.
//!
//! A position is one 160-bit number, most significant part first: inode, offset, snapshot. Its
//! order is the order of keys in every btree.

use core::fmt;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A position, in memory. Ordered by inode, then offset, then snapshot.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bpos {
    /// Inode number in the filesystem's own trees; another major number elsewhere (device, …).
    pub inode: u64,
    /// Offset; in sectors where the tree holds extents.
    pub offset: u64,
    /// Snapshot id; 0 in trees without snapshots.
    pub snapshot: u32,
}

impl Bpos {
    /// The lowest position.
    pub const POS_MIN: Bpos = Bpos::new(0, 0);
    /// The highest position in a tree without snapshots.
    pub const POS_MAX: Bpos = Bpos::new(u64::MAX, u64::MAX);
    /// The highest position.
    pub const SPOS_MAX: Bpos = Bpos::with_snapshot(u64::MAX, u64::MAX, u32::MAX);

    /// A position with snapshot 0.
    #[inline]
    pub const fn new(inode: u64, offset: u64) -> Self {
        Self::with_snapshot(inode, offset, 0)
    }

    /// A position with all three parts.
    #[inline]
    pub const fn with_snapshot(inode: u64, offset: u64, snapshot: u32) -> Self {
        Bpos {
            inode,
            offset,
            snapshot,
        }
    }

    /// The same position in snapshot `snapshot`.
    #[inline]
    pub const fn at_snapshot(mut self, snapshot: u32) -> Self {
        self.snapshot = snapshot;
        self
    }

    /// The next position, `None` after [`Bpos::SPOS_MAX`].
    #[inline]
    pub fn successor(self) -> Option<Self> {
        if let Some(snapshot) = self.snapshot.checked_add(1) {
            return Some(self.at_snapshot(snapshot));
        }
        self.at_snapshot(0).nosnap_successor()
    }

    /// The previous position, `None` before [`Bpos::POS_MIN`].
    #[inline]
    pub fn predecessor(self) -> Option<Self> {
        if let Some(snapshot) = self.snapshot.checked_sub(1) {
            return Some(self.at_snapshot(snapshot));
        }
        self.nosnap_predecessor().map(|p| p.at_snapshot(u32::MAX))
    }

    /// The next (inode, offset) with snapshot 0, `None` when there is none.
    #[inline]
    pub fn nosnap_successor(self) -> Option<Self> {
        match self.offset.checked_add(1) {
            Some(offset) => Some(Self::new(self.inode, offset)),
            None => Some(Self::new(self.inode.checked_add(1)?, 0)),
        }
    }

    /// The previous (inode, offset) with snapshot 0, `None` when there is none.
    #[inline]
    pub fn nosnap_predecessor(self) -> Option<Self> {
        match self.offset.checked_sub(1) {
            Some(offset) => Some(Self::new(self.inode, offset)),
            None => Some(Self::new(self.inode.checked_sub(1)?, u64::MAX)),
        }
    }

    /// Whether inode and offset are equal; the snapshot is ignored.
    #[inline]
    pub const fn eq_nosnap(self, other: Self) -> bool {
        self.inode == other.inode && self.offset == other.offset
    }

    /// Order by inode and offset; the snapshot is ignored.
    #[inline]
    pub fn cmp_nosnap(self, other: Self) -> core::cmp::Ordering {
        (self.inode, self.offset).cmp(&(other.inode, other.offset))
    }
}

impl fmt::Display for Bpos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::POS_MIN => f.write_str("POS_MIN"),
            Self::POS_MAX => f.write_str("POS_MAX"),
            Self::SPOS_MAX => f.write_str("SPOS_MAX"),
            p => {
                max_or(f, p.inode, p.inode == u64::MAX)?;
                f.write_str(":")?;
                max_or(f, p.offset, p.offset == u64::MAX)?;
                f.write_str(":")?;
                max_or(f, u64::from(p.snapshot), p.snapshot == u32::MAX)
            }
        }
    }
}

/// Prints `v`, or `U64_MAX`/`U32_MAX` style shorthand where all bits are set.
fn max_or(f: &mut fmt::Formatter<'_>, v: u64, is_max: bool) -> fmt::Result {
    if !is_max {
        write!(f, "{v}")
    } else if v == u64::MAX {
        f.write_str("U64_MAX")
    } else {
        f.write_str("U32_MAX")
    }
}

impl fmt::Debug for Bpos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A position as stored outside of key headers (20 bytes, no alignment).
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
pub struct DiskBpos {
    /// Snapshot id.
    pub snapshot: U32,
    /// Offset.
    pub offset: U64,
    /// Inode number.
    pub inode: U64,
}

const _: () = assert!(core::mem::size_of::<DiskBpos>() == 20);

impl DiskBpos {
    /// The position in native form.
    #[inline]
    pub const fn get(&self) -> Bpos {
        Bpos::with_snapshot(self.inode.get(), self.offset.get(), self.snapshot.get())
    }
}

impl From<DiskBpos> for Bpos {
    #[inline]
    fn from(p: DiskBpos) -> Bpos {
        p.get()
    }
}

impl From<Bpos> for DiskBpos {
    #[inline]
    fn from(p: Bpos) -> DiskBpos {
        DiskBpos {
            snapshot: U32::new(p.snapshot),
            offset: U64::new(p.offset),
            inode: U64::new(p.inode),
        }
    }
}
