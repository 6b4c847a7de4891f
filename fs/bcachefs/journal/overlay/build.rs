// SPDX-License-Identifier: GPL-2.0
//! Building the overlay from keys in journal order.
//!
//! Memory is bounded by the number of distinct positions, not by the length of the journal: whenever
//! the keys added since the last sort outnumber those that were left by it, superseded keys are thrown
//! out.

use core::cmp::Ordering;

use bcachefs_format::{BtreeId, KeyRef, KeyType};
use kernel::{prelude::*, sync::atomic::Atomic};

use super::{
    store::{Handle, Store},
    JournalKeys,
};
use crate::util::{
    error::{Error, Result},
    sort::{sort_by, sort_by_key},
};

/// Keys collected before the first sort.
const SORT_MIN: usize = 1 << 16;
/// Most keys an overlay can hold; keeps the index within what can be allocated at once.
const KEYS_MAX: usize = 1 << 27;

/// Collects keys.
pub struct JournalKeysBuilder {
    store: Store,
    index: KVVec<Handle>,
    /// Keys that the last sort left.
    sorted: usize,
}

impl Default for JournalKeysBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl JournalKeysBuilder {
    /// Starts with nothing.
    pub fn new() -> Self {
        JournalKeysBuilder {
            store: Store::new(),
            index: KVVec::new(),
            sorted: 0,
        }
    }

    /// Adds a key from journal entry `seq`. It replaces all keys added before it at the same place. May
    /// sleep.
    ///
    /// # Errors
    ///
    /// [`Error::NoMem`], [`Error::JournalTooBig`].
    pub fn push(&mut self, seq: u64, btree: BtreeId, level: u8, key: &KeyRef<'_>) -> Result {
        if self.index.len() - self.sorted >= self.sorted.max(SORT_MIN) {
            self.sort();
        }
        if self.index.len() >= KEYS_MAX {
            return Err(Error::JournalTooBig);
        }
        let h = self.store.push(seq, btree, level, key)?;
        self.index.push(h, GFP_KERNEL | __GFP_NOWARN)?;
        Ok(())
    }

    /// The overlay of what was added. May sleep.
    #[inline(never)]
    pub fn finish(mut self) -> Result<JournalKeys> {
        self.sort();
        let words = self.index.len().div_ceil(64);
        let mut hidden = KVVec::with_capacity(words, GFP_KERNEL)?;
        for _ in 0..words {
            hidden.push(Atomic::new(0), GFP_KERNEL)?;
        }
        Ok(JournalKeys {
            store: self.store,
            index: self.index,
            hidden,
        })
    }

    /// Sorts the index, removes superseded keys, and gives their memory back when that is worth it.
    fn sort(&mut self) {
        self.sort_index();
        let store = &self.store;
        let mut live = 0;
        let mut kept = 0;
        for i in 0..self.index.len() {
            let Some(&h) = self.index.get(i) else { break };
            let superseded = self.index.get(i + 1).is_some_and(|&next| {
                next.tree_bits() == h.tree_bits()
                    && store.pos(next) == store.pos(h)
                    && !is_increment(store, next)
            });
            if superseded {
                continue;
            }
            live += store.record_words(h);
            if let Some(slot) = self.index.get_mut(kept) {
                *slot = h;
            }
            kept += 1;
        }
        self.index.truncate(kept);
        if live < self.store.words() / 2 {
            sort_by_key(&mut self.index, |h| h.address());
            self.store.compact(&mut self.index);
            self.sort_index();
        }
        self.sorted = self.index.len();
    }

    fn sort_index(&mut self) {
        let store = &self.store;
        sort_by(&mut self.index, |a, b| match a.tree_bits().cmp(&b.tree_bits()) {
            Ordering::Less => true,
            Ordering::Equal => (store.pos(*a), a.address()) < (store.pos(*b), b.address()),
            Ordering::Greater => false,
        });
    }
}

/// Whether the key at `h` adds to what is below it rather than replacing it.
fn is_increment(store: &Store, h: Handle) -> bool {
    store
        .key(h)
        .is_some_and(|k| k.key.key_type == KeyType::ACCOUNTING)
}
