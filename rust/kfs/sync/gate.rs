// SPDX-License-Identifier: GPL-2.0

//! A gate: many go in and out at no cost, one closes it and waits until everybody is out.
//!
//! C header: [`include/linux/percpu-refcount.h`](srctree/include/linux/percpu-refcount.h)

use crate::bindings;
use kernel::{error::to_result, prelude::*, types::Opaque};

/// A gate. Closed when made.
///
/// Opening and closing is for one task at a time: whoever does it holds a lock of their own. Dropping it while somebody is inside
/// waits for them.
///
/// # Invariants
///
/// `raw` is initialised.
#[pin_data(PinnedDrop)]
pub struct Gate {
    #[pin]
    raw: Opaque<bindings::percpu_ref>,
}

// SAFETY: A `percpu_ref` is made for concurrent use and not bound to a thread.
unsafe impl Send for Gate {}
// SAFETY: As above.
unsafe impl Sync for Gate {}

impl Gate {
    /// Makes a gate that is closed. May sleep; fails with `ENOMEM`.
    pub fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            raw <- Opaque::try_ffi_init(|raw| {
                // SAFETY: `raw` is pinned memory for a `percpu_ref`.
                to_result(unsafe { bindings::kfs_percpu_ref_init(raw) })
            }),
        })
    }

    /// Goes in, unless the gate is closed. Any context.
    #[inline]
    pub fn enter(&self) -> Option<Entry<'_>> {
        // SAFETY: Initialised by the type invariant.
        let entered = unsafe { bindings::kfs_percpu_ref_tryget_live(self.raw.get()) };
        // INVARIANT: The reference was just taken.
        entered.then(|| Entry { gate: self })
    }

    /// Whether the gate is open at the moment. Any context.
    pub fn is_open(&self) -> bool {
        // SAFETY: Initialised by the type invariant.
        !unsafe { bindings::kfs_percpu_ref_is_dying(self.raw.get()) }
    }

    /// Opens the gate, if it is closed; waits before until everybody has left who went in when it was last open. May sleep.
    pub fn open(&self) {
        if !self.is_open() {
            self.wait_empty();
            // SAFETY: Initialised by the type invariant, dead, and with nobody inside.
            unsafe { bindings::percpu_ref_reinit(self.raw.get()) };
        }
    }

    /// Closes the gate, if it is open: nobody goes in any more. Does not wait for those inside.
    pub fn close(&self) {
        if self.is_open() {
            // SAFETY: Initialised by the type invariant, and alive: closing is for one at a time.
            unsafe { bindings::kfs_percpu_ref_kill(self.raw.get()) };
        }
    }

    /// After [`close`](Self::close): waits until nobody is inside. Sleeps.
    pub fn wait_empty(&self) {
        // SAFETY: Initialised by the type invariant.
        unsafe { bindings::kfs_percpu_ref_wait_until_zero(self.raw.get()) };
    }
}

#[pinned_drop]
impl PinnedDrop for Gate {
    fn drop(self: Pin<&mut Self>) {
        // Entries borrow the gate; one that was leaked must not be left behind either.
        self.close();
        self.wait_empty();
        // SAFETY: Initialised by the type invariant, without references, and not used after this.
        unsafe { bindings::percpu_ref_exit(self.raw.get()) };
    }
}

/// Somebody inside a [`Gate`]; out when dropped.
///
/// # Invariants
///
/// It stands for a reference to the gate's count.
#[must_use = "one is out when it is dropped"]
pub struct Entry<'a> {
    gate: &'a Gate,
}

impl Drop for Entry<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::kfs_percpu_ref_put(self.gate.raw.get()) };
    }
}

#[kernel::macros::kunit_tests(kfs_gate)]
mod tests {
    use super::*;

    #[test]
    fn closed_gates_let_nobody_in() -> Result {
        let gate = KBox::pin_init(Gate::new(), GFP_KERNEL)?;
        for _ in 0..3 {
            assert!(!gate.is_open() && gate.enter().is_none());
            gate.open();
            gate.open();
            let inside = gate.enter();
            assert!(gate.is_open() && inside.is_some());
            gate.close();
            gate.close();
            assert!(gate.enter().is_none());
            drop(inside);
            gate.wait_empty();
        }
        Ok(())
    }
}
