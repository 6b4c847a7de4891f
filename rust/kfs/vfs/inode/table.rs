// SPDX-License-Identifier: GPL-2.0

//! The table of an inode's operations.

use super::{Inode, Operations};
use crate::{
    bindings,
    errno::Errno,
    vfs::{acl, filesystem::FileSystem, iomap::FiemapRequest, stat::Stat, xattr::Names},
};
use core::{marker::PhantomData, ptr};
use kernel::{error::from_result, ffi, prelude::*};

/// A filesystem's table of inode operations, made from [`Operations`].
///
/// In truth three tables, for the VFS tells symbolic links and directories by the operations they have.
pub struct Table<T>(&'static Tables, PhantomData<fn(T)>);

struct Tables {
    directory: bindings::inode_operations,
    symlink: bindings::inode_operations,
    other: bindings::inode_operations,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Table<T> {}

impl<T: FileSystem> Table<T> {
    /// The table for `O`.
    pub const fn new<O: Operations<FileSystem = T>>() -> Self {
        Self(&Callbacks::<O>::TABLES, PhantomData)
    }

    /// The C table for a file of a type (`S_IF…`).
    pub(super) fn as_raw(&self, format: u32) -> *const bindings::inode_operations {
        match format {
            bindings::S_IFDIR => &self.0.directory,
            bindings::S_IFLNK => &self.0.symlink,
            _ => &self.0.other,
        }
    }
}

/// The target of a symbolic link: no longer than what `readlink(2)` and path lookup take.
const MAX_LINK: usize = bindings::PATH_MAX as usize - 1;

/// The callbacks of `struct inode_operations`.
///
/// The VFS calls them for inodes that carry the table, which are [`Inode`]s of the right type: `NewInode::finish` sees to both.
/// Unless said otherwise a reference to the inode is held during the call.
pub(super) struct Callbacks<O>(PhantomData<O>);

impl<O: Operations> Callbacks<O> {
    const TABLES: Tables = Tables {
        directory: bindings::inode_operations {
            lookup: if O::HAS_LOOKUP { Some(Self::lookup) } else { None },
            create: if O::HAS_CREATE { Some(Self::create) } else { None },
            mkdir: if O::HAS_CREATE { Some(Self::mkdir) } else { None },
            symlink: if O::HAS_CREATE { Some(Self::symlink) } else { None },
            mknod: if O::HAS_CREATE { Some(Self::mknod) } else { None },
            tmpfile: if O::HAS_CREATE { Some(Self::tmpfile) } else { None },
            link: if O::HAS_ADD_LINK { Some(Self::link) } else { None },
            unlink: if O::HAS_REMOVE { Some(Self::unlink) } else { None },
            rmdir: if O::HAS_REMOVE { Some(Self::unlink) } else { None },
            rename: if O::HAS_RENAME { Some(Self::rename) } else { None },
            ..Self::COMMON
        },
        symlink: bindings::inode_operations {
            get_link: if O::HAS_LINK { Some(Self::get_link) } else { None },
            ..Self::COMMON
        },
        other: Self::COMMON,
    };

    const COMMON: bindings::inode_operations = bindings::inode_operations {
        getattr: Some(Self::getattr),
        listxattr: if O::HAS_LISTXATTR { Some(Self::listxattr) } else { None },
        get_inode_acl: if O::HAS_ACL { Some(Self::get_inode_acl) } else { None },
        set_acl: if O::HAS_SET_ACL { Some(Self::set_acl) } else { None },
        setattr: if O::HAS_SETATTR { Some(Self::setattr) } else { None },
        update_time: if O::HAS_UPDATE_TIME { Some(Self::update_time) } else { None },
        fileattr_get: if O::HAS_ATTRIBUTES { Some(Self::fileattr_get) } else { None },
        fileattr_set: if O::HAS_SET_ATTRIBUTES { Some(Self::fileattr_set) } else { None },
        fiemap: if O::HAS_FIEMAP { Some(Self::fiemap) } else { None },
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// For the VFS only, as all below.
    unsafe extern "C" fn lookup(
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        _flags: u32,
    ) -> *mut bindings::dentry {
        // SAFETY: See `Callbacks`. The name of a dentry in lookup does not change.
        let (dir, name) = unsafe {
            let mut length = 0;
            let name = bindings::kfs_dentry_name(dentry, &mut length);
            (Inode::from_raw(dir), core::slice::from_raw_parts(name, length))
        };
        let inode = match O::lookup(dir, name) {
            Ok(Some(inode)) => inode.into_raw(),
            Ok(None) => ptr::null_mut(),
            Err(error) => return error.to_ptr(),
        };
        // SAFETY: The reference to the inode is given away, also if this fails.
        unsafe { bindings::d_splice_alias(inode, dentry) }
    }

    /// # Safety
    ///
    /// See `lookup`. Without a dentry: under RCU, without a reference.
    unsafe extern "C" fn get_link(
        dentry: *mut bindings::dentry,
        inode: *mut bindings::inode,
        done: *mut bindings::delayed_call,
    ) -> *const ffi::c_char {
        if dentry.is_null() {
            return ECHILD.to_ptr::<ffi::c_char>();
        }
        // SAFETY: See `Callbacks`.
        match Self::read_link(unsafe { Inode::from_raw(inode) }) {
            Ok(target) => {
                let (target, _, _) = target.into_raw_parts();
                // SAFETY: The VFS calls `kfree_link` when it is done with the string, which was allocated by kmalloc.
                unsafe {
                    (*done).fn_ = Some(bindings::kfree_link);
                    (*done).arg = target.cast();
                }
                target.cast()
            }
            Err(error) => error.to_ptr::<ffi::c_char>(),
        }
    }

    /// The target, with a zero byte at its end and none before.
    fn read_link(inode: &Inode<O::FileSystem>) -> Result<KVec<u8>> {
        let mut target = O::link(inode)?;
        if target.is_empty() || target.contains(&0) {
            return Err(Errno::EUCLEAN.into());
        }
        if target.len() > MAX_LINK {
            return Err(Errno::ENAMETOOLONG.into());
        }
        target.push(0, GFP_KERNEL)?;
        Ok(target)
    }

    /// # Safety
    ///
    /// See `lookup`.
    unsafe extern "C" fn getattr(
        idmap: *mut bindings::mnt_idmap,
        path: *const bindings::path,
        stat: *mut bindings::kstat,
        request: u32,
        _flags: u32,
    ) -> i32 {
        from_result(|| {
            // SAFETY: See `Callbacks`; the structure is the caller's own, and ours during the call.
            let (inode, stat) = unsafe {
                let inode = bindings::kfs_d_inode((*path).dentry);
                bindings::generic_fillattr(idmap, request, inode, stat);
                bindings::generic_fill_statx_attr(inode, stat);
                (Inode::from_raw(inode), &mut *stat)
            };
            if O::HAS_GETATTR {
                O::getattr(inode, &mut Stat::new(stat, request))?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See `lookup`.
    unsafe extern "C" fn listxattr(
        dentry: *mut bindings::dentry,
        buffer: *mut ffi::c_char,
        size: usize,
    ) -> isize {
        from_result_isize(|| {
            // SAFETY: See `Callbacks`; the buffer is the caller's, and ours during the call. Zero bytes of it mean none.
            let (inode, mut names) = unsafe {
                let buffer = (size != 0 && !buffer.is_null())
                    .then(|| core::slice::from_raw_parts_mut(buffer.cast::<u8>(), size));
                (Inode::from_raw(bindings::kfs_d_inode(dentry)), Names::new(buffer))
            };
            O::listxattr(inode, &mut names)?;
            names.finish()
        })
    }

    /// # Safety
    ///
    /// See `lookup`. With `rcu`: under RCU, without a reference.
    unsafe extern "C" fn get_inode_acl(
        inode: *mut bindings::inode,
        kind: i32,
        rcu: bool,
    ) -> *mut kernel::bindings::posix_acl {
        if rcu {
            return ECHILD.to_ptr();
        }
        let kind = match kind as u32 {
            bindings::ACL_TYPE_ACCESS => acl::Kind::Access,
            bindings::ACL_TYPE_DEFAULT => acl::Kind::Default,
            _ => return EINVAL.to_ptr(),
        };
        // SAFETY: See `Callbacks`.
        let inode = unsafe { Inode::<O::FileSystem>::from_raw(inode) };
        let acl = O::acl(inode, kind).and_then(|acl| match acl {
            Some(entries) => acl::build(inode.super_block(), &entries),
            None => Ok(ptr::null_mut()),
        });
        match acl {
            Ok(acl) => acl.cast(),
            Err(error) => error.to_ptr(),
        }
    }

    /// # Safety
    ///
    /// See `lookup`.
    unsafe extern "C" fn fiemap(
        inode: *mut bindings::inode,
        info: *mut bindings::fiemap_extent_info,
        start: u64,
        length: u64,
    ) -> i32 {
        from_result(|| {
            // SAFETY: See `Callbacks`; `info` is valid during the call.
            let (inode, request) =
                unsafe { (Inode::from_raw(inode), FiemapRequest::new(info, start, length)) };
            O::fiemap(inode, request)?;
            Ok(0)
        })
    }
}

/// [`from_result`] for lengths.
pub(in crate::vfs) fn from_result_isize(f: impl FnOnce() -> Result<usize>) -> isize {
    match f() {
        Ok(length) => length.try_into().unwrap_or(isize::MAX),
        Err(error) => error.to_errno() as isize,
    }
}
