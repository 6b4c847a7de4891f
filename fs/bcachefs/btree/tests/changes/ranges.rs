// SPDX-License-Identifier: GPL-2.0
//! Ranges, in snapshots and without.

use super::{btrees, journal_is_right, LEAVES};
use crate::{
    btree::{
        tests::{
            check,
            image::{Draw, Key},
        },
        trans::update::{CommitFlags, UpdateFlags},
        Btree, IterFlags,
    },
    util::error::Result,
};
use bcachefs_format::{Bkey, Bpos, BtreeId, KeyRef, KeyType};
use core::ops::ControlFlow;
use kernel::prelude::*;

const ID: BtreeId = BtreeId::EXTENTS;
const SECTORS: u64 = 400;
/// All snapshots, with those that do not change.
const IDS: [u32; 5] = [60, 70, 80, 90, 100];

/// For each snapshot the value of each sector; 0 for a hole.
type Model = [KVVec<u64>; 5];

fn model_of(model: &Model, id: u32) -> &[u64] {
    let i = IDS.iter().position(|i| *i == id).unwrap_or(0);
    model.get(i).map_or(&[], |m| m)
}

fn set(model: &mut Model, id: u32, start: u64, end: u64, value: u64) {
    let i = IDS.iter().position(|i| *i == id).unwrap_or(0);
    let sectors = model.get_mut(i).and_then(|m| m.get_mut(start as usize..end as usize));
    sectors.into_iter().flatten().for_each(|m| *m = value);
}

/// A range as a key. Its value is a reservation for one to four replicas.
fn range(id: u32, start: u64, end: u64, value: u64) -> Key {
    Key {
        pos: Bpos::with_snapshot(5, end, id),
        size: (end - start) as u32,
        key_type: KeyType::RESERVATION,
        value: value << 32,
    }
}

fn hole(id: u32, start: u64, end: u64) -> KeyRef<'static> {
    KeyRef {
        key: Bkey {
            size: (end - start) as u32,
            ..Bkey::deleted(Bpos::with_snapshot(5, end, id))
        },
        value: &[],
    }
}

/// Whether a walk from the snapshot sees what it should: each sector once.
fn seen(b: &Btree, model: &Model, id: u32) -> Result<bool> {
    let model = model_of(model, id);
    let start = Bpos::with_snapshot(5, 0, id);
    let end = Bpos::with_snapshot(6, 0, id);
    let mut at = 0;
    let mut right = true;
    b.walk(ID, start, end, IterFlags::NONE, |k| {
        let k = Key::of(k);
        let first = k.pos.offset - u64::from(k.size);
        right &= first >= at;
        for s in at..k.pos.offset {
            let value = if s < first { 0 } else { k.value >> 32 };
            right &= model.get(s as usize) == Some(&value);
        }
        at = k.pos.offset;
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    let rest = model.get(at as usize..).unwrap_or(&[]);
    Ok(right && rest.iter().all(|v| *v == 0))
}

pub(in crate::btree::tests) fn ranges() -> Result {
    for (seed, restarts) in [(11, 0), (12, 40), (13, 12)] {
        let mut draw = Draw(seed);
        let mut model: Model = [const { KVVec::new() }; 5];
        for m in model.iter_mut() {
            *m = KVVec::from_elem(0, SECTORS as usize, GFP_KERNEL)?;
        }
        // What the oldest snapshot has is seen by all.
        let mut keys: KVVec<Key> = KVVec::new();
        let mut at = draw.below(9);
        while at + 30 < SECTORS {
            let (end, value) = (at + 1 + draw.below(30), 1 + draw.below(4));
            keys.push(range(100, at, end, value), GFP_KERNEL)?;
            for id in IDS {
                set(&mut model, id, at, end, value);
            }
            at = end + draw.below(3) * draw.below(9);
        }
        let b = btrees(&[(ID, &keys)], 9, None)?;
        b.inject_restarts(seed, restarts);
        for round in 0..500 {
            let id = LEAVES.get(draw.below(3) as usize).copied().unwrap_or(60);
            let start = draw.below(SECTORS - 1);
            let end = (start + 1 + draw.below(if round % 5 == 0 { 100 } else { 12 })).min(SECTORS);
            let value = draw.below(5);
            let key = range(id, start, end, value);
            match (value, draw.below(2)) {
                (0, 0) => {
                    let (from, to) = (key.pos, key.pos);
                    let from = Bpos { offset: start, ..from };
                    b.delete_range(ID, from, to, UpdateFlags::default(), CommitFlags::default())?;
                }
                _ => {
                    let key = match value {
                        0 => hole(id, start, end),
                        _ => key.as_ref(),
                    };
                    b.commit(None, CommitFlags::default(), |t| {
                        t.insert(ID, key, UpdateFlags::default())
                    })?;
                }
            }
            set(&mut model, id, start, end, value);
            for id in IDS.iter().filter(|i| round % 16 == 0 || **i == id) {
                check!(seen(&b, &model, *id)?);
            }
        }
        for id in IDS {
            check!(seen(&b, &model, id)?);
        }
        check!(journal_is_right(&b));
    }
    Ok(())
}

/// Ranges without values grow together: no two of them touch.
pub(in crate::btree::tests) fn merged() -> Result {
    const FREE: BtreeId = BtreeId::FREESPACE;
    let mut draw = Draw(14);
    let b = btrees(&[(FREE, &[])], 0, None)?;
    b.inject_restarts(14, 50);
    let mut model = KVVec::from_elem(false, 64, GFP_KERNEL)?;
    for _ in 0..800 {
        let start = draw.below(60);
        let end = start + 1 + draw.below(4);
        // What is put into what is there cuts it, and is not put together with the rest.
        let free = model.get(start as usize..end as usize).is_some_and(|m| m.iter().all(|m| !m));
        let insert = free && draw.below(5) != 0;
        let key = Bkey {
            size: (end - start) as u32,
            key_type: if insert { KeyType::SET } else { KeyType::DELETED },
            ..Bkey::deleted(Bpos::new(0, end))
        };
        b.commit(None, CommitFlags::default(), |t| {
            t.insert(FREE, KeyRef { key, value: &[] }, UpdateFlags::default())
        })?;
        for m in model.get_mut(start as usize..end as usize).into_iter().flatten() {
            *m = insert;
        }
        let mut at = 0;
        let mut right = true;
        b.walk(FREE, Bpos::POS_MIN, Bpos::POS_MAX, IterFlags::NONE, |k| {
            let first = k.key.start_offset();
            // Something is missing between two.
            right &= at == 0 && first == 0 || first > at;
            for s in at..k.key.pos.offset {
                right &= model.get(s as usize) == Some(&(s >= first));
            }
            at = k.key.pos.offset;
            Ok(ControlFlow::<()>::Continue(()))
        })?;
        let rest = model.get(at as usize..).unwrap_or(&[]);
        check!(right && rest.iter().all(|m| !m));
    }
    check!(journal_is_right(&b));
    Ok(())
}
