// SPDX-License-Identifier: GPL-2.0
//! The queues of nodes and writes.
//!
//! | queue | what it does | waits for |
//! |---|---|---|
//! | nodes | takes a node's lock and copies what is unwritten | locks, buffers |
//! | submit | hands writes to the devices whose starter held locks | the block layer |
//! | done | what follows a write: the pointer to the node, the pin | locks, the journal |
//!
//! None waits for what comes before it, so that a write that has been started always ends.

use super::{around::Around, sink::NodeSink, WriteWhy};
use crate::{
    btree::{
        cache::WriteBack,
        node::{Flag, Node, Shape},
        Btree,
    },
    journal::engine::{PinFlush, PinFlusher},
    util::error::Result,
};
use kernel::{
    new_condvar, new_mutex, new_spinlock,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed},
        Arc, CondVar, Mutex, SpinLock,
    },
    time::msecs_to_jiffies,
    workqueue::{impl_has_work, new_work, Work, WorkItem},
};
use kfs::{
    block::IoBufPool,
    mem::NofsScope,
    work::{Kind, WorkQueue},
};

/// How long eviction waits for a write.
const WAIT_MS: u32 = 100;
/// Nodes that the queue has room for. Others are found by looking through the cache.
const QUEUE: usize = 512;

/// Nodes to be written.
struct Queue {
    nodes: KVVec<Arc<Node>>,
    /// There were too many.
    overflow: bool,
}

/// See the module's description.
#[pin_data]
pub(in crate::btree) struct Writer {
    pub(super) sink: KBox<dyn NodeSink>,
    pub(super) around: KBox<dyn Around>,
    pub(super) buffers: Arc<IoBufPool>,
    nodes: WorkQueue,
    pub(super) submit: WorkQueue,
    pub(super) done: WorkQueue,
    /// The btrees, until they are shut down.
    #[pin]
    btree: SpinLock<Option<Arc<Btree>>>,
    #[pin]
    queue: SpinLock<Queue>,
    /// Writes that have not ended, and nodes in the queue.
    in_flight: Atomic<u32>,
    #[pin]
    wait: Mutex<()>,
    #[pin]
    woken: CondVar,
    #[pin]
    work: Work<Writer>,
}

impl_has_work! {
    impl HasWork<Self> for Writer { self.work }
}

impl WorkItem for Writer {
    type Pointer = Arc<Writer>;

    fn run(this: Arc<Writer>) {
        let _nofs = NofsScope::enter();
        this.write_queued();
    }
}

impl Writer {
    /// Writes the nodes of `btree` to `sink`. May sleep.
    pub(super) fn new(
        btree: Arc<Btree>,
        sink: KBox<dyn NodeSink>,
        around: KBox<dyn Around>,
        shape: Shape,
    ) -> Result<Arc<Self>> {
        let bytes = shape.u64s() * 8;
        let list = KVVec::with_capacity(QUEUE, GFP_KERNEL)?;
        Ok(Arc::pin_init(
            try_pin_init!(Self {
                sink,
                around,
                buffers: IoBufPool::new(1, bytes)?,
                nodes: WorkQueue::new(c"bcachefs-nodes", Kind::UnboundUrgent)?,
                submit: WorkQueue::new(c"bcachefs-nodes-io", Kind::UnboundUrgent)?,
                done: WorkQueue::new(c"bcachefs-nodes-done", Kind::UnboundUrgent)?,
                btree <- new_spinlock!(Some(btree), "btree_writer"),
                queue <- new_spinlock!(Queue { nodes: list, overflow: false }, "btree_write_queue"),
                in_flight: Atomic::new(0),
                wait <- new_mutex!((), "btree_write_wait"),
                woken <- new_condvar!("btree_write_woken"),
                work <- new_work!("Writer::work"),
            }? kernel::error::Error),
            GFP_KERNEL,
        )?)
    }

    /// The btrees, unless they have been shut down.
    pub(in crate::btree) fn btree(&self) -> Option<Arc<Btree>> {
        self.btree.lock().clone()
    }

    /// Has a node written that has `NEED_WRITE` set. Does not sleep; any context that locks do not forbid.
    pub(super) fn queue(self: &Arc<Self>, node: &Arc<Node>) {
        let head = node.shared();
        if head.set(Flag::WRITE_QUEUED) {
            return;
        }
        self.begin();
        {
            let mut queue = self.queue.lock();
            if queue.nodes.push_within_capacity(node.clone()).is_err() {
                head.clear(Flag::WRITE_QUEUED);
                if core::mem::replace(&mut queue.overflow, true) {
                    // Counted already.
                    self.in_flight.fetch_sub(1u32, Full);
                }
            }
        }
        let _ = self.nodes.enqueue::<_, 0>(self.clone());
    }

    fn next(&self) -> Option<Arc<Node>> {
        // The one queued last: which is first does not matter.
        self.queue.lock().nodes.pop()
    }

    /// Writes the nodes in the queue.
    fn write_queued(&self) {
        let btree = self.btree();
        let write = |node: &Arc<Node>| {
            if let Some(btree) = &btree {
                btree.write_unlocked(node, WriteWhy::Needed);
            }
        };
        loop {
            while let Some(node) = self.next() {
                node.shared().clear(Flag::WRITE_QUEUED);
                write(&node);
                self.end();
            }
            if !core::mem::take(&mut self.queue.lock().overflow) {
                return;
            }
            let mut at = 0;
            while let Some(node) = btree.as_ref().and_then(|b| b.cache().nth(at)) {
                at += 1;
                if super::state::wanted(node.shared().flags()) {
                    write(&node);
                }
            }
            self.end();
        }
    }

    /// A write begins.
    pub(super) fn begin(&self) {
        self.in_flight.add(1u32, Relaxed);
    }

    /// A write has ended.
    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1u32, Full);
        self.wake();
    }

    /// Something that somebody may wait for has happened.
    pub(super) fn wake(&self) {
        let _guard = self.wait.lock();
        self.woken.notify_all();
    }

    /// Waits until `cond` holds, which is looked at whenever a write gets on. Sleeps.
    pub(super) fn wait_until(&self, cond: impl Fn() -> bool) {
        let mut guard = self.wait.lock();
        while !cond() {
            self.woken.wait(&mut guard);
        }
    }

    /// Waits until no write is under way. Sleeps.
    pub(super) fn wait_idle(&self) {
        self.wait_until(|| self.in_flight.load(Acquire) == 0);
    }

    /// Ends everything; no writes may be started any more.
    pub(in crate::btree) fn shut_down(&self) {
        self.wait_idle();
        let btree = self.btree.lock().take();
        // What has ended may not have returned yet.
        self.nodes.flush();
        self.submit.flush();
        self.sink.wait_idle();
        self.done.flush();
        // The caller has another reference.
        drop(btree);
    }
}

/// What eviction calls.
pub(super) struct NodeWriteBack(pub(super) Arc<Writer>);

impl WriteBack for NodeWriteBack {
    fn write_soon(&self, node: &Arc<Node>) {
        node.shared().set(Flag::NEED_WRITE);
        self.0.queue(node);
    }

    fn wait_a_little(&self) {
        let writer = &self.0;
        let mut guard = writer.wait.lock();
        if writer.in_flight.load(Acquire) != 0 {
            let _ = writer
                .woken
                .wait_interruptible_timeout(&mut guard, msecs_to_jiffies(WAIT_MS));
        }
    }
}

/// What journal reclaim calls. It starts the write, and does not wait.
pub(in crate::btree) struct NodePins(pub(super) Arc<Writer>);

impl PinFlusher for NodePins {
    fn flush(&self, cookie: u64, seq: u64) -> PinFlush {
        let Some(btree) = self.0.btree() else {
            return PinFlush::Stop;
        };
        let Some(node) = btree.cache().get(cookie) else {
            return PinFlush::Done;
        };
        let head = node.shared();
        // What the other slot pins is being written already.
        let slot = head.has(Flag::WRITE_SLOT);
        let pinned = head.pin(slot).and_then(|p| p.seq());
        if head.has(Flag::DIRTY) && pinned.is_none_or(|s| s <= seq) {
            head.set(Flag::NEED_WRITE);
            self.0.queue(&node);
        }
        PinFlush::Done
    }
}
