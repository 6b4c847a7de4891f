// SPDX-License-Identifier: GPL-2.0

//! Buffers for transfers.

use super::{PageSpan, Segment};
use crate::{bindings, mem::RawPool};
use core::{alloc::Layout, ptr::NonNull};
use kernel::{
    alloc::{allocator::KVmalloc, flags::__GFP_ZERO, AllocError, Allocator, Flags, NumaNode},
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc,
};

/// A buffer of whole pages, contiguous in virtual memory, for transfers to and from block devices.
///
/// Made by [`IoBuf::new`], or taken from an [`IoBufPool`], to which it returns when dropped. Drop it in process context.
///
/// # Invariants
///
/// `start` is the start of `bytes` bytes of memory, aligned to a page, `bytes` a multiple of the page size and not zero,
/// owned by this value. They are a piece of `pool`, or, if that is `None`, an allocation of `KVmalloc` with the layout of
/// [`layout(bytes)`](layout).
pub struct IoBuf {
    start: NonNull<u8>,
    bytes: usize,
    pool: Option<Arc<IoBufPool>>,
}

// SAFETY: It owns plain bytes.
unsafe impl Send for IoBuf {}
// SAFETY: A shared buffer gives out shared references to plain bytes only.
unsafe impl Sync for IoBuf {}

/// `bytes` rounded up to whole pages, if it is a size a buffer can have (1 byte to 1 GiB).
fn whole_pages(bytes: usize) -> Option<usize> {
    const MAX: usize = 1 << 30;
    (bytes > 0 && bytes <= MAX).then(|| bytes.next_multiple_of(PAGE_SIZE))
}

/// The layout of a buffer of `bytes` bytes.
fn layout(bytes: usize) -> Result<Layout, AllocError> {
    Layout::from_size_align(bytes, PAGE_SIZE).map_err(|_| AllocError)
}

impl IoBuf {
    /// Allocates a buffer of `bytes` bytes, rounded up to whole pages, filled with zeroes.
    pub fn new(bytes: usize, flags: Flags) -> Result<Self, AllocError> {
        let bytes = whole_pages(bytes).ok_or(AllocError)?;
        let memory = KVmalloc::alloc(layout(bytes)?, flags | __GFP_ZERO, NumaNode::NO_NODE)?;
        // INVARIANT: Allocated with that layout, hence aligned to a page.
        Ok(Self {
            start: memory.cast(),
            bytes,
            pool: None,
        })
    }

    /// The length in bytes.
    #[allow(clippy::len_without_is_empty)] // Never empty.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// The contents.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: By the type invariant, that memory is owned; it is initialised to zero, or is whatever the pool's C allocator
        // returned, which is some value as far as Rust can know, and any value is a valid `u8`.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    /// The contents, to be changed.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: As in `as_bytes()`, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }

    /// The contents as 64-bit words in the machine's byte order.
    pub fn as_words(&self) -> &[u64] {
        // SAFETY: As in `as_bytes()`; pages are aligned for words and a multiple of them.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes / 8) }
    }

    /// The contents as 64-bit words in the machine's byte order, to be changed.
    pub fn as_words_mut(&mut self) -> &mut [u64] {
        // SAFETY: As in `as_words()`, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.bytes / 8) }
    }
}

// SAFETY: The memory is owned by the value and stays until it is dropped; references to it are made from `&self` and `&mut self`
// only.
unsafe impl PageSpan for IoBuf {
    fn span_len(&self) -> usize {
        self.bytes
    }

    fn segment(&self, offset: usize) -> Option<Segment> {
        let left = self.bytes.checked_sub(offset).filter(|&left| left > 0)?;
        let mut page = core::ptr::null_mut();
        // SAFETY: `offset` is inside the buffer.
        let address = unsafe { self.start.as_ptr().add(offset) };
        // SAFETY: `left` bytes from `address` on are memory from kvmalloc(), mapped and linear or from vmalloc().
        let len = unsafe { bindings::kfs_addr_segment(address.cast(), left, &mut page) };
        // SAFETY: So says the helper; the address is that far into its page.
        Some(unsafe { Segment::new(NonNull::new(page)?, offset % PAGE_SIZE, len) })
    }
}

impl Drop for IoBuf {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            // SAFETY: By the type invariant, a piece of this pool; not used after this.
            unsafe { pool.raw.free(self.start) };
        } else if let Ok(layout) = layout(self.bytes) {
            // SAFETY: By the type invariant, allocated with this allocator and layout; not used after this.
            unsafe { KVmalloc::free(self.start, layout) };
        }
    }
}

/// A pool of [`IoBuf`]s of one size.
pub struct IoBufPool {
    raw: RawPool,
}

impl IoBufPool {
    /// Creates a pool of buffers of `bytes` bytes, rounded up to whole pages, with `reserve` of them (at least one) put aside.
    ///
    /// May sleep. Fails with `ENOMEM`, or `EINVAL` for a size of zero or beyond 1 GiB.
    pub fn new(reserve: u32, bytes: usize) -> Result<Arc<Self>> {
        let raw = RawPool::new(reserve, whole_pages(bytes).ok_or(EINVAL)?)?;
        Ok(Arc::new(Self { raw }, GFP_KERNEL)?)
    }

    /// The size of each buffer in bytes.
    pub fn bytes(&self) -> usize {
        self.raw.bytes()
    }

    /// Takes a buffer, waiting for one if need be. Does not enter file systems.
    ///
    /// What is in it is unspecified. Who already holds a buffer of this pool uses [`try_get`](Self::try_get).
    pub fn get(pool: &Arc<Self>) -> IoBuf {
        Self::wrap(pool, pool.raw.alloc())
    }

    /// Takes a buffer unless that would have to wait.
    pub fn try_get(pool: &Arc<Self>) -> Option<IoBuf> {
        Some(Self::wrap(pool, pool.raw.try_alloc()?))
    }

    fn wrap(pool: &Arc<Self>, start: NonNull<u8>) -> IoBuf {
        // INVARIANT: A piece of the pool. kvmalloc() aligns whole pages to pages: sizes that are powers of two are aligned to themselves,
        // others come from the page allocator or from vmalloc().
        IoBuf {
            start,
            bytes: pool.raw.bytes(),
            pool: Some(pool.clone()),
        }
    }
}

#[kernel::macros::kunit_tests(kfs_io_buf)]
mod tests {
    use super::*;

    fn check(buf: &IoBuf) {
        assert_eq!(buf.as_bytes().as_ptr() as usize % PAGE_SIZE, 0);
        let mut at = 0;
        while let Some(segment) = buf.segment(at) {
            assert!(segment.len() > 0);
            assert!(at + segment.len() <= buf.len());
            assert_eq!(segment.offset(), at % PAGE_SIZE);
            at += segment.len();
        }
        assert_eq!(at, buf.len());
        assert!(buf.segment(buf.len()).is_none());
        assert!(buf.segment(usize::MAX).is_none());
        // From within, too.
        assert!(buf.segment(100).is_some_and(|segment| segment.offset() == 100));
    }

    #[test]
    fn sizes_and_segments() -> Result {
        for bytes in [1, 4096, 4097, 3 * 4096, 256 << 10, 5 << 20] {
            let mut buf = IoBuf::new(bytes, GFP_KERNEL)?;
            assert_eq!(buf.len(), bytes.next_multiple_of(PAGE_SIZE));
            assert!(buf.as_bytes().iter().all(|&byte| byte == 0));
            assert_eq!(buf.as_words().len() * 8, buf.len());
            buf.as_bytes_mut()[8] = 1;
            assert_eq!(buf.as_words()[1].to_le(), 1);
            buf.as_words_mut()[0] = 2u64.to_le();
            assert_eq!(buf.as_bytes()[0], 2);
            check(&buf);
        }
        assert!(IoBuf::new(0, GFP_KERNEL).is_err());
        assert!(IoBuf::new(usize::MAX, GFP_KERNEL).is_err());
        Ok(())
    }

    #[test]
    fn pool_gives_whole_pages() -> Result {
        let pool = IoBufPool::new(1, 100_000)?;
        let mut a = IoBufPool::get(&pool);
        assert_eq!(a.len(), 100_000usize.next_multiple_of(PAGE_SIZE));
        a.as_bytes_mut().fill(7);
        check(&a);
        drop(a);
        let small = IoBufPool::new(3, 1)?;
        assert_eq!(small.bytes(), PAGE_SIZE);
        check(&IoBufPool::get(&small));
        assert!(IoBufPool::new(1, 0).is_err());
        Ok(())
    }
}
