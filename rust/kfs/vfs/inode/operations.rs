// SPDX-License-Identifier: GPL-2.0

//! The trait for the operations of inodes.

use super::{Inode, InodeRef};
use crate::vfs::{
    acl,
    filesystem::FileSystem,
    iomap::FiemapRequest,
    stat::Stat,
    xattr::Names,
};
use kernel::{error::VTABLE_DEFAULT_ERROR, prelude::*};

/// Operations on inodes.
///
/// One implementation may serve all kinds of files, or each kind its own.
#[vtable]
pub trait Operations: 'static {
    /// The filesystem.
    type FileSystem: FileSystem;

    /// Finds the entry `name` of a directory: `None` if there is none. `name` is never empty, `.` or `..`, and can be longer
    /// than any name the filesystem has.
    ///
    /// The directory is locked shared.
    fn lookup<'a>(
        _dir: &'a Inode<Self::FileSystem>,
        _name: &[u8],
    ) -> Result<Option<InodeRef<'a, Self::FileSystem>>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Reads a symbolic link: its target, without a zero byte at the end.
    fn link(_inode: &Inode<Self::FileSystem>) -> Result<KVec<u8>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Adds to what `stat` reports.
    fn getattr(_inode: &Inode<Self::FileSystem>, _stat: &mut Stat<'_>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Lists the names of extended attributes, prefixes included; ACLs as `system.posix_acl_access` and
    /// `system.posix_acl_default`. The `trusted.` ones are hidden by [`Names`] from those who may not see them.
    fn listxattr(_inode: &Inode<Self::FileSystem>, _names: &mut Names<'_>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Reads an access control list; `None` if the file has none. The VFS keeps the answer with the inode.
    fn acl(_inode: &Inode<Self::FileSystem>, _kind: acl::Kind) -> Result<Option<acl::Entries>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Reports how the file is stored. Implement it with [`iomap::fiemap`](crate::vfs::iomap::fiemap).
    fn fiemap(_inode: &Inode<Self::FileSystem>, _request: FiemapRequest<'_>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}
