// SPDX-License-Identifier: GPL-2.0
//! What keeps entries in the journal.
//!
//! A ring of counts, one for every entry from the oldest that is needed to the newest. The entry itself counts until
//! all its reservations have been given back, replay until it has replayed it, and so does every [`Pin`]. Pins stand in lists, so
//! that those of the oldest entries can be found and written out.

use kernel::{
    alloc::Flags,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};
use kfs::{
    list::{Linked, Links, Lists},
    sync::InlineAtomic,
};

use crate::util::error::{Error, Result};

/// Whose pins: they are written in this order when the oldest entries are to be freed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum PinKind {
    /// Nodes of btrees.
    Btree,
    /// Keys in the key cache.
    KeyCache,
    /// Everything else.
    Other,
}

impl PinKind {
    /// All, in the order in which they are written out.
    pub const ALL: [PinKind; 3] = [PinKind::Btree, PinKind::KeyCache, PinKind::Other];
}

/// Something that keeps an entry, and those after it, in the journal.
///
/// The journal refers to it while it holds an entry. Whoever it belongs to lets go ([`Journal::unpin`](super::Journal::unpin)) before
/// it goes away itself.
pub struct Pin {
    /// Whose.
    pub kind: PinKind,
    /// Which, to its [`PinFlusher`](super::PinFlusher).
    pub cookie: u64,
    /// The entry it holds, or 0.
    seq: Atomic<u64>,
    /// The pass in which writing it out was tried last.
    tried: Atomic<u64>,
    links: Links<Pin>,
}

impl Linked for Pin {
    fn links(&self) -> &Links<Self> {
        &self.links
    }
}

impl Pin {
    /// A pin that holds nothing yet. Allocates with `flags`.
    #[inline(never)]
    pub fn new(kind: PinKind, cookie: u64, flags: Flags) -> Result<Arc<Self>> {
        let pin = Pin {
            kind,
            cookie,
            seq: Atomic::new(0),
            tried: Atomic::new(0),
            links: Links::new(),
        };
        Ok(Arc::new(pin, flags)?)
    }

    /// The entry it holds; `None` if it holds none. Any context.
    #[inline]
    pub fn seq(&self) -> Option<u64> {
        match self.seq.read() {
            0 => None,
            seq => Some(seq),
        }
    }
}

/// Lists per entry: one for each kind, and one for those that are being written out.
const LISTS: usize = 4;
const STARTED: usize = 3;

/// Entries that can be in the journal at once.
pub(super) const PINS_MIN: u64 = 32768;

/// Most entries that recovery can leave in the journal.
const REPLAY_MAX: u64 = 1 << 22;

/// The entries that are needed. Under the journal's lock; nothing here sleeps.
///
/// # Invariants
///
/// `front <= back`, and no more entries lie between them than there are counts. A pin with `seq` not 0 is in
/// one of the lists of that entry, which is one of those, and is counted.
pub(super) struct Pins {
    /// The oldest entry that is needed; `back` if none is.
    front: u64,
    /// The next entry.
    back: u64,
    /// Replay holds the entries from here to `replay_end`.
    replay_from: u64,
    replay_end: u64,
    counts: KVVec<u32>,
    lists: Lists<Pin>,
    /// Pins that hold something.
    held: usize,
}

impl Pins {
    /// Entries `first..next`, each held by replay. May sleep.
    pub(super) fn new(first: u64, next: u64) -> Result<Self> {
        let replay = next.checked_sub(first).filter(|&n| n <= REPLAY_MAX);
        let replay = replay.ok_or(Error::JournalTooBig)?;
        let size = PINS_MIN.max(replay.saturating_mul(2)).next_power_of_two() as usize;
        let mut counts = KVVec::with_capacity(size, GFP_KERNEL)?;
        counts.resize(size, 0, GFP_KERNEL)?;
        let mut pins = Pins {
            front: first,
            back: next,
            replay_from: first,
            replay_end: next,
            counts,
            lists: Lists::new(size * LISTS)?,
            held: 0,
        };
        for seq in first..next {
            pins.count(seq, 1);
        }
        Ok(pins)
    }

    /// The oldest entry that is needed; the next one if none is.
    pub(super) fn front(&self) -> u64 {
        self.front
    }

    /// Whether nothing is needed.
    pub(super) fn is_empty(&self) -> bool {
        self.front == self.back
    }

    /// How many more entries there can be.
    pub(super) fn free(&self) -> u64 {
        self.size() - (self.back - self.front)
    }

    /// Entries that there can be at once.
    pub(super) fn size(&self) -> u64 {
        self.counts.len() as u64
    }

    /// Pins that hold something.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Whether replay still holds entry `seq` or an older one.
    pub(super) fn replay_holds(&self, seq: u64) -> bool {
        self.replay_from < self.replay_end && self.replay_from <= seq
    }

    fn contains(&self, seq: u64) -> bool {
        self.front <= seq && seq < self.back
    }

    fn slot(&self, seq: u64) -> usize {
        (seq & (self.size() - 1)) as usize
    }

    fn count(&mut self, seq: u64, by: i32) {
        let slot = self.slot(seq);
        if let Some(count) = self.counts.get_mut(slot) {
            *count = count.saturating_add_signed(by);
        }
    }

    fn list(&self, seq: u64, which: usize) -> usize {
        self.slot(seq) * LISTS + which
    }

    /// The next entry begins, and holds itself. `None` if there is no room.
    pub(super) fn push(&mut self) -> Option<u64> {
        if self.free() == 0 {
            return None;
        }
        let seq = self.back;
        self.back += 1;
        self.count(seq, 1);
        Some(seq)
    }

    /// Entry `seq` does not hold itself any more.
    pub(super) fn put(&mut self, seq: u64) {
        if self.contains(seq) {
            self.count(seq, -1);
        }
    }

    /// Forgets the oldest entries that nothing holds, up to `ondisk`, the newest that is on disk. Returns whether there
    /// were any.
    pub(super) fn pop(&mut self, ondisk: u64) -> bool {
        let old = self.front;
        while self.front < self.back && self.front <= ondisk {
            let slot = self.slot(self.front);
            if self.counts.get(slot).copied() != Some(0) {
                break;
            }
            self.front += 1;
        }
        self.front != old
    }

    /// Replay has no need of entries before `seq` any more. Lets go of at most `limit` of them; whether that was all.
    pub(super) fn replayed(&mut self, seq: u64, limit: u64) -> bool {
        let end = seq.min(self.replay_end);
        let now = end.min(self.replay_from.saturating_add(limit));
        while self.replay_from < now {
            self.count(self.replay_from, -1);
            self.replay_from += 1;
        }
        self.replay_from >= end
    }

    /// Makes `pin` hold `seq` and nothing else. An entry that is not needed any more cannot be held: then it holds the
    /// oldest one there is.
    pub(super) fn hold(&mut self, pin: &Arc<Pin>, seq: u64) {
        let seq = seq.max(self.front);
        if seq >= self.back {
            return;
        }
        self.release(pin);
        let list = self.list(seq, pin.kind as usize);
        if self.lists.push_back(list, pin.clone()).is_ok() {
            pin.seq.store(seq, Relaxed);
            self.count(seq, 1);
            self.held += 1;
        }
    }

    /// Makes `pin` hold nothing. Returns the entry it held.
    pub(super) fn release(&mut self, pin: &Pin) -> Option<u64> {
        let seq = pin.seq()?;
        let item = self.lists.remove(pin)?;
        pin.seq.store(0, Relaxed);
        self.count(seq, -1);
        self.held = self.held.saturating_sub(1);
        drop(item);
        Some(seq)
    }

    /// The next pin to be written out in pass `pass`, of an entry from `from` to `to`: of the oldest entry, and there in the order of
    /// kinds. Those tried in this pass are passed over. Restricted to `kinds`.
    pub(super) fn next(
        &self,
        from: u64,
        to: u64,
        pass: u64,
        kinds: &[PinKind],
    ) -> Option<(u64, Arc<Pin>)> {
        let end = self.back.min(to.saturating_add(1));
        for seq in from.max(self.front)..end {
            for kind in kinds {
                let list = self.list(seq, *kind as usize);
                let found = self.lists.find(list, |pin| pin.tried.load(Relaxed) != pass);
                if let Some(pin) = found {
                    pin.tried.store(pass, Relaxed);
                    return Some((seq, pin));
                }
            }
        }
        None
    }

    /// Writing out `pin`, which held `seq`, has been started: it is not to be asked again.
    pub(super) fn started(&mut self, pin: &Pin, seq: u64) {
        if pin.seq() != Some(seq) {
            return;
        }
        if let Some(item) = self.lists.remove(pin) {
            let list = self.list(seq, STARTED);
            if self.lists.push_back(list, item).is_err() {
                // Cannot be: it was in no list. Then it holds nothing.
                pin.seq.store(0, Relaxed);
                self.count(seq, -1);
            }
        }
    }
}

#[cfg(bcachefs_kunit)]
#[kernel::macros::kunit_tests(bcachefs_journal_pins)]
mod tests {
    use super::*;

    fn errno(e: Error) -> kernel::error::Error {
        e.errno()
    }

    #[test]
    fn entries_stay_while_they_are_held() -> kernel::error::Result {
        let mut p = Pins::new(10, 12).map_err(errno)?;
        assert!(p.replay_holds(10) && !p.pop(11));
        assert_eq!((p.push(), p.push()), (Some(12), Some(13)));
        let a = Pin::new(PinKind::Btree, 1, GFP_KERNEL).map_err(errno)?;
        let b = Pin::new(PinKind::Other, 2, GFP_KERNEL).map_err(errno)?;
        p.hold(&a, 11);
        p.hold(&b, 13);
        assert_eq!((a.seq(), b.seq(), p.held()), (Some(11), Some(13), 2));
        assert!(p.replayed(11, 100));
        assert!(p.pop(11));
        assert_eq!(p.front(), 11);
        assert!(!p.replayed(99, 0) && p.replayed(99, 1));
        assert!(!p.replay_holds(11) && !p.pop(11));
        p.put(12);
        p.put(13);
        // What is gone cannot be held: the oldest is.
        p.hold(&b, 3);
        assert_eq!(b.seq(), Some(11));
        assert_eq!(p.release(&a), Some(11));
        assert_eq!(p.release(&a), None);
        assert!(!p.pop(20));
        p.hold(&b, 13);
        assert!(p.pop(11) && !p.pop(11));
        assert!(p.pop(13));
        assert_eq!((p.front(), p.is_empty()), (13, false));
        assert!(p.release(&b).is_some() && p.pop(13) && p.is_empty());
        // Nothing to hold.
        p.hold(&b, 14);
        assert_eq!(b.seq(), None);
        Ok(())
    }

    #[test]
    fn the_oldest_come_first() -> kernel::error::Result {
        let mut p = Pins::new(1, 1).map_err(errno)?;
        for _ in 0..3 {
            p.push();
        }
        let kinds = [PinKind::Other, PinKind::KeyCache, PinKind::Btree];
        let mut all = KVec::new();
        for (i, kind) in kinds.iter().enumerate() {
            let pin = Pin::new(*kind, i as u64, GFP_KERNEL).map_err(errno)?;
            p.hold(&pin, 2);
            all.push(pin, GFP_KERNEL)?;
        }
        let late = Pin::new(PinKind::Btree, 9, GFP_KERNEL).map_err(errno)?;
        p.hold(&late, 3);
        let mut order = 0;
        while let Some((seq, pin)) = p.next(0, 3, 1, &PinKind::ALL) {
            order = order * 100 + seq * 10 + pin.cookie;
            if pin.cookie == 1 {
                p.started(&pin, seq);
            }
        }
        assert_eq!(order, 22_212_039);
        // In the next pass the one that was started is left alone.
        let mut order = 0;
        while let Some((seq, pin)) = p.next(0, 2, 2, &PinKind::ALL) {
            order = order * 100 + seq * 10 + pin.cookie;
        }
        assert_eq!(order, 2220);
        // Unless it holds something anew.
        if let Some(pin) = all.get(1) {
            p.hold(pin, 3);
            assert!(p.next(3, 3, 3, &[PinKind::KeyCache]).is_some());
        }
        assert!(p.next(0, 9, 4, &[PinKind::KeyCache]).is_some());
        assert!(p.next(0, 9, 4, &[PinKind::KeyCache]).is_none());
        Ok(())
    }

    #[test]
    fn there_is_an_end() -> kernel::error::Result {
        let mut p = Pins::new(1, 1).map_err(errno)?;
        for _ in 0..PINS_MIN {
            assert!(p.push().is_some());
        }
        assert!(p.push().is_none());
        assert!(Pins::new(1, 2 + REPLAY_MAX).is_err());
        Ok(())
    }
}
