// SPDX-License-Identifier: GPL-2.0

//! Memory that bios can be pointed at.

use crate::bindings;
use core::ptr::NonNull;

/// A piece of memory that is contiguous for the device.
///
/// # Invariants
///
/// From byte `offset` after the start of `page`, there are `len` contiguous bytes, and `len` is not zero.
#[derive(Copy, Clone)]
pub struct Segment {
    page: NonNull<bindings::page>,
    offset: usize,
    len: usize,
}

impl Segment {
    /// A segment of `len` bytes that starts `offset` bytes after the start of `page`. It may reach over several
    /// pages that lie side by side.
    ///
    /// # Safety
    ///
    /// That memory exists, and `len` is not zero.
    #[inline]
    pub(crate) unsafe fn new(page: NonNull<bindings::page>, offset: usize, len: usize) -> Self {
        // INVARIANT: By the caller's promise.
        Self { page, offset, len }
    }

    /// The page it starts in.
    #[inline]
    pub(crate) fn page(&self) -> *mut bindings::page {
        self.page.as_ptr()
    }

    /// Where in the page it starts.
    #[inline]
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// Its length in bytes.
    #[inline]
    #[allow(clippy::len_without_is_empty)] // Never empty.
    pub fn len(&self) -> usize {
        self.len
    }
}

/// Memory that a device can read into or write from directly.
///
/// The owner of such a value has lent those pages to it; a transfer takes the value and gives it back when the device is
/// done. Values that stand for pages of the page cache, or of a direct I/O request, implement this as well as
/// [`IoBuf`](super::IoBuf) does.
///
/// # Safety
///
/// From the call of [`segment`](Self::segment) until the value is dropped or changed through `&mut self`, the memory of
/// the segments stays allocated and pinned, and may be read and written by a device: no Rust reference to it is
/// in use meanwhile, unless made from `&self` or `&mut self`. If it is not [`WRITABLE`](Self::WRITABLE), it may be read by a device
/// only, and shared references may be in use.
pub unsafe trait PageSpan: Send + 'static {
    /// Whether a device may write to it.
    const WRITABLE: bool = true;

    /// The length in bytes.
    fn span_len(&self) -> usize;

    /// The contiguous piece that starts at byte `offset` of the span, as long as possible; `None` from the end on.
    fn segment(&self, offset: usize) -> Option<Segment>;
}
