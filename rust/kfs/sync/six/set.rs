// SPDX-License-Identifier: GPL-2.0

//! The locks of one transaction.

use super::{
    graph::Graph,
    lock::SixLock,
    raw::{Mode, Raw},
    waiter::Waiter,
};
use core::ptr::NonNull;
use kernel::{prelude::*, sync::Arc};

/// Why a lock was not taken.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum LockError {
    /// Waiting would close a cycle, and this set was chosen to break it. Release everything and start again.
    WouldDeadlock,
    /// The search for cycles ran out of depth: treat as [`LockError::WouldDeadlock`].
    TooDeep,
    /// The set holds the lock for read, and somebody else holds it for intent: waiting for that could
    /// never end. Release and start again with intent.
    Upgrade,
    /// The table of the set is full.
    Full,
    /// The slot is not in use (a mistake of the caller).
    NoSlot,
}

/// How a set feels about being told to give up.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Patience {
    /// It has no way to start again.
    MayNotFail = 0,
    /// It can start again.
    Ordinary = 2,
    /// It starts again cheaply, and is asked first.
    Restarting = 3,
}

/// A lock's place in a set.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Slot(u16);

struct Entry<T, S> {
    lock: Arc<SixLock<T, S>>,
    /// Sequence number when the lock was last held.
    seq: u32,
    /// How many ask for it.
    users: u32,
}

/// What a set holds, as others see it while it waits.
///
/// # Invariants
///
/// `lock`, if any, is alive as long as the entry of the set with the same index exists, and held as `mode` says.
pub(super) struct Held {
    lock: Option<NonNull<Raw>>,
    mode: Mode,
}

impl Held {
    pub(super) fn get(&self) -> Option<(NonNull<Raw>, Mode)> {
        Some((self.lock?, self.mode))
    }
}

/// A table of locks with the strongest mode held of each.
///
/// # Invariants
///
/// - `entries` and `held` have the same length. `held[i].lock` is `Some` exactly if the set holds the lock of
///   `entries[i]`, in the mode `held[i].mode` (write: intent and write).
/// - A lock is in the table once.
pub struct LockSet<T, S = ()> {
    entries: KVec<Option<Entry<T, S>>>,
    held: KVec<Held>,
    capacity: usize,
    patience: Patience,
    waiter: Pin<KBox<Waiter>>,
    waits: u64,
}

// SAFETY: The pointers in `held` are to parts of the locks in `entries`; a set is used by one task at a time.
unsafe impl<T: Send + Sync, S: Send + Sync> Send for LockSet<T, S> {}
// SAFETY: Shared access only reads.
unsafe impl<T: Send + Sync, S: Send + Sync> Sync for LockSet<T, S> {}

impl<T: Send + Sync, S: Send + Sync> LockSet<T, S> {
    /// An empty set for at most `capacity` locks, whose waits are seen by the other sets of `graph`. May sleep.
    pub fn new(graph: Arc<Graph>, capacity: u16) -> Result<Self> {
        let capacity = usize::from(capacity);
        Ok(LockSet {
            entries: KVec::with_capacity(capacity, GFP_KERNEL)?,
            held: KVec::with_capacity(capacity, GFP_KERNEL)?,
            capacity,
            patience: Patience::Ordinary,
            waiter: KBox::pin_init(Waiter::new(graph), GFP_KERNEL)?,
            waits: 0,
        })
    }

    /// Says whether this set may be chosen to break a cycle.
    pub fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// How often this set went to sleep for a lock.
    pub fn waits(&self) -> u64 {
        self.waits
    }

    /// Number of locks held.
    pub fn nr_held(&self) -> usize {
        self.held.iter().filter(|h| h.lock.is_some()).count()
    }

    /// Enters `lock` in the table, without taking it, or adds a user to its entry.
    pub fn reference(&mut self, lock: &Arc<SixLock<T, S>>) -> Result<Slot, LockError> {
        let mut free = None;
        for (i, e) in self.entries.iter_mut().enumerate() {
            match e {
                Some(e) if Arc::ptr_eq(&e.lock, lock) => {
                    e.users += 1;
                    return Ok(Slot(i as u16));
                }
                None if free.is_none() => free = Some(i),
                _ => {}
            }
        }
        let entry = Entry {
            lock: lock.clone(),
            seq: lock.raw.seq(),
            users: 1,
        };
        if let Some((i, place)) = free.and_then(|i| Some((i, self.entries.get_mut(i)?))) {
            *place = Some(entry);
            return Ok(Slot(i as u16));
        }
        if self.entries.len() >= self.capacity {
            return Err(LockError::Full);
        }
        let held = Held {
            lock: None,
            mode: Mode::Read,
        };
        // INVARIANT: Both grow together; there is room in both, so neither push fails.
        if self.held.push_within_capacity(held).is_err() {
            return Err(LockError::Full);
        }
        if self.entries.push_within_capacity(Some(entry)).is_err() {
            self.held.pop();
            return Err(LockError::Full);
        }
        Ok(Slot((self.entries.len() - 1) as u16))
    }

    /// Adds a user to an entry.
    pub fn share(&mut self, slot: Slot) {
        if let Some(e) = self.entry_mut(slot) {
            e.users += 1;
        }
    }

    /// Takes a user from an entry; with the last one the lock is released and leaves the table.
    pub fn put(&mut self, slot: Slot) {
        let Some(e) = self.entry_mut(slot) else {
            return;
        };
        e.users -= 1;
        if e.users == 0 {
            self.unlock(slot);
            if let Some(place) = self.entries.get_mut(usize::from(slot.0)) {
                *place = None;
            }
        }
    }

    fn entry(&self, slot: Slot) -> Option<&Entry<T, S>> {
        self.entries.get(usize::from(slot.0))?.as_ref()
    }

    fn entry_mut(&mut self, slot: Slot) -> Option<&mut Entry<T, S>> {
        self.entries.get_mut(usize::from(slot.0))?.as_mut()
    }

    /// How the lock is held.
    #[inline]
    pub fn mode(&self, slot: Slot) -> Option<Mode> {
        let h = self.held.get(usize::from(slot.0))?;
        h.lock.map(|_| h.mode)
    }

    /// The lock's sequence number when the set held it last: what was seen under another number may have changed.
    #[inline]
    pub fn seq(&self, slot: Slot) -> Option<u32> {
        self.entry(slot).map(|e| e.seq)
    }

    /// The lock itself.
    #[inline]
    pub fn lock_ref(&self, slot: Slot) -> Option<&Arc<SixLock<T, S>>> {
        self.entry(slot).map(|e| &e.lock)
    }

    /// What the lock protects, if it is held.
    #[inline]
    pub fn get(&self, slot: Slot) -> Option<&T> {
        self.mode(slot)?;
        let e = self.entry(slot)?;
        // SAFETY: The lock is held at least for read (type invariant), and stays so while `self` is borrowed, since
        // every function that releases locks takes the set mutably. A writer would have to be this set itself,
        // through `get_mut`, which takes it mutably, too.
        Some(unsafe { &*e.lock.data.get() })
    }

    /// What the lock protects, for change, if it is held for write.
    #[inline]
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        if self.mode(slot)? != Mode::Write {
            return None;
        }
        let e = self.entry(slot)?;
        // SAFETY: The lock is held for write (type invariant), so no other set has access; in this set a lock is in the
        // table once, and the set is borrowed mutably.
        Some(unsafe { &mut *e.lock.data.get() })
    }

    /// The only place that says a lock is held or not.
    fn set_held(&mut self, slot: Slot, mode: Option<Mode>) {
        let i = usize::from(slot.0);
        let raw = self.entry(slot).map(|e| NonNull::from(&e.lock.raw));
        if let Some(h) = self.held.get_mut(i) {
            // INVARIANT: Called right after the lock's word was changed accordingly.
            *h = Held {
                lock: mode.and(raw),
                mode: mode.unwrap_or(Mode::Read),
            };
        }
    }

    /// One transition towards `mode`, without waiting. `Ok(false)`: somebody is in the way.
    fn step(&mut self, slot: Slot, mode: Mode) -> Result<bool, LockError> {
        let held = self.mode(slot);
        let e = self.entry(slot).ok_or(LockError::NoSlot)?;
        let taken = match held {
            Some(Mode::Read) if mode > Mode::Read => {
                if !e.lock.raw.try_upgrade() {
                    return Err(LockError::Upgrade);
                }
                Mode::Intent
            }
            Some(h) if h >= mode => return Ok(true),
            Some(_) => {
                if !e.lock.raw.try_lock(Mode::Write) {
                    return Ok(false);
                }
                Mode::Write
            }
            None => {
                let first = mode.min(Mode::Intent);
                if !e.lock.raw.try_lock(first) {
                    return Ok(false);
                }
                first
            }
        };
        self.took(slot, taken);
        Ok(true)
    }

    fn took(&mut self, slot: Slot, mode: Mode) {
        self.set_held(slot, Some(mode));
        if let Some(e) = self.entry_mut(slot) {
            e.seq = e.lock.raw.seq();
        }
    }

    /// Raises what is held of a lock to `mode`, if that can be had at once.
    #[inline]
    pub fn try_lock(&mut self, slot: Slot, mode: Mode) -> Result<bool, LockError> {
        while self.mode(slot) < Some(mode) {
            if !self.step(slot, mode)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Raises what is held of a lock to `mode`. May sleep; keeps what is held otherwise.
    ///
    /// Whoever has two sets must use [`LockSet::lock_beside`], or what the other one holds is not seen by others that look for
    /// cycles.
    #[inline]
    pub fn lock(&mut self, slot: Slot, mode: Mode) -> Result<(), LockError> {
        self.lock_with(slot, mode, (core::ptr::null(), 0))
    }

    /// The same for a transaction that also has the locks in `beside`, a set of the same graph.
    #[inline]
    pub fn lock_beside<U, V>(
        &mut self,
        slot: Slot,
        mode: Mode,
        beside: &LockSet<U, V>,
    ) -> Result<(), LockError> {
        self.lock_with(slot, mode, (beside.held.as_ptr(), beside.held.len()))
    }

    /// `beside` is the table of another set, which is borrowed, or empty.
    #[inline]
    fn lock_with(
        &mut self,
        slot: Slot,
        mode: Mode,
        beside: (*const Held, usize),
    ) -> Result<(), LockError> {
        while self.mode(slot) < Some(mode) {
            if !self.step(slot, mode)? {
                self.block(slot, mode, beside)?;
            }
        }
        Ok(())
    }

    #[cold]
    fn block(
        &mut self,
        slot: Slot,
        mode: Mode,
        beside: (*const Held, usize),
    ) -> Result<(), LockError> {
        let want = match self.mode(slot) {
            None => mode.min(Mode::Intent),
            Some(_) => Mode::Write,
        };
        self.waits += 1;
        let lock = self.entry(slot).ok_or(LockError::NoSlot)?.lock.clone();
        let held = [(self.held.as_ptr(), self.held.len()), beside];
        // SAFETY: The waiter is this set's own, `self` is borrowed mutably, so neither the waiter nor the table is used by
        // anybody else until this returns; the same goes for the table beside it, which the callers' caller has borrowed, and
        // which is changed through `&mut` only. The locks in a table are kept alive by its `entries`; `lock` is ours.
        unsafe {
            self.waiter.graph.wait(
                self.waiter.as_ref(),
                &lock.raw,
                want,
                held,
                self.patience as u8,
            )?
        };
        self.took(slot, want);
        Ok(())
    }

    /// Takes a lock back that the set held before, if nobody has written since. Does not sleep.
    #[inline]
    pub fn relock(&mut self, slot: Slot, mode: Mode) -> bool {
        match self.mode(slot) {
            Some(h) if h >= mode => return true,
            Some(_) => return self.try_lock(slot, mode).unwrap_or(false),
            None => {}
        }
        let Some(e) = self.entry(slot) else {
            return false;
        };
        let first = mode.min(Mode::Intent);
        if !e.lock.raw.try_relock(first, e.seq) {
            return false;
        }
        self.set_held(slot, Some(first));
        first == mode || self.try_lock(slot, mode).unwrap_or(false)
    }

    /// Lowers what is held of a lock to `mode`. Does not sleep.
    pub fn downgrade(&mut self, slot: Slot, mode: Mode) {
        while let Some(held) = self.mode(slot).filter(|&h| h > mode) {
            let Some(e) = self.entry_mut(slot) else {
                return;
            };
            let next = match held {
                Mode::Write => {
                    e.seq = e.lock.raw.unlock_write();
                    Mode::Intent
                }
                _ => {
                    e.lock.raw.downgrade();
                    Mode::Read
                }
            };
            self.set_held(slot, Some(next));
        }
    }

    /// Releases a lock; its entry stays, and [`LockSet::relock`] can take it back. Does not sleep.
    #[inline]
    pub fn unlock(&mut self, slot: Slot) {
        let Some(held) = self.mode(slot) else {
            return;
        };
        if held == Mode::Write {
            self.downgrade(slot, Mode::Intent);
        }
        if let Some(e) = self.entry(slot) {
            match held {
                Mode::Read => e.lock.raw.unlock_read(),
                Mode::Intent | Mode::Write => e.lock.raw.unlock_intent(),
            }
        }
        self.set_held(slot, None);
    }

    /// Releases all locks; the entries stay.
    pub fn unlock_all(&mut self) {
        for i in 0..self.held.len() {
            self.unlock(Slot(i as u16));
        }
    }

    /// Releases all locks and forgets them, whoever still refers to a slot.
    pub fn clear(&mut self) {
        self.unlock_all();
        self.entries.clear();
        self.held.clear();
    }
}

impl<T, S> Drop for LockSet<T, S> {
    fn drop(&mut self) {
        for (e, h) in self.entries.iter().zip(self.held.iter()) {
            let (Some(e), Some(_)) = (e, h.lock) else {
                continue;
            };
            match h.mode {
                Mode::Read => e.lock.raw.unlock_read(),
                Mode::Intent => e.lock.raw.unlock_intent(),
                Mode::Write => {
                    e.lock.raw.unlock_write();
                    e.lock.raw.unlock_intent();
                }
            }
        }
    }
}
