// SPDX-License-Identifier: GPL-2.0
//! What all parts of the allocator have in common, whatever the device.

use super::{
    client::AllocClient,
    device_set::DeviceSet,
    open_buckets::{Id, OpenTable},
    waiting::WaitingTable,
};
use crate::{
    btree::Btree,
    util::{counters::Counters, error::Result},
};
use kernel::{
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        atomic::{Acquire, Atomic, Relaxed, Release},
        Arc, Mutex,
    },
};
use kfs::{
    new_event,
    sync::Event,
    work::{Kind, WorkQueue},
};

/// See the description of the module.
#[pin_data]
pub(super) struct Shared {
    pub client: Arc<dyn AllocClient>,
    pub counters: Arc<Counters>,
    #[pin]
    pub open: OpenTable,
    #[pin]
    pub waiting: WaitingTable,
    /// It may be worth asking for a bucket again.
    #[pin]
    pub freed: Event,
    /// What messages call the filesystem.
    pub name: CString,
    /// Runs discards and invalidations. They hold references that going read-only waits for: not to be mixed with anything else.
    pub queue: WorkQueue,
    /// There while the allocator works.
    #[pin]
    btree: Mutex<Option<Arc<Btree>>>,
    running: Atomic<u32>,
    writable: Atomic<u64>,
    flushed: Atomic<u64>,
}

impl Shared {
    /// An allocator at rest. May sleep.
    pub(super) fn new(
        client: Arc<dyn AllocClient>,
        counters: Arc<Counters>,
        name: CString,
        flushed: u64,
    ) -> Result<Arc<Self>> {
        let queue = WorkQueue::new(c"bcachefs_alloc", Kind::Unbound)?;
        let open = OpenTable::new()?;
        let waiting = WaitingTable::new()?;
        Ok(Arc::pin_init(
            pin_init!(Shared {
                client,
                counters,
                open <- open,
                waiting <- waiting,
                freed <- new_event!("bcachefs_freelist"),
                name,
                queue,
                btree <- new_mutex!(None, "bcachefs_alloc_btree"),
                running: Atomic::new(0),
                writable: Atomic::new(0),
                flushed: Atomic::new(flushed),
            }),
            GFP_KERNEL,
        )?)
    }

    /// Starts, with these btrees. Sleeps for a mutex.
    pub(super) fn start(&self, btree: Arc<Btree>) {
        *self.btree.lock() = Some(btree);
        self.running.store(1, Release);
    }

    /// Stops: nothing new is queued, and all who wait are woken, in vain. Sleeps.
    pub(super) fn stop(&self) {
        self.running.store(0, Release);
        self.freed.announce();
        self.queue.flush();
        let btree = self.btree.lock().take();
        drop(btree);
    }

    /// Whether it has been started and not stopped. Any context.
    pub(super) fn is_running(&self) -> bool {
        self.running.load(Acquire) != 0
    }

    /// The btrees, for those who work on their own. Sleeps for a mutex.
    pub(super) fn btree(&self) -> Option<Arc<Btree>> {
        self.btree.lock().clone()
    }

    /// Devices that may be written to. Any context.
    pub(super) fn writable(&self) -> DeviceSet {
        DeviceSet(self.writable.load(Relaxed))
    }

    /// Adds or removes a device. Changes are made by one task at a time.
    pub(super) fn set_writable(&self, dev: u8, yes: bool) {
        let one = DeviceSet::one(dev);
        let set = self.writable().without(one);
        self.writable.store(if yes { set.0 | one.0 } else { set.0 }, Relaxed);
    }

    /// Newest entry of the journal that is durable. Any context.
    pub(super) fn flushed(&self) -> u64 {
        self.flushed.load(Acquire)
    }

    /// Entries up to `seq` are durable.
    pub(super) fn set_flushed(&self, seq: u64) {
        let mut old = self.flushed.load(Relaxed);
        while old < seq {
            match self.flushed.cmpxchg(old, seq, Release) {
                Ok(_) => break,
                Err(now) => old = now,
            }
        }
    }

    /// Drops a reference to each of these open buckets. Does not sleep.
    pub(super) fn put_open(&self, ids: &[Id]) {
        if self.open.put(ids) {
            self.freed.announce();
        }
    }

    /// A write point leaves an open bucket. Does not sleep.
    pub(super) fn leave_open(&self, id: Id) {
        // A partial one may be what somebody waits for.
        self.open.leave(id);
        self.freed.announce();
    }
}
