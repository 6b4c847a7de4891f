// SPDX-License-Identifier: GPL-2.0

//! The lock word and its transitions, without what the lock protects.
//!
//! One 64-bit word holds everything that has to change together:
//!
//! | bits | meaning |
//! |---|---|
//! | 0..26 | number of readers |
//! | 26 | intent is held |
//! | 27 | write is held, or its holder-to-be waits for the readers to leave |
//! | 28, 29, 30 | somebody waits for read, intent, write |
//! | 32..64 | sequence number, counts releases of write |
//!
//! Waiters are kept in a list in the order of their arrival. A lock is handed over: who releases it does the
//! transition on behalf of the waiter, so that nobody else can come in between.
//!
//! # Invariants
//!
//! - A "somebody waits" bit is set and cleared only with the list's lock held, and is clear only
//!   if no waiter of that mode is in the list.
//! - While an intent waiter is in the list intent is held; while a write waiter is, the write bit is set and there
//!   are readers; while a read waiter is, the write bit is set.

use super::{
    super::InlineAtomic,
    waiter::{WaitList, Waiter},
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        SpinLock,
    },
};

/// How a lock is held, weakest first.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mode {
    /// Shared; excludes write.
    Read = 0,
    /// Excludes intent; what is protected can be looked at, and write can be had without giving anything up.
    Intent = 1,
    /// Excludes everybody else.
    Write = 2,
}

impl Mode {
    /// Whether a holder of `self` keeps out somebody who wants `wanted`.
    #[inline]
    pub(super) fn excludes(self, wanted: Mode) -> bool {
        self as u8 + wanted as u8 > 1
    }
}

const READER: u64 = 1;
const READERS: u64 = (1 << 26) - 1;
const INTENT: u64 = 1 << 26;
const WRITE: u64 = 1 << 27;
const WAIT_READ: u64 = 1 << 28;
const WAIT_INTENT: u64 = 1 << 29;
const WAIT_WRITE: u64 = 1 << 30;
const SEQ_SHIFT: u32 = 32;
const SEQ: u64 = 1 << SEQ_SHIFT;

/// What became of an attempt to take a lock or to queue for it.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(super) enum Queued {
    /// The lock was free after all and is held now.
    Acquired,
    /// The waiter is in the list.
    Waiting,
}

/// The lock word and the list of those who wait.
#[pin_data]
pub(super) struct Raw {
    state: Atomic<u64>,
    #[pin]
    waiters: SpinLock<WaitList>,
}

impl Raw {
    /// A free lock.
    pub(super) fn new() -> impl PinInit<Self> {
        Self::with_state(0)
    }

    /// A lock that is born held for write.
    pub(super) fn new_exclusive() -> impl PinInit<Self> {
        Self::with_state(INTENT | WRITE)
    }

    fn with_state(state: u64) -> impl PinInit<Self> {
        pin_init!(Self {
            state: Atomic::new(state),
            waiters <- new_spinlock!(WaitList::new(), "SixLock::waiters"),
        })
    }

    /// The sequence number now. Stable only while the lock is held for read or intent.
    #[inline]
    pub(super) fn seq(&self) -> u32 {
        (self.state.read_acquire() >> SEQ_SHIFT) as u32
    }

    /// What a debugger wants to see: readers, intent, write or write pending.
    pub(super) fn holders(&self) -> (u32, bool, bool) {
        let s = self.state.load(Relaxed);
        ((s & READERS) as u32, s & INTENT != 0, s & WRITE != 0)
    }

    /// Repeats `next` until its result is stored or it refuses. Returns the old word.
    #[inline]
    fn update(&self, mut next: impl FnMut(u64) -> Option<u64>) -> Result<u64, u64> {
        let mut old = self.state.read();
        loop {
            let Some(new) = next(old) else {
                return Err(old);
            };
            match self.state.cmpxchg(old, new, Full) {
                Ok(_) => return Ok(old),
                Err(now) => old = now,
            }
        }
    }

    /// The word after taking `mode`, if it can be taken. Write wants intent to be held by the caller.
    #[inline]
    fn taken(s: u64, mode: Mode) -> Option<u64> {
        match mode {
            Mode::Read if s & WRITE == 0 && s & READERS != READERS => Some(s + READER),
            Mode::Intent if s & INTENT == 0 => Some(s | INTENT),
            Mode::Write if s & READERS == 0 => Some(s | WRITE),
            _ => None,
        }
    }

    /// Takes `mode` without waiting. `Write` only on top of the caller's intent.
    #[inline]
    pub(super) fn try_lock(&self, mode: Mode) -> bool {
        self.update(|s| Self::taken(s, mode)).is_ok()
    }

    /// Takes `mode` without waiting, if the sequence number is still `seq`.
    #[inline]
    pub(super) fn try_relock(&self, mode: Mode, seq: u32) -> bool {
        self.update(|s| {
            if (s >> SEQ_SHIFT) as u32 == seq {
                Self::taken(s, mode)
            } else {
                None
            }
        })
        .is_ok()
    }

    /// Turns the caller's read into intent without waiting.
    #[inline]
    pub(super) fn try_upgrade(&self) -> bool {
        // The read given up is not one that a writer waits for: a writer holds intent, so there is none.
        self.update(|s| (s & INTENT == 0).then(|| (s - READER) | INTENT))
            .is_ok()
    }

    /// Turns the caller's intent into read.
    #[inline]
    pub(super) fn downgrade(&self) {
        // Write is not held: its bit could only be ours.
        let _ = self.update(|s| Some(s + READER));
        self.unlock_intent();
    }

    /// Takes intent and write of a lock that nobody holds. The word found otherwise.
    pub(super) fn try_exclusive(&self) -> Result<(), (u32, bool, bool)> {
        self.update(|s| (s & (READERS | INTENT | WRITE) == 0).then_some(s | INTENT | WRITE))
            .map(|_| ())
            .map_err(|s| ((s & READERS) as u32, s & INTENT != 0, s & WRITE != 0))
    }

    /// Releases a read.
    #[inline]
    pub(super) fn unlock_read(&self) {
        let old = self.state.fetch_sub(READER, Full);
        if old & READERS == READER && old & WAIT_WRITE != 0 {
            self.hand_over_write();
        }
    }

    /// Releases intent (write must have been released before).
    #[inline]
    pub(super) fn unlock_intent(&self) {
        if self
            .update(|s| (s & WAIT_INTENT == 0).then_some(s & !INTENT))
            .is_err()
        {
            self.hand_over_intent();
        }
    }

    /// Releases write, keeps intent, and changes the sequence number, which is returned.
    #[inline]
    pub(super) fn unlock_write(&self) -> u32 {
        let next = |s: u64| (s & !WRITE).wrapping_add(SEQ);
        match self.update(|s| (s & WAIT_READ == 0).then(|| next(s))) {
            Ok(old) => (next(old) >> SEQ_SHIFT) as u32,
            Err(_) => self.release_write_to_readers(SEQ),
        }
    }

    /// The last reader has left: the writer that waits, if it still does, may go.
    #[cold]
    fn hand_over_write(&self) {
        let mut list = self.waiters.lock();
        let freed = self.update(|s| {
            (s & READERS == 0 && s & WAIT_WRITE != 0).then_some(s & !WAIT_WRITE)
        });
        if freed.is_ok() {
            list.grant_first(Mode::Write);
        }
    }

    /// Passes intent on to who has waited longest for it.
    #[cold]
    fn hand_over_intent(&self) {
        let mut list = self.waiters.lock();
        let granted = list.grant_first(Mode::Intent);
        let mut clear = 0;
        if !granted {
            clear |= INTENT | WAIT_INTENT;
        } else if !list.any(Mode::Intent) {
            clear |= WAIT_INTENT;
        }
        let _ = self.update(|s| Some(s & !clear));
    }

    /// Clears the write bit, adds `seq` to the word and lets everybody in who waits for read. Returns the sequence number.
    #[cold]
    fn release_write_to_readers(&self, seq: u64) -> u32 {
        let mut list = self.waiters.lock();
        self.release_write_locked(&mut list, seq)
    }

    fn release_write_locked(&self, list: &mut WaitList, seq: u64) -> u32 {
        // The readers are counted in before they are told, in the same step in which write ends.
        let readers = list.count(Mode::Read) as u64;
        let next = |s: u64| ((s & !(WRITE | WAIT_READ)).wrapping_add(seq)) + readers;
        let old = self.update(|s| Some(next(s))).unwrap_or_else(|s| s);
        while list.grant_first(Mode::Read) {}
        (next(old) >> SEQ_SHIFT) as u32
    }

    /// Takes the lock if it has become free, else puts `waiter` at the end of the list. For write, keeps new readers out
    /// from now on.
    pub(super) fn lock_or_queue(&self, waiter: Pin<&Waiter>, mode: Mode) -> Queued {
        let wait = match mode {
            Mode::Read => WAIT_READ,
            Mode::Intent => WAIT_INTENT,
            Mode::Write => WAIT_WRITE | WRITE,
        };
        let mut list = self.waiters.lock();
        let old = self.update(|s| Some(Self::taken(s, mode).unwrap_or(s | wait)));
        if old.is_ok_and(|s| Self::taken(s, mode).is_some()) {
            return Queued::Acquired;
        }
        list.push(waiter, mode);
        Queued::Waiting
    }

    /// Takes `waiter` out of the list. `false`: it is not in there any more, it has been given the lock.
    pub(super) fn cancel(&self, waiter: Pin<&Waiter>, mode: Mode) -> bool {
        let mut list = self.waiters.lock();
        if !list.remove(waiter) {
            return false;
        }
        match mode {
            Mode::Write => {
                // Nothing was changed under the lock: the sequence number stays.
                let _ = self.update(|s| Some(s & !WAIT_WRITE));
                self.release_write_locked(&mut list, 0);
            }
            Mode::Read if !list.any(mode) => {
                let _ = self.update(|s| Some(s & !WAIT_READ));
            }
            Mode::Intent if !list.any(mode) => {
                let _ = self.update(|s| Some(s & !WAIT_INTENT));
            }
            _ => {}
        }
        true
    }

    /// Waits until nobody is in the middle of handing this lock over.
    pub(super) fn settle(&self) {
        drop(self.waiters.lock());
    }

    /// Looks at the waiters, oldest first, until `f` returns something.
    pub(super) fn find_waiter<R>(&self, f: impl FnMut(&Waiter, Mode) -> Option<R>) -> Option<R> {
        self.waiters.lock().find(f)
    }

    /// Number of waiters, for printing.
    pub(super) fn nr_waiters(&self) -> usize {
        let list = self.waiters.lock();
        list.count(Mode::Read) + list.count(Mode::Intent) + list.count(Mode::Write)
    }
}
