// SPDX-License-Identifier: GPL-2.0
//! Running the triggers of updates.
//!
//! Btree by btree, in the order of their numbers: first for what only goes, then for what comes. So what moves within a btree is
//! never without a reference when the triggers of later btrees judge by that. Updates of buckets come last, since nearly everything
//! else makes some. Triggers may add updates, which have triggers in turn: all is repeated until no update is new.

use super::{
    pending::{Target, Update},
    update::{CommitFlags, UpdateFlags},
    Attempt, TransError,
};
use crate::{
    btree::{
        engine::Writing,
        key_cache::HeldKeys,
        node::{Cursor, NodeLocks},
        path::Paths,
        triggers::{KeyMut, Place},
        Btree,
    },
    util::error::{Error, Result},
};
use bcachefs_format::{Bkey, Bpos, BtreeId, KeyRef};

/// Result of what may restart.
type Tried<T = ()> = core::result::Result<T, TransError>;

/// What is at exactly `pos` now, where an update goes to: in the key cache, in the node, or among the journal's keys over it; type
/// `deleted` if there is nothing. `place` is where it is in the node, as far as that is known.
fn current<'a>(
    (btree, locks, keys): (&'a Btree, &'a NodeLocks, &'a HeldKeys),
    paths: &Paths,
    to: Target,
    (id, level, pos): (BtreeId, u8, Bpos),
    place: Option<Cursor>,
) -> Option<KeyRef<'a>> {
    if let Some(slot) = to.key {
        return keys.get(slot);
    }
    if let Some(keys) = btree.overlay(id, level) {
        if let Some(key) = keys.first_from(pos, pos) {
            return Some(key);
        }
    }
    let slot = paths.get(to.path?)?.slot(level)?;
    let node = locks.get(slot)?;
    let mut cursor = node.seek_from(place, pos);
    let found = cursor.peek_live(node).map(|f| f.key.unpack(node.format()));
    Some(match found.filter(|k| k.key.pos == pos) {
        Some(k) => KeyRef {
            key: Bkey {
                needs_whiteout: false,
                ..k.key
            },
            value: k.value,
        },
        None => KeyRef {
            key: Bkey::deleted(pos),
            value: &[],
        },
    })
}

fn is_bucket(u: &Update) -> bool {
    u.btree == BtreeId::ALLOC && u.level == 0
}

/// Whether its transactional triggers are still to be run.
fn is_due(u: &Update) -> bool {
    !(u.flags.no_triggers || u.inserted && u.overwritten)
}

impl<'t> Attempt<'t> {
    /// Runs the transactional triggers of all updates, and of those that they make. May sleep and restart.
    pub(super) fn run_triggers(&mut self, w: &Writing<'t>, flags: CommitFlags) -> Tried {
        let mut updates = self.pending.updates().iter();
        if !updates.any(|u| w.triggers.concerns(u.btree, u.level)) {
            return Ok(());
        }
        loop {
            let mut ran = false;
            for buckets in [false, true] {
                let mut from = 0;
                while let Some(btree) = self.next_triggered(from, buckets) {
                    while self.run_btree(w, flags, btree, buckets)? {
                        ran = true;
                    }
                    from = btree.0 + 1;
                }
            }
            if !ran {
                return Ok(());
            }
        }
    }

    /// The first btree from number `from` on that has updates whose triggers have not run.
    fn next_triggered(&self, from: u8, buckets: bool) -> Option<BtreeId> {
        let mut updates = self.pending.updates().iter();
        let next = updates.find(|u| u.btree.0 >= from && is_bucket(u) == buckets && is_due(u));
        next.map(|u| u.btree)
    }

    /// Runs those of all updates of a btree once, first of what only goes. Whether there were any.
    fn run_btree(
        &mut self,
        w: &Writing<'t>,
        flags: CommitFlags,
        btree: BtreeId,
        buckets: bool,
    ) -> Tried<bool> {
        let mut ran = false;
        for insert in [false, true] {
            let mut i = 0;
            // One that is added before the current place is met next time.
            while let Some(u) = self.pending.update(i) {
                if u.btree == btree && is_bucket(u) == buckets && is_due(u) {
                    ran |= self.run_trigger(w, flags, i, insert)?;
                }
                i += 1;
            }
        }
        Ok(ran)
    }

    fn run_trigger(
        &mut self,
        w: &Writing<'t>,
        flags: CommitFlags,
        i: usize,
        insert: bool,
    ) -> Tried<bool> {
        let Some(u) = self.pending.update(i) else {
            return Ok(false);
        };
        let (btree, level, new, before, place) = (u.btree, u.level, u.new, u.before, u.at);
        let invalidate = u.flags.invalidate;
        let (to, at) = (u.to, (btree, level, new.key.pos));
        let old = match &before {
            Some(before) => Some(self.pending.get(before)),
            None => current((self.btree, self.locks, self.keys), self.paths, to, at, place),
        };
        let Some(old) = old else {
            return Err(self.lost());
        };
        let goes = w.triggers.has_transactional(btree, level, &old.key);
        let comes = w.triggers.has_transactional(btree, level, &new.key);
        // Those for what only comes have their turn when all is gone that goes.
        if comes && !goes && !insert {
            return Ok(false);
        }
        if !goes && !comes {
            if let Some(u) = self.pending.update_mut(i) {
                (u.overwritten, u.inserted) = (true, true);
            }
            return Ok(false);
        }
        // Copies, that the trigger can have while it changes the transaction. There is room for two keys.
        let old_key = old.key;
        self.scratch.clear();
        for words in [old.value, self.pending.value(&new)] {
            for word in words {
                let _ = self.scratch.push_within_capacity(*word);
            }
        }
        let mut scratch = core::mem::take(self.scratch);
        if let Some(u) = self.pending.update_mut(i) {
            (u.overwritten, u.inserted) = (true, true);
        }
        let mut key = new.key;
        let (old_value, new_value) = scratch.split_at_mut(usize::from(old_key.value_u64s()));
        let place = Place {
            btree,
            level,
            insert: comes,
            overwrite: goes,
            invalidate,
            watermark: flags.watermark,
        };
        let old = KeyRef {
            key: old_key,
            value: old_value,
        };
        let new_mut = KeyMut {
            key: &mut key,
            value: new_value,
        };
        let result = w
            .triggers
            .transactional(self, place, old, new_mut)
            .and_then(|()| self.store_back(at, &new, key, new_value))
            .map(|()| true);
        *self.scratch = scratch;
        result
    }

    /// Takes over what a trigger has made of a pending key, unless it has replaced that altogether.
    fn store_back(
        &mut self,
        (btree, level, pos): (BtreeId, u8, Bpos),
        new: &super::pending::Stored,
        key: Bkey,
        value: &[u64],
    ) -> Tried {
        let value = value
            .get(..usize::from(key.value_u64s()))
            .filter(|_| key.pos == pos)
            .ok_or(Error::BtreeKeyInvalid)?;
        if key == new.key && value == self.pending.value(new) {
            return Ok(());
        }
        self.make_room(value.len())?;
        let Some(i) = self.pending.find(btree, level, pos) else {
            return Ok(());
        };
        let stored = self.pending.store(KeyRef { key, value })?;
        if let Some(u) = self.pending.update_mut(i).filter(|u| u.new.same(new)) {
            u.new = stored;
        }
        Ok(())
    }

    /// Runs the atomic triggers of all updates for a commit in entry `seq`, with the nodes locked for write. Does not sleep.
    pub(super) fn run_atomic(&mut self, w: &Writing<'t>, flags: CommitFlags, seq: u64) -> Result {
        for i in 0..self.pending.updates().len() {
            let Some(u) = self.pending.update(i) else {
                break;
            };
            let UpdateFlags {
                no_triggers,
                invalidate,
                ..
            } = u.flags;
            if no_triggers || !w.triggers.concerns(u.btree, u.level) {
                continue;
            }
            let (btree, level, new, place) = (u.btree, u.level, u.new.key, u.at);
            let at = (btree, level, new.pos);
            let old = current((self.btree, self.locks, self.keys), self.paths, u.to, at, place);
            let old = old.ok_or(Error::BtreeTopology)?;
            let goes = w.triggers.has_atomic(btree, level, &old.key);
            let comes = w.triggers.has_atomic(btree, level, &new);
            if !goes && !comes {
                continue;
            }
            let place = Place {
                btree,
                level,
                insert: comes,
                overwrite: goes,
                invalidate,
                watermark: flags.watermark,
            };
            let key = self.pending.key_mut(i).ok_or(Error::BtreeTopology)?;
            w.triggers.atomic(place, seq, old, key)?;
            let Some(u) = self.pending.update(i) else {
                break;
            };
            if u.new.key.pos != new.pos || u.new.key.u64s != new.u64s {
                return Err(Error::BtreeKeyInvalid);
            }
            self.btree.validate(btree, level, self.pending.get(&u.new))?;
        }
        Ok(())
    }
}
