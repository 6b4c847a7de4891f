// SPDX-License-Identifier: GPL-2.0
//! Making entries durable.

use super::{
    reserve::Blocked,
    slot::Phase,
    state::{Core, Inner},
    word::Word,
};
use crate::util::{
    error::{Error, Result},
    watermark::Watermark,
};
use kernel::sync::atomic::Acquire;

/// What has to be done for an entry to become durable.
enum Need {
    /// Nothing, it is.
    Nothing,
    /// To wait for an entry that will be a flush entry.
    Wait,
    /// To begin an entry.
    Begin,
}

impl Core {
    /// Asks for a flush entry at or after `seq`.
    fn ask(&self, i: &mut Inner, seq: u64) -> Result<Need> {
        if seq <= i.flushed {
            return Ok(Need::Nothing);
        }
        if i.failed.is_some() {
            return Err(Error::JournalFailed);
        }
        let first = seq.max(i.ondisk + 1);
        for seq in first..=i.cur {
            let need_flush = i.need_flush;
            let entry = i.entry(seq);
            let decided = !matches!(entry.phase, Phase::Open | Phase::Closed | Phase::Ready);
            let can = match decided {
                true => entry.flush,
                false => !entry.no_flush || need_flush,
            };
            if !can {
                continue;
            }
            entry.must_flush = true;
            if entry.phase == Phase::Open {
                entry.expires = 0;
                if i.ondisk + 1 == seq {
                    self.close(i);
                }
            }
            return Ok(Need::Wait);
        }
        Ok(Need::Begin)
    }

    /// See [`Journal::flush`](super::Journal::flush).
    pub(super) fn flush(&self, seq: u64) -> Result {
        loop {
            let begin = {
                let mut i = self.inner.lock();
                let seq = seq.min(i.cur);
                match self.ask(&mut i, seq)? {
                    Need::Nothing => return Ok(()),
                    Need::Wait => {
                        self.done.wait(&mut i);
                        false
                    }
                    Need::Begin => true,
                }
            };
            if begin {
                self.begin()?;
            }
        }
    }

    /// See [`Journal::flush_async`](super::Journal::flush_async).
    pub(super) fn flush_async(&self, seq: u64) {
        // Asking may close an entry and so end one that waits to be closed; once more to see to it.
        for _ in 0..2 {
            let need = {
                let mut i = self.inner.lock();
                let seq = seq.min(i.cur);
                self.ask(&mut i, seq)
            };
            match need {
                Ok(Need::Begin) => {
                    // If there is no room just now, a flush is due anyway.
                    if self.reserve(1, Watermark::Reclaim).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Begins an entry that has nothing in it. Sleeps until that is possible.
    fn begin(&self) -> Result {
        loop {
            match self.reserve(1, Watermark::InteriorUpdates) {
                Ok(reservation) => {
                    drop(reservation);
                    return Ok(());
                }
                Err(Blocked::Failed) => return Err(Error::JournalFailed),
                Err(Blocked::Full) => {
                    self.wait(1, Watermark::InteriorUpdates, false)?;
                }
            }
        }
    }

    /// See [`Journal::meta`](super::Journal::meta).
    pub(super) fn meta(&self) -> Result {
        loop {
            match self.reserve(1, Watermark::InteriorUpdates) {
                Ok(reservation) => {
                    let seq = reservation.seq();
                    drop(reservation);
                    return self.flush(seq);
                }
                Err(Blocked::Failed) => return Err(Error::JournalFailed),
                Err(Blocked::Full) => {
                    self.wait(1, Watermark::InteriorUpdates, false)?;
                }
            }
        }
    }

    /// See [`Journal::noflush_promise`](super::Journal::noflush_promise).
    pub(super) fn noflush_promise(&self, from: u64, to: u64) -> bool {
        let mut i = self.inner.lock();
        if i.need_flush || i.failed.is_some() || from <= i.flushed || from >= to {
            return false;
        }
        // Those on disk are not flush entries, as none from `from` on is durable.
        let first = from.max(i.ondisk + 1);
        let end = to.min(i.cur + 1);
        for seq in first..end {
            let entry = i.entry(seq);
            let decided = !matches!(entry.phase, Phase::Open | Phase::Closed | Phase::Ready);
            if entry.must_flush || (decided && entry.flush) {
                return false;
            }
        }
        for seq in first..end {
            i.entry(seq).no_flush = true;
        }
        // Entries that have not begun cannot be promised.
        to <= i.cur + 1
    }

    /// See [`Journal::hand_over`](super::Journal::hand_over).
    pub(super) fn hand_over(&self, seq: u64) -> Result {
        let mut i = self.inner.lock();
        let seq = seq.min(i.cur);
        while i.composed < seq {
            if i.failed.is_some() {
                return Err(Error::JournalFailed);
            }
            if i.open && i.cur <= seq {
                if Word(self.word.load(Acquire)).offset() == Some(0) {
                    // There is nothing in it, and all before it have been closed.
                    if i.composed + 1 == i.cur {
                        return Ok(());
                    }
                    self.done.wait(&mut i);
                    continue;
                }
                self.close(&mut i);
            } else {
                self.done.wait(&mut i);
            }
        }
        Ok(())
    }
}
