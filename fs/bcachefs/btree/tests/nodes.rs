// SPDX-License-Identifier: GPL-2.0
//! One node against a sorted array.

use super::{
    check,
    image::{Draw, Image, Key, MAGIC},
    NoRules,
};
use crate::{
    btree::node::{load, NodeData},
    util::{checksum::Checksums, error::{Error, Result}},
};
use bcachefs_format::{btree_node::NodeWant, version::Version, Bpos, BtreeId, KeyRef, KeyType};
use kernel::prelude::*;

fn want(sectors_written: u16) -> NodeWant {
    NodeWant {
        magic: MAGIC,
        btree: BtreeId::LRU,
        level: 0,
        min_key: Some(Bpos::POS_MIN),
        max_key: Bpos::SPOS_MAX,
        seq: Some(0x1000),
        sectors_written,
        range_updated: false,
        sb_version: Version::CURRENT,
        version_min: Version::CURRENT,
        block_sectors: 1,
    }
}

/// A node of random keys in three sets, and what it amounts to.
fn random_node(draw: &mut Draw) -> Result<(KVVec<u64>, KVec<Key>)> {
    let mut model: KVec<Key> = KVec::new();
    let mut sets: [KVec<Key>; 3] = [KVec::new(), KVec::new(), KVec::new()];
    let spread = [1 << 40, 1 << 20, 50, 7][draw.below(4) as usize & 3];
    let mut pos = Bpos::new(draw.below(3), draw.below(spread));
    for _ in 0..draw.below(24) + 1 {
        let mut live = None;
        for set in sets.iter_mut() {
            match draw.below(4) {
                0 => {
                    let key = Key::new(pos, draw.below(1 << 30));
                    set.push(key, GFP_KERNEL)?;
                    live = Some(key);
                }
                1 => {
                    let key = Key { key_type: KeyType::DELETED, ..Key::new(pos, 0) };
                    set.push(key, GFP_KERNEL)?;
                    live = None;
                }
                _ => {}
            }
        }
        if let Some(key) = live {
            model.push(key, GFP_KERNEL)?;
        }
        if draw.below(5) == 0 {
            pos = Bpos::new(pos.inode + 1 + draw.below(3), draw.below(spread));
        } else {
            pos.offset += 1 + draw.below(spread);
        }
    }
    let mut refs: [KVec<KeyRef<'_>>; 3] = [KVec::new(), KVec::new(), KVec::new()];
    for (to, from) in refs.iter_mut().zip(&sets) {
        for k in from.iter() {
            to.push(k.as_ref(), GFP_KERNEL)?;
        }
    }
    let [a, b, c] = &refs;
    let mut image = Image::new();
    // The format is made for some of the keys only: others stay unpacked.
    let packed = draw.below(30) as usize;
    image.node(BtreeId::LRU, 0, Bpos::POS_MIN, Bpos::SPOS_MAX, &[a, b, c], packed)?;
    let words = image.words(0).ok_or(Error::NoMem)?;
    Ok((core::mem::take(words), model))
}

fn same(node: &NodeData, model: &[Key]) -> Result {
    let mut n = 0;
    for (k, m) in node.iter().zip(model) {
        check!(Key::of(k) == *m);
        n += 1;
    }
    check!(n == model.len() && node.iter().count() == n);
    // Backwards.
    let mut cursor = node.seek(Bpos::SPOS_MAX);
    for m in model.iter().rev() {
        let found = cursor.back_live(node).ok_or(Error::BtreeTopology)?;
        check!(Key::of(found.key.unpack(node.format())) == *m);
    }
    check!(cursor.back_live(node).is_none());
    Ok(())
}

/// Loading, walking both ways, and seeking.
pub(super) fn matches_model() -> Result {
    let mut draw = Draw(11);
    let mut node = KBox::init(NodeData::empty(), GFP_KERNEL)?;
    for _ in 0..400 {
        let (words, model) = random_node(&mut draw)?;
        // Without a recorded length the sets are found by their sequence number.
        load(&words, &want(0), &Checksums, &NoRules, GFP_KERNEL, &mut node).map_err(|_| Error::BtreeNodeInvalid)?;
        same(&node, &model)?;
        for _ in 0..30 {
            let near = model.get(draw.below(model.len() as u64) as usize).map_or(Bpos::POS_MIN, |k| k.pos);
            let pos = match draw.below(4) {
                0 => near,
                1 => near.successor().unwrap_or(near),
                2 => near.predecessor().unwrap_or(near),
                _ => Bpos::new(draw.below(20), draw.below(1 << 20)),
            };
            let mut cursor = node.seek(pos);
            let found = cursor.peek_live(&node).map(|f| Key::of(f.key.unpack(node.format())));
            let expected = model.get(model.partition_point(|k| k.pos < pos)).copied();
            check!(found == expected);
        }
    }
    Ok(())
}

/// Bytes changed anywhere: an error, or a node that can be walked.
pub(super) fn survives_damage() -> Result {
    let mut draw = Draw(12);
    let mut refused = 0;
    let mut node = KBox::init(NodeData::empty(), GFP_KERNEL)?;
    for _ in 0..60 {
        let (words, _) = random_node(&mut draw)?;
        for _ in 0..40 {
            let mut bad: KVVec<u64> = KVVec::new();
            bad.extend_from_slice(&words, GFP_KERNEL)?;
            for _ in 0..1 + draw.below(3) {
                let at = draw.below(100) as usize;
                if let Some(w) = bad.get_mut(at) {
                    *w ^= 1 << draw.below(64);
                }
            }
            // The second word of the node is the checksum; let half of them pass it by looking away.
            let result = match draw.below(2) {
                0 => load(&bad, &want(0), &Checksums, &NoRules, GFP_KERNEL, &mut node),
                _ => {
                    let csum = &bcachefs_format::btree_node::AlreadyVerified;
                    load(&bad, &want(0), csum, &NoRules, GFP_KERNEL, &mut node)
                }
            };
            match result {
                Err(_) => refused += 1,
                Ok(()) => {
                    let n = node.iter().count();
                    let mut cursor = node.seek(Bpos::SPOS_MAX);
                    let mut back = 0;
                    while back <= n && cursor.back_live(&node).is_some() {
                        back += 1;
                    }
                    for _ in 0..5 {
                        let _ = node.seek(Bpos::new(draw.below(9), draw.below(1 << 40))).peek(&node);
                    }
                }
            }
        }
    }
    check!(refused > 500);
    Ok(())
}
