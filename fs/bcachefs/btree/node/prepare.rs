// SPDX-License-Identifier: GPL-2.0
//! Getting a node ready for changes.
//!
//! A node has up to three sets: the big one, a middle one, and a small one that grows. When the small one has grown to 4 KiB, it
//! is closed and another one opened; when there are three, some are put together. So an insertion moves few words, and a search
//! looks at few sets.
//!
//! Putting sets together takes memory for all but the first. It is found in the node itself behind the keys, or got without
//! waiting, or is what was put aside for the node ([`NodeHead::give`]).

use super::{
    data::{NodeData, SETS_MAX},
    head::NodeHead,
    index::Index,
    insert::WHITEOUT_U64S,
    mem::{NeedMemory, NodeMem},
    set::{Finder, Set},
    shape::KEY_U64S_MAX,
};
use bcachefs_format::{
    bset::{Keys, PackedRef},
    btree_node::SECTOR_U64S,
    packed::{BkeyFormat, SearchPos},
};
use core::cmp::Ordering;
use kernel::{alloc::Flags, prelude::*};

/// Words from which on a set does not grow any more, if there is room for another.
const OPEN_U64S: usize = 512;

impl NodeData {
    /// Whether there is memory for changes.
    pub(super) fn is_writable(&self) -> bool {
        !self.words.is_empty() && self.words.len() == self.shape.u64s()
    }

    /// Gets the node ready for changes: takes notice of a write, puts sets together, opens a new one. Afterwards
    /// [`NodeData::room`] is right; there is none in the stand-in for an empty btree, nor if no further write would fit.
    /// Cursors may have to be sought again. Allocates with `flags`.
    pub fn prepare(&mut self, head: &NodeHead, flags: Flags) -> Result<(), NeedMemory> {
        if self.shape.u64s() == 0 {
            return Ok(());
        }
        if !self.is_writable() {
            self.grow(head, flags)?;
        }
        if self.was_written() {
            self.after_write(head, flags);
        }
        for i in 0..self.nr_sets() {
            if self.sets.get(i).and_then(|s| s.as_ref()).is_some_and(Set::is_wasteful) {
                self.drop_dead(i);
            }
        }
        self.open_set(head, flags)?;
        self.find_again(flags);
        Ok(())
    }

    /// Whether [`NodeData::prepare`] would change nothing.
    pub(in crate::btree) fn is_prepared(&self) -> bool {
        let last = self.sets.iter().flatten().last();
        let grows = last.is_some_and(|s| s.is_open() && s.u64s() as usize <= OPEN_U64S);
        grows
            && !self.was_written()
            && self.is_writable()
            && self.sets.iter().flatten().all(|s| {
                !s.is_wasteful()
                    && match &s.finder {
                        Finder::Tree(tree) => tree.serves(s.u64s()),
                        Finder::Table(_) => true,
                    }
            })
    }

    /// Whether [`NodeData::prepare`] would have to put sets together of which so much is unwritten that writing the node is
    /// better.
    pub(in crate::btree) fn wants_write(&self) -> bool {
        let size = |i: usize| self.sets.get(i).and_then(|s| s.as_ref()).map_or(0, |s| s.u64s());
        let middle = 1 << ((self.max_u64s().max(1).ilog2() + 9) / 2);
        self.nr_sets() == SETS_MAX
            && !self.was_written()
            && size(SETS_MAX - 1) as usize > OPEN_U64S
            && self.left() > OPEN_U64S
            && size(1) > middle
    }

    /// Moves to memory that has room for all that fits into the node on disk.
    fn grow(&mut self, head: &NodeHead, flags: Flags) -> Result<(), NeedMemory> {
        let mem = match head.take_spare() {
            Some(mem) => mem,
            None => NodeMem::new(self.shape, flags).map_err(|_| NeedMemory)?,
        };
        let used = self.used();
        let NodeMem {
            mut words,
            index,
            table,
        } = mem;
        let (Some(to), Some(from)) = (words.get_mut(..used), self.words.get(..used)) else {
            return Err(NeedMemory);
        };
        to.copy_from_slice(from);
        self.words = words;
        self.index = Some(index);
        self.table = Some(table);
        Ok(())
    }

    /// Everything here has been written, or is being written.
    fn after_write(&mut self, head: &NodeHead, flags: Flags) {
        self.close_set();
        self.written = self.nr_sets() as u8;
        self.whiteouts = 0;
        self.whiteouts_sorted = 0;
        self.sectors = self.sectors_written();
        self.journal_seq = self.journal_seq.max(self.open_seq);
        self.open_seq = 0;
        // Without memory they stay apart for now.
        let _ = self.put_together(0, self.nr_sets(), head, flags);
    }

    /// The set that grows does not grow any more.
    fn close_set(&mut self) {
        let Some(Some(set)) = self.open().and_then(|i| self.sets.get_mut(i)) else {
            return;
        };
        let tree = Finder::Tree(self.index.take().map_or(Index::default(), Index::emptied));
        if let Finder::Table(table) = core::mem::replace(&mut set.finder, tree) {
            self.table = Some(table);
        }
    }

    /// Makes the last set one that grows.
    fn reopen(&mut self, i: usize) -> Result<(), NeedMemory> {
        self.drop_dead(i);
        let Some(Some(set)) = self.sets.get_mut(i) else {
            return Err(NeedMemory);
        };
        let mut table = self.table.take().ok_or(NeedMemory)?;
        let words = self.words.get(set.start as usize..set.end as usize);
        table.start(Keys::new(words.unwrap_or(&[])), &self.format, self.min, self.max);
        if let Finder::Tree(tree) = core::mem::replace(&mut set.finder, Finder::Table(table)) {
            self.keep(tree);
        }
        Ok(())
    }

    /// Keeps the memory of a search tree, if it is more than what was kept before.
    fn keep(&mut self, tree: Index) {
        if self.index.as_ref().is_none_or(|i| i.bytes() < tree.bytes()) {
            self.index = Some(tree.emptied());
        }
    }

    /// Sees to it that the last set grows, if another write fits at all.
    fn open_set(&mut self, head: &NodeHead, flags: Flags) -> Result<(), NeedMemory> {
        // Once to put sets together, once to open one.
        for _ in 0..2 {
            let n = self.nr_sets();
            let left = self.left();
            if let Some((last, set)) = n
                .checked_sub(1)
                .and_then(|i| Some((i, self.sets.get(i)?.as_ref()?)))
            {
                if last < usize::from(self.written) {
                    let block = usize::from(self.shape.block_sectors) * SECTOR_U64S;
                    if left <= block.min(KEY_U64S_MAX) {
                        return Ok(());
                    }
                } else if set.u64s() as usize <= OPEN_U64S || left <= OPEN_U64S {
                    return match set.is_open() {
                        true => Ok(()),
                        false => self.reopen(last),
                    };
                }
            }
            if n < SETS_MAX {
                return self.add_set(n);
            }
            let written = usize::from(self.written);
            let (first, end) = match n - written.min(n) {
                0 | 1 => (0, written),
                _ => (written, n),
            };
            self.put_together(first, end, head, flags)?;
        }
        Ok(())
    }

    /// Makes a new node, which has memory, ready for changes.
    pub(super) fn open_new(&mut self) {
        let result = match self.nr_sets() {
            1 if self.used() <= OPEN_U64S || self.left() <= OPEN_U64S => self.reopen(0),
            n => self.add_set(n),
        };
        debug_assert!(result.is_ok());
    }

    fn add_set(&mut self, n: usize) -> Result<(), NeedMemory> {
        self.close_set();
        let end = self.used() as u32;
        let mut table = self.table.take().ok_or(NeedMemory)?;
        table.start(Keys::new(&[]), &self.format, self.min, self.max);
        if let Some(place) = self.sets.get_mut(n) {
            *place = Some(Set {
                start: end,
                end,
                dead: 0,
                finder: Finder::Table(table),
            });
        }
        self.edits = self.edits.wrapping_add(1);
        Ok(())
    }

    /// Builds the search trees that are missing.
    pub(super) fn find_again(&mut self, flags: Flags) {
        for set in self.sets.iter_mut().flatten() {
            let u64s = set.u64s();
            let words = self.words.get(set.start as usize..set.end as usize);
            let keys = Keys::new(words.unwrap_or(&[]));
            let Finder::Tree(tree) = &mut set.finder else {
                continue;
            };
            if tree.serves(u64s) || tree.rebuild(keys, &self.format, flags) {
                continue;
            }
            if let Some(mut spare) = self.index.take() {
                spare.rebuild(keys, &self.format, flags);
                *tree = spare;
            }
        }
    }

    /// Moves set `i + 1` and those after it down to where set `i` ends.
    fn close_gap(&mut self, i: usize) {
        let Some(Some(set)) = self.sets.get(i) else {
            return;
        };
        let mut end = set.end;
        for set in self.sets.iter_mut().flatten().skip(i + 1) {
            let (start, u64s) = (set.start as usize, set.u64s());
            self.words.copy_within(start..set.end as usize, end as usize);
            set.start = end;
            set.end = end + u64s;
            end = set.end;
        }
    }

    /// Takes deleted keys out of set `i`. It must not be open.
    fn drop_dead(&mut self, i: usize) {
        let Some(Some(set)) = self.sets.get_mut(i).filter(|s| s.as_ref().is_some_and(|s| s.dead != 0))
        else {
            return;
        };
        let (mut from, mut to) = (set.start as usize, set.start as usize);
        let mut kept = None;
        while let Some((u64s, dead)) = head_of(&self.words, from, set.end as usize, &self.format) {
            if dead {
                kept.get_or_insert(from as u32 - set.start);
            } else {
                self.words.copy_within(from..from + u64s, to);
                to += u64s;
            }
            from += u64s;
        }
        set.end = to as u32;
        set.dead = 0;
        if let Finder::Tree(tree) = &mut set.finder {
            tree.cut(kept.unwrap_or(0));
        }
        self.close_gap(i);
        self.edits = self.edits.wrapping_add(1);
    }

    /// Makes one of the sets `first..end`, without what is deleted; all of them written, or none. The last set does not grow any more
    /// if it is one of them.
    fn put_together(
        &mut self,
        first: usize,
        end: usize,
        head: &NodeHead,
        flags: Flags,
    ) -> Result<(), NeedMemory> {
        if end <= first + 1 {
            self.drop_dead(first);
            return Ok(());
        }
        // The first set stays; the others are copied to `moved`, the first one is moved up, and all go down to where it began.
        let bounds = |i: usize| {
            let set = self.sets.get(i).and_then(|s| s.as_ref())?;
            Some((set.start as usize, set.end as usize))
        };
        let (Some((start, a_end)), Some((_, stop))) = (bounds(first), bounds(end - 1)) else {
            return Err(NeedMemory);
        };
        let second = bounds(first + 1).map_or(stop, |(_, e)| e);
        let moved = stop - a_end;
        let ends = [second - a_end, moved];
        let used = self.used();
        let free = self.words.len() - self.whiteouts as usize * WHITEOUT_U64S;
        let format = &self.format;
        let clean = self.sets.get(first).and_then(|s| s.as_ref()).filter(|s| s.dead == 0);
        let mut base = Base {
            range: start + moved..stop,
            kept: None,
            finder: clean.map(|s| &s.finder),
        };
        let total = if free.saturating_sub(used) >= moved {
            self.words.copy_within(a_end..stop, used);
            let (words, scratch) = self.words.split_at_mut(used);
            let scratch = scratch.get(..moved).unwrap_or(&[]);
            words.copy_within(start..a_end, start + moved);
            merge(words, start, &mut base, scratch, ends, format)
        } else {
            let scratch = match copy_of(&self.words, a_end..stop, flags) {
                Ok(scratch) => scratch,
                Err(_) => {
                    let mut spare = head.take_spare().ok_or(NeedMemory)?.words;
                    let from = self.words.get(a_end..stop).unwrap_or(&[]);
                    spare.get_mut(..moved).ok_or(NeedMemory)?.copy_from_slice(from);
                    spare
                }
            };
            let scratch = scratch.get(..moved).unwrap_or(&[]);
            self.words.copy_within(start..a_end, start + moved);
            merge(&mut self.words, start, &mut base, scratch, ends, format)
        };
        let kept = base.kept.unwrap_or(total) - start;
        if end == self.nr_sets() {
            self.close_set();
        }
        if let Some(Some(set)) = self.sets.get_mut(first) {
            set.end = total as u32;
            set.dead = 0;
            if let Finder::Tree(tree) = &mut set.finder {
                tree.cut(kept as u32);
            }
        }
        let gone = end - first - 1;
        for _ in 0..gone {
            let old = self.sets.get_mut(first + 1).and_then(|s| s.take());
            if let Some(Set { finder: Finder::Tree(tree), .. }) = old {
                self.keep(tree);
            }
            if let Some(rest) = self.sets.get_mut(first + 1..) {
                rest.rotate_left(1);
            }
        }
        if first < usize::from(self.written) {
            self.written -= gone as u8;
        }
        self.close_gap(first);
        self.edits = self.edits.wrapping_add(1);
        Ok(())
    }
}

fn copy_of(
    words: &[u64],
    range: core::ops::Range<usize>,
    flags: Flags,
) -> Result<KVVec<u64>, kernel::alloc::AllocError> {
    let mut copy = KVVec::new();
    copy.extend_from_slice(words.get(range).unwrap_or(&[]), flags)?;
    Ok(copy)
}

/// Length of the key at word `at`, and whether it is deleted; `None` from `end` on.
fn head_of(words: &[u64], at: usize, end: usize, format: &BkeyFormat) -> Option<(usize, bool)> {
    let key = PackedRef::at(words.get(..end)?, at, format).ok()?;
    Some((key.u64s(), key.is_deleted()))
}

/// The first set of a merge, which lies behind where the result goes.
struct Base<'f> {
    /// Its words.
    range: core::ops::Range<usize>,
    /// Where the first of its keys that has gone or moved would be in the result.
    kept: Option<usize>,
    /// What finds its keys, if none of them is deleted; then they need not be looked at one by one.
    finder: Option<&'f Finder>,
}

impl Base<'_> {
    /// Moves all live keys that are below `limit` to word `to`, from word `at` on. Where it ended, here and there.
    fn advance(
        &mut self,
        words: &mut [u64],
        at: usize,
        to: usize,
        limit: Option<&PackedRef<'_>>,
        format: &BkeyFormat,
    ) -> (usize, usize) {
        let end = self.range.end;
        let below = |key: &PackedRef<'_>| limit.is_none_or(|l| key.cmp(l, format) == Ordering::Less);
        let mut next = at;
        if at >= end {
            return (at, to);
        }
        if let Some(finder) = self.finder {
            next = match (limit, words.get(self.range.clone())) {
                (Some(limit), Some(keys)) => {
                    let search = SearchPos::new(format, limit.pos(format));
                    let found = finder.seek(Keys::new(keys), format, &search) as usize;
                    at.max(self.range.start + found)
                }
                _ => end,
            };
        }
        // Keys that stay together are moved together.
        let (mut start, mut to) = (at, to);
        loop {
            let key = words.get(..end).and_then(|w| PackedRef::at(w, next, format).ok());
            let Some((u64s, dead)) = key.filter(below).map(|k| (k.u64s(), k.is_deleted())) else {
                break;
            };
            if dead {
                words.copy_within(start..next, to);
                to += next - start;
                self.kept.get_or_insert(to);
                start = next + u64s;
            }
            next += u64s;
        }
        words.copy_within(start..next, to);
        (next, to + next - start)
    }
}

/// Merges the keys of `base`, in `words`, and those of up to two sets in `moved`, which end at `ends`, to word `to` of `words`, leaving
/// out what is deleted. Before every key of `base` there must be as many words free as there are in `moved`. Returns
/// where the result ends.
fn merge(
    words: &mut [u64],
    to: usize,
    base: &mut Base<'_>,
    moved: &[u64],
    ends: [usize; 2],
    format: &BkeyFormat,
) -> usize {
    let [split, end] = ends;
    let mut at = base.range.start;
    let mut sets = [(0, split), (split, end)];
    let mut to = to;
    // Up to the next live key of a set.
    let skip = |at: &mut usize, end: usize| {
        while let Some((u64s, true)) = head_of(moved, *at, end, format) {
            *at += u64s;
        }
    };
    for (at, end) in sets.iter_mut() {
        skip(at, *end);
    }
    loop {
        // The lower of the two sets in `moved`.
        let first = |(at, end): (usize, usize)| PackedRef::at(moved.get(..end)?, at, format).ok();
        let [a, b] = sets;
        let lower = match (first(a), first(b)) {
            (Some(x), Some(y)) if y.cmp(&x, format) == Ordering::Less => Some((1, y)),
            (Some(x), _) => Some((0, x)),
            (None, Some(y)) => Some((1, y)),
            (None, None) => None,
        };
        (at, to) = base.advance(words, at, to, lower.as_ref().map(|(_, k)| k), format);
        let Some((which, key)) = lower else {
            return to;
        };
        base.kept.get_or_insert(to);
        if let Some(room) = words.get_mut(to..to + key.u64s()) {
            room.copy_from_slice(key.words());
        }
        to += key.u64s();
        if let Some((at, end)) = sets.get_mut(which) {
            *at += key.u64s();
            skip(at, *end);
        }
    }
}
