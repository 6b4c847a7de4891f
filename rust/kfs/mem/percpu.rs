// SPDX-License-Identifier: GPL-2.0

//! A slot per CPU.
//!
//! C header: [`include/linux/percpu.h`](srctree/include/linux/percpu.h)

use crate::bindings;
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{prelude::*, types::ForeignOwnable};

/// One place per CPU in which something that is expensive to make can be left for the next user: `P` is a `KBox<T>`, an
/// `Arc<T>` or another pointer type.
///
/// Exchanging is one instruction without locks, on whichever CPU the caller happens to run; being moved to
/// another CPU between `take` and `put` does no harm.
///
/// # Invariants
///
/// `slots` is a per-CPU allocation of one pointer, each null or from `P::into_foreign()`.
pub struct PerCpu<P: ForeignOwnable + Send> {
    slots: NonNull<c_void>,
    _owned: PhantomData<P>,
}

// SAFETY: It owns values of type `P`, which may be sent.
unsafe impl<P: ForeignOwnable + Send> Send for PerCpu<P> {}
// SAFETY: Through a shared reference values can only be moved in and out, by an instruction that is atomic on its CPU,
// and each CPU has its own slot.
unsafe impl<P: ForeignOwnable + Send> Sync for PerCpu<P> {}

impl<P: ForeignOwnable + Send> PerCpu<P> {
    /// Makes empty slots. May sleep; fails with `ENOMEM`.
    pub fn new() -> Result<Self> {
        // SAFETY: No requirements.
        let slots = NonNull::new(unsafe { bindings::kfs_percpu_slots_alloc() }).ok_or(ENOMEM)?;
        // INVARIANT: Per-CPU memory is zeroed: all slots are null.
        Ok(Self {
            slots,
            _owned: PhantomData,
        })
    }

    /// Takes what is in this CPU's slot. Any context but NMI; does not sleep.
    #[inline]
    pub fn take(&self) -> Option<P> {
        self.exchange(core::ptr::null_mut())
    }

    /// Puts `value` into this CPU's slot and returns what was there, which the caller usually drops.
    ///
    /// Any context but NMI; does not sleep.
    #[inline]
    pub fn put(&self, value: P) -> Option<P> {
        self.exchange(value.into_foreign())
    }

    fn exchange(&self, new: *mut c_void) -> Option<P> {
        // SAFETY: By the type invariant, `slots` is a per-CPU pointer variable; `new` is null or from `into_foreign()`.
        let old = unsafe { bindings::kfs_percpu_slot_xchg(self.slots.as_ptr(), new) };
        // SAFETY: By the type invariant, `old` is null or from `into_foreign()`; it is out of the slot now, so it is
        // converted back once.
        unsafe { P::try_from_foreign(old) }
    }
}

impl<P: ForeignOwnable + Send> Drop for PerCpu<P> {
    fn drop(&mut self) {
        loop {
            // SAFETY: `slots` is valid by the type invariant, and `&mut self` excludes concurrent users.
            let value = unsafe { bindings::kfs_percpu_slots_take_any(self.slots.as_ptr()) };
            // SAFETY: As in `exchange()`.
            if unsafe { P::try_from_foreign(value) }.is_none() {
                break;
            }
        }
        // SAFETY: By the type invariant; not used after this.
        unsafe { bindings::kfs_percpu_free(self.slots.as_ptr()) };
    }
}

#[kernel::macros::kunit_tests(kfs_percpu)]
mod tests {
    use super::*;
    use kernel::sync::Arc;

    #[test]
    fn slots_exchange_and_own() -> Result {
        let slots = PerCpu::<Arc<u64>>::new()?;
        assert!(slots.take().is_none());
        let value = Arc::new(7u64, GFP_KERNEL)?;
        // This thread may be moved between any two calls, so look at the union of what came out.
        let mut out = 0;
        for _ in 0..1000 {
            out += usize::from(slots.put(value.clone()).is_some());
        }
        let mut left = 0;
        while let Some(found) = slots.take() {
            assert_eq!(*found, 7);
            left += 1;
        }
        assert!(left <= 1);
        assert!(out >= 1000 - bindings_cpus());
        drop(slots);
        // Whatever was left in any slot has been dropped.
        assert!(Arc::into_unique_or_drop(value).is_some());
        Ok(())
    }

    fn bindings_cpus() -> usize {
        // SAFETY: Set at boot, constant since.
        unsafe { crate::bindings::nr_cpu_ids as usize }
    }
}
