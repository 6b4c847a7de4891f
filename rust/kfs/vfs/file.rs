// SPDX-License-Identifier: GPL-2.0

//! Open files.

use super::{dir, filesystem::FileSystem, inode::Inode, iomap};
use crate::bindings;
use core::marker::PhantomData;
use kernel::{error::from_result, prelude::*};

/// A filesystem's table of file operations.
pub struct Table<T>(&'static bindings::file_operations, PhantomData<fn(T)>);

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Table<T> {}

impl<T: FileSystem> Table<T> {
    /// Operations of a directory, read by `D`.
    pub const fn directory<D: dir::Operations<FileSystem = T>>() -> Self {
        Self(&Directory::<D>::OPERATIONS, PhantomData)
    }

    /// Operations of a regular file whose data is read by `R`: through the page cache (`read`, `mmap`, `splice`), and
    /// around it (`O_DIRECT`) if `R` reads directly. `lseek` knows holes.
    pub const fn iomap<R: iomap::Read<FileSystem = T>>() -> Self {
        Self(&Regular::<R>::OPERATIONS, PhantomData)
    }

    pub(super) const fn from_raw(raw: &'static bindings::file_operations) -> Self {
        Self(raw, PhantomData)
    }

    pub(super) fn as_raw(&self) -> *const bindings::file_operations {
        self.0
    }
}

/// The callbacks of an open directory. See `inode::table` for what the VFS guarantees.
struct Directory<D>(PhantomData<D>);

impl<D: dir::Operations> Directory<D> {
    const OPERATIONS: bindings::file_operations = bindings::file_operations {
        llseek: Some(bindings::generic_file_llseek),
        read: Some(bindings::generic_read_dir),
        iterate_shared: Some(Self::iterate_shared),
        fsync: Some(Self::fsync),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// For the VFS only: `file` is an open directory that carries this table.
    unsafe extern "C" fn iterate_shared(
        file: *mut bindings::file,
        ctx: *mut bindings::dir_context,
    ) -> i32 {
        from_result(|| {
            // SAFETY: See above; the context is the VFS's own, and ours during the call.
            let (dir, mut emitter) = unsafe {
                let dir = Inode::<D::FileSystem>::from_raw(bindings::kfs_file_inode(file));
                let dots = dir::Dots {
                    own: dir.number(),
                    parent: bindings::kfs_file_parent_number(file),
                };
                (dir, dir::Emitter::new(ctx, dots))
            };
            D::iterate(dir, &mut emitter)?;
            Ok(0)
        })
    }
}

impl<D: dir::Operations> Directory<D> {
    /// # Safety
    ///
    /// For the VFS only: `file` is an open directory that carries this table.
    unsafe extern "C" fn fsync(
        file: *mut bindings::file,
        _start: i64,
        _end: i64,
        _data_only: i32,
    ) -> i32 {
        from_result(|| {
            // SAFETY: See above.
            D::sync(unsafe { Inode::from_raw(bindings::kfs_file_inode(file)) })?;
            Ok(0)
        })
    }
}

/// The callbacks of an open regular file. See `inode::table` for what the VFS guarantees.
pub(super) struct Regular<R>(PhantomData<R>);

impl<R: iomap::Read> Regular<R> {
    pub(super) const OPERATIONS: bindings::file_operations = bindings::file_operations {
        llseek: Some(Self::llseek),
        read_iter: Some(Self::read_iter),
        mmap_prepare: Some(bindings::generic_file_readonly_mmap_prepare),
        open: Some(Self::open),
        fsync: Some(bindings::noop_fsync),
        splice_read: Some(bindings::filemap_splice_read),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// For the VFS only: `file` is being opened, and carries this table.
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> i32 {
        // SAFETY: See above.
        unsafe {
            if R::HAS_READ_DIRECT {
                (*file).f_mode |= bindings::KFS_CONST_FMODE_CAN_ODIRECT;
            }
            bindings::generic_file_open(inode, file)
        }
    }

    /// # Safety
    ///
    /// For the VFS only: `file` is open and carries this table.
    unsafe extern "C" fn llseek(file: *mut bindings::file, offset: i64, whence: i32) -> i64 {
        let operations = iomap::operations::<R>();
        // SAFETY: See above.
        unsafe {
            let seek = match whence as u32 {
                bindings::SEEK_HOLE => bindings::iomap_seek_hole,
                bindings::SEEK_DATA => bindings::iomap_seek_data,
                _ => return bindings::generic_file_llseek(file, offset, whence),
            };
            let inode = bindings::kfs_file_inode(file);
            bindings::kfs_inode_lock_shared(inode);
            let offset = seek(inode, offset, operations);
            bindings::kfs_inode_unlock_shared(inode);
            if offset < 0 {
                return offset;
            }
            bindings::vfs_setpos(file, offset, (*(*inode).i_sb).s_maxbytes)
        }
    }

    /// # Safety
    ///
    /// For the VFS only: `iocb` is for an open file that carries this table, `to` takes data.
    unsafe extern "C" fn read_iter(
        iocb: *mut bindings::kiocb,
        to: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: See above.
        unsafe {
            let direct = (*iocb).ki_flags & bindings::KFS_CONST_IOCB_DIRECT != 0;
            if !(direct && R::HAS_READ_DIRECT) {
                return bindings::generic_file_read_iter(iocb, to);
            }
            Self::read_direct(iocb, to)
        }
    }

    /// # Safety
    ///
    /// See `read_iter`.
    unsafe fn read_direct(iocb: *mut bindings::kiocb, to: *mut bindings::iov_iter) -> isize {
        // SAFETY: See above. The result can be -EIOCBQUEUED: then the I/O goes on, and what it needs is held by iomap.
        unsafe {
            if (*iocb).ki_flags & bindings::KFS_CONST_IOCB_NOWAIT != 0 {
                // Finding the extents may read.
                return EAGAIN.to_errno() as isize;
            }
            let file = (*iocb).ki_filp;
            let inode = bindings::kfs_file_inode(file);
            bindings::kfs_inode_lock_shared(inode);
            let read = bindings::iomap_dio_rw(
                iocb,
                to,
                iomap::operations::<R>(),
                iomap::direct_operations::<R>(),
                0,
                core::ptr::null_mut(),
                0,
            );
            bindings::kfs_inode_unlock_shared(inode);
            bindings::kfs_file_accessed(file);
            read
        }
    }
}
