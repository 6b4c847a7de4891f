// SPDX-License-Identifier: GPL-2.0

//! Allocation scopes.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::bindings;
use kernel::types::NotThreadSafe;

/// While it lives, allocations of the current task do not recurse into file systems: whatever flags they are
/// made with, `__GFP_FS` is taken away.
///
/// Enter it before taking a lock that reclaim may need (a shrinker's or writeback's), rather than passing special
/// flags to each allocation. Scopes nest; they are to be left in the reverse order, as guards in a
/// function are.
///
/// # Invariants
///
/// `saved` is what `memalloc_nofs_save()` returned in the current task.
#[must_use = "the scope ends when the guard is dropped"]
pub struct NofsScope {
    saved: u32,
    _task: NotThreadSafe,
}

impl NofsScope {
    /// Enters the scope. Any context; does not sleep.
    #[inline]
    pub fn enter() -> Self {
        // SAFETY: Changes a flag of the current task only.
        let saved = unsafe { bindings::kfs_memalloc_nofs_save() };
        // INVARIANT: Just saved; the guard cannot leave this task.
        Self {
            saved,
            _task: NotThreadSafe,
        }
    }
}

impl Drop for NofsScope {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant, `saved` was returned to this task by `memalloc_nofs_save()`.
        unsafe { bindings::kfs_memalloc_nofs_restore(self.saved) };
    }
}
