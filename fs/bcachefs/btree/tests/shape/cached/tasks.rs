// SPDX-License-Identifier: GPL-2.0
//! Several tasks that change cached keys, while they are written out and evicted.

use super::{caching, check, check_cache, finish, leaves, place, show, TREES};
use crate::{
    btree::{
        tests::image::{Draw, Key},
        trans::update::{CommitFlags, UpdateFlags},
        Btree, IterFlags,
    },
    journal::engine::Journal,
    util::{error::Result, threads},
};
use bcachefs_format::BtreeId;
use kernel::{prelude::*, sync::Arc};

const TASKS: u64 = 4;
/// Accounts, whose sum never changes; then keys that one task each has to itself, those of the tasks alternating.
const ACCOUNTS: u64 = 40;
const OWN: u64 = 30;
const START: u64 = 1000;
const ROUNDS: u64 = 400;

struct Shared {
    id: BtreeId,
    btree: Arc<Btree>,
    journal: Arc<Journal>,
}

fn own(me: u64, i: u64) -> u64 {
    ACCOUNTS + i * TASKS + me
}

/// How an account is looked at before it is changed.
fn flags(way: u64) -> IterFlags {
    match way {
        0 => IterFlags::INTENT | IterFlags::SLOTS,
        // It turns out only later that something is changed.
        1 => IterFlags::SLOTS,
        2 => IterFlags::INTENT,
        _ => IterFlags::NONE,
    }
}

/// Moves something from one account to another, if there is as much.
fn transfer(s: &Shared, draw: &mut Draw) -> Result {
    let (from, to, n) = (draw.below(ACCOUNTS), draw.below(ACCOUNTS), draw.below(20));
    let (way, bypass) = (draw.below(4), draw.below(12) == 0);
    let id = s.id;
    let how = UpdateFlags {
        bypass_key_cache: bypass,
        ..UpdateFlags::default()
    };
    s.btree.commit(None, CommitFlags::default(), |t| {
        let mut i = t.iter(id, place(id, from), flags(way));
        let mut j = t.iter(id, place(id, to), flags(way));
        let a = i.peek_upto(t, place(id, from))?.map_or(0, |k| Key::of(k).value);
        let c = j.peek_upto(t, place(id, to))?.map_or(0, |k| Key::of(k).value);
        if a < n || from == to {
            return Ok(());
        }
        let key = Key::new(place(id, from), a - n);
        t.update(&i, key.as_ref(), how)?;
        let key = Key::new(place(id, to), c + n);
        match way {
            3 => t.insert(id, key.as_ref(), how),
            _ => t.update(&j, key.as_ref(), how),
        }
    })?;
    Ok(())
}

/// Moves everything from one account, which then is no key any more, to another one.
fn swap(s: &Shared, draw: &mut Draw) -> Result {
    let (from, to) = (draw.below(ACCOUNTS), draw.below(ACCOUNTS));
    let id = s.id;
    s.btree.commit(None, CommitFlags::default(), |t| {
        let mut i = t.iter(id, place(id, from), IterFlags::SLOTS);
        let mut j = t.iter(id, place(id, to), IterFlags::SLOTS);
        let a = i.peek(t)?.map_or(0, |k| Key::of(k).value);
        let c = j.peek(t)?.map_or(0, |k| Key::of(k).value);
        if from == to {
            return Ok(());
        }
        t.delete(id, place(id, from), UpdateFlags::default())?;
        let key = Key::new(place(id, to), a + c);
        t.insert(id, key.as_ref(), UpdateFlags::default())
    })?;
    Ok(())
}

fn sum(s: &Shared) -> Result<u64> {
    let id = s.id;
    // Nothing is changed, but it is to be true all at once, as for a commit.
    let (sum, _) = s.btree.commit(None, CommitFlags::default(), |t| {
        let mut sum = 0;
        let mut iters = KVec::new();
        for i in 0..ACCOUNTS {
            let mut iter = t.iter(id, place(id, i), IterFlags::SLOTS);
            sum += iter.peek(t)?.map_or(0, |k| Key::of(k).value);
            iters.push(iter, GFP_NOWAIT)?;
        }
        let key = Key::new(place(id, 1 << 20), sum);
        t.insert(id, key.as_ref(), UpdateFlags::default())?;
        t.commit(None, CommitFlags::default())?;
        Ok(sum)
    })?;
    Ok(sum)
}

fn task(s: &Shared, me: u64) -> Result {
    let id = s.id;
    let b = &*s.btree;
    let mut draw = Draw(me + 70);
    let mut model = [0; OWN as usize];
    for round in 0..ROUNDS {
        match draw.below(8) {
            0..3 => transfer(s, &mut draw)?,
            3 => swap(s, &mut draw)?,
            4 if round % 7 == 0 => check!(sum(s)? == ACCOUNTS * START),
            5 if draw.below(4) == 0 => {
                let (i, n) = (draw.below(OWN), 1 + draw.below(6));
                let range = i as usize..(i + n).min(OWN) as usize;
                b.commit(None, CommitFlags::default(), |t| {
                    for i in range.clone() {
                        t.delete(id, place(id, own(me, i as u64)), UpdateFlags::default())?;
                    }
                    Ok(())
                })?;
                model.get_mut(range).into_iter().flatten().for_each(|m| *m = 0);
            }
            6 if me == 0 => match draw.below(5) {
                0 => drop(s.journal.flush_pins(s.journal.last_seq() + draw.below(200))?),
                1 => drop(b.key_cache.evict(draw.below(80) as usize)),
                2 => drop(b.cache().cannibalise(2)),
                3 => while b.flush_nodes()? {},
                _ => {}
            },
            _ => {
                let (i, value) = (draw.below(OWN), 1 + draw.below(1000));
                let key = Key::new(place(id, own(me, i)), value);
                b.commit(None, CommitFlags::default(), |t| {
                    t.insert(id, key.as_ref(), UpdateFlags::default())
                })?;
                if let Some(m) = model.get_mut(i as usize) {
                    *m = value;
                }
            }
        }
        let i = draw.below(OWN);
        let found = b.run(|t| Ok(t.get(id, place(id, own(me, i)))?.map(Key::of)))?;
        check!(found.map_or(0, |k| k.value) == model.get(i as usize).copied().unwrap_or(0));
    }
    for (i, m) in model.iter().enumerate() {
        let found = b.run(|t| Ok(t.get(id, place(id, own(me, i as u64)))?.map(Key::of)))?;
        check!(found.map_or(0, |k| k.value) == *m);
    }
    Ok(())
}

pub(in crate::btree::tests) fn tasks() -> Result {
    for (id, seed, restarts) in [(0, 1, 0), (1, 2, 0), (0, 3, 60), (1, 4, 60)] {
        let id = TREES.get(id).copied().unwrap_or(BtreeId::XATTRS);
        let fs = caching(id, false)?;
        for i in 0..ACCOUNTS {
            let key = Key::new(place(id, i), START);
            fs.btree.commit(None, CommitFlags::default(), |t| {
                t.insert(id, key.as_ref(), UpdateFlags::default())
            })?;
        }
        fs.btree.inject_restarts(seed, restarts);
        let (btree, journal) = (fs.btree.clone(), fs.journal.clone());
        let shared = Arc::new(Shared { id, btree, journal }, GFP_KERNEL)?;
        let s = shared.clone();
        threads::run(TASKS as u32, move |me| task(&s, me.into()))?;
        fs.btree.inject_restarts(0, 0);
        check!(sum(&shared)? == ACCOUNTS * START);
        check_cache(&fs.btree, id)?;
        drop(shared);
        // The same in the leaves.
        fs.journal.flush_pins(u64::MAX)?;
        check_cache(&fs.btree, id)?;
        let keys = leaves(&fs.btree, id)?;
        let accounts = keys.iter().filter(|k| k.0.offset < ACCOUNTS).map(|k| k.1);
        check!(accounts.sum::<u64>() == ACCOUNTS * START);
        show(&fs.btree, id);
        finish(fs)?;
    }
    Ok(())
}
