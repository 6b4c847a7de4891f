// SPDX-License-Identifier: GPL-2.0

//! The tables that iomap and the page cache go by, for files that can be written.

use super::{
    direct_run::DirectRun,
    folio_run::{FolioRun, SyncRead},
    folio_write::Gathering,
    table::Callbacks as Reading,
    DirectWrite, Table, Write,
};
use crate::{
    bindings,
    block::BlockDevice,
    errno::Errno,
    mem::NofsScope,
    vfs::{filesystem::FileSystem, inode::Inode},
};
use core::{marker::PhantomData, ptr, ptr::NonNull};
use kernel::{error::from_result, prelude::*, sync::Arc, types::ForeignOwnable};

impl<T: FileSystem> Table<T> {
    /// The table for `W`.
    pub const fn writable<W: Write<FileSystem = T>>() -> Self {
        Self::from_raw(&Callbacks::<W>::MAPPING)
    }
}

/// `iomap_ops` of `W`, for changes of the page cache and for direct writes.
pub(super) fn operations<W: Write>() -> *const bindings::iomap_ops {
    &Callbacks::<W>::OPERATIONS
}

/// `iomap_write_ops` of `W`.
pub(super) fn write_operations<W: Write>() -> *const bindings::iomap_write_ops {
    &Callbacks::<W>::WRITE
}

/// `iomap_dio_ops` of `W`, for writes.
pub(super) fn direct_operations<W: Write>() -> *const bindings::iomap_dio_ops {
    &Callbacks::<W>::DIRECT
}

/// The callbacks. As for reading: the VFS and iomap call them for files that carry the tables, of the right filesystem; a reference to the
/// inode is held during each call.
struct Callbacks<W>(PhantomData<W>);

impl<W: Write> Callbacks<W> {
    const MAPPING: bindings::address_space_operations = bindings::address_space_operations {
        writepages: Some(Self::writepages),
        dirty_folio: Some(bindings::iomap_dirty_folio),
        ..Reading::<W>::MAPPING
    };

    const OPERATIONS: bindings::iomap_ops = bindings::iomap_ops {
        iomap_begin: Some(Self::begin),
        iomap_end: Some(Self::end),
        ..pin_init::zeroed()
    };

    const WRITE: bindings::iomap_write_ops = bindings::iomap_write_ops {
        get_folio: Some(Self::get_folio),
        read_folio_range: Some(Self::read_folio_range),
        ..pin_init::zeroed()
    };

    const WRITEBACK: bindings::iomap_writeback_ops = bindings::iomap_writeback_ops {
        writeback_range: Some(Self::writeback_range),
        writeback_submit: Some(Self::writeback_submit),
    };

    const DIRECT: bindings::iomap_dio_ops = bindings::iomap_dio_ops {
        submit_io: Some(Self::submit_direct),
        end_io: Some(Self::end_direct),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// For iomap only, as all below; `inode` is of this filesystem.
    unsafe extern "C" fn begin(
        inode: *mut bindings::inode,
        position: i64,
        length: i64,
        flags: u32,
        iomap: *mut bindings::iomap,
        _source: *mut bindings::iomap,
    ) -> i32 {
        from_result(|| {
            if flags & bindings::IOMAP_NOWAIT != 0 {
                return Err(EAGAIN);
            }
            if flags & (bindings::IOMAP_UNSHARE | bindings::IOMAP_ATOMIC) != 0 {
                return Err(Errno::EOPNOTSUPP.into());
            }
            let (at, want) = (u64::try_from(position)?, u64::try_from(length)?);
            // SAFETY: See above.
            let inode = unsafe { Inode::<W::FileSystem>::from_raw(inode) };
            // SAFETY: iomap passes a zeroed mapping of its own.
            let iomap = unsafe { &mut *iomap };
            iomap.offset = position;
            iomap.addr = bindings::IOMAP_NULL_ADDR as u64;
            iomap.type_ = bindings::IOMAP_MAPPED as u16;
            iomap.length = if flags & bindings::IOMAP_ZERO != 0 {
                let (data, length) = W::zero(inode, at, want)?;
                if !data {
                    iomap.type_ = bindings::IOMAP_HOLE as u16;
                }
                length
            } else if flags & bindings::IOMAP_DIRECT != 0 {
                let device = W::direct_device(inode)?;
                iomap.bdev = device.as_raw();
                iomap.private = device.into_foreign();
                // Where it goes is decided later, and nothing is durable by itself.
                iomap.flags = (bindings::IOMAP_F_ANON_WRITE | bindings::IOMAP_F_DIRTY) as u16;
                want
            } else if flags & bindings::IOMAP_WRITE != 0 {
                W::promise(inode, at, want, flags & bindings::IOMAP_FAULT != 0)?
            } else {
                return Err(EINVAL);
            }
            .clamp(1, want.max(1));
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// For iomap only: `iomap` was filled in by `begin`.
    unsafe extern "C" fn end(
        inode: *mut bindings::inode,
        position: i64,
        length: i64,
        written: isize,
        flags: u32,
        iomap: *mut bindings::iomap,
    ) -> i32 {
        if flags & bindings::IOMAP_DIRECT != 0 {
            // SAFETY: `begin` left a device there.
            unsafe {
                let device = core::mem::replace(&mut (*iomap).private, ptr::null_mut());
                drop(Arc::<BlockDevice>::try_from_foreign(device));
            }
            return 0;
        }
        let written = written.max(0) as i64;
        if written >= length || flags & bindings::IOMAP_WRITE == 0 || flags & bindings::IOMAP_FAULT != 0
        {
            return 0;
        }
        // SAFETY: See above. Nobody can make pages dirty by a fault meanwhile, others are kept out by the lock of the inode.
        unsafe {
            let block = i64::from(bindings::kfs_inode_block_size(inode));
            // The last block that something was written to keeps its promise; so does the first if it is dirty already.
            let start = match written {
                0 => position - position % block,
                _ => (position + written + block - 1) / block * block,
            };
            let end = (position + length + block - 1) / block * block;
            if start < end {
                bindings::kfs_invalidate_lock(inode);
                bindings::iomap_write_delalloc_release(
                    inode,
                    start,
                    end,
                    flags,
                    iomap,
                    Some(Self::punch),
                );
                bindings::kfs_invalidate_unlock(inode);
            }
        }
        0
    }

    /// # Safety
    ///
    /// For iomap only: nothing in the range is dirty.
    unsafe extern "C" fn punch(
        inode: *mut bindings::inode,
        position: i64,
        length: i64,
        _iomap: *mut bindings::iomap,
    ) {
        // SAFETY: See above.
        let inode = unsafe { Inode::<W::FileSystem>::from_raw(inode) };
        if let (Ok(position), Ok(length)) = (u64::try_from(position), u64::try_from(length)) {
            W::give_back(inode, position, length);
        }
    }

    /// # Safety
    ///
    /// For iomap only: the iterator is at `position`, in a mapping made by `begin`.
    unsafe extern "C" fn get_folio(
        iter: *mut bindings::iomap_iter,
        position: i64,
        length: u32,
    ) -> *mut bindings::folio {
        // SAFETY: See above.
        let folio = unsafe { bindings::iomap_get_folio(iter, position, length as usize) };
        // SAFETY: That is what it returns: a folio that is locked, or an error.
        let locked = unsafe { bindings::kfs_folio_or_none(folio).as_ref() };
        let Some(locked) = locked else {
            return folio;
        };
        let result = (|| {
            let at = u64::try_from(position)?;
            // SAFETY: See above; the folio is locked.
            let (inode, length, flags) = unsafe {
                let rest = bindings::kfs_folio_size(locked)
                    - bindings::kfs_offset_in_folio(locked, position);
                let inode = Inode::<W::FileSystem>::from_raw((*iter).inode);
                (inode, u64::from(length).min(rest as u64), (*iter).flags)
            };
            // The flusher may have taken what `begin` was promised, for what was dirty before. It cannot while the folio is locked.
            match flags & bindings::IOMAP_ZERO {
                0 => W::promise(inode, at, length, true)?,
                _ => W::zero(inode, at, length)?.1,
            };
            Ok(())
        })();
        match result {
            Ok(()) => folio,
            Err(error) => {
                let error: Error = error;
                // SAFETY: Locked and referred to by us; iomap gets the error instead.
                unsafe { bindings::kfs_folio_give_up(folio, error.to_errno()) }
            }
        }
    }

    /// # Safety
    ///
    /// For iomap only: `folio` is locked, and ours to read the range into.
    unsafe extern "C" fn read_folio_range(
        iter: *const bindings::iomap_iter,
        folio: *mut bindings::folio,
        position: i64,
        length: usize,
    ) -> i32 {
        from_result(|| {
            let _nofs = NofsScope::enter();
            let folio = NonNull::new(folio).ok_or(EIO)?;
            let read = SyncRead::new()?;
            // SAFETY: See above; the folio stays locked until the read has ended, which is waited for.
            unsafe {
                let inode = (*iter).inode;
                let offset = bindings::kfs_offset_in_folio(folio.as_ptr(), position);
                let bits = (*inode).i_blkbits;
                let run = FolioRun::single(folio, offset, length, position as u64, bits, &read);
                W::read(Inode::from_raw(inode), run);
            }
            read.wait()?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// For the page cache only.
    unsafe extern "C" fn writepages(
        mapping: *mut bindings::address_space,
        control: *mut bindings::writeback_control,
    ) -> i32 {
        let _nofs = NofsScope::enter();
        let mut context = bindings::iomap_writepage_ctx {
            // SAFETY: The mapping is that of a file of this filesystem.
            inode: unsafe { (*mapping).host },
            wbc: control,
            ops: &Self::WRITEBACK,
            ..pin_init::zeroed()
        };
        // Anything but a hole.
        context.iomap.type_ = bindings::IOMAP_MAPPED as u16;
        // SAFETY: See above; the context lives during the call, at whose end nothing is left in it.
        unsafe { bindings::iomap_writepages(&mut context) }
    }

    /// # Safety
    ///
    /// For iomap only: the context is one made by `writepages`; the range of `folio` is under writeback, and ours to finish if
    /// this succeeds.
    unsafe extern "C" fn writeback_range(
        context: *mut bindings::iomap_writepage_ctx,
        folio: *mut bindings::folio,
        position: u64,
        length: u32,
        end: u64,
    ) -> isize {
        let Some(part) = NonNull::new(folio) else {
            return EIO.to_errno() as isize;
        };
        // SAFETY: See above. What `wb_ctx` points at was put there below.
        unsafe {
            let offset = bindings::kfs_offset_in_folio(folio, position as i64);
            loop {
                let gathering = (*context).wb_ctx.cast::<Gathering>();
                if !gathering.is_null()
                    && (*gathering).add(part, offset, length as usize, position, end)
                {
                    return length as isize;
                }
                // An empty one takes anything.
                Self::submit(context, Ok(()));
                (*context).wb_ctx = KBox::into_raw(Gathering::new()).cast();
            }
        }
    }

    /// # Safety
    ///
    /// For iomap only: as `writeback_range`.
    unsafe extern "C" fn writeback_submit(
        context: *mut bindings::iomap_writepage_ctx,
        error: i32,
    ) -> i32 {
        let result = match error {
            0 => Ok(()),
            error => Err(Error::from_errno(error)),
        };
        // SAFETY: See above.
        unsafe { Self::submit(context, result) };
        error
    }

    /// Hands over what was gathered, or fails it.
    ///
    /// # Safety
    ///
    /// The context must be one made by `writepages`.
    unsafe fn submit(context: *mut bindings::iomap_writepage_ctx, result: Result) {
        // SAFETY: By the contract; what `wb_ctx` points at is a box that `writeback_range` gave away.
        unsafe {
            let gathering = core::mem::replace(&mut (*context).wb_ctx, ptr::null_mut());
            let Some(inode) = NonNull::new((*context).inode).filter(|_| !gathering.is_null()) else {
                return;
            };
            let gathering = KBox::from_raw(gathering.cast::<Gathering>());
            let Some(run) = gathering.take::<W::FileSystem>(inode) else {
                return;
            };
            match result {
                Ok(()) => W::write(Inode::from_raw(inode.as_ptr()), run),
                Err(_) => run.finish(result),
            }
        }
    }

    /// # Safety
    ///
    /// For iomap only: the bio is given to us to be ended, for a write at `position`.
    unsafe extern "C" fn submit_direct(
        iter: *const bindings::iomap_iter,
        bio: *mut bindings::bio,
        position: i64,
    ) {
        // SAFETY: See above. The file is open until the bio is ended, so that the inode is there.
        unsafe {
            let inode = (*iter).inode;
            let (Some(bio), Some(file)) = (NonNull::new(bio), NonNull::new(inode)) else {
                return;
            };
            // `begin` left the bio's device in the mapping, which holds it until the bio is submitted.
            let device = Arc::<BlockDevice>::borrow((*iter).iomap.private);
            if let Some(run) = DirectRun::new(bio, device.into(), position as u64) {
                let run = DirectWrite::new(run, file);
                W::write_direct(Inode::from_raw(inode), run);
            }
        }
    }

    /// # Safety
    ///
    /// For iomap only: all bios of the call `iocb` have ended.
    unsafe extern "C" fn end_direct(
        iocb: *mut bindings::kiocb,
        size: isize,
        error: i32,
        _flags: u32,
    ) -> i32 {
        if error != 0 {
            return error;
        }
        // SAFETY: See above. Who writes behind the end of the file has its inode locked for change until this is done.
        unsafe {
            let inode = bindings::kfs_file_inode((*iocb).ki_filp);
            let end = (*iocb).ki_pos + size as i64;
            if end > bindings::kfs_i_size_read(inode) {
                bindings::kfs_i_size_write(inode, end);
            }
        }
        0
    }
}
