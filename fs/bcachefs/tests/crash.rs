// SPDX-License-Identifier: GPL-2.0
//! Numbered commits, such that what is there afterwards says which of them are.
//!
//! Every thread has an inode. Its commit `n` changes two btrees in one transaction: it adds point `n`, takes point `n - 512` away,
//! writes a range over one of 64 places, and every sixteenth time cuts a hole into one. So the state after commit `n` is a function of
//! `n` alone, and any other state is a violation: of atomicity, or of the order of commits. The value of point `n` also says how far the
//! next thread had come when it was made, and what that thread had committed then must be there as well.

use super::{
    check,
    keys::{commit, inode_of, pos, value_of, Cookie, POINTS, RANGES},
};
use crate::{
    btree::{trans::update::UpdateFlags, Btree, IterFlags},
    util::{
        error::{Error, Result},
        threads,
    },
};
use core::ops::ControlFlow;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Release},
        Arc,
    },
};

/// Points that are there at a time.
const WINDOW: u64 = 512;
/// Places for ranges.
const PLACES: u64 = 64;
/// Sectors of a place.
const SECTORS: u64 = 8;
/// Every so many commits a hole is cut into a place.
const HOLES: u64 = 16;
/// Numbers of commits take the low half of a value.
const NUMBERS_MAX: u64 = 1 << 32;

/// How far each thread has come.
static DONE: [Atomic<u64>; super::THREADS_MAX as usize] =
    [const { Atomic::new(0) }; super::THREADS_MAX as usize];

fn done(thread: u32) -> u64 {
    DONE.get(thread as usize).map_or(0, |d| d.load(Acquire))
}

/// The place commit `n` writes.
fn place(n: u64) -> u64 {
    n % PLACES
}

/// The place that commit `n` cuts a hole into, if it does.
fn hole(n: u64) -> Option<u64> {
    (n % HOLES == 0).then_some(n / HOLES * 7 % PLACES)
}

/// Makes the commits `first..first + count` in each of `threads` threads, and has them made durable. Sleeps.
pub(super) fn run(btree: &Arc<Btree>, first: u64, count: u64, threads: u32) -> Result {
    if first == 0 || first.saturating_add(count) >= NUMBERS_MAX {
        return Err(Error::TestUnknown);
    }
    for d in &DONE {
        d.store(first - 1, Release);
    }
    let b = btree.clone();
    threads::run(threads, move |me| {
        let mut newest = 0;
        for n in first..first + count {
            newest = one(&b, me, (me + 1) % threads, n)?;
            if let Some(d) = DONE.get(me as usize) {
                d.store(n, Release);
            }
        }
        b.engine()?.journal.flush(newest)
    })?;
    pr_notice!(
        "crash_run: {} by each of {threads} threads is durable\n",
        first + count - 1
    );
    Ok(())
}

/// Commit `n` of a thread. Returns its journal entry.
fn one(b: &Btree, me: u32, other: u32, n: u64) -> Result<u64> {
    let inode = inode_of(me);
    // Read before: what was done by then is older than this commit.
    let value = n | done(other) << 32;
    let (_, committed) = commit(b, |t| {
        let flags = UpdateFlags::default();
        t.insert(POINTS, Cookie::point(pos(inode, n), value).as_ref(), flags)?;
        if n > WINDOW {
            t.delete(POINTS, pos(inode, n - WINDOW), flags)?;
        }
        let at = pos(inode, place(n) * SECTORS);
        t.insert(RANGES, Cookie::range(at, SECTORS as u32, n).as_ref(), flags)?;
        if let Some(hole) = hole(n) {
            let at = pos(inode, hole * SECTORS + 2);
            t.insert(RANGES, Cookie::hole(at, 4).as_ref(), flags)?;
        }
        Ok(())
    })?;
    Ok(committed.seq)
}

/// What is in each sector after commit `n`: a commit's number, 0 for nothing.
fn sectors(n: u64) -> Result<KVVec<u64>> {
    let mut all: KVVec<u64> = KVVec::from_elem(0, (PLACES * SECTORS) as usize, GFP_KERNEL)?;
    // The last commits write every place.
    for i in n.saturating_sub(PLACES).max(1)..=n {
        if n == 0 {
            break;
        }
        let start = (place(i) * SECTORS) as usize;
        for s in all.iter_mut().skip(start).take(SECTORS as usize) {
            *s = i;
        }
        if let Some(hole) = hole(i) {
            let start = (hole * SECTORS + 2) as usize;
            for s in all.iter_mut().skip(start).take(4) {
                *s = 0;
            }
        }
    }
    Ok(all)
}

/// Checks that what is there is the state after some commit, not before `least`, of each of `threads` threads. Sleeps.
pub(super) fn check_prefix(btree: &Arc<Btree>, least: u64, threads: u32) -> Result {
    let mut came: KVec<u64> = KVec::new();
    let mut saw: KVec<u64> = KVec::new();
    for me in 0..threads {
        let (n, others) = points(btree, me)?;
        check!(
            n >= least,
            "thread {me}: the last commit is {n}, and {least} was durable"
        );
        ranges(btree, me, n)?;
        came.push(n, GFP_KERNEL)?;
        saw.push(others, GFP_KERNEL)?;
    }
    for me in 0..threads {
        let other = (me + 1) % threads;
        let (Some(saw), Some(n)) = (saw.get(me as usize), came.get(other as usize)) else {
            continue;
        };
        check!(
            saw <= n,
            "thread {me} saw commit {saw} of thread {other}, of which {n} is the last"
        );
    }
    for (me, n) in came.iter().enumerate() {
        pr_notice!("crash_check: thread {me}: {n}\n");
    }
    Ok(())
}

/// The last commit of a thread, by its points, and what it saw of the next thread.
fn points(b: &Btree, me: u32) -> Result<(u64, u64)> {
    let inode = inode_of(me);
    let (mut first, mut last, mut others) = (0, 0, 0);
    let end = pos(inode, u64::MAX);
    b.walk(POINTS, pos(inode, 0), end, IterFlags::NONE, |k| {
        let n = k.key.pos.offset;
        let value = value_of(k).unwrap_or(0);
        check!(
            last == 0 || n == last + 1,
            "thread {me}: point {n} comes after {last}"
        );
        check!(
            value % NUMBERS_MAX == n,
            "thread {me}: point {n} is of commit {value:#x}"
        );
        if last == 0 {
            first = n;
        }
        last = n;
        others = others.max(value >> 32);
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    let wanted = match last {
        0 => 0,
        n => n.saturating_sub(WINDOW - 1).max(1),
    };
    check!(
        first == wanted,
        "thread {me}: points from {first} to {last}, and not from {wanted}"
    );
    Ok((last, others))
}

/// The ranges of a thread have to be those after commit `n`.
fn ranges(b: &Btree, me: u32, n: u64) -> Result {
    let inode = inode_of(me);
    let wanted = sectors(n)?;
    let mut at = 0;
    let end = pos(inode, u64::MAX);
    b.walk(RANGES, pos(inode, 0), end, IterFlags::NONE, |k| {
        let (start, end) = (k.key.start_offset(), k.key.pos.offset);
        check!(
            start >= at && end <= PLACES * SECTORS,
            "thread {me}: range {start}..{end}"
        );
        while at < end {
            let found = if at < start { Some(0) } else { value_of(k) };
            let want = wanted.get(at as usize).copied();
            check!(
                found == want,
                "thread {me}: sector {at}: {found:?}, and not {want:?} as after commit {n}"
            );
            at += 1;
        }
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    let rest = wanted.get(at as usize..).unwrap_or(&[]);
    check!(
        rest.iter().all(|s| *s == 0),
        "thread {me}: nothing from sector {at} on, commit {n}"
    );
    Ok(())
}

/// The short way to a state is as good as the long one.
#[cfg(bcachefs_kunit)]
pub(super) fn states_are_right() -> Result {
    let mut all: KVVec<u64> = KVVec::from_elem(0, (PLACES * SECTORS) as usize, GFP_KERNEL)?;
    for n in 0..500 {
        if n > 0 {
            let start = (place(n) * SECTORS) as usize;
            for s in all.iter_mut().skip(start).take(SECTORS as usize) {
                *s = n;
            }
            if let Some(hole) = hole(n) {
                let start = (hole * SECTORS + 2) as usize;
                for s in all.iter_mut().skip(start).take(4) {
                    *s = 0;
                }
            }
        }
        check!(sectors(n)?.as_slice() == all.as_slice(), "after commit {n}");
    }
    Ok(())
}
