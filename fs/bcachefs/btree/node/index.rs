// SPDX-License-Identifier: GPL-2.0
//! The auxiliary search tree of a sorted set of keys.
//!
//! Keys differ in length, so a set cannot be searched by bisection. The tree samples it: one entry for every
//! 256 bytes of keys, in Eytzinger order (root first, then level by level), so that the entries every
//! search touches lie together.
//!
//! An entry is the offset of a key and a 64-bit *digest* of its position: the bits of the packed position right after those
//! that the first and the last key of the set have in common. Packing has already removed the bits that no key of
//! the node uses, so digests are nearly always different; where two are equal the keys themselves are
//! compared, which makes the result exact for any data. A digest is a plain integer: a step of the search is one load
//! and one comparison, with no shifting by a per-entry amount, and eight entries share a cache line, which is fetched ahead.
//! The offsets are kept apart, since only that of the last entry is needed. That costs 12 bytes for every 256 of keys.
//!
//! Keys that could not be packed take part with the highest packed position that is not above theirs; that
//! mapping is monotone, so an order of digests that differ is the order of the positions.

use bcachefs_format::{
    bset::{Keys, PackedRef},
    packed::{BkeyFormat, SearchPos},
    Bpos,
};
use core::cmp::Ordering;
use kernel::{alloc::AllocError, prelude::*};
use kfs::mem::prefetch;

/// Words of keys per entry.
const GROUP_U64S: usize = 32;
/// Words of a cache line.
const LINE_U64S: usize = 8;

/// How a position becomes a digest.
#[derive(Copy, Clone, Default)]
pub(super) struct Window {
    first: [u64; 3],
    last: [u64; 3],
    /// Leading bits that `first` and `last` share.
    skip: u32,
}

impl Window {
    /// For positions from `first` to `last`, packed.
    pub(super) fn new(first: [u64; 3], last: [u64; 3]) -> Self {
        let mut skip = 0;
        for (a, b) in first.iter().zip(last) {
            let z = (a ^ b).leading_zeros();
            skip += z;
            if z < 64 {
                break;
            }
        }
        Window {
            first,
            last,
            skip: skip.min(128),
        }
    }

    #[inline]
    pub(super) fn digest(&self, w: [u64; 3]) -> u64 {
        if below(&w, &self.first) {
            return 0;
        }
        if below(&self.last, &w) {
            return u64::MAX;
        }
        let [a, b, c] = w;
        let (hi, lo) = match self.skip / 64 {
            0 => (a, b),
            1 => (b, c),
            _ => (c, 0),
        };
        let shift = self.skip % 64;
        ((u128::from(hi) << 64 | u128::from(lo)) >> (64 - shift)) as u64
    }
}

/// Whether `a` is less than `b`, most significant word first.
#[inline(always)]
fn below([a, b, c]: &[u64; 3], [x, y, z]: &[u64; 3]) -> bool {
    a < x || a == x && (b < y || b == y && c < z)
}

/// The packed position of a key, or the highest one below it.
#[inline]
pub(super) fn packed_words(key: &PackedRef<'_>, format: &BkeyFormat) -> [u64; 3] {
    if key.is_packed() {
        format.pos_words(key.words())
    } else {
        SearchPos::new(format, key.pos(format))
            .bound_words()
            .unwrap_or([0; 3])
    }
}

/// A search tree over the keys of one set. Empty for sets too small to need one.
#[derive(Default)]
pub struct Index {
    window: Window,
    /// Digests in Eytzinger order from index 1; index 0 is unused.
    digests: KVVec<u64>,
    /// Offsets in words, in order.
    offsets: KVVec<u32>,
}

impl Index {
    /// Builds the tree for `keys`, which must be well formed and ascending. Allocates with `flags`.
    pub fn build(
        keys: Keys<'_>,
        format: &BkeyFormat,
        flags: kernel::alloc::Flags,
    ) -> Result<Self, AllocError> {
        let mut index = Self::with_room(keys.words().len(), flags)?;
        match index.rebuild(keys, format, flags) {
            true => Ok(index),
            false => Err(AllocError),
        }
    }

    /// Makes this the tree for `keys`, in memory it has or gets with `flags`. Without memory it is an empty one, with which the
    /// set is searched from its beginning; `false` then.
    pub(super) fn rebuild(
        &mut self,
        keys: Keys<'_>,
        format: &BkeyFormat,
        flags: kernel::alloc::Flags,
    ) -> bool {
        self.digests.clear();
        let most = keys.words().len() / GROUP_U64S + 1;
        let more = most.saturating_sub(self.offsets.len());
        if self.offsets.reserve(more, flags).is_err() || self.digests.reserve(most + 1, flags).is_err() {
            return false;
        }
        // The samples in order first, so that all keys are gone over once: from the last one on that there is already.
        let from = self.offsets.last().map_or(0, |at| *at as usize);
        let mut group = Group(from);
        let mut last = from;
        let rest = Keys::new(keys.words().get(from..).unwrap_or(&[]));
        for (at, _) in rest.iter(format) {
            last = from + at;
            if group.starts(last) {
                // There is room for one entry per 32 words.
                let _ = self.offsets.push_within_capacity(last as u32);
            }
        }
        let n = self.offsets.len();
        if n == 0 {
            return true;
        }
        let words_at = |at: usize| {
            keys.get(at, format)
                .map_or([0; 3], |k| packed_words(&k, format))
        };
        self.window = Window::new(words_at(0), words_at(last));
        for _ in 0..=n {
            let _ = self.digests.push_within_capacity(0);
        }
        // Walk the implicit tree in order, handing out the samples as they come.
        let mut i = first_in_order(n);
        for &at in self.offsets.iter() {
            if let Some(d) = self.digests.get_mut(i) {
                *d = self.window.digest(words_at(at as usize));
            }
            i = next_in_order(i, n);
        }
        true
    }

    /// The keys from word `kept` on are not the same any more: the tree has to be built anew, the samples before that are kept.
    pub(super) fn cut(&mut self, kept: u32) {
        self.digests.clear();
        let n = self.offsets.partition_point(|at| *at < kept);
        self.offsets.truncate(n);
    }

    /// Forgets the tree, but keeps its memory.
    pub(super) fn clear(&mut self) {
        self.digests.clear();
        self.offsets.clear();
    }

    /// Without its tree.
    pub(super) fn emptied(mut self) -> Self {
        self.clear();
        self
    }

    /// Whether there is a tree, or none is needed for a set of `u64s` words.
    pub(super) fn serves(&self, u64s: u32) -> bool {
        u64s as usize <= 2 * GROUP_U64S || !self.digests.is_empty()
    }

    /// An empty tree with room for that of a set of up to `u64s` words.
    pub(super) fn with_room(u64s: usize, flags: kernel::alloc::Flags) -> Result<Self, AllocError> {
        let n = u64s / GROUP_U64S + 2;
        Ok(Index {
            window: Window::default(),
            digests: KVVec::with_capacity(n, flags)?,
            offsets: KVVec::with_capacity(n, flags)?,
        })
    }

    /// Bytes of memory in use.
    pub fn bytes(&self) -> usize {
        self.digests.capacity() * 8 + self.offsets.capacity() * 4
    }

    /// Offset of the last sample for which `below` holds, which must hold for a prefix of them, given digest and number in the tree; 0
    /// if there is none.
    #[inline]
    fn last_below(&self, mut below: impl FnMut(u64, usize) -> bool) -> u32 {
        let digests = &*self.digests;
        let mut i = 1;
        while let Some(&d) = digests.get(i) {
            // The eight below it in the third generation lie together.
            prefetch(digests, 8 * i);
            i = 2 * i + usize::from(below(d, i));
        }
        // Up to where the last turn to the right was taken.
        self.offset_of(i >> (i.trailing_zeros() + 1))
    }

    /// Offset of the sample that is entry `i` of the tree; 0 for none.
    #[inline]
    fn offset_of(&self, i: usize) -> u32 {
        let rank = in_order(i, self.offsets.len());
        rank.and_then(|rank| self.offsets.get(rank).copied()).unwrap_or(0)
    }

    /// Offset of a key that is below the searched position, or of the first one; no more than a few keys before
    /// the first that is not below it.
    #[inline]
    pub fn seek(&self, keys: Keys<'_>, format: &BkeyFormat, search: &SearchPos) -> u32 {
        if self.digests.is_empty() {
            return 0;
        }
        let Some(bound) = search.bound_words() else {
            // Every packed key is above; unpacked ones may still be below.
            return self.seek_slow(keys, format, search.pos());
        };
        let want = self.window.digest(bound);
        let at = self.last_below(|digest, i| {
            digest < want || digest == want && self.is_below(i, keys, format, search)
        });
        // What is searched through now.
        for line in 0..GROUP_U64S / LINE_U64S {
            prefetch(keys.words(), at as usize + line * LINE_U64S);
        }
        at
    }

    #[cold]
    fn is_below(&self, i: usize, keys: Keys<'_>, format: &BkeyFormat, search: &SearchPos) -> bool {
        let key = keys.get(self.offset_of(i) as usize, format);
        key.is_some_and(|k| k.cmp_search(search, format) == Ordering::Less)
    }

    #[cold]
    fn seek_slow(&self, keys: Keys<'_>, format: &BkeyFormat, pos: Bpos) -> u32 {
        self.last_below(|_, i| {
            keys.get(self.offset_of(i) as usize, format)
                .is_some_and(|k| k.pos(format) < pos)
        })
    }

    /// Offset of a key before the one at `at`, no more than a few keys away; 0 if there is none nearer.
    #[inline]
    pub fn before(&self, at: u32) -> u32 {
        let n = self.offsets.partition_point(|o| *o < at);
        n.checked_sub(1)
            .and_then(|n| self.offsets.get(n).copied())
            .unwrap_or(0)
    }
}

/// Divides a set into groups.
struct Group(usize);

impl Group {
    /// Whether the key at word `at` starts a new group. To be asked of all keys in order; the first group has no entry.
    #[inline]
    fn starts(&mut self, at: usize) -> bool {
        let starts = at >= self.0 + GROUP_U64S;
        if starts {
            self.0 = at;
        }
        starts
    }
}

/// The first entry in order, in a tree of `n`.
fn first_in_order(n: usize) -> usize {
    let mut i = 1;
    while 2 * i <= n {
        i *= 2;
    }
    i
}

/// The entry after `i` in order, in a tree of `n`; 0 after the last.
fn next_in_order(i: usize, n: usize) -> usize {
    let mut i = i;
    if 2 * i < n {
        i = 2 * i + 1;
        while 2 * i <= n {
            i *= 2;
        }
        return i;
    }
    // Up until we come from a left child.
    while i & 1 == 1 {
        i >>= 1;
    }
    i >> 1
}

/// How many entries of a tree of `n` come before entry `i`; `None` if there is no such entry.
#[inline]
fn in_order(i: usize, n: usize) -> Option<usize> {
    if i == 0 || i > n {
        return None;
    }
    let (levels, level) = (n.ilog2(), i.ilog2());
    // As if the last level were full, counted from 1.
    let full = (2 * (i - (1 << level)) + 1) << (levels - level);
    // Every second one is of the last level, which has only so many.
    let last = n + 1 - (1 << levels);
    Some(full - (full >> 1).saturating_sub(last) - 1)
}

#[cfg(bcachefs_kunit)]
#[kernel::macros::kunit_tests(bcachefs_btree_index)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_order_are_those_of_the_walk() {
        for n in 1..200 {
            let mut i = first_in_order(n);
            for rank in 0..n {
                assert_eq!(in_order(i, n), Some(rank));
                i = next_in_order(i, n);
            }
            assert_eq!(i, 0);
            assert_eq!((in_order(0, n), in_order(n + 1, n)), (None, None));
        }
    }
}
