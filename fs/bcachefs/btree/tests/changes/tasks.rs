// SPDX-License-Identifier: GPL-2.0
//! Several tasks that change keys in the same leaves.

use super::{btrees, journal_is_right};
use crate::{
    btree::{
        tests::{
            check,
            image::{Draw, Key},
        },
        trans::update::{CommitFlags, UpdateFlags},
        Btree, IterFlags,
    },
    util::{error::Result, threads},
};
use bcachefs_format::{Bpos, BtreeId};
use core::ops::ControlFlow;
use kernel::prelude::*;

const ID: BtreeId = BtreeId::REBALANCE_WORK;
const TASKS: u64 = 4;
/// Accounts, whose sum never changes, before the keys that one task each has to itself.
const ACCOUNTS: u64 = 40;
const OWN: u64 = 30;
const START: u64 = 1000;

fn account(i: u64) -> Bpos {
    Bpos::new(0, i)
}

/// Keys of the tasks alternate.
fn own(me: u64, i: u64) -> Bpos {
    Bpos::new(1, i * TASKS + me)
}

/// Two places far from each other, only one of which may be taken.
fn pair(i: u64) -> [Bpos; 2] {
    [Bpos::new(0, 2000 + i), Bpos::new(2, i)]
}

/// Takes a place if both are free, or gives it up. What is not there has to stay away until the commit.
fn take(b: &Btree, i: u64, side: usize, look: bool) -> Result {
    let places = pair(i);
    let (Some(&mine), Some(&other)) = (places.get(side), places.get(1 - side)) else {
        return Ok(());
    };
    b.commit(None, CommitFlags::default(), |t| {
        let taken = match look {
            true => t.iter(ID, other, IterFlags::NONE).peek_upto(t, other)?.is_some(),
            false => t.get(ID, other)?.is_some(),
        };
        match t.get(ID, mine)?.is_some() {
            true => t.delete(ID, mine, UpdateFlags::default()),
            false if !taken => t.insert(ID, Key::new(mine, 1).as_ref(), UpdateFlags::default()),
            false => Ok(()),
        }
    })?;
    let both = b.run(|t| {
        let [x, y] = places;
        let mut x = t.iter(ID, x, IterFlags::NONE);
        let mut y = t.iter(ID, y, IterFlags::NONE);
        let end = x.pos();
        let first = x.peek_upto(t, end)?.is_some();
        let end = y.pos();
        let second = y.peek_upto(t, end)?.is_some();
        t.relock()?;
        Ok(first && second)
    })?;
    check!(!both);
    Ok(())
}

/// Moves something from one account to another, if there is as much.
fn transfer(b: &Btree, from: u64, to: u64, n: u64, intent: bool) -> Result {
    let flags = match intent {
        true => IterFlags::INTENT | IterFlags::SLOTS,
        // It turns out only later that something is changed.
        false => IterFlags::SLOTS,
    };
    b.commit(None, CommitFlags::default(), |t| {
        let mut i = t.iter(ID, account(from), flags);
        let mut j = t.iter(ID, account(to), flags);
        let a = i.peek(t)?.map_or(0, |k| Key::of(k).value);
        let c = j.peek(t)?.map_or(0, |k| Key::of(k).value);
        if a < n || from == to {
            return Ok(());
        }
        let key = Key::new(account(from), a - n);
        t.update(&i, key.as_ref(), UpdateFlags::default())?;
        let key = Key::new(account(to), c + n);
        t.update(&j, key.as_ref(), UpdateFlags::default())
    })?;
    Ok(())
}

fn sum(b: &Btree) -> Result<u64> {
    b.run(|t| {
        // Read locks of all leaves at once: nothing may change in between.
        let mut sum = 0;
        let mut iters = KVec::new();
        for i in 0..ACCOUNTS {
            let mut iter = t.iter(ID, account(i), IterFlags::SLOTS);
            sum += iter.peek(t)?.map_or(0, |k| Key::of(k).value);
            iters.push(iter, GFP_NOWAIT)?;
        }
        // None of them has been lost on the way.
        t.relock()?;
        Ok(sum)
    })
}

fn task(b: &Btree, me: u64) -> Result {
    let mut draw = Draw(me + 70);
    let mut model = [0; OWN as usize];
    for round in 0..300 {
        match draw.below(5) {
            0 => {
                let (from, to) = (draw.below(ACCOUNTS), draw.below(ACCOUNTS));
                transfer(b, from, to, draw.below(20), draw.below(3) != 0)?;
            }
            1 if round % 7 == 0 => check!(sum(b)? == ACCOUNTS * START),
            3 => take(b, draw.below(6), draw.below(2) as usize, draw.below(2) == 0)?,
            2 => {
                let (i, n) = (draw.below(OWN), 1 + draw.below(6));
                let range = i as usize..(i + n).min(OWN) as usize;
                b.commit(None, CommitFlags::default(), |t| {
                    for i in range.clone() {
                        t.delete(ID, own(me, i as u64), UpdateFlags::default())?;
                    }
                    Ok(())
                })?;
                model.get_mut(range).into_iter().flatten().for_each(|m| *m = 0);
            }
            _ => {
                let (i, value) = (draw.below(OWN), 1 + draw.below(1000));
                let key = Key::new(own(me, i), value);
                b.commit(None, CommitFlags::default(), |t| {
                    t.insert(ID, key.as_ref(), UpdateFlags::default())
                })?;
                if let Some(m) = model.get_mut(i as usize) {
                    *m = value;
                }
            }
        }
        let i = draw.below(OWN);
        let found = b.run(|t| Ok(t.get(ID, own(me, i))?.map(Key::of)))?;
        check!(found.map_or(0, |k| k.value) == model.get(i as usize).copied().unwrap_or(0));
    }
    for (i, m) in model.iter().enumerate() {
        let found = b.run(|t| Ok(t.get(ID, own(me, i as u64))?.map(Key::of)))?;
        check!(found.map_or(0, |k| k.value) == *m);
    }
    Ok(())
}

pub(in crate::btree::tests) fn tasks() -> Result {
    for (seed, restarts) in [(1, 0), (2, 100), (3, 20)] {
        let mut keys = KVVec::new();
        for i in 0..ACCOUNTS {
            keys.push(Key::new(account(i), START), GFP_KERNEL)?;
        }
        // So that the tree has as many leaves for the others.
        for i in 0..OWN * TASKS {
            keys.push(Key::new(Bpos::new(1, i), 7), GFP_KERNEL)?;
        }
        let btree = btrees(&[(ID, &keys)], 11, None)?;
        let (from, to) = (Bpos::new(1, 0), Bpos::new(2, 0));
        btree.delete_range(ID, from, to, UpdateFlags::default(), CommitFlags::default())?;
        btree.inject_restarts(seed, restarts);
        let b = btree.clone();
        threads::run(TASKS as u32, move |me| task(&b, me.into()))?;
        check!(sum(&btree)? == ACCOUNTS * START);
        let mut n = 0;
        btree.walk(ID, Bpos::POS_MIN, Bpos::new(0, ACCOUNTS), IterFlags::NONE, |_| {
            n += 1;
            Ok(ControlFlow::<()>::Continue(()))
        })?;
        check!(n == ACCOUNTS);
        check!(journal_is_right(&btree));
    }
    Ok(())
}
