// SPDX-License-Identifier: GPL-2.0
//! Doing something in several threads at a time.

use super::error::Result;
use kernel::{
    c_str, new_mutex,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Release},
        Arc, Completion, Mutex,
    },
    time::{delay::fsleep, Delta, Instant, Monotonic},
};
use kfs::work::{Kind, WorkQueue};

/// How long the threads took, and what went wrong first.
struct Outcome {
    nanos: i64,
    result: Result,
}

#[pin_data]
struct Shared<F> {
    job: F,
    /// Threads that are not ready to start yet.
    missing: Atomic<u32>,
    /// Threads that have not finished yet.
    running: Atomic<u32>,
    #[pin]
    start: Completion,
    #[pin]
    outcome: Mutex<Outcome>,
}

/// Calls `job` in `threads` threads, with the number of each, and waits for them. Returns the time from their start, which is common, to the
/// end of the last in nanoseconds. The first error is the result; the other threads end by themselves. What `job` owns is dropped
/// before this returns. Sleeps.
pub fn run<F>(threads: u32, job: F) -> Result<i64>
where
    F: Fn(u32) -> Result + Send + Sync + 'static,
{
    let shared = Arc::pin_init(
        pin_init!(Shared {
            job,
            missing: Atomic::new(threads),
            running: Atomic::new(threads),
            start <- Completion::new(),
            outcome <- new_mutex!(Outcome { nanos: 0, result: Ok(()) }),
        }),
        GFP_KERNEL,
    )?;
    let queue = WorkQueue::new(c_str!("bcachefs-test"), Kind::Unbound)?;
    for me in 0..threads {
        let s = shared.clone();
        let spawned = queue.try_spawn(GFP_KERNEL, move || {
            s.missing.fetch_sub(1u32, Release);
            s.start.wait_for_completion();
            let begin = Instant::<Monotonic>::now();
            let result = (s.job)(me);
            let nanos = begin.elapsed().as_nanos();
            if let Err(e) = result {
                pr_err!("test: thread {me}: {}\n", e.text());
            }
            let mut outcome = s.outcome.lock();
            outcome.nanos = outcome.nanos.max(nanos);
            if outcome.result.is_ok() {
                outcome.result = result;
            }
            drop(outcome);
            s.running.fetch_sub(1u32, Release);
        });
        if let Err(e) = spawned {
            // Those that are there are let go; dropping the queue waits for them.
            shared.start.complete_all();
            return Err(e.into());
        }
    }
    // In short steps: who waits for minutes without being woken is reported as hung.
    while shared.missing.load(Acquire) != 0 {
        fsleep(Delta::from_millis(1));
    }
    shared.start.complete_all();
    while shared.running.load(Acquire) != 0 {
        fsleep(Delta::from_millis(5));
    }
    // Waits for them to let go of the job.
    drop(queue);
    let outcome = shared.outcome.lock();
    outcome.result.map(|()| outcome.nanos)
}
