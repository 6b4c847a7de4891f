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
//! and one comparison, with no shifting by a per-entry amount, and eight entries share a cache line. That costs
//! 12 bytes for every 256 of keys.
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

/// Words of keys per entry.
const GROUP_U64S: usize = 32;

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
        if w < self.first {
            return 0;
        }
        if w > self.last {
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
    /// Digest and offset in words, in Eytzinger order from index 1; index 0 is unused.
    digests: KVVec<u64>,
    offsets: KVVec<u32>,
}

impl Index {
    /// Builds the tree for `keys`, which must be well formed and ascending. Allocates with `flags`.
    pub fn build(
        keys: Keys<'_>,
        format: &BkeyFormat,
        flags: kernel::alloc::Flags,
    ) -> Result<Self, AllocError> {
        let mut starts: KVVec<u32> =
            KVVec::with_capacity(keys.words().len() / GROUP_U64S + 1, flags)?;
        let mut group = Group::default();
        let mut last = 0;
        for (at, _) in keys.iter(format) {
            if group.starts(at) {
                // Room for one entry per 32 words was made above.
                let _ = starts.push_within_capacity(at as u32);
            }
            last = at;
        }
        let n = starts.len();
        if n == 0 {
            return Ok(Self::default());
        }
        let words_at = |at: usize| {
            keys.get(at, format)
                .map_or([0; 3], |k| packed_words(&k, format))
        };
        let window = Window::new(words_at(0), words_at(last));
        let mut index = Index {
            window,
            digests: KVVec::from_elem(0, n + 1, flags)?,
            offsets: KVVec::from_elem(0, n + 1, flags)?,
        };
        // Walk the implicit tree in order, handing out the samples as they come.
        let mut samples = starts.iter();
        let mut i = first_in_order(n);
        loop {
            let Some(&at) = samples.next() else { break };
            if let (Some(d), Some(o)) = (index.digests.get_mut(i), index.offsets.get_mut(i)) {
                *d = window.digest(words_at(at as usize));
                *o = at;
            }
            i = next_in_order(i, n);
            if i == 0 {
                break;
            }
        }
        Ok(index)
    }

    /// Makes this the tree for `keys`, in memory it has or gets with `flags`. Without memory it is an empty one, with which the
    /// set is searched from its beginning; `false` then.
    pub(super) fn rebuild(
        &mut self,
        keys: Keys<'_>,
        format: &BkeyFormat,
        flags: kernel::alloc::Flags,
    ) -> bool {
        self.clear();
        let (mut n, mut last) = (0, 0);
        let mut group = Group::default();
        for (at, _) in keys.iter(format) {
            n += usize::from(group.starts(at));
            last = at;
        }
        if n == 0 {
            return true;
        }
        if self.digests.resize(n + 1, 0, flags).is_err()
            || self.offsets.resize(n + 1, 0, flags).is_err()
        {
            self.clear();
            return false;
        }
        let words_at = |at: usize| {
            keys.get(at, format)
                .map_or([0; 3], |k| packed_words(&k, format))
        };
        self.window = Window::new(words_at(0), words_at(last));
        let mut i = first_in_order(n);
        let mut group = Group::default();
        for (at, key) in keys.iter(format) {
            if !group.starts(at) {
                continue;
            }
            if let (Some(d), Some(o)) = (self.digests.get_mut(i), self.offsets.get_mut(i)) {
                *d = self.window.digest(packed_words(&key, format));
                *o = at as u32;
            }
            i = next_in_order(i, n);
        }
        true
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

    /// The last entry for which `before` holds (it must hold for a prefix of them); 0 if there is none.
    #[inline]
    fn last_before(&self, mut before: impl FnMut(u64, u32) -> bool) -> u32 {
        let mut i = 1;
        let mut best = 0;
        while let (Some(&d), Some(&o)) = (self.digests.get(i), self.offsets.get(i)) {
            if before(d, o) {
                best = o;
                i = 2 * i + 1;
            } else {
                i *= 2;
            }
        }
        best
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
        self.last_before(|digest, at| match digest.cmp(&want) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => keys
                .get(at as usize, format)
                .is_some_and(|k| k.cmp_search(search, format) == Ordering::Less),
        })
    }

    #[cold]
    fn seek_slow(&self, keys: Keys<'_>, format: &BkeyFormat, pos: Bpos) -> u32 {
        self.last_before(|_, at| {
            keys.get(at as usize, format)
                .is_some_and(|k| k.pos(format) < pos)
        })
    }

    /// Offset of a key before the one at `at`, no more than a few keys away; 0 if there is none nearer.
    #[inline]
    pub fn before(&self, at: u32) -> u32 {
        self.last_before(|_, o| o < at)
    }
}

/// Divides a set into groups.
#[derive(Default)]
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
