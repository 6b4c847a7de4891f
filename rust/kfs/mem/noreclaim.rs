// SPDX-License-Identifier: GPL-2.0

//! Allocation without reclaim.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::bindings;
use kernel::types::NotThreadSafe;

/// While it lives, allocations of the current task do not reclaim memory; they may dip into the kernel's reserves instead.
///
/// For code that reclaim depends on, and which allocates little. Scopes nest; they are to be left in the reverse
/// order, as guards in a function are.
///
/// # Invariants
///
/// `saved` is what `memalloc_noreclaim_save()` returned in the current task.
#[must_use = "the scope ends when the guard is dropped"]
pub struct NoReclaimScope {
    saved: u32,
    _task: NotThreadSafe,
}

impl NoReclaimScope {
    /// Enters the scope. Process context; does not sleep.
    #[inline]
    pub fn enter() -> Self {
        // SAFETY: Changes a flag of the current task only.
        let saved = unsafe { bindings::kfs_memalloc_noreclaim_save() };
        // INVARIANT: Just saved; the guard cannot leave this task.
        Self {
            saved,
            _task: NotThreadSafe,
        }
    }
}

impl Drop for NoReclaimScope {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant, `saved` was returned to this task by `memalloc_noreclaim_save()`.
        unsafe { bindings::kfs_memalloc_noreclaim_restore(self.saved) };
    }
}
