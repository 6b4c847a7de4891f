// SPDX-License-Identifier: GPL-2.0
//! Looking at what is exactly at a position, holes included.

use super::{
    find::{Next, Place},
    Iter, IterFlags,
};
use crate::btree::trans::{pending::Stored, Attempt, TransError};
use bcachefs_format::{Bkey, Bpos, KeyRef, KeyType};

impl<'t> Iter<'t> {
    /// The key at the position (the extent that covers it), or, where there is none, a key of type `deleted`; in trees of extents
    /// it has the size of the hole. The position stays. `None` only at the end of the key space.
    pub fn peek_slot<'a>(
        &'a mut self,
        t: &'a mut Attempt<'t>,
    ) -> Result<Option<KeyRef<'a>>, TransError> {
        if self.flags.has(IterFlags::EXTENTS) && self.pos.offset == u64::MAX {
            // No extent reaches behind the last offset: on to the next inode.
            match self.pos.nosnap_successor() {
                Some(pos) => self.pos = pos.at_snapshot(self.pos.snapshot),
                None => return Ok(None),
            }
        }
        if self.is_plain_hole(t)? {
            // The node that was looked at covers the position: that is where a change goes.
            let key = Bkey::deleted(self.pos);
            self.returned(t, key);
            return Ok(Some(KeyRef { key, value: &[] }));
        }
        match self.find_slot(t)? {
            Some((place, key)) => {
                self.settle(t, self.pos, &key)?;
                self.returned(t, key);
                self.key_at(t, place, key)
            }
            None => Ok(None),
        }
    }

    /// As [`Iter::peek_slot`], but returns a copy in the transaction's buffer, where there must be room for it.
    pub(in crate::btree) fn copy_slot(
        &mut self,
        t: &mut Attempt<'t>,
    ) -> Result<Option<Stored>, TransError> {
        let Some((place, key)) = self.find_slot(t)? else {
            return Ok(None);
        };
        self.settle(t, self.pos, &key)?;
        self.returned(t, key);
        t.store_at(place, key).map(Some)
    }

    /// What is at the position.
    pub(super) fn find_slot(
        &mut self,
        t: &mut Attempt<'t>,
    ) -> Result<Option<(Place<'t>, Bkey)>, TransError> {
        if self.flags.has(IterFlags::EXTENTS) {
            return self.find_extent_slot(t).map(Some);
        }
        if self.flags.has(IterFlags::FILTER) {
            let found = self.find_upto(t, self.pos)?;
            return Ok(Some(match found {
                Some(shown) => (shown.place, shown.key),
                None => (Place::Nothing, Bkey::deleted(self.pos)),
            }));
        }
        if let Some(found) = self.without_leaf(t)? {
            return Ok(Some(found));
        }
        Ok(Some(match self.next_key(t, self.pos)? {
            Next::Key(place, key) if key.pos == self.pos && key.key_type != KeyType::DELETED => {
                (place, key)
            }
            _ => (Place::Nothing, Bkey::deleted(self.pos)),
        }))
    }

    /// What is at the position, if that is in the key cache or changed there by the transaction: then the leaf is not looked at.
    fn without_leaf(
        &mut self,
        t: &mut Attempt<'t>,
    ) -> Result<Option<(Place<'t>, Bkey)>, TransError> {
        let index = self.index(t)?;
        if !t.btree.key_cache.serves(self.btree) || t.path(index)?.level != 0 {
            return Ok(None);
        }
        let update = t.pending.find(self.btree, 0, self.pos);
        if let Some(u) = update.and_then(|i| t.pending.update(i)) {
            let new = u.new;
            if u.to.path.is_some() {
                return Ok(None);
            }
            t.leave_leaf(index, self.pos)?;
            t.keys.forget(index);
            return Ok(Some((Place::Pending(new), new.key)));
        }
        let found = t.only_here(index, self.btree, self.pos)?;
        Ok(found.map(|(slot, key)| (Place::Cached(slot), key)))
    }

    fn find_extent_slot(
        &mut self,
        t: &mut Attempt<'t>,
    ) -> Result<(Place<'t>, Bkey), TransError> {
        let end = Bpos::with_snapshot(self.pos.inode, u64::MAX, self.pos.snapshot);
        let next = self.find_upto(t, end)?;
        let until = match next {
            // It covers the position: it ends behind it and does not start behind it.
            Some(shown) if shown.key.start_offset() <= self.pos.offset => {
                return Ok((shown.place, shown.key))
            }
            Some(shown) => shown.key.start_offset(),
            None => u64::MAX,
        };
        let size = u32::try_from(until - self.pos.offset).unwrap_or(u32::MAX);
        let mut hole = Bkey::deleted(self.pos);
        hole.size = size;
        hole.pos.offset = self.pos.offset.saturating_add(size.into());
        Ok((Place::Nothing, hole))
    }
}
