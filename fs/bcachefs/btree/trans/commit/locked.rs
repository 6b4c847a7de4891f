// SPDX-License-Identifier: GPL-2.0
//! The part of a commit with nodes locked for write. Nothing in here sleeps or waits.

use super::given;
use crate::{
    btree::{
        engine::{Room, Writing},
        node::{Change, Flag},
        space::DiskReservation,
        trans::{pending::Update, update::CommitFlags, Attempt},
    },
    journal::engine::Blocked,
    util::{
        error::{Error, Result},
        watermark::Watermark,
    },
};
use bcachefs_format::{jset::EntryType, BtreeId};
use kernel::prelude::*;
use kfs::sync::six::Slot;

/// How far it got.
pub(super) enum Outcome<'t> {
    /// It is in the journal and in the nodes. The room is to be given back when the locks have been.
    Done(Room<'t>),
    /// There is no room in the node that this path leads to.
    NodeFull(u8),
    /// The node needs memory to be changed.
    NeedMemory(Slot),
    /// A key in the key cache needs memory to be changed.
    NeedKeyMemory,
    /// Too many keys in the key cache are dirty.
    KeyCacheFull,
    /// There is no room in the journal.
    JournalFull,
    /// The superblock has to list replicas first.
    MissingReplicas,
    /// Nothing has been done, and it is no use trying again.
    Failed(Error),
    /// Something may have been done.
    Fatal(Error),
}

impl<'t> Attempt<'t> {
    #[inline(never)]
    pub(super) fn commit_locked(
        &mut self,
        w: &Writing<'t>,
        flags: CommitFlags,
        u64s: u32,
        reservation: &mut Option<&mut DiskReservation>,
        extra: &mut DiskReservation,
    ) -> Outcome<'t> {
        if let Some(outcome) = self.prepare_nodes() {
            return outcome;
        }
        if let Some(outcome) = self.prepare_keys(flags) {
            return outcome;
        }
        let mut room = match given(flags) {
            Some(room) => room,
            None => match w.log.reserve(u64s, flags.watermark) {
                Ok(room) => room,
                Err(Blocked::Full) => return Outcome::JournalFull,
                Err(Blocked::Failed) => return Outcome::Failed(Error::JournalFailed),
            },
        };
        self.pending.set_versions(room.seq(), room.offset());
        if !flags.skip_accounting && !self.account_pending(w) {
            // Dropping the room leaves a gap in the entry.
            return Outcome::MissingReplicas;
        }
        match self.commit_reserved(w, flags, &mut room, reservation, extra) {
            Ok(()) => Outcome::Done(room),
            Err(e) => Outcome::Fatal(e),
        }
    }

    /// Gets the nodes ready for changes and sees whether there is room.
    fn prepare_nodes(&mut self) -> Option<Outcome<'t>> {
        let n = self.pending.updates().len();
        let mut start = 0;
        while start < n {
            let Some((slot, path)) = self.place(start) else {
                start += 1;
                continue;
            };
            // The updates of one node follow one another, but for those of the key cache.
            let mut end = start;
            let mut u64s = 0;
            while end < n && self.place(end).is_none_or(|(s, _)| s == slot) {
                let update = self.pending.update(end).filter(|u| u.to.path.is_some());
                u64s += update.map_or(0, |u| usize::from(u.new.key.u64s));
                end += 1;
            }
            let node = self.locks.lock_ref(slot)?.clone();
            let data = self.locks.get_mut(slot)?;
            let head = node.shared();
            if head.has(Flag::FAKE) || head.has(Flag::NEED_REWRITE) {
                return Some(Outcome::NodeFull(path));
            }
            if self
                .btree
                .prepare(&node, data, GFP_NOWAIT | __GFP_NOWARN)
                .is_err()
            {
                return Some(Outcome::NeedMemory(slot));
            }
            if u64s > data.max_u64s() {
                // No split would make as much room.
                return Some(Outcome::Failed(Error::TransTooBig));
            }
            if data.room() < u64s {
                return Some(Outcome::NodeFull(path));
            }
            start = end;
        }
        None
    }

    /// Gets the cached keys ready for changes.
    fn prepare_keys(&mut self, flags: CommitFlags) -> Option<Outcome<'t>> {
        let mut more = 0;
        for u in self.pending.updates() {
            let (None, Some(slot)) = (u.to.path, u.to.key) else {
                continue;
            };
            let words = usize::from(u.new.key.value_u64s());
            let data = self.keys.locks.get_mut(slot)?;
            if !data.make_room(words, &mut self.keys.spare) {
                return Some(Outcome::NeedKeyMemory);
            }
            let head = self.keys.locks.lock_ref(slot)?.shared();
            more += usize::from(!head.is_dirty());
        }
        let waits = flags.watermark < Watermark::Reclaim && !flags.journal_reclaim;
        (waits && self.btree.key_cache.is_full(more)).then_some(Outcome::KeyCacheFull)
    }

    /// The slot and the path of the node that update `i` changes.
    fn place(&self, i: usize) -> Option<(Slot, u8)> {
        let u = self.pending.update(i)?;
        let path = u.to.path?;
        Some((self.paths.get(path)?.slot(u.level)?, path))
    }

    /// Applies what is added to accounting in memory: all of it, or nothing.
    fn account_pending(&mut self, w: &Writing<'t>) -> bool {
        for (i, delta) in self.pending.deltas().enumerate() {
            if w.triggers.account(delta, delta.key.version).is_err() {
                for done in self.pending.deltas().take(i) {
                    w.triggers.unaccount(done);
                }
                return false;
            }
        }
        true
    }

    /// With room in the journal: an error is fatal.
    #[inline(never)]
    fn commit_reserved(
        &mut self,
        w: &Writing<'t>,
        flags: CommitFlags,
        room: &mut Room<'t>,
        reservation: &mut Option<&mut DiskReservation>,
        extra: &mut DiskReservation,
    ) -> Result {
        let seq = room.seq();
        if !flags.skip_accounting {
            self.use_space(w, reservation, extra);
        }
        if !flags.no_triggers {
            self.run_atomic(w, flags, seq)?;
        }
        let accounting = BtreeId::ACCOUNTING;
        for delta in self.pending.deltas() {
            self.btree.validate(accounting, 0, delta)?;
            room.key(EntryType::WRITE_BUFFER_KEYS, accounting, 0, &delta)?;
        }
        room.records(self.pending.records())?;
        for u in self.pending.updates() {
            let key = self.pending.get(&u.new);
            room.key(EntryType::BTREE_KEYS, u.btree, u.level, &key)?;
        }
        self.apply(w, seq)?;
        for pin in self.pending.pins() {
            w.log.pin(pin, seq);
        }
        Ok(())
    }

    /// Accounts for the space that the commit uses.
    fn use_space(
        &self,
        w: &Writing<'t>,
        reservation: &mut Option<&mut DiskReservation>,
        extra: &mut DiskReservation,
    ) {
        let deltas = self.pending.deltas();
        let used: i64 = deltas.map(|d| w.triggers.used_sectors(d)).sum();
        if used == 0 {
            return;
        }
        let need = u64::try_from(used).unwrap_or(0);
        let mut missing = need;
        if let Some(r) = reservation {
            missing = r.consume(missing);
        }
        missing = extra.consume(missing);
        w.space.committed(used, need - missing);
    }

    /// Changes the nodes, and what the key cache has.
    fn apply(&mut self, w: &Writing<'t>, seq: u64) -> Result {
        for i in 0..self.pending.updates().len() {
            if self.pending.update(i).is_none_or(|u| u.to.path.is_some()) {
                self.apply_to_node(i, seq)?;
            }
            self.apply_to_key(w, i, seq)?;
        }
        Ok(())
    }

    /// Changes the node that update `i` goes to.
    fn apply_to_node(&mut self, i: usize, seq: u64) -> Result {
        let (slot, _) = self.place(i).ok_or(Error::BtreeTopology)?;
        let u = self.pending.update(i).ok_or(Error::BtreeTopology)?;
        let key = self.pending.get(&u.new);
        let data = self.locks.get_mut(slot).ok_or(Error::BtreeTopology)?;
        let (btree, level, changed) = (u.btree, u.level, key.key);
        let place = data.seek_from(u.at, changed.pos);
        let change = data.insert_at(&place, key, seq);
        let Change { edit, live_u64s } = change.map_err(|_| Error::BtreeTopology)?;
        let head = self.locks.lock_ref(slot).map(|l| l.shared());
        let head = head.ok_or(Error::BtreeTopology)?;
        if let Some(edit) = edit {
            self.paths.key_changed(slot, changed.pos, &edit);
            let here = |u: &Update| {
                let path = u.to.path.and_then(|i| self.paths.get(i));
                path.and_then(|p| p.slot(u.level)) == Some(slot)
            };
            // Those that follow are behind it.
            for later in self.pending.updates_after(i).filter(|u| here(u)) {
                if let Some(at) = later.at.as_mut() {
                    at.keep_up(&edit, true);
                }
            }
            self.btree.dirtied(head, Some(seq));
            if level > 0 {
                head.set(Flag::NEED_WRITE);
            }
        }
        if live_u64s < 0 {
            head.shrunk(live_u64s.unsigned_abs());
        }
        self.btree.overlay_written(btree, level, &changed);
        Ok(())
    }

    /// Changes the cached key that update `i` goes to, if any. The node has been changed.
    fn apply_to_key(&mut self, w: &Writing<'t>, i: usize, seq: u64) -> Result {
        let u = self.pending.update(i).ok_or(Error::BtreeTopology)?;
        let Some(slot) = u.to.key else {
            return Ok(());
        };
        let cache = &self.btree.key_cache;
        if u.to.path.is_none() {
            let data = self.keys.locks.get_mut(slot).ok_or(Error::BtreeTopology)?;
            if !data.set(self.pending.get(&u.new)) {
                return Err(Error::BtreeTopology);
            }
        }
        let key = self.keys.locks.lock_ref(slot).ok_or(Error::BtreeTopology)?;
        match (u.to.path, u.cleans) {
            (None, _) => cache.changed(w.log, key.shared(), seq),
            (Some(_), true) => cache.written(w.log, key.shared()),
            (Some(_), false) => cache.drop_key(w.log, key),
        }
        Ok(())
    }
}
