// SPDX-License-Identifier: GPL-2.0
//! New nodes made from the keys of old ones.
//!
//! Nothing here sleeps, allocates or fails for lack of memory: it comes with the call. The new nodes have no number and nothing
//! written yet, see [`NodeData::with_identity`]; they can be changed at once.

use super::{
    data::NodeData,
    index::Index,
    insert::put_parts,
    mem::{NodeMem, Shape},
    set::{Finder, Set},
};
use bcachefs_format::{
    bkey::BKEY_U64S,
    bset::PackedRef,
    btree_node::{ENTRY_HEADER_U64S, NODE_HEADER_U64S, SECTOR_U64S},
    packed::{BkeyFormat, FormatCalc},
    Bkey, Bpos,
};
use core::ops::Range;
use kernel::prelude::*;

/// Words of the largest key.
pub(super) const KEY_U64S_MAX: usize = u8::MAX as usize;

impl NodeData {
    /// Words of keys that fit into a node.
    pub fn max_u64s(&self) -> usize {
        self.shape.u64s().saturating_sub(NODE_HEADER_U64S)
    }

    /// Words of live keys.
    pub fn live_u64s(&self) -> usize {
        self.live_u64s as usize
    }

    /// Number of live keys.
    pub fn live_keys(&self) -> usize {
        self.live_keys as usize
    }

    /// Whether a node that is full should become two rather than one that is compacted.
    pub fn wants_split(&self) -> bool {
        self.live_keys() > 1 && self.too_full(self.live_u64s())
    }

    /// Whether a node of this size with `u64s` words of keys is too full to be worth making. When it has been written, in whole
    /// blocks, there must be room for a set with the largest key: else it would be made anew for ever.
    pub fn too_full(&self, u64s: usize) -> bool {
        let written = self.shape.sectors(NODE_HEADER_U64S + u64s) as usize * SECTOR_U64S;
        u64s > self.max_u64s() / 3 * 2 || written + ENTRY_HEADER_U64S + KEY_U64S_MAX >= self.shape.u64s()
    }

    /// Sectors that the first write of this node, as it is, takes.
    pub fn first_write_sectors(&self) -> u32 {
        self.shape.sectors(NODE_HEADER_U64S + self.live_u64s())
    }

    /// The live keys `keys`, counted from the first one.
    fn live(&self, keys: Range<usize>) -> impl Iterator<Item = PackedRef<'_>> {
        let mut cursor = self.start();
        let mut i = 0;
        core::iter::from_fn(move || loop {
            if i >= keys.end {
                return None;
            }
            let key = cursor.peek_live(self)?.key;
            cursor.advance(self);
            i += 1;
            if i > keys.start {
                return Some(key);
            }
        })
    }
}

/// Keys of an old node that go into a new one.
struct Part<'a> {
    node: &'a NodeData,
    range: Range<usize>,
}

impl<'a> Part<'a> {
    /// All keys.
    fn all(node: &'a NodeData) -> Self {
        Part { node, range: 0..node.live_keys() }
    }

    fn keys(&self) -> impl Iterator<Item = PackedRef<'a>> {
        self.node.live(self.range.clone())
    }

    fn headers(&self) -> impl Iterator<Item = Bkey> + 'a {
        let format = *self.node.format();
        self.keys().map(move |k| k.header(&format))
    }
}

/// The format that fits the keys of `parts` best, in a node from `min` to `max`.
fn best_format(parts: &[Part<'_>], min: Bpos, max: Bpos) -> BkeyFormat {
    let mut calc = FormatCalc::new();
    calc.add_pos(min);
    calc.add_pos(max);
    for key in parts.iter().flat_map(Part::headers) {
        calc.add_key(&key);
    }
    calc.finish()
}

/// Words of the keys of `parts` with `format`.
fn size_with(parts: &[Part<'_>], format: &BkeyFormat) -> usize {
    let size = |key: Bkey| {
        let header = match format.pack(&key) {
            Some(_) => format.key_u64s(),
            None => BKEY_U64S,
        };
        usize::from(header) + usize::from(key.value_u64s())
    };
    parts.iter().flat_map(Part::headers).map(size).sum()
}

/// Makes a node of the keys of `parts`, which ascend, with `format`. `None`, and `mem` is still there, if they do not fit.
fn build(
    parts: &[Part<'_>],
    format: BkeyFormat,
    min: Bpos,
    max: Bpos,
    mem: &mut Option<NodeMem>,
) -> Option<NodeData> {
    let target = &mut mem.as_mut()?.words;
    // A word less, for readers of variable-length integers look past the last key.
    let room = target.len().saturating_sub(NODE_HEADER_U64S + 1).min(usize::from(u16::MAX));
    let (mut at, mut live_keys, mut packed_keys) = (0, 0, 0);
    for part in parts {
        let old = part.node.format();
        for key in part.keys() {
            let value = key.value(old);
            let header = Bkey {
                needs_whiteout: false,
                ..key.header(old)
            };
            let packed = format.pack(&header);
            let unpacked = header.to_words();
            let words = match &packed {
                Some(p) => p.words(),
                None => &unpacked,
            };
            let end = at + words.len() + value.len();
            let place = target.get_mut(at..end).filter(|_| end <= room)?;
            put_parts(place, words, value);
            at = end;
            live_keys += 1;
            packed_keys += u32::from(packed.is_some());
        }
    }
    let shape = parts.first().map_or(Shape::default(), |p| p.node.shape());
    let journal_seq = parts.iter().map(|p| p.node.journal_seq()).max().unwrap_or(0);
    let mut node = NodeData {
        min,
        max,
        format,
        live_keys,
        packed_keys,
        live_u64s: at as u32,
        open_seq: journal_seq,
        ..from_memory(mem.take()?, shape)
    };
    let tree = node.index.take().map_or(Index::default(), |tree| tree);
    if let Some(first) = node.sets.first_mut() {
        *first = Some(Set {
            start: 0,
            end: at as u32,
            dead: 0,
            finder: Finder::Tree(tree),
        });
    }
    // There is room for it in `mem`.
    node.find_again(GFP_NOWAIT | __GFP_NOWARN);
    node.open_new();
    Some(node)
}

/// A node without sets.
fn from_memory(mem: NodeMem, shape: Shape) -> NodeData {
    let NodeMem {
        words,
        index,
        table,
    } = mem;
    NodeData {
        words,
        index: Some(index),
        table: Some(table),
        shape,
        ..NodeData::empty()
    }
}

/// An empty node for `min..=max`.
pub fn empty(min: Bpos, max: Bpos, shape: Shape, mem: NodeMem) -> NodeData {
    let format = best_format(&[], min, max);
    let mut node = NodeData {
        min,
        max,
        format,
        ..from_memory(mem, shape)
    };
    node.open_new();
    node
}

/// The keys of `parts`, with the best format, or with `old` if they do not fit then.
fn best(parts: &[Part<'_>], old: &BkeyFormat, min: Bpos, max: Bpos, mem: NodeMem) -> Option<NodeData> {
    let mut mem = Some(mem);
    build(parts, best_format(parts, min, max), min, max, &mut mem)
        .or_else(|| build(parts, *old, min, max, &mut mem))
}

/// The same keys in a new node, with the format that fits them best. `None` if they do not fit, which would be a bug.
pub fn compact(old: &NodeData, mem: NodeMem) -> Option<NodeData> {
    best(&[Part::all(old)], old.format(), old.min, old.max, mem)
}

/// Where a node is divided.
pub struct Cut {
    /// Live keys that go to the left.
    keys: usize,
    /// Highest position of the left node.
    max: Bpos,
}

/// One of the two nodes that a node is divided into.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Half {
    /// The one with the lower positions.
    Left,
    /// The one with the higher positions.
    Right,
}

/// Where to divide a node, so that the left one has three fifths of the keys. It does not end with a key for which `pinned`, by
/// its position, says so. `None` if there are fewer than two keys to divide.
pub fn cut(old: &NodeData, pinned: impl Fn(Bpos) -> bool) -> Option<Cut> {
    let total = old.live_u64s();
    let format = old.format();
    let (mut sum, mut best) = (0, None);
    // The last key stays on the right.
    let keys = old.live_keys().saturating_sub(1);
    for (i, key) in old.live(0..keys).enumerate() {
        sum += key.u64s();
        let max = key.pos(format);
        if pinned(max) || max >= old.max {
            continue;
        }
        best = Some(Cut { keys: i + 1, max });
        if sum * 5 >= total * 3 {
            break;
        }
    }
    best
}

/// The keys of one half of a node. `None` if they do not fit, which would be a bug.
pub fn half(old: &NodeData, cut: &Cut, half: Half, mem: NodeMem) -> Option<NodeData> {
    let (range, min, max) = match half {
        Half::Left => (0..cut.keys, old.min, cut.max),
        Half::Right => (cut.keys..old.live_keys(), cut.max.successor()?, old.max),
    };
    best(&[Part { node: old, range }], old.format(), min, max, mem)
}

/// Both halves of a node.
#[cfg(bcachefs_kunit)]
pub fn split(
    old: &NodeData,
    left: NodeMem,
    right: NodeMem,
    pinned: impl Fn(Bpos) -> bool,
) -> Option<(NodeData, NodeData)> {
    let cut = cut(old, pinned)?;
    Some((half(old, &cut, Half::Left, left)?, half(old, &cut, Half::Right, right)?))
}

/// Whether `left` ends where `right` begins.
fn adjacent(left: &NodeData, right: &NodeData) -> bool {
    left.max.successor() == Some(right.min)
}

/// The keys of two neighbours in one node. `None` if they do not fit, or are no neighbours.
pub fn merge(left: &NodeData, right: &NodeData, mem: NodeMem) -> Option<NodeData> {
    if !adjacent(left, right) {
        return None;
    }
    let parts = [Part::all(left), Part::all(right)];
    let format = best_format(&parts, left.min, right.max);
    build(&parts, format, left.min, right.max, &mut Some(mem))
}

/// Words that two neighbours would take as one node.
pub fn merged_u64s(left: &NodeData, right: &NodeData) -> usize {
    let parts = [Part::all(left), Part::all(right)];
    size_with(&parts, &best_format(&parts, left.min, right.max))
}

/// Up to how many words two nodes become one.
fn threshold(max_u64s: usize) -> usize {
    max_u64s / 3
}

/// Whether neighbours that would take `merged` words as one node should become one.
pub fn wants_merge(merged: usize, max_u64s: usize) -> bool {
    merged <= threshold(max_u64s)
}

/// The bound to remember ([`super::NodeHead::set_sibling`]) after two neighbours have been found to take `merged` words as one node.
/// It is lower than that if much has to go before they can become one: neither are they measured again with each key that
/// goes, nor never.
pub fn estimate(merged: usize, max_u64s: usize) -> u32 {
    let slack = threshold(max_u64s) + threshold(max_u64s) / 4;
    let bound = match merged.checked_sub(slack) {
        Some(above) => slack + above / 2,
        None => merged,
    };
    bound.min(max_u64s) as u32
}
