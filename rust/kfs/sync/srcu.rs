// SPDX-License-Identifier: GPL-2.0

//! Sleepable RCU.
//!
//! The kernel crate of some versions has the read side and waiting; this one has deferred dropping as well.
//!
//! C header: [`include/linux/srcu.h`](srctree/include/linux/srcu.h)

use crate::bindings;
use core::ops::Deref;
use kernel::{
    alloc::{AllocError, Flags},
    container_of,
    error::to_result,
    prelude::*,
    types::{NotThreadSafe, Opaque},
};

/// A domain of sleepable RCU: readers may sleep, and writers wait for the readers of this domain only.
///
/// Dropping it waits for all readers and deferred drops, so it may sleep; forever, if a guard was leaked.
///
/// # Invariants
///
/// `raw` is initialised.
#[pin_data(PinnedDrop)]
pub struct Srcu {
    #[pin]
    raw: Opaque<bindings::srcu_struct>,
}

// SAFETY: A `srcu_struct` is made for concurrent use and not bound to a thread.
unsafe impl Send for Srcu {}
// SAFETY: As above.
unsafe impl Sync for Srcu {}

impl Srcu {
    /// Makes a domain. May sleep; fails with `ENOMEM`.
    pub fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            raw <- Opaque::try_ffi_init(|raw| {
                // SAFETY: `raw` is pinned memory for a `srcu_struct`.
                to_result(unsafe { bindings::kfs_init_srcu_struct(raw) })
            }),
        })
    }

    /// Begins a read-side section, which ends when the guard is dropped. Does not sleep.
    #[inline]
    pub fn read(&self) -> SrcuGuard<'_> {
        // SAFETY: Initialised by the type invariant.
        let index = unsafe { bindings::kfs_srcu_read_lock(self.raw.get()) };
        // INVARIANT: Returned just now; the guard cannot leave this task.
        SrcuGuard {
            srcu: self,
            index,
            _task: NotThreadSafe,
        }
    }

    /// Waits until all read-side sections that are under way have ended. Sleeps; not from within such a section.
    pub fn synchronize(&self) {
        // SAFETY: Initialised by the type invariant.
        unsafe { bindings::synchronize_srcu(self.raw.get()) };
    }

    /// Waits until all values given to [`defer_drop`](Self::defer_drop) before have been dropped. Sleeps.
    pub fn barrier(&self) {
        // SAFETY: Initialised by the type invariant.
        unsafe { bindings::kfs_srcu_barrier(self.raw.get()) };
    }

    /// Drops `value` after all read-side sections that are under way now have ended.
    ///
    /// Does not sleep itself. `T` is dropped with bottom halves disabled, so that its `Drop` must not sleep either.
    pub fn defer_drop<T: Send + 'static>(&self, value: Deferred<T>) {
        let node = KBox::into_raw(value.0);
        // SAFETY: Initialised by the type invariant. The node is valid, and `dropped` gets it back when SRCU is
        // done with the head, which happens before `self` goes away.
        unsafe {
            bindings::call_srcu(self.raw.get(), (*node).head.get(), Some(dropped::<T>));
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Srcu {
    fn drop(self: Pin<&mut Self>) {
        // Deferred drops have to be done before the domain can go, and a leaked guard must not be followed by freeing what
        // it points into: there is nobody to tell, so wait.
        self.barrier();
        self.synchronize();
        // SAFETY: Initialised by the type invariant; without readers and callbacks, and not used after this.
        unsafe { bindings::cleanup_srcu_struct(self.raw.get()) };
    }
}

/// A read-side section of an [`Srcu`].
///
/// # Invariants
///
/// `index` is what `srcu_read_lock()` returned for `srcu` in the current task.
#[must_use = "the section ends when the guard is dropped"]
pub struct SrcuGuard<'a> {
    srcu: &'a Srcu,
    index: c_int,
    _task: NotThreadSafe,
}

impl SrcuGuard<'_> {
    /// The domain of the section.
    pub(super) fn domain(&self) -> *const Srcu {
        self.srcu
    }
}

impl Drop for SrcuGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::kfs_srcu_read_unlock(self.srcu.raw.get(), self.index) };
    }
}

/// A boxed value that can be dropped after a grace period without allocating anything; see [`Srcu::defer_drop`].
pub struct Deferred<T>(KBox<Node<T>>);

#[repr(C)]
struct Node<T> {
    head: Opaque<bindings::callback_head>,
    value: T,
}

// SAFETY: The head is not used before the value is given up.
unsafe impl<T: Send> Send for Deferred<T> {}
// SAFETY: As above.
unsafe impl<T: Sync> Sync for Deferred<T> {}

impl<T> Deferred<T> {
    /// Boxes `value`.
    pub fn new(value: T, flags: Flags) -> Result<Self, AllocError> {
        let head = Opaque::uninit();
        Ok(Self(KBox::new(Node { head, value }, flags)?))
    }
}

impl<T> Deref for Deferred<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

/// # Safety
///
/// Called by SRCU for the head of a `Node<T>` from `KBox::into_raw()`.
unsafe extern "C" fn dropped<T>(head: *mut bindings::callback_head) {
    let head: *mut Opaque<bindings::callback_head> = head.cast();
    // SAFETY: By the caller's promise; SRCU does not use it any more.
    drop(unsafe { KBox::from_raw(container_of!(head, Node<T>, head)) });
}

#[kernel::macros::kunit_tests(kfs_srcu)]
mod tests {
    use super::*;
    use kernel::sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    };

    struct Noted(Arc<Atomic<i32>>);

    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.add(1, Relaxed);
        }
    }

    #[test]
    fn drops_wait_for_readers() -> Result {
        let drops = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let srcu = KBox::pin_init(Srcu::new(), GFP_KERNEL)?;
        let value = Deferred::new(Noted(drops.clone()), GFP_KERNEL)?;
        let guard = srcu.read();
        srcu.defer_drop(value);
        kernel::time::delay::fsleep(kernel::time::Delta::from_millis(20));
        assert_eq!(drops.load(Relaxed), 0);
        drop(guard);
        srcu.barrier();
        assert_eq!(drops.load(Relaxed), 1);
        srcu.synchronize();

        // Dropping the domain drops what was deferred.
        srcu.defer_drop(Deferred::new(Noted(drops.clone()), GFP_KERNEL)?);
        drop(srcu);
        assert_eq!(drops.load(Relaxed), 2);
        Ok(())
    }
}
