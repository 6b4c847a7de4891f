// SPDX-License-Identifier: GPL-2.0
//! Opening and closing entries.

use bcachefs_format::jset::{JSET_BYTES_MAX, JSET_HEADER_BYTES};
use kernel::sync::atomic::{Full, Relaxed, Release};

use super::{
    slot::{Entry, Phase},
    state::{Core, Inner},
    word::{Word, ENTRY_U64S_MAX, SLOTS},
};

/// Why an entry cannot be opened, or nothing be reserved.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Shut {
    /// For good.
    Failed,
    /// What there is is kept for those who make room.
    Low,
    /// There is no room on disk, or none for pins.
    Full,
    /// All staging buffers are in use.
    InFlight,
    /// It is more than a staging buffer holds.
    TooBig,
}

const HEADER_U64S: usize = JSET_HEADER_BYTES / 8;

/// Fewer words than this are not worth an entry.
const ROOM_MIN: u32 = 64;

impl Core {
    /// Sectors of an entry with `u64s` words of records.
    pub(super) fn sectors(&self, u64s: u32) -> u32 {
        let bytes = (HEADER_U64S + u64s as usize) * 8;
        // At most some megabytes.
        (bytes.next_multiple_of(self.config.block_bytes) >> 9) as u32
    }

    /// How many words of records the entry that is open, or would be opened, can have: those given out, and those added late.
    fn limit(&self, i: &mut Inner) -> Option<(u32, u32)> {
        let late = self.late();
        let sectors = self.space(i, true).discarded.next_entry;
        let bytes = (sectors as usize * 512).min(JSET_BYTES_MAX);
        let words = u32::try_from((bytes / 8).checked_sub(HEADER_U64S)?).ok()?;
        let limit = words.checked_sub(late)?.min(i.buf_u64s).min(ENTRY_U64S_MAX);
        (limit >= ROOM_MIN).then_some((limit, late))
    }

    /// Opens the next entry. None is open.
    pub(super) fn open(&self, i: &mut Inner) -> Result<(), Shut> {
        if i.failed.is_some() || i.stopped {
            return Err(Shut::Failed);
        }
        if i.cur - i.ondisk >= SLOTS as u64 {
            return Err(Shut::InFlight);
        }
        if i.pins.free() == 0 {
            return Err(Shut::Full);
        }
        let Some((limit, late)) = self.limit(i) else {
            return Err(Shut::Full);
        };
        let now = self.now();
        let since = if i.flushed == i.cur { now } else { i.last_flush };
        let seq = i.pins.push().ok_or(Shut::Full)?;
        let slot = (seq % SLOTS as u64) as usize;
        i.cur = seq;
        *i.entry(seq) = Entry {
            seq,
            phase: Phase::Open,
            late,
            sectors: self.sectors(limit + late),
            expires: since + u64::from(self.config.flush_delay),
            ..Entry::FREE
        };
        i.open = true;
        if let Some(slot) = self.slots.get(slot) {
            slot.begin(seq, limit);
        }
        self.cur_seq.store(seq, Release);
        self.change(|word| word.open(slot));
        self.update_space(i);
        if i.ondisk + 1 == seq {
            let expires = i.entry(seq).expires;
            self.write_at(now, expires.max(now + 1));
        }
        self.reclaimer.after(self.config.reclaim_delay);
        Ok(())
    }

    /// Gives the open entry more room, if there is more now. Returns how many words it can have.
    pub(super) fn widen(&self, i: &mut Inner) -> u32 {
        let seq = i.cur;
        let Some(slot) = self.slots.get((seq % SLOTS as u64) as usize).filter(|_| i.open) else {
            return 0;
        };
        if let Some((limit, late)) = self.limit(i).filter(|l| l.0 > slot.limit()) {
            let entry = i.entry(seq);
            entry.late = late;
            entry.sectors = self.sectors(limit + late);
            slot.begin(seq, limit);
            self.update_space(i);
        }
        slot.limit()
    }

    /// Changes the word. Returns what it was.
    fn change(&self, mut f: impl FnMut(Word) -> Word) -> Word {
        let mut old = self.word.load(Relaxed);
        loop {
            match self.word.cmpxchg(old, f(Word(old)).0, Full) {
                Ok(old) => return Word(old),
                Err(now) => old = now,
            }
        }
    }

    /// Closes the open entry, if there is one: nothing more goes into it. It is written as soon as all reservations have been given
    /// back.
    pub(super) fn close(&self, i: &mut Inner) {
        if !i.open {
            return;
        }
        let failed = i.failed.is_some();
        let word = self.change(|word| if failed { word.fail() } else { word.close() });
        self.closed(i, word);
    }

    /// The word says that nothing is open; before, it was `word`.
    ///
    /// What is oldest is settled now, before the next entry can be opened: pins may be moved from older entries to that one, and then
    /// would not be seen any more.
    fn closed(&self, i: &mut Inner, word: Word) {
        i.open = false;
        let (cur, last_seq) = (i.cur, i.pins.front());
        let entry = i.entry(cur);
        entry.phase = Phase::Closed;
        entry.used = word.offset().unwrap_or(0);
        entry.last_seq = last_seq;
        entry.sectors = self.sectors(entry.used + entry.late);
        self.update_space(i);
        let slot = (cur % SLOTS as u64) as usize;
        let before = Word(self.word.fetch_sub(Word::unit(slot), Full));
        if before.count(slot) == 1 {
            self.all_put(i, cur);
        }
    }

    /// No reservation is made any more. What is open is closed.
    pub(super) fn fail_word(&self, i: &mut Inner) {
        let word = self.change(Word::fail);
        if i.open {
            self.closed(i, word);
        }
    }

    /// A reference to buffer `slot` is given back. Any context but interrupts.
    #[inline]
    pub(super) fn put(&self, slot: usize, seq: u64) {
        let before = Word(self.word.fetch_sub(Word::unit(slot), Full));
        if before.count(slot) == 1 {
            let flushed = {
                let mut i = self.inner.lock();
                self.all_put(&mut i, seq);
                self.advance(&mut i)
            };
            self.tell_flushed(flushed);
        }
    }

    /// All reservations in entry `seq` have been given back.
    fn all_put(&self, i: &mut Inner, seq: u64) {
        i.pins.put(seq);
        let failed = i.failed.is_some();
        let entry = i.entry(seq);
        if entry.seq != seq || entry.phase != Phase::Closed {
            return;
        }
        if failed {
            entry.failed = true;
            entry.phase = Phase::Done;
        } else {
            entry.phase = Phase::Ready;
        }
        self.writer.kick();
    }
}
