// SPDX-License-Identifier: GPL-2.0
//! The walk over the slots of a name's hash.
//!
//! Directory entries and extended attributes are open-addressed hash tables laid out in key space:
//! one table per inode, the hash is the offset of the key, collisions go to the following offsets.
//! A walk sees one snapshot and ends at the name or at the first slot with nothing in it.
//!
//! [`Slot::step`] is the rule, apart from any btree; [`find`] walks.

pub mod edit;

use bcachefs_format::{
    bkey::{KeyRef, KeyType},
    btree_id::BtreeId,
    keys::str_hash::NameCrc,
    pos::Bpos,
};

use crate::btree::{Attempt, IterFlags, TransError};

/// The kernel's CRCs, for hashing names.
pub struct KernelCrc;

impl NameCrc for KernelCrc {
    fn crc32c(&self, state: u32, data: &[u8]) -> u32 {
        kfs::checksum::crc32c(state, data)
    }

    fn crc64(&self, state: u64, data: &[u8]) -> u64 {
        kfs::checksum::crc64_be(state, data)
    }
}

/// What a walk finds in a slot, in the walker's view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot<R> {
    /// The key that is looked for.
    Match(R),
    /// Another live key.
    Other,
    /// A tombstone that keeps a chain together.
    Tombstone,
    /// Nothing that is visible.
    Empty,
}

/// How a walk goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step<R> {
    /// Look at the next slot.
    Next,
    /// The walk is over: the key was found, or does not exist.
    Done(Option<R>),
}

impl<R> Slot<R> {
    /// The step that follows in a lookup.
    pub fn step(self) -> Step<R> {
        match self {
            Slot::Match(found) => Step::Done(Some(found)),
            Slot::Other | Slot::Tombstone => Step::Next,
            Slot::Empty => Step::Done(None),
        }
    }
}

/// Walks from `hash` on in the table of `inum` in `snapshot`.
///
/// `look` says what a key of the table's own type is; tombstones and empty slots are recognised
/// here. It runs with node locks held and must not sleep.
pub fn find<R>(
    t: &mut Attempt<'_>,
    btree: BtreeId,
    inum: u64,
    snapshot: u32,
    hash: u64,
    mut look: impl FnMut(KeyRef<'_>) -> Result<Slot<R>, TransError>,
) -> Result<Option<R>, TransError> {
    let start = Bpos::with_snapshot(inum, hash, snapshot);
    let mut iter = t.iter(btree, start, IterFlags::SLOTS);
    loop {
        let slot = match iter.peek_slot(t)? {
            // The walk may have run off the end of the inode's slots.
            Some(key) if key.key.pos.inode != inum => Slot::Empty,
            Some(key) => match key.key.key_type {
                KeyType::DELETED | KeyType::WHITEOUT | KeyType::COOKIE => Slot::Empty,
                KeyType::HASH_WHITEOUT => Slot::Tombstone,
                _ => look(key)?,
            },
            None => Slot::Empty,
        };
        if let Step::Done(found) = slot.step() {
            return Ok(found);
        }
        if !iter.advance() {
            return Ok(None);
        }
    }
}

#[kernel::macros::kunit_tests(bcachefs_fs_str_hash)]
mod tests {
    use super::*;

    const SLOTS: usize = 6;

    /// A small hash table, with names that all hash to one of a few slots.
    #[derive(Clone, Copy)]
    struct Table {
        slots: [State; SLOTS],
    }

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum State {
        Live(u8),
        Tombstone,
        Empty,
    }

    /// Hashes of the four names, so chosen that chains run into each other.
    fn hash(name: u8) -> usize {
        [0, 0, 1, 2][usize::from(name & 3)]
    }

    impl Table {
        fn lookup(&self, name: u8) -> Option<usize> {
            for at in hash(name)..=SLOTS {
                let slot = match self.slots.get(at) {
                    Some(State::Live(n)) if *n == name => Slot::Match(at),
                    Some(State::Live(_)) => Slot::Other,
                    Some(State::Tombstone) => Slot::Tombstone,
                    Some(State::Empty) | None => Slot::Empty,
                };
                if let Step::Done(found) = slot.step() {
                    return found;
                }
            }
            None
        }

        /// As the format says: into the first slot from the hash on that is not live.
        fn insert(&mut self, name: u8) {
            if self.lookup(name).is_some() {
                return;
            }
            for slot in self.slots.iter_mut().skip(hash(name)) {
                if !matches!(slot, State::Live(_)) {
                    *slot = State::Live(name);
                    return;
                }
            }
        }

        /// As the format says: a tombstone if a later link of the chain needs it.
        fn remove(&mut self, name: u8) {
            let Some(at) = self.lookup(name) else { return };
            let needed = self.slots[at + 1..]
                .iter()
                .take_while(|s| **s != State::Empty)
                .any(|s| matches!(s, State::Live(n) if hash(*n) <= at));
            self.slots[at] = if needed { State::Tombstone } else { State::Empty };
        }
    }

    /// After every sequence of seven insertions and removals of four colliding names, a lookup finds
    /// exactly the names that are there.
    #[test]
    fn model() {
        const STEPS: u32 = 7;
        for sequence in 0..8u32.pow(STEPS) {
            let mut table = Table {
                slots: [State::Empty; SLOTS],
            };
            let mut present = [false; 4];
            let mut rest = sequence;
            for _ in 0..STEPS {
                let (name, add) = ((rest & 3) as u8, rest & 4 != 0);
                rest >>= 3;
                if add {
                    table.insert(name);
                } else {
                    table.remove(name);
                }
                present[usize::from(name)] = add;
            }
            for name in 0..4 {
                assert_eq!(table.lookup(name).is_some(), present[usize::from(name)]);
            }
        }
    }
}
