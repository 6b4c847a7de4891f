// SPDX-License-Identifier: GPL-2.0
//! Triggers that keep an index of another btree, and counters.

use super::btrees;
use crate::{
    btree::{
        tests::{
            check,
            image::{Draw, Key},
        },
        trans::update::{CommitFlags, UpdateFlags},
        triggers::{KeyMut, MissingReplicas, Place, Triggers},
        Attempt, IterFlags, TransError,
    },
    util::error::Result,
};
use bcachefs_format::{
    keys::accounting::AccountingKey, Bkey, Bpos, BtreeId, Bversion, KeyRef, KeyType,
};
use core::ops::ControlFlow;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Arc,
    },
};

const ID: BtreeId = BtreeId::REBALANCE_WORK;
/// Where the trigger notes the values that there are: how often, by value.
const INDEX: BtreeId = BtreeId::DELETED_INODES;
const VALUES: u64 = 40;

/// Keys with a value appear in an index under that value; and are counted.
struct Indexer {
    keys: Atomic<i64>,
    tries: Atomic<u64>,
    marked: Atomic<u64>,
    atomic: Atomic<u64>,
    newest: Atomic<u64>,
}

fn entry(value: u64, at: Bpos, key_type: KeyType) -> KeyRef<'static> {
    KeyRef {
        key: Bkey {
            key_type,
            ..Bkey::deleted(Bpos::new(value, at.offset))
        },
        value: &[],
    }
}

impl Triggers for Indexer {
    fn has_transactional(&self, btree: BtreeId, _: u8, key: &Bkey) -> bool {
        btree == ID && key.key_type == KeyType::COOKIE
    }

    fn transactional(
        &self,
        t: &mut Attempt<'_>,
        place: Place,
        old: KeyRef<'_>,
        new: KeyMut<'_>,
    ) -> core::result::Result<(), TransError> {
        let KeyMut { key, value } = new;
        let at = key.pos;
        if place.overwrite {
            let was = old.value.first().copied().unwrap_or(0);
            t.insert(INDEX, entry(was, at, KeyType::DELETED), UpdateFlags::default())?;
        }
        if place.insert {
            let Some(is) = value.first_mut() else {
                return Ok(());
            };
            // What is out of range is brought back into it.
            *is %= VALUES;
            t.insert(INDEX, entry(*is, at, KeyType::SET), UpdateFlags::default())?;
        }
        let delta = i64::from(place.insert) - i64::from(place.overwrite);
        t.account(AccountingKey::NrInodes, &[delta])
    }

    fn has_atomic(&self, btree: BtreeId, _: u8, key: &Bkey) -> bool {
        btree == ID && key.key_type == KeyType::COOKIE
    }

    fn atomic(&self, _: Place, seq: u64, _: KeyRef<'_>, _: KeyMut<'_>) -> Result {
        self.atomic.add(1u64, Relaxed);
        self.newest.store(seq, Relaxed);
        Ok(())
    }

    fn account(&self, delta: KeyRef<'_>, version: Bversion) -> core::result::Result<(), MissingReplicas> {
        if self.tries.fetch_add(1u64, Full) % 5 == 3 {
            return Err(MissingReplicas);
        }
        if version != Bversion::ZERO && delta.key.version == version {
            let n = delta.value.first().copied().unwrap_or(0);
            self.keys.add(n as i64, Relaxed);
        }
        Ok(())
    }

    fn unaccount(&self, delta: KeyRef<'_>) {
        let n = delta.value.first().copied().unwrap_or(0);
        self.keys.add((n as i64).wrapping_neg(), Relaxed);
    }

    fn mark_replicas(&self, deltas: &mut dyn Iterator<Item = KeyRef<'_>>) -> Result {
        self.marked.add(deltas.count() as u64, Relaxed);
        Ok(())
    }

    fn used_sectors(&self, _: KeyRef<'_>) -> i64 {
        0
    }
}

pub(in crate::btree::tests) fn triggers() -> Result {
    let mut draw = Draw(21);
    let indexer = Indexer {
        keys: Atomic::new(0),
        tries: Atomic::new(0),
        marked: Atomic::new(0),
        atomic: Atomic::new(0),
        newest: Atomic::new(0),
    };
    let indexer = Arc::new(indexer, GFP_KERNEL)?;
    let mut empty: KVVec<Key> = KVVec::new();
    for i in 0..40 {
        // Sets of a tree with several leaves, to be deleted first.
        let key = Key {
            key_type: KeyType::SET,
            ..Key::new(Bpos::new(i, 1000), 0)
        };
        empty.push(key, GFP_KERNEL)?;
    }
    let b = btrees(&[(ID, &[]), (INDEX, &empty)], 6, Some(indexer.clone()))?;
    b.inject_restarts(21, 40);
    b.delete_range(INDEX, Bpos::POS_MIN, Bpos::SPOS_MAX, UpdateFlags::default(), CommitFlags::default())?;
    let mut model = [None; 32];
    for _ in 0..600 {
        let i = draw.below(32);
        let j = draw.below(32);
        let value = draw.below(3 * VALUES);
        b.commit(None, CommitFlags::default(), |t| {
            t.delete(ID, Bpos::new(0, i), UpdateFlags::default())?;
            let key = Key::new(Bpos::new(0, j), value);
            t.insert(ID, key.as_ref(), UpdateFlags::default())
        })?;
        if let Some(m) = model.get_mut(i as usize) {
            *m = None;
        }
        if let Some(m) = model.get_mut(j as usize) {
            *m = Some(value % VALUES);
        }
        for (at, m) in model.iter().enumerate() {
            let at = Bpos::new(0, at as u64);
            let is = b.run(|t| Ok(t.get(ID, at)?.map(Key::of)))?;
            check!(is.map(|k| k.value) == *m);
        }
        let mut entries = 0;
        b.walk(INDEX, Bpos::POS_MIN, Bpos::SPOS_MAX, IterFlags::NONE, |k| {
            let m = model.get(k.key.pos.offset as usize).copied().flatten();
            check!(m == Some(k.key.pos.inode));
            entries += 1;
            Ok(ControlFlow::<()>::Continue(()))
        })?;
        let present = model.iter().flatten().count();
        check!(entries == present && indexer.keys.load(Relaxed) == present as i64);
    }
    check!(indexer.marked.load(Relaxed) != 0 && indexer.atomic.load(Relaxed) != 0);
    check!(super::journal_is_right(&b));
    Ok(())
}
