// SPDX-License-Identifier: GPL-2.0
//! The write buffer: keys that reach their btrees later, many at a time.
//!
//! For btrees whose keys are many, small, in no order, and rarely read: backpointers, lru, accounting and some more. A commit only
//! journals them ([`Attempt::write_buffered`](super::Attempt::write_buffered)). When the journal writes the entry it hands them over, and they wait here, in
//! memory and pinned in the journal, until there are enough; then they are sorted and put into the leaves, each leaf being
//! locked once.
//!
//! They are never journalled a second time: a later change of the same key may be in the journal already, with a lower number than
//! that would have. So each keeps the number of the entry it was journalled in. Of several for one position the last one counts; accounting
//! keys are increments, which are added up, and added to what the btree has.
//!
//! Two lists: the journal appends to `incoming` at any time; a flush takes all of that over to `flushing`, whose lock it keeps.
//! Locks, outermost first: `flushing`, `incoming`.

mod flush;
mod item;
mod leaf;

use super::{trans::TransError, write::Writer, Btree};
use crate::{
    journal::engine::{Journal, Pin, PinFlush, PinFlusher, PinKind},
    util::error::{Error, Result},
};
use bcachefs_format::{BtreeId, KeyRef};
use item::Item;
use kernel::{
    c_str, new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, Mutex,
    },
};
use kfs::work::{Job, Kind, WorkQueue};

/// Keys that may wait. When three quarters of it are there, nobody but those who make room gets room in the journal.
const LIMIT: usize = 1 << 16;

/// Keys that lists have room for at first.
const ROOM: usize = 1024;

/// What the pins are called by.
const COOKIE: u64 = 0;

/// Keys, and what keeps the oldest of them in the journal.
struct List {
    items: KVVec<Item>,
    pin: Arc<Pin>,
}

impl List {
    fn new() -> Result<Self> {
        Ok(List {
            items: KVVec::with_capacity(ROOM, GFP_KERNEL)?,
            pin: Pin::new(PinKind::Other, COOKIE, GFP_KERNEL)?,
        })
    }
}

/// Keys on their way into btrees.
#[pin_data]
pub(super) struct WriteBuffer {
    #[pin]
    incoming: Mutex<List>,
    #[pin]
    flushing: Mutex<Flushing>,
    /// Keys in both lists.
    waiting: Atomic<usize>,
    /// Accounting keys may be added to what the btree has: replay has done so with those that are older.
    accounting: Atomic<u32>,
    /// Writes out in the background.
    #[pin]
    job: Job<Btree>,
}

/// The list of a flush, and memory for sorting it.
struct Flushing {
    list: List,
    order: KVVec<u32>,
}

impl WriteBuffer {
    /// An empty one. May sleep.
    pub(super) fn new() -> Result<core::pin::Pin<KBox<Self>>> {
        let incoming = List::new()?;
        let flushing = Flushing {
            list: List::new()?,
            order: KVVec::with_capacity(ROOM, GFP_KERNEL)?,
        };
        let queue = WorkQueue::new(c_str!("bcachefs-buffer"), Kind::Unbound)?;
        let queue = Arc::new(queue, GFP_KERNEL)?;
        Ok(KBox::pin_init(
            pin_init!(WriteBuffer {
                incoming <- new_mutex!(incoming, "write_buffer_incoming"),
                flushing <- new_mutex!(flushing, "write_buffer_flushing"),
                waiting: Atomic::new(0),
                accounting: Atomic::new(0),
                job <- Job::new(queue, run),
            }),
            GFP_KERNEL,
        )?)
    }

    /// Flushes in the background from now on, until [`WriteBuffer::stop`].
    pub(super) fn start(&self, btree: Arc<Btree>) {
        self.job.start(btree);
    }

    /// Ends that. Sleeps.
    pub(super) fn stop(&self) {
        self.job.stop();
    }

    /// Keys that wait.
    #[cfg(bcachefs_kunit)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }
}

/// The background job.
fn run(btree: &Arc<Btree>) {
    // Somebody else is at it already, or it will be asked for again.
    if let Some(mut flushing) = btree.write_buffer.flushing.try_lock() {
        let _ = btree.flush_buffered(&mut flushing);
    }
}

/// Writes out what the pins of the write buffer stand for.
pub(super) struct BufferPins(pub(super) Arc<Writer>);

impl PinFlusher for BufferPins {
    fn flush(&self, _cookie: u64, seq: u64) -> PinFlush {
        let Some(btree) = self.0.btree() else {
            return PinFlush::Stop;
        };
        let mut flushing = btree.write_buffer.flushing.lock();
        if btree.flush_buffered(&mut flushing).is_err() {
            return PinFlush::Stop;
        }
        match flushing.list.pin.seq().is_some_and(|held| held <= seq) {
            // Accounting has to wait for replay.
            true => PinFlush::Busy,
            false => PinFlush::Done,
        }
    }
}

impl Btree {
    /// Takes over a key that was journalled for the write buffer, `offset` words into entry `seq`. Keys come in the order in which they
    /// are in the journal. Sleeps; does not wait for the journal.
    pub fn write_buffer_push(
        &self,
        seq: u64,
        offset: u32,
        btree: BtreeId,
        key: KeyRef<'_>,
    ) -> Result {
        self.validate(btree, 0, key)?;
        let item = Item::new(seq, btree, key).ok_or_else(|| {
            self.fill.report(format_args!(
                "btree {btree}: {} at word {offset} of journal entry {seq} is too long for the write buffer",
                key.key
            ));
            Error::BtreeKeyInvalid
        })?;
        let wb = &*self.write_buffer;
        let len = {
            let mut incoming = wb.incoming.lock();
            incoming.items.push(item, GFP_KERNEL)?;
            if let Some(journal) = self.journal() {
                journal.pin(&incoming.pin, seq);
            }
            incoming.items.len()
        };
        let waiting = wb.waiting.fetch_add(1, Relaxed) + 1;
        if waiting > LIMIT / 4 {
            wb.job.kick();
        }
        if len == LIMIT / 4 * 3 {
            if let Some(journal) = self.journal() {
                journal.write_buffer_full(true);
            }
        }
        Ok(())
    }

    /// Puts all keys that have been journalled for the write buffer into their btrees. Whether there were any. Sleeps; no locks may be
    /// held. Accounting waits for [`Btree::allow_accounting_flush`].
    pub fn flush_write_buffer(&self) -> Result<bool> {
        if let Some(journal) = self.journal() {
            journal.hand_over(journal.cur_seq())?;
        }
        self.flush_buffered(&mut self.write_buffer.flushing.lock())
    }

    /// Accounting keys may be put into the btree from now on: what is older has been replayed.
    pub fn allow_accounting_flush(&self) {
        self.write_buffer.accounting.store(1, Relaxed);
    }

    /// The journal, if there is one.
    fn journal(&self) -> Option<&Journal> {
        self.writing().ok()?.log.journal()
    }
}

/// Result of what may restart.
type Tried<T = ()> = core::result::Result<T, TransError>;
