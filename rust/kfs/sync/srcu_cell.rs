// SPDX-License-Identifier: GPL-2.0

//! A value that readers reach without a lock and that can be taken away from them.

use super::{Srcu, SrcuGuard};
use core::{marker::PhantomData, ptr};
use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::atomic::{Acquire, Atomic, Full, Relaxed},
};

/// A value in a box, seen within read-side sections of an [`Srcu`], until it is taken out.
///
/// # Invariants
///
/// `value` is null or a box that this cell owns. Once it was replaced by null, readers of `domain` that began before may still use the
/// box, others do not get at it.
pub struct SrcuCell<T> {
    value: Atomic<*mut T>,
    /// The address of the domain, which readers have to be of.
    domain: *const Srcu,
    _owns: PhantomData<T>,
}

// SAFETY: It owns a `T`; the pointer to the domain is only compared.
unsafe impl<T: Send> Send for SrcuCell<T> {}
// SAFETY: It gives out shared references to the `T`, and the `T` itself when there are none any more.
unsafe impl<T: Send + Sync> Sync for SrcuCell<T> {}

impl<T> SrcuCell<T> {
    /// Puts `value` where readers of `domain` see it. May sleep.
    pub fn new(value: T, domain: Pin<&Srcu>) -> Result<Self, AllocError> {
        let value = KBox::into_raw(KBox::new(value, GFP_KERNEL)?);
        // INVARIANT: Just boxed.
        Ok(Self {
            value: Atomic::new(value),
            domain: domain.get_ref(),
            _owns: PhantomData,
        })
    }

    /// The value, unless it has been taken out, or `reader` is of another domain. Any context in which the reader may be.
    #[inline]
    pub fn get<'a>(&'a self, reader: &'a SrcuGuard<'_>) -> Option<&'a T> {
        if !ptr::eq(self.domain, reader.domain()) {
            return None;
        }
        // SAFETY: By the type invariant it is null or a box, which is not freed before this reader ends: the result borrows it.
        unsafe { self.value.load(Acquire).as_ref() }
    }

    /// Takes the value out, and returns it when no reader can see it any more. Sleeps; not from within a read-side section of the
    /// domain. `None` if it was taken out before, or `domain` is not the one the cell was made with.
    pub fn take(&self, domain: &Srcu) -> Option<KBox<T>> {
        if !ptr::eq(self.domain, domain) {
            return None;
        }
        let value = self.value.xchg(ptr::null_mut(), Full);
        if value.is_null() {
            return None;
        }
        domain.synchronize();
        // SAFETY: By the type invariant a box that was owned here. Readers that may have seen it have ended.
        Some(unsafe { KBox::from_raw(value) })
    }
}

impl<T> Drop for SrcuCell<T> {
    fn drop(&mut self) {
        let value = self.value.load(Relaxed);
        if !value.is_null() {
            // SAFETY: By the type invariant a box that is owned here. References to the value borrow the cell.
            drop(unsafe { KBox::from_raw(value) });
        }
    }
}

#[kernel::macros::kunit_tests(kfs_srcu_cell)]
mod tests {
    use super::*;

    #[test]
    fn values_are_seen_until_taken() -> Result {
        let domain = KBox::pin_init(Srcu::new(), GFP_KERNEL)?;
        let other = KBox::pin_init(Srcu::new(), GFP_KERNEL)?;
        let cell = SrcuCell::new(7, domain.as_ref())?;
        {
            let reader = domain.read();
            assert_eq!(cell.get(&reader), Some(&7));
            assert_eq!(cell.get(&other.read()), None);
        }
        assert!(cell.take(&other).is_none());
        assert_eq!(cell.take(&domain).map(|v| *v), Some(7));
        assert!(cell.take(&domain).is_none());
        assert_eq!(cell.get(&domain.read()), None);
        drop(SrcuCell::new(8, domain.as_ref())?);
        Ok(())
    }
}
