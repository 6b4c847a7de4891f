// SPDX-License-Identifier: GPL-2.0
//! Subvolumes. The key is `0 : id : 0`; 1 is the root subvolume.
//!
//! Values may be shorter than the structure; what is missing is zero.

use core::fmt;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bkey::KeyRef;
use crate::error::{ErrorId, Invalid};
use crate::keys::layout::{assert_layout, build_struct, read_fixed, BuildError};

/// Highest number of a subvolume.
pub const SUBVOL_ID_MAX: u64 = i32::MAX as u64;
/// The root subvolume.
pub const ROOT_SUBVOL: u32 = 1;
/// Shortest value of the type.
const SIZE_MIN: usize = 16;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskSubvolume {
    flags: U32,
    snapshot: U32,
    inode: U64,
    creation_parent: U32,
    fs_path_parent: U32,
    otime_lo: U64,
    otime_hi: U64,
}

assert_layout!(DiskSubvolume, 40, {
    flags: 0, snapshot: 4, inode: 8, creation_parent: 16, fs_path_parent: 20, otime_lo: 24,
    otime_hi: 32,
});

/// Flags of a subvolume. Unknown ones are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SubvolumeFlags(pub u32);

impl SubvolumeFlags {
    /// Read-only.
    pub const RO: Self = Self(1 << 0);
    /// A snapshot of another subvolume.
    pub const SNAP: Self = Self(1 << 1);
    /// Being deleted.
    pub const UNLINKED: Self = Self(1 << 2);

    /// Whether all of `flags` are set.
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

/// A subvolume.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Subvolume {
    /// Flags.
    pub flags: SubvolumeFlags,
    /// The snapshot that its files are in now; a leaf of its tree.
    pub snapshot: u32,
    /// Number of its root directory's inode.
    pub inode: u64,
    /// The subvolume it was made as a snapshot of, else 0.
    pub creation_parent: u32,
    /// The subvolume that has its directory entry; 0 for the root subvolume.
    pub fs_path_parent: u32,
    /// Time of creation, in the filesystem's units.
    pub otime: i64,
}

impl Subvolume {
    /// Reads the value of a key of type `subvolume`.
    pub fn parse(key: KeyRef<'_>) -> Result<Self, Invalid> {
        let raw: DiskSubvolume = read_fixed(key.value_bytes(), SIZE_MIN)?;
        Ok(Self {
            flags: SubvolumeFlags(raw.flags.get()),
            snapshot: raw.snapshot.get(),
            inode: raw.inode.get(),
            creation_parent: raw.creation_parent.get(),
            fs_path_parent: raw.fs_path_parent.get(),
            otime: raw.otime_lo.get() as i64,
        })
    }

    /// Whether its files cannot be changed.
    pub const fn is_ro(&self) -> bool {
        self.flags.contains(SubvolumeFlags::RO)
    }

    /// Whether it is a snapshot of another subvolume.
    pub const fn is_snap(&self) -> bool {
        self.flags.contains(SubvolumeFlags::SNAP)
    }

    /// Whether it is being deleted.
    pub const fn is_unlinked(&self) -> bool {
        self.flags.contains(SubvolumeFlags::UNLINKED)
    }

    /// Writes the value; returns the words used.
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        build_struct(
            &DiskSubvolume {
                flags: U32::new(self.flags.0),
                snapshot: U32::new(self.snapshot),
                inode: U64::new(self.inode),
                creation_parent: U32::new(self.creation_parent),
                fs_path_parent: U32::new(self.fs_path_parent),
                otime_lo: U64::new(self.otime as u64),
                otime_hi: U64::new(0),
            },
            out,
        )
    }

    /// Checks a key of type `subvolume`.
    pub(crate) fn validate(key: KeyRef<'_>) -> Result<(), Invalid> {
        let pos = key.key.pos;
        if pos.inode != 0 || !(1..=SUBVOL_ID_MAX).contains(&pos.offset) {
            return Err(Invalid::new(
                ErrorId::SUBVOL_POS_BAD,
                "number of a subvolume out of range",
                0,
                pos.offset,
                SUBVOL_ID_MAX,
            ));
        }
        let s = Self::parse(key)?;
        if s.snapshot == 0 {
            return Err(Invalid::new(
                ErrorId::SUBVOL_SNAPSHOT_BAD,
                "subvolume without snapshot",
                4,
                0,
                1,
            ));
        }
        if s.inode == 0 {
            return Err(Invalid::new(
                ErrorId::SUBVOL_INODE_BAD,
                "subvolume without root directory",
                8,
                0,
                1,
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Subvolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "root {} snapshot {} creation_parent {} fs_parent {} otime {}",
            self.inode, self.snapshot, self.creation_parent, self.fs_path_parent, self.otime
        )?;
        for (on, name) in [
            (self.is_ro(), " ro"),
            (self.is_snap(), " snap"),
            (self.is_unlinked(), " unlinked"),
        ] {
            if on {
                f.write_str(name)?;
            }
        }
        Ok(())
    }
}
