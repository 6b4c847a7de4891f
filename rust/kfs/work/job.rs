// SPDX-License-Identifier: GPL-2.0

//! Work that is asked for again and again.

use super::{init_raw, WorkQueue};
use crate::bindings;
use kernel::{
    container_of, new_spinlock,
    prelude::*,
    sync::{static_lock_class, Arc, SpinLock},
    time::msecs_to_jiffies,
    types::Opaque,
};

/// A function of a `T` that runs on a work queue when it is asked for, at once or after some time, and never twice
/// at the same time. Asking while it runs makes it run once more.
///
/// It is a part of the `T` usually. From [`start`](Self::start) to [`stop`](Self::stop) it holds a reference to
/// the `T`; who starts it has to stop it.
///
/// # Invariants
///
/// `work` is initialised, and queued on `queue` only.
#[pin_data(PinnedDrop)]
pub struct Job<T: Send + Sync + 'static> {
    #[pin]
    work: Opaque<bindings::delayed_work>,
    #[pin]
    target: SpinLock<Option<Arc<T>>>,
    queue: Arc<WorkQueue>,
    run: fn(&Arc<T>),
}

// SAFETY: Work items may be used from any thread; the other fields can be sent and shared.
unsafe impl<T: Send + Sync + 'static> Send for Job<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync + 'static> Sync for Job<T> {}

impl<T: Send + Sync + 'static> Job<T> {
    /// Makes a job that calls `run` on `queue`.
    pub fn new(queue: Arc<WorkQueue>, run: fn(&Arc<T>)) -> impl PinInit<Self> {
        pin_init!(Self {
            work <- Opaque::ffi_init(|work: *mut bindings::delayed_work| {
                // SAFETY: `work` is pinned memory for a delayed work item.
                unsafe {
                    let item = &raw mut (*work).work;
                    init_raw(item, run_job::<T>, c"Job", static_lock_class!());
                    bindings::kfs_delayed_work_init_timer(work);
                }
            }),
            target <- new_spinlock!(None),
            queue,
            run,
        })
    }

    /// From now on it runs with `target`. Any context; does not sleep.
    pub fn start(&self, target: Arc<T>) {
        let old = self.target.lock().replace(target);
        drop(old);
    }

    /// Asks for it now. Any context but NMI; does not sleep.
    pub fn kick(&self) {
        self.ask(0);
    }

    fn ask(&self, jiffies: c_ulong) {
        // SAFETY: By the type invariant. It is cancelled before it goes away.
        unsafe {
            bindings::mod_delayed_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                self.queue.as_raw(),
                self.work.get(),
                jiffies,
            );
        }
    }

    /// Asks for it in `msecs` milliseconds, unless it has been asked for already: then that stands, be it earlier or later. Any
    /// context but NMI; does not sleep.
    pub fn after(&self, msecs: u32) {
        // SAFETY: As in `ask()`.
        unsafe {
            bindings::queue_delayed_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                self.queue.as_raw(),
                self.work.get(),
                msecs_to_jiffies(msecs),
            );
        }
    }

    /// Waits until it does not run, and gives up the target: it does nothing from then on. Sleeps; not from within the
    /// job.
    pub fn stop(&self) {
        let target = self.target.lock().take();
        // SAFETY: By the type invariant. What is queued after this finds no target.
        unsafe { bindings::cancel_delayed_work_sync(self.work.get()) };
        drop(target);
    }
}

#[pinned_drop]
impl<T: Send + Sync + 'static> PinnedDrop for Job<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant. Nobody can queue it any more.
        unsafe { bindings::cancel_delayed_work_sync(self.work.get()) };
    }
}

/// # Safety
///
/// Called by a work queue for the `work` of a [`Job`].
unsafe extern "C" fn run_job<T: Send + Sync + 'static>(work: *mut bindings::work_struct) {
    // SAFETY: By the caller's promise the item is that of a delayed one, which is that of a job. Who drops the job waits
    // for this function.
    let job = unsafe {
        let delayed = container_of!(work, bindings::delayed_work, work);
        let delayed: *mut Opaque<bindings::delayed_work> = delayed.cast();
        &*container_of!(delayed, Job<T>, work)
    };
    let target = job.target.lock().clone();
    if let Some(target) = target {
        (job.run)(&target);
        // The job is part of the target usually. Who stops it has a reference to that, so that this is not the last one.
    }
}

#[kernel::macros::kunit_tests(kfs_work_job)]
mod tests {
    use super::*;
    use crate::work::Kind;
    use kernel::sync::{
        atomic::{Atomic, Relaxed},
        Completion,
    };

    #[pin_data]
    struct Counter {
        runs: Atomic<u32>,
        #[pin]
        job: Job<Counter>,
        #[pin]
        third: Completion,
    }

    fn count(counter: &Arc<Counter>) {
        // Asks for itself.
        match counter.runs.fetch_add(1, Relaxed) {
            0 => counter.job.kick(),
            1 => counter.job.after(2),
            _ => counter.third.complete_all(),
        }
    }

    #[test]
    fn a_job_runs_when_asked_until_stopped() -> Result {
        let queue = Arc::new(WorkQueue::new(c"kfs-test", Kind::Unbound)?, GFP_KERNEL)?;
        let counter = Arc::pin_init(
            pin_init!(Counter {
                runs: Atomic::new(0),
                job <- Job::new(queue, count),
                third <- Completion::new(),
            }),
            GFP_KERNEL,
        )?;
        counter.job.kick();
        counter.job.stop();
        assert_eq!(counter.runs.load(Relaxed), 0);
        counter.job.start(counter.clone());
        counter.job.kick();
        counter.third.wait_for_completion();
        counter.job.stop();
        let runs = counter.runs.load(Relaxed);
        assert_eq!(runs, 3);
        counter.job.kick();
        counter.job.after(1);
        counter.job.stop();
        assert_eq!(counter.runs.load(Relaxed), runs);
        assert!(Arc::into_unique_or_drop(counter).is_some());
        Ok(())
    }
}
