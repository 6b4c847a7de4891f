// SPDX-License-Identifier: GPL-2.0

//! What changes about an inode that is in use: attributes that are asked for, and the VFS's own fields.

use super::Inode;
use crate::{
    bindings,
    vfs::{filesystem::FileSystem, Timestamp},
};

/// A change of attributes, in terms of the filesystem: ids are those of its user namespace, times are cut to its granularity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Type and permissions.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Time of last access.
    pub atime: Option<Timestamp>,
    /// Time of last modification.
    pub mtime: Option<Timestamp>,
    /// Time of last change.
    pub ctime: Option<Timestamp>,
    /// The file is being opened with truncation, or cut through a handle.
    pub by_handle: bool,
}

impl Changes {
    /// # Safety
    ///
    /// All must be those of one call of `setattr`, after `setattr_prepare`.
    pub(super) unsafe fn from_raw(
        idmap: *mut bindings::mnt_idmap,
        inode: *mut bindings::inode,
        attr: *const bindings::iattr,
    ) -> Self {
        // SAFETY: By the contract.
        unsafe {
            let has = |flag: u32| (*attr).ia_valid & flag != 0;
            let time = |time: &bindings::timespec64| Timestamp {
                seconds: time.tv_sec,
                nanoseconds: time.tv_nsec as u32,
            };
            Self {
                mode: has(bindings::KFS_CONST_ATTR_MODE)
                    .then(|| bindings::kfs_attr_mode(idmap, inode, attr)),
                uid: has(bindings::KFS_CONST_ATTR_UID)
                    .then(|| bindings::kfs_attr_uid(idmap, inode, attr)),
                gid: has(bindings::KFS_CONST_ATTR_GID)
                    .then(|| bindings::kfs_attr_gid(idmap, inode, attr)),
                size: has(bindings::KFS_CONST_ATTR_SIZE).then(|| (*attr).ia_size.max(0) as u64),
                atime: has(bindings::KFS_CONST_ATTR_ATIME).then(|| time(&(*attr).ia_atime)),
                mtime: has(bindings::KFS_CONST_ATTR_MTIME).then(|| time(&(*attr).ia_mtime)),
                ctime: has(bindings::KFS_CONST_ATTR_CTIME).then(|| time(&(*attr).ia_ctime)),
                by_handle: has(bindings::KFS_CONST_ATTR_FILE | bindings::KFS_CONST_ATTR_OPEN),
            }
        }
    }
}

/// Which times of an inode have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUpdate {
    /// It was read.
    Access,
    /// It was written to: modification and change.
    Modification,
}

/// The VFS's own fields of an inode in use. They are words; what else has to be the same at the same time is up to the
/// filesystem, which knows what locks it holds.
impl<T: FileSystem> Inode<T> {
    /// The number of links.
    pub fn links(&self) -> u32 {
        // SAFETY: By the type invariants; a racy read of a word.
        unsafe { core::ptr::addr_of!((*self.as_raw()).__bindgen_anon_1.i_nlink).read_volatile() }
    }

    /// Whether changes are to be durable when a system call that makes them returns: by mount option, or by the file's flag. In a
    /// directory that goes for its entries, too.
    pub fn is_sync(&self) -> bool {
        // SAFETY: By the type invariants; racy reads of words.
        unsafe {
            match self.is_directory() {
                true => bindings::kfs_inode_is_dirsync(self.as_raw()),
                false => bindings::kfs_inode_is_sync(self.as_raw()),
            }
        }
    }

    /// Sets the number of links. The inode must be locked for change.
    pub fn set_links(&self, links: u32) {
        if self.links() != links {
            // SAFETY: By the type invariants; so in all setters.
            unsafe { bindings::set_nlink(self.as_raw(), links) };
        }
    }

    /// Sets the permissions: the lower twelve bits of the mode. The inode must be locked for change.
    pub fn set_permissions(&self, permissions: u16) {
        // SAFETY: See `set_links`; readers see one or the other.
        unsafe {
            let mode = core::ptr::addr_of_mut!((*self.as_raw()).i_mode);
            mode.write_volatile(mode.read_volatile() & !0o7777 | permissions & 0o7777);
        }
    }

    /// Sets the owner, in ids of the filesystem's user namespace. The inode must be locked for change.
    pub fn set_owner(&self, uid: u32, gid: u32) {
        // SAFETY: See `set_links`.
        unsafe { bindings::kfs_inode_set_owner(self.as_raw(), uid, gid) };
    }

    /// Sets the size in bytes. The inode must be locked for change.
    pub fn set_size(&self, bytes: u64) {
        let bytes = bytes.min(crate::vfs::MAX_FILE_POSITION) as i64;
        // SAFETY: See `set_links`.
        unsafe { bindings::kfs_i_size_write(self.as_raw(), bytes) };
    }

    /// Sets the space in use, in units of 512 bytes.
    pub fn set_blocks(&self, sectors: u64) {
        // SAFETY: See `set_links`; readers see one or the other.
        unsafe { core::ptr::addr_of_mut!((*self.as_raw()).i_blocks).write_volatile(sectors) };
    }

    /// The time of the last access.
    pub fn atime(&self) -> Timestamp {
        // SAFETY: By the type invariants; so below.
        Self::time(|nsec| unsafe { bindings::kfs_inode_atime(self.as_raw(), nsec) })
    }

    /// The time of the last modification.
    pub fn mtime(&self) -> Timestamp {
        // SAFETY: See `atime`.
        Self::time(|nsec| unsafe { bindings::kfs_inode_mtime(self.as_raw(), nsec) })
    }

    /// The time of the last change.
    pub fn ctime(&self) -> Timestamp {
        // SAFETY: See `atime`.
        Self::time(|nsec| unsafe { bindings::kfs_inode_ctime(self.as_raw(), nsec) })
    }

    fn time(read: impl FnOnce(*mut isize) -> i64) -> Timestamp {
        let mut nanoseconds = 0;
        let seconds = read(&mut nanoseconds);
        Timestamp { seconds, nanoseconds: nanoseconds as u32 }
    }

    /// Sets the time of the last access.
    pub fn set_atime(&self, time: Timestamp) {
        // SAFETY: See `set_links`.
        unsafe {
            bindings::kfs_inode_set_atime(self.as_raw(), time.seconds, time.nanoseconds as isize)
        };
    }

    /// Sets the time of the last modification.
    pub fn set_mtime(&self, time: Timestamp) {
        // SAFETY: See `set_links`.
        unsafe {
            bindings::kfs_inode_set_mtime(self.as_raw(), time.seconds, time.nanoseconds as isize)
        };
    }

    /// Sets the time of the last change.
    pub fn set_ctime(&self, time: Timestamp) {
        // SAFETY: See `set_links`.
        unsafe {
            bindings::kfs_inode_set_ctime(self.as_raw(), time.seconds, time.nanoseconds as isize)
        };
    }

    /// Sets the properties that the VFS enforces. The inode must be locked for change.
    pub fn set_flags(&self, flags: super::Flags) {
        // SAFETY: See `set_links`.
        unsafe {
            let all = bindings::KFS_CONST_S_SYNC
                | bindings::KFS_CONST_S_IMMUTABLE
                | bindings::KFS_CONST_S_APPEND
                | bindings::KFS_CONST_S_NOATIME;
            bindings::inode_set_flags(self.as_raw(), flags.bits(), all);
        }
    }

    /// Has the VFS read the access control list anew when it is asked for next.
    pub fn forget_acl(&self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::kfs_acl_forget(self.as_raw()) };
    }

    /// Starts writing out what the page cache holds of the file's data, and waits for it. Sleeps.
    pub fn write_data(&self) -> kernel::error::Result {
        // SAFETY: By the type invariants; the mapping lives as long as the inode.
        kernel::error::to_result(unsafe {
            bindings::filemap_write_and_wait_range((*self.as_raw()).i_mapping, 0, i64::MAX)
        })
    }
}
