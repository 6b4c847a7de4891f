// SPDX-License-Identifier: GPL-2.0
//! Tasks that change points and ranges at once, in btrees that begin empty, are split, and merged.

use crate::{
    btree::{
        tests::{
            check,
            image::{Draw, Key},
            shape::Fs,
        },
        trans::update::{CommitFlags, UpdateFlags},
        Btree, IterFlags,
    },
    util::{error::Result, threads},
};
use bcachefs_format::{Bkey, Bpos, BtreeId, KeyRef, KeyType};
use core::ops::ControlFlow;
use kernel::prelude::*;

const POINTS: BtreeId = BtreeId::XATTRS;
const RANGES: BtreeId = BtreeId::EXTENTS;
const TASKS: u64 = 4;
/// Points and sectors of each task.
const OWN: u64 = 400;
const SNAPSHOT: u32 = u32::MAX;

/// The tasks' points alternate, so that all of them meet in the leaves.
fn point(me: u64, i: u64) -> Bpos {
    Bpos::with_snapshot(1, i * TASKS + me, SNAPSHOT)
}

/// Each task has a file of its own.
fn sector(me: u64, i: u64) -> Bpos {
    Bpos::with_snapshot(10 + me, i, SNAPSHOT)
}

struct Model {
    points: KVVec<u64>,
    sectors: KVVec<u64>,
}

impl Model {
    fn new() -> Result<Self> {
        Ok(Model {
            points: KVVec::from_elem(0, OWN as usize, GFP_KERNEL)?,
            sectors: KVVec::from_elem(0, OWN as usize, GFP_KERNEL)?,
        })
    }

    fn compare(&self, b: &Btree, me: u64) -> Result {
        let mut i = 0;
        b.walk(POINTS, point(0, 0), point(0, OWN), IterFlags::PREFETCH, |k| {
            let k = Key::of(k);
            if k.pos.offset % TASKS == me {
                while i < k.pos.offset / TASKS {
                    check!(self.points.get(i as usize) == Some(&0));
                    i += 1;
                }
                check!(self.points.get(i as usize) == Some(&k.value));
                i += 1;
            }
            Ok(ControlFlow::<()>::Continue(()))
        })?;
        let rest = self.points.get(i as usize..).unwrap_or(&[]);
        check!(rest.iter().all(|p| *p == 0));
        let mut at = 0;
        b.walk(RANGES, sector(me, 0), sector(me, OWN), IterFlags::NONE, |k| {
            let k = Key::of(k);
            let first = k.pos.offset - u64::from(k.size);
            check!(first >= at);
            for s in at..k.pos.offset {
                let value = if s < first { 0 } else { k.value >> 32 };
                check!(self.sectors.get(s as usize) == Some(&value));
            }
            at = k.pos.offset;
            Ok(ControlFlow::<()>::Continue(()))
        })?;
        let rest = self.sectors.get(at as usize..).unwrap_or(&[]);
        check!(rest.iter().all(|v| *v == 0));
        Ok(())
    }
}

fn task(b: &Btree, me: u64) -> Result {
    let mut draw = Draw(me + 170);
    let mut model = Model::new()?;
    for round in 0..1500 {
        // First they grow, then they shrink.
        let empty = draw.below(1500) < round && round > 700;
        if draw.below(60) == 0 {
            let start = draw.below(OWN);
            let end = (start + 1 + draw.below(80)).min(OWN);
            let flags = CommitFlags::default();
            b.delete_range(RANGES, sector(me, start), sector(me, end), UpdateFlags::default(), flags)?;
            let gone = model.sectors.get_mut(start as usize..end as usize);
            gone.into_iter().flatten().for_each(|s| *s = 0);
            continue;
        }
        let (i, value) = (draw.below(OWN), 1 + draw.below(1 << 40));
        let start = draw.below(OWN);
        let end = (start + 1 + draw.below(6)).min(OWN);
        let replicas = 1 + draw.below(4);
        let range = Bkey {
            size: (end - start) as u32,
            ..Bkey::deleted(sector(me, end))
        };
        let words = [replicas << 32];
        b.commit(None, CommitFlags::default(), |t| {
            if empty {
                t.delete(POINTS, point(me, i), UpdateFlags::default())?;
                let key = KeyRef { key: range, value: &[] };
                return t.insert(RANGES, key, UpdateFlags::default());
            }
            let key = Key::new(point(me, i), value);
            t.insert(POINTS, key.as_ref(), UpdateFlags::default())?;
            let key = Bkey {
                u64s: 6,
                key_type: KeyType::RESERVATION,
                ..range
            };
            t.insert(RANGES, KeyRef { key, value: &words }, UpdateFlags::default())
        })?;
        if let Some(p) = model.points.get_mut(i as usize) {
            *p = if empty { 0 } else { value };
        }
        let sectors = model.sectors.get_mut(start as usize..end as usize);
        for s in sectors.into_iter().flatten() {
            *s = if empty { 0 } else { replicas };
        }
        if round % 150 == 0 {
            model.compare(b, me)?;
        }
    }
    model.compare(b, me)
}

fn levels(b: &Btree, id: BtreeId) -> Result<u64> {
    let mut leaves = 0;
    b.walk_nodes(id, 0, |_, _| {
        leaves += 1;
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(leaves)
}

pub(in crate::btree::tests) fn grow() -> Result {
    for (seed, restarts) in [(1, 0), (2, 150)] {
        let fs = Fs::new(false)?;
        fs.btree.inject_restarts(seed, restarts);
        let b = fs.btree.clone();
        threads::run(TASKS as u32, move |me| task(&b, me.into()))?;
        check!(levels(&fs.btree, POINTS)? > 1);
        fs.close()?;
    }
    Ok(())
}
