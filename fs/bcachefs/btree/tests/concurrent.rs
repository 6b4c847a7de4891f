// SPDX-License-Identifier: GPL-2.0
//! Several tasks on one tree, while its nodes are taken away.

use super::{
    check,
    image::{Draw, Image, Key},
};
use crate::{
    btree::{Btree, IterFlags},
    journal::JournalKeys,
    util::{error::Result, threads},
};
use bcachefs_format::{Bpos, BtreeId};
use core::ops::ControlFlow;
use kernel::prelude::*;

const TASKS: u32 = 5;
const KEYS: u64 = 1500;

/// The key at `offset`, if there is one.
fn expected(offset: u64) -> Option<u64> {
    (offset % 3 != 0 && offset < KEYS).then_some(offset * 7)
}

fn task(b: &Btree, me: u32) -> Result {
    let mut draw = Draw(u64::from(me) + 40);
    for _ in 0..400 {
        match draw.below(if me == 0 { 4 } else { 3 }) {
            0 => {
                let offset = draw.below(KEYS + 10);
                let found = b.run(|t| Ok(t.get(BtreeId::LRU, Bpos::new(0, offset))?.map(Key::of)))?;
                check!(found.map(|k| k.value) == expected(offset));
            }
            1 => {
                let (from, mut at) = (draw.below(KEYS), 0);
                let end = Bpos::new(0, from + 60);
                at += from;
                b.walk(BtreeId::LRU, Bpos::new(0, from), end, IterFlags::PREFETCH, |k| {
                    while at < k.key.pos.offset {
                        check!(expected(at).is_none());
                        at += 1;
                    }
                    check!(expected(at) == k.value.first().copied());
                    at += 1;
                    Ok(ControlFlow::<()>::Continue(()))
                })?;
                check!(at + 2 >= KEYS.min(from + 60));
            }
            2 => {
                // Two paths at a time, one of which loses its locks in between.
                let (x, y) = (draw.below(KEYS), draw.below(KEYS));
                let (a, c) = b.run(|t| {
                    let mut i = t.iter(BtreeId::LRU, Bpos::new(0, x), IterFlags::SLOTS);
                    let mut j = t.iter(BtreeId::LRU, Bpos::new(0, y), IterFlags::SLOTS);
                    let a = i.peek(t)?.and_then(|k| k.value.first().copied());
                    t.unlocked(|| ())?;
                    let c = j.peek(t)?.and_then(|k| k.value.first().copied());
                    Ok((a, c))
                })?;
                check!(a == expected(x) && c == expected(y));
            }
            _ => {
                b.cache().cannibalise(draw.below(100) as usize);
            }
        }
    }
    Ok(())
}

pub(super) fn tasks_share_nodes() -> Result {
    let mut keys = KVVec::new();
    for offset in 0..KEYS {
        if let Some(value) = expected(offset) {
            keys.push(Key::new(Bpos::new(0, offset), value), GFP_KERNEL)?;
        }
    }
    let mut image = Image::new();
    let root = image.tree(BtreeId::LRU, &keys)?;
    let btree = image.mount(BtreeId::LRU, root, JournalKeys::empty())?;
    btree.inject_restarts(5, 300);
    let b = btree.clone();
    threads::run(TASKS, move |me| task(&b, me))?;
    btree.shutdown();
    check!(btree.cache().nr_nodes() == 0);
    check!(btree.cache().stats().nr_evicted() > 0);
    Ok(())
}
