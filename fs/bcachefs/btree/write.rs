// SPDX-License-Identifier: GPL-2.0
//! Writing nodes.
//!
//! A write is started with the node's lock held at least for read, by one atomic step of the flags. What is unwritten is copied
//! then; the rest happens on work queues. Until the pointer to the node says how far it is written, the journal keeps what was
//! written, by the pin of one of two slots; what changes meanwhile is pinned by the other.
//!
//! What must not be written, because it breaks a rule of the format or the journal has failed, stays in memory and never reaches the
//! devices.

mod around;
mod entry;
mod op;
pub mod sink;
mod state;
mod writer;

#[cfg(bcachefs_kunit)]
pub(in crate::btree) use entry::make as make_entry;
pub use op::WriteMem;
pub(in crate::btree) use around::Around;
pub(in crate::btree) use writer::{NodePins, Writer};

use super::{
    engine::Engine,
    key_cache::KeyPins,
    node::{Flag, NeedMemory, Node, NodeData, NodeHead, NodeMem, Shape},
    write_buffer::BufferPins,
    Btree,
};
use crate::{
    journal::engine::PinKind,
    util::{
        counters::Counter,
        error::{Error, Result},
    },
};
use kernel::{alloc::Flags, prelude::*, sync::Arc};
use kfs::sync::six::Mode;
use op::{Subject, WriteOp};
use sink::{DeviceSink, NodeSink};
use writer::NodeWriteBack;

/// Why a node is written.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum WriteWhy {
    /// If it is dirty.
    Dirty,
    /// If it is dirty and `NEED_WRITE` is set.
    Needed,
}

/// Why a write was not started.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum NotWritten {
    /// Nothing is unwritten.
    Clean,
    /// It is dirty, but need not be written.
    NotNeeded,
    /// It must not be written any more.
    Never,
    /// New children are not durable yet.
    Blocked,
    /// It has been written once and is not reachable yet.
    NotReachable,
    /// It is being written; if `NEED_WRITE` is set it is written again afterwards.
    InFlight,
    /// There is no memory right now; it will be written soon.
    NoMemory,
}

/// How a node is locked by who starts a write of it.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Submit {
    /// Locks are held that nobody must wait with.
    Queue,
    /// None but that of the node, which is released first.
    Here,
}

impl Btree {
    /// Allows changes from now on, which are written to the devices; once. The btrees must be shut down ([`Btree::shutdown`]) for
    /// their memory to be freed after that.
    pub fn start_writing(self: &Arc<Self>, engine: Engine) -> Result {
        let devices = self.devices.clone().ok_or(Error::ReadOnly)?;
        self.start_writing_to(engine, KBox::new(DeviceSink::new(devices)?, GFP_KERNEL)?)
    }

    /// The same to any sink of nodes.
    pub(in crate::btree) fn start_writing_to(
        self: &Arc<Self>,
        engine: Engine,
        sink: KBox<dyn NodeSink>,
    ) -> Result {
        let around: KBox<dyn Around> = KBox::new(engine.journal.clone(), GFP_KERNEL)?;
        let pins = self.start_node_writes(sink, around)?;
        let pins = Arc::new(pins, GFP_KERNEL)?;
        engine.journal.set_flusher(PinKind::Btree, pins);
        if let Some(writer) = self.writer.as_ref() {
            let pins = Arc::new(BufferPins(writer.clone()), GFP_KERNEL)?;
            engine.journal.set_flusher(PinKind::Other, pins);
            let pins = Arc::new(KeyPins(writer.clone()), GFP_KERNEL)?;
            engine.journal.set_flusher(PinKind::KeyCache, pins);
        }
        self.write_buffer.start(self.clone());
        if !self.engine.populate(engine) {
            return Err(Error::BtreeWriting);
        }
        self.start_interior()
    }

    /// Allows writes of nodes, to `sink`. Returns what writes out pins.
    pub(in crate::btree) fn start_node_writes(
        self: &Arc<Self>,
        sink: KBox<dyn NodeSink>,
        around: KBox<dyn Around>,
    ) -> Result<NodePins> {
        let writer = Writer::new(self.clone(), sink, around, self.shape())?;
        let back = Arc::new(NodeWriteBack(writer.clone()), GFP_KERNEL)?;
        self.fill.cache.fill_reserve(self.shape())?;
        if !self.writer.populate(writer.clone()) {
            writer.shut_down();
            return Err(Error::BtreeWriting);
        }
        self.fill.cache.set_write_back(back);
        Ok(NodePins(writer))
    }

    /// The btrees for work that outlives its caller; `None` if nothing is written (any more).
    pub fn me(&self) -> Option<Arc<Btree>> {
        self.writer.as_ref()?.btree()
    }

    /// Sizes of nodes.
    pub fn shape(&self) -> Shape {
        Shape {
            node_sectors: self.fill.geometry.node_sectors,
            block_sectors: self.fill.geometry.block_sectors,
        }
    }

    /// [`NodeData::prepare`] for a change of a node whose lock is held for write; starts a write of it where that is the way to
    /// get rid of sets. Does not sleep if `flags` do not.
    pub fn prepare(
        &self,
        node: &Arc<Node>,
        data: &mut NodeData,
        flags: Flags,
    ) -> core::result::Result<(), NeedMemory> {
        let head = node.shared();
        if head.pins().is_some() && data.is_prepared() {
            return Ok(());
        }
        if head.pins().is_none() && !head.has(Flag::FAKE) {
            head.make_pins(flags).map_err(|_| NeedMemory)?;
        }
        if data.wants_write() && !head.has(Flag::WRITE_IN_FLIGHT) {
            // If not, the sets are put together in memory.
            let _ = self.write_node(node, data, WriteWhy::Dirty, None);
        }
        let result = data.prepare(head, flags);
        self.fill.cache.account(node, data.bytes());
        result
    }

    /// Gets the memory that [`Btree::prepare`] needs. Sleeps; no lock of a node may be held.
    pub fn provide(&self, node: &Arc<Node>) -> Result {
        let head = node.shared();
        head.make_pins(GFP_KERNEL)?;
        head.give(self.node_memory(GFP_KERNEL)?);
        Ok(())
    }

    /// Memory for a new node, from the reserve if there is no other. With locks held `flags` must not wait.
    pub fn node_memory(&self, flags: Flags) -> Result<NodeMem> {
        self.fill.cache.node_memory(self.shape(), flags)
    }

    /// Memory for the first write of a new node. Sleeps; no lock of a node may be held.
    pub fn write_memory(&self) -> Result<WriteMem> {
        Ok(WriteMem::new(self.shape().u64s() * 8, GFP_KERNEL)?)
    }

    /// Notes a change of the keys that is in journal entry `seq`: the node becomes dirty, and keeps the entry until it is written.
    /// The lock must be held for write. For changes of interior nodes that are not journalled yet `seq` is `None`. Does not sleep.
    pub fn dirtied(&self, head: &NodeHead, seq: Option<u64>) {
        // Whoever clears it has the lock, too.
        if !head.has(Flag::DIRTY) && !head.set(Flag::DIRTY) {
            self.fill.cache.dirtied(head);
        }
        let pin = head.pin(head.has(Flag::WRITE_SLOT));
        if let (Some(seq), Some(pin), Some(writer)) = (seq, pin, self.writer.as_ref()) {
            writer.around.pin(pin, seq);
        }
    }

    /// The node, which is being replaced, is not to be written any more: clears `DIRTY` and `NEED_WRITE`. Its pins stay. The lock must
    /// be held for write. Whether it was dirty.
    pub fn undirtied(&self, head: &NodeHead) -> bool {
        let dirty = head.clear(Flag::DIRTY);
        head.clear(Flag::NEED_WRITE);
        self.fill.cache.cleaned(head);
        dirty
    }

    /// Starts a write of the node, whose lock is held at least for read, and whose keys are `data`. With `mem`, from
    /// [`Btree::write_memory`], it does not fail for lack of memory. Does not sleep; other locks may be held.
    pub fn write_node(
        &self,
        node: &Arc<Node>,
        data: &NodeData,
        why: WriteWhy,
        mem: Option<WriteMem>,
    ) -> core::result::Result<(), NotWritten> {
        let mem = match mem {
            Some(mem) => mem,
            None => {
                state::start(node.shared().flags(), why, data.sectors_written() == 0)?;
                match WriteMem::new(entry::bytes_max(data), GFP_NOWAIT | __GFP_NOWARN) {
                    Ok(mem) => mem,
                    Err(_) => {
                        self.write_later(node);
                        return Err(NotWritten::NoMemory);
                    }
                }
            }
        };
        self.start_write(node, data, why, mem, Submit::Queue).map(|_| ())
    }

    /// Starts a write: the step of the flags, and the copy. The write itself, if the caller is to submit it.
    #[inline(never)]
    fn start_write(
        &self,
        node: &Arc<Node>,
        data: &NodeData,
        why: WriteWhy,
        mut mem: WriteMem,
        submit: Submit,
    ) -> core::result::Result<Option<Arc<WriteOp>>, NotWritten> {
        let head = node.shared();
        let writer = self.writer.as_ref().ok_or(NotWritten::Never)?;
        let btree = writer.btree().ok_or(NotWritten::Never)?;
        let at = data.sectors_written();
        writer.begin();
        let flags = match head.step(|v| state::start(v, why, at == 0)) {
            Ok(flags) => flags,
            Err(e) => {
                writer.end();
                return Err(e);
            }
        };
        self.fill.cache.cleaned(head);
        let devices = self.fill.devices();
        let made = entry::make(mem.buf.as_words_mut(), head, data, &self.fill.geometry, devices);
        let sectors = match made {
            Ok(sectors) => sectors,
            Err(e) => {
                self.fill.report(format_args!("{head}: not written: {e}"));
                head.change_by(state::give_up);
                self.fill.cache.dirtied(head);
                writer.around.halt(Error::BtreeKeyInvalid);
                writer.end();
                return Err(NotWritten::Never);
            }
        };
        // After that unjournalled changes of interior nodes must not become visible.
        let halted = writer.around.failed();
        if halted {
            head.set(Flag::NOEVICT);
        }
        if sectors != 0 {
            data.start_write(at + sectors);
            self.counters.inc(Counter::BTREE_NODE_WRITE);
        }
        let subject = Subject {
            btree,
            node: node.clone(),
            at,
            sectors: if halted { 0 } else { sectors },
            // Until now it was the other one.
            slot: !Flag::WRITE_SLOT.is_in(flags),
            halted,
        };
        let op = WriteOp::new(mem, writer.clone(), subject);
        match submit {
            Submit::Here => Ok(Some(op)),
            Submit::Queue => {
                let _ = writer.submit.enqueue::<_, 1>(op);
                Ok(None)
            }
        }
    }

    /// Writes a node whose lock is not held. Sleeps; not within a transaction.
    fn write_unlocked(&self, node: &Arc<Node>, why: WriteWhy) {
        let Some(writer) = self.writer.as_ref() else {
            return;
        };
        let mut mem = None;
        loop {
            let started = self.run(|t| {
                let slot = t.locks.reference(node).map_err(|e| t.restart(e.into()))?;
                if let Err(e) = t.locks.lock(slot, Mode::Read) {
                    t.locks.put(slot);
                    return Err(t.restart(e.into()));
                }
                let started = match t.locks.get(slot).filter(|_| !node.shared().has(Flag::DEAD)) {
                    None => Err(NotWritten::Never),
                    Some(data) => {
                        let bytes = entry::bytes_max(data);
                        match mem.take() {
                            Some(mem) => self.start_write(node, data, why, mem, Submit::Here),
                            None => match WriteMem::new(bytes, GFP_NOWAIT | __GFP_NOWARN) {
                                Ok(mem) => self.start_write(node, data, why, mem, Submit::Here),
                                Err(_) => Err(NotWritten::NoMemory),
                            },
                        }
                    }
                };
                t.locks.put(slot);
                Ok(started)
            });
            match started {
                Ok(Ok(Some(op))) => return op.submit(),
                Ok(Err(NotWritten::NoMemory)) => match WriteMem::wait(&writer.buffers) {
                    Ok(m) => mem = Some(m),
                    Err(_) => return,
                },
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Has the node written soon, if it is dirty: sets `NEED_WRITE` and leaves the rest to a work queue. Does not sleep; any locks.
    pub fn write_later(&self, node: &Arc<Node>) {
        if let Some(writer) = self.writer.as_ref() {
            node.shared().set(Flag::NEED_WRITE);
            writer.queue(node);
        }
    }

    /// [`Btree::write_later`] if `NEED_WRITE` is set already, and a write may start: for who has taken away what kept it from starting.
    pub fn write_if_needed(&self, node: &Arc<Node>) {
        if let Some(writer) = self.writer.as_ref().filter(|_| state::wanted(node.shared().flags())) {
            writer.queue(node);
        }
    }

    /// Waits until the devices are done with the node. Sleeps; no lock of a node may be held.
    pub fn wait_node_io(&self, node: &Node) {
        if let Some(writer) = self.writer.as_ref() {
            writer.wait_until(|| !node.shared().has(Flag::WRITE_IN_FLIGHT_INNER));
        }
    }

    /// Waits until no node is being written. Sleeps.
    pub fn wait_node_writes(&self) {
        if let Some(writer) = self.writer.as_ref() {
            writer.wait_idle();
        }
    }

    /// Writes all dirty nodes that may be written and waits for that; whether there were any. Sleeps.
    pub fn flush_nodes(&self) -> Result<bool> {
        let (mut at, mut any) = (0, false);
        while let Some(node) = self.fill.cache.nth(at) {
            at += 1;
            let head = node.shared();
            // One that is being written is written again.
            let started = state::start(head.flags(), WriteWhy::Dirty, false);
            if matches!(started, Ok(_) | Err(NotWritten::InFlight)) {
                any = true;
                self.write_later(&node);
            }
        }
        self.wait_node_writes();
        Ok(any)
    }

    /// Number of dirty nodes.
    pub fn dirty_nodes(&self) -> usize {
        self.fill.cache.nr_dirty()
    }

    /// Number of dirty keys in the key cache.
    pub fn dirty_keys(&self) -> usize {
        self.key_cache.nr_dirty()
    }

    /// A node could not be written, or its pointer not be changed: it stays in memory, and nothing is written any more.
    fn node_write_failed(&self, head: &NodeHead, error: Error) {
        self.fill.report(format_args!("{head}: not written: {error}"));
        head.set(Flag::NEVER_WRITE);
        head.set(Flag::NOEVICT);
        if let Some(writer) = self.writer.as_ref() {
            writer.around.halt(error);
        }
    }
}
