// SPDX-License-Identifier: GPL-2.0
//! What snapshots see, against an exhaustive search.

use super::{
    check,
    image::{Draw, Image, Key},
};
use crate::{
    btree::{Ancestry, IterFlags},
    journal::JournalKeys,
    snapshots::SnapshotTable,
    util::error::Result,
};
use bcachefs_format::{keys::snapshot::Snapshot, Bpos, BtreeId, KeyType};
use kernel::prelude::*;

/// Lowest number used.
const BASE: u32 = 1000;

/// A random forest: parents have higher numbers. Some name parents that do not exist, or that are below them.
fn forest(draw: &mut Draw, n: u32) -> Result<KVVec<(u32, Snapshot)>> {
    let mut nodes = KVVec::new();
    for i in 0..n {
        let id = BASE + i;
        let above = u64::from(n - i);
        let parent = match draw.below(12) {
            0 => 0,
            1 if draw.below(4) == 0 => 5,
            2 if draw.below(4) == 0 => id,
            _ if above > 1 => id + 1 + draw.below((above - 1).min(4)) as u32,
            _ => 0,
        };
        let s = Snapshot { parent, ..Snapshot::default() };
        nodes.push((id, s), GFP_KERNEL)?;
    }
    Ok(nodes)
}

/// Walks the chain of parents as it is written.
fn naive(nodes: &[(u32, Snapshot)], mut id: u32, ancestor: u32) -> bool {
    loop {
        if id == ancestor {
            return true;
        }
        match nodes.iter().find(|n| n.0 == id) {
            Some((_, s)) if s.parent > id && nodes.iter().any(|n| n.0 == s.parent) => id = s.parent,
            _ => return false,
        }
    }
}

pub(super) fn ancestry() -> Result {
    let mut draw = Draw(31);
    for n in [0, 1, 2, 10, 60] {
        let nodes = forest(&mut draw, n)?;
        let mut copy = KVVec::new();
        copy.extend_from_slice(&nodes, GFP_KERNEL)?;
        let table = SnapshotTable::build(copy)?;
        check!(table.len() == n as usize);
        for a in 0..n + 2 {
            for b in 0..n + 2 {
                let (a, b) = (BASE + a, BASE + b);
                let known = nodes.iter().any(|x| x.0 == a) || a == b;
                check!(table.is_ancestor(a, b) == (known && naive(&nodes, a, b)));
            }
        }
    }
    // Deep: no recursion, no quadratic time.
    let mut chain = KVVec::new();
    for i in 1..=50_000u32 {
        let parent = if i == 50_000 { 0 } else { i + 1 };
        chain.push((i, Snapshot { parent, ..Snapshot::default() }), GFP_KERNEL)?;
    }
    let table = SnapshotTable::build(chain)?;
    check!(table.is_ancestor(1, 50_000) && !table.is_ancestor(50_000, 1));
    Ok(())
}

pub(super) fn visibility() -> Result {
    let mut draw = Draw(32);
    for _ in 0..4 {
        let n = 12;
        let nodes = forest(&mut draw, n)?;
        let mut keys: KVVec<Key> = KVVec::new();
        for offset in 1..120 {
            for id in BASE..BASE + n {
                let pos = Bpos::with_snapshot(1, offset, id);
                match draw.below(9) {
                    0 => keys.push(Key::new(pos, draw.below(1 << 30)), GFP_KERNEL)?,
                    1 => {
                        let key = Key { key_type: KeyType::WHITEOUT, ..Key::new(pos, 0) };
                        keys.push(key, GFP_KERNEL)?;
                    }
                    _ => {}
                }
            }
        }
        let mut image = Image::new();
        let root = image.tree(BtreeId::XATTRS, &keys)?;
        let b = image.mount(BtreeId::XATTRS, root, JournalKeys::empty())?;
        let mut copy = KVVec::new();
        copy.extend_from_slice(&nodes, GFP_KERNEL)?;
        b.set_ancestry(SnapshotTable::build(copy)?);
        b.inject_restarts(3, 200);
        for id in BASE..BASE + n {
            // The nearest version of each position, unless it hides.
            let mut model: KVec<Key> = KVec::new();
            for offset in 1..120 {
                let seen = keys
                    .iter()
                    .filter(|k| k.pos.offset == offset && naive(&nodes, id, k.pos.snapshot))
                    .min_by_key(|k| k.pos.snapshot);
                if let Some(k) = seen.filter(|k| k.key_type != KeyType::WHITEOUT) {
                    model.push(*k, GFP_KERNEL)?;
                }
            }
            let start = Bpos::with_snapshot(0, 0, id);
            let (there, back, slots) = b.run(|t| {
                let mut there: KVec<Key> = KVec::new();
                let mut iter = t.iter(BtreeId::XATTRS, start, IterFlags::NONE);
                while let Some(k) = iter.peek(t)? {
                    there.push(Key::of(k), GFP_KERNEL)?;
                    if !iter.advance() {
                        break;
                    }
                }
                let mut back: KVec<Key> = KVec::new();
                iter.set_pos(Bpos::with_snapshot(2, 0, id));
                while let Some(k) = iter.peek_prev(t)? {
                    back.push(Key::of(k), GFP_KERNEL)?;
                    if !iter.rewind() {
                        break;
                    }
                }
                let mut slots: KVec<Option<Key>> = KVec::new();
                for offset in 1..120 {
                    let k = t.get(BtreeId::XATTRS, Bpos::with_snapshot(1, offset, id))?;
                    slots.push(k.map(Key::of), GFP_KERNEL)?;
                }
                Ok((there, back, slots))
            })?;
            check!(there.as_slice() == model.as_slice());
            check!(back.len() == model.len());
            for (x, y) in back.iter().zip(model.iter().rev()) {
                check!(x == y);
            }
            for (i, slot) in slots.iter().enumerate() {
                let expected = model.iter().find(|k| k.pos.offset == i as u64 + 1);
                check!(slot.as_ref() == expected);
            }
        }
    }
    Ok(())
}
