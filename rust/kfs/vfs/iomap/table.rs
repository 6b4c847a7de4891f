// SPDX-License-Identifier: GPL-2.0

//! The tables that iomap and the page cache go by.

use super::{
    folio_run::Gathering,
    DirectRun, Mapping, MappingKind, Purpose, Read, //
};
use crate::{
    bindings,
    errno::Errno,
    block::BlockDevice,
    mem::NofsScope,
    vfs::{filesystem::FileSystem, inode::Inode},
};
use core::{marker::PhantomData, ptr, ptr::NonNull};
use kernel::{
    error::from_result, page::PAGE_SIZE, prelude::*, sync::Arc, types::ForeignOwnable,
};

/// A filesystem's table of address-space operations.
pub struct Table<T>(&'static bindings::address_space_operations, PhantomData<fn(T)>);

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Table<T> {}

impl<T> Table<T> {
    pub(super) const fn from_raw(raw: &'static bindings::address_space_operations) -> Self {
        Self(raw, PhantomData)
    }
}

impl<T: FileSystem> Table<T> {
    /// The table of a file whose data is read by `R`.
    pub const fn new<R: Read<FileSystem = T>>() -> Self {
        Self(&Callbacks::<R>::MAPPING, PhantomData)
    }

    pub(in crate::vfs) fn as_raw(&self) -> *const bindings::address_space_operations {
        self.0
    }
}

/// `iomap_ops` of `R`.
pub(in crate::vfs) fn operations<R: Read>() -> *const bindings::iomap_ops {
    &Callbacks::<R>::OPERATIONS
}

/// `iomap_dio_ops` of `R`.
pub(in crate::vfs) fn direct_operations<R: Read>() -> *const bindings::iomap_dio_ops {
    &Callbacks::<R>::DIRECT
}

/// The callbacks. The VFS and iomap call them for files that carry the tables, of the right filesystem: `NewInode::finish` sees
/// to that. A reference to the inode is held during each call.
pub(super) struct Callbacks<R>(PhantomData<R>);

/// What a pass over folios carries along: `read_ctx`.
struct Pass {
    gathering: Gathering,
}

impl<R: Read> Callbacks<R> {
    pub(super) const MAPPING: bindings::address_space_operations = bindings::address_space_operations {
        read_folio: Some(Self::read_folio),
        readahead: Some(Self::readahead),
        release_folio: Some(bindings::iomap_release_folio),
        invalidate_folio: Some(bindings::iomap_invalidate_folio),
        is_partially_uptodate: Some(bindings::iomap_is_partially_uptodate),
        migrate_folio: Some(bindings::filemap_migrate_folio),
        error_remove_folio: Some(bindings::generic_error_remove_folio),
        dirty_folio: Some(bindings::noop_dirty_folio),
        ..pin_init::zeroed()
    };

    const OPERATIONS: bindings::iomap_ops = bindings::iomap_ops {
        iomap_begin: Some(Self::begin),
        iomap_end: if R::HAS_READ_DIRECT { Some(Self::end) } else { None },
        ..pin_init::zeroed()
    };

    const READ: bindings::iomap_read_ops = bindings::iomap_read_ops {
        read_folio_range: Some(Self::read_folio_range),
        submit_read: Some(Self::submit_read),
        ..pin_init::zeroed()
    };

    const DIRECT: bindings::iomap_dio_ops = bindings::iomap_dio_ops {
        submit_io: if R::HAS_READ_DIRECT { Some(Self::submit_direct) } else { None },
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
            if flags & (bindings::IOMAP_WRITE | bindings::IOMAP_ZERO | bindings::IOMAP_UNSHARE) != 0 {
                return Err(EROFS);
            }
            let purpose = if flags & bindings::IOMAP_DIRECT != 0 {
                Purpose::Direct
            } else if flags & bindings::IOMAP_REPORT != 0 {
                Purpose::Report
            } else {
                Purpose::Read
            };
            let position = u64::try_from(position)?;
            // SAFETY: See above.
            let inode = unsafe { Inode::<R::FileSystem>::from_raw(inode) };
            let mapping = R::begin(inode, position, u64::try_from(length)?, purpose)?;
            mapping.check(position)?;
            // SAFETY: iomap passes a zeroed mapping of its own.
            let iomap = unsafe { &mut *iomap };
            mapping.fill(iomap, purpose);
            if purpose == Purpose::Direct && mapping.is_data() {
                if !R::HAS_DIRECT_DEVICE {
                    return Err(Errno::EOPNOTSUPP.into());
                }
                let device = R::direct_device(inode)?;
                iomap.bdev = device.as_raw();
                iomap.private = device.into_foreign();
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// For iomap only: `iomap` was filled in by `begin`.
    unsafe extern "C" fn end(
        _inode: *mut bindings::inode,
        _position: i64,
        _length: i64,
        _written: isize,
        _flags: u32,
        iomap: *mut bindings::iomap,
    ) -> i32 {
        // SAFETY: `begin` left a device there, or nothing.
        unsafe {
            let device = core::mem::replace(&mut (*iomap).private, ptr::null_mut());
            drop(Arc::<BlockDevice>::try_from_foreign(device));
        }
        0
    }

    /// # Safety
    ///
    /// For the page cache only: `folio` is locked, in the page cache of a file of this filesystem, and not up to date.
    unsafe extern "C" fn read_folio(_file: *mut bindings::file, folio: *mut bindings::folio) -> i32 {
        // SAFETY: See above.
        unsafe { Self::pass(folio, ptr::null_mut()) };
        0
    }

    /// # Safety
    ///
    /// For the page cache only.
    unsafe extern "C" fn readahead(control: *mut bindings::readahead_control) {
        // SAFETY: `control` describes locked folios of a file of this filesystem.
        unsafe {
            if R::HAS_READAHEAD_WINDOW {
                Self::widen(control);
            }
            Self::pass(ptr::null_mut(), control);
        }
    }

    /// # Safety
    ///
    /// One of the two describes locked folios of a file of this filesystem, which are to be read; the other is null.
    unsafe fn pass(folio: *mut bindings::folio, control: *mut bindings::readahead_control) {
        let _nofs = NofsScope::enter();
        let mut pass = Pass { gathering: Gathering::new() };
        let mut context = bindings::iomap_read_folio_ctx {
            ops: &Self::READ,
            cur_folio: folio,
            rac: control,
            read_ctx: ptr::from_mut(&mut pass).cast(),
            ..pin_init::zeroed()
        };
        // SAFETY: See above; the context and what it points at live during the call. iomap calls `submit_read` after each mapping, so
        // that nothing is left in `pass`.
        unsafe {
            if control.is_null() {
                bindings::iomap_read_folio(&Self::OPERATIONS, &mut context, ptr::null_mut());
            } else {
                bindings::iomap_readahead(&Self::OPERATIONS, &mut context, ptr::null_mut());
            }
        }
    }

    /// # Safety
    ///
    /// `control` must be that of a running readahead, of a file of this filesystem.
    unsafe fn widen(control: *mut bindings::readahead_control) {
        let mut length = 0;
        // SAFETY: By the contract.
        let (inode, position) = unsafe {
            let position = bindings::kfs_readahead_range(control, &mut length);
            (Inode::<R::FileSystem>::from_raw((*(*control).mapping).host), position)
        };
        let length = length as u64;
        let Some((start, wide)) = R::readahead_window(inode, position, length) else {
            return;
        };
        // The page in which the file ends is part of a readahead, too.
        let size = inode.size().next_multiple_of(PAGE_SIZE as u64);
        let end = start.saturating_add(wide).min(size);
        if start > position || end < position.saturating_add(length) || wide > MAX_WINDOW {
            return;
        }
        if start < position || end > position.saturating_add(length) {
            // SAFETY: By the contract; the range contains the one of `control`.
            unsafe { bindings::readahead_expand(control, start as i64, (end - start) as usize) };
        }
    }

    /// # Safety
    ///
    /// For iomap only: the context is one made by `pass`; the folio is ours to read `length` bytes into, at the iterator's position.
    unsafe extern "C" fn read_folio_range(
        iter: *const bindings::iomap_iter,
        context: *mut bindings::iomap_read_folio_ctx,
        length: usize,
    ) -> i32 {
        // SAFETY: See above. When this returns 0, iomap waits for the range to be finished; each piece belongs to this file.
        unsafe {
            let Some(folio) = NonNull::new((*context).cur_folio) else {
                return EIO.to_errno();
            };
            let inode = (*iter).inode;
            let pass = &mut *(*context).read_ctx.cast::<Pass>();
            let offset = bindings::kfs_offset_in_folio(folio.as_ptr(), (*iter).pos);
            let position = (*iter).pos as u64;
            let bits = (*inode).i_blkbits;
            if !pass.gathering.add(folio, offset, length, position, bits) {
                Self::submit(inode, pass);
                // An empty gathering takes anything.
                pass.gathering.add(folio, offset, length, position, bits);
            }
        }
        0
    }

    /// # Safety
    ///
    /// For iomap only: as `read_folio_range`.
    unsafe extern "C" fn submit_read(
        iter: *const bindings::iomap_iter,
        context: *mut bindings::iomap_read_folio_ctx,
    ) {
        // SAFETY: See above.
        unsafe { Self::submit((*iter).inode, &mut *(*context).read_ctx.cast::<Pass>()) };
    }

    /// # Safety
    ///
    /// What was gathered must be of `inode`, which is of this filesystem.
    unsafe fn submit(inode: *mut bindings::inode, pass: &mut Pass) {
        // SAFETY: By the contract.
        let inode = unsafe { Inode::<R::FileSystem>::from_raw(inode) };
        pass.gathering.take(|run| R::read(inode, run));
    }

    /// # Safety
    ///
    /// For iomap only: the bio is given to us to be ended, for a read at `position`.
    unsafe extern "C" fn submit_direct(
        iter: *const bindings::iomap_iter,
        bio: *mut bindings::bio,
        position: i64,
    ) {
        // SAFETY: See above.
        let (inode, run) = unsafe {
            let Some(bio) = NonNull::new(bio) else {
                return;
            };
            // `begin` left the bio's device in the mapping, which holds it until the bio is submitted.
            let device = Arc::<BlockDevice>::borrow((*iter).iomap.private);
            (Inode::from_raw((*iter).inode), DirectRun::new(bio, device.into(), position as u64))
        };
        if let Some(run) = run {
            R::read_direct(inode, run);
        }
    }
}

/// Most bytes that a readahead is widened to.
const MAX_WINDOW: u64 = 4 << 20;

impl Mapping {
    fn is_data(&self) -> bool {
        matches!(self.kind, MappingKind::Mapped | MappingKind::Delayed)
    }

    /// What iomap relies upon: the mapping contains `position`, and does not end out of bounds.
    fn check(&self, position: u64) -> Result {
        let end = self.position.checked_add(self.length).ok_or(EIO)?;
        if self.position > position || end <= position || end - 1 > crate::vfs::MAX_FILE_POSITION {
            return Err(EIO);
        }
        Ok(())
    }

    fn fill(&self, iomap: &mut bindings::iomap, purpose: Purpose) {
        iomap.offset = self.position as i64;
        iomap.length = self.length;
        iomap.addr = self.address.unwrap_or(bindings::IOMAP_NULL_ADDR as u64);
        iomap.type_ = match self.kind {
            MappingKind::Hole => bindings::IOMAP_HOLE,
            MappingKind::Mapped => bindings::IOMAP_MAPPED,
            MappingKind::Unwritten => bindings::IOMAP_UNWRITTEN,
            MappingKind::Delayed if purpose == Purpose::Report => bindings::IOMAP_DELALLOC,
            // For iomap's readers delayed data is zeros (buffered) or an error (direct).
            MappingKind::Delayed => bindings::IOMAP_MAPPED,
        } as u16;
        if self.shared {
            iomap.flags |= bindings::IOMAP_F_SHARED as u16;
        }
    }
}

#[kernel::macros::kunit_tests(kfs_vfs_mapping)]
mod tests {
    use super::*;

    fn mapping(position: u64, length: u64) -> Mapping {
        Mapping { kind: MappingKind::Mapped, position, length, address: None, shared: false }
    }

    #[test]
    fn a_mapping_contains_what_was_asked_for() {
        assert!(mapping(0, 4096).check(0).is_ok());
        assert!(mapping(0, 4096).check(4095).is_ok());
        assert!(mapping(0, 4096).check(4096).is_err());
        assert!(mapping(4096, 4096).check(0).is_err());
        assert!(mapping(0, 0).check(0).is_err());
        assert!(mapping(4096, u64::MAX).check(4096).is_err());
        assert!(mapping(0, 1 << 63).check(0).is_ok());
        assert!(mapping(0, (1 << 63) + 1).check(0).is_err());
    }
}
