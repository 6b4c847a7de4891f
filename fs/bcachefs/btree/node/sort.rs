// SPDX-License-Identifier: GPL-2.0
//! Merging the sets of a node as it was read into one.
//!
//! Of several keys at one position the one that was written last wins: of different sets that of the later one,
//! within a set (which writers must not produce) the later one. `deleted` keys cancel older ones and are then
//! dropped. Nothing else is considered; extents are compared by their end like all keys.

use bcachefs_format::{
    bset::{Keys, PackedRef},
    packed::BkeyFormat,
};
use core::cmp::Ordering;
use kernel::{alloc::AllocError, prelude::*};

/// One set on its way through the merge.
struct Source<'a> {
    keys: Keys<'a>,
    at: usize,
    /// Place in the node; higher is newer.
    age: usize,
}

impl<'a> Source<'a> {
    fn peek(&self, format: &BkeyFormat) -> Option<PackedRef<'a>> {
        self.keys.get(self.at, format)
    }
}

/// The sets of one node, oldest first.
#[derive(Default)]
pub struct Merge<'a> {
    sources: KVec<Source<'a>>,
    words: usize,
}

impl<'a> Merge<'a> {
    /// Adds a set that is newer than those added before. The keys must be well formed and ascending.
    pub fn push(&mut self, keys: Keys<'a>, flags: kernel::alloc::Flags) -> Result<(), AllocError> {
        let age = self.sources.len();
        self.words += keys.words().len();
        self.sources.push(Source { keys, at: 0, age }, flags)
    }

    /// Words of all sets together: no result is longer.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Whether source `a` is to be taken before source `b`: lower position, then older.
    fn precedes(&self, a: usize, b: usize, format: &BkeyFormat) -> bool {
        let (Some(a), Some(b)) = (self.sources.get(a), self.sources.get(b)) else {
            return false;
        };
        match (a.peek(format), b.peek(format)) {
            (Some(x), Some(y)) => match x.cmp(&y, format) {
                Ordering::Less => true,
                Ordering::Equal => a.age < b.age,
                Ordering::Greater => false,
            },
            (x, _) => x.is_some(),
        }
    }

    /// Restores the heap order below `i`.
    fn sift_down(&mut self, mut i: usize, format: &BkeyFormat) {
        loop {
            let mut first = i;
            for child in [2 * i + 1, 2 * i + 2] {
                if child < self.sources.len() && self.precedes(child, first, format) {
                    first = child;
                }
            }
            if first == i {
                return;
            }
            self.sources.swap(i, first);
            i = first;
        }
    }

    /// Calls `out` with each key that remains, in ascending order. Ends early if `out` says false.
    #[inline(never)]
    pub fn run(mut self, format: &BkeyFormat, mut out: impl FnMut(PackedRef<'a>) -> bool) {
        for i in (0..self.sources.len() / 2).rev() {
            self.sift_down(i, format);
        }
        // The key to be put out unless a newer one at its position follows.
        let mut pending: Option<PackedRef<'a>> = None;
        while let Some(key) = self.sources.first().and_then(|s| s.peek(format)) {
            if let Some(p) = pending {
                if p.cmp(&key, format) != Ordering::Equal && !p.is_deleted() && !out(p) {
                    return;
                }
            }
            pending = Some(key);
            if let Some(s) = self.sources.first_mut() {
                s.at += key.u64s();
            }
            self.sift_down(0, format);
        }
        if let Some(p) = pending.filter(|p| !p.is_deleted()) {
            out(p);
        }
    }
}
