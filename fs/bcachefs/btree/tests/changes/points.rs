// SPDX-License-Identifier: GPL-2.0
//! Points in snapshots.

use super::{btrees, journal_is_right, sees, LEAVES, TREE};
use crate::{
    btree::{
        tests::{
            check,
            image::{Draw, Key},
        },
        trans::update::{CommitFlags, UpdateFlags},
        Attempt, Btree, IterFlags, TransError,
    },
    util::error::{Error, Result},
};
use bcachefs_format::{Bkey, Bpos, BtreeId, KeyRef, KeyType};
use core::ops::ControlFlow;
use kernel::{prelude::*, sync::atomic::Relaxed};

const ID: BtreeId = BtreeId::XATTRS;
const OFFSETS: u64 = 160;

/// For each snapshot of [`LEAVES`] the value seen at each offset; 0 for none.
type Model = KVVec<[u64; 3]>;

fn pos(offset: u64, id: u32) -> Bpos {
    Bpos::with_snapshot(1, offset, id)
}

fn deleted(at: Bpos) -> KeyRef<'static> {
    KeyRef {
        key: Bkey::deleted(at),
        value: &[],
    }
}

/// What a walk from the snapshot sees.
fn view(t: &mut Attempt<'_>, id: u32, model: &Model, leaf: usize) -> core::result::Result<bool, TransError> {
    let mut iter = t.iter(ID, pos(0, id), IterFlags::NONE);
    let mut at = 0;
    let mut right = true;
    while let Some(k) = iter.peek(t)? {
        let k = Key::of(k);
        while at < k.pos.offset {
            right &= model.get(at as usize).and_then(|m| m.get(leaf)) == Some(&0);
            at += 1;
        }
        right &= model.get(at as usize).and_then(|m| m.get(leaf)) == Some(&k.value);
        at += 1;
        if !iter.advance() {
            break;
        }
    }
    let rest = model.get(at as usize..).unwrap_or(&[]);
    right &= rest.iter().all(|m| m.get(leaf) == Some(&0));
    // Backwards there are as many.
    let mut n = 0;
    iter.set_pos(pos(OFFSETS, id));
    while iter.peek_prev(t)?.is_some() {
        n += 1;
        if !iter.rewind() {
            break;
        }
    }
    let present = model.iter().filter(|m| m.get(leaf).is_some_and(|v| *v != 0));
    Ok(right && n == present.count())
}

/// Whatever lies in internal snapshots, as one number.
fn old_keys(b: &Btree) -> Result<u64> {
    let mut sum = 0u64;
    let flags = IterFlags::ALL_SNAPSHOTS;
    b.walk(ID, Bpos::POS_MIN, Bpos::SPOS_MAX, flags, |k| {
        let k = Key::of(k);
        if !LEAVES.contains(&k.pos.snapshot) {
            let word = k.pos.offset << 32 | u64::from(k.pos.snapshot);
            sum = sum.wrapping_mul(31).wrapping_add(word ^ k.value);
        }
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(sum)
}

pub(in crate::btree::tests) fn points() -> Result {
    for (seed, restarts) in [(1, 0), (2, 60), (3, 15)] {
        let mut draw = Draw(seed);
        let mut keys: KVVec<Key> = KVVec::new();
        let mut model: Model = KVVec::from_elem([0; 3], OFFSETS as usize, GFP_KERNEL)?;
        for offset in 0..OFFSETS {
            for (id, _) in TREE {
                let at = pos(offset, id);
                let key = match draw.below(6) {
                    0 => Key::new(at, 1 + draw.below(1000)),
                    1 if id != 100 => Key {
                        key_type: KeyType::WHITEOUT,
                        ..Key::new(at, 0)
                    },
                    _ => continue,
                };
                keys.push(key, GFP_KERNEL)?;
            }
            for (leaf, id) in LEAVES.iter().enumerate() {
                let seen = keys
                    .iter()
                    .filter(|k| k.pos.offset == offset && sees(*id, k.pos.snapshot))
                    .min_by_key(|k| k.pos.snapshot);
                let value = seen.filter(|k| k.key_type == KeyType::COOKIE);
                if let Some(m) = model.get_mut(offset as usize).and_then(|m| m.get_mut(leaf)) {
                    *m = value.map_or(0, |k| k.value);
                }
            }
        }
        let b = btrees(&[(ID, &keys)], 7, None)?;
        b.inject_restarts(seed, restarts);
        let before = old_keys(&b)?;
        for round in 0..600 {
            let mut changes: KVec<(u64, usize, u64)> = KVec::new();
            for _ in 0..1 + draw.below(5) {
                let value = draw.below(3) * (1 + draw.below(1000));
                let change = (draw.below(OFFSETS), draw.below(3) as usize, value);
                changes.push(change, GFP_KERNEL)?;
            }
            let mut after: Model = KVVec::new();
            after.extend_from_slice(&model, GFP_KERNEL)?;
            for (offset, leaf, value) in changes.iter() {
                if let Some(m) = after.get_mut(*offset as usize).and_then(|m| m.get_mut(*leaf)) {
                    *m = *value;
                }
            }
            let by_iterator = draw.below(2) == 0;
            let leaf = draw.below(3) as usize;
            let (right, done) = b.commit(None, CommitFlags::default(), |t| {
                for &(offset, leaf, value) in changes.iter() {
                    let at = pos(offset, LEAVES.get(leaf).copied().unwrap_or(0));
                    let key = Key::new(at, value);
                    let key = match value {
                        0 => deleted(at),
                        _ => key.as_ref(),
                    };
                    if by_iterator {
                        let flags = IterFlags::INTENT | IterFlags::SLOTS;
                        let mut iter = t.iter(ID, at, flags);
                        iter.peek(t)?;
                        t.update(&iter, key, UpdateFlags::default())?;
                    } else if value == 0 {
                        t.delete(ID, at, UpdateFlags::default())?;
                    } else {
                        t.insert(ID, key, UpdateFlags::default())?;
                    }
                }
                // What is about to be is seen.
                let id = LEAVES.get(leaf).copied().unwrap_or(0);
                view(t, id, &after, leaf)
            })?;
            check!(right && done.seq != 0);
            model = after;
            if round % 20 == 0 {
                for (leaf, id) in LEAVES.iter().enumerate() {
                    check!(b.run(|t| view(t, *id, &model, leaf))?);
                }
            }
        }
        // Others' keys are as they were, and nobody may touch them.
        check!(old_keys(&b)? == before);
        let key = Key::new(pos(3, 90), 1);
        let refused = b.commit(None, CommitFlags::default(), |t| {
            t.insert(ID, key.as_ref(), UpdateFlags::default())
        });
        check!(refused == Err(Error::SnapshotInternal));
        // A key that is not allowed here.
        let key = Key {
            key_type: KeyType::SET,
            ..Key::new(pos(3, 60), 1)
        };
        let refused = b.commit(None, CommitFlags::default(), |t| {
            t.insert(ID, key.as_ref(), UpdateFlags::default())
        });
        check!(refused == Err(Error::BtreeKeyInvalid));
        // More than one commit may hold.
        let refused = b.commit(None, CommitFlags::default(), |t| {
            for i in 0..600 {
                t.insert(ID, Key::new(pos(i, 60), 1).as_ref(), UpdateFlags::default())?;
            }
            Ok(())
        });
        check!(refused == Err(Error::TransTooBig));
        // Nothing was left of those; and several commits in one attempt are several entries.
        let seqs = b.run(|t| {
            t.log("nothing else")?;
            let first = t.commit(None, CommitFlags::default())?;
            t.log("and again")?;
            Ok((first.seq, t.commit(None, CommitFlags::default())?.seq))
        })?;
        check!(seqs.0 != 0 && seqs.1 > seqs.0);
        // A range of points.
        let (from, to) = (pos(20, 60), pos(90, 60));
        b.delete_range(ID, from, to, UpdateFlags::default(), CommitFlags::default())?;
        for m in model.iter_mut().take(90).skip(20) {
            if let Some(v) = m.first_mut() {
                *v = 0;
            }
        }
        for (leaf, id) in LEAVES.iter().enumerate() {
            check!(b.run(|t| view(t, *id, &model, leaf))?);
        }
        check!(journal_is_right(&b));
        check!(b.memory.as_ref().is_some_and(|m| m.waits.load(Relaxed) != 0));
        check!(b.commit(None, CommitFlags::default(), |_| Ok(()))?.1.seq == 0);
    }
    Ok(())
}
