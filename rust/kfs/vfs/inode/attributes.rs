// SPDX-License-Identifier: GPL-2.0

//! The callbacks that change attributes.

use super::{
    change::{Changes, TimeUpdate},
    table::Callbacks,
    Inode, Operations,
};
use crate::{bindings, errno::Errno, vfs::acl};
use core::ptr;
use kernel::{error::from_result, error::to_result, prelude::*};

/// What `FS_IOC_GETFLAGS` and its like report, and change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileAttributes {
    /// What the VFS enforces.
    pub flags: super::Flags,
    /// To be left out by backup programs.
    pub nodump: bool,
    /// Files made in it get its project.
    pub project_inherit: bool,
    /// Project id.
    pub project: u32,
}

/// A field of [`FileAttributes`].
type Field = fn(&mut FileAttributes) -> &mut bool;

impl FileAttributes {
    const TABLE: [(u32, Field); 6] = [
        (bindings::FS_SYNC_FL, |a| &mut a.flags.sync),
        (bindings::KFS_CONST_FS_IMMUTABLE_FL, |a| &mut a.flags.immutable),
        (bindings::FS_APPEND_FL, |a| &mut a.flags.append),
        (bindings::FS_NOATIME_FL, |a| &mut a.flags.noatime),
        (bindings::FS_NODUMP_FL, |a| &mut a.nodump),
        (bindings::FS_PROJINHERIT_FL, |a| &mut a.project_inherit),
    ];

    fn bits(mut self) -> u32 {
        Self::TABLE.iter().fold(0, |bits, (bit, field)| if *field(&mut self) { bits | bit } else { bits })
    }

    fn from_bits(bits: u32, project: u32) -> Self {
        let mut attributes = Self { project, ..Self::default() };
        for (bit, field) in Self::TABLE {
            *field(&mut attributes) = bits & bit != 0;
        }
        attributes
    }

    fn mask() -> u32 {
        Self::TABLE.iter().fold(0, |mask, (bit, _)| mask | bit)
    }
}

impl<O: Operations> Callbacks<O> {
    /// # Safety
    ///
    /// For the VFS only, as all below: the inode is locked for change.
    pub(super) unsafe extern "C" fn setattr(
        idmap: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        attr: *mut bindings::iattr,
    ) -> i32 {
        from_result(|| {
            // SAFETY: See above.
            let (inode, changes) = unsafe {
                to_result(bindings::setattr_prepare(idmap, dentry, attr))?;
                let inode = bindings::kfs_d_inode(dentry);
                (Inode::from_raw(inode), Changes::from_raw(idmap, inode, attr))
            };
            O::setattr(inode, &changes)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See `setattr`, but nothing is locked.
    pub(super) unsafe extern "C" fn update_time(
        inode: *mut bindings::inode,
        kind: bindings::fs_update_time,
        flags: u32,
    ) -> i32 {
        from_result(|| {
            // SAFETY: See above.
            unsafe {
                let lazy = bindings::kfs_sb_is_lazytime((*inode).i_sb);
                if !lazy && flags & bindings::KFS_CONST_IOCB_NOWAIT as u32 != 0 {
                    return Err(EAGAIN);
                }
                let dirty = bindings::inode_update_time(inode, kind, flags);
                if dirty <= 0 {
                    return Ok(dirty);
                }
                if dirty as u32 == bindings::KFS_CONST_I_DIRTY_TIME {
                    bindings::__mark_inode_dirty(inode, dirty);
                    return Ok(0);
                }
                let update = match kind {
                    bindings::fs_update_time_FS_UPD_ATIME => TimeUpdate::Access,
                    _ => TimeUpdate::Modification,
                };
                O::update_time(Inode::from_raw(inode), update)?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See `setattr`; `list` is null or a list of the VFS.
    pub(super) unsafe extern "C" fn set_acl(
        idmap: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        list: *mut bindings::posix_acl,
        kind: i32,
    ) -> i32 {
        from_result(|| {
            // SAFETY: See above. The list may be replaced by none, if the permissions say all of it.
            unsafe {
                let raw = bindings::kfs_d_inode(dentry);
                let inode = Inode::<O::FileSystem>::from_raw(raw);
                let (mut list, mut mode) = (list, inode.mode());
                let before = mode;
                let which = match kind as u32 {
                    bindings::ACL_TYPE_ACCESS => {
                        if !list.is_null() {
                            to_result(bindings::kfs_acl_update_mode(
                                idmap, raw, &mut mode, &mut list,
                            ))?;
                        }
                        acl::Kind::Access
                    }
                    bindings::ACL_TYPE_DEFAULT => {
                        if !inode.is_directory() {
                            return if list.is_null() { Ok(0) } else { Err(Errno::EACCES.into()) };
                        }
                        acl::Kind::Default
                    }
                    _ => return Err(EINVAL),
                };
                let entries = match list.is_null() {
                    true => None,
                    false => Some(acl::entries(inode.super_block(), list)?),
                };
                let mode = (mode != before).then_some(mode);
                O::set_acl(inode, which, entries.as_deref(), mode)?;
                bindings::kfs_acl_cache(raw, kind, list);
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See `setattr`, but nothing is locked.
    pub(super) unsafe extern "C" fn fileattr_get(
        dentry: *mut bindings::dentry,
        attr: *mut bindings::file_kattr,
    ) -> i32 {
        from_result(|| {
            // SAFETY: See above; the structure is the caller's.
            unsafe {
                let attributes = O::attributes(Inode::from_raw(bindings::kfs_d_inode(dentry)))?;
                bindings::kfs_fileattr_fill(attr.cast(), attributes.bits(), attributes.project, 0);
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See `setattr`.
    pub(super) unsafe extern "C" fn fileattr_set(
        _idmap: *mut bindings::mnt_idmap,
        dentry: *mut bindings::dentry,
        attr: *mut bindings::file_kattr,
    ) -> i32 {
        from_result(|| {
            let (mut bits, mut project, mut has_project) = (0, 0, false);
            // SAFETY: See above; the structure is the caller's.
            let (inode, known) = unsafe {
                let known = bindings::kfs_fileattr_read(
                    ptr::from_mut(&mut *attr).cast(),
                    FileAttributes::mask(),
                    &mut bits,
                    &mut project,
                    &mut has_project,
                );
                (Inode::from_raw(bindings::kfs_d_inode(dentry)), known)
            };
            if !known {
                return Err(Errno::EOPNOTSUPP.into());
            }
            let mut attributes = FileAttributes::from_bits(bits, project);
            if !has_project {
                attributes.project = O::attributes(inode)?.project;
            }
            O::set_attributes(inode, &attributes)?;
            Ok(0)
        })
    }
}
