// SPDX-License-Identifier: GPL-2.0
//! Measurements: how long an operation on the btree takes. The names and what each does are those of the other implementation, so that the
//! two can be compared. Points are cookies of inode 0 in the btree of xattrs.

use super::{
    keys::{pos, Cookie, POINTS, SNAPSHOT},
    random::Random,
};
use crate::{
    btree::{
        trans::{
            update::{CommitFlags, UpdateFlags},
            Attempt, TransError,
        },
        Btree, IterFlags,
    },
    util::{error::Result, threads},
};
use bcachefs_format::{Bkey, Bpos, KeyRef};
use core::ops::ControlFlow;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};

/// What one thread does: `count` operations, with numbers of its own.
pub(super) type Body = fn(&Btree, count: u64, random: &mut Random) -> Result;

const BODIES: &[(&str, Body)] = &[
    ("rand_insert", rand_insert),
    ("rand_insert_multi", rand_insert_multi),
    ("rand_lookup", rand_lookup),
    ("rand_mixed", rand_mixed),
    ("rand_delete", rand_delete),
    ("seq_insert", seq_insert),
    ("seq_lookup", seq_lookup),
    ("seq_overwrite", seq_overwrite),
    ("seq_delete", seq_delete),
];

/// Keys in a commit of `rand_insert_multi`.
const MULTI: u64 = 8;
/// Operations after which a transaction and its iterators are made anew.
const STRETCH: u64 = 1024;
/// The last point of inode 0.
const LAST: Bpos = pos(0, u64::MAX);

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    BODIES.iter().map(|b| b.0)
}

pub(super) fn find(name: &str) -> Option<Body> {
    BODIES.iter().find(|b| b.0 == name).map(|b| b.1)
}

/// Has `threads` threads do `count` operations together, and says how long one took: time times threads by operations. Sleeps.
pub(super) fn measure(
    btree: &Arc<Btree>,
    name: &str,
    body: Body,
    count: u64,
    threads: u32,
) -> Result {
    // Other numbers every time: what was inserted is not what is looked up.
    static RUNS: Atomic<u64> = Atomic::new(0);
    let seed = RUNS.fetch_add(1u64, Relaxed);
    let each = (count / u64::from(threads)).max(1);
    let b = btree.clone();
    let nanos = threads::run(threads, move |me| {
        body(&b, each, &mut Random::new(seed, me.into()))
    })?;
    let done = each * u64::from(threads);
    let per_op = u64::try_from(nanos).unwrap_or(0) * u64::from(threads) / done;
    let millis = nanos / 1_000_000;
    pr_info!(
        "perf_test: {name}: {done} with {threads} threads in {millis} ms, {per_op} nsec per iter\n"
    );
    Ok(())
}

/// Has `f` do operations number `from` to `to` until all `count` are done, some in one transaction each time. After a restart it goes
/// on where `from` is.
fn stretches(
    b: &Btree,
    count: u64,
    mut f: impl for<'t> FnMut(&mut Attempt<'t>, &mut u64, u64) -> core::result::Result<(), TransError>,
) -> Result {
    let mut i = 0;
    while i < count {
        let to = count.min(i + STRETCH);
        b.run(|t| f(t, &mut i, to))?;
    }
    Ok(())
}

fn rand_insert(b: &Btree, count: u64, random: &mut Random) -> Result {
    stretches(b, count, |t, i, to| {
        while *i < to {
            let key = Cookie::point(pos(0, random.next()), *i);
            t.insert(POINTS, key.as_ref(), UpdateFlags::default())?;
            t.commit(None, CommitFlags::default())?;
            *i += 1;
        }
        Ok(())
    })
}

fn rand_insert_multi(b: &Btree, count: u64, random: &mut Random) -> Result {
    stretches(b, count, |t, i, to| {
        while *i < to {
            for _ in 0..MULTI {
                let key = Cookie::point(pos(0, random.next()), *i);
                t.insert(POINTS, key.as_ref(), UpdateFlags::default())?;
            }
            t.commit(None, CommitFlags::default())?;
            *i += MULTI;
        }
        Ok(())
    })
}

fn rand_lookup(b: &Btree, count: u64, random: &mut Random) -> Result {
    stretches(b, count, |t, i, to| {
        let mut iter = t.iter(POINTS, pos(0, 0), IterFlags::NONE);
        while *i < to {
            iter.set_pos(pos(0, random.next()));
            iter.peek_upto(t, LAST)?;
            *i += 1;
        }
        Ok(())
    })
}

/// Look-ups; every fourth changes what it finds.
fn rand_mixed(b: &Btree, count: u64, random: &mut Random) -> Result {
    stretches(b, count, |t, i, to| {
        let mut iter = t.iter(POINTS, pos(0, 0), IterFlags::NONE);
        while *i < to {
            iter.set_pos(pos(0, random.next()));
            let found = iter.peek_upto(t, LAST)?.map(|k| k.key.pos);
            if let Some(found) = found.filter(|_| *i % 4 == 0) {
                let key = Cookie::point(found.at_snapshot(SNAPSHOT), *i);
                t.update(&iter, key.as_ref(), UpdateFlags::default())?;
                t.commit(None, CommitFlags::default())?;
            }
            *i += 1;
        }
        Ok(())
    })
}

/// Deletes the first key behind a place, if there is one.
fn rand_delete(b: &Btree, count: u64, random: &mut Random) -> Result {
    stretches(b, count, |t, i, to| {
        let mut iter = t.iter(POINTS, pos(0, 0), IterFlags::INTENT);
        while *i < to {
            iter.set_pos(pos(0, random.next()));
            if let Some(found) = iter.peek_upto(t, LAST)?.map(|k| k.key.pos) {
                let gone = KeyRef {
                    key: Bkey::deleted(found.at_snapshot(SNAPSHOT)),
                    value: &[],
                };
                t.update(&iter, gone, UpdateFlags::default())?;
                t.commit(None, CommitFlags::default())?;
            }
            *i += 1;
        }
        Ok(())
    })
}

fn seq_insert(b: &Btree, count: u64, _random: &mut Random) -> Result {
    stretches(b, count, |t, i, to| {
        let flags = IterFlags::SLOTS | IterFlags::INTENT;
        let mut iter = t.iter(POINTS, pos(0, *i), flags);
        while *i < to {
            iter.set_pos(pos(0, *i));
            iter.peek(t)?;
            let key = Cookie::point(pos(0, *i), *i);
            t.update(&iter, key.as_ref(), UpdateFlags::default())?;
            t.commit(None, CommitFlags::default())?;
            *i += 1;
        }
        Ok(())
    })
}

/// All keys, however many.
fn seq_lookup(b: &Btree, _count: u64, _random: &mut Random) -> Result {
    b.walk(POINTS, pos(0, 0), LAST, IterFlags::PREFETCH, |_| {
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(())
}

/// All keys, however many.
fn seq_overwrite(b: &Btree, _count: u64, _random: &mut Random) -> Result {
    let mut at = Some(pos(0, 0));
    while let Some(start) = at {
        at = None;
        let mut from = start;
        let mut left = STRETCH;
        b.run(|t| {
            let flags = IterFlags::PREFETCH | IterFlags::INTENT;
            let mut iter = t.iter(POINTS, from, flags);
            while let Some(found) = iter.peek_upto(t, LAST)?.map(|k| k.key.pos) {
                if left == 0 {
                    at = Some(found.at_snapshot(SNAPSHOT));
                    break;
                }
                let key = Cookie::point(found.at_snapshot(SNAPSHOT), left);
                t.update(&iter, key.as_ref(), UpdateFlags::default())?;
                t.commit(None, CommitFlags::default())?;
                left -= 1;
                if !iter.advance() {
                    break;
                }
                // From here on after a restart.
                from = iter.pos();
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// All keys, however many.
fn seq_delete(b: &Btree, _count: u64, _random: &mut Random) -> Result {
    b.delete_range(POINTS, pos(0, 0), pos(1, 0), UpdateFlags::default(), CommitFlags::default())?;
    Ok(())
}
