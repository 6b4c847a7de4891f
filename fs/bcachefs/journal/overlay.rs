// SPDX-License-Identifier: GPL-2.0
//! Keys of the journal, laid over the btrees.
//!
//! After a crash nodes on disk may lack updates that the journal has. Whoever reads a node, at any
//! level, looks here for newer keys of the same btree and level: a key found here replaces the node's
//! key at exactly the same position, `deleted` keys hide it. Positions are compared as they are; an
//! extent here never cuts or covers others.
//!
//! Keys of type accounting are different: the journal has increments. All of them are kept, in
//! journal order, and are added to the node's key by [`Overlay::combine`].
//!
//! # Invariants
//!
//! The index is sorted by btree, level, position, and age. Except for accounting, no position occurs
//! twice. The content does not change once built, so readers need no lock.
//!
//! While the journal is replayed nodes get what is here, and newer keys: a key whose position in its btree has been changed since is
//! hidden by [`JournalKeys::overwritten`], under the lock of the node that has it. From then on the node says what is there.

mod build;
mod store;
#[cfg(bcachefs_kunit)]
mod tests;

use bcachefs_format::{Bkey, Bpos, BtreeId, Bversion, KeyRef, KeyType};
use kernel::{
    prelude::*,
    sync::atomic::{Acquire, Atomic, Full, Relaxed},
};

pub use build::JournalKeysBuilder;
use store::{Handle, Store};

/// The overlay of all btrees.
pub struct JournalKeys {
    store: Store,
    index: KVVec<Handle>,
    /// A bit for each key of the index: whether it is hidden.
    hidden: KVVec<Atomic<u64>>,
}

impl JournalKeys {
    /// An overlay without keys.
    pub fn empty() -> Self {
        JournalKeys {
            store: Store::new(),
            index: KVVec::new(),
            hidden: KVVec::new(),
        }
    }

    /// Number of keys; increments of accounting count one by one.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are no keys at all.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes of memory in use.
    pub fn memory_bytes(&self) -> usize {
        self.store.memory_bytes() + self.index.capacity() * size_of::<Handle>()
    }

    /// The keys of one level of one btree.
    pub fn keys(&self, btree: BtreeId, level: u8) -> Overlay<'_> {
        let tree = Handle::tree(btree, level);
        let start = self.index.partition_point(|h| h.tree_bits() < tree);
        let end = self.index.partition_point(|h| h.tree_bits() <= tree);
        Overlay {
            store: &self.store,
            index: self.index.get(start..end).unwrap_or(&[]),
            hidden: &self.hidden,
            first: start,
        }
    }

    /// Hides the key of `btree` and `level` at `pos`, if there is one: a node has been changed there. Increments of accounting are
    /// never hidden. The node must be locked for writing. Does not sleep.
    pub fn overwritten(&self, btree: BtreeId, level: u8, pos: Bpos) {
        if self.is_empty() {
            return;
        }
        let keys = self.keys(btree, level);
        let i = keys.lower_bound(pos);
        let same = |k: &KeyRef<'_>| k.key.pos == pos && k.key.key_type != KeyType::ACCOUNTING;
        if keys.get(i).is_some_and(|k| same(&k)) {
            let bit = keys.first + i;
            if let Some(word) = self.hidden.get(bit / 64) {
                let mut old = word.load(Relaxed);
                while let Err(now) = word.cmpxchg(old, old | 1 << (bit % 64), Full) {
                    old = now;
                }
            }
        }
    }

    /// The highest level at which `btree` has keys.
    pub fn max_level(&self, btree: BtreeId) -> Option<u8> {
        let end = self
            .index
            .partition_point(|h| h.tree_bits() <= Handle::tree(btree, u8::MAX));
        let last = self.index.get(end.checked_sub(1)?)?;
        (last.btree() == btree).then(|| last.level())
    }

    /// The first key of `btree` and `level` at or after `pos`.
    pub fn first_from(&self, btree: BtreeId, level: u8, pos: Bpos) -> Option<KeyRef<'_>> {
        let keys = self.keys(btree, level);
        keys.get(keys.lower_bound(pos))
    }

    /// The last key of `btree` and `level` at or before `pos`.
    pub fn last_upto(&self, btree: BtreeId, level: u8, pos: Bpos) -> Option<KeyRef<'_>> {
        let keys = self.keys(btree, level);
        keys.get(keys.upper_bound(pos).checked_sub(1)?)
    }

    /// The key of `btree` and `level` at `pos`.
    pub fn exact(&self, btree: BtreeId, level: u8, pos: Bpos) -> Option<KeyRef<'_>> {
        self.first_from(btree, level, pos)
            .filter(|k| k.key.pos == pos)
    }
}

/// The overlay of one level of one btree: an array sorted by position.
#[derive(Copy, Clone)]
pub struct Overlay<'a> {
    store: &'a Store,
    index: &'a [Handle],
    hidden: &'a [Atomic<u64>],
    /// Where the index of this level starts in that of all.
    first: usize,
}

impl<'a> Overlay<'a> {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Index of the first key at or after `pos`; [`Self::len`] if there is none.
    pub fn lower_bound(&self, pos: Bpos) -> usize {
        self.index.partition_point(|&h| self.store.pos(h) < pos)
    }

    /// Index of the first key after `pos`; [`Self::len`] if there is none.
    pub fn upper_bound(&self, pos: Bpos) -> usize {
        self.index.partition_point(|&h| self.store.pos(h) <= pos)
    }

    /// The first key from `pos` to `max` that is not hidden.
    pub fn first_from(&self, pos: Bpos, max: Bpos) -> Option<KeyRef<'a>> {
        (self.lower_bound(pos)..self.len())
            .map_while(|i| Some((i, self.get(i).filter(|k| k.key.pos <= max)?)))
            .find(|(i, _)| !self.is_hidden(*i))
            .map(|(_, k)| k)
    }

    /// The last key from `pos` down to `min` that is not hidden.
    pub fn last_upto(&self, pos: Bpos, min: Bpos) -> Option<KeyRef<'a>> {
        (0..self.upper_bound(pos))
            .rev()
            .map_while(|i| Some((i, self.get(i).filter(|k| k.key.pos >= min)?)))
            .find(|(i, _)| !self.is_hidden(*i))
            .map(|(_, k)| k)
    }

    /// Whether the key at index `i` is hidden.
    pub fn is_hidden(&self, i: usize) -> bool {
        let bit = self.first + i;
        self.hidden
            .get(bit / 64)
            .is_some_and(|w| w.load(Acquire) >> (bit % 64) & 1 != 0)
    }

    /// The key at index `i`, hidden or not.
    pub fn get(&self, i: usize) -> Option<KeyRef<'a>> {
        self.store.key(*self.index.get(i)?)
    }

    /// Sequence number of the journal entry that the key at index `i` is from.
    pub fn seq(&self, i: usize) -> Option<u64> {
        self.store.seq(*self.index.get(i)?)
    }

    /// All keys in order.
    pub fn iter(self) -> impl Iterator<Item = KeyRef<'a>> {
        self.index.iter().filter_map(move |&h| self.store.key(h))
    }

    /// The accounting key at `pos` as it is once the journal has been replayed: the node's key `base`
    /// plus those increments that are newer than it. The counters are left in `counters`, which
    /// must have room for the largest number of counters a key has; the number in use is returned
    /// inside a header, `None` if there is no key.
    pub fn combine(&self, pos: Bpos, base: Option<KeyRef<'_>>, counters: &mut [u64]) -> Option<Bkey> {
        let mut sum: Option<Bkey> = None;
        let mut version = Bversion::ZERO;
        let mut add = |sum: &mut Option<Bkey>, k: &KeyRef<'_>| {
            let header = sum.get_or_insert_with(|| {
                counters.fill(0);
                Bkey {
                    key_type: k.key.key_type,
                    ..Bkey::deleted(pos)
                }
            });
            header.u64s = header.u64s.max(k.key.u64s);
            header.version = header.version.max(k.key.version);
            for (to, from) in counters.iter_mut().zip(k.value) {
                *to = to.wrapping_add(*from);
            }
        };
        if let Some(k) = base.filter(|k| k.key.key_type == KeyType::ACCOUNTING) {
            version = k.key.version;
            add(&mut sum, &k);
        }
        for k in (self.lower_bound(pos)..self.upper_bound(pos)).filter_map(|i| self.get(i)) {
            if k.key.key_type != KeyType::ACCOUNTING {
                sum = None;
            } else if k.key.version > version {
                add(&mut sum, &k);
            }
        }
        sum
    }
}
