// SPDX-License-Identifier: GPL-2.0
//! Looking forwards.
//!
//! Of the keys at one position the one with the lowest snapshot number that the looking snapshot sees is the right version, and it is the first
//! one met: numbers go down from a snapshot to its descendants, and lower ones sort first.

use super::{
    find::{Next, Place},
    Iter, IterFlags,
};
use crate::btree::trans::{pending::Stored, Attempt, TransError};
use bcachefs_format::{Bkey, Bpos, KeyRef, KeyType};

/// A key the view shows, and the position it puts the iterator at.
pub(super) struct Shown<'t> {
    pub place: Place<'t>,
    pub key: Bkey,
    pub pos: Bpos,
}

impl<'t> Iter<'t> {
    /// The first key at or after the position; with extents, the first that ends after it. With `SLOTS` what is at the position.
    #[inline]
    pub fn peek<'a>(
        &'a mut self,
        t: &'a mut Attempt<'t>,
    ) -> Result<Option<KeyRef<'a>>, TransError> {
        self.peek_upto(t, Bpos::SPOS_MAX)
    }

    /// The same, if it is not behind `end`; with extents, if it starts before `end`. If there is none the position moves to `end`.
    pub fn peek_upto<'a>(
        &'a mut self,
        t: &'a mut Attempt<'t>,
        end: Bpos,
    ) -> Result<Option<KeyRef<'a>>, TransError> {
        if self.flags.has(IterFlags::SLOTS) {
            let past = match self.flags.has(IterFlags::EXTENTS) {
                true => self.pos.cmp_nosnap(end).is_ge(),
                false => self.beyond(self.pos, end),
            };
            if past {
                return Ok(None);
            }
            return self.peek_slot(t);
        }
        if let Some((slot, found, key)) = self.quick_look(t)? {
            if self.shows_at_once(t, &key, end) {
                self.pos.inode = key.pos.inode;
                self.pos.offset = key.pos.offset;
                if !self.flags.has(IterFlags::FILTER) {
                    self.pos.snapshot = key.pos.snapshot;
                }
                self.returned(t, key);
                let value = t.value_in(slot, found).ok_or_else(|| t.lost())?;
                return Ok(Some(KeyRef { key, value }));
            }
        }
        match self.find_upto(t, end)? {
            Some(shown) => {
                self.settle(t, shown.pos, &shown.key)?;
                self.pos = shown.pos;
                self.returned(t, shown.key);
                self.key_at(t, shown.place, shown.key)
            }
            None => {
                self.looked(t);
                self.last = None;
                let end = match self.flags.has(IterFlags::FILTER) {
                    true => end.at_snapshot(self.pos.snapshot),
                    false => end,
                };
                self.pos = self.pos.max(end);
                Ok(None)
            }
        }
    }

    /// As [`Iter::peek_upto`], but returns a copy in the transaction's buffer, where there must be room for it.
    pub(in crate::btree) fn copy_upto(
        &mut self,
        t: &mut Attempt<'t>,
        end: Bpos,
    ) -> Result<Option<Stored>, TransError> {
        let Some(shown) = self.find_upto(t, end)? else {
            self.looked(t);
            return Ok(None);
        };
        self.settle(t, shown.pos, &shown.key)?;
        self.pos = shown.pos;
        self.returned(t, shown.key);
        t.store_at(shown.place, shown.key).map(Some)
    }

    /// Whether `pos` is behind `end`. In a filtered view positions have no snapshots.
    #[inline]
    fn beyond(&self, pos: Bpos, end: Bpos) -> bool {
        if self.flags.has(IterFlags::FILTER) {
            pos.cmp_nosnap(end).is_gt()
        } else {
            pos > end
        }
    }

    /// Whether `key`, the next one of points, is what a look up to `end` shows, without any questions.
    #[inline(always)]
    fn shows_at_once(&self, t: &Attempt<'t>, key: &Bkey, end: Bpos) -> bool {
        let own = key.pos.snapshot == self.pos.snapshot;
        let seen = match self.flags.has(IterFlags::FILTER) {
            // Where a change of another snapshot's key would go has to be found out.
            true => own || !self.flags.has(IterFlags::INTENT) && t.btree.sees(self.pos.snapshot, key.pos.snapshot),
            false => true,
        };
        seen && key.key_type != KeyType::WHITEOUT && !self.beyond(key.pos, end)
    }

    /// Finds the first key of the view, without moving.
    pub(super) fn find_upto(
        &mut self,
        t: &mut Attempt<'t>,
        end: Bpos,
    ) -> Result<Option<Shown<'t>>, TransError> {
        let extents = self.flags.has(IterFlags::EXTENTS);
        let filter = self.flags.has(IterFlags::FILTER);
        let snapshot = self.pos.snapshot;
        let mut search = self.pos;
        if extents {
            // Keys are at their ends: the first one that ends behind the position.
            match search.nosnap_successor() {
                Some(pos) => search = pos,
                None => return Ok(None),
            }
        }
        loop {
            let (place, key) = match self.next_key(t, search)? {
                Next::Key(place, key) => (place, key),
                Next::NoTree => return Ok(None),
                Next::Edge(max) => {
                    let past = match extents {
                        true => max.inode > end.inode,
                        false => self.beyond(max, end),
                    };
                    match max.successor() {
                        Some(pos) if !past => search = pos,
                        _ => return Ok(None),
                    }
                    if self.flags.has(IterFlags::KEEP) {
                        let index = self.index(t)?;
                        t.leave_behind(index)?;
                    }
                    continue;
                }
            };
            let past = match extents {
                true => key.pos.inode > end.inode,
                false => self.beyond(key.pos, end),
            };
            if past {
                return Ok(None);
            }
            let next = if key.key_type == KeyType::DELETED {
                key.pos.successor()
            } else if filter && !t.btree.sees(snapshot, key.pos.snapshot) {
                if key.pos.snapshot < snapshot {
                    // Descendants and strangers; whatever is seen from here has a number that is not lower.
                    Some(key.pos.at_snapshot(snapshot))
                } else {
                    key.pos.successor()
                }
            } else if key.key_type == KeyType::WHITEOUT && !self.flags.has(IterFlags::ALL_SNAPSHOTS) {
                self.after(key.pos)
            } else {
                let pos = match (extents, filter) {
                    (true, _) => self.pos.max(key.start_pos().at_snapshot(snapshot)),
                    (false, true) => key.pos.at_snapshot(snapshot),
                    (false, false) => key.pos,
                };
                if extents && pos.cmp_nosnap(end).is_ge() {
                    return Ok(None);
                }
                return Ok(Some(Shown { place, key, pos }));
            };
            match next {
                Some(pos) => search = pos,
                None => return Ok(None),
            }
        }
    }
}
