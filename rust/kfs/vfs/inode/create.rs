// SPDX-License-Identifier: GPL-2.0

//! Inodes that are being made, for a name or without one.
//!
//! Before anything is written the new inode gets a number, an owner, access control lists and labels; so all of that can be
//! written at once. Then it is [finished](NewInode::finish_created), and what comes out belongs to the VFS.

use super::{Inode, InodeRef, Kind, NewInode};
use crate::{
    bindings,
    vfs::{acl, filesystem::FileSystem},
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::{self, NonNull},
};
use kernel::{error::to_result, ffi, prelude::*, str::CStrExt};

/// What is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link with this target, which is not empty and without zero bytes.
    Symlink(&'a [u8]),
    /// A device node.
    Device {
        /// Of a block device, not a character device.
        block: bool,
        /// Its numbers.
        major: u32,
        /// Its numbers.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl What<'_> {
    fn format(self) -> u32 {
        match self {
            What::Regular => bindings::S_IFREG,
            What::Directory => bindings::S_IFDIR,
            What::Symlink(_) => bindings::S_IFLNK,
            What::Device { block: true, .. } => bindings::S_IFBLK,
            What::Device { .. } => bindings::S_IFCHR,
            What::Fifo => bindings::S_IFIFO,
            What::Socket => bindings::S_IFSOCK,
        }
    }
}

/// A wish for a new file.
///
/// # Invariants
///
/// `idmap` is that of the mount through which it was uttered, during `'a`.
pub struct Creation<'a> {
    idmap: *mut bindings::mnt_idmap,
    /// What is to be made.
    pub what: What<'a>,
    permissions: u16,
}

impl<'a> Creation<'a> {
    /// # Safety
    ///
    /// The invariant of the type must hold.
    pub(super) unsafe fn new(
        idmap: *mut bindings::mnt_idmap,
        what: What<'a>,
        permissions: u16,
    ) -> Self {
        Self { idmap, what, permissions }
    }

    /// The same person's wish for something else: what takes the place of a name that moves away (`RENAME_WHITEOUT`).
    pub(super) fn whiteout(idmap: *mut bindings::mnt_idmap) -> Self {
        let what = What::Device { block: false, major: 0, minor: 0 };
        Self { idmap, what, permissions: 0 }
    }
}

/// The lists that a new file inherits from its directory.
#[derive(Default)]
pub struct Inherited {
    /// The one that decides about access.
    pub access: Option<acl::Entries>,
    /// The one that is handed on, of a directory.
    pub default: Option<acl::Entries>,
}

/// One label that a security module gives a new file.
pub struct Label<'a> {
    /// The attribute's name, without `security.`.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

impl<'sb, T: FileSystem> NewInode<'sb, T> {
    /// Sets owner, group and permissions to those of a file that is made in `dir`.
    pub fn set_created_by(&mut self, creation: &Creation<'_>, dir: &Inode<T>) {
        let mode = creation.what.format() as u16 | creation.permissions & 0o7777;
        // SAFETY: The inode is ours, by the type invariant; so below. The directory is live, the mapping by that of `Creation`.
        unsafe { bindings::inode_init_owner(creation.idmap, self.raw(), dir.as_raw(), mode) };
    }

    /// Owner and group, in ids of the filesystem's user namespace.
    pub fn owner(&self) -> (u32, u32) {
        // SAFETY: See `set_created_by`.
        unsafe { (bindings::kfs_inode_uid(self.raw()), bindings::kfs_inode_gid(self.raw())) }
    }

    /// Type and permissions.
    pub fn mode(&self) -> u16 {
        // SAFETY: See `set_created_by`.
        unsafe { (*self.raw()).i_mode }
    }

    /// What of the directory's default list the file inherits. Without one the process's mask goes off the permissions. May sleep.
    pub fn inherit_acl(&mut self, dir: &Inode<T>) -> Result<Inherited> {
        let (mut default, mut access) = (ptr::null_mut(), ptr::null_mut());
        let mut mode = self.mode();
        // SAFETY: The directory is live; lists that are returned are ours to release.
        let (default, access) = unsafe {
            to_result(bindings::kfs_acl_create(dir.as_raw(), &mut mode, &mut default, &mut access))?;
            (*self.raw()).i_mode = mode;
            (acl::Owned::from_raw(default), acl::Owned::from_raw(access))
        };
        let sb = dir.super_block();
        let read = |list: Option<acl::Owned>| list.map(|l| l.entries(sb)).transpose();
        let inherited = Inherited { access: read(access)?, default: read(default)? };
        if inherited.access.is_none() && inherited.default.is_none() {
            self.set_no_acl();
        }
        Ok(inherited)
    }

    /// Calls `each` with the labels that security modules give the file, called `name` (`None` if it gets no name). May sleep.
    pub fn label(
        &mut self,
        dir: &Inode<T>,
        name: Option<&[u8]>,
        mut each: impl FnMut(Label<'_>) -> Result,
    ) -> Result {
        let mut each: &mut dyn FnMut(Label<'_>) -> Result = &mut each;
        let (name, len) = name.map_or((ptr::null(), 0), |n| (n.as_ptr(), n.len()));
        // SAFETY: Both inodes are live, the name is readable for its length, the callback gets what it wants.
        to_result(unsafe {
            bindings::kfs_security_init(
                self.raw(),
                dir.as_raw(),
                name.cast(),
                len,
                Some(label),
                ptr::from_mut(&mut each).cast(),
            )
        })
    }

    /// Makes the inode ready, but does not let others use it yet: that happens when the VFS takes it.
    pub fn finish_created(self, kind: Kind<T>, data: T::InodeData) -> Created<'sb, T> {
        Created(self.fill(kind, data), PhantomData)
    }
}

/// The callback of `security_inode_init_security`.
///
/// # Safety
///
/// For that function only, with what `NewInode::label` passes: a list that a nameless entry closes.
unsafe extern "C" fn label(
    _: *mut bindings::inode,
    list: *const bindings::xattr,
    each: *mut ffi::c_void,
) -> i32 {
    kernel::error::from_result(|| {
        // SAFETY: By the contract.
        let each = unsafe { &mut *each.cast::<&mut dyn FnMut(Label<'_>) -> Result>() };
        for index in 0.. {
            let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
            // SAFETY: The entries before were not the last one. Names are terminated, values readable for their length.
            let label = unsafe {
                if !bindings::kfs_xattr_at(list, index, &mut name, &mut value, &mut len) {
                    break;
                }
                let value = match len {
                    0 => &[],
                    _ => core::slice::from_raw_parts(value.cast::<u8>(), len),
                };
                Label { name: CStr::from_char_ptr(name).to_bytes(), value }
            };
            each(label)?;
        }
        Ok(0)
    })
}

/// A new inode on its way to the VFS.
///
/// # Invariants
///
/// The pointer is to an [`Inode<T>`] that is still locked as new, with a reference of its own.
pub struct Created<'sb, T: FileSystem>(NonNull<bindings::inode>, PhantomData<InodeRef<'sb, T>>);

impl<'sb, T: FileSystem> Created<'sb, T> {
    /// Lets others use the inode.
    pub fn unlock(self) -> InodeRef<'sb, T> {
        let raw = ManuallyDrop::new(self).0;
        // SAFETY: By the type invariant; the reference goes to the result.
        unsafe {
            bindings::unlock_new_inode(raw.as_ptr());
            InodeRef::from_raw(raw)
        }
    }

    /// Makes it the inode of `dentry`, and lets others use it.
    ///
    /// # Safety
    ///
    /// `dentry` must be negative, of this superblock, its directory locked for change.
    pub(super) unsafe fn instantiate(self, dentry: *mut bindings::dentry) {
        let raw = ManuallyDrop::new(self).0;
        // SAFETY: By the contract and the type invariant; the reference goes to the dentry.
        unsafe { bindings::d_instantiate_new(dentry, raw.as_ptr()) };
    }
}

impl<T: FileSystem> core::ops::Deref for Created<'_, T> {
    type Target = Inode<T>;

    fn deref(&self) -> &Inode<T> {
        // SAFETY: By the type invariant.
        unsafe { Inode::from_raw(self.0.as_ptr()) }
    }
}

impl<T: FileSystem> Drop for Created<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; the reference is ours.
        unsafe {
            bindings::unlock_new_inode(self.0.as_ptr());
            bindings::iput(self.0.as_ptr());
        }
    }
}
