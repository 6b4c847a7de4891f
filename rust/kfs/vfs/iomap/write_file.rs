// SPDX-License-Identifier: GPL-2.0

//! Open files that can be written.

use super::{write_table as write, Allocate, Write};
use crate::{
    bindings,
    errno::Errno,
    vfs::{
        file::{Regular, Table},
        filesystem::FileSystem,
        inode::Inode,
    },
};
use core::{marker::PhantomData, ptr};
use kernel::{
    error::{from_result, to_result},
    prelude::*,
};

impl<T: FileSystem> Table<T> {
    /// Operations of a regular file whose data is read and written by `W`: as [`Table::iomap`], and `write`, `splice`, writing to mappings,
    /// `fsync`, `fallocate`, and sharing of ranges.
    pub const fn iomap_writable<W: Write<FileSystem = T>>() -> Self {
        Self::from_raw(&Writable::<W>::OPERATIONS)
    }
}

/// The callbacks of an open regular file. See `inode::table` for what the VFS guarantees.
struct Writable<W>(PhantomData<W>);

impl<W: Write> Writable<W> {
    const OPERATIONS: bindings::file_operations = bindings::file_operations {
        write_iter: Some(Self::write_iter),
        mmap_prepare: Some(Self::mmap_prepare),
        fsync: Some(Self::fsync),
        splice_write: Some(bindings::iter_file_splice_write),
        fallocate: Some(Self::fallocate),
        remap_file_range: Some(Self::remap_file_range),
        ..Regular::<W>::OPERATIONS
    };

    const MEMORY: bindings::vm_operations_struct = bindings::vm_operations_struct {
        fault: Some(bindings::filemap_fault),
        map_pages: Some(bindings::filemap_map_pages),
        page_mkwrite: Some(Self::page_mkwrite),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// For the VFS only: `desc` is of a mapping of an open file that carries this table.
    unsafe extern "C" fn mmap_prepare(desc: *mut bindings::vm_area_desc) -> i32 {
        // SAFETY: See above; the table is constant.
        unsafe { bindings::kfs_mmap_prepare(desc, &Self::MEMORY) }
    }

    /// # Safety
    ///
    /// For the memory management only: of a mapping that carries this table.
    unsafe extern "C" fn page_mkwrite(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: See above.
        unsafe { bindings::kfs_page_mkwrite(vmf, write::operations::<W>()) }
    }

    /// # Safety
    ///
    /// For the VFS only: `iocb` is for an open file that carries this table, `from` has data.
    unsafe extern "C" fn write_iter(
        iocb: *mut bindings::kiocb,
        from: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: See above.
        unsafe {
            if (*iocb).ki_flags & bindings::KFS_CONST_IOCB_NOWAIT != 0 {
                // Space may have to be looked for.
                return EAGAIN.to_errno() as isize;
            }
            if (*iocb).ki_flags & bindings::KFS_CONST_IOCB_DIRECT != 0 {
                return Self::write_direct(iocb, from);
            }
            let inode = bindings::kfs_file_inode((*iocb).ki_filp);
            bindings::kfs_inode_lock(inode);
            let mut written = Self::prepare(iocb, from);
            if written > 0 {
                written = Self::write_buffered(iocb, from);
            }
            bindings::kfs_inode_unlock(inode);
            Self::end(iocb, written)
        }
    }

    /// Makes a write durable, if the caller wants all to be.
    ///
    /// # Safety
    ///
    /// See `write_iter`.
    unsafe fn end(iocb: *mut bindings::kiocb, written: isize) -> isize {
        if written <= 0 {
            return written;
        }
        // SAFETY: See `write_iter`; the position is where the write ended.
        unsafe { bindings::kfs_generic_write_sync(iocb, written) }
    }

    /// What comes before any write: limits, privileges, times. Not positive if there is nothing to write or it fails.
    ///
    /// # Safety
    ///
    /// See `write_iter`; the inode is locked.
    unsafe fn prepare(iocb: *mut bindings::kiocb, from: *mut bindings::iov_iter) -> isize {
        // SAFETY: See above.
        unsafe {
            let count = bindings::generic_write_checks(iocb, from);
            if count <= 0 {
                return count;
            }
            match bindings::file_modified((*iocb).ki_filp) {
                0 => count,
                error => error as isize,
            }
        }
    }

    /// # Safety
    ///
    /// See `write_iter`; the inode is locked for change, and the write prepared.
    unsafe fn write_buffered(iocb: *mut bindings::kiocb, from: *mut bindings::iov_iter) -> isize {
        // SAFETY: See above.
        unsafe {
            let inode = bindings::kfs_file_inode((*iocb).ki_filp);
            if (*iocb).ki_pos > bindings::kfs_i_size_read(inode) {
                bindings::kfs_zero_behind_end(inode);
            }
            bindings::iomap_file_buffered_write(
                iocb,
                from,
                write::operations::<W>(),
                write::write_operations::<W>(),
                ptr::null_mut(),
            )
        }
    }

    /// # Safety
    ///
    /// See `write_iter`.
    unsafe fn write_direct(iocb: *mut bindings::kiocb, from: *mut bindings::iov_iter) -> isize {
        // SAFETY: See `write_iter`.
        unsafe {
            let inode = bindings::kfs_file_inode((*iocb).ki_filp);
            let block = i64::from(bindings::kfs_inode_block_size(inode));
            let mut alone = (*iocb).ki_flags & bindings::KFS_CONST_IOCB_APPEND != 0
                || !bindings::kfs_inode_is_nosec(inode);
            loop {
                Self::lock(inode, alone);
                let count = bindings::kfs_iov_iter_count(from) as i64;
                let end = (*iocb).ki_pos.saturating_add(count);
                let whole = ((*iocb).ki_pos | count) % block == 0;
                let grows = end > bindings::kfs_i_size_read(inode);
                if (grows || !whole) && !alone {
                    // The file's size changes, or its pages.
                    Self::unlock(inode, alone);
                    alone = true;
                    continue;
                }
                break;
            }
            let mut written = Self::prepare(iocb, from);
            if written <= 0 {
                Self::unlock(inode, alone);
                return written;
            }
            let (start, count) = ((*iocb).ki_pos, bindings::kfs_iov_iter_count(from) as i64);
            let whole = (start | count) % block == 0;
            let mut done = false;
            if whole {
                let size = bindings::kfs_i_size_read(inode);
                let grows = start.saturating_add(count) > size;
                if start > size {
                    bindings::kfs_zero_behind_end(inode);
                }
                let mut flags = bindings::IOMAP_DIO_FSBLOCK_ALIGNED;
                if grows {
                    flags |= bindings::IOMAP_DIO_FORCE_WAIT;
                }
                written = bindings::iomap_dio_rw(
                    iocb,
                    from,
                    write::operations::<W>(),
                    write::direct_operations::<W>(),
                    flags,
                    ptr::null_mut(),
                    0,
                );
                done = written != -(bindings::ENOTBLK as isize);
            }
            if !done && !alone {
                // Pages of the range are in use: they are written through. Others may have changed the file in between, but not
                // what was checked.
                Self::unlock(inode, alone);
                alone = true;
                Self::lock(inode, alone);
            }
            if !done {
                written = Self::write_through(iocb, from, inode);
            }
            Self::unlock(inode, alone);
            match done {
                // iomap has seen to durability.
                true => written,
                false => Self::end(iocb, written),
            }
        }
    }

    /// What cannot be written directly goes through the page cache, and out of it.
    ///
    /// # Safety
    ///
    /// See `write_buffered`.
    unsafe fn write_through(
        iocb: *mut bindings::kiocb,
        from: *mut bindings::iov_iter,
        inode: *mut bindings::inode,
    ) -> isize {
        // SAFETY: See above.
        unsafe {
            let start = (*iocb).ki_pos;
            bindings::inode_dio_wait(inode);
            let written = Self::write_buffered(iocb, from);
            if written <= 0 {
                return written;
            }
            let (mapping, last) = ((*inode).i_mapping, start + written as i64 - 1);
            let error = bindings::filemap_write_and_wait_range(mapping, start, last);
            if error != 0 {
                return error as isize;
            }
            bindings::kfs_invalidate_range(inode, start, last + 1);
            written
        }
    }

    /// # Safety
    ///
    /// The inode must be there.
    unsafe fn lock(inode: *mut bindings::inode, alone: bool) {
        // SAFETY: By the contract.
        unsafe {
            match alone {
                true => bindings::kfs_inode_lock(inode),
                false => bindings::kfs_inode_lock_shared(inode),
            }
        }
    }

    /// # Safety
    ///
    /// The inode must be locked that way.
    unsafe fn unlock(inode: *mut bindings::inode, alone: bool) {
        // SAFETY: By the contract.
        unsafe {
            match alone {
                true => bindings::kfs_inode_unlock(inode),
                false => bindings::kfs_inode_unlock_shared(inode),
            }
        }
    }

    /// # Safety
    ///
    /// For the VFS only: `file` is open and carries this table.
    unsafe extern "C" fn fsync(
        file: *mut bindings::file,
        start: i64,
        end: i64,
        data_only: i32,
    ) -> i32 {
        from_result(|| {
            // SAFETY: See above.
            unsafe {
                // What went wrong with the file's data since this file was opened or synchronised last is reported once.
                let written = to_result(bindings::file_write_and_wait_range(file, start, end));
                let inode = Inode::from_raw(bindings::kfs_file_inode(file));
                let synced = W::sync(inode, data_only != 0);
                written.and(synced)?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// For the VFS only: `file` is open for writing and carries this table; the combination of modes is a valid one.
    unsafe extern "C" fn fallocate(
        file: *mut bindings::file,
        mode: i32,
        position: i64,
        length: i64,
    ) -> isize {
        let result = (|| {
            let keep_size = mode & bindings::KFS_CONST_FALLOC_KEEP_SIZE != 0;
            let how = match mode & !bindings::KFS_CONST_FALLOC_KEEP_SIZE {
                0 => Allocate::Space { keep_size },
                m if m == bindings::KFS_CONST_FALLOC_PUNCH_HOLE => Allocate::Hole,
                m if m == bindings::KFS_CONST_FALLOC_ZERO_RANGE => Allocate::Zeros { keep_size },
                m if m == bindings::KFS_CONST_FALLOC_COLLAPSE_RANGE => Allocate::Collapse,
                m if m == bindings::KFS_CONST_FALLOC_INSERT_RANGE => Allocate::Insert,
                _ => return Err(Errno::EOPNOTSUPP.into()),
            };
            let (at, count) = (u64::try_from(position)?, u64::try_from(length)?);
            // SAFETY: See above.
            unsafe {
                let inode = bindings::kfs_file_inode(file);
                bindings::kfs_inode_lock(inode);
                let result = Self::allocate(file, inode, how, at, count);
                bindings::kfs_inode_unlock(inode);
                result?;
                if bindings::kfs_file_is_dsync(file) {
                    to_result(bindings::vfs_fsync_range(file, position, i64::MAX, 1))?;
                }
            }
            Ok(())
        })();
        result.map_or_else(|error: Error| error.to_errno() as isize, |()| 0)
    }

    /// # Safety
    ///
    /// See `fallocate`; the inode is locked for change.
    unsafe fn allocate(
        file: *mut bindings::file,
        inode: *mut bindings::inode,
        how: Allocate,
        position: u64,
        length: u64,
    ) -> Result {
        // SAFETY: See above.
        unsafe {
            let size = bindings::kfs_i_size_read(inode).max(0) as u64;
            let end = position.checked_add(length).ok_or(Errno::EFBIG)?;
            let block = u64::from(bindings::kfs_inode_block_size(inode));
            let aligned = position % block == 0 && length % block == 0;
            let new_size = match how {
                Allocate::Space { keep_size: false } | Allocate::Zeros { keep_size: false } => {
                    end.max(size)
                }
                Allocate::Collapse if !aligned || end >= size => return Err(EINVAL),
                Allocate::Insert if !aligned || position >= size => return Err(EINVAL),
                Allocate::Insert => size.checked_add(length).ok_or(Errno::EFBIG)?,
                _ => size,
            };
            if new_size > size {
                let new_size = i64::try_from(new_size).map_err(|_| Errno::EFBIG)?;
                to_result(bindings::inode_newsize_ok(inode, new_size))?;
            }
            bindings::inode_dio_wait(inode);
            to_result(bindings::file_modified(file))?;
            bindings::kfs_invalidate_lock(inode);
            let result = W::allocate(Inode::from_raw(inode), how, position, length);
            bindings::kfs_invalidate_unlock(inode);
            result
        }
    }

    /// # Safety
    ///
    /// For the VFS only: both files are open, and carry tables of the same filesystem, which is mounted; `to` is open for writing.
    unsafe extern "C" fn remap_file_range(
        from: *mut bindings::file,
        from_position: i64,
        to: *mut bindings::file,
        to_position: i64,
        length: i64,
        flags: u32,
    ) -> i64 {
        if flags & !(bindings::KFS_CONST_REMAP_DEDUP | bindings::KFS_CONST_REMAP_ADVISORY) != 0 {
            return i64::from(EINVAL.to_errno());
        }
        // SAFETY: See above.
        unsafe {
            let (source, target) = (bindings::kfs_file_inode(from), bindings::kfs_file_inode(to));
            bindings::lock_two_nondirectories(source, target);
            bindings::inode_dio_wait(source);
            bindings::inode_dio_wait(target);
            let mut count = length;
            let ready = bindings::generic_remap_file_range_prep(
                from,
                from_position,
                to,
                to_position,
                &mut count,
                flags,
            );
            let done = match ready {
                0 if count > 0 => Self::share(source, from_position, target, to_position, count),
                error => i64::from(error),
            };
            bindings::unlock_two_nondirectories(source, target);
            if done > 0 && bindings::kfs_file_is_dsync(to) {
                let error =
                    bindings::vfs_fsync_range(to, to_position, to_position + done - 1, 1);
                if error != 0 {
                    return i64::from(error);
                }
            }
            done
        }
    }

    /// # Safety
    ///
    /// See `remap_file_range`; both inodes are locked, and the ranges are checked.
    unsafe fn share(
        source: *mut bindings::inode,
        from: i64,
        target: *mut bindings::inode,
        to: i64,
        length: i64,
    ) -> i64 {
        // SAFETY: See above.
        unsafe {
            if to > bindings::kfs_i_size_read(target) {
                bindings::kfs_zero_behind_end(target);
            }
            bindings::kfs_invalidate_lock_two(source, target);
            let page = kernel::page::PAGE_SIZE as i64;
            let (first, end) = (to - to % page, (to + length).saturating_add(page - 1));
            bindings::kfs_drop_pages(target, first, end - end % page);
            let (from, to) = (from as u64, to as u64);
            let (source, target) = (Inode::from_raw(source), Inode::from_raw(target));
            let done = W::share(source, from, target, to, length as u64);
            bindings::kfs_invalidate_unlock_two(source.as_raw(), target.as_raw());
            match done {
                Ok(done) => done.min(length as u64) as i64,
                Err(error) => i64::from(error.to_errno()),
            }
        }
    }
}
