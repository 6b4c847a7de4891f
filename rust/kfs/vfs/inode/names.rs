// SPDX-License-Identifier: GPL-2.0

//! The callbacks that change names.
//!
//! The VFS has locked the directories for change, and what is removed, linked or replaced, too.

use super::{
    create::{Creation, What},
    table::Callbacks,
    Inode, Operations,
};
use crate::{bindings, errno::Errno};
use core::ptr;
use kernel::{error::from_result, ffi, prelude::*, str::CStrExt};

/// A name in a directory.
pub struct Name<'a, T: super::FileSystem> {
    /// The directory.
    pub dir: &'a Inode<T>,
    /// The name: never empty, `.` or `..`; can be longer than any name the filesystem has.
    pub name: &'a [u8],
    /// What it leads to, if it exists.
    pub inode: Option<&'a Inode<T>>,
}

/// How a name is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// It replaces what is there.
    Replace,
    /// There is nothing there.
    New,
    /// The two names exchange what they lead to.
    Exchange,
}

/// The name of a dentry, whose directory is locked for change.
///
/// # Safety
///
/// The name must not change during `'a`, which the lock of its directory sees to.
unsafe fn name<'a>(dentry: *mut bindings::dentry) -> &'a [u8] {
    // SAFETY: By the contract.
    unsafe {
        let mut length = 0;
        let name = bindings::kfs_dentry_name(dentry, &mut length);
        core::slice::from_raw_parts(name, length)
    }
}

impl<O: Operations> Callbacks<O> {
    /// Makes a file for a negative dentry.
    ///
    /// # Safety
    ///
    /// `dir` must be the locked directory of `dentry`, `idmap` that of the mount.
    unsafe fn make(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        what: What<'_>,
        mode: u16,
    ) -> Result {
        // SAFETY: By the contract.
        unsafe {
            let creation = Creation::new(idmap, what, mode);
            let created = O::create(Inode::from_raw(dir), Some(name(dentry)), &creation)?;
            created.instantiate(dentry);
        }
        Ok(())
    }

    /// # Safety
    ///
    /// For the VFS only, as all below.
    pub(super) unsafe extern "C" fn create(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        mode: u16,
    ) -> i32 {
        from_result(|| {
            // SAFETY: See above; so below.
            unsafe { Self::make(idmap, dir, dentry, What::Regular, mode)? };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See `create`.
    pub(super) unsafe extern "C" fn mkdir(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        mode: u16,
    ) -> *mut bindings::dentry {
        // SAFETY: See `create`.
        match unsafe { Self::make(idmap, dir, dentry, What::Directory, mode) } {
            // The dentry that was passed is the directory's.
            Ok(()) => ptr::null_mut(),
            Err(error) => error.to_ptr(),
        }
    }

    /// # Safety
    ///
    /// See `create`; the target is terminated.
    pub(super) unsafe extern "C" fn symlink(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        target: *const ffi::c_char,
    ) -> i32 {
        from_result(|| {
            // SAFETY: See `create`.
            unsafe {
                let target = CStr::from_char_ptr(target).to_bytes();
                Self::make(idmap, dir, dentry, What::Symlink(target), 0o777)?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See `create`.
    pub(super) unsafe extern "C" fn mknod(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        mode: u16,
        device: u32,
    ) -> i32 {
        from_result(|| {
            let (major, minor) = (device >> 20, device & 0xf_ffff);
            let what = match u32::from(mode) & bindings::S_IFMT {
                0 | bindings::S_IFREG => What::Regular,
                bindings::S_IFIFO => What::Fifo,
                bindings::S_IFSOCK => What::Socket,
                bindings::S_IFCHR => What::Device { block: false, major, minor },
                bindings::S_IFBLK => What::Device { block: true, major, minor },
                _ => return Err(EINVAL),
            };
            // SAFETY: See `create`.
            unsafe { Self::make(idmap, dir, dentry, what, mode)? };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See `create`; the file is being opened, its dentry without a name.
    pub(super) unsafe extern "C" fn tmpfile(
        idmap: *mut bindings::mnt_idmap,
        dir: *mut bindings::inode,
        file: *mut bindings::file,
        mode: u16,
    ) -> i32 {
        // SAFETY: See above.
        unsafe {
            let creation = Creation::new(idmap, What::Regular, mode);
            let error = match O::create(Inode::from_raw(dir), None, &creation) {
                Ok(created) => {
                    bindings::d_mark_tmpfile(file, created.as_raw());
                    created.instantiate(bindings::kfs_file_dentry(file));
                    0
                }
                Err(error) => error.to_errno(),
            };
            bindings::kfs_finish_open(file, error)
        }
    }

    /// # Safety
    ///
    /// See `create`: `old` is positive, `dentry` negative.
    pub(super) unsafe extern "C" fn link(
        old: *mut bindings::dentry,
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
    ) -> i32 {
        from_result(|| {
            // SAFETY: See above. The new dentry gets a reference to the inode.
            unsafe {
                let inode = bindings::kfs_d_inode(old);
                O::add_link(Inode::from_raw(inode), Inode::from_raw(dir), name(dentry))?;
                bindings::ihold(inode);
                bindings::d_instantiate(dentry, inode);
            }
            Ok(0)
        })
    }

    /// For directories, too.
    ///
    /// # Safety
    ///
    /// See `create`: `dentry` is positive.
    pub(super) unsafe extern "C" fn unlink(
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
    ) -> i32 {
        from_result(|| {
            // SAFETY: See above.
            unsafe {
                let inode = Inode::from_raw(bindings::kfs_d_inode(dentry));
                O::remove(Inode::from_raw(dir), name(dentry), inode)?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See `create`: `old` is positive.
    pub(super) unsafe extern "C" fn rename(
        idmap: *mut bindings::mnt_idmap,
        old_dir: *mut bindings::inode,
        old: *mut bindings::dentry,
        new_dir: *mut bindings::inode,
        new: *mut bindings::dentry,
        flags: u32,
    ) -> i32 {
        from_result(|| {
            let known =
                bindings::RENAME_NOREPLACE | bindings::RENAME_EXCHANGE | bindings::RENAME_WHITEOUT;
            if flags & !known != 0 {
                return Err(EINVAL);
            }
            // SAFETY: See above.
            let (from, to) = unsafe {
                let target = bindings::kfs_d_inode(new);
                let from = Name {
                    dir: Inode::from_raw(old_dir),
                    name: name(old),
                    inode: Some(Inode::from_raw(bindings::kfs_d_inode(old))),
                };
                let to = Name {
                    dir: Inode::from_raw(new_dir),
                    name: name(new),
                    inode: (!target.is_null()).then(|| Inode::from_raw(target)),
                };
                (from, to)
            };
            let mode = match (flags & bindings::RENAME_EXCHANGE != 0, to.inode.is_some()) {
                (true, true) => RenameMode::Exchange,
                (true, false) => return Err(ENOENT),
                (false, true) if flags & bindings::RENAME_NOREPLACE != 0 => {
                    return Err(Errno::EEXIST.into())
                }
                (false, true) => RenameMode::Replace,
                (false, false) => RenameMode::New,
            };
            let whiteout =
                (flags & bindings::RENAME_WHITEOUT != 0).then(|| Creation::whiteout(idmap));
            O::rename(from, to, mode, whiteout.as_ref())?;
            Ok(0)
        })
    }
}
