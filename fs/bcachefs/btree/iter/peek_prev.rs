// SPDX-License-Identifier: GPL-2.0
//! Looking backwards.
//!
//! Going back the versions of a position come oldest first. So a version that is seen is only a candidate until a
//! nearer one is met or the position is left behind.

use super::{
    find::{Next, Place},
    peek::Shown,
    Iter, IterFlags,
};
use crate::btree::trans::{Attempt, TransError};
use bcachefs_format::{Bkey, Bpos, KeyRef, KeyType};

impl<'t> Iter<'t> {
    /// The last key at or before the position; with extents, the last that starts before it.
    pub fn peek_prev<'a>(
        &'a mut self,
        t: &'a mut Attempt<'t>,
    ) -> Result<Option<KeyRef<'a>>, TransError> {
        match self.find_prev(t)? {
            Some(shown) => {
                self.settle(t, shown.pos, &shown.key)?;
                if shown.pos < self.pos {
                    self.pos = shown.pos;
                }
                self.returned(t, shown.key);
                self.key_at(t, shown.place, shown.key)
            }
            None => {
                self.looked(t);
                self.last = None;
                self.pos = Bpos::POS_MIN.at_snapshot(self.pos.snapshot);
                Ok(None)
            }
        }
    }

    fn find_prev(&mut self, t: &mut Attempt<'t>) -> Result<Option<Shown<'t>>, TransError> {
        let mut from = self.pos;
        if self.flags.has(IterFlags::EXTENTS) {
            if let Some(before) = self.pos.offset.checked_sub(1) {
                // What covers the sector before the position, or the position being at its end, ends behind that sector.
                let pos = self.pos;
                self.pos.offset = before;
                let covering = self.find_upto(t, pos);
                self.pos = pos;
                if let Some(shown) = covering? {
                    return Ok(Some(self.shown_prev(shown.place, shown.key)));
                }
                from.offset = before;
            } else {
                match self.pos.nosnap_predecessor() {
                    Some(p) => from = p,
                    None => return Ok(None),
                }
            }
        }
        let found = if self.flags.has(IterFlags::FILTER) {
            self.find_prev_seen(t, from.at_snapshot(u32::MAX))?
        } else {
            self.find_prev_any(t, from)?
        };
        Ok(found.map(|(place, key)| self.shown_prev(place, key)))
    }

    fn shown_prev(&self, place: Place<'t>, key: Bkey) -> Shown<'t> {
        let pos = match self.flags.has(IterFlags::FILTER) {
            true => key.pos.at_snapshot(self.pos.snapshot),
            false => key.pos,
        };
        Shown { place, key, pos }
    }

    /// One step back from where a search has come to. `None` at the start of the tree.
    fn step_back(next: &Next<'t>) -> Option<Bpos> {
        match next {
            Next::Key(_, key) => key.pos.predecessor(),
            Next::Edge(min) => min.predecessor(),
            Next::NoTree => None,
        }
    }

    fn find_prev_any(
        &mut self,
        t: &mut Attempt<'t>,
        mut search: Bpos,
    ) -> Result<Option<(Place<'t>, Bkey)>, TransError> {
        loop {
            let next = self.prev_key(t, search)?;
            if let Next::Key(place, key) = next {
                let shown = match key.key_type {
                    KeyType::DELETED => false,
                    KeyType::WHITEOUT => self.flags.has(IterFlags::ALL_SNAPSHOTS),
                    _ => true,
                };
                if shown {
                    return Ok(Some((place, key)));
                }
            }
            match Self::step_back(&next) {
                Some(pos) => search = pos,
                None => return Ok(None),
            }
        }
    }

    fn find_prev_seen(
        &mut self,
        t: &mut Attempt<'t>,
        mut search: Bpos,
    ) -> Result<Option<(Place<'t>, Bkey)>, TransError> {
        let snapshot = self.pos.snapshot;
        // The nearest version met so far of the position being left.
        let mut candidate: Option<Bkey> = None;
        loop {
            let next = self.prev_key(t, search)?;
            let left = match (&next, candidate) {
                (Next::Key(_, key), Some(c)) => !key.pos.eq_nosnap(c.pos),
                // Versions of one position may lie in two nodes.
                (Next::Edge(min), Some(c)) => !min.predecessor().is_some_and(|p| p.eq_nosnap(c.pos)),
                (Next::NoTree, Some(_)) => true,
                (_, None) => false,
            };
            if left {
                if let Some(c) = candidate.take().filter(|c| c.key_type != KeyType::WHITEOUT) {
                    return self.find_again(t, c.pos);
                }
            }
            if let Next::Key(place, key) = next {
                let seen = key.key_type != KeyType::DELETED
                    && t.btree.sees(snapshot, key.pos.snapshot);
                if seen && key.pos.snapshot == snapshot && key.key_type != KeyType::WHITEOUT {
                    return Ok(Some((place, key)));
                }
                if seen {
                    candidate = Some(key);
                }
            }
            match Self::step_back(&next) {
                Some(pos) => search = pos,
                None => {
                    let last = candidate.filter(|c| c.key_type != KeyType::WHITEOUT);
                    return match last {
                        Some(c) => self.find_again(t, c.pos),
                        None => Ok(None),
                    };
                }
            }
        }
    }

    /// The key at exactly `pos`, which has been seen before.
    fn find_again(
        &mut self,
        t: &mut Attempt<'t>,
        pos: Bpos,
    ) -> Result<Option<(Place<'t>, Bkey)>, TransError> {
        match self.next_key(t, pos)? {
            Next::Key(place, key) if key.pos == pos => Ok(Some((place, key))),
            _ => Err(t.restart(crate::btree::trans::Reason::Relock)),
        }
    }
}
