// SPDX-License-Identifier: GPL-2.0

//! Event counters.
//!
//! C header: [`include/linux/percpu.h`](srctree/include/linux/percpu.h)

use crate::bindings;
use core::ptr::NonNull;
use kernel::prelude::*;

/// `N` 64-bit counters with a copy per CPU: adding touches the CPU's own cache line, reading visits all CPUs.
///
/// # Invariants
///
/// `base` is a per-CPU allocation of `N` values of type `u64`.
pub struct Counters<const N: usize> {
    base: NonNull<c_void>,
}

// SAFETY: Per-CPU memory is not bound to a thread.
unsafe impl<const N: usize> Send for Counters<N> {}
// SAFETY: Adding is atomic on its CPU and each CPU has its own copy; reading tolerates concurrent additions.
unsafe impl<const N: usize> Sync for Counters<N> {}

impl<const N: usize> Counters<N> {
    /// Makes `N` counters with value zero. May sleep; fails with `ENOMEM`.
    pub fn new() -> Result<Self> {
        const { assert!(N > 0 && N <= 1024) };
        // SAFETY: No requirements.
        let base = unsafe { bindings::kfs_percpu_counters_alloc(N) };
        // INVARIANT: As requested; per-CPU memory is zeroed.
        Ok(Self {
            base: NonNull::new(base).ok_or(ENOMEM)?,
        })
    }

    /// Adds `n`, wrapping, to the counter with number `index`. There is no counter from `N` on: such an event is not
    /// counted. Any context; does not sleep.
    #[inline]
    pub fn add(&self, index: usize, n: u64) {
        if index < N {
            // SAFETY: By the type invariant and the check, this counter exists.
            unsafe { bindings::kfs_percpu_counter_add(self.base.as_ptr(), index, n) };
        }
    }

    /// The sum over all CPUs, zero for `index` from `N` on. Events during the call may or may not be in it.
    pub fn sum(&self, index: usize) -> u64 {
        if index >= N {
            return 0;
        }
        // SAFETY: By the type invariant and the check, this counter exists.
        unsafe { bindings::kfs_percpu_counter_sum(self.base.as_ptr(), index) }
    }
}

impl<const N: usize> Drop for Counters<N> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; not used after this.
        unsafe { bindings::kfs_percpu_free(self.base.as_ptr()) };
    }
}

#[kernel::macros::kunit_tests(kfs_counters)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_apart() -> Result {
        let counters = Counters::<3>::new()?;
        for _ in 0..100 {
            counters.add(0, 1);
            counters.add(2, 1 << 40);
            counters.add(3, 1);
        }
        assert_eq!(counters.sum(0), 100);
        assert_eq!(counters.sum(1), 0);
        assert_eq!(counters.sum(2), 100 << 40);
        assert_eq!(counters.sum(3), 0);
        Ok(())
    }
}
