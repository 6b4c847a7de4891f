// SPDX-License-Identifier: GPL-2.0
//! New nodes made from the keys of old ones.
//!
//! Nothing here sleeps, allocates or fails for lack of memory: it comes with the call, and is still there if the keys do not fit.
//! New nodes are made where the caller wants them, for they are too large for the stack. They have no number and nothing written
//! yet, see [`NodeData::set_identity`]; they can be changed at once.

use super::{
    cursor::Cursor,
    data::NodeData,
    insert::put_parts,
    mem::{NodeMem, Shape},
};
use bcachefs_format::{
    bkey::BKEY_U64S,
    bset::PackedRef,
    btree_node::{ENTRY_HEADER_U64S, NODE_HEADER_U64S, SECTOR_U64S},
    packed::{BkeyFormat, FormatCalc, PackedHeader},
    Bkey, Bpos,
};
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

    /// The next `n` live keys from `cursor` on.
    #[inline]
    fn live(&self, cursor: Cursor, n: usize) -> impl Iterator<Item = PackedRef<'_>> {
        let mut cursor = cursor;
        let next = move || {
            let found = cursor.peek_live(self)?;
            cursor.step(&found);
            Some(found.key)
        };
        core::iter::from_fn(next).take(n)
    }
}

/// Keys of an old node that go into a new one.
struct Part<'a> {
    node: &'a NodeData,
    /// Before the first one.
    start: Cursor,
    /// How many.
    n: usize,
}

impl<'a> Part<'a> {
    /// All keys.
    fn all(node: &'a NodeData) -> Self {
        Part {
            node,
            start: node.start(),
            n: node.live_keys(),
        }
    }

    #[inline]
    fn keys(&self) -> impl Iterator<Item = PackedRef<'a>> {
        self.node.live(self.start, self.n)
    }
}

/// The header of `key`, which is packed with `old`, packed with `new`; `None` if it cannot be.
#[inline]
fn repack(key: &PackedRef<'_>, old: &BkeyFormat, new: &BkeyFormat) -> Option<PackedHeader> {
    match key.is_packed() {
        true => new.repack(key.words(), old),
        false => new.pack(&Bkey {
            needs_whiteout: false,
            ..key.header(old)
        }),
    }
}

/// The format that fits the keys of `parts` best, in a node from `min` to `max`.
#[inline(never)]
fn best_format(parts: &[Part<'_>], min: Bpos, max: Bpos) -> BkeyFormat {
    let mut calc = FormatCalc::new();
    calc.add_pos(min);
    calc.add_pos(max);
    for part in parts {
        let format = part.node.format();
        for key in part.keys() {
            match key.is_packed() {
                true => calc.add_packed(key.words(), format),
                false => calc.add_key(&key.header(format)),
            }
        }
    }
    calc.finish()
}

/// Words of all keys of `nodes` with `format`, which must be able to hold them.
fn size_with(nodes: &[&NodeData], format: &BkeyFormat) -> usize {
    let of = |node: &&NodeData| {
        let (keys, packed) = (node.live_keys as usize, node.packed_keys as usize);
        let unpacked = keys.saturating_sub(packed);
        let headers = packed * usize::from(node.format.key_u64s()) + unpacked * usize::from(BKEY_U64S);
        node.live_u64s().saturating_sub(headers) + keys * usize::from(format.key_u64s())
    };
    nodes.iter().map(of).sum()
}

/// Words, keys and packed keys of a new node.
struct Packed {
    u64s: usize,
    keys: u32,
    packed: u32,
}

/// Puts the keys of `parts`, which ascend, into `target`, with `format`. `None` if they do not fit.
fn pack(parts: &[Part<'_>], format: &BkeyFormat, target: &mut [u64]) -> Option<Packed> {
    // A word less, for readers of variable-length integers look past the last key.
    let room = target.len().saturating_sub(NODE_HEADER_U64S + 1).min(usize::from(u16::MAX));
    let (mut at, mut live_keys, mut packed_keys) = (0, 0, 0);
    for part in parts {
        let old = part.node.format();
        for key in part.keys() {
            let value = key.value(old);
            let packed = repack(&key, old, format);
            let unpacked;
            let words = match &packed {
                Some(p) => p.words(),
                None => {
                    let header = Bkey {
                        needs_whiteout: false,
                        ..key.header(old)
                    };
                    unpacked = header.to_words();
                    &unpacked
                }
            };
            let end = at + words.len() + value.len();
            let place = target.get_mut(at..end).filter(|_| end <= room)?;
            put_parts(place, words, value);
            at = end;
            live_keys += 1;
            packed_keys += u32::from(packed.is_some());
        }
    }
    Some(Packed {
        u64s: at,
        keys: live_keys,
        packed: packed_keys,
    })
}

/// Makes `out` a node of the keys of `parts`, which ascend, with `format`. False: they do not fit.
#[inline(never)]
fn build(
    parts: &[Part<'_>],
    format: &BkeyFormat,
    min: Bpos,
    max: Bpos,
    mem: &mut Option<NodeMem>,
    out: &mut NodeData,
) -> bool {
    let Some(made) = mem.as_mut().and_then(|m| pack(parts, format, &mut m.words)) else {
        return false;
    };
    let shape = parts.first().map_or(Shape::default(), |p| p.node.shape());
    take_over(mem, shape, out);
    out.min = min;
    out.max = max;
    out.format = *format;
    out.live_keys = made.keys;
    out.packed_keys = made.packed;
    out.live_u64s = made.u64s as u32;
    out.open_seq = parts.iter().map(|p| p.node.journal_seq()).max().unwrap_or(0);
    let tree = out.index.take().unwrap_or_default();
    out.set_first(made.u64s as u32, 0, tree);
    // There is room for it in the memory.
    out.find_again(GFP_NOWAIT | __GFP_NOWARN);
    out.open_new();
    true
}

/// Makes `out` a node without sets, in memory `mem`. False: there is none.
#[inline(never)]
fn take_over(mem: &mut Option<NodeMem>, shape: Shape, out: &mut NodeData) -> bool {
    out.reset();
    let Some(mem) = mem.take() else {
        return false;
    };
    out.words = mem.words;
    out.index = Some(mem.index);
    out.table = Some(mem.table);
    out.shape = shape;
    true
}

/// Makes `out` an empty node for `min..=max`. False: there is no memory for it.
pub fn blank(min: Bpos, max: Bpos, shape: Shape, mem: &mut Option<NodeMem>, out: &mut NodeData) -> bool {
    if !take_over(mem, shape, out) {
        return false;
    }
    out.min = min;
    out.max = max;
    out.format = best_format(&[], min, max);
    out.open_new();
    true
}

/// Makes `out` a node with the keys of `parts`, with the best format, or with `old` if they do not fit then.
fn best(
    parts: &[Part<'_>],
    old: &BkeyFormat,
    min: Bpos,
    max: Bpos,
    mem: &mut Option<NodeMem>,
    out: &mut NodeData,
) -> bool {
    build(parts, &best_format(parts, min, max), min, max, mem, out)
        || build(parts, old, min, max, mem, out)
}

/// Makes `out` a node with the same keys, with the format that fits them best. False: they do not fit, which would be a bug.
pub fn compact(old: &NodeData, mem: &mut Option<NodeMem>, out: &mut NodeData) -> bool {
    best(&[Part::all(old)], old.format(), old.min, old.max, mem, out)
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
    for (i, key) in old.live(old.start(), keys).enumerate() {
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

/// Makes `out` one half of a node. False: the keys do not fit, which would be a bug.
pub fn half(old: &NodeData, cut: &Cut, half: Half, mem: &mut Option<NodeMem>, out: &mut NodeData) -> bool {
    let (start, n, min, max) = match half {
        Half::Left => (old.start(), cut.keys, old.min, cut.max),
        Half::Right => match cut.max.successor() {
            Some(min) => (old.seek(min), old.live_keys().saturating_sub(cut.keys), min, old.max),
            None => return false,
        },
    };
    best(&[Part { node: old, start, n }], old.format(), min, max, mem, out)
}

/// Whether `left` ends where `right` begins.
fn adjacent(left: &NodeData, right: &NodeData) -> bool {
    left.max.successor() == Some(right.min)
}

/// Makes `out` a node with the keys of two neighbours. False: they do not fit, or are no neighbours.
pub fn merge(left: &NodeData, right: &NodeData, mem: &mut Option<NodeMem>, out: &mut NodeData) -> bool {
    if !adjacent(left, right) {
        return false;
    }
    let parts = [Part::all(left), Part::all(right)];
    let format = best_format(&parts, left.min, right.max);
    build(&parts, &format, left.min, right.max, mem, out)
}

/// Words that two neighbours would take as one node.
pub fn merged_u64s(left: &NodeData, right: &NodeData) -> usize {
    let parts = [Part::all(left), Part::all(right)];
    size_with(&[left, right], &best_format(&parts, left.min, right.max))
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
