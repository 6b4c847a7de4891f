// SPDX-License-Identifier: GPL-2.0

//! The trait for the operations of inodes.

use super::{
    attributes::FileAttributes,
    change::{Changes, TimeUpdate},
    create::{Created, Creation},
    names::{Name, RenameMode},
    Inode, InodeRef,
};
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

    /// Makes a file in a directory, as `name` or without one (`O_TMPFILE`): then it goes away with its last user.
    ///
    /// The directory is locked for change. So it is for the other changes of names, and what they are about is locked, too.
    fn create<'a>(
        _dir: &'a Inode<Self::FileSystem>,
        _name: Option<&[u8]>,
        _creation: &Creation<'_>,
    ) -> Result<Created<'a, Self::FileSystem>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Gives `inode`, which is not a directory, another name.
    fn add_link(
        _inode: &Inode<Self::FileSystem>,
        _dir: &Inode<Self::FileSystem>,
        _name: &[u8],
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Removes the name of `inode`, which may be a directory (`ENOTEMPTY` if there is something in it).
    fn remove(
        _dir: &Inode<Self::FileSystem>,
        _name: &[u8],
        _inode: &Inode<Self::FileSystem>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Moves a name. With `whiteout` that is made in its place.
    fn rename(
        _from: Name<'_, Self::FileSystem>,
        _to: Name<'_, Self::FileSystem>,
        _mode: RenameMode,
        _whiteout: Option<&Creation<'_>>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes attributes, and the VFS's fields with them. What the caller may not do has been refused before. The inode is locked
    /// for change.
    fn setattr(_inode: &Inode<Self::FileSystem>, _changes: &Changes) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Writes the times that the VFS has just changed in its own fields. Nothing is locked. With `lazytime` it is not called: see
    /// [`FileSystem::write_inode`].
    fn update_time(_inode: &Inode<Self::FileSystem>, _update: TimeUpdate) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sets an access control list, or removes it, and the permissions with it if `mode` says so. The inode is locked for change.
    fn set_acl(
        _inode: &Inode<Self::FileSystem>,
        _kind: acl::Kind,
        _entries: Option<&[acl::Entry]>,
        _mode: Option<u16>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// What `FS_IOC_GETFLAGS` and `FS_IOC_FSGETXATTR` report.
    fn attributes(_inode: &Inode<Self::FileSystem>) -> Result<FileAttributes> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes what [`attributes`](Self::attributes) reports, and the VFS's fields with it. The inode is locked for change.
    fn set_attributes(
        _inode: &Inode<Self::FileSystem>,
        _attributes: &FileAttributes,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}
