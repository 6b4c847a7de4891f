// SPDX-License-Identifier: GPL-2.0
//! Files and directories as the btrees hold them: inodes, names, attributes.
//!
//! Functions here work inside a transaction and return plain values; nothing refers to the VFS.
//! All may sleep for I/O. What they return was true in the snapshot that the subvolume had when
//! the transaction ran.

pub mod acl;
pub mod create;
pub mod dirent;
pub mod inode;
pub mod link;
pub mod options;
pub mod rename;
pub mod str_hash;
pub mod xattr;

use core::fmt;

use bcachefs_format::keys::{inode::ROOT_INUM, subvolume::ROOT_SUBVOL};

/// Names an inode within the filesystem: a number, as a subvolume sees it.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct InodeId {
    /// The subvolume through which it was reached.
    pub subvol: u32,
    /// The inode number.
    pub inum: u64,
}

impl InodeId {
    /// The root directory of the filesystem.
    pub const ROOT: InodeId = InodeId {
        subvol: ROOT_SUBVOL,
        inum: ROOT_INUM,
    };
}

impl fmt::Display for InodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inode {} in subvolume {}", self.inum, self.subvol)
    }
}
