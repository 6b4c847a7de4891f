// SPDX-License-Identifier: GPL-2.0

//! Work queues of one's own.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

mod job;

pub use self::job::Job;

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    alloc::{AllocError, Flags},
    prelude::*,
    sync::LockClassKey,
    workqueue::{Queue, RawWorkItem},
};

/// Initialises a work item for code that cannot use the kernel crate's `Work`.
///
/// # Safety
///
/// `work` is memory for a work item, which stays where it is while it is queued. `func` can be called with it then.
pub(crate) unsafe fn init_raw(
    work: *mut bindings::work_struct,
    func: unsafe extern "C" fn(*mut bindings::work_struct),
    name: &'static CStr,
    class: Pin<&'static LockClassKey>,
) {
    // SAFETY: By the caller's promise; name and class are static.
    unsafe {
        let name = name.as_char_ptr();
        bindings::init_work_with_key(work, Some(func), false, name, class.as_ptr());
    }
}

/// Where and how urgently the items of a [`WorkQueue`] run.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On any CPU, for items that compute for long.
    Unbound,
    /// As [`Kind::Unbound`], ahead of ordinary work.
    UnboundUrgent,
    /// On the CPU that queued them, for short items.
    PerCpu,
}

/// A work queue that goes on working when memory is short: it has a thread of its own put aside (`WQ_MEM_RECLAIM`).
///
/// It offers what [`Queue`] does, except for delayed items, whose timers it could not wait for ([`Job`] has them): dropping it
/// waits for the items in it. So it must not be dropped by one of them.
///
/// # Invariants
///
/// `raw` is a work queue that this value owns.
pub struct WorkQueue {
    raw: NonNull<bindings::workqueue_struct>,
}

// SAFETY: Work queues may be used and destroyed from any thread.
unsafe impl Send for WorkQueue {}
// SAFETY: As above.
unsafe impl Sync for WorkQueue {}

impl WorkQueue {
    /// Creates a work queue. May sleep; fails with `ENOMEM`.
    pub fn new(name: &CStr, kind: Kind) -> Result<Self> {
        let (unbound, urgent) = match kind {
            Kind::Unbound => (true, false),
            Kind::UnboundUrgent => (true, true),
            Kind::PerCpu => (false, false),
        };
        // SAFETY: `name` is a string; it is copied.
        let raw = unsafe { bindings::kfs_workqueue_alloc(name.as_char_ptr(), unbound, urgent) };
        // INVARIANT: Just created.
        Ok(Self {
            raw: NonNull::new(raw).ok_or(ENOMEM)?,
        })
    }

    /// Waits until everything that was queued before this call has run. May sleep; not from one of the queue's own items.
    pub fn flush(&self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::__flush_workqueue(self.raw.as_ptr()) };
    }

    /// Queues a work item, see [`Queue::enqueue`]. Any context; does not sleep.
    pub fn enqueue<W, const ID: u64>(&self, item: W) -> W::EnqueueOutput
    where
        W: RawWorkItem<ID> + Send + 'static,
    {
        self.queue().enqueue(item)
    }

    /// Runs a closure, see [`Queue::try_spawn`]. Allocates with `flags`.
    pub fn try_spawn<F>(&self, flags: Flags, func: F) -> Result<(), AllocError>
    where
        F: FnOnce() + Send + 'static,
    {
        self.queue().try_spawn(flags, func)
    }

    fn queue(&self) -> &Queue {
        // SAFETY: By the type invariant it is valid, and stays so while `self` is borrowed.
        unsafe { Queue::from_raw(self.raw.as_ptr()) }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::workqueue_struct {
        self.raw.as_ptr()
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; waits for queued items and is not used after this.
        unsafe { bindings::destroy_workqueue(self.raw.as_ptr()) };
    }
}

#[kernel::macros::kunit_tests(kfs_work)]
mod tests {
    use super::*;
    use kernel::sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    };

    #[test]
    fn queues_run_what_they_get() -> Result {
        for kind in [Kind::Unbound, Kind::UnboundUrgent, Kind::PerCpu] {
            let runs = Arc::new(Atomic::new(0), GFP_KERNEL)?;
            let queue = WorkQueue::new(c"kfs-test", kind)?;
            for _ in 0..10 {
                let runs = runs.clone();
                queue.try_spawn(GFP_KERNEL, move || runs.add(1, Relaxed))?;
            }
            queue.flush();
            assert_eq!(runs.load(Relaxed), 10);
            let last = runs.clone();
            queue.try_spawn(GFP_KERNEL, move || last.add(1, Relaxed))?;
            drop(queue);
            assert_eq!(runs.load(Relaxed), 11);
        }
        Ok(())
    }
}
