// SPDX-License-Identifier: GPL-2.0
//! Changing the hash tables of names.
//!
//! Who changes a table has locked the key of the inode it belongs to, in the same transaction: nobody else changes it meanwhile.

use bcachefs_format::{
    bkey::{Bkey, KeyRef, KeyType},
    pos::Bpos,
    BtreeId,
};

use super::Slot;
use crate::{
    btree::{trans::update::UpdateFlags, Attempt, IterFlags, TransError},
    util::error::Error,
};

/// Where a name is, or goes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// It is there.
    At(u64),
    /// It is not there; this is the first slot from its hash on that it can have.
    Free(u64),
}

/// A table, as one snapshot sees it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// The btree.
    pub btree: BtreeId,
    /// The inode it belongs to.
    pub inum: u64,
    /// The snapshot that is looked at, and changed.
    pub snapshot: u32,
}

impl Table {
    fn at(&self, slot: u64) -> Bpos {
        Bpos::with_snapshot(self.inum, slot, self.snapshot)
    }

    /// What is in the slot of `key`. `look` says what a key of the table's own type is.
    fn state<R>(
        &self,
        key: Option<KeyRef<'_>>,
        look: &mut impl FnMut(KeyRef<'_>) -> Result<Slot<R>, TransError>,
    ) -> Result<Slot<R>, TransError> {
        Ok(match key {
            Some(key) if key.key.pos.inode == self.inum => match key.key.key_type {
                KeyType::DELETED | KeyType::WHITEOUT | KeyType::COOKIE => Slot::Empty,
                KeyType::HASH_WHITEOUT => Slot::Tombstone,
                _ => look(key)?,
            },
            _ => Slot::Empty,
        })
    }

    /// Finds a name by its hash, to change it or to put it there. `look` says what a key of the table's own type is; it runs with
    /// locks held.
    pub fn find(
        &self,
        t: &mut Attempt<'_>,
        hash: u64,
        mut look: impl FnMut(KeyRef<'_>) -> Result<Slot<()>, TransError>,
    ) -> Result<Found, TransError> {
        let flags = IterFlags::SLOTS | IterFlags::INTENT;
        let mut iter = t.iter(self.btree, self.at(hash), flags);
        let mut free = None;
        loop {
            let slot = iter.pos().offset;
            let state = self.state(iter.peek_slot(t)?, &mut look)?;
            match state {
                Slot::Match(()) => return Ok(Found::At(slot)),
                Slot::Other => {}
                Slot::Tombstone => free = free.or(Some(slot)),
                Slot::Empty => return Ok(Found::Free(free.unwrap_or(slot))),
            }
            if !iter.advance() || iter.pos().inode != self.inum {
                return free.map(Found::Free).ok_or(Error::DirectoryFull.into());
            }
        }
    }

    /// Takes what is in `slot` away, so that what comes after it is still found. `hash_of` says the hash of a live key, `None` of
    /// one that nobody looks for here.
    pub fn remove(
        &self,
        t: &mut Attempt<'_>,
        slot: u64,
        hash_of: impl FnMut(KeyRef<'_>) -> Result<Option<u64>, TransError>,
    ) -> Result<(), TransError> {
        let needed = self.is_needed(t, slot, hash_of)?;
        match needed {
            true => self.entomb(t, slot),
            false => t.delete(self.btree, self.at(slot), UpdateFlags::default()),
        }
    }

    /// Puts a tombstone into `slot`.
    pub fn entomb(&self, t: &mut Attempt<'_>, slot: u64) -> Result<(), TransError> {
        let key = Bkey {
            key_type: KeyType::HASH_WHITEOUT,
            ..Bkey::deleted(self.at(slot))
        };
        t.insert(self.btree, KeyRef { key, value: &[] }, UpdateFlags::default())
    }

    /// Whether a later key of the chain has a hash at or before `slot`.
    fn is_needed(
        &self,
        t: &mut Attempt<'_>,
        slot: u64,
        mut hash_of: impl FnMut(KeyRef<'_>) -> Result<Option<u64>, TransError>,
    ) -> Result<bool, TransError> {
        let Some(next) = slot.checked_add(1) else {
            return Ok(false);
        };
        let mut look = |key: KeyRef<'_>| {
            Ok(match hash_of(key)? {
                Some(hash) if hash <= slot => Slot::Match(()),
                Some(_) => Slot::Other,
                None => Slot::Empty,
            })
        };
        let flags = IterFlags::SLOTS | IterFlags::INTENT;
        let mut iter = t.iter(self.btree, self.at(next), flags);
        loop {
            match self.state(iter.peek_slot(t)?, &mut look)? {
                Slot::Match(()) => return Ok(true),
                Slot::Other | Slot::Tombstone => {}
                Slot::Empty => return Ok(false),
            }
            if !iter.advance() || iter.pos().inode != self.inum {
                return Ok(false);
            }
        }
    }
}
