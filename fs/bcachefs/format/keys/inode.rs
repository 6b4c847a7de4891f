// SPDX-License-Identifier: GPL-2.0
//! Inodes.
//!
//! Three generations of the value exist; all decode to one [`Inode`], and only the newest is
//! written. The key's position is `0:number:snapshot`: an inode may have one version per snapshot.
//!
//! | file | what it has |
//! |---|---|
//! | `fields` | the list of variable-length fields and its encodings |
//! | `v1`, `v2`, `v3` | the fixed part of each generation |
//! | `flags`, `options`, `mode`, `time` | parts of the decoded inode |
//! | `generation` | what is left at the number of a deleted inode |

use core::fmt;

use crate::bkey::{KeyRef, KeyType};
use crate::error::{ErrorId, Invalid};
use crate::keys::str_hash::StrHashType;

mod fields;
pub mod flags;
pub mod generation;
pub mod mode;
pub mod options;
pub mod time;
mod v1;
mod v2;
mod v3;

pub use flags::InodeFlags;
pub use generation::InodeGeneration;
pub use mode::{FileType, Mode};
pub use options::{InodeOpt, InodeOptions};
pub use time::TimeBase;

/// Lowest inode number of a file; those below are reserved.
pub const INUM_MIN: u64 = 4096;
/// Inode number of the root directory of the root subvolume.
pub const ROOT_INUM: u64 = 4096;
/// The most words [`Inode::build`] uses: the fixed part, and 28 numbers of up to nine bytes.
pub const INODE_WORDS_MAX: usize = 6 + (28 * 9usize).div_ceil(8);

/// An inode, decoded from any generation of the value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Inode {
    /// Inode number, from the key's position.
    pub inum: u64,
    /// Snapshot this version belongs to, from the key's position.
    pub snapshot: u32,
    /// Journal sequence number of the last transaction that wrote the key.
    pub journal_seq: u64,
    /// Seed of the hash of names (as the little-endian number of its bytes); the same in all
    /// versions.
    pub hash_seed: u64,
    /// Flags.
    pub flags: InodeFlags,
    /// Which hash names are placed by, in a directory's entries and any inode's attributes.
    pub str_hash: StrHashType,
    /// File type and permissions.
    pub mode: Mode,
    /// Length in bytes; 0 for directories.
    pub size: u64,
    /// Sectors allocated, without regard to replicas and compression.
    pub sectors: u64,
    /// Not used by version 1.13, kept.
    pub version: u64,
    /// Time of last access, in the filesystem's units ([`TimeBase`]).
    pub atime: i64,
    /// Time of last change of the inode.
    pub ctime: i64,
    /// Time of last change of the data.
    pub mtime: i64,
    /// Time of creation.
    pub otime: i64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of links less [`Inode::nlink_bias`]; see [`Inode::nlink`].
    pub nlink: u32,
    /// Generation of the number, for file handles.
    pub generation: u32,
    /// Device number of a device node: major in bits 20.., minor below.
    pub dev: u32,
    /// Options of this inode.
    pub options: InodeOptions,
    /// Directory of the most recent link; 0 if unknown.
    pub dir: u64,
    /// Offset of the entry in that directory.
    pub dir_offset: u64,
    /// The subvolume whose root this is, else 0.
    pub subvol: u32,
    /// For roots of subvolumes, the subvolume that holds the entry.
    pub parent_subvol: u32,
}

impl Inode {
    /// Reads the value of a key of type `inode`, `inode_v2` or `inode_v3`.
    pub fn parse(key: KeyRef<'_>) -> Result<Self, Invalid> {
        let mut inode = match key.key.key_type {
            KeyType::INODE => v1::parse(key.value_bytes())?,
            KeyType::INODE_V2 => v2::parse(key.value_bytes())?,
            _ => v3::parse(key.value_bytes())?,
        };
        inode.inum = key.key.pos.offset;
        inode.snapshot = key.key.pos.snapshot;
        Ok(inode)
    }

    /// Writes an `inode_v3` value; returns the words used, at most [`INODE_WORDS_MAX`].
    pub fn build(&self, out: &mut [u64]) -> Result<usize, crate::keys::BuildError> {
        v3::build(self, out)
    }

    /// Links that every inode of this type has and that are not stored.
    pub const fn nlink_bias(&self) -> u32 {
        if self.mode.is_dir() {
            2
        } else {
            1
        }
    }

    /// The number of links, as stat reports it.
    pub const fn nlink(&self) -> u32 {
        if self.flags.contains(InodeFlags::UNLINKED) {
            0
        } else {
            self.nlink.saturating_add(self.nlink_bias())
        }
    }

    /// Major and minor number of a device node.
    pub const fn rdev(&self) -> (u32, u32) {
        (self.dev >> 20, self.dev & 0xf_ffff)
    }

    /// Whether this is the root directory of a subvolume.
    pub const fn is_subvol_root(&self) -> bool {
        self.subvol != 0
    }

    /// Checks the value of a key of any inode type.
    pub(crate) fn validate(key: KeyRef<'_>) -> Result<(), Invalid> {
        let pos = key.key.pos;
        if pos.inode != 0 {
            return Err(Invalid::new(
                ErrorId::INODE_POS_INODE_NONZERO,
                "inode key outside 0:number",
                0,
                pos.inode,
                0,
            ));
        }
        if pos.offset < INUM_MIN {
            return Err(Invalid::new(
                ErrorId::INODE_POS_BLOCKDEV_RANGE,
                "inode number in the reserved range",
                0,
                pos.offset,
                INUM_MIN,
            ));
        }
        let inode = Self::parse(key)?;
        if !inode.str_hash.is_known() {
            return Err(Invalid::new(
                ErrorId::INODE_STR_HASH_INVALID,
                "unknown hash of names",
                16,
                u64::from(inode.str_hash.0),
                3,
            ));
        }
        inode.options.validate()?;
        if inode.flags.contains(InodeFlags::UNLINKED) && inode.nlink != 0 {
            return Err(Invalid::new(
                ErrorId::INODE_UNLINKED_BUT_NLINK_NONZERO,
                "unlinked inode has links",
                0,
                u64::from(inode.nlink),
                0,
            ));
        }
        if inode.subvol != 0 && !inode.mode.is_dir() {
            return Err(Invalid::new(
                ErrorId::INODE_SUBVOL_ROOT_BUT_NOT_DIR,
                "root of a subvolume is not a directory",
                0,
                u64::from(inode.mode.0),
                u64::from(mode::S_IFDIR),
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Inode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "mode {} flags ({}) journal_seq {} hash_seed {:x} hash_type {} size {} sectors {} \
             version {}",
            self.mode,
            self.flags,
            self.journal_seq,
            self.hash_seed,
            self.str_hash,
            self.size,
            self.sectors,
            self.version
        )?;
        write!(
            f,
            " atime {} ctime {} mtime {} otime {} uid {} gid {} nlink {} generation {} dev {}",
            self.atime,
            self.ctime,
            self.mtime,
            self.otime,
            self.uid,
            self.gid,
            self.nlink,
            self.generation,
            self.dev
        )?;
        write!(
            f,
            " {} dir {} dir_offset {} subvol {} parent_subvol {}",
            self.options, self.dir, self.dir_offset, self.subvol, self.parent_subvol
        )
    }
}
