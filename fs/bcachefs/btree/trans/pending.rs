// SPDX-License-Identifier: GPL-2.0
//! What a transaction has collected to be committed.
//!
//! Values lie one after the other in one buffer, which only grows until the commit or the end of the attempt, so that a
//! range of it stays what it is ([`Stored`]) while the buffer moves.
//!
//! # Invariants
//!
//! - `updates` is sorted by btree, level from above, position, without repetitions; `deltas` by position, the same.
//! - Every [`Stored`] handed out lies in `words`.

use crate::{
    btree::{key_cache::Bare, node::Cursor, triggers::KeyMut},
    journal::engine::Pin,
    util::error::{Error, Result},
};
use bcachefs_format::{
    bkey::BKEY_U64S,
    jset::{EntryType, RawEntry},
    keys::accounting::ACCOUNTING_COUNTERS_MAX,
    Bkey, Bpos, BtreeId, Bversion, KeyRef, KeyType,
};
use core::cmp::Reverse;
use kernel::{
    alloc::{AllocError, Flags},
    prelude::*,
    sync::Arc,
};
use kfs::sync::six::Slot;

use super::update::UpdateFlags;

/// Most updates of one transaction.
const UPDATES_MAX: usize = 512;
/// Most words of values that one transaction looks at and changes.
const WORDS_MAX: usize = 1 << 17;
/// Most words that one commit takes in the journal; the smallest journal entry has room for as many.
pub(super) const JOURNAL_U64S_MAX: usize = 8000;
/// Words of the longest value.
pub(super) const VALUE_U64S_MAX: usize = u8::MAX as usize - BKEY_U64S as usize;
/// What a buffer has room for from the start.
const WORDS: usize = 1024;
const UPDATES: usize = 32;
const DELTAS: usize = 16;
/// Words of a record's header.
const RECORD_U64S: usize = 1;

/// A key whose value is in the transaction's buffer.
#[derive(Copy, Clone)]
pub(in crate::btree) struct Stored {
    pub key: Bkey,
    at: u32,
}

impl Stored {
    /// A key without value.
    pub(in crate::btree) fn bare(key: Bkey) -> Self {
        Stored {
            key: Bkey {
                u64s: BKEY_U64S,
                ..key
            },
            at: 0,
        }
    }

    /// Whether it is the same copy of the same key.
    pub(in crate::btree) fn same(&self, other: &Stored) -> bool {
        self.at == other.at && self.key == other.key
    }
}

/// A key that will be what is at its position.
pub(in crate::btree) struct Update {
    pub btree: BtreeId,
    pub level: u8,
    pub new: Stored,
    /// What transactional triggers have been told was there before; what is in the btree if there is none.
    pub before: Option<Stored>,
    pub flags: UpdateFlags,
    /// What is changed.
    pub to: Target,
    /// Its place in the node, if that is known, as long as the cursor is current.
    pub at: Option<Cursor>,
    /// It brings to the leaf what the key cache has.
    pub cleans: bool,
    /// Which transactional triggers have run: those of what goes, and of what comes.
    pub overwritten: bool,
    pub inserted: bool,
}

/// What an update changes: a node, or a key in the key cache; or both.
#[derive(Copy, Clone)]
pub(in crate::btree) struct Target {
    /// The path that keeps the node locked. `None`: only the key in the cache is changed.
    pub path: Option<u8>,
    /// The key in the key cache. If the node is changed, it is written out or thrown away.
    pub key: Option<Slot>,
    /// For a node whose keys may be cached: that this one was not.
    pub bare: Option<Bare>,
}

impl Update {
    /// An update whose triggers have not run.
    pub(in crate::btree) fn new(
        btree: BtreeId,
        level: u8,
        new: Stored,
        flags: UpdateFlags,
        to: Target,
        at: Option<Cursor>,
    ) -> Self {
        Update {
            btree,
            level,
            new,
            before: None,
            flags,
            to,
            at,
            cleans: false,
            overwritten: false,
            inserted: false,
        }
    }

    fn order(&self) -> (BtreeId, Reverse<u8>, Bpos) {
        (self.btree, Reverse(self.level), self.new.key.pos)
    }
}

/// What is added to the counters of one accounting key.
struct Delta {
    key: Bkey,
    values: [u64; ACCOUNTING_COUNTERS_MAX],
}

impl Delta {
    fn get(&self) -> KeyRef<'_> {
        let n = usize::from(self.key.value_u64s());
        KeyRef {
            key: self.key,
            value: self.values.get(..n).unwrap_or(&self.values),
        }
    }
}

/// See the module's description.
pub(in crate::btree) struct Pending {
    words: KVVec<u64>,
    updates: KVVec<Update>,
    deltas: KVVec<Delta>,
    /// Whole records for the journal.
    records: KVVec<u64>,
    /// To be pinned at the commit's entry.
    pins: KVec<Arc<Pin>>,
    /// Sectors by which more space is needed than was reserved.
    pub extra_sectors: u64,
}

fn no_memory<E>(_: E) -> Error {
    Error::NoMem
}

/// Makes room for `n` more, in steps that double.
fn grow<T>(v: &mut KVVec<T>, n: usize, flags: Flags) -> core::result::Result<(), AllocError> {
    match v.len() + n > v.capacity() {
        true => v.reserve(n.max(v.capacity()), flags),
        false => Ok(()),
    }
}

impl Pending {
    /// Nothing, with room for what most transactions need. May sleep.
    pub(super) fn new() -> Result<Self> {
        Ok(Pending {
            words: KVVec::with_capacity(WORDS, GFP_KERNEL)?,
            updates: KVVec::with_capacity(UPDATES, GFP_KERNEL)?,
            deltas: KVVec::with_capacity(DELTAS, GFP_KERNEL)?,
            records: KVVec::new(),
            pins: KVec::new(),
            extra_sectors: 0,
        })
    }

    /// Forgets everything.
    #[inline]
    pub(in crate::btree) fn reset(&mut self) {
        self.words.clear();
        self.updates.clear();
        self.deltas.clear();
        self.records.clear();
        self.pins.clear();
        self.extra_sectors = 0;
    }

    /// Whether there are no updates, so that what is in the btrees is what the transaction sees.
    #[inline]
    pub(in crate::btree) fn no_updates(&self) -> bool {
        self.updates.is_empty()
    }

    /// Whether there is nothing to commit.
    pub(super) fn is_empty(&self) -> bool {
        self.updates.is_empty()
            && self.deltas.is_empty()
            && self.records.is_empty()
            && self.pins.is_empty()
    }

    /// Makes room for one more update, delta and pin, and for `words` words of values and of records.
    pub(super) fn make_room(&mut self, words: usize, flags: Flags) -> Result {
        if self.updates.len() >= UPDATES_MAX || self.words.len() + words > WORDS_MAX {
            return Err(Error::TransTooBig);
        }
        grow(&mut self.words, words, flags)?;
        grow(&mut self.updates, 1, flags)?;
        Ok(grow(&mut self.deltas, 1, flags)?)
    }

    /// Makes room for `words` words of records and one pin.
    pub(super) fn make_record_room(&mut self, words: usize, flags: Flags) -> Result {
        if self.records.len() + words > JOURNAL_U64S_MAX {
            return Err(Error::TransTooBig);
        }
        grow(&mut self.records, words, flags)?;
        Ok(self.pins.reserve(1, flags)?)
    }

    /// Stores a copy of a key. Room must have been made.
    pub(in crate::btree) fn store(&mut self, key: KeyRef<'_>) -> Result<Stored> {
        let at = self.words.len() as u32;
        if usize::from(key.key.value_u64s()) != key.value.len() {
            return Err(Error::BtreeKeyInvalid);
        }
        for word in key.value {
            self.words.push_within_capacity(*word).map_err(no_memory)?;
        }
        let key = Bkey {
            needs_whiteout: false,
            ..key.key
        };
        Ok(Stored { key, at })
    }

    /// The same for a key that is stored already: a copy that can be changed by itself.
    pub(in crate::btree) fn store_again(&mut self, key: &Stored) -> Result<Stored> {
        let at = self.words.len() as u32;
        for i in 0..usize::from(key.key.value_u64s()) {
            let word = self.words.get(key.at as usize + i).copied();
            let word = word.ok_or(Error::BtreeKeyInvalid)?;
            self.words.push_within_capacity(word).map_err(no_memory)?;
        }
        Ok(Stored { at, ..*key })
    }

    fn range(key: &Stored) -> core::ops::Range<usize> {
        let start = key.at as usize;
        start..start + usize::from(key.key.value_u64s())
    }

    /// The words of a stored key's value.
    #[inline]
    pub(in crate::btree) fn value(&self, key: &Stored) -> &[u64] {
        self.words.get(Self::range(key)).unwrap_or(&[])
    }

    /// The same, to be changed in place.
    pub(in crate::btree) fn value_mut(&mut self, key: &Stored) -> &mut [u64] {
        self.words.get_mut(Self::range(key)).unwrap_or(&mut [])
    }

    /// A stored key.
    #[inline]
    pub(in crate::btree) fn get(&self, key: &Stored) -> KeyRef<'_> {
        KeyRef {
            key: key.key,
            value: self.value(key),
        }
    }

    /// All updates, in order.
    #[inline]
    pub(in crate::btree) fn updates(&self) -> &[Update] {
        &self.updates
    }

    /// Update `i`.
    #[inline]
    pub(in crate::btree) fn update(&self, i: usize) -> Option<&Update> {
        self.updates.get(i)
    }

    /// Update `i`.
    pub(in crate::btree) fn update_mut(&mut self, i: usize) -> Option<&mut Update> {
        self.updates.get_mut(i)
    }

    /// The updates after `i`, in order.
    #[inline]
    pub(super) fn updates_after(&mut self, i: usize) -> impl Iterator<Item = &mut Update> {
        self.updates.iter_mut().skip(i + 1)
    }

    /// What path `from` has kept locked for updates is kept by path `to` from now on.
    pub(in crate::btree) fn handed_over(&mut self, from: u8, to: u8) {
        for u in self.updates.iter_mut().filter(|u| u.to.path == Some(from)) {
            u.to.path = Some(to);
        }
    }

    /// The key of update `i`, to be changed in place.
    pub(super) fn key_mut(&mut self, i: usize) -> Option<KeyMut<'_>> {
        let new = &mut self.updates.get_mut(i)?.new;
        let value = self.words.get_mut(Self::range(new))?;
        Some(KeyMut {
            key: &mut new.key,
            value,
        })
    }

    fn lower_bound(&self, btree: BtreeId, level: u8, pos: Bpos) -> usize {
        let order = (btree, Reverse(level), pos);
        // Mostly in order.
        if self.updates.last().is_none_or(|u| u.order() < order) {
            return self.updates.len();
        }
        self.updates.partition_point(|u| u.order() < order)
    }

    /// Where the update at exactly `pos` is.
    pub(in crate::btree) fn find(&self, btree: BtreeId, level: u8, pos: Bpos) -> Option<usize> {
        let i = self.lower_bound(btree, level, pos);
        let u = self.updates.get(i)?;
        (u.order() == (btree, Reverse(level), pos)).then_some(i)
    }

    /// The first key at or after `pos` that will be there.
    pub(in crate::btree) fn first_from(
        &self,
        btree: BtreeId,
        level: u8,
        pos: Bpos,
    ) -> Option<Stored> {
        let u = self.updates.get(self.lower_bound(btree, level, pos))?;
        (u.btree == btree && u.level == level).then_some(u.new)
    }

    /// The last key at or before `pos` that will be there.
    pub(in crate::btree) fn last_upto(
        &self,
        btree: BtreeId,
        level: u8,
        pos: Bpos,
    ) -> Option<Stored> {
        let order = (btree, Reverse(level), pos);
        let i = self.updates.partition_point(|u| u.order() <= order);
        let u = self.updates.get(i.checked_sub(1)?)?;
        (u.btree == btree && u.level == level).then_some(u.new)
    }

    /// Adds an update, or replaces the one at its position. Room must have been made.
    pub(in crate::btree) fn put(&mut self, update: Update) -> Result {
        let i = self.lower_bound(update.btree, update.level, update.new.key.pos);
        match self.updates.get_mut(i) {
            Some(u) if u.order() == update.order() => {
                let before = match u.overwritten || u.inserted {
                    // Triggers have been told of it: for them it is what was there.
                    true => Some(u.new),
                    false => u.before,
                };
                *u = Update { before, ..update };
                Ok(())
            }
            _ => self
                .updates
                .insert_within_capacity(i, update)
                .map_err(no_memory),
        }
    }

    /// A key has come into the key cache by the transaction itself: what `passed` is for those of updates that it concerns.
    pub(in crate::btree) fn came(&mut self, passed: impl Fn(Bare) -> Option<Bare>) {
        for bare in self.updates.iter_mut().filter_map(|u| u.to.bare.as_mut()) {
            if let Some(new) = passed(*bare) {
                *bare = new;
            }
        }
    }

    /// Adds to the counters at `pos`. Room must have been made.
    pub(super) fn add(&mut self, pos: Bpos, deltas: &[i64]) -> Result {
        let i = self.deltas.partition_point(|d| d.key.pos < pos);
        if self.deltas.get(i).is_none_or(|d| d.key.pos != pos) {
            let key = Bkey {
                u64s: BKEY_U64S,
                key_type: KeyType::ACCOUNTING,
                ..Bkey::deleted(pos)
            };
            let values = [0; ACCOUNTING_COUNTERS_MAX];
            let delta = Delta { key, values };
            self.deltas
                .insert_within_capacity(i, delta)
                .map_err(no_memory)?;
        }
        let delta = self.deltas.get_mut(i).ok_or(Error::NoMem)?;
        if deltas.is_empty() || deltas.len() > delta.values.len() {
            return Err(Error::BtreeKeyInvalid);
        }
        delta.key.u64s = delta.key.u64s.max(BKEY_U64S + deltas.len() as u8);
        for (to, from) in delta.values.iter_mut().zip(deltas) {
            *to = u64::from_le(*to).wrapping_add(*from as u64).to_le();
        }
        Ok(())
    }

    /// What is added to accounting keys. Sums of nothing are left out.
    pub(super) fn deltas(&self) -> impl Iterator<Item = KeyRef<'_>> {
        let deltas = self.deltas.iter().map(|d| d.get());
        deltas.filter(|k| k.value.iter().any(|v| *v != 0))
    }

    /// Gives each of these keys its version: where in the journal it will be, if records from word `offset` of entry `seq` on are
    /// theirs.
    pub(super) fn set_versions(&mut self, seq: u64, offset: u32) {
        let mut offset = offset;
        for d in self.deltas.iter_mut() {
            if d.values.iter().all(|v| *v == 0) {
                continue;
            }
            d.key.version = Bversion {
                hi: (seq >> 32) as u32,
                lo: seq << 32 | u64::from(offset),
            };
            offset = offset.wrapping_add(d.key.u64s.into()).wrapping_add(RECORD_U64S as u32);
        }
    }

    /// Appends whole records. Room must have been made.
    pub(super) fn push_records(&mut self, words: &[u64]) -> Result {
        for word in words {
            self.records.push_within_capacity(*word).map_err(no_memory)?;
        }
        Ok(())
    }

    /// Appends a record with one key. Room must have been made.
    pub(super) fn push_key(&mut self, kind: EntryType, btree: BtreeId, key: KeyRef<'_>) -> Result {
        if usize::from(key.key.value_u64s()) != key.value.len() {
            return Err(Error::BtreeKeyInvalid);
        }
        let head = RawEntry::header_word(kind, btree, 0, key.key.u64s.into());
        let header = Bkey {
            needs_whiteout: false,
            ..key.key
        };
        self.push_records(&[head])?;
        self.push_records(&header.to_words())?;
        self.push_records(key.value)
    }

    /// Whole records for the journal.
    pub(super) fn records(&self) -> &[u64] {
        &self.records
    }

    /// Has `pin` pinned at the commit's entry. Room must have been made.
    pub(super) fn push_pin(&mut self, pin: &Arc<Pin>) -> Result {
        self.pins.push_within_capacity(pin.clone()).map_err(no_memory)
    }

    /// What is to be pinned.
    pub(super) fn pins(&self) -> &[Arc<Pin>] {
        &self.pins
    }

    /// Whether there is anything that goes to the journal and nowhere else.
    pub(super) fn only_journalled(&self) -> bool {
        !self.records.is_empty() || self.deltas().next().is_some()
    }

    /// Words that the commit takes in the journal.
    pub(super) fn journal_u64s(&self) -> usize {
        let record = |k: &Bkey| usize::from(k.u64s) + RECORD_U64S;
        let updates: usize = self.updates.iter().map(|u| record(&u.new.key)).sum();
        let deltas: usize = self.deltas().map(|k| record(&k.key)).sum();
        self.records.len() + updates + deltas
    }
}
