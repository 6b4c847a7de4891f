// SPDX-License-Identifier: GPL-2.0

//! Caches that shrink when memory is short.
//!
//! C header: [`include/linux/shrinker.h`](srctree/include/linux/shrinker.h)

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::{Arc, ArcBorrow},
    types::ForeignOwnable,
};

/// A cache that can give memory back.
///
/// The methods run in whatever task is short of memory, possibly with locks of this very cache held further up the
/// stack: take locks with `try_lock` only, or hold such locks inside a [`NofsScope`](super::NofsScope) everywhere
/// and check [`Reclaim::may_enter_fs`].
pub trait Shrink: Send + Sync + 'static {
    /// How many objects could be freed, roughly. Called often: it should read a counter and not wait.
    fn count(&self, reclaim: &Reclaim) -> usize;

    /// Looks at up to `nr` objects and frees what it can.
    fn scan(&self, reclaim: &Reclaim, nr: usize) -> Scanned;
}

/// What a scan came to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// Went through `scanned` objects and freed `freed` of them.
    Freed {
        /// Objects freed.
        freed: usize,
        /// Objects looked at.
        scanned: usize,
    },
    /// Nothing can be freed in this context; do not ask again for now.
    Stop,
}

/// The allocation that is short of memory.
pub struct Reclaim {
    gfp: bindings::gfp_t,
}

impl Reclaim {
    /// Whether locks that a file system holds while it allocates may be waited for.
    pub fn may_enter_fs(&self) -> bool {
        // SAFETY: Looks at the flags only.
        unsafe { bindings::kfs_gfp_allows_fs(self.gfp) }
    }

    /// Whether I/O may be started and waited for.
    pub fn may_do_io(&self) -> bool {
        // SAFETY: Looks at the flags only.
        unsafe { bindings::kfs_gfp_allows_io(self.gfp) }
    }
}

/// How a cache weighs against others.
#[derive(Copy, Clone, Debug)]
pub struct Tuning {
    /// Disk seeks it takes to get an object back; page cache pages count as 2. Zero means very cheap.
    pub seeks: u8,
    /// Objects to scan in one go; zero for the kernel's default.
    pub batch: u16,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { seeks: 2, batch: 0 }
    }
}

/// The registration of a cache with memory reclaim; dropping it unregisters, and waits for calls under way.
///
/// It is not to be owned by the cache itself, which would then never be dropped.
///
/// # Invariants
///
/// `raw` is a registered shrinker, its private data from `Arc<T>::into_foreign()`.
pub struct Shrinker<T: Shrink> {
    raw: NonNull<bindings::shrinker>,
    cache: core::marker::PhantomData<Arc<T>>,
}

// SAFETY: Registering and unregistering are not bound to a thread; `T` is `Send` and `Sync`.
unsafe impl<T: Shrink> Send for Shrinker<T> {}
// SAFETY: There is nothing to do with a shared reference.
unsafe impl<T: Shrink> Sync for Shrinker<T> {}

impl<T: Shrink> Shrinker<T> {
    /// Registers `cache` under `name` (shown in the kernel's shrinker debugfs). May sleep; fails with `ENOMEM`.
    pub fn register(name: &CStr, tuning: Tuning, cache: Arc<T>) -> Result<Self> {
        // SAFETY: The format takes one string.
        let raw = unsafe { bindings::shrinker_alloc(0, c"%s".as_char_ptr(), name.as_char_ptr()) };
        let raw = NonNull::new(raw).ok_or(ENOMEM)?;
        // SAFETY: Allocated just now, and nobody looks at it before it is registered.
        unsafe {
            (*raw.as_ptr()).count_objects = Some(count::<T>);
            (*raw.as_ptr()).scan_objects = Some(scan::<T>);
            (*raw.as_ptr()).seeks = i32::from(tuning.seeks);
            (*raw.as_ptr()).batch = usize::from(tuning.batch) as isize;
            (*raw.as_ptr()).private_data = cache.into_foreign();
        }
        // SAFETY: Complete. The callbacks find what they expect in `private_data`.
        unsafe { bindings::shrinker_register(raw.as_ptr()) };
        // INVARIANT: Registered just now.
        Ok(Self {
            raw,
            cache: core::marker::PhantomData,
        })
    }
}

impl<T: Shrink> Drop for Shrinker<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, it is registered, hence valid.
        let cache = unsafe { (*self.raw.as_ptr()).private_data };
        // SAFETY: As above. Returns when no callback runs any more and none will start.
        unsafe { bindings::shrinker_free(self.raw.as_ptr()) };
        // SAFETY: From `into_foreign()` by the type invariant; nobody borrows it any more.
        drop(unsafe { <Arc<T> as ForeignOwnable>::from_foreign(cache) });
    }
}

/// # Safety
///
/// `shrinker` is one that [`Shrinker::register`] set up for `T`.
unsafe fn cache_of<'a, T: Shrink>(shrinker: *mut bindings::shrinker) -> ArcBorrow<'a, T> {
    // SAFETY: By the caller's promise, the private data is from `Arc<T>::into_foreign()`; `Shrinker::drop()` takes it back only after the
    // last callback.
    unsafe { <Arc<T> as ForeignOwnable>::borrow((*shrinker).private_data) }
}

/// # Safety
///
/// Called by memory reclaim for a shrinker of `T`.
unsafe extern "C" fn count<T: Shrink>(
    shrinker: *mut bindings::shrinker,
    control: *mut bindings::shrink_control,
) -> c_ulong {
    // SAFETY: By the caller's promise.
    let cache = unsafe { cache_of::<T>(shrinker) };
    let reclaim = Reclaim {
        // SAFETY: Reclaim passes a valid control structure.
        gfp: unsafe { (*control).gfp_mask },
    };
    // The two largest values have a meaning of their own.
    cache.count(&reclaim).min(isize::MAX as usize)
}

/// # Safety
///
/// Called by memory reclaim for a shrinker of `T`.
unsafe extern "C" fn scan<T: Shrink>(
    shrinker: *mut bindings::shrinker,
    control: *mut bindings::shrink_control,
) -> c_ulong {
    /// `SHRINK_STOP`.
    const STOP: c_ulong = c_ulong::MAX;

    // SAFETY: By the caller's promise.
    let cache = unsafe { cache_of::<T>(shrinker) };
    // SAFETY: Reclaim passes a control structure that is this call's own.
    let control = unsafe { &mut *control };
    let reclaim = Reclaim {
        gfp: control.gfp_mask,
    };
    match cache.scan(&reclaim, control.nr_to_scan) {
        Scanned::Freed { freed, scanned } => {
            control.nr_scanned = scanned;
            freed.min(isize::MAX as usize)
        }
        Scanned::Stop => STOP,
    }
}
