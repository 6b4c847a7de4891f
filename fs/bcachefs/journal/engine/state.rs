// SPDX-License-Identifier: GPL-2.0
//! The journal's state, and what keeps its parts in step.
//!
//! Locks, outermost first: `reclaim`, `growing`, `discarding`, `bufs`, then `inner`, a spin lock that is held for short only, then
//! `owners`, another one. No lock is held while a client is called, except `reclaim` while pins are flushed.

use bcachefs_format::{checksum::CsumType, Uuid, Version};
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed, Release},
        Arc, CondVar, Mutex, SpinLock,
    },
    time::{Instant, Monotonic},
};
use kfs::{
    block::IoBuf,
    sync::InlineAtomic,
    work::Job,
};

use super::{
    disk::Disk,
    pins::{Pin, Pins},
    ring::Ring,
    slot::{Entry, Phase, Slot},
    space::Space,
    word::SLOTS,
    JournalClient, PinFlusher,
};
use crate::util::{error::Error, watermark::Watermark};

/// What does not change.
#[derive(Copy, Clone)]
pub(super) struct Config {
    /// The filesystem, for messages.
    pub(super) uuid: Uuid,
    /// What entries begin with.
    pub(super) magic: u64,
    /// Version of entries.
    pub(super) version: Version,
    /// Checksum of entries.
    pub(super) csum_type: CsumType,
    /// Bytes of a block.
    pub(super) block_bytes: usize,
    /// Copies that entries are to have.
    pub(super) copies: usize,
    /// Copies that entries must have.
    pub(super) copies_required: usize,
    /// Milliseconds until what was written becomes durable by itself.
    pub(super) flush_delay: u32,
    /// Milliseconds between looks at what could be written out.
    pub(super) reclaim_delay: u32,
    /// Milliseconds without progress after which a full journal is declared stuck.
    pub(super) stuck_ms: u64,
}

/// Whom the journal calls.
pub(super) struct Owners {
    pub(super) client: Option<Arc<dyn JournalClient>>,
    pub(super) flushers: [Option<Arc<dyn PinFlusher>>; 3],
}

/// Memory that entries are written from.
pub(super) struct Bufs {
    /// Not in use, each of at least `bytes`.
    pub(super) spare: KVec<IoBuf>,
    /// What a buffer has to hold.
    pub(super) bytes: usize,
    /// Entries that are composed, and not submitted.
    pub(super) composed: [Option<IoBuf>; SLOTS],
}

/// Reclaim's own.
#[derive(Default)]
pub(super) struct Reclaim {
    /// Number of the last pass over pins.
    pub(super) pass: u64,
    /// When a pin was last flushed, in milliseconds.
    pub(super) last_pin: u64,
    /// What had been achieved when that last changed, and when that was.
    pub(super) progress: (u64, u64, u64),
    pub(super) progress_at: u64,
    /// Pins flushed.
    pub(super) flushed: u64,
    /// It has been reported that there is no progress.
    pub(super) reported: bool,
}

/// What is behind the spin lock.
pub(super) struct Inner {
    pub(super) pins: Pins,
    pub(super) entries: [Entry; SLOTS],
    /// The newest entry begun.
    pub(super) cur: u64,
    /// Whether it is open.
    pub(super) open: bool,
    /// All entries up to this have been composed.
    pub(super) composed: u64,
    /// All entries up to this have been written, or failed.
    pub(super) ondisk: u64,
    /// The newest durable flush entry.
    pub(super) flushed: u64,
    /// The oldest entry that is needed according to it.
    pub(super) last_seq_ondisk: u64,
    /// The first entry that will never be durable.
    pub(super) err_seq: u64,
    /// The newest entry that is a flush entry and held no keys.
    pub(super) last_empty: u64,
    pub(super) rings: KVec<Ring>,
    pub(super) space: Space,
    /// The next entry has to be a flush entry.
    pub(super) need_flush: bool,
    /// When a flush entry was last begun to be written, in milliseconds.
    pub(super) last_flush: u64,
    /// Words of a staging buffer.
    pub(super) buf_u64s: u32,
    /// Words that one should have.
    pub(super) want_u64s: u32,
    /// Those who wait because there is no room.
    pub(super) blocked: u32,
    /// The write buffer has to be flushed before more keys come.
    pub(super) write_buffer_full: bool,
    /// Discards done.
    pub(super) discards: u64,
    /// Accepts nothing.
    pub(super) stopped: bool,
    /// Why it has failed.
    pub(super) failed: Option<Error>,
    /// The client does not know that yet.
    pub(super) tell: bool,
    /// The pin being flushed, and whether it has been changed meanwhile.
    pub(super) flushing: Option<Arc<Pin>>,
    pub(super) flushing_changed: bool,
}

impl Inner {
    /// Entry `seq`, which is not on disk yet.
    pub(super) fn entry(&mut self, seq: u64) -> &mut Entry {
        let [a, b, c, d] = &mut self.entries;
        match seq % SLOTS as u64 {
            0 => a,
            1 => b,
            2 => c,
            _ => d,
        }
    }

    /// Entries that are not on disk yet, oldest first.
    pub(super) fn unwritten(&self) -> core::ops::RangeInclusive<u64> {
        self.ondisk + 1..=self.cur
    }
}

/// Everything of the journal; shared with transfers under way and the jobs.
#[pin_data]
pub(super) struct Core {
    /// See [`super::word`].
    pub(super) word: Atomic<u64>,
    /// The lowest watermark that gets something.
    pub(super) watermark: Atomic<u32>,
    /// Words of late records, as the client said last: it may sleep to find out.
    pub(super) late: Atomic<u32>,
    pub(super) slots: [Slot; SLOTS],
    pub(super) cur_seq: Atomic<u64>,
    pub(super) last_seq: Atomic<u64>,
    pub(super) flushed_seq: Atomic<u64>,
    #[pin]
    pub(super) inner: SpinLock<Inner>,
    #[pin]
    pub(super) owners: SpinLock<Owners>,
    #[pin]
    pub(super) bufs: Mutex<Bufs>,
    #[pin]
    pub(super) reclaim: Mutex<Reclaim>,
    #[pin]
    pub(super) discarding: Mutex<()>,
    #[pin]
    pub(super) growing: Mutex<()>,
    /// Told when there may be room, or pins have gone.
    #[pin]
    pub(super) room: CondVar,
    /// Told when entries have been composed or written.
    #[pin]
    pub(super) done: CondVar,
    #[pin]
    pub(super) writer: Job<Core>,
    #[pin]
    pub(super) reclaimer: Job<Core>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) config: Config,
    pub(super) since: Instant<Monotonic>,
}

impl Core {
    /// Milliseconds since the journal was made.
    pub(super) fn now(&self) -> u64 {
        self.since.elapsed().as_millis().max(0) as u64
    }

    /// Whom the journal serves; nobody after [`super::Journal::detach`].
    pub(super) fn client(&self) -> Option<Arc<dyn JournalClient>> {
        self.owners.lock().client.clone()
    }

    /// Asks the client anew how many words late records take. Sleeps.
    #[inline(never)]
    pub(super) fn ask_late(&self) {
        if let Some(client) = self.client() {
            self.late.store(client.late_u64s(), Relaxed);
        }
    }

    /// Words to be kept for late records.
    pub(super) fn late(&self) -> u32 {
        self.late.read()
    }

    /// The lowest watermark that gets something.
    pub(super) fn lowest(&self) -> u32 {
        self.watermark.read()
    }

    /// The room there is, not counting the open entry if `without_open`.
    pub(super) fn space(&self, i: &mut Inner, without_open: bool) -> Space {
        let mut pending = [0; SLOTS];
        let mut nr = 0;
        for seq in i.unwritten() {
            let skip = without_open && i.open && seq == i.cur;
            let entry = i.entry(seq);
            if entry.unplaced() && !skip {
                if let Some(at) = pending.get_mut(nr) {
                    *at = entry.sectors;
                    nr += 1;
                }
            }
        }
        let copies = self.config.copies.min(i.rings.len());
        Space::of(&i.rings, copies, pending.get(..nr).unwrap_or_default())
    }

    /// Works out anew what is free, after something of it has changed, and lets those know who wait.
    #[inline(never)]
    pub(super) fn update_space(&self, i: &mut Inner) {
        let (last_seq, ondisk) = (i.pins.front(), i.last_seq_ondisk);
        self.last_seq.store(last_seq, Relaxed);
        for ring in i.rings.iter_mut() {
            ring.advance(last_seq, ondisk);
        }
        i.space = self.space(i, false);
        // The open entry has been promised all it may need, which is a whole bucket often. That must not keep those out for whom it was
        // opened: they would wait, it would be written empty, and so on.
        let low = self.space(i, true).is_low() || i.pins.free() < i.pins.size() / 4;
        let watermark = match low || i.write_buffer_full {
            true => Watermark::Reclaim,
            false => Watermark::Stripe,
        };
        let old = self.watermark.xchg(watermark as u32, Relaxed);
        if watermark as u32 > old {
            self.reclaimer.kick();
        }
        self.room.notify_all();
    }

    /// Forgets old entries that nothing holds.
    pub(super) fn pop_pins(&self, i: &mut Inner) {
        if i.pins.pop(i.ondisk) {
            self.update_space(i);
        }
    }

    /// Entries that are done are taken note of, in order. Returns the newest durable one if that has changed; to be passed to
    /// [`Core::tell_flushed`] without the lock.
    #[must_use]
    pub(super) fn advance(&self, i: &mut Inner) -> Option<u64> {
        let mut flushed = None;
        let before = i.ondisk;
        while i.ondisk < i.cur {
            let seq = i.ondisk + 1;
            let entry = *i.entry(seq);
            if entry.phase != Phase::Done {
                break;
            }
            if entry.failed {
                i.err_seq = i.err_seq.min(seq);
            } else if entry.flush && seq < i.err_seq {
                i.flushed = seq;
                i.last_seq_ondisk = i.last_seq_ondisk.max(entry.last_seq);
                self.flushed_seq.store(seq, Release);
                flushed = Some(seq);
            }
            i.ondisk = seq;
            i.composed = i.composed.max(seq);
            *i.entry(seq) = Entry::FREE;
        }
        if i.ondisk != before {
            i.pins.pop(i.ondisk);
            self.update_space(i);
            self.done.notify_all();
            if i.open && i.ondisk + 1 == i.cur {
                let (cur, now) = (i.cur, self.now());
                let expires = i.entry(cur).expires;
                self.write_at(now, expires);
            }
        }
        flushed
    }

    /// Asks for the writer at the time `expires`.
    pub(super) fn write_at(&self, now: u64, expires: u64) {
        match expires.checked_sub(now).filter(|&ms| ms > 0) {
            None => self.writer.kick(),
            // It looks again if that is too early.
            Some(ms) => self.writer.after(u32::try_from(ms).unwrap_or(u32::MAX)),
        }
    }

    /// Lets those know who wait for entries to be durable. Without locks.
    pub(super) fn tell_flushed(&self, seq: Option<u64>) {
        let Some(seq) = seq else { return };
        if let Some(client) = self.client() {
            client.flushed(seq);
        }
        if self.inner.lock().rings.iter().any(|r| r.to_discard().is_some()) {
            self.reclaimer.kick();
        }
    }
}
