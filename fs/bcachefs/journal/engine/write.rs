// SPDX-License-Identifier: GPL-2.0
//! Writing entries.
//!
//! The writer is a job: one at a time, it composes entries in their order, gives them places on disk, and submits them. Several may
//! be under way. A flush entry waits until all before it are on disk, then has the caches of all devices flushed, and is
//! written past the cache: what it refers to may be anywhere.

use kernel::sync::{atomic::Relaxed, Arc};
use kfs::block::WriteFlags;

use super::{
    disk::Ticket,
    place::place,
    slot::{Entry, Phase},
    state::{Core, Inner},
};
use crate::{
    fs_err, fs_warn,
    util::error::{Error, Result},
};

/// The devices in a mask.
fn members(mask: u64, devices: &mut [u8; 64]) -> &[u8] {
    let mut nr = 0;
    for device in 0..64 {
        if mask >> device & 1 != 0 {
            if let Some(at) = devices.get_mut(nr) {
                *at = device;
                nr += 1;
            }
        }
    }
    devices.get(..nr).unwrap_or_default()
}

impl Core {
    /// The writer.
    pub(super) fn write(core: &Arc<Core>) {
        loop {
            core.report_failure();
            core.grow_if_wanted();
            core.close_if_due();
            let submitted = core.submit_next();
            let composed = core.compose_next();
            if !submitted && !composed {
                break;
            }
        }
        core.report_failure();
    }

    fn report_failure(&self) {
        let error = {
            let mut i = self.inner.lock();
            let tell = core::mem::take(&mut i.tell);
            i.failed.filter(|_| tell)
        };
        if let Some(error) = error {
            fs_err!(self.config.uuid, "the journal has failed: {error}");
            if let Some(client) = self.client() {
                client.failed(error);
            }
        }
    }

    #[inline(never)]
    fn grow_if_wanted(&self) {
        let wanted = {
            let mut i = self.inner.lock();
            let want = i.want_u64s;
            i.want_u64s = 0;
            (want > i.buf_u64s).then_some(want)
        };
        // It goes on as it is if there is no memory or no point.
        if let Some(want) = wanted {
            let _ = self.grow(want);
        }
    }

    /// Closes the open entry if it is time, and it is the only one that is not on disk: otherwise it goes on collecting
    /// until those are.
    #[inline(never)]
    fn close_if_due(&self) {
        let now = self.now();
        let flushed = {
            let mut i = self.inner.lock();
            if i.open && i.ondisk + 1 == i.cur {
                let cur = i.cur;
                let expires = i.entry(cur).expires;
                if expires <= now {
                    self.close(&mut i);
                } else {
                    self.write_at(now, expires);
                }
            }
            self.advance(&mut i)
        };
        self.tell_flushed(flushed);
    }

    /// Whether entry `entry` has to be written as a flush entry.
    fn must_be_flush(&self, i: &Inner, entry: &Entry, now: u64) -> bool {
        if i.need_flush {
            return true;
        }
        if entry.no_flush {
            return false;
        }
        let recent = now.saturating_sub(i.last_flush) < u64::from(self.config.flush_delay);
        entry.must_flush || !recent || !i.space.may_skip_flush()
    }

    /// Composes the next entry and finds places for it. Whether there was one.
    #[inline(never)]
    fn compose_next(&self) -> bool {
        let entry = {
            let mut i = self.inner.lock();
            let seq = i.composed + 1;
            if seq > i.cur || i.failed.is_some() || i.entry(seq).phase != Phase::Ready {
                return false;
            }
            let now = self.now();
            let entry = *i.entry(seq);
            let flush = self.must_be_flush(&i, &entry, now);
            if flush {
                i.need_flush = false;
                i.last_flush = now;
            }
            let entry = i.entry(seq);
            entry.flush = flush;
            entry.phase = Phase::Composing;
            *entry
        };
        match self.compose_and_place(&entry) {
            Ok(()) => true,
            Err(error) => {
                self.give_up(entry.seq, error);
                true
            }
        }
    }

    #[inline(never)]
    fn compose_and_place(&self, entry: &Entry) -> Result {
        let (bytes, keys) = self.compose(entry)?;
        let sectors = (bytes >> 9) as u32;
        let (want, need) = (self.config.copies, self.config.copies_required);
        let spots = loop {
            {
                let mut i = self.inner.lock();
                if i.failed.is_some() {
                    return Err(Error::JournalFailed);
                }
                if let Some(spots) = place(&mut i.rings, entry.seq, sectors, want, need) {
                    break spots;
                }
            }
            if !self.discard() {
                fs_err!(
                    self.config.uuid,
                    "no room for journal entry {} of {sectors} sectors",
                    entry.seq
                );
                return Err(Error::JournalStuck);
            }
        };
        let devices = Entry { spots, ..Entry::FREE }.devices();
        let client = self.client().ok_or(Error::JournalFailed)?;
        client.mark_replicas(members(devices, &mut [0; 64]))?;
        let mut i = self.inner.lock();
        let entry = i.entry(entry.seq);
        entry.spots = spots;
        entry.bytes = bytes;
        entry.phase = Phase::Placed;
        let (seq, empty) = (entry.seq, entry.flush && !keys);
        i.composed = seq;
        if empty {
            i.last_empty = seq;
        }
        self.update_space(&mut i);
        self.done.notify_all();
        Ok(())
    }

    /// Entry `seq`, which was being composed, will not be written, and neither will anything after it.
    #[inline(never)]
    fn give_up(&self, seq: u64, error: Error) {
        self.halt(error);
        let flushed = {
            let mut i = self.inner.lock();
            let entry = i.entry(seq);
            entry.failed = true;
            entry.phase = Phase::Done;
            self.advance(&mut i)
        };
        self.tell_flushed(flushed);
        self.forget(seq);
    }

    /// Submits the first entry that can be. Whether there was one.
    #[inline(never)]
    fn submit_next(self: &Arc<Self>) -> bool {
        let caches = self.disk.caches();
        let (entry, flags) = {
            let mut i = self.inner.lock();
            let mut next = None;
            for seq in i.unwritten() {
                let first = seq == i.ondisk + 1;
                let entry = i.entry(seq);
                if entry.phase == Phase::Placed && (!entry.flush || first) {
                    next = Some(seq);
                    break;
                }
            }
            let Some(seq) = next.filter(|_| i.failed.is_none()) else {
                return false;
            };
            let entry = i.entry(seq);
            let devices = entry.devices();
            // One device flushes itself.
            let alone = caches == 0 || caches & !devices == 0 && devices.count_ones() == 1;
            let flags = if entry.flush && !entry.flushed && !alone {
                entry.phase = Phase::Flushing;
                entry.pending = caches.count_ones();
                None
            } else {
                entry.phase = Phase::Writing;
                entry.pending = entry.spots.iter().flatten().count() as u32;
                Some(match (entry.flush, entry.flushed) {
                    (false, _) => WriteFlags::NONE,
                    (true, true) => WriteFlags::FUA,
                    (true, false) => WriteFlags::PREFLUSH | WriteFlags::FUA,
                })
            };
            (*entry, flags)
        };
        match flags {
            None => self.submit_flushes(&entry, caches),
            Some(flags) => self.submit(&entry, flags),
        }
        true
    }

    fn ticket(self: &Arc<Self>, seq: u64, device: u8) -> Ticket {
        Ticket { core: self.clone(), seq, device }
    }

    fn submit_flushes(self: &Arc<Self>, entry: &Entry, caches: u64) {
        for &device in members(caches, &mut [0; 64]) {
            self.disk.flush(device, self.ticket(entry.seq, device));
        }
    }

    #[inline(never)]
    fn submit(self: &Arc<Self>, entry: &Entry, flags: WriteFlags) {
        let mut left = entry.spots.iter().flatten().count();
        for spot in entry.spots.iter().flatten() {
            left -= 1;
            match self.copy(entry.seq, entry.bytes, left == 0) {
                Ok(buf) => {
                    let ticket = self.ticket(entry.seq, spot.device);
                    self.disk.write(*spot, buf, entry.bytes, flags, ticket);
                }
                Err(e) => {
                    fs_warn!(
                        self.config.uuid,
                        "no copy of journal entry {} on device {}: {e}",
                        entry.seq,
                        spot.device
                    );
                    self.wrote(entry.seq, spot.device, false);
                }
            }
        }
    }

    /// The cache of a device has been flushed for entry `seq`, or that has failed.
    pub(super) fn flushed_cache(&self, seq: u64, device: u8, ok: bool) {
        if !ok {
            fs_err!(
                self.config.uuid,
                "device {device} did not flush its cache: what was written to it may be lost"
            );
            self.halt(Error::JournalWrite);
        }
        let flushed = {
            let mut i = self.inner.lock();
            let failed = i.failed.is_some();
            let entry = i.entry(seq);
            entry.pending = entry.pending.saturating_sub(1);
            if entry.pending == 0 && entry.phase == Phase::Flushing {
                entry.flushed = true;
                entry.failed = failed;
                entry.phase = if failed { Phase::Done } else { Phase::Placed };
            }
            self.advance(&mut i)
        };
        self.tell_flushed(flushed);
        self.writer.kick();
    }

    /// Entry `seq` has been written to a device, or that has failed.
    pub(super) fn wrote(&self, seq: u64, device: u8, ok: bool) {
        let (good, chosen) = {
            let mut i = self.inner.lock();
            let entry = i.entry(seq);
            entry.good |= u64::from(ok) << (device & 63);
            entry.pending = entry.pending.saturating_sub(1);
            if entry.pending != 0 {
                return;
            }
            (entry.good, entry.devices())
        };
        let recorded = if good == 0 {
            fs_err!(self.config.uuid, "journal entry {seq} could not be written anywhere");
            false
        } else {
            // Where it is, is to be found in the superblock.
            good == chosen || self.mark(good)
        };
        if !recorded {
            self.halt(Error::JournalWrite);
        }
        let flushed = {
            let mut i = self.inner.lock();
            let entry = i.entry(seq);
            entry.failed = !recorded;
            entry.phase = Phase::Done;
            self.advance(&mut i)
        };
        self.tell_flushed(flushed);
        self.writer.kick();
    }

    fn mark(&self, devices: u64) -> bool {
        let marked = match self.client() {
            Some(client) => client.mark_replicas(members(devices, &mut [0; 64])),
            None => Err(Error::JournalFailed),
        };
        marked.is_ok()
    }

    /// See [`Journal::halt`](super::Journal::halt).
    pub(super) fn halt(&self, error: Error) {
        let flushed = {
            let mut i = self.inner.lock();
            if i.failed.is_some() {
                return;
            }
            i.failed = Some(error);
            i.tell = true;
            i.err_seq = i.err_seq.min(i.cur + 1);
            self.fail_word(&mut i);
            for seq in i.unwritten() {
                let entry = i.entry(seq);
                if matches!(entry.phase, Phase::Ready | Phase::Placed) {
                    entry.failed = true;
                    entry.phase = Phase::Done;
                }
            }
            self.room.notify_all();
            self.done.notify_all();
            self.advance(&mut i)
        };
        self.tell_flushed(flushed);
        self.writer.kick();
    }

    /// Whether it has failed. Any context.
    pub(super) fn has_failed(&self) -> bool {
        super::word::Word(self.word.load(Relaxed)).is_failed()
    }
}
