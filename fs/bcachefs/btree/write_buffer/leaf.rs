// SPDX-License-Identifier: GPL-2.0
//! Putting keys of the write buffer into a leaf.

use super::{flush::done, item::Item, Tried};
use crate::{
    btree::{
        node::Flag,
        trans::{update::CommitFlags, Attempt, Reason, TransError},
        Btree,
    },
    util::error::{Error, Result},
};
use bcachefs_format::KeyRef;
use kernel::prelude::*;
use kfs::sync::six::Slot;

/// How far it got.
enum Outcome {
    /// All keys that belong into the leaf are there; whether it has shrunk.
    Done(bool),
    /// There is no room for the next one.
    Full,
    /// The node needs memory to be changed.
    NeedMemory,
}

impl Btree {
    /// Puts the keys from `order[*at]` on that go into the same leaf there, and moves `at` behind them. Sleeps; no locks may be held.
    ///
    /// # Errors
    ///
    /// [`Error::WouldDeadlock`] if the leaf has to be split and that would have to wait for room in the journal: none of the keys from `at`
    /// on has been written.
    pub(super) fn flush_leaf(
        &self,
        items: &mut [Item],
        order: &[u32],
        at: &mut usize,
        flags: CommitFlags,
    ) -> Result {
        let start = *at;
        self.run(|t| {
            // What was put there before a restart stays.
            if *at > start {
                return Ok(());
            }
            let first = order.get(*at).and_then(|i| items.get(*i as usize)).copied();
            let Some(first) = first else {
                *at += 1;
                return Ok(());
            };
            t.paths.writing = true;
            let path = t.keeper(first.btree, 0, first.pos(), None)?;
            let slot = t.path(path)?.slot(0).ok_or_else(|| t.lost())?;
            t.write_lock(slot)?;
            let outcome = t.put_buffered(slot, items, order, at);
            t.write_unlock(slot);
            match outcome? {
                Outcome::Done(false) => Ok(()),
                Outcome::Done(true) => match self.maybe_merge(t, path, flags) {
                    // It will be merged another time.
                    Err(TransError::Fs(Error::WouldDeadlock)) => Ok(()),
                    result => result,
                },
                Outcome::Full if *at > start => Ok(()),
                Outcome::Full => {
                    self.split_leaf(t, path, flags)?;
                    Err(t.restart(Reason::Split))
                }
                Outcome::NeedMemory => {
                    let node = t.locks.lock_ref(slot).cloned().ok_or_else(|| t.lost())?;
                    t.unlock();
                    self.provide(&node)?;
                    Err(t.restart(Reason::Relock))
                }
            }
        })
    }
}

impl Attempt<'_> {
    /// With the leaf locked for write. Does not sleep.
    fn put_buffered(
        &mut self,
        slot: Slot,
        items: &mut [Item],
        order: &[u32],
        at: &mut usize,
    ) -> Tried<Outcome> {
        let btree = self.btree;
        let node = self.locks.lock_ref(slot).cloned().ok_or(Error::BtreeTopology)?;
        let data = self.locks.get_mut(slot).ok_or(Error::BtreeTopology)?;
        let head = node.shared();
        if head.has(Flag::FAKE) || head.has(Flag::NEED_REWRITE) {
            return Ok(Outcome::Full);
        }
        if btree.prepare(&node, data, GFP_NOWAIT | __GFP_NOWARN).is_err() {
            return Ok(Outcome::NeedMemory);
        }
        let id = order.get(*at).and_then(|i| items.get(*i as usize)).map(|item| item.btree);
        let mut shrunk = false;
        while let Some(item) = order.get(*at).and_then(|i| items.get_mut(*i as usize)) {
            if Some(item.btree) != id || !data.covers(item.pos()) {
                break;
            }
            // Worked out anew each time: the item itself stays an increment until it has been written.
            let mut new = *item;
            if new.adds() {
                let mut cursor = data.seek(new.pos());
                let old = cursor.peek_live(data).map(|found| found.key.unpack(data.format()));
                if let Some(old) = old.filter(|old| old.key.pos == new.pos()) {
                    new.add(old);
                }
            }
            let key: KeyRef<'_> = new.get();
            if data.room() < usize::from(key.key.u64s) {
                return Ok(Outcome::Full);
            }
            let change = data.insert(key, new.seq).map_err(|_| Error::BtreeTopology)?;
            if change.changed() {
                btree.dirtied(head, Some(new.oldest));
            }
            if change.live_u64s < 0 {
                head.shrunk(change.live_u64s.unsigned_abs());
                shrunk = true;
            }
            btree.overlay_written(new.btree, 0, &key.key);
            done(item);
            *at += 1;
        }
        Ok(Outcome::Done(shrunk))
    }
}
