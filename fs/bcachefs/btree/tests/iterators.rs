// SPDX-License-Identifier: GPL-2.0
//! Iterators over trees of several levels against a sorted array.

use super::{
    check,
    image::{Draw, Image, Key},
};
use crate::{
    btree::{Btree, IterFlags},
    journal::{overlay::JournalKeysBuilder, JournalKeys},
    util::error::{Error, Result},
};
use bcachefs_format::{Bpos, BtreeId, KeyType};
use core::ops::ControlFlow;
use kernel::{prelude::*, sync::Arc};

/// Ascending keys with gaps.
fn random_keys(draw: &mut Draw, n: usize) -> Result<KVVec<Key>> {
    let mut keys = KVVec::new();
    let mut pos = Bpos::new(1, 0);
    for _ in 0..n {
        pos.offset += 1 + draw.below(4);
        if draw.below(20) == 0 {
            pos = Bpos::new(pos.inode + 1, draw.below(3));
        }
        keys.push(Key::new(pos, draw.below(1 << 40)), GFP_KERNEL)?;
    }
    Ok(keys)
}

fn near(draw: &mut Draw, keys: &[Key]) -> Bpos {
    let pos = keys.get(draw.below(keys.len() as u64) as usize).map_or(Bpos::POS_MIN, |k| k.pos);
    match draw.below(5) {
        0 => pos.successor().unwrap_or(pos),
        1 => pos.predecessor().unwrap_or(pos),
        2 => Bpos::new(draw.below(9), draw.below(200)),
        _ => pos,
    }
}

/// Walks of random length from random places, both ways; single looks.
fn compare(b: &Arc<Btree>, id: BtreeId, model: &[Key], draw: &mut Draw, rounds: usize) -> Result {
    let mut all = 0;
    b.walk(id, Bpos::POS_MIN, Bpos::SPOS_MAX, IterFlags::PREFETCH, |k| {
        check!(model.get(all) == Some(&Key::of(k)));
        all += 1;
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    check!(all == model.len());
    for _ in 0..rounds {
        let start = near(draw, model);
        let steps = draw.below(40) as usize;
        let from = model.partition_point(|k| k.pos < start);
        // The pairs seen, compared outside so that a restart can begin anew.
        let seen = b.run(|t| {
            let mut iter = t.iter(id, start, IterFlags::NONE);
            let mut seen: KVec<Key> = KVec::new();
            while seen.len() < steps {
                match iter.peek(t)? {
                    Some(k) => seen.push(Key::of(k), GFP_KERNEL)?,
                    None => break,
                }
                if !iter.advance() {
                    break;
                }
            }
            Ok(seen)
        })?;
        let expected = model.get(from..).unwrap_or(&[]);
        check!(seen.as_slice() == expected.get(..steps.min(expected.len())).unwrap_or(&[]));

        let seen = b.run(|t| {
            let mut iter = t.iter(id, start, IterFlags::NONE);
            let mut seen: KVec<Key> = KVec::new();
            while seen.len() < steps {
                match iter.peek_prev(t)? {
                    Some(k) => seen.push(Key::of(k), GFP_KERNEL)?,
                    None => break,
                }
                if !iter.rewind() {
                    break;
                }
            }
            Ok(seen)
        })?;
        let upto = model.partition_point(|k| k.pos <= start);
        check!(seen.len() == steps.min(upto));
        for (s, m) in seen.iter().zip(model.iter().take(upto).rev()) {
            check!(s == m);
        }

        let found = b.run(|t| Ok(t.get(id, start)?.map(Key::of)))?;
        check!(found == model.get(from).filter(|k| k.pos == start).copied());
    }
    Ok(())
}

/// Trees of all sizes from none to three levels.
pub(super) fn matches_model() -> Result {
    let mut draw = Draw(21);
    for n in [0, 1, 5, 13, 200, 3000] {
        let keys = random_keys(&mut draw, n)?;
        let mut image = Image::new();
        let root = image.tree(BtreeId::LRU, &keys)?;
        check!(n < 3000 || root.level >= 2);
        let b = image.mount(BtreeId::LRU, root, JournalKeys::empty())?;
        compare(&b, BtreeId::LRU, &keys, &mut draw, 150)?;
        // A btree that was never written to.
        check!(b.run(|t| Ok(t.get(BtreeId::ALLOC, Bpos::new(0, 1))?.is_none()))?);
        b.shutdown();
        check!(b.cache().nr_nodes() == 0);
        check!(b.run(|_| Ok(())) == Err(Error::BtreeShutDown));
    }
    Ok(())
}

/// The same with restarts wherever they can come up, and nodes taken away meanwhile.
pub(super) fn with_restarts() -> Result {
    let mut draw = Draw(22);
    let keys = random_keys(&mut draw, 2000)?;
    let mut image = Image::new();
    let root = image.tree(BtreeId::LRU, &keys)?;
    let b = image.mount(BtreeId::LRU, root, JournalKeys::empty())?;
    b.inject_restarts(7, 5);
    for _ in 0..8 {
        compare(&b, BtreeId::LRU, &keys, &mut draw, 25)?;
        b.cache().cannibalise(draw.below(200) as usize);
    }
    b.inject_restarts(0, 0);
    // Positions stay valid while nothing is locked and nodes go.
    let mut count = 0;
    b.run(|t| {
        count = 0;
        let mut iter = t.iter(BtreeId::LRU, Bpos::POS_MIN, IterFlags::NONE);
        while iter.peek(t)?.is_some() {
            count += 1;
            if !iter.advance() {
                break;
            }
            if count % 50 == 0 {
                t.unlock();
                b.cache().cannibalise(1000);
            }
        }
        Ok(())
    })?;
    check!(count == keys.len());
    // What has been handed out is not to change unnoticed: with its node gone, the attempt starts again.
    let mut tries = 0;
    b.run(|t| {
        tries += 1;
        let mut iter = t.iter(BtreeId::LRU, Bpos::POS_MIN, IterFlags::NONE);
        check_some(iter.peek(t)?.is_some())?;
        let evict = tries == 1;
        t.unlocked(|| {
            if evict {
                b.cache().cannibalise(1000);
            }
        })
    })?;
    check!(tries == 2);
    Ok(())
}

fn check_some(ok: bool) -> Result {
    check!(ok);
    Ok(())
}

/// Keys of the journal over the tree: new ones, changed ones, deleted ones; and a leaf that was split.
pub(super) fn over_journal() -> Result {
    let mut draw = Draw(23);
    for round in 0..6 {
        let keys = random_keys(&mut draw, [40, 700][round & 1])?;
        let mut model: KVVec<Key> = KVVec::new();
        let mut journal = JournalKeysBuilder::new();
        let mut next = keys.iter().peekable();
        let mut pos = Bpos::new(1, 0);
        let last = keys.last().map_or(pos, |k| k.pos);
        while pos <= last {
            let old = next.next_if(|k| k.pos == pos);
            let new = match draw.below(8) {
                0 => Some(Key::new(pos, draw.below(1 << 40))),
                1 => Some(Key { key_type: KeyType::DELETED, ..Key::new(pos, 0) }),
                _ => None,
            };
            if let Some(k) = &new {
                journal.push(50, BtreeId::LRU, 0, &k.as_ref())?;
            }
            if let Some(k) = new.or(old.copied()).filter(|k| k.key_type != KeyType::DELETED) {
                model.push(k, GFP_KERNEL)?;
            }
            // On to the next position; over the gaps between inodes.
            pos.offset += 1;
            if let Some(k) = next.peek().filter(|k| k.pos.inode > pos.inode && pos.offset > 3) {
                let gone = pos.offset > 2000 || old.is_some();
                if gone {
                    pos = Bpos::new(k.pos.inode, 0);
                }
            }
        }
        let mut image = Image::new();
        let root = image.tree(BtreeId::LRU, &keys)?;
        let b = image.mount(BtreeId::LRU, root, journal.finish()?)?;
        compare(&b, BtreeId::LRU, &model, &mut draw, 150)?;
    }
    // A node that was split after the tree was written: the journal has the pointers to its halves.
    let keys = random_keys(&mut draw, 100)?;
    let mut image = Image::new();
    let root = image.tree(BtreeId::LRU, &keys)?;
    let (left, right) = keys.split_at_checked(5).ok_or(Error::NoMem)?;
    let right = right.get(..7).ok_or(Error::NoMem)?;
    let split = left.last().map_or(Bpos::POS_MIN, |k| k.pos);
    let end = right.last().map_or(Bpos::POS_MIN, |k| k.pos);
    let mut journal = JournalKeysBuilder::new();
    let mut model: KVVec<Key> = KVVec::new();
    for (part, min, max) in [
        (left, Bpos::POS_MIN, split),
        (right, split.successor().ok_or(Error::NoMem)?, end),
    ] {
        let mut changed: KVec<Key> = KVec::new();
        for k in part {
            let k = Key { value: k.value ^ 0xff, ..*k };
            changed.push(k, GFP_KERNEL)?;
            model.push(k, GFP_KERNEL)?;
        }
        let mut refs = KVec::new();
        for k in changed.iter() {
            refs.push(k.as_ref(), GFP_KERNEL)?;
        }
        let ptr = image.node(BtreeId::LRU, 0, min, max, &[&refs], usize::MAX)?;
        let (header, value) = ptr.split_first_chunk::<5>().ok_or(Error::NoMem)?;
        let key = bcachefs_format::KeyRef { key: bcachefs_format::Bkey::from_words(header), value };
        journal.push(60, BtreeId::LRU, 1, &key)?;
    }
    model.extend_from_slice(keys.get(12..).ok_or(Error::NoMem)?, GFP_KERNEL)?;
    let b = image.mount(BtreeId::LRU, root, journal.finish()?)?;
    compare(&b, BtreeId::LRU, &model, &mut draw, 100)
}

/// Slots of a tree of extents follow each other without gap or overlap.
pub(super) fn extent_slots() -> Result {
    let mut draw = Draw(24);
    let mut keys: KVVec<Key> = KVVec::new();
    let mut at = 0;
    for _ in 0..300 {
        at += draw.below(3) * draw.below(10);
        let size = 1 + draw.below(16);
        at += size;
        let key = Key {
            size: size as u32,
            key_type: KeyType::ERROR,
            ..Key::new(Bpos::new(0, at), 0)
        };
        keys.push(key, GFP_KERNEL)?;
    }
    let mut image = Image::new();
    let root = image.tree(BtreeId::REFLINK, &keys)?;
    let b = image.mount(BtreeId::REFLINK, root, JournalKeys::empty())?;
    for start in [0, 1, 7, 100, 500] {
        let (mut pos, mut found) = (start, 0);
        b.run(|t| {
            (pos, found) = (start, 0);
            let mut iter = t.iter(BtreeId::REFLINK, Bpos::new(0, start), IterFlags::SLOTS);
            loop {
                let Some(k) = iter.peek(t)? else { break };
                let (from, to, kind) = (k.key.start_offset(), k.key.pos.offset, k.key.key_type);
                check_some(from <= pos && pos < to && (from == pos || pos == start))?;
                if kind == KeyType::ERROR {
                    found += 1;
                    let real = keys.iter().any(|m| m.pos.offset == to && u64::from(m.size) == to - from);
                    check_some(real)?;
                } else {
                    check_some(!keys.iter().any(|m| m.pos.offset > pos && m.pos.offset - u64::from(m.size) < to))?;
                }
                pos = to;
                if pos > at + 10 || !iter.advance() {
                    break;
                }
            }
            Ok(())
        })?;
        check!(pos > at);
        check!(found == keys.iter().filter(|k| k.pos.offset > start).count());
    }
    // Backwards: the extents in turn.
    let seen = b.run(|t| {
        let mut iter = t.iter(BtreeId::REFLINK, Bpos::new(0, at + 5), IterFlags::NONE);
        let mut seen: KVVec<Key> = KVVec::new();
        while let Some(k) = iter.peek_prev(t)? {
            seen.push(Key::of(k), GFP_KERNEL)?;
            if !iter.rewind() || seen.len() > keys.len() {
                break;
            }
        }
        Ok(seen)
    })?;
    check!(seen.len() == keys.len());
    for (s, m) in seen.iter().zip(keys.iter().rev()) {
        check!(s == m);
    }
    Ok(())
}

/// A damaged copy is passed over; a node without a good one is an error, not a hang, and not for ever.
pub(super) fn second_copy() -> Result {
    let mut draw = Draw(25);
    let keys = random_keys(&mut draw, 60)?;
    let mut image = Image::new();
    let root = image.tree(BtreeId::LRU, &keys)?;
    // All of the second leaf's copies.
    if let Some(w) = image.words(1).and_then(|n| n.get_mut(20)) {
        *w ^= 4;
    }
    let b = image.mount(BtreeId::LRU, root, JournalKeys::empty())?;
    let first = keys.first().map_or(Bpos::POS_MIN, |k| k.pos);
    check!(b.run(|t| Ok(t.get(BtreeId::LRU, first)?.is_some()))?);
    let lost = keys.get(14).map_or(Bpos::POS_MIN, |k| k.pos);
    for _ in 0..3 {
        check!(b.run(|t| Ok(t.get(BtreeId::LRU, lost)?.is_some())) == Err(Error::BtreeNodeRead));
    }
    let behind = keys.get(40).map_or(Bpos::POS_MIN, |k| k.pos);
    check!(b.run(|t| Ok(t.get(BtreeId::LRU, behind)?.is_some()))?);
    Ok(())
}
