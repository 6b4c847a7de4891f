// SPDX-License-Identifier: GPL-2.0
//! What a change means for other snapshots.
//!
//! Of the keys at one position a snapshot sees the one of its nearest ancestor, itself included. Numbers go down from a snapshot to
//! its descendants, so in the order of keys descendants come before a position, ancestors behind it.

use super::{Attempt, TransError};
use crate::btree::{Btree, IterFlags};
use bcachefs_format::{Bpos, BtreeId};
use kernel::prelude::*;

/// Result of what may restart.
type Tried<T = ()> = core::result::Result<T, TransError>;

/// Keys of all snapshots, each by itself.
const ALL: IterFlags = IterFlags::ALL_SNAPSHOTS.with(IterFlags::NOT_EXTENTS).with(IterFlags::KEEP);

impl Btree {
    /// Whether a snapshot has children. Files in such a snapshot do not change.
    pub(super) fn is_internal(&self, id: u32) -> bool {
        self.ancestry.as_ref().is_some_and(|a| a.is_internal(id))
    }
}

impl Attempt<'_> {
    /// Whether something would be seen at `pos` if its snapshot had no key there. May sleep.
    pub(super) fn inherits(&mut self, btree: BtreeId, pos: Bpos) -> Tried<bool> {
        if !btree.has_snapshots() {
            return Ok(false);
        }
        let Some(from) = pos.successor().filter(|p| p.eq_nosnap(pos)) else {
            return Ok(false);
        };
        let mut iter = self.iter(btree, from, ALL);
        while let Some(k) = iter.peek_upto(self, pos.at_snapshot(u32::MAX))? {
            let key = k.key;
            if self.btree.sees(pos.snapshot, key.pos.snapshot) {
                return Ok(!key.key_type.is_whiteout());
            }
            if !iter.advance() {
                break;
            }
        }
        Ok(false)
    }

    /// Whether a descendant of the snapshot of `pos` has a key of its own there. May sleep.
    pub(super) fn hidden_in_descendants(&mut self, btree: BtreeId, pos: Bpos) -> Tried<bool> {
        if !btree.has_snapshots() {
            return Ok(false);
        }
        let mut found = false;
        self.descendants(btree, pos, |_| {
            found = true;
            Ok(false)
        })?;
        Ok(found)
    }

    /// The descendants of the snapshot of `pos` that have a key of their own there. May sleep.
    pub(super) fn overwriting(&mut self, btree: BtreeId, pos: Bpos) -> Tried<KVec<u32>> {
        let mut ids = KVec::new();
        loop {
            let mut full = false;
            self.descendants(btree, pos, |id| {
                if ids.contains(&id) {
                    return Ok(true);
                }
                full = ids.push_within_capacity(id).is_err();
                Ok(!full)
            })?;
            if !full {
                return Ok(ids);
            }
            let n = ids.capacity().max(8);
            if ids.reserve(n, GFP_NOWAIT | __GFP_NOWARN).is_err() {
                self.unlock();
                ids.reserve(n, GFP_KERNEL)?;
                self.relock()?;
            }
        }
    }

    /// Calls `f` with every descendant of the snapshot of `pos` that has a key there, until it returns false.
    fn descendants(
        &mut self,
        btree: BtreeId,
        pos: Bpos,
        mut f: impl FnMut(u32) -> Tried<bool>,
    ) -> Tried {
        let mut iter = self.iter(btree, pos.at_snapshot(0), ALL);
        let Some(end) = pos.predecessor().filter(|p| p.eq_nosnap(pos)) else {
            return Ok(());
        };
        while let Some(k) = iter.peek_upto(self, end)? {
            let id = k.key.pos.snapshot;
            if self.btree.sees(id, pos.snapshot) && !f(id)? {
                break;
            }
            if !iter.advance() {
                break;
            }
        }
        Ok(())
    }
}
