// SPDX-License-Identifier: GPL-2.0

//! The memory of direct reads.

use super::Destination;
use crate::{
    bindings,
    block::{BlockDevice, PageSpan, Segment},
};
use core::{mem::ManuallyDrop, ptr, ptr::NonNull};
use kernel::{
    error::Error,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, //
    },
};

/// Splits at whole sectors only.
const SECTOR: u64 = 512;

/// Bytes looked at in one go: what stays in the processor's nearest cache.
const INSPECTED: usize = 4096;

/// A bio that iomap made for a direct read, to be ended when the last run of it is finished.
///
/// # Invariants
///
/// The bio was handed to `submit_io` and has not been ended; `bi_iter` describes all of its memory, and does not change.
struct Shared {
    bio: NonNull<bindings::bio>,
    /// The bio points at it.
    _device: Arc<BlockDevice>,
    /// The first error, as negative errno, or 0.
    error: Atomic<i32>,
}

// SAFETY: The bio's memory may be filled, and the bio ended, by any thread.
unsafe impl Send for Shared {}
// SAFETY: The bio is only read while it is shared; runs write to different parts of its memory.
unsafe impl Sync for Shared {}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the bio is ours to end, once. All writes to its memory happened before the last reference
        // was dropped.
        unsafe { end(self.bio, self.error.load(Relaxed)) };
    }
}

/// # Safety
///
/// The bio must be ours, and is given away.
unsafe fn end(bio: NonNull<bindings::bio>, error: i32) {
    // SAFETY: By the contract.
    unsafe {
        if error != 0 {
            (*bio.as_ptr()).bi_status = bindings::errno_to_blk_status(error);
        }
        bindings::bio_endio(bio.as_ptr());
    }
}

/// The memory of a direct read, or a part of it, that is to be filled; see [`Destination`].
///
/// It belongs to user space as a rule, which may read and write it at the same time: that a checksum does not match what is in
/// it says nothing about the device.
///
/// # Invariants
///
/// The run owns the bytes from `start` on, `length` of them, of the bio's memory: no other run writes them, and it does not either if it is a view.
pub struct DirectRun {
    shared: Arc<Shared>,
    start: usize,
    length: usize,
    position: u64,
    /// Another run is to be finished for these bytes.
    is_view: bool,
}

impl DirectRun {
    /// Takes a bio for `device` over; `None` ends it, for lack of memory.
    ///
    /// # Safety
    ///
    /// The bio must have been handed to `submit_io`, for a read at `position`.
    pub(super) unsafe fn new(
        bio: NonNull<bindings::bio>,
        device: Arc<BlockDevice>,
        position: u64,
    ) -> Option<Self> {
        // SAFETY: The bio is valid by the contract.
        let length = unsafe { bindings::kfs_bio_size(bio.as_ptr()) };
        // The value is dropped if there is no memory, which would end the bio with success.
        let error = Atomic::new(ENOMEM.to_errno());
        let shared = Shared { bio, _device: device, error };
        let shared = Arc::new(shared, GFP_KERNEL).ok()?;
        shared.error.store(0, Relaxed);
        Some(Self { shared, start: 0, length, position, is_view: false })
    }

    /// The same bytes for a device to read, of a write. Dropping it says nothing about the outcome.
    pub(super) fn share(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            start: self.start,
            length: self.length,
            position: self.position,
            is_view: true,
        }
    }

    fn bio(&self) -> *mut bindings::bio {
        self.shared.bio.as_ptr()
    }

    fn check(&self, offset: usize, length: usize) -> Result {
        match offset.checked_add(length) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(EINVAL),
        }
    }

    fn note(&self, error: Error) {
        let _ = self.shared.error.cmpxchg(0, error.to_errno(), Relaxed);
    }
}

// SAFETY: The memory is pinned until the bio is ended, which a run delays until it is gone.
unsafe impl PageSpan for DirectRun {
    fn span_len(&self) -> usize {
        self.length
    }

    fn segment(&self, offset: usize) -> Option<Segment> {
        let rest = self.length.checked_sub(offset)?;
        if rest == 0 {
            return None;
        }
        let (mut page, mut page_offset, mut length) = (ptr::null_mut(), 0, 0);
        // SAFETY: The offset is inside the bio's memory.
        unsafe {
            bindings::kfs_bio_segment(
                self.bio(),
                self.start + offset,
                &mut page,
                &mut page_offset,
                &mut length,
            );
            Some(Segment::new(NonNull::new(page)?, page_offset, length.min(rest)))
        }
    }
}

impl Destination for DirectRun {
    fn position(&self) -> u64 {
        self.position
    }

    fn copy_in(&mut self, offset: usize, data: &[u8]) -> Result {
        self.check(offset, data.len())?;
        let at = self.start + offset;
        // SAFETY: The range is inside the bio's memory, and this run's part of it.
        unsafe {
            bindings::kfs_bio_copy_in(self.bio(), at, data.as_ptr().cast(), data.len());
        }
        Ok(())
    }

    fn zero(&mut self, offset: usize, length: usize) -> Result {
        self.check(offset, length)?;
        // SAFETY: The range is inside the bio's memory, and this run's part of it.
        unsafe { bindings::kfs_bio_zero(self.bio(), self.start + offset, length) };
        Ok(())
    }

    /// What is shown are copies of one moment: user space may write meanwhile.
    fn inspect(&self, offset: usize, length: usize, f: &mut dyn FnMut(&[u8])) -> Result {
        self.check(offset, length)?;
        let mut copy = KVec::from_elem(0u8, length.min(INSPECTED), GFP_NOWAIT | __GFP_NOWARN)?;
        let mut done = 0;
        while done < length {
            let size = (length - done).min(INSPECTED);
            let Some(part) = copy.get_mut(..size) else {
                return Err(EINVAL);
            };
            let at = self.start + offset + done;
            // SAFETY: The range is inside the bio's memory; `part` is as long and nobody else's.
            unsafe {
                bindings::kfs_bio_copy_out(self.bio(), at, part.as_mut_ptr().cast(), size);
            }
            f(part);
            done += size;
        }
        Ok(())
    }

    fn split_to(&mut self, length: usize) -> Result<Self> {
        if length == 0 || length >= self.length {
            return Err(EINVAL);
        }
        // OVERFLOW: Inside a range of a file, which ends in bounds.
        let middle = self.position + length as u64;
        if middle % SECTOR != 0 {
            return Err(EINVAL);
        }
        let front = Self {
            shared: self.shared.clone(),
            start: self.start,
            length,
            position: self.position,
            is_view: self.is_view,
        };
        self.start += length;
        self.length -= length;
        self.position = middle;
        Ok(front)
    }

    fn finish(self, result: Result) {
        if let Err(error) = result {
            self.note(error);
        }
        let mut this = ManuallyDrop::new(self);
        // SAFETY: Dropped once; the rest of the fields have nothing to drop.
        unsafe { ptr::drop_in_place(&mut this.shared) };
    }
}

impl Drop for DirectRun {
    fn drop(&mut self) {
        if !self.is_view {
            self.note(EIO);
        }
    }
}
