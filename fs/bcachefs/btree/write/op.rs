// SPDX-License-Identifier: GPL-2.0
//! One write of a node, from its submission to its end.

use super::{
    sink::WriteDone,
    state,
    writer::Writer,
};
use crate::{
    btree::{
        node::{Flag, Node, PtrKey},
        source::CopyError,
        Btree,
    },
    sb::device::MEMBERS_MAX,
    util::error::Error,
};
use bcachefs_format::keys::{btree_ptr::BtreePtr, extent::Ptr};
use core::mem::MaybeUninit;
use kernel::{
    alloc::{AllocError, Flags},
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Arc, SpinLock, UniqueArc,
    },
    workqueue::{impl_has_work, new_work, Work, WorkItem},
};
use kfs::{
    block::{IoBuf, IoBufPool, SharedBuf},
    mem::NofsScope,
};

/// What a write takes.
pub struct WriteMem {
    pub(super) buf: IoBuf,
    op: UniqueArc<MaybeUninit<WriteOp>>,
    shared: UniqueArc<MaybeUninit<IoBuf>>,
}

impl WriteMem {
    /// Memory for a write of `bytes` bytes. Allocates with `flags`.
    #[inline(never)]
    pub(super) fn new(bytes: usize, flags: Flags) -> Result<Self, AllocError> {
        Self::with(IoBuf::new(bytes, flags)?, flags)
    }

    /// Memory for any write, with a buffer of the reserve. May wait for other writes.
    pub(super) fn wait(pool: &Arc<IoBufPool>) -> Result<Self, AllocError> {
        Self::with(IoBufPool::get(pool), GFP_KERNEL)
    }

    fn with(buf: IoBuf, flags: Flags) -> Result<Self, AllocError> {
        Ok(WriteMem {
            buf,
            op: UniqueArc::new_uninit(flags)?,
            shared: UniqueArc::new_uninit(flags)?,
        })
    }
}

/// What a write is of.
pub(super) struct Subject {
    pub(super) btree: Arc<Btree>,
    pub(super) node: Arc<Node>,
    /// Where in the node it goes.
    pub(super) at: u32,
    /// How many sectors; 0 if nothing reaches the devices.
    pub(super) sectors: u32,
    /// The pin of what is written.
    pub(super) slot: bool,
    /// It is not to be written any more: the journal has failed.
    pub(super) halted: bool,
}

/// A write under way.
#[pin_data]
pub(super) struct WriteOp {
    writer: Arc<Writer>,
    subject: Subject,
    /// The copies.
    ptr: PtrKey,
    #[pin]
    buf: SpinLock<Option<SharedBuf>>,
    /// Copies that have not ended, and one for the submission.
    pending: Atomic<u32>,
    copies: Atomic<u32>,
    failed_copies: Atomic<u32>,
    failed: Atomic<u64>,
    #[pin]
    submit: Work<WriteOp, 1>,
    #[pin]
    done: Work<WriteOp, 2>,
}

impl_has_work! {
    impl HasWork<Self, 1> for WriteOp { self.submit }
    impl HasWork<Self, 2> for WriteOp { self.done }
}

impl WorkItem<1> for WriteOp {
    type Pointer = Arc<WriteOp>;

    fn run(this: Arc<WriteOp>) {
        this.submit();
    }
}

impl WorkItem<2> for WriteOp {
    type Pointer = Arc<WriteOp>;

    fn run(this: Arc<WriteOp>) {
        let _nofs = NofsScope::enter();
        let writer = this.writer.clone();
        this.ended();
        drop(this);
        writer.end();
    }
}

impl WriteOp {
    /// A write of what is in `mem`'s buffer. Does not sleep.
    pub(super) fn new(mem: WriteMem, writer: Arc<Writer>, subject: Subject) -> Arc<Self> {
        let buf = SharedBuf::from(mem.shared.write(mem.buf));
        let ptr = subject.node.shared().ptr();
        let init = pin_init!(WriteOp {
            writer,
            subject,
            ptr,
            buf <- new_spinlock!(Some(buf), "btree_write_buf"),
            pending: Atomic::new(1),
            copies: Atomic::new(0),
            failed_copies: Atomic::new(0),
            failed: Atomic::new(0),
            submit <- new_work!("WriteOp::submit"),
            done <- new_work!("WriteOp::done"),
        });
        let op: core::result::Result<Pin<UniqueArc<Self>>, core::convert::Infallible> =
            mem.op.pin_init_with(init);
        match op {
            Ok(op) => op.into(),
            Err(never) => match never {},
        }
    }

    /// Submits the copies. May sleep.
    pub(super) fn submit(self: &Arc<Self>) {
        let _nofs = NofsScope::enter();
        let s = &self.subject;
        let buf = self.buf.lock().take();
        if let (Ok(p), Some(buf), true) = (BtreePtr::parse(self.ptr.get()), buf, s.sectors != 0) {
            let bytes = s.sectors as usize * bcachefs_format::btree_node::SECTOR_BYTES;
            for ptr in p.ptrs() {
                self.copies.add(1u32, Relaxed);
                self.pending.add(1u32, Relaxed);
                let done = WriteDone::new(self.clone(), ptr);
                self.writer.sink.write(ptr, s.at, buf.clone(), bytes, done);
            }
        }
        self.put();
    }

    /// One copy is on its device, or is not.
    pub(super) fn copy_written(self: Arc<Self>, ptr: Ptr, result: Result<(), CopyError>) {
        if let Err(e) = result {
            self.failed_copies.add(1u32, Relaxed);
            let bit = 1u64 << (ptr.dev() & 63);
            let mut old = self.failed.load(Relaxed);
            while let Err(now) = self.failed.cmpxchg(old, old | bit, Full) {
                old = now;
            }
            self.subject.btree.fill.write_failed(self.subject.node.shared(), ptr, &e);
        }
        self.put();
    }

    /// One of what is pending has ended.
    fn put(self: &Arc<Self>) {
        if self.pending.fetch_sub(1u32, Full) != 1 {
            return;
        }
        self.subject.node.shared().change_by(state::io_done);
        self.writer.wake();
        // What follows may wait for the journal and for other nodes.
        let _ = self.writer.done.enqueue::<_, 2>(self.clone());
    }

    /// All copies have ended. Process context; may sleep.
    fn ended(&self) {
        let Subject { btree, node, at, sectors, slot, halted } = &self.subject;
        let head = node.shared();
        let around = &self.writer.around;
        let mut list = [0; MEMBERS_MAX];
        let devs = devices(self.failed.load(Relaxed), &mut list);
        let first = *at == 0;
        let mut good = !halted;
        if good && *sectors != 0 && self.copies.load(Relaxed) == self.failed_copies.load(Relaxed) {
            btree.node_write_failed(head, Error::BtreeNodeWrite);
            good = false;
        }
        if good && *sectors != 0 && !first && !head.has(Flag::DEAD) {
            if let Err(e) = around.written(btree, node, at + sectors, devs) {
                // As long as its pointer does not say so it is not written.
                btree.node_write_failed(head, e);
                good = false;
            }
        }
        if let Some(pin) = head.pin(*slot).filter(|_| good) {
            around.unpin(pin);
        }
        if first {
            around.new_written(btree, node, devs);
        }
        let flags = head.change_by(state::finish);
        self.writer.wake();
        if state::wanted(flags) {
            self.writer.queue(node);
        }
    }
}

/// The members of a mask.
fn devices(mask: u64, list: &mut [u8; MEMBERS_MAX]) -> &[u8] {
    let mut n = 0;
    for dev in (0..MEMBERS_MAX as u8).filter(|d| mask & 1 << d != 0) {
        if let Some(to) = list.get_mut(n) {
            *to = dev;
            n += 1;
        }
    }
    list.get(..n).unwrap_or(&[])
}
