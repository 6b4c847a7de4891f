// SPDX-License-Identifier: GPL-2.0
//! Changing the keys of a node.
//!
//! All changes go to the open set, the last one. What they supersede elsewhere becomes `deleted` in place. If that has been written,
//! the devices have to be told when nothing takes its place: its position becomes a *whiteout*, which the next write
//! includes. Keys of sets that have not been written remember by their `needs_whiteout` whether older ones were.

use super::data::NodeData;
use bcachefs_format::{
    bkey::BKEY_U64S,
    bset::{Keys, PackedRef},
    btree_node::{ENTRY_HEADER_U64S, NODE_HEADER_U64S, SECTOR_U64S},
    Bkey, Bpos, KeyRef, KeyType,
};
use core::ops::Range;

use super::{
    cursor::{Cursor, Edit},
    set::Finder,
};

/// Words of a position in the list of whiteouts.
pub(super) const WHITEOUT_U64S: usize = 3;
/// Whiteouts that need not be in order: putting one into its place moves many others.
const TAIL: usize = 16;
/// Words that a whiteout takes when it is written, at most.
pub(super) const DELETED_U64S: usize = BKEY_U64S as usize;
/// Most words of keys in one set on disk.
const SET_U64S_MAX: usize = u16::MAX as usize;
/// The bit of a key's first word that says that an older one was written.
const NEEDS_WHITEOUT: u64 = 1 << 15;

/// What a change has changed.
#[derive(Copy, Clone, Default)]
pub struct Change {
    /// By how many words what is live has grown.
    pub live_u64s: i32,
    /// For cursors to keep up with it. `None` if nothing has changed: deleting what is not there does not make a node dirty.
    pub edit: Option<Edit>,
}

impl Change {
    /// Whether anything has changed.
    pub fn changed(&self) -> bool {
        self.edit.is_some()
    }
}

/// A change was not made: the caller's mistake. The node was not prepared, has no room, or does not cover the position.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Refused;

/// A key that is to go.
#[derive(Copy, Clone)]
struct Old {
    set: usize,
    /// Offset in the set.
    at: u32,
    u64s: u32,
    packed: bool,
    /// An older one has been written.
    needs_whiteout: bool,
}

/// Copies a key of two parts to `to`, which is as long as both together.
pub(super) fn put_parts(to: &mut [u64], header: &[u64], value: &[u64]) {
    if let Some((a, b)) = to.split_at_mut_checked(header.len()) {
        a.copy_from_slice(header);
        if b.len() == value.len() {
            b.copy_from_slice(value);
        }
    }
}

impl NodeData {
    /// Words that still fit, if all keys were stored unpacked: a key takes its `u64s`, a deletion 5. 0 for a node that is not
    /// prepared ([`NodeData::prepare`]).
    pub fn room(&self) -> usize {
        match self.open() {
            Some(_) if !self.was_written() => self.left(),
            _ => 0,
        }
    }

    /// Number of sets.
    pub(super) fn nr_sets(&self) -> usize {
        self.sets.iter().flatten().count()
    }

    /// Words of all sets.
    #[inline]
    pub(super) fn used(&self) -> usize {
        self.sets.iter().flatten().last().map_or(0, |s| s.end as usize)
    }

    /// Words of the sets that have not been written.
    #[inline]
    pub(super) fn unwritten_u64s(&self) -> usize {
        // The sets follow each other without gaps.
        let first = self.sets.get(usize::from(self.written)).and_then(|s| s.as_ref());
        first.map_or(0, |s| self.used() - s.start as usize)
    }

    /// Index of the set that grows.
    pub(super) fn open(&self) -> Option<usize> {
        let last = self.nr_sets().checked_sub(1)?;
        self.sets.get(last)?.as_ref()?.is_open().then_some(last)
    }

    /// Words that can be added to what the next write writes.
    pub(super) fn left(&self) -> usize {
        let header = if self.sectors == 0 {
            NODE_HEADER_U64S
        } else {
            ENTRY_HEADER_U64S
        };
        let whiteouts = self.whiteouts as usize;
        let keys = self.unwritten_u64s() + whiteouts * DELETED_U64S;
        // A word more, for readers of variable-length integers look past the last key.
        let on_disk = self.sectors as usize * SECTOR_U64S + header + keys + 1;
        let in_memory = self.used() + whiteouts * WHITEOUT_U64S;
        let disk = self.shape.u64s().saturating_sub(on_disk);
        let memory = self.words.len().saturating_sub(in_memory);
        disk.min(memory).min(SET_U64S_MAX.saturating_sub(keys))
    }

    /// Makes `key`, which is journalled in entry `seq`, what is at its position; type `deleted` removes what is there. The node must
    /// be prepared and have room. Cursors have to be sought again. Does not sleep or allocate.
    pub fn insert(&mut self, key: KeyRef<'_>, seq: u64) -> Result<Change, Refused> {
        let at = self.seek(key.key.pos);
        self.insert_at(&at, key, seq)
    }

    /// The same with a cursor that is where the key belongs, before it.
    pub fn insert_at(&mut self, at: &Cursor, key: KeyRef<'_>, seq: u64) -> Result<Change, Refused> {
        let pos = key.key.pos;
        debug_assert!(*at == self.seek(pos));
        let u64s = usize::from(BKEY_U64S) + key.value.len();
        let open = self.open().ok_or(Refused)?;
        if self.room() < u64s || !self.covers(pos) || usize::from(key.key.u64s) != u64s {
            return Err(Refused);
        }
        let old = self.live_at(at, pos);
        let deleted = key.key.key_type == KeyType::DELETED;
        if deleted && old.is_none() {
            return Ok(Change::default());
        }
        let before = self.live_u64s;
        let mut written = false;
        if let Some(old) = old {
            written = old.needs_whiteout;
            self.live_keys -= 1;
            self.live_u64s -= old.u64s;
            self.packed_keys -= u32::from(old.packed);
            if old.set != open {
                self.mark_deleted(&old);
            }
        } else if self.whiteouts != 0 {
            // The new key says the same.
            written = self.remove_whiteout(pos);
        }
        let replaced = old.filter(|o| o.set == open).map_or(0, |o| o.u64s);
        let mut added = 0;
        if deleted {
            if replaced != 0 {
                self.splice(open, at.at(open), replaced, &[], &[]);
            }
            if written {
                self.add_whiteout(pos);
            }
        } else {
            let header = Bkey {
                needs_whiteout: written,
                ..key.key
            };
            let packed = self.format.pack(&header);
            match &packed {
                Some(p) => self.splice(open, at.at(open), replaced, p.words(), key.value),
                None => self.splice(open, at.at(open), replaced, &header.to_words(), key.value),
            }
            let header_u64s = packed.map_or(usize::from(BKEY_U64S), |p| p.words().len());
            added = (header_u64s + key.value.len()) as u32;
            self.live_keys += 1;
            self.live_u64s += added;
            self.packed_keys += u32::from(packed.is_some());
        }
        self.open_seq = self.open_seq.max(seq);
        let edit = Edit {
            before: self.edits,
            after: self.edits.wrapping_add(1),
            set: open as u8,
            moved: added.wrapping_sub(replaced),
        };
        self.edits = edit.after;
        Ok(Change {
            live_u64s: self.live_u64s as i32 - before as i32,
            edit: Some(edit),
        })
    }

    /// The key at `pos` that is live, if there is one; `at` is before it.
    fn live_at(&self, at: &Cursor, pos: Bpos) -> Option<Old> {
        (0..self.nr_sets()).find_map(|set| {
            let offset = at.at(set);
            let key = self.key_at(set as u8, offset)?;
            if key.is_deleted() || key.pos(&self.format) != pos {
                return None;
            }
            let hint = key.words().first().is_some_and(|w| w & NEEDS_WHITEOUT != 0);
            Some(Old {
                set,
                at: offset,
                u64s: key.u64s() as u32,
                packed: key.is_packed(),
                needs_whiteout: hint || set < usize::from(self.written),
            })
        })
    }

    fn mark_deleted(&mut self, old: &Old) {
        if let Some(Some(set)) = self.sets.get_mut(old.set) {
            set.dead += old.u64s;
            if let Some(word) = self.words.get_mut((set.start + old.at) as usize) {
                // Packed or not, the type is in the third byte.
                *word = *word & !0xff_0000 | u64::from(KeyType::DELETED.0) << 16;
            }
        }
    }

    /// Puts a key of two parts in the place of `old` words at `at` of the open set, the last one.
    fn splice(&mut self, open: usize, at: u32, old: u32, header: &[u64], value: &[u64]) {
        let Some(Some(set)) = self.sets.get_mut(open) else {
            return;
        };
        let new = header.len() + value.len();
        let from = (set.start + at) as usize;
        let end = set.end as usize;
        // There is room: `insert` has looked.
        self.words.copy_within(from + old as usize..end, from + new);
        if let Some(room) = self.words.get_mut(from..from + new) {
            put_parts(room, header, value);
        }
        set.end = (end + new) as u32 - old;
        let words = self.words.get(set.start as usize..set.end as usize);
        if let (Finder::Table(table), Some(words)) = (&mut set.finder, words) {
            let same = old != 0 && new != 0;
            table.changed(Keys::new(words), &self.format, at, old, new as u32, same);
        }
    }

    /// Where the words of whiteout `i` are.
    fn whiteout_at(&self, i: usize) -> Option<Range<usize>> {
        let at = self.words.len().checked_sub((i + 1) * WHITEOUT_U64S)?;
        Some(at..at + WHITEOUT_U64S)
    }

    /// The position of whiteout `i`. The first `whiteouts_sorted` are in ascending order.
    pub(super) fn whiteout(&self, i: usize) -> Option<Bpos> {
        match self.words.get(self.whiteout_at(i)?)? {
            [inode, offset, snapshot] => {
                Some(Bpos::with_snapshot(*inode, *offset, *snapshot as u32))
            }
            _ => None,
        }
    }

    fn set_whiteout(&mut self, i: usize, pos: Bpos) {
        let room = self.whiteout_at(i).and_then(|range| self.words.get_mut(range));
        if let Some(room) = room {
            room.copy_from_slice(&[pos.inode, pos.offset, pos.snapshot.into()]);
        }
    }

    /// Moves whiteouts `from..end` by `by` places to the back.
    fn move_whiteouts(&mut self, from: usize, end: usize, by: usize) {
        let last = self.words.len();
        let (low, high) = (last - end * WHITEOUT_U64S, last - from * WHITEOUT_U64S);
        self.words.copy_within(low..high, low - by * WHITEOUT_U64S);
    }

    /// How many of the sorted whiteouts are below `pos`.
    fn whiteouts_below(&self, pos: Bpos) -> usize {
        let (mut low, mut high) = (0, self.whiteouts_sorted as usize);
        while low < high {
            let mid = (low + high) / 2;
            match self.whiteout(mid).is_some_and(|w| w < pos) {
                true => low = mid + 1,
                false => high = mid,
            }
        }
        low
    }

    /// Where `pos` is among the whiteouts.
    fn find_whiteout(&self, pos: Bpos) -> Option<usize> {
        let (sorted, all) = (self.whiteouts_sorted as usize, self.whiteouts as usize);
        let place = self.whiteouts_below(pos);
        if place < sorted && self.whiteout(place) == Some(pos) {
            return Some(place);
        }
        (sorted..all).find(|i| self.whiteout(*i) == Some(pos))
    }

    /// Adds a whiteout, for which there is room. None is at its position: what is deleted was live in a set that has been written, and
    /// nothing of it has been deleted since.
    fn add_whiteout(&mut self, pos: Bpos) {
        debug_assert!(self.find_whiteout(pos).is_none());
        let sorted = self.whiteouts_sorted;
        if (self.whiteouts - sorted) as usize >= TAIL {
            self.sort_whiteouts();
        }
        let n = self.whiteouts as usize;
        let last = n.checked_sub(1).and_then(|i| self.whiteout(i));
        if self.whiteouts == self.whiteouts_sorted && last.is_none_or(|w| w < pos) {
            self.whiteouts_sorted += 1;
        }
        self.set_whiteout(n, pos);
        self.whiteouts += 1;
    }

    /// The whiteouts that are not in order, as they follow each other.
    #[inline(never)]
    fn tail(&self) -> ([u8; TAIL], usize) {
        let (sorted, all) = (self.whiteouts_sorted as usize, self.whiteouts as usize);
        let n = (all - sorted).min(TAIL);
        let mut order: [u8; TAIL] = core::array::from_fn(|i| i as u8);
        // Few, and sorting in the library takes a lot of stack.
        let pos = |order: &[u8; TAIL], i: usize| order.get(i).and_then(|w| self.whiteout(sorted + usize::from(*w)));
        for end in 1..n {
            for i in (1..=end).rev() {
                if pos(&order, i - 1) <= pos(&order, i) {
                    break;
                }
                order.swap(i - 1, i);
            }
        }
        (order, n)
    }

    /// Puts those that are not in order where they belong.
    #[inline(never)]
    fn sort_whiteouts(&mut self) {
        let (order, n) = self.tail();
        let sorted = self.whiteouts_sorted as usize;
        let tail: [Bpos; TAIL] = core::array::from_fn(|i| {
            let which = order.get(i).map_or(i, |w| usize::from(*w));
            self.whiteout(sorted + which).unwrap_or_default()
        });
        let mut end = sorted;
        for (i, pos) in tail.iter().enumerate().take(n).rev() {
            let place = self.whiteouts_below(*pos).min(end);
            self.move_whiteouts(place, end, i + 1);
            self.set_whiteout(place + i, *pos);
            end = place;
        }
        self.whiteouts_sorted = self.whiteouts;
    }

    /// Takes a whiteout away; whether there was one.
    fn remove_whiteout(&mut self, pos: Bpos) -> bool {
        let Some(place) = self.find_whiteout(pos) else {
            return false;
        };
        let last = self.words.len();
        let first = last - self.whiteouts as usize * WHITEOUT_U64S;
        let at = last - (place + 1) * WHITEOUT_U64S;
        self.words.copy_within(first..at, first + WHITEOUT_U64S);
        self.whiteouts -= 1;
        self.whiteouts_sorted -= u32::from(place < self.whiteouts_sorted as usize);
        true
    }
}

/// What is written: a key, or that there is none.
#[derive(Copy, Clone)]
pub(in crate::btree) enum Piece<'a> {
    /// A key, its hint to be left out.
    Key(PackedRef<'a>),
    /// Nothing is at this position any more.
    Deleted(Bpos),
}

/// What a write has to write, in ascending order.
pub(in crate::btree) struct Unwritten<'a> {
    node: &'a NodeData,
    at: Cursor,
    /// The next of the whiteouts that are in order, and of the others, which `tail` puts in order.
    whiteout: usize,
    late: usize,
    tail: [u8; TAIL],
    tail_len: usize,
    /// The position of the next one.
    next: Option<Bpos>,
}

impl NodeData {
    /// What has not been written, nor is being written.
    pub(in crate::btree) fn unwritten(&self) -> Unwritten<'_> {
        let mut at = self.start();
        let (tail, tail_len) = self.tail();
        let (skip, whiteout, late) = match self.was_written() {
            true => (self.nr_sets(), self.whiteouts_sorted as usize, tail_len),
            false => (usize::from(self.written), 0, 0),
        };
        for (i, set) in self.sets.iter().flatten().enumerate().take(skip) {
            at.set(i, set.u64s());
        }
        let mut unwritten = Unwritten {
            node: self,
            at,
            whiteout,
            late,
            tail,
            tail_len,
            next: None,
        };
        unwritten.next_whiteout();
        unwritten
    }

    /// Words that [`NodeData::unwritten`] takes on disk, at most.
    pub(in crate::btree) fn unwritten_max(&self) -> usize {
        self.unwritten_u64s() + self.whiteouts as usize * DELETED_U64S
    }
}

impl Unwritten<'_> {
    fn next_whiteout(&mut self) {
        let sorted = self.node.whiteouts_sorted as usize;
        let early = (self.whiteout < sorted).then(|| self.node.whiteout(self.whiteout)).flatten();
        let late = self.tail.get(self.late).filter(|_| self.late < self.tail_len);
        let late = late.and_then(|i| self.node.whiteout(sorted + usize::from(*i)));
        self.next = match (early, late) {
            (Some(e), Some(l)) if e > l => {
                self.late += 1;
                late
            }
            (Some(_), _) => {
                self.whiteout += 1;
                early
            }
            (None, _) => {
                self.late += 1;
                late
            }
        };
    }
}

impl<'a> Iterator for Unwritten<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let format = self.node.format();
        let found = self.at.peek_live(self.node);
        let key = found.map(|f| f.key);
        if let Some(pos) = self.next {
            if key.is_none_or(|k| pos < k.pos(format)) {
                self.next_whiteout();
                return Some(Piece::Deleted(pos));
            }
        }
        let found = found?;
        self.at.step(&found);
        Some(Piece::Key(found.key))
    }
}
