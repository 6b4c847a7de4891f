// SPDX-License-Identifier: GPL-2.0
//! Room in an entry.

use bcachefs_format::{
    jset::{EntryType, RawEntry, JSET_BYTES_MAX},
    BtreeId, KeyRef,
};
use kernel::{
    alloc::flags::__GFP_NOWARN,
    prelude::*,
    sync::atomic::Full,
};
use kfs::{mem::NofsScope, sync::InlineAtomic};

use super::{
    entry::Shut,
    state::{Core, Inner},
    word::{Word, ENTRY_U64S_MAX},
};
use crate::util::{
    error::{Error, Result},
    watermark::Watermark,
};

/// Why a reservation cannot be had right now.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Blocked {
    /// There is no room; [`Journal::wait`](super::Journal::wait) waits for some.
    Full,
    /// The journal has failed or was stopped.
    Failed,
}

/// Room in an entry. Dropping it says that what was to be written has been.
pub struct Reservation<'j> {
    core: &'j Core,
    slot: usize,
    seq: u64,
    at: u32,
    end: u32,
}

impl Core {
    /// Reserves in the open entry, without a lock. `None` if that is not possible as it is.
    #[inline]
    fn try_reserve(&self, u64s: u32, watermark: Watermark) -> Option<Reservation<'_>> {
        let mut old = self.word.read_acquire();
        loop {
            let word = Word(old);
            let at = word.offset()?;
            let slot = self.slots.get(word.slot())?;
            let end = at.checked_add(u64s)?;
            if end > slot.limit() || (watermark as u32) < self.lowest() {
                return None;
            }
            match self.word.cmpxchg(old, word.reserve(u64s)?.0, Full) {
                Ok(_) => {
                    return Some(Reservation {
                        core: self,
                        slot: word.slot(),
                        // The reference keeps the buffer from being used for another entry.
                        seq: slot.seq(),
                        at,
                        end,
                    })
                }
                Err(now) => old = now,
            }
        }
    }

    /// Whether [`Core::try_reserve`] would succeed.
    fn could_reserve(&self, u64s: u32, watermark: Watermark) -> bool {
        let word = Word(self.word.read_acquire());
        let limit = self.slots.get(word.slot()).map_or(0, |slot| slot.limit());
        let end = word.offset().and_then(|at| at.checked_add(u64s));
        end.is_some_and(|end| end <= limit)
            && word.reserve(u64s).is_some()
            && watermark as u32 >= self.lowest()
    }

    /// Sees to it that there is an open entry with room for `u64s`, as far as that takes no waiting.
    fn make_room(
        &self,
        i: &mut Inner,
        u64s: u32,
        watermark: Watermark,
    ) -> core::result::Result<(), Shut> {
        // Closing an entry takes one turn, opening the next another.
        for _ in 0..3 {
            if i.failed.is_some() || i.stopped {
                return Err(Shut::Failed);
            }
            if (watermark as u32) < self.lowest() {
                return Err(Shut::Low);
            }
            if self.could_reserve(u64s, watermark) {
                return Ok(());
            }
            if i.open {
                let limit = self.widen(i);
                if self.could_reserve(u64s, watermark) {
                    return Ok(());
                }
                if limit >= i.buf_u64s {
                    // More would have fitted on disk.
                    i.want_u64s = i.want_u64s.max(i.buf_u64s.saturating_mul(2));
                }
                if u64s > i.buf_u64s {
                    return Err(Shut::TooBig);
                }
                let empty = Word(self.word.read_acquire()).offset() == Some(0);
                if empty && u64s > limit {
                    return Err(Shut::Full);
                }
                self.close(i);
            } else {
                self.open(i)?;
            }
        }
        Err(Shut::Full)
    }

    /// See [`Journal::reserve`](super::Journal::reserve).
    #[inline]
    pub(super) fn reserve(
        &self,
        u64s: u32,
        watermark: Watermark,
    ) -> core::result::Result<Reservation<'_>, Blocked> {
        let u64s = u64s.max(1);
        match self.try_reserve(u64s, watermark) {
            Some(reservation) => Ok(reservation),
            None => self.reserve_slow(u64s, watermark),
        }
    }

    #[cold]
    fn reserve_slow(
        &self,
        u64s: u32,
        watermark: Watermark,
    ) -> core::result::Result<Reservation<'_>, Blocked> {
        loop {
            {
                let mut i = self.inner.lock();
                let made = self.make_room(&mut i, u64s, watermark);
                let flushed = self.advance(&mut i);
                drop(i);
                self.tell_flushed(flushed);
                match made {
                    Ok(()) => {}
                    Err(Shut::Failed) => return Err(Blocked::Failed),
                    Err(_) => return Err(Blocked::Full),
                }
            }
            // Others may have been quicker; then once more. Each turn has somebody succeed.
            if let Some(reservation) = self.try_reserve(u64s, watermark) {
                return Ok(reservation);
            }
        }
    }

    /// See [`Journal::wait`](super::Journal::wait).
    pub(super) fn wait(&self, u64s: u32, watermark: Watermark, reclaim: bool) -> Result<bool> {
        let u64s = u64s.max(1);
        // Counts as blocked from when there is no room for the first time until it is over, so that the reclaimer sees that
        // whenever it looks.
        let mut blocked = false;
        loop {
            let mut i = self.inner.lock();
            let made = self.make_room(&mut i, u64s, watermark);
            let full = matches!(made, Err(Shut::Low | Shut::Full));
            let give_up = full && reclaim && watermark < Watermark::Reclaim;
            if full && !give_up {
                // Once: from then on it looks by itself until nobody is blocked, and tells those who wait.
                if !blocked {
                    blocked = true;
                    i.blocked += 1;
                    self.reclaimer.kick();
                }
                self.room.wait(&mut i);
                continue;
            }
            if blocked {
                i.blocked = i.blocked.saturating_sub(1);
                blocked = false;
            }
            match made {
                Ok(()) => return Ok(true),
                Err(Shut::InFlight) => self.room.wait(&mut i),
                Err(Shut::TooBig) => {
                    drop(i);
                    self.grow(u64s)?;
                }
                Err(Shut::Failed) => return Err(Error::JournalFailed),
                Err(Shut::Low | Shut::Full) => return Ok(false),
            }
        }
    }

    /// Makes the staging buffers large enough for `u64s` words. Sleeps.
    ///
    /// # Errors
    ///
    /// If no entry can hold that many, or memory is short.
    #[inline(never)]
    pub(super) fn grow(&self, u64s: u32) -> Result {
        let _scope = NofsScope::enter();
        let _one = self.growing.lock();
        let most = self.most();
        let now = self.inner.lock().buf_u64s;
        if u64s > most {
            return Err(Error::JournalTooSmall);
        }
        let new = now.max(u64s.next_power_of_two().min(most));
        if new == now {
            return Ok(());
        }
        for slot in &self.slots {
            slot.words.grow(new as usize, GFP_KERNEL | __GFP_NOWARN)?;
        }
        self.grow_bufs(new)?;
        let mut i = self.inner.lock();
        i.buf_u64s = new;
        i.want_u64s = i.want_u64s.max(new);
        if i.open {
            self.widen(&mut i);
        }
        Ok(())
    }

    /// Most words of a staging buffer.
    pub(super) fn most(&self) -> u32 {
        let rings = &self.inner.lock().rings;
        let sectors = rings.iter().map(|r| r.bucket_sectors()).min().unwrap_or(0);
        let late = self.late();
        let bytes = (u64::from(sectors) << 9).min(JSET_BYTES_MAX as u64);
        // At most 4 MiB.
        let words = (bytes / 8) as u32;
        words.saturating_sub(late + 8).min(ENTRY_U64S_MAX)
    }
}

impl Reservation<'_> {
    /// The entry's sequence number.
    #[inline]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Where in the entry the next record goes, in words. With [`Reservation::seq`] it orders commits.
    #[inline]
    pub fn offset(&self) -> u32 {
        self.at
    }

    /// Words that are left.
    pub fn room(&self) -> u32 {
        self.end - self.at
    }

    /// Stores `words` at the next place, which is known to have room.
    fn store(&mut self, words: &[u64]) -> bool {
        let stored = match self.core.slots.get(self.slot) {
            Some(slot) => slot.words.store(self.at as usize, words),
            None => false,
        };
        // Not more than was reserved.
        self.at += words.len() as u32;
        stored
    }

    fn fits(&self, words: usize) -> bool {
        words <= self.room() as usize
    }

    /// Writes a record of type `kind` with one key. Does not sleep. `false`: more than was reserved, or not a key; nothing is
    /// written then.
    pub fn key(
        &mut self,
        kind: EntryType,
        btree: BtreeId,
        level: u8,
        key: &KeyRef<'_>,
    ) -> bool {
        let mut header = key.key;
        header.needs_whiteout = false;
        let header = header.to_words();
        let u64s = header.len() + key.value.len();
        let Ok(len) = u16::try_from(u64s) else {
            return false;
        };
        if usize::from(key.key.value_u64s()) != key.value.len() || !self.fits(1 + u64s) {
            return false;
        }
        self.store(&[RawEntry::header_word(kind, btree, level, len)])
            && self.store(&header)
            && self.store(key.value)
    }

    /// Copies whole records. Does not sleep. `false`: more than was reserved; nothing is written then.
    pub fn records(&mut self, words: &[u64]) -> bool {
        self.fits(words.len()) && self.store(words)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        // Words of zero are records with nothing in them.
        if let Some(slot) = self.core.slots.get(self.slot) {
            slot.words.clear(self.at as usize, (self.end - self.at) as usize);
        }
        self.core.put(self.slot, self.seq);
    }
}
