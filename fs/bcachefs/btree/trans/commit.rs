// SPDX-License-Identifier: GPL-2.0
//! Committing what a transaction has collected.
//!
//! In this order: triggers; intent on all nodes; space; merging of nodes that shrink; locks for write, in the order of the updates;
//! room in the nodes; room in the journal. From there on nothing may fail but for what is reported as fatal: accounting, atomic
//! triggers, validation, the records, the nodes. Then the locks are released, and after them the room in the journal, which may
//! have the entry written.
//!
//! Whatever has to be waited for is waited for without locks; then the commit goes on where it was if they can be taken back,
//! and the transaction restarts if not.

mod locked;

use super::{
    error::Reason,
    pending::{JOURNAL_U64S_MAX, VALUE_U64S_MAX},
    update::{CommitFlags, Committed},
    Attempt, TransError,
};
use crate::{
    btree::{
        engine::{Room, Writing},
        space::{DiskReservation, Shortage},
        Btree,
    },
    util::{
        counters::Counter,
        error::{Error, Result},
    },
};
use bcachefs_format::{
    keys::{self, When},
    BtreeId, KeyRef, KeyType,
};
use kernel::prelude::*;
use kfs::sync::six::{Mode, Slot};
use locked::Outcome;

/// Result of what may restart.
type Tried<T = ()> = core::result::Result<T, TransError>;

impl Btree {
    /// Checks a key that is about to be written.
    pub(in crate::btree) fn validate(&self, btree: BtreeId, level: u8, key: KeyRef<'_>) -> Result {
        let ctx = keys::ValidateCtx {
            when: When::Commit,
            ..self.fill.validate_ctx()
        };
        keys::validate(key, btree, level, &ctx).map_err(|e| {
            self.fill
                .report(format_args!("btree {btree} level {level}: {} is not written: {e}", key.key));
            Error::BtreeKeyInvalid
        })
    }
}

impl<'t> Attempt<'t> {
    /// Commits what has been collected. May sleep and restart. After success the transaction can go on with new updates; after an
    /// error nothing is collected any more.
    pub fn commit(
        &mut self,
        reservation: Option<&mut DiskReservation>,
        flags: CommitFlags,
    ) -> Tried<Committed> {
        self.check()?;
        if self.pending.is_empty() {
            self.pending.reset();
            return Ok(Committed::default());
        }
        let result = self.commit_pending(reservation, flags);
        match &result {
            Ok(_) => {
                self.commits += 1;
                self.btree.counters.inc(Counter::TRANSACTION_COMMIT);
                self.pending.reset();
                self.downgrade();
            }
            Err(TransError::Fs(_)) => {
                self.pending.reset();
                self.paths.release(self.live);
                self.release_keys();
            }
            // The attempt is over.
            Err(TransError::Restart(_)) => {}
        }
        result
    }

    #[inline(never)]
    fn commit_pending(
        &mut self,
        mut reservation: Option<&mut DiskReservation>,
        flags: CommitFlags,
    ) -> Tried<Committed> {
        let btree = self.btree;
        let w = btree.writing()?;
        let _writer = match w.writers.filter(|_| !flags.no_check_rw) {
            Some(writers) => Some(writers.get().ok_or(Error::ReadOnly)?),
            None => None,
        };
        if !flags.no_triggers {
            self.run_triggers(&w, flags)?;
        }
        self.validate_pending()?;
        let u64s = self.pending.journal_u64s();
        if u64s > JOURNAL_U64S_MAX {
            return Err(Error::TransTooBig.into());
        }
        if flags.no_journal_res.is_some() && self.pending.only_journalled() {
            // They would be nowhere.
            return Err(Error::BtreeKeyInvalid.into());
        }
        let mut extra = self.reserve_extra(&w, flags)?;
        if w.log.is_journal() {
            self.merge_shrinking(flags)?;
        }
        loop {
            self.check()?;
            self.lock_for_write()?;
            let outcome = self.commit_locked(&w, flags, u64s as u32, &mut reservation, &mut extra);
            self.unlock_written();
            match outcome {
                Outcome::Done(room) => {
                    let seq = room.seq();
                    // Last: it may start the writing of the entry.
                    room.put();
                    return Ok(Committed { seq });
                }
                Outcome::NodeFull(path) => {
                    btree.split_leaf(self, path, flags)?;
                    // An update may have to go to another node now.
                    return Err(self.restart(Reason::Split));
                }
                Outcome::NeedMemory(slot) => {
                    let node = self.locks.lock_ref(slot).cloned();
                    let node = node.ok_or_else(|| self.lost())?;
                    self.unlock();
                    btree.provide(&node)?;
                    self.relock_for(Reason::Relock)?;
                }
                Outcome::NeedKeyMemory => {
                    self.unlock();
                    self.keys.spare = KVec::with_capacity(VALUE_U64S_MAX, GFP_KERNEL)?;
                    self.relock_for(Reason::KeyCacheRealloced)?;
                }
                Outcome::KeyCacheFull => {
                    self.unlock();
                    btree.key_cache.wait(w.log)?;
                    self.relock_for(Reason::JournalWait)?;
                }
                Outcome::JournalFull => self.wait_for_journal(&w, flags, u64s as u32)?,
                Outcome::MissingReplicas => {
                    self.unlock();
                    w.triggers.mark_replicas(&mut self.pending.deltas())?;
                    self.relock_for(Reason::MarkReplicas)?;
                }
                Outcome::Failed(e) => return Err(e.into()),
                Outcome::Fatal(e) => {
                    btree
                        .fill
                        .report(format_args!("a transaction failed half way: {e}"));
                    w.log.halt(e);
                    return Err(e.into());
                }
            }
        }
    }

    /// Checks all updates, while refusing one is no more than that.
    fn validate_pending(&self) -> Result {
        for u in self.pending.updates() {
            let key = self.pending.get(&u.new);
            self.btree.validate(u.btree, u.level, key)?;
        }
        Ok(())
    }

    /// Reserves what updates need beyond the reservation of the caller.
    #[inline(never)]
    fn reserve_extra(&mut self, w: &Writing<'t>, flags: CommitFlags) -> Tried<DiskReservation> {
        let sectors = self.pending.extra_sectors;
        if sectors == 0 {
            return Ok(DiskReservation::none());
        }
        let got = match flags.no_enospc {
            true => w.space.reserve(sectors, Shortage::Ignore)?,
            false => self.unlocked(|| w.space.reserve(sectors, Shortage::Fail))??,
        };
        Ok(DiskReservation::new(w.space.clone(), got, 1))
    }

    /// Leaves that lose keys may have become small enough to be merged.
    #[inline(never)]
    fn merge_shrinking(&mut self, flags: CommitFlags) -> Tried {
        let mut done = None;
        for i in 0..self.pending.updates().len() {
            let Some(u) = self.pending.update(i) else {
                break;
            };
            let (path, level) = (u.to.path, u.level);
            let Some(path) = path.filter(|p| level == 0 && done != Some(*p)) else {
                continue;
            };
            if u.new.key.key_type != KeyType::DELETED {
                continue;
            }
            done = Some(path);
            self.btree.maybe_merge(self, path, flags)?;
        }
        Ok(())
    }

    /// Waits until there may be room in the journal.
    #[inline(never)]
    fn wait_for_journal(&mut self, w: &Writing<'t>, flags: CommitFlags, u64s: u32) -> Tried {
        self.unlock();
        self.btree
            .counters
            .inc(Counter::TRANS_BLOCKED_JOURNAL_RECLAIM);
        if !w.log.wait(u64s, flags.watermark, flags.journal_reclaim)? {
            return Err(Error::WouldDeadlock.into());
        }
        self.relock_for(Reason::JournalWait)
    }

    /// Takes back all locks after waiting for something.
    fn relock_for(&mut self, reason: Reason) -> Tried {
        self.check()?;
        self.relock_held(None, reason)
    }

    /// The slots of the node and of the cached key that update `i` changes.
    fn update_slots(&self, i: usize) -> Tried<(Option<Slot>, Option<Slot>)> {
        let u = self.pending.update(i).ok_or_else(|| self.lost())?;
        let node = match u.to.path {
            Some(path) => {
                let slot = self.paths.get(path).and_then(|p| p.slot(u.level));
                Some(slot.ok_or_else(|| self.lost())?)
            }
            None => None,
        };
        // One that is written out stays as it is.
        Ok((node, u.to.key.filter(|_| !u.cleans)))
    }

    /// Locks for write what update `i` changes.
    fn lock_update(&mut self, i: usize) -> Tried {
        let (node, key) = self.update_slots(i)?;
        if let Some(slot) = node {
            self.write_lock(slot)?;
        }
        match key {
            Some(slot) => self.write_lock_key(slot),
            None => Ok(()),
        }
    }

    /// Locks all that is changed for write, in order. With an error nothing is.
    fn lock_for_write(&mut self) -> Tried {
        for i in 0..self.pending.updates().len() {
            if let Err(e) = self.lock_update(i) {
                self.unlock_written();
                return Err(e);
            }
        }
        if !self.still_bare() {
            self.unlock_written();
            return Err(self.restart(Reason::KeyCacheRaced));
        }
        Ok(())
    }

    /// Back to intent.
    fn unlock_written(&mut self) {
        for i in 0..self.pending.updates().len() {
            let Ok((node, key)) = self.update_slots(i) else {
                continue;
            };
            if let Some(slot) = key {
                self.write_unlock_key(slot);
            }
            if let Some(slot) = node.filter(|s| self.locks.mode(*s) == Some(Mode::Write)) {
                self.write_unlock(slot);
            }
        }
    }
}

/// Whether the room is the caller's own.
pub(super) fn given(flags: CommitFlags) -> Option<Room<'static>> {
    flags.no_journal_res.map(Room::Given)
}
