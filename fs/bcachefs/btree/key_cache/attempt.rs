// SPDX-License-Identifier: GPL-2.0
//! The key cache as transactions use it.

use super::{entry, held::Shown, CachedKey, KeyCache};
use crate::{
    btree::{
        path,
        trans::{
            pending::{Stored, Target},
            update::UpdateFlags,
            Attempt, Reason, TransError,
        },
    },
    util::error::Error,
};
use bcachefs_format::{Bkey, Bpos, BtreeId, KeyRef};
use kernel::{prelude::*, sync::Arc};
use kfs::sync::six::{LockError, Mode, Slot};

/// Result of what may restart.
type Tried<T = ()> = core::result::Result<T, TransError>;

/// How often an update looks where it is to go, others coming in between each time.
const TRIES_MAX: usize = 16;

impl<'t> Attempt<'t> {
    fn key_cache(&self) -> &'t KeyCache {
        &self.btree.key_cache
    }

    /// Locks a key, and adds a use of its slot. `None`: it is not in the cache any more. May sleep.
    pub(super) fn lock_key(&mut self, key: &Arc<CachedKey>, mode: Mode) -> Tried<Option<Slot>> {
        let slot = match self.keys.locks.reference(key) {
            Ok(slot) => slot,
            Err(e) => return Err(self.restart(e.into())),
        };
        if let Err(e) = self.keys.locks.lock_beside(slot, mode, self.locks) {
            self.keys.locks.put(slot);
            if e == LockError::Upgrade {
                self.upgrade_failed(key.shared().place().0, 0);
                return Err(self.restart(Reason::KeyCacheUpgrade));
            }
            return Err(self.restart(e.into()));
        }
        if key.shared().is_dead() {
            self.keys.locks.put(slot);
            return Ok(None);
        }
        key.shared().touch();
        Ok(Some(slot))
    }

    /// Locks the key at `pos`, if it is in the cache, and adds a use of its slot. May sleep.
    fn find_key(&mut self, btree: BtreeId, pos: Bpos, mode: Mode) -> Tried<Option<Slot>> {
        while let Some(key) = self.key_cache().get(btree, pos) {
            if let Some(slot) = self.lock_key(&key, mode)? {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// Keeps a locked key until the commit. Takes over a use of the slot.
    pub(super) fn keep_key(&mut self, slot: Slot) -> Tried {
        match self.keys.keep(slot) {
            true => Ok(()),
            false => Err(Error::TransTooBig.into()),
        }
    }

    /// Path `index` is about to look from `pos` again: what it has shown from there must not have changed.
    #[inline]
    pub(in crate::btree) fn same_keys(&mut self, index: u8, pos: Bpos) -> Tried {
        if !self.keys.any_shown() {
            return Ok(());
        }
        let again = self.paths.get(index).is_some_and(|p| p.hold && p.pos == pos);
        match again {
            true => self.relock_key(index),
            false => Ok(()),
        }
    }

    /// What path `index` has found in a leaf at `pos` may be newer in the cache: the slot of that, if it is there, which the path
    /// keeps until it shows something else. The leaf is locked. May sleep.
    #[inline]
    pub(in crate::btree) fn newer(
        &mut self,
        index: u8,
        btree: BtreeId,
        pos: Bpos,
    ) -> Tried<Option<(Slot, Bkey)>> {
        let bare = self.key_cache().bare(btree, pos);
        let want = self.paths.want(self.path(index)?);
        match self.find_key(btree, pos, path::mode(want, 0))? {
            Some(slot) => {
                self.keys.show_key(index, slot);
                let key = self.keys.get(slot).ok_or_else(|| self.lost())?;
                Ok(Some((slot, key.key)))
            }
            None => {
                self.keys.show_bare(index, bare);
                Ok(None)
            }
        }
    }

    /// Shows the key at exactly `pos` through path `index`, if it is in the cache: the leaf is not needed then. May sleep.
    pub(in crate::btree) fn only_here(
        &mut self,
        index: u8,
        btree: BtreeId,
        pos: Bpos,
    ) -> Tried<Option<(Slot, Bkey)>> {
        let want = self.paths.want(self.path(index)?);
        self.same_keys(index, pos)?;
        let Some(slot) = self.find_key(btree, pos, path::mode(want, 0))? else {
            return Ok(None);
        };
        self.leave_leaf(index, pos)?;
        self.keys.show_key(index, slot);
        let key = self.keys.get(slot).ok_or_else(|| self.lost())?;
        Ok(Some((slot, key.key)))
    }

    /// Path `index` is at `pos` without the leaf.
    pub(in crate::btree) fn leave_leaf(&mut self, index: u8, pos: Bpos) -> Tried {
        self.check()?;
        self.same_keys(index, pos)?;
        if let Some(path) = self.paths.get_mut(index) {
            path.drop_level(0, self.locks);
            path.pos = pos;
            path.hold = false;
        }
        Ok(())
    }

    /// Locks what path `index` has shown of the cache, if it is as it was. Does not sleep.
    pub(in crate::btree) fn relock_key(&mut self, index: u8) -> Tried {
        let want = self.paths.want(self.path(index)?);
        match self.keys.shown(index) {
            Shown::Nothing => Ok(()),
            Shown::Key(slot) if !self.keys.relock(index, path::mode(want, 0)) => {
                Err(self.key_lost(index, slot))
            }
            Shown::Key(_) => Ok(()),
            Shown::Bare(bare) if !self.key_cache().still(bare) => {
                Err(self.restart(Reason::KeyCacheRaced))
            }
            Shown::Bare(_) => Ok(()),
        }
    }

    #[cold]
    fn key_lost(&mut self, index: u8, slot: Slot) -> TransError {
        if self.keys.locks.mode(slot) == Some(Mode::Read) {
            if let Some(btree) = self.paths.get(index).map(|p| p.btree) {
                self.upgrade_failed(btree, 0);
            }
            return self.restart(Reason::KeyCacheUpgrade);
        }
        self.restart(Reason::RelockPath)
    }

    /// Locks what updates keep, if it is as it was. Does not sleep.
    pub(in crate::btree) fn relock_kept(&mut self) -> Tried {
        match self.keys.relock_kept() {
            true => Ok(()),
            false => Err(self.restart(Reason::Relock)),
        }
    }

    /// Before a change of what path `index` has shown: if that depends on the cache, nobody else changes it until the commit.
    /// Whether that was all there is to do; otherwise the leaf has to be kept, too.
    pub(in crate::btree) fn keep_shown(&mut self, index: u8) -> Tried<bool> {
        match self.keys.shown(index) {
            Shown::Nothing => Ok(false),
            Shown::Key(slot) if !self.keys.relock(index, Mode::Intent) => Err(self.key_lost(index, slot)),
            Shown::Key(_) => Ok(true),
            Shown::Bare(_) => self.relock_key(index).map(|()| false),
        }
    }

    /// With all locks of a commit: what was found in leaves, and not in the cache, has not come in since.
    pub(in crate::btree) fn still_bare(&self) -> bool {
        let still = |bare| self.key_cache().still(bare);
        let mut updates = self.pending.updates().iter();
        let shown = match self.keys.any_shown() {
            true => self.paths.len() as u8,
            false => 0,
        };
        updates.all(|u| u.to.bare.is_none_or(still))
            && (0..shown).all(|i| match self.keys.shown(i) {
                Shown::Bare(bare) => !self.paths.depends(self.live, i) || still(bare),
                _ => true,
            })
    }

    /// Where an update of a btree with cached keys goes: finds out, locks it for intent, and keeps it. May sleep.
    pub(in crate::btree) fn target(
        &mut self,
        btree: BtreeId,
        new: &Stored,
        flags: UpdateFlags,
        near: Option<u8>,
    ) -> Tried<Target> {
        let pos = new.key.pos;
        let here = !new.key.key_type.is_whiteout() && !flags.bypass_key_cache;
        for _ in 0..TRIES_MAX {
            let bare = self.key_cache().bare(btree, pos);
            if let Some(slot) = self.find_key(btree, pos, Mode::Intent)? {
                self.keep_key(slot)?;
                let path = match here {
                    true => None,
                    false => Some(self.keeper(btree, 0, pos, near)?),
                };
                return Ok(Target { path, key: Some(slot), bare: None });
            }
            if here && self.key_cache().is_filling() {
                if let Some(slot) = self.bring_in(btree, pos, near)? {
                    self.keep_key(slot)?;
                    return Ok(Target { path: None, key: Some(slot), bare: None });
                }
            }
            let path = self.keeper(btree, 0, pos, near)?;
            if self.key_cache().still(bare) {
                return Ok(Target { path: Some(path), key: None, bare: Some(bare) });
            }
        }
        Err(self.restart(Reason::KeyCacheRaced))
    }

    /// Brings the key at `pos` into the cache, and locks it for intent. `None` if the leaf has none, there is no memory, or somebody else
    /// was faster. May sleep.
    fn bring_in(&mut self, btree: BtreeId, pos: Bpos, near: Option<u8>) -> Tried<Option<Slot>> {
        if self.btree.overlay(btree, 0).is_some() {
            return Ok(None);
        }
        let Some(index) = self.paths.pick(self.live, btree, 0, pos, 0, self.locks) else {
            return Err(self.restart(Reason::TooManyPaths));
        };
        self.keys.forget(index);
        if let Some(near) = near {
            self.paths.copy(near, index, self.locks);
        }
        let Some(leaf) = self.traverse(index, pos, 0)? else {
            return Ok(None);
        };
        let slot = match self.read_leaf(leaf, btree, pos)? {
            Some(key) => self.insert_key(&key)?,
            None => None,
        };
        self.unlock_unless_needed(index, leaf);
        Ok(slot)
    }

    /// A copy of the key at exactly `pos` in a locked leaf, for the cache.
    fn read_leaf(&self, leaf: Slot, btree: BtreeId, pos: Bpos) -> Tried<Option<Arc<CachedKey>>> {
        let node = self.locks.get(leaf).ok_or_else(|| self.lost())?;
        let mut cursor = node.seek(pos);
        let found = cursor.peek_live(node).map(|f| f.key.unpack(node.format()));
        let found: Option<KeyRef<'_>> =
            found.filter(|k| k.key.pos == pos && !k.key.key_type.is_whiteout());
        // Without memory it goes to the leaf as ever.
        Ok(found.and_then(|key| entry::copy(btree, key, GFP_NOWAIT | __GFP_NOWARN).ok()))
    }

    /// Puts a new key into the cache, with its leaf locked.
    fn insert_key(&mut self, key: &Arc<CachedKey>) -> Tried<Option<Slot>> {
        // Locked before anybody can find it.
        let Some(slot) = self.lock_key(key, Mode::Intent)? else {
            return Ok(None);
        };
        match self.key_cache().insert(key, GFP_NOWAIT | __GFP_NOWARN) {
            Ok(Some(before)) => {
                self.keys.came(slot, before);
                self.pending.came(|bare| before.passed(bare));
                Ok(Some(slot))
            }
            Ok(None) | Err(_) => {
                self.keys.locks.put(slot);
                Ok(None)
            }
        }
    }

    /// Locks a key for write on top of intent. Sleeps for readers to leave.
    pub(in crate::btree) fn write_lock_key(&mut self, slot: Slot) -> Tried {
        match self.keys.locks.mode(slot) {
            Some(Mode::Write) => return Ok(()),
            Some(Mode::Intent) => {}
            _ => return Err(self.restart(Reason::RelockPathIntent)),
        }
        match self.keys.locks.lock_beside(slot, Mode::Write, self.locks) {
            Ok(()) => Ok(()),
            Err(LockError::WouldDeadlock) => Err(self.restart(Reason::WouldDeadlockWrite)),
            Err(e) => Err(self.restart(e.into())),
        }
    }

    /// Back from write to intent.
    pub(in crate::btree) fn write_unlock_key(&mut self, slot: Slot) {
        if self.keys.locks.mode(slot) != Some(Mode::Write) {
            return;
        }
        let before = self.keys.locks.seq(slot);
        self.keys.locks.downgrade(slot, Mode::Intent);
        if let (Some(before), Some(now)) = (before, self.keys.locks.seq(slot)) {
            self.keys.changed(slot, before, now);
        }
    }

    /// After a commit, or instead of one: lets go of what only updates, and iterators that are gone, needed.
    pub(in crate::btree) fn release_keys(&mut self) {
        self.keys.release_kept();
        if !self.keys.any_shown() {
            return;
        }
        for index in 0..self.paths.len() as u8 {
            if !self.live.contains(index) {
                self.keys.forget(index);
                continue;
            }
            let want = self.paths.get(index).map_or(0, |p| self.paths.want(p));
            if let (Shown::Key(slot), 0) = (self.keys.shown(index), want) {
                self.keys.locks.downgrade(slot, Mode::Read);
            }
        }
    }
}
