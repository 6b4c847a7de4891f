// SPDX-License-Identifier: GPL-2.0
//! Trees of snapshots: one per subvolume that is not a snapshot. The key is `0 : id : 0`.

use core::fmt;

use zerocopy::byteorder::little_endian::U32;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bkey::KeyRef;
use crate::error::{ErrorId, Invalid};
use crate::keys::layout::{assert_layout, build_struct, read_fixed, BuildError};

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskSnapshotTree {
    master_subvol: U32,
    root_snapshot: U32,
}

assert_layout!(DiskSnapshotTree, 8, { master_subvol: 0, root_snapshot: 4 });

/// A tree of snapshots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SnapshotTree {
    /// The subvolume of the tree that is not a snapshot.
    pub master_subvol: u32,
    /// The root of the tree.
    pub root_snapshot: u32,
}

impl SnapshotTree {
    /// Reads the value of a key of type `snapshot_tree`.
    pub fn parse(key: KeyRef<'_>) -> Result<Self, Invalid> {
        let raw: DiskSnapshotTree = read_fixed(key.value_bytes(), size_of::<DiskSnapshotTree>())?;
        Ok(Self {
            master_subvol: raw.master_subvol.get(),
            root_snapshot: raw.root_snapshot.get(),
        })
    }

    /// Writes the value; returns the words used.
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        build_struct(
            &DiskSnapshotTree {
                master_subvol: U32::new(self.master_subvol),
                root_snapshot: U32::new(self.root_snapshot),
            },
            out,
        )
    }

    /// Checks a key of type `snapshot_tree`.
    pub(crate) fn validate(key: KeyRef<'_>) -> Result<(), Invalid> {
        let pos = key.key.pos;
        if pos.inode != 0 || !(1..=u64::from(u32::MAX)).contains(&pos.offset) {
            return Err(Invalid::new(
                ErrorId::SNAPSHOT_TREE_POS_BAD,
                "number of a snapshot tree out of range",
                0,
                pos.offset,
                u32::MAX.into(),
            ));
        }
        Self::parse(key).map(drop)
    }
}

impl fmt::Display for SnapshotTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "subvol {} root snapshot {}",
            self.master_subvol, self.root_snapshot
        )
    }
}
