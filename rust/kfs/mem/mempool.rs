// SPDX-License-Identifier: GPL-2.0

//! Memory pools.
//!
//! An allocation that may not fail, because freeing memory depends on it, comes from a pool: elements are
//! allocated as usual while there is memory, and when there is none, from a reserve that was put aside when the pool was
//! created. When the reserve is in use as well, the allocation waits for an element to come back.
//!
//! Waiting is only safe for somebody who does not hold an element of the same pool that nobody else will
//! give back. So take one element at a time, or use a pool per purpose.
//!
//! C header: [`include/linux/mempool.h`](srctree/include/linux/mempool.h)

use crate::bindings;
use core::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
    ptr::NonNull,
};
use kernel::{error::to_result, prelude::*, sync::Arc, types::Opaque};

/// A pool of equally large pieces of uninitialised memory.
///
/// Pieces are aligned to at least 8 bytes, and to a page when they are whole pages.
///
/// # Invariants
///
/// `pool` is initialised, and each of its elements has `bytes` bytes.
pub(crate) struct RawPool {
    pool: KBox<Opaque<bindings::mempool_t>>,
    bytes: usize,
}

// SAFETY: A `mempool_t` has its own lock and is not bound to a thread.
unsafe impl Send for RawPool {}
// SAFETY: As above.
unsafe impl Sync for RawPool {}

impl RawPool {
    /// Creates a pool with `reserve` pieces (at least one) of `bytes` bytes put aside. May sleep.
    pub(crate) fn new(reserve: u32, bytes: usize) -> Result<Self> {
        let reserve = i32::try_from(reserve.max(1)).map_err(|_| EINVAL)?;
        if bytes == 0 || i32::try_from(bytes).is_err() {
            return Err(EINVAL);
        }
        // Boxed, because the pool contains a wait queue and must not move; zeroed, because initialising it relies on that.
        let pool = KBox::new(Opaque::<bindings::mempool_t>::zeroed(), GFP_KERNEL)?;
        // SAFETY: `pool` points to memory for a `mempool_t`, which stays where it is. On failure nothing has to be undone.
        to_result(unsafe { bindings::kfs_mempool_init(pool.get(), reserve, bytes) })?;
        // INVARIANT: Initialised just now with this element size.
        Ok(Self { pool, bytes })
    }

    /// The size of a piece in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a piece of [`bytes`](Self::bytes) bytes, waiting if there is none. Does not enter file systems.
    pub(crate) fn alloc(&self) -> NonNull<u8> {
        loop {
            // SAFETY: By the type invariant, the pool is initialised.
            let piece = unsafe { bindings::kfs_mempool_alloc(self.pool.get()) };
            // The loop is for form's sake: an allocation that may wait does not return without an element.
            if let Some(piece) = NonNull::new(piece.cast()) {
                return piece;
            }
        }
    }

    /// Takes a piece if there is one without waiting.
    pub(crate) fn try_alloc(&self) -> Option<NonNull<u8>> {
        // SAFETY: By the type invariant, the pool is initialised.
        NonNull::new(unsafe { bindings::kfs_mempool_try_alloc(self.pool.get()) }.cast())
    }

    /// Gives a piece back.
    ///
    /// # Safety
    ///
    /// `piece` came from this pool, has not been given back since, and is not used any more.
    pub(crate) unsafe fn free(&self, piece: NonNull<u8>) {
        // SAFETY: By the caller's promise, this is an element of this pool.
        unsafe { bindings::mempool_free(piece.as_ptr().cast(), self.pool.get()) };
    }
}

impl Drop for RawPool {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the pool is initialised. All elements are back: whoever holds one holds a
        // reference to the pool.
        unsafe { bindings::mempool_exit(self.pool.get()) };
    }
}

/// A pool of boxes for values of type `T`.
pub struct Mempool<T> {
    raw: RawPool,
    _values: PhantomData<fn(T) -> T>,
}

impl<T> Mempool<T> {
    /// Creates a pool that has memory for `reserve` values (at least one) put aside.
    ///
    /// May sleep. Fails with `ENOMEM`.
    pub fn new(reserve: u32) -> Result<Arc<Self>> {
        const {
            assert!(size_of::<T>() > 0);
            assert!(align_of::<T>() <= 8);
        }
        let raw = RawPool::new(reserve, size_of::<T>())?;
        Ok(Arc::new(
            Self {
                raw,
                _values: PhantomData,
            },
            GFP_KERNEL,
        )?)
    }

    /// Moves `value` into a box of the pool, waiting for memory if need be. Does not enter file systems.
    ///
    /// Who already holds a box of this pool uses [`try_alloc`](Self::try_alloc).
    pub fn alloc(pool: &Arc<Self>, value: T) -> PoolBox<T> {
        // SAFETY: The piece was taken from `pool` just now.
        unsafe { PoolBox::fill(pool.raw.alloc(), pool, value) }
    }

    /// Moves `value` into a box of the pool, or gives it back if that would have to wait.
    pub fn try_alloc(pool: &Arc<Self>, value: T) -> Result<PoolBox<T>, T> {
        match pool.raw.try_alloc() {
            // SAFETY: The piece was taken from `pool` just now.
            Some(piece) => Ok(unsafe { PoolBox::fill(piece, pool, value) }),
            None => Err(value),
        }
    }
}

/// A value in memory of a [`Mempool`].
///
/// Dropping it gives the memory back, in process context; that does not sleep, but `T`'s own `Drop` may.
///
/// # Invariants
///
/// `value` is a piece of `pool` that this box owns, and holds a valid `T`.
pub struct PoolBox<T> {
    value: NonNull<T>,
    pool: Arc<Mempool<T>>,
}

// SAFETY: Like a box, it owns the value; pools can be used from any thread.
unsafe impl<T: Send> Send for PoolBox<T> {}
// SAFETY: A shared box gives out shared references to the value only.
unsafe impl<T: Sync> Sync for PoolBox<T> {}

impl<T> PoolBox<T> {
    /// # Safety
    ///
    /// `piece` was taken from `pool`, and nobody else has it.
    unsafe fn fill(piece: NonNull<u8>, pool: &Arc<Mempool<T>>, value: T) -> Self {
        let place: NonNull<T> = piece.cast();
        // SAFETY: The pool's pieces are as large as a `T`, aligned to 8 bytes, which is enough for `T` (checked
        // in `Mempool::new()`), and this one is ours.
        unsafe { place.write(value) };
        // INVARIANT: Owned by the caller's promise, and filled just now.
        Self {
            value: place,
            pool: pool.clone(),
        }
    }
}

impl<T> Deref for PoolBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariant, this is a valid `T`.
        unsafe { self.value.as_ref() }
    }
}

impl<T> DerefMut for PoolBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: By the type invariant, this is a valid `T` that only this box has access to.
        unsafe { self.value.as_mut() }
    }
}

impl<T> Drop for PoolBox<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the value is valid and owned; it is not used after this.
        unsafe { core::ptr::drop_in_place(self.value.as_ptr()) };
        // SAFETY: By the type invariant the piece belongs to this pool; the value in it is gone.
        unsafe { self.pool.raw.free(self.value.cast()) };
    }
}

/// A pool of byte buffers of one size.
pub struct BufferPool {
    raw: RawPool,
}

impl BufferPool {
    /// Creates a pool that has `reserve` buffers (at least one) of `bytes` bytes put aside.
    ///
    /// May sleep. Fails with `ENOMEM`, or `EINVAL` for a size of zero or beyond 2 GiB.
    pub fn new(reserve: u32, bytes: usize) -> Result<Arc<Self>> {
        let raw = RawPool::new(reserve, bytes)?;
        Ok(Arc::new(Self { raw }, GFP_KERNEL)?)
    }

    /// The size of each buffer in bytes.
    pub fn bytes(&self) -> usize {
        self.raw.bytes()
    }

    /// Takes a buffer, waiting for one if need be. Does not enter file systems.
    ///
    /// What is in it is unspecified, often what an earlier user left.
    pub fn get(pool: &Arc<Self>) -> PoolBuf {
        // INVARIANT: Taken from this pool just now.
        PoolBuf {
            start: pool.raw.alloc(),
            pool: pool.clone(),
        }
    }

    /// Takes a buffer unless that would have to wait.
    pub fn try_get(pool: &Arc<Self>) -> Option<PoolBuf> {
        let start = pool.raw.try_alloc()?;
        // INVARIANT: Taken from this pool just now.
        Some(PoolBuf {
            start,
            pool: pool.clone(),
        })
    }
}

/// A buffer of a [`BufferPool`], aligned to at least 8 bytes. Dropping it gives it back.
///
/// # Invariants
///
/// `start` is a piece of `pool` that this buffer owns.
pub struct PoolBuf {
    start: NonNull<u8>,
    pool: Arc<BufferPool>,
}

// SAFETY: It owns plain bytes; pools can be used from any thread.
unsafe impl Send for PoolBuf {}
// SAFETY: A shared buffer gives out shared references to plain bytes only.
unsafe impl Sync for PoolBuf {}

impl Deref for PoolBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: By the type invariant, the piece has that many bytes and is ours. Its content is whatever the C allocator
        // returned, which is some value as far as Rust can know, and any value is a valid `u8`.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.pool.raw.bytes()) }
    }
}

impl DerefMut for PoolBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: As in `deref()`, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.pool.raw.bytes()) }
    }
}

impl Drop for PoolBuf {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the piece belongs to this pool; it is not used after this.
        unsafe { self.pool.raw.free(self.start) };
    }
}

#[kernel::macros::kunit_tests(kfs_mempool)]
mod tests {
    use super::*;
    use kernel::sync::atomic::{Atomic, Relaxed};

    struct Noted<'a>(&'a Atomic<i32>, u64);

    impl Drop for Noted<'_> {
        fn drop(&mut self) {
            self.0.add(1, Relaxed);
        }
    }

    #[test]
    fn values_live_and_die_in_the_pool() -> Result {
        let drops = Atomic::new(0);
        let pool = Mempool::new(2)?;
        let mut a = Mempool::alloc(&pool, Noted(&drops, 1));
        let b = Mempool::alloc(&pool, Noted(&drops, 2));
        a.1 += 40;
        assert_eq!(a.1, 41);
        assert_eq!(b.1, 2);
        drop(a);
        assert_eq!(drops.load(Relaxed), 1);
        drop(b);
        assert_eq!(drops.load(Relaxed), 2);
        if let Ok(c) = Mempool::try_alloc(&pool, Noted(&drops, 3)) {
            assert_eq!(c.1, 3);
        }
        assert_eq!(drops.load(Relaxed), 3);
        Ok(())
    }

    #[test]
    fn large_buffers() -> Result {
        let pool = BufferPool::new(1, 300_000)?;
        let mut a = BufferPool::get(&pool);
        a.fill(0x5a);
        assert_eq!(a.len(), 300_000);
        assert!(a.iter().all(|&byte| byte == 0x5a));
        drop(a);
        assert!(BufferPool::new(1, 0).is_err());
        Ok(())
    }
}
