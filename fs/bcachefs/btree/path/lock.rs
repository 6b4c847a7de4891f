// SPDX-License-Identifier: GPL-2.0
//! Locks beyond those for reading: intent, several levels of it, and write.

use super::table::mode;
use crate::{
    btree::{
        node::Flag,
        trans::{Attempt, Reason, TransError},
    },
    util::counters::Counter,
};
use bcachefs_format::{btree_node::BTREE_MAX_DEPTH, Bpos, BtreeId};
use kfs::sync::six::{LockError, Mode, Slot};

impl Attempt<'_> {
    /// Locks again what the attempt depends on, except what path `except` leads to. Does not sleep.
    pub(in crate::btree) fn relock_held(
        &mut self,
        except: Option<u8>,
        reason: Reason,
    ) -> Result<(), TransError> {
        for i in 0..self.paths.len() as u8 {
            if Some(i) == except || !self.paths.depends(self.live, i) {
                continue;
            }
            self.relock_key(i)?;
            let path = self.path(i)?;
            let level = path.level;
            let Some(slot) = path.slot(level) else {
                continue;
            };
            let (want, seq) = (self.paths.want(path), path.seq);
            if !self.relock_same(slot, mode(want, level), seq) {
                self.btree.counters.inc(Counter::BTREE_PATH_RELOCK_FAIL);
                return Err(self.restart(reason));
            }
            if want > level + 1 && !self.relock_above(i)? {
                return Err(self.restart(reason));
            }
        }
        self.relock_kept()
    }

    /// Locks a node again, if it is as it was under `seq`. Does not sleep.
    fn relock_same(&mut self, slot: Slot, mode: Mode, seq: u32) -> bool {
        self.locks.relock(slot, mode) && self.locks.seq(slot) == Some(seq)
    }

    /// Locks again those nodes above the one the path leads to that it wants for intent. Does not sleep.
    pub(super) fn relock_above(&mut self, index: u8) -> Result<bool, TransError> {
        let path = self.path(index)?;
        let (level, want, slots) = (path.level, self.paths.want(path), path.slots);
        let above = slots
            .iter()
            .enumerate()
            .filter(|(l, _)| *l > usize::from(level) && *l < usize::from(want));
        for slot in above.filter_map(|(_, s)| *s) {
            if !self.locks.relock(slot, Mode::Intent) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What the path has shown cannot be locked again: the end of the attempt.
    #[cold]
    pub(super) fn relock_failed(&mut self, index: u8, slot: Slot) -> TransError {
        self.btree.counters.inc(Counter::BTREE_PATH_RELOCK_FAIL);
        if self.locks.mode(slot) == Some(Mode::Read) {
            // Only intent was missing.
            if let Some((btree, level)) = self.paths.get(index).map(|p| (p.btree, p.level)) {
                self.upgrade_failed(btree, level);
            }
            return self.restart(Reason::Upgrade);
        }
        let reason = match self.paths.get(index).map(|p| self.paths.want(p) > p.level) {
            Some(true) => Reason::RelockPathIntent,
            _ => Reason::RelockPath,
        };
        self.restart(reason)
    }

    /// A read could not be turned into intent. All paths of the btree take intent from now on: two transactions that read first
    /// would get into each other's way for ever.
    #[cold]
    pub(in crate::btree) fn upgrade_failed(&mut self, btree: BtreeId, level: u8) {
        self.btree.counters.inc(Counter::BTREE_PATH_UPGRADE_FAIL);
        self.paths.raise(btree, level + 1);
    }

    /// What the path has shown, if anything, is still so, and nobody changes it until the commit.
    pub(in crate::btree) fn keep(&mut self, index: u8) -> Result<(), TransError> {
        if self.keep_shown(index)? {
            return Ok(());
        }
        let path = self.path(index)?;
        let (level, hold, seq) = (path.level, path.hold, path.seq);
        let want = self.paths.want(path).max(level + 1);
        self.paths.set_want(index, want);
        match self.path(index)?.slot(level).filter(|_| hold) {
            Some(slot) if !self.relock_same(slot, Mode::Intent, seq) => Err(self.relock_failed(index, slot)),
            _ => Ok(()),
        }
    }

    /// The path is going to leave its node: another one stays there, so that the node stays locked until the commit.
    pub(in crate::btree) fn leave_behind(&mut self, index: u8) -> Result<(), TransError> {
        let path = self.path(index)?;
        let (btree, level, pos, seq) = (path.btree, path.level, path.pos, path.seq);
        let want = self.paths.want(path);
        let Some(slot) = path.slot(level) else {
            return Ok(());
        };
        if self.paths.is_kept(index, slot, seq, want) {
            return Ok(());
        }
        let picked = self.paths.pick(self.live, btree, level, pos, want, self.locks);
        let Some(other) = picked else {
            return Err(self.restart(Reason::TooManyPaths));
        };
        self.keys.forget(other);
        self.paths.copy(index, other, self.locks);
        if let Some(path) = self.paths.get_mut(other) {
            path.pos = pos;
            path.seq = seq;
            path.hold = true;
        }
        Ok(())
    }

    /// The path is going to leave a node that it keeps locked for updates: another one does that from now on.
    #[inline(never)]
    pub(super) fn hand_over(&mut self, index: u8) -> Result<(), TransError> {
        let path = self.path(index)?;
        let (btree, level, pos, seq) = (path.btree, path.level, path.pos, path.seq);
        let picked = self.paths.pick(self.live, btree, level, pos, level + 1, self.locks);
        let Some(other) = picked else {
            return Err(self.restart(Reason::TooManyPaths));
        };
        self.keys.forget(other);
        self.paths.copy(index, other, self.locks);
        if let Some(path) = self.paths.get_mut(other) {
            path.pos = pos;
            path.seq = seq;
            path.hold = true;
            path.kept = true;
        }
        if let Some(path) = self.paths.get_mut(index) {
            path.kept = false;
        }
        self.pending.handed_over(index, other);
        Ok(())
    }

    /// Has the iterator's path `near` keep the node of an update at `pos`, if that is where it is. Otherwise false.
    #[inline]
    fn keep_there(&mut self, near: u8, btree: BtreeId, level: u8, pos: Bpos) -> Result<bool, TransError> {
        let path = self.path(near)?;
        let seq = path.seq;
        let Some(slot) = path.slot(level).filter(|_| path.btree == btree && path.level == level) else {
            return Ok(false);
        };
        let locked = self.locks.mode(slot) >= Some(Mode::Intent) && self.locks.seq(slot) == Some(seq);
        let dead = self.head(slot).is_none_or(|h| h.has(Flag::DEAD));
        let there = locked && !dead && self.locks.get(slot).is_some_and(|n| n.covers(pos));
        // It stays in the node, so this only moves the cursor.
        if !there || self.traverse(near, pos, 0)? != Some(slot) {
            return Ok(false);
        }
        if let Some(path) = self.paths.get_mut(near) {
            path.want = path.want.max(level + 1);
            path.hold = true;
            path.kept = true;
        }
        Ok(true)
    }

    /// Locks the nodes of a path from its own level up to below `want` for intent, as far as the tree is that high, from the leaf
    /// upwards. Does not sleep; what cannot be had is a restart.
    ///
    /// The path must have been gone. Nodes above the root it was gone from are not looked for: whoever locks up to the top
    /// checks that the topmost node is the root.
    #[allow(dead_code)] // Until nodes are split.
    pub(in crate::btree) fn upgrade(&mut self, index: u8, want: u8) -> Result<(), TransError> {
        self.check()?;
        let path = self.path(index)?;
        let (btree, level, slots) = (path.btree, path.level, path.slots);
        let want = want.min(BTREE_MAX_DEPTH);
        self.paths.set_want(index, want);
        for (l, slot) in slots.iter().enumerate() {
            let Some(slot) = slot.filter(|_| l >= usize::from(level) && l < usize::from(want))
            else {
                continue;
            };
            if !self.locks.relock(slot, Mode::Intent) {
                self.btree.counters.inc(Counter::BTREE_PATH_UPGRADE_FAIL);
                self.paths.raise(btree, want);
                return Err(self.restart(Reason::Upgrade));
            }
        }
        Ok(())
    }

    /// Locks a node for write on top of intent. Sleeps for readers to leave.
    pub(in crate::btree) fn write_lock(&mut self, slot: Slot) -> Result<(), TransError> {
        match self.locks.mode(slot) {
            Some(Mode::Write) => return Ok(()),
            Some(Mode::Intent) => {}
            _ => return Err(self.restart(Reason::RelockPathIntent)),
        }
        match self.locks.lock_beside(slot, Mode::Write, &self.keys.locks) {
            Ok(()) => Ok(()),
            Err(LockError::WouldDeadlock) => Err(self.restart(Reason::WouldDeadlockWrite)),
            Err(e) => Err(self.restart(e.into())),
        }
    }

    /// Back from write to intent. Places found in the node before are void.
    pub(in crate::btree) fn write_unlock(&mut self, slot: Slot) {
        let before = self.locks.seq(slot);
        self.locks.downgrade(slot, Mode::Intent);
        if let (Some(before), Some(now)) = (before, self.locks.seq(slot)) {
            self.paths.node_changed(slot, self.locks.get(slot), before, now);
        }
    }

    /// After a commit: gives up intent where no iterator asks for it.
    pub(in crate::btree) fn downgrade(&mut self) {
        self.paths.lower();
        self.paths.release(self.live);
        self.release_keys();
        // A node may be shared by paths that want it differently, so first the ones that want less.
        for i in 0..self.paths.len() as u8 {
            let Some(path) = self.paths.get(i) else {
                continue;
            };
            let (want, slots) = (self.paths.want(path), path.slots);
            for (l, slot) in slots.iter().enumerate().skip(usize::from(want)) {
                let Some(slot) = slot.filter(|s| self.locks.mode(*s) > Some(Mode::Read)) else {
                    continue;
                };
                if !self.wanted(slot, l as u8) {
                    self.locks.downgrade(slot, Mode::Read);
                }
            }
        }
    }

    /// Whether any path wants intent on the node.
    fn wanted(&self, slot: Slot, level: u8) -> bool {
        (0..self.paths.len() as u8)
            .filter_map(|i| self.paths.get(i))
            .any(|p| p.slot(level) == Some(slot) && level < self.paths.want(p))
    }

    /// The path that keeps the node of an update at `pos` locked for intent until the commit: one for all updates in a node. May
    /// sleep.
    pub(in crate::btree) fn keeper(
        &mut self,
        btree: BtreeId,
        level: u8,
        pos: Bpos,
        near: Option<u8>,
    ) -> Result<u8, TransError> {
        for i in 0..self.paths.len() as u8 {
            let Some(path) = self.paths.get(i) else {
                continue;
            };
            if !path.kept || path.btree != btree || path.level != level {
                continue;
            }
            let (Some(slot), seq) = (path.slot(level), path.seq) else {
                continue;
            };
            if !self.relock_same(slot, Mode::Intent, seq) {
                return Err(self.relock_failed(i, slot));
            }
            if self.locks.get(slot).is_some_and(|n| n.covers(pos)) {
                return Ok(i);
            }
        }
        // What a path has shown of the key cache is noted with the path.
        if let Some(near) = near.filter(|_| level > 0 || !self.btree.key_cache.serves(btree)) {
            if self.keep_there(near, btree, level, pos)? {
                return Ok(near);
            }
        }
        let picked = self
            .paths
            .pick(self.live, btree, level, pos, level + 1, self.locks);
        let Some(index) = picked else {
            return Err(self.restart(Reason::TooManyPaths));
        };
        self.keys.forget(index);
        if let Some(near) = near {
            let there = self.paths.get(index).and_then(|p| p.slot(level));
            let covered = there.and_then(|s| self.locks.get(s)).is_some_and(|n| n.covers(pos));
            if !covered {
                self.paths.copy(near, index, self.locks);
            }
            self.paths.follow(near, index, pos);
        }
        let Some(slot) = self.traverse(index, pos, 0)? else {
            return Err(self.restart(Reason::NodeReused));
        };
        if self.head(slot).is_none_or(|h| h.has(Flag::DEAD)) {
            return Err(self.restart(Reason::NodeReused));
        }
        if let Some(path) = self.paths.get_mut(index) {
            path.hold = true;
            path.kept = true;
        }
        Ok(index)
    }
}
