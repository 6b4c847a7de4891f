// SPDX-License-Identifier: GPL-2.0
//! The key cache, against arrays of what should be seen; leaves are looked at apart from it.

mod tasks;

pub(in crate::btree::tests) use tasks::tasks;

use super::{check, Fs, TREE};
use crate::{
    btree::{
        tests::image::{Draw, Key},
        trans::{
            update::{CommitFlags, UpdateFlags},
            Attempt, TransError,
        },
        Btree, IterFlags,
    },
    util::error::{Error, Result},
};
use bcachefs_format::{Bpos, BtreeId};
use core::ops::ControlFlow;
use kernel::prelude::*;

/// A btree without snapshots, and one with them.
const TREES: [BtreeId; 2] = [BtreeId::REBALANCE_WORK, TREE];
const KEYS: u64 = 120;

fn caching(id: BtreeId, remember: bool) -> Result<Fs> {
    let fs = Fs::new(remember)?;
    fs.btree.cache_keys_of(id);
    fs.btree.start_caching_keys();
    Ok(fs)
}

fn place(id: BtreeId, n: u64) -> Bpos {
    match id.has_snapshots() {
        true => Bpos::with_snapshot(5, n, u32::MAX),
        false => Bpos::new(5, n),
    }
}

/// Prints what has happened.
pub(super) fn show(b: &Btree, id: BtreeId) {
    b.fill.report(format_args!("btree test: {id}: {}", *b.key_cache));
}

/// What leaves have, in order.
fn leaves(b: &Btree, id: BtreeId) -> Result<KVVec<(Bpos, u64)>> {
    let mut keys = KVVec::new();
    b.walk_nodes(id, 0, |_, node| {
        for k in node.iter() {
            let value = k.value.first().copied().unwrap_or(0);
            keys.push((k.key.pos, value), GFP_KERNEL | __GFP_NOWARN)?;
        }
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(keys)
}

/// Checks what must hold while nothing runs: how many keys are cached, and how many of them dirty.
fn check_cache(b: &Btree, id: BtreeId) -> Result<(usize, usize)> {
    let leaves = leaves(b, id)?;
    let (mut keys, mut dirty) = (0, 0);
    b.key_cache.for_each(|head, key| {
        let leaf = leaves.iter().find(|k| k.0 == key.key.pos);
        let value = key.value.first().copied();
        keys += 1;
        dirty += usize::from(head.is_dirty());
        // The leaf has it; the same, if it is clean. What is dirty is pinned.
        check!(leaf.is_some() && head.is_dirty() == head.pin.seq().is_some());
        check!(head.is_dirty() || leaf.map(|k| k.1) == value);
        Ok(())
    })?;
    check!(dirty == b.key_cache.nr_dirty() && keys == b.key_cache.nr_keys());
    Ok((keys, dirty))
}

/// One change of the key `n`, in one of the ways there are.
fn change(
    t: &mut Attempt<'_>,
    id: BtreeId,
    n: u64,
    value: Option<u64>,
    way: u64,
) -> core::result::Result<(), TransError> {
    let pos = place(id, n);
    let Some(value) = value else {
        return t.delete(id, pos, UpdateFlags::default());
    };
    let key = Key::new(pos, value);
    let bypass_key_cache = way == 0;
    let flags = UpdateFlags {
        bypass_key_cache,
        ..UpdateFlags::default()
    };
    match way {
        0 | 1 => t.insert(id, key.as_ref(), flags),
        2 => {
            let mut iter = t.iter(id, pos, IterFlags::SLOTS | IterFlags::INTENT);
            iter.peek(t)?;
            t.update(&iter, key.as_ref(), flags)
        }
        3 => {
            let mut iter = t.iter(id, pos, IterFlags::INTENT);
            match iter.peek_upto(t, pos)?.is_some() {
                true => t.update(&iter, key.as_ref(), flags),
                false => t.insert(id, key.as_ref(), flags),
            }
        }
        _ => {
            t.get(id, pos)?;
            t.insert(id, key.as_ref(), flags)
        }
    }
}

/// What is found by looking at the key, and by walking there from both sides.
fn look(t: &mut Attempt<'_>, id: BtreeId, n: u64) -> core::result::Result<Option<u64>, TransError> {
    let pos = place(id, n);
    let value = t.get(id, pos)?.map(|k| Key::of(k).value);
    let mut iter = t.iter(id, pos, IterFlags::NONE);
    let walked = iter.peek_upto(t, pos)?.map(|k| Key::of(k).value);
    let mut iter = t.iter(id, pos, IterFlags::NONE);
    let back = iter.peek_prev(t)?.filter(|k| k.key.pos == pos).map(|k| Key::of(k).value);
    if value != walked || value != back {
        pr_err!("btree test: {id:?} {pos:?}: {value:?}, {walked:?} forwards, {back:?} backwards\n");
        return Err(Error::BtreeTopology.into());
    }
    Ok(value)
}

fn compare(b: &Btree, id: BtreeId, model: &[Option<u64>]) -> Result {
    for (n, want) in model.iter().enumerate() {
        let found = b.run(|t| look(t, id, n as u64))?;
        if found != *want {
            pr_err!("btree test: {id:?} key {n}: {found:?}, not {want:?}\n");
            return Err(Error::BtreeTopology);
        }
    }
    Ok(())
}

fn run(id: BtreeId, seed: u64, restarts: u32) -> Result {
    let fs = caching(id, false)?;
    let b = &fs.btree;
    let mut model = KVVec::from_elem(None, KEYS as usize, GFP_KERNEL)?;
    let mut draw = Draw(seed);
    let mut most = (0, 0);
    for round in 0..1500u64 {
        b.inject_restarts(seed + round, restarts);
        let mut changes: [Option<(u64, Option<u64>, u64)>; 5] = [None; 5];
        let nr = 1 + draw.below(5) as usize;
        for change in changes.iter_mut().take(nr) {
            let value = (draw.below(9) != 0).then_some(1 + draw.below(1 << 30));
            *change = Some((draw.below(KEYS), value, draw.below(8)));
        }
        let flags = CommitFlags::default();
        let ((), done) = b.commit(None, flags, |t| {
            for (i, &(n, value, way)) in changes.iter().flatten().enumerate() {
                change(t, id, n, value, way)?;
                // It sees what it is about to do.
                let later = changes.iter().flatten().take(i + 1).filter(|c| c.0 == n).last();
                let (found, want) = (look(t, id, n)?, later.and_then(|c| c.1));
                if found != want {
                    pr_err!(
                        "btree test: {id:?} key {n} in round {round}, change {i} by way {way}: {found:?}, not {want:?}; of {changes:?}\n"
                    );
                    return Err(Error::BtreeTopology.into());
                }
            }
            Ok(())
        })?;
        for &(n, value, _) in changes.iter().flatten() {
            if let Some(m) = model.get_mut(n as usize) {
                *m = value;
            }
        }
        match draw.below(250) {
            0 => drop(fs.journal.flush_pins(done.seq / 2)?),
            1 => drop(fs.journal.flush_pins(done.seq)?),
            2 => drop(b.key_cache.evict(draw.below(KEYS) as usize)),
            3 => while b.flush_nodes()? {},
            4 => drop(b.cache().cannibalise(4)),
            _ => {}
        }
        if round % 50 == 0 {
            b.inject_restarts(0, 0);
            let now = check_cache(b, id)?;
            most = most.max(now);
            compare(b, id, &model)?;
        }
    }
    b.inject_restarts(0, 0);
    check!(most.0 > 30 && most.1 > 20);
    // Everything reaches the leaves.
    fs.journal.flush_pins(u64::MAX)?;
    check!(check_cache(b, id)?.1 == 0);
    let found = leaves(b, id)?;
    let mut want = model.iter().enumerate().filter_map(|(n, v)| Some((place(id, n as u64), (*v)?)));
    check!(found.iter().all(|k| Some(*k) == want.next()) && want.next().is_none());
    // And goes when it is not used.
    while b.key_cache.evict(KEYS as usize).0 != 0 || b.key_cache.nr_keys() != 0 {}
    compare(b, id, &model)?;
    show(b, id);
    finish(fs)
}

/// Ends writing.
fn finish(fs: Fs) -> Result {
    fs.journal.flush_pins(u64::MAX)?;
    fs.settle()?;
    fs.btree.stop_interior();
    check!(!fs.journal.failed() && fs.btree.dirty_keys() == 0);
    fs.journal.stop()?;
    fs.btree.shutdown();
    check!(fs.btree.key_cache.nr_keys() == 0);
    fs.journal.detach();
    Ok(())
}

pub(in crate::btree::tests) fn matches_model() -> Result {
    for id in TREES {
        run(id, 3, 0)?;
        run(id, 4, 60)?;
    }
    Ok(())
}

/// Dirty keys are bounded.
pub(in crate::btree::tests) fn limits() -> Result {
    let id = BtreeId::REBALANCE_WORK;
    let fs = caching(id, false)?;
    let b = &fs.btree;
    let (keys, batch) = (12000, 8);
    for round in 0..3 {
        for from in (0..keys).step_by(batch) {
            b.commit(None, CommitFlags::default(), |t| {
                for n in from..from + batch as u64 {
                    let key = Key::new(place(id, n), n + round);
                    t.insert(id, key.as_ref(), UpdateFlags::default())?;
                }
                Ok(())
            })?;
            check!(!b.key_cache.is_full(1) || b.key_cache.nr_dirty() <= 4096 + keys as usize / 4 * 3);
        }
    }
    check!(b.key_cache.nr_keys() == keys as usize);
    // What is too much goes without being asked for.
    for _ in 0..200 {
        if b.key_cache.nr_dirty() <= 1024 + keys as usize / 2 {
            break;
        }
        kernel::time::delay::fsleep(kernel::time::Delta::from_millis(20));
    }
    check!(b.key_cache.nr_dirty() <= 1024 + keys as usize / 2);
    let mut n = 0;
    b.walk(id, Bpos::POS_MIN, Bpos::SPOS_MAX, IterFlags::NONE, |k| {
        check!(k.value.first() == Some(&(n + 2)) && k.key.pos == place(id, n));
        n += 1;
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    check!(n == keys);
    show(b, id);
    finish(fs)
}
