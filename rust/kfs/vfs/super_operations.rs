// SPDX-License-Identifier: GPL-2.0

//! The table of a superblock's operations.

use super::{
    filesystem::FileSystem,
    inode::{self, Inode},
    super_block::{self, SuperBlock},
};
use crate::bindings;
use core::marker::PhantomData;
use kernel::{error::from_result, fmt, str::CStrExt};

/// The callbacks of `struct super_operations`.
pub(super) struct Callbacks<T>(PhantomData<T>);

impl<T: FileSystem> Callbacks<T> {
    pub(super) const OPERATIONS: bindings::super_operations = bindings::super_operations {
        alloc_inode: Some(inode::alloc::<T>),
        free_inode: Some(inode::free::<T>),
        evict_inode: Some(inode::evict::<T>),
        put_super: Some(Self::put_super),
        write_inode: if T::HAS_WRITE_INODE { Some(Self::write_inode) } else { None },
        statfs: Some(Self::statfs),
        sync_fs: if T::HAS_SYNC { Some(Self::sync_fs) } else { None },
        freeze_fs: if T::HAS_FREEZE { Some(Self::freeze_fs) } else { None },
        unfreeze_fs: if T::HAS_THAW { Some(Self::unfreeze_fs) } else { None },
        show_options: if T::HAS_SHOW_OPTIONS { Some(Self::show_options) } else { None },
        show_devname: if T::HAS_SHOW_DEVICE_NAME { Some(Self::show_devname) } else { None },
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// For the VFS only: the superblock is mounted, its inodes are gone.
    unsafe extern "C" fn put_super(sb: *mut bindings::super_block) {
        if T::HAS_PUT_SUPER {
            // SAFETY: The superblock has a root, hence is ready.
            T::put_super(unsafe { SuperBlock::from_raw(sb) });
        }
        // SAFETY: The VFS calls nothing else for this superblock.
        unsafe { super_block::drop_data::<T>(sb) };
    }

    /// # Safety
    ///
    /// For the VFS only: the inode is held, or its last user is just letting go of it.
    unsafe extern "C" fn write_inode(
        inode: *mut bindings::inode,
        control: *mut bindings::writeback_control,
    ) -> i32 {
        from_result(|| {
            // SAFETY: See above.
            unsafe {
                let wait = (*control).sync_mode == bindings::writeback_sync_modes_WB_SYNC_ALL;
                T::write_inode(Inode::from_raw(inode), wait)?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// For the VFS only: the superblock is mounted, so in all below.
    unsafe extern "C" fn statfs(
        dentry: *mut bindings::dentry,
        buf: *mut kernel::bindings::kstatfs,
    ) -> i32 {
        from_result(|| {
            // SAFETY: The dentry is positive and of this filesystem.
            let (sb, inode) = unsafe {
                (
                    SuperBlock::<T>::from_raw((*dentry).d_sb),
                    Inode::<T>::from_raw(bindings::kfs_d_inode(dentry)),
                )
            };
            let stat = T::statfs(sb, inode)?;
            // SAFETY: The VFS passes a zeroed structure of its own.
            stat.fill(unsafe { &mut *buf.cast::<bindings::kstatfs>() });
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See `statfs`.
    unsafe extern "C" fn sync_fs(sb: *mut bindings::super_block, wait: i32) -> i32 {
        from_result(|| {
            // SAFETY: The superblock is mounted.
            T::sync(unsafe { SuperBlock::from_raw(sb) }, wait != 0)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See `statfs`; `s_umount` is held.
    unsafe extern "C" fn freeze_fs(sb: *mut bindings::super_block) -> i32 {
        from_result(|| {
            // SAFETY: The superblock is mounted.
            T::freeze(unsafe { SuperBlock::from_raw(sb) })?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See `freeze_fs`.
    unsafe extern "C" fn unfreeze_fs(sb: *mut bindings::super_block) -> i32 {
        from_result(|| {
            // SAFETY: The superblock is mounted.
            T::thaw(unsafe { SuperBlock::from_raw(sb) })?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See `statfs`.
    unsafe extern "C" fn show_options(
        seq: *mut bindings::seq_file,
        root: *mut bindings::dentry,
    ) -> i32 {
        // SAFETY: The superblock is mounted.
        let sb = unsafe { SuperBlock::<T>::from_raw((*root).d_sb) };
        from_result(|| T::show_options(sb, &mut Escaped(seq)).map(|()| 0))
    }

    /// # Safety
    ///
    /// See `statfs`.
    unsafe extern "C" fn show_devname(
        seq: *mut bindings::seq_file,
        root: *mut bindings::dentry,
    ) -> i32 {
        // SAFETY: The superblock is mounted.
        let sb = unsafe { SuperBlock::<T>::from_raw((*root).d_sb) };
        from_result(|| T::show_device_name(sb, &mut Escaped(seq)).map(|()| 0))
    }
}

/// Text for a line of `/proc/mounts`: spaces and such come out as octal numbers.
///
/// # Invariants
///
/// The pointer is the `seq_file` of a running callback.
struct Escaped(*mut bindings::seq_file);

impl fmt::Write for Escaped {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        // SAFETY: By the type invariant; `s` is readable for its length, the set of characters is terminated.
        unsafe {
            bindings::seq_escape_mem(
                self.0,
                s.as_ptr().cast(),
                s.len(),
                bindings::KFS_CONST_ESCAPE_OCTAL,
                c" \t\n\\#".as_char_ptr(),
            )
        };
        Ok(())
    }
}
