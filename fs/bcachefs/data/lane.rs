// SPDX-License-Identifier: GPL-2.0
//! Lanes: where what completions have left to do, but must not wait for, waits for its turn.
//!
//! What is in a lane is taken in the order in which it got there. Queueing neither allocates nor sleeps.

use kernel::{
    new_spinlock,
    prelude::*,
    sync::{Arc, SpinLock},
};
use kfs::{
    mem::NofsScope,
    work::{Job, Kind, WorkQueue},
};

use crate::util::error::Result;

/// Something to do.
pub(super) trait Pending: Send {
    /// Does it. Sleeps.
    fn run(self: KBox<Self>);

    /// Where the lane hangs the one behind it.
    fn next(&mut self) -> &mut Option<KBox<dyn Pending>>;
}

/// See the description of the module.
#[pin_data]
pub(super) struct Lane {
    /// The newest first.
    #[pin]
    waiting: SpinLock<Option<KBox<dyn Pending>>>,
    #[pin]
    job: Job<Lane>,
}

/// All lanes of a filesystem.
pub(super) struct Lanes {
    lanes: KVec<Arc<Lane>>,
    queue: Arc<WorkQueue>,
}

impl Lanes {
    /// So many lanes, with threads called `name`. May sleep.
    pub(super) fn new(name: &CStr, count: usize) -> Result<Self> {
        let queue = WorkQueue::new(name, Kind::Unbound)?;
        let queue = Arc::new(queue, GFP_KERNEL)?;
        let mut lanes = KVec::new();
        for _ in 0..count.max(1) {
            let queue = queue.clone();
            let lane = Arc::pin_init(
                pin_init!(Lane {
                    waiting <- new_spinlock!(None, "bcachefs_lane"),
                    job <- Job::new(queue, Lane::work),
                }),
                GFP_KERNEL,
            )?;
            lane.job.start(lane.clone());
            lanes.push(lane, GFP_KERNEL)?;
        }
        Ok(Lanes { lanes, queue })
    }

    /// Queues `one` behind others with the same `key`.
    pub(super) fn push(&self, key: u64, mut one: KBox<dyn Pending>) {
        // There is at least one.
        let index = (key % self.lanes.len().max(1) as u64) as usize;
        let Some(lane) = self.lanes.get(index) else {
            return one.run();
        };
        {
            let mut waiting = lane.waiting.lock();
            *one.next() = waiting.take();
            *waiting = Some(one);
        }
        lane.job.kick();
    }

    /// Waits until what was queued before has ended. Sleeps.
    pub(super) fn flush(&self) {
        self.queue.flush();
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.queue.flush();
        for lane in self.lanes.iter() {
            lane.job.stop();
        }
    }
}

impl Lane {
    fn work(this: &Arc<Self>) {
        let _nofs = NofsScope::enter();
        loop {
            let mut newest = this.waiting.lock().take();
            if newest.is_none() {
                return;
            }
            let mut oldest: Option<KBox<dyn Pending>> = None;
            while let Some(mut one) = newest {
                newest = one.next().take();
                *one.next() = oldest.take();
                oldest = Some(one);
            }
            while let Some(mut one) = oldest {
                oldest = one.next().take();
                one.run();
            }
        }
    }
}
