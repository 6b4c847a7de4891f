// SPDX-License-Identifier: GPL-2.0
//! Finding keys in the set that grows.
//!
//! An entry for every few keys, in order: digest of the position and offset of the key. The digests count from the range of the
//! node rather than from that of the set, so that they do not change when keys are added at the ends. Searching bisects
//! the digests; a change moves the offsets behind it. The table has a fixed size: when it is full every other entry goes, and
//! from then on there are half as many.

use super::index::{packed_words, Window};
use bcachefs_format::{
    bset::{Keys, PackedRef},
    packed::{BkeyFormat, SearchPos},
    Bpos,
};
use core::cmp::Ordering;
use kernel::{alloc::AllocError, prelude::*};

/// Most entries of a table.
const ENTRIES: usize = 192;
/// Words between entries at first.
const GROUP_U64S: u32 = 16;

/// See the module's description.
pub(super) struct Table {
    window: Window,
    group: u32,
    digests: KVVec<u64>,
    offsets: KVVec<u32>,
}

impl Table {
    /// An empty table with all the room it will ever need.
    pub(super) fn new(flags: kernel::alloc::Flags) -> Result<Self, AllocError> {
        Ok(Table {
            window: Window::default(),
            group: GROUP_U64S,
            digests: KVVec::with_capacity(ENTRIES, flags)?,
            offsets: KVVec::with_capacity(ENTRIES, flags)?,
        })
    }

    /// Makes it the table for `keys` of a node that goes from `min` to `max`.
    pub(super) fn start(&mut self, keys: Keys<'_>, format: &BkeyFormat, min: Bpos, max: Bpos) {
        let bound = |pos| SearchPos::new(format, pos).bound_words().unwrap_or([0; 3]);
        self.window = Window::new(bound(min), bound(max));
        self.group = GROUP_U64S;
        self.digests.clear();
        self.offsets.clear();
        let mut last = 0;
        for (at, key) in keys.iter(format) {
            if at as u32 >= last + self.group {
                last = at as u32;
                self.add(self.offsets.len(), last, &key, format);
            }
        }
    }

    /// Bytes of memory in use.
    pub(super) fn bytes(&self) -> usize {
        self.digests.capacity() * 8 + self.offsets.capacity() * 4
    }

    fn digest(&self, key: &PackedRef<'_>, format: &BkeyFormat) -> u64 {
        self.window.digest(packed_words(key, format))
    }

    fn add(&mut self, place: usize, at: u32, key: &PackedRef<'_>, format: &BkeyFormat) {
        let mut place = place;
        if self.offsets.len() >= ENTRIES {
            self.thin();
            place = self.offsets.partition_point(|o| *o < at);
        }
        let digest = self.digest(key, format);
        // There is room for both: they have the same length and capacity.
        let _ = self.digests.insert_within_capacity(place, digest);
        let _ = self.offsets.insert_within_capacity(place, at);
    }

    /// Gives up every other entry.
    #[cold]
    fn thin(&mut self) {
        self.group *= 2;
        let (mut i, mut j) = (0, 0);
        self.digests.retain(|_| {
            i += 1;
            i % 2 == 0
        });
        self.offsets.retain(|_| {
            j += 1;
            j % 2 == 0
        });
    }

    /// Offset of a key that is below the searched position, or of the first one; no more than a few keys before the first
    /// that is not below it.
    #[inline]
    pub(super) fn seek(&self, keys: Keys<'_>, format: &BkeyFormat, search: &SearchPos) -> u32 {
        let below = |at: u32| {
            keys.get(at as usize, format)
                .is_some_and(|k| k.cmp_search(search, format) == Ordering::Less)
        };
        let mut n = match search.bound_words() {
            Some(bound) => {
                let want = self.window.digest(bound);
                let mut n = self.digests.partition_point(|d| *d < want);
                while self.digests.get(n) == Some(&want)
                    && self.offsets.get(n).is_some_and(|at| below(*at))
                {
                    n += 1;
                }
                n
            }
            // Every packed key is above; unpacked ones may still be below.
            None => self.offsets.partition_point(|at| below(*at)),
        };
        n = n.min(self.offsets.len());
        n.checked_sub(1)
            .and_then(|n| self.offsets.get(n).copied())
            .unwrap_or(0)
    }

    /// Offset of a key before the one at `at`, no more than a few keys away; 0 if there is none nearer.
    #[inline]
    pub(super) fn before(&self, at: u32) -> u32 {
        let n = self.offsets.partition_point(|o| *o < at);
        n.checked_sub(1)
            .and_then(|n| self.offsets.get(n).copied())
            .unwrap_or(0)
    }

    /// After `new` words of keys have taken the place of `old` words at `at`; `keys` are those after the change. A key that was and is
    /// at `at` has the same position as before if `same`.
    pub(super) fn changed(
        &mut self,
        keys: Keys<'_>,
        format: &BkeyFormat,
        at: u32,
        old: u32,
        new: u32,
        same: bool,
    ) {
        if self.offsets.last().is_none_or(|o| *o < at) {
            // Behind all entries: as when keys come in order.
            if new > old {
                self.fill(keys, format, at);
            }
            return;
        }
        let mut place = self.offsets.partition_point(|o| *o < at);
        if old != 0 && !same && self.offsets.get(place) == Some(&at) {
            // Its key is gone: the entry becomes that of the next one, unless that has one.
            let taken = self.offsets.get(place + 1).is_some_and(|o| *o == at + old);
            match keys.get(at as usize, format).filter(|_| !taken) {
                Some(next) => {
                    let digest = self.digest(&next, format);
                    if let Some(d) = self.digests.get_mut(place) {
                        *d = digest;
                    }
                }
                None => {
                    let _ = self.digests.remove(place);
                    let _ = self.offsets.remove(place);
                }
            }
        }
        if old != 0 {
            // That of the key itself, or of what took its place, stays where it is.
            place = self.offsets.partition_point(|o| *o <= at);
        }
        for o in self.offsets.iter_mut().skip(place) {
            *o = (*o + new).saturating_sub(old);
        }
        if new > old {
            self.fill(keys, format, at);
        }
    }

    /// Adds an entry if those around `at` have become too distant.
    fn fill(&mut self, keys: Keys<'_>, format: &BkeyFormat, at: u32) {
        let place = match self.offsets.last() {
            Some(last) if *last > at => self.offsets.partition_point(|o| *o <= at),
            _ => self.offsets.len(),
        };
        let from = place
            .checked_sub(1)
            .and_then(|p| self.offsets.get(p).copied())
            .unwrap_or(0);
        let end = keys.words().len() as u32;
        let to = self.offsets.get(place).copied().unwrap_or(end);
        if to.saturating_sub(from) < 2 * self.group {
            return;
        }
        let mut o = from;
        while let Some(key) = keys.get(o as usize, format) {
            if o >= from + self.group {
                if o < to {
                    self.add(place, o, &key, format);
                }
                return;
            }
            o += key.u64s() as u32;
        }
    }
}
