// SPDX-License-Identifier: GPL-2.0
//! The next key in a tree, whoever may see it: nodes, the journal's keys, and what the transaction is about to change, as one.

use super::{Iter, IterFlags};
use crate::btree::{
    trans::{pending::Stored, Attempt, TransError},
    Btree,
};
use bcachefs_format::{Bkey, Bpos, BtreeId, KeyRef, KeyType};
use kfs::sync::six::Slot;

/// Counters an accounting key has at most.
pub(in crate::btree) const COUNTERS_MAX: usize = 8;

/// Where a key is.
#[derive(Copy, Clone)]
pub(super) enum Place<'t> {
    /// In a locked node.
    Node {
        /// The node.
        slot: Slot,
        /// The set.
        set: u8,
        /// Offset in the set.
        at: u32,
    },
    /// In the key cache, locked.
    Cached(Slot),
    /// Among the journal's keys; this is its value.
    Journal(&'t [u64]),
    /// Among the updates of the transaction.
    Pending(Stored),
    /// Made of a node's key and increments from the journal; its value is in the attempt.
    Combined,
    /// Nowhere: a hole.
    Nothing,
}

/// What is next.
pub(super) enum Next<'t> {
    /// A key, possibly `deleted`.
    Key(Place<'t>, Bkey),
    /// Nothing up to here (backwards: down to here); the search goes on behind.
    Edge(Bpos),
    /// The tree has no node at this level.
    NoTree,
}

impl Btree {
    fn journal_from(&self, btree: BtreeId, pos: Bpos, max: Bpos) -> Option<(&[u64], Bkey)> {
        let keys = self.overlay(btree, 0)?;
        let k = keys.first_from(pos, max)?;
        Some((k.value, k.key))
    }

    fn journal_upto(&self, btree: BtreeId, pos: Bpos, min: Bpos) -> Option<(&[u64], Bkey)> {
        let keys = self.overlay(btree, 0)?;
        let k = keys.last_upto(pos, min)?;
        Some((k.value, k.key))
    }
}

impl<'t> Attempt<'t> {
    /// The value of the key at `place`, borrowed.
    #[inline]
    pub(super) fn value_at<'a>(
        &'a self,
        place: Place<'t>,
        key: &Bkey,
    ) -> Result<&'a [u64], TransError> {
        Ok(match place {
            Place::Node { slot, set, at } => {
                let node = self.node(slot).ok_or_else(|| self.lost())?;
                let packed = node.key_at(set, at).ok_or_else(|| self.lost())?;
                packed.value(node.format())
            }
            Place::Cached(slot) => self.keys.get(slot).ok_or_else(|| self.lost())?.value,
            Place::Journal(value) => value,
            Place::Pending(ref key) => self.pending.value(key),
            Place::Combined => {
                let n = usize::from(key.value_u64s());
                self.counters.get(..n).unwrap_or(&self.counters)
            }
            Place::Nothing => &[],
        })
    }
}

impl<'t> Attempt<'t> {
    /// Copies the key at `place` to the transaction's buffer, where there must be room for it.
    pub(super) fn store_at(&mut self, place: Place<'t>, key: Bkey) -> Result<Stored, TransError> {
        let value = match place {
            Place::Pending(ref stored) => return Ok(self.pending.store_again(stored)?),
            Place::Node { slot, set, at } => {
                let packed = self.locks.get(slot).and_then(|n| Some((n, n.key_at(set, at)?)));
                match packed {
                    Some((node, packed)) => packed.value(node.format()),
                    None => return Err(self.lost()),
                }
            }
            Place::Cached(slot) => match self.keys.get(slot) {
                Some(key) => key.value,
                None => return Err(self.lost()),
            },
            Place::Journal(value) => value,
            Place::Combined => {
                let n = usize::from(key.value_u64s());
                self.counters.get(..n).unwrap_or(&self.counters)
            }
            Place::Nothing => &[],
        };
        Ok(self.pending.store(KeyRef { key, value })?)
    }
}

/// A key in a set of a locked node.
#[derive(Copy, Clone)]
pub(super) struct InSet {
    set: u8,
    at: u32,
}

impl<'t> Attempt<'t> {
    /// The value of a key in the node in `slot`.
    #[inline(always)]
    pub(super) fn value_in(&self, slot: Slot, found: InSet) -> Option<&[u64]> {
        let node = self.node(slot)?;
        Some(node.key_at(found.set, found.at)?.value(node.format()))
    }
}

impl<'t> Iter<'t> {
    /// The next key from the position on in a leaf, whoever sees it, if that is all there is to look at: no ranges, nothing in the key
    /// cache, among the journal's keys or in the transaction that would come before it. `None` does not say anything.
    ///
    /// What is found here is found by [`Iter::next_in`], too; this is for what is so nearly always.
    #[inline(always)]
    pub(super) fn quick_look(&self, t: &mut Attempt<'t>) -> Result<Option<(Slot, InSet, Bkey)>, TransError> {
        let index = self.index(t)?;
        if self.flags.has(IterFlags::EXTENTS)
            || t.btree.key_cache.serves(self.btree)
            || t.path(index)?.level != 0
            || t.btree.overlay(self.btree, 0).is_some()
        {
            return Ok(None);
        }
        let Some(slot) = t.traverse(index, self.pos, self.ahead())? else {
            return Ok(None);
        };
        let node = t.node(slot).ok_or_else(|| t.lost())?;
        let Some(found) = t.path(index)?.cursor.peek(node).filter(|f| !f.key.is_deleted()) else {
            return Ok(None);
        };
        let key = found.key.header(node.format());
        if !t.pending.no_updates() {
            let update = t.pending.first_from(self.btree, 0, self.pos);
            if update.is_some_and(|u| u.key.pos <= key.pos) {
                return Ok(None);
            }
        }
        let place = InSet {
            set: found.set,
            at: found.at,
        };
        Ok(Some((slot, place, key)))
    }

    /// Whether a look at points finds nothing at the position for whatever snapshot, as far as that is seen without further ado.
    #[inline(always)]
    pub(super) fn is_plain_hole(&self, t: &mut Attempt<'t>) -> Result<bool, TransError> {
        let index = self.index(t)?;
        if self.flags.has(IterFlags::EXTENTS)
            || !t.pending.no_updates()
            || t.btree.key_cache.serves(self.btree)
            || t.path(index)?.level != 0
            || t.btree.overlay(self.btree, 0).is_some()
        {
            return Ok(false);
        }
        let Some(slot) = t.traverse(index, self.pos, self.ahead())? else {
            return Ok(false);
        };
        let node = t.node(slot).ok_or_else(|| t.lost())?;
        let next = t.path(index)?.cursor.peek(node).map(|f| f.key.pos(node.format()));
        // At the end of the node the next one may go on with the same place in other snapshots.
        Ok(match next {
            Some(pos) => !pos.eq_nosnap(self.pos),
            None => !node.max().eq_nosnap(self.pos),
        })
    }

    /// The first key at or after `pos`.
    #[inline]
    pub(super) fn next_key(
        &mut self,
        t: &mut Attempt<'t>,
        pos: Bpos,
    ) -> Result<Next<'t>, TransError> {
        let index = self.index(t)?;
        self.next_in(t, index, pos)
    }

    /// The same along another path of the same btree and level.
    pub(super) fn next_in(
        &mut self,
        t: &mut Attempt<'t>,
        index: u8,
        pos: Bpos,
    ) -> Result<Next<'t>, TransError> {
        t.same_keys(index, pos)?;
        let Some(slot) = t.traverse(index, pos, self.ahead())? else {
            return Ok(Next::NoTree);
        };
        let btree = t.btree;
        let node = t.node(slot).ok_or_else(|| t.lost())?;
        let mut cursor = t.path(index)?.cursor;
        let in_node = cursor.peek_live(node).map(|f| {
            let place = Place::Node {
                slot,
                set: f.set,
                at: f.at,
            };
            (place, f.key.header(node.format()))
        });
        let max = node.max();
        let level = t.path(index)?.level;
        let in_journal = match level {
            0 => btree.journal_from(self.btree, pos, max),
            _ => None,
        };
        let next = match (in_node, in_journal) {
            (Some((place, key)), None) => Next::Key(place, key),
            (None, None) => Next::Edge(max),
            (Some((place, key)), Some((_, j))) if key.pos < j.pos => Next::Key(place, key),
            (n, Some((value, j))) => {
                let base = n.filter(|(_, key)| key.pos == j.pos);
                self.journal_key(t, base, value, j)?
            }
        };
        let next = match level == 0 && btree.key_cache.serves(self.btree) {
            true => Self::newer(t, index, self.btree, next)?,
            false => next,
        };
        if t.pending.no_updates() {
            return Ok(next);
        }
        let update = t.pending.first_from(self.btree, level, pos);
        Ok(match (update, &next) {
            (Some(u), Next::Key(_, key)) if u.key.pos <= key.pos => Next::Key(Place::Pending(u), u.key),
            (Some(u), Next::Edge(max)) if u.key.pos <= *max => Next::Key(Place::Pending(u), u.key),
            _ => next,
        })
    }

    /// What a leaf has, as the key cache has it, if it does.
    fn newer(
        t: &mut Attempt<'t>,
        index: u8,
        btree: BtreeId,
        next: Next<'t>,
    ) -> Result<Next<'t>, TransError> {
        match next {
            Next::Key(Place::Node { .. }, key) if !key.key_type.is_whiteout() => {
                let newer = t.newer(index, btree, key.pos)?;
                Ok(newer.map_or(next, |(slot, key)| Next::Key(Place::Cached(slot), key)))
            }
            _ => {
                t.keys.forget(index);
                Ok(next)
            }
        }
    }

    /// The last key at or before `pos`.
    pub(super) fn prev_key(
        &mut self,
        t: &mut Attempt<'t>,
        pos: Bpos,
    ) -> Result<Next<'t>, TransError> {
        let index = self.index(t)?;
        t.same_keys(index, pos)?;
        let Some(slot) = t.traverse(index, pos, 0)? else {
            return Ok(Next::NoTree);
        };
        let btree = t.btree;
        let node = t.node(slot).ok_or_else(|| t.lost())?;
        let mut cursor = t.path(index)?.cursor;
        let found = |f: crate::btree::node::FoundKey<'_>| {
            let place = Place::Node {
                slot,
                set: f.set,
                at: f.at,
            };
            (place, f.key.header(node.format()))
        };
        // The cursor is before the first key not below `pos`, which may be at `pos`.
        let at_pos = cursor.peek_live(node).map(found).filter(|(_, k)| k.pos == pos);
        let in_node = match at_pos {
            Some(at) => Some(at),
            None => {
                let mut cursor = t.path(index)?.cursor;
                cursor.back_live(node).map(found)
            }
        };
        let min = node.min();
        let level = t.path(index)?.level;
        let in_journal = match level {
            0 => btree.journal_upto(self.btree, pos, min),
            _ => None,
        };
        let next = match (in_node, in_journal) {
            (Some((place, key)), None) => Next::Key(place, key),
            (None, None) => Next::Edge(min),
            (Some((place, key)), Some((_, j))) if key.pos > j.pos => Next::Key(place, key),
            (n, Some((value, j))) => {
                let base = n.filter(|(_, key)| key.pos == j.pos);
                self.journal_key(t, base, value, j)?
            }
        };
        let next = match level == 0 && btree.key_cache.serves(self.btree) {
            true => Self::newer(t, index, self.btree, next)?,
            false => next,
        };
        if t.pending.no_updates() {
            return Ok(next);
        }
        let update = t.pending.last_upto(self.btree, level, pos);
        Ok(match (update, &next) {
            (Some(u), Next::Key(_, key)) if u.key.pos >= key.pos => Next::Key(Place::Pending(u), u.key),
            (Some(u), Next::Edge(min)) if u.key.pos >= *min => Next::Key(Place::Pending(u), u.key),
            _ => next,
        })
    }

    /// A key of the journal, as it is once the journal has been replayed.
    fn journal_key(
        &mut self,
        t: &mut Attempt<'t>,
        base: Option<(Place<'t>, Bkey)>,
        value: &'t [u64],
        key: Bkey,
    ) -> Result<Next<'t>, TransError> {
        let keys = t.btree.overlay(self.btree, 0);
        let Some(keys) = keys.filter(|_| key.key_type == KeyType::ACCOUNTING) else {
            return Ok(Next::Key(Place::Journal(value), key));
        };
        let mut counters = [0; COUNTERS_MAX];
        let base = match base {
            Some((place, key)) => self.key_at(t, place, key)?,
            None => None,
        };
        let sum = keys.combine(key.pos, base, &mut counters);
        t.counters = counters;
        Ok(Next::Key(
            Place::Combined,
            sum.unwrap_or_else(|| Bkey::deleted(key.pos)),
        ))
    }
}
