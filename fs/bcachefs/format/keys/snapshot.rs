// SPDX-License-Identifier: GPL-2.0
//! Nodes of snapshot trees. The key is `0 : id : 0`.
//!
//! Numbers are handed out downwards, so a parent's is above its children's, and the walk from a
//! node to the root only ever goes up. Skip entries name ancestors further up.
//!
//! Values may be shorter than the structure; what is missing is zero.

use core::fmt;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bkey::KeyRef;
use crate::error::{ErrorId, Invalid};
use crate::keys::layout::{assert_layout, build_struct, read_fixed, BuildError};

/// Shortest value of the type.
const SIZE_MIN: usize = 24;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskSnapshot {
    flags: U32,
    parent: U32,
    children: [U32; 2],
    subvol: U32,
    tree: U32,
    depth: U32,
    skip: [U32; 3],
    btime_lo: U64,
    btime_hi: U64,
}

assert_layout!(DiskSnapshot, 56, {
    flags: 0, parent: 4, children: 8, subvol: 16, tree: 20, depth: 24, skip: 28, btime_lo: 40,
    btime_hi: 48,
});

/// Flags of a snapshot. Unknown ones are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SnapshotFlags(pub u32);

impl SnapshotFlags {
    /// To be deleted.
    pub const DELETED: Self = Self(1 << 0);
    /// A subvolume's current snapshot.
    pub const SUBVOL: Self = Self(1 << 1);

    /// Whether all of `flags` are set.
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

/// A node of a snapshot tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Flags.
    pub flags: SnapshotFlags,
    /// The parent; 0 for the root of a tree.
    pub parent: u32,
    /// The children, the higher number first; 0 for none.
    pub children: [u32; 2],
    /// The subvolume whose current snapshot this is, else 0.
    pub subvol: u32,
    /// The tree.
    pub tree: u32,
    /// Distance from the root.
    pub depth: u32,
    /// Some ancestors, ascending; 0 in a root.
    pub skip: [u32; 3],
    /// Time of creation, in the filesystem's units.
    pub btime: i64,
}

impl Snapshot {
    /// Reads the value of a key of type `snapshot`.
    pub fn parse(key: KeyRef<'_>) -> Result<Self, Invalid> {
        let raw: DiskSnapshot = read_fixed(key.value_bytes(), SIZE_MIN)?;
        Ok(Self {
            flags: SnapshotFlags(raw.flags.get()),
            parent: raw.parent.get(),
            children: raw.children.map(U32::get),
            subvol: raw.subvol.get(),
            tree: raw.tree.get(),
            depth: raw.depth.get(),
            skip: raw.skip.map(U32::get),
            btime: raw.btime_lo.get() as i64,
        })
    }

    /// Whether it is to be deleted.
    pub const fn is_deleted(&self) -> bool {
        self.flags.contains(SnapshotFlags::DELETED)
    }

    /// Whether a subvolume's files are in it now.
    pub const fn is_subvol(&self) -> bool {
        self.flags.contains(SnapshotFlags::SUBVOL)
    }

    /// Whether it has no children.
    pub const fn is_leaf(&self) -> bool {
        matches!(self.children, [0, 0])
    }

    /// The ancestor furthest up that this node names and that is not beyond `ancestor`: one step of
    /// the way to it. 0 if there is none, so that `ancestor` is not above this node.
    ///
    /// For a valid node the result is 0 or above the node's own number, so a walk ends.
    pub fn step_towards(&self, ancestor: u32) -> u32 {
        if self.parent == 0 {
            return 0;
        }
        self.skip
            .iter()
            .chain([&self.parent])
            .copied()
            .filter(|s| *s <= ancestor)
            .max()
            .unwrap_or(0)
    }

    /// Writes the value; returns the words used.
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        build_struct(
            &DiskSnapshot {
                flags: U32::new(self.flags.0),
                parent: U32::new(self.parent),
                children: self.children.map(U32::new),
                subvol: U32::new(self.subvol),
                tree: U32::new(self.tree),
                depth: U32::new(self.depth),
                skip: self.skip.map(U32::new),
                btime_lo: U64::new(self.btime as u64),
                btime_hi: U64::new(0),
            },
            out,
        )
    }

    /// Checks a key of type `snapshot`.
    pub(crate) fn validate(key: KeyRef<'_>) -> Result<(), Invalid> {
        let pos = key.key.pos;
        let id = match u32::try_from(pos.offset) {
            Ok(id) if pos.inode == 0 && id != 0 => id,
            _ => {
                return Err(Invalid::new(
                    ErrorId::SNAPSHOT_POS_BAD,
                    "number of a snapshot out of range",
                    0,
                    pos.offset,
                    u32::MAX.into(),
                ))
            }
        };
        let s = Self::parse(key)?;
        if s.parent != 0 && s.parent <= id {
            return Err(Invalid::new(
                ErrorId::SNAPSHOT_PARENT_BAD,
                "parent of a snapshot not above it",
                4,
                s.parent.into(),
                id.into(),
            ));
        }
        s.validate_children(id)?;
        s.validate_skip()
    }

    fn validate_children(&self, id: u32) -> Result<(), Invalid> {
        let [a, b] = self.children;
        let err = |error, what, got: u32, want: u32| {
            Err(Invalid::new(error, what, 8, got.into(), want.into()))
        };
        if a < b {
            return err(
                ErrorId::SNAPSHOT_CHILDREN_NOT_NORMALIZED,
                "children of a snapshot not in order",
                b,
                a,
            );
        }
        if a != 0 && a == b {
            return err(
                ErrorId::SNAPSHOT_CHILD_DUPLICATE,
                "one child of a snapshot twice",
                a,
                0,
            );
        }
        // The first is the higher.
        if a >= id {
            return err(
                ErrorId::SNAPSHOT_CHILD_BAD,
                "child of a snapshot not below it",
                a,
                id,
            );
        }
        Ok(())
    }

    fn validate_skip(&self) -> Result<(), Invalid> {
        let [a, b, c] = self.skip;
        if a > b || b > c {
            return Err(Invalid::new(
                ErrorId::SNAPSHOT_SKIPLIST_NOT_NORMALIZED,
                "skip entries of a snapshot not in order",
                28,
                a.max(b).into(),
                c.into(),
            ));
        }
        // An entry below the parent is not an ancestor; one at or below the node itself would make
        // the walk to the root endless.
        match self.skip.iter().find(|s| **s != 0 && **s < self.parent) {
            Some(s) => Err(Invalid::new(
                ErrorId::SNAPSHOT_SKIPLIST_BAD,
                "skip entry of a snapshot below its parent",
                28,
                (*s).into(),
                self.parent.into(),
            )),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = self.children;
        let [x, y, z] = self.skip;
        write!(
            f,
            "is_subvol {} deleted {} parent {} children {a} {b} subvol {} tree {} depth {} \
             skiplist {x} {y} {z} btime {}",
            u8::from(self.is_subvol()),
            u8::from(self.is_deleted()),
            self.parent,
            self.subvol,
            self.tree,
            self.depth,
            self.btime
        )
    }
}
