// SPDX-License-Identifier: GPL-2.0
//! Making room: writing out what holds the oldest entries.

use kernel::sync::Arc;
use kfs::mem::NoReclaimScope;

use super::{
    pins::{Pin, PinKind},
    state::{Core, Reclaim},
    PinFlush, PinFlusher,
};
use crate::{
    fs_err, fs_warn,
    util::{
        error::{Error, Result},
        watermark::Watermark,
    },
};

/// Pins flushed at a time because there are too many.
const EXCESS_MAX: u32 = 128;

/// A full journal without progress is reported after this time.
const REPORT_MS: u64 = 10_000;

impl Core {
    /// The reclaimer.
    pub(super) fn reclaim(core: &Arc<Core>) {
        // Memory reclaim may be waiting for what is done here.
        let _scope = NoReclaimScope::enter();
        let mut r = core.reclaim.lock();
        loop {
            core.discard();
            let (target, least) = core.target(&r);
            let flushed = core.flush_pass(&mut r, target, least, &PinKind::ALL);
            let flushed = flushed + core.flush_excess(&mut r);
            core.flush_to_free();
            let low = core.lowest() > Watermark::Stripe as u32;
            if flushed == 0 || !low || core.has_failed() {
                break;
            }
        }
        core.watch(&mut r);
        drop(r);
        let (idle, blocked) = {
            let i = core.inner.lock();
            // Those who could not be flushed are tried again.
            core.room.notify_all();
            (i.failed.is_some() || i.pins.is_empty() && i.blocked == 0, i.blocked > 0)
        };
        if !idle {
            let delay = core.config.reclaim_delay;
            // What was started may have ended soon.
            core.reclaimer.after(if blocked { (delay / 10).max(1) } else { delay });
        }
    }

    /// Up to which entry pins are to be flushed, and how many at least.
    fn target(&self, r: &Reclaim) -> (u64, u32) {
        let low = self.lowest() > Watermark::Stripe as u32;
        let i = self.inner.lock();
        let half = i.rings.iter().map(|ring| ring.half_seq()).max().unwrap_or(0);
        let fifo = i.cur.saturating_sub(i.pins.size() / 2);
        let idle = self.now().saturating_sub(r.last_pin) > u64::from(self.config.reclaim_delay);
        // Bounds of what is in a bucket can be above what there is.
        (half.max(fifo).min(i.cur), u32::from(low || idle))
    }

    /// Flushes the pins of `kinds` at entries up to `target`, and `least` in any case. Returns how many.
    #[inline(never)]
    fn flush_pass(&self, r: &mut Reclaim, target: u64, least: u32, kinds: &[PinKind]) -> u32 {
        r.pass += 1;
        let mut flushed = 0;
        let mut from = 0;
        loop {
            let to = if flushed < least { u64::MAX } else { target };
            let (seq, pin) = {
                let mut i = self.inner.lock();
                if i.failed.is_some() {
                    break;
                }
                let Some((seq, pin)) = i.pins.next(from, to, r.pass, kinds) else {
                    break;
                };
                i.flushing = Some(pin.clone());
                i.flushing_changed = false;
                (seq, pin)
            };
            from = seq;
            let result = self.flush_pin(&pin, seq);
            {
                let mut i = self.inner.lock();
                i.flushing = None;
                if result == PinFlush::Done && !i.flushing_changed {
                    i.pins.started(&pin, seq);
                }
                self.room.notify_all();
            }
            match result {
                PinFlush::Done => {
                    flushed += 1;
                    r.flushed += 1;
                    r.last_pin = self.now();
                }
                PinFlush::Busy => {}
                PinFlush::Stop => break,
            }
        }
        flushed
    }

    /// Flushes pins of which there are too many, wherever they are. Returns how many.
    fn flush_excess(&self, r: &mut Reclaim) -> u32 {
        let kind = PinKind::KeyCache;
        let excess = self.flusher(kind).map_or(0, |flusher| flusher.excess());
        match excess.min(EXCESS_MAX) {
            0 => 0,
            n => self.flush_pass(r, 0, n, &[kind]),
        }
    }

    /// Has the reclaimer look.
    pub(super) fn kick_reclaim(&self) {
        self.reclaimer.kick();
    }

    fn flusher(&self, kind: PinKind) -> Option<Arc<dyn PinFlusher>> {
        let owners = self.owners.lock();
        owners.flushers.get(kind as usize).cloned().flatten()
    }

    fn flush_pin(&self, pin: &Pin, seq: u64) -> PinFlush {
        match self.flusher(pin.kind) {
            Some(flusher) => flusher.flush(pin.cookie, seq),
            None => PinFlush::Stop,
        }
    }

    /// If only a flush entry is missing for buckets to be free, and room is short, has one written.
    #[inline(never)]
    fn flush_to_free(&self) {
        let wanted = {
            let i = self.inner.lock();
            let frees = i.rings.iter().any(|ring| ring.wants_flush());
            frees && !i.space.may_skip_flush() && i.ondisk == i.cur && i.failed.is_none()
        };
        if !wanted {
            return;
        }
        if let Ok(reservation) = self.reserve(1, Watermark::Reclaim) {
            let seq = reservation.seq();
            drop(reservation);
            self.flush_async(seq);
        }
    }

    /// See to it that nobody waits for ever.
    #[inline(never)]
    fn watch(&self, r: &mut Reclaim) {
        let now = self.now();
        let (blocked, progress, in_flight) = {
            let i = self.inner.lock();
            let progress = (i.pins.front(), i.ondisk, i.discards);
            (i.blocked > 0, progress, i.ondisk != i.cur && !i.open)
        };
        if !blocked || r.progress != progress {
            r.progress = progress;
            r.progress_at = now;
            r.reported = false;
            return;
        }
        let waited = now.saturating_sub(r.progress_at);
        if waited >= self.config.stuck_ms && !in_flight {
            self.report_stuck();
            self.halt(Error::JournalStuck);
        } else if waited >= REPORT_MS && !r.reported {
            r.reported = true;
            self.report_full(waited / 1000);
        }
    }

    #[cold]
    #[inline(never)]
    fn report_stuck(&self) {
        fs_err!(self.config.uuid, "the journal is stuck: {}", self.show());
    }

    #[cold]
    #[inline(never)]
    fn report_full(&self, seconds: u64) {
        let uuid = self.config.uuid;
        fs_warn!(uuid, "no room in the journal for {seconds} s: {}", self.show());
    }

    /// See [`Journal::flush_pins`](super::Journal::flush_pins).
    pub(super) fn flush_pins(&self, seq: u64) -> Result<bool> {
        let mut any = false;
        loop {
            let flushed = {
                let _scope = NoReclaimScope::enter();
                let mut r = self.reclaim.lock();
                // What makes pins of nodes comes before nodes.
                let others = [PinKind::KeyCache, PinKind::Other];
                let n = self.flush_pass(&mut r, seq, 0, &others);
                n + self.flush_pass(&mut r, seq, 0, &[PinKind::Btree])
            };
            any |= flushed != 0;
            let mut i = self.inner.lock();
            if i.failed.is_some() {
                return Err(Error::JournalFailed);
            }
            // The entry itself may be what is left.
            if i.open && i.cur <= seq && i.pins.front() == i.cur {
                self.close(&mut i);
            }
            if i.pins.front() > seq || i.pins.is_empty() || i.pins.replay_holds(seq) {
                return Ok(any);
            }
            if flushed == 0 {
                any = true;
                self.room.wait(&mut i);
            }
        }
    }

    /// `pin` is changed while it may be being flushed. Under the lock.
    pub(super) fn pin_changes(i: &mut super::state::Inner, pin: &Arc<Pin>) {
        if i.flushing.as_ref().is_some_and(|p| Arc::ptr_eq(p, pin)) {
            i.flushing_changed = true;
        }
    }

    /// See [`Journal::pin_quiesce`](super::Journal::pin_quiesce).
    pub(super) fn pin_quiesce(&self, pin: &Arc<Pin>) {
        let mut i = self.inner.lock();
        while i.flushing.as_ref().is_some_and(|p| Arc::ptr_eq(p, pin)) {
            self.room.wait(&mut i);
        }
    }
}
