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
use core::cmp::Ordering;

use super::{cursor::Cursor, set::Finder};

/// Words of a position in the list of whiteouts.
pub(super) const WHITEOUT_U64S: usize = 3;
/// Words that a whiteout takes when it is written, at most.
pub(super) const DELETED_U64S: usize = BKEY_U64S as usize;
/// Most words of keys in one set on disk.
const SET_U64S_MAX: usize = u16::MAX as usize;
/// The bit of a key's first word that says that an older one was written.
const NEEDS_WHITEOUT: u64 = 1 << 15;

/// What a change has changed.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// Anything at all: deleting what is not there does not make a node dirty.
    pub changed: bool,
    /// By how many words what is live has grown.
    pub live_u64s: i32,
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
    pub(super) fn used(&self) -> usize {
        self.sets.iter().flatten().map(|s| s.u64s() as usize).sum()
    }

    /// Words of the sets that have not been written.
    pub(super) fn unwritten_u64s(&self) -> usize {
        let sets = self.sets.iter().flatten().skip(usize::from(self.written));
        sets.map(|s| s.u64s() as usize).sum()
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
        let mut at = self.seek(key.key.pos);
        self.insert_at(&mut at, key, seq)
    }

    /// The same with a cursor that is where the key belongs, and stays there: before it.
    pub fn insert_at(&mut self, cursor: &mut Cursor, key: KeyRef<'_>, seq: u64) -> Result<Change, Refused> {
        let pos = key.key.pos;
        debug_assert!(*cursor == self.seek(pos));
        let at = *cursor;
        let u64s = usize::from(BKEY_U64S) + key.value.len();
        let open = self.open().ok_or(Refused)?;
        if self.room() < u64s || !self.covers(pos) || usize::from(key.key.u64s) != u64s {
            return Err(Refused);
        }
        let old = self.live_at(&at, pos);
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
            self.live_keys += 1;
            self.live_u64s += (header_u64s + key.value.len()) as u32;
            self.packed_keys += u32::from(packed.is_some());
        }
        self.open_seq = self.open_seq.max(seq);
        self.edits = self.edits.wrapping_add(1);
        *cursor = at.after(self.edits);
        Ok(Change {
            changed: true,
            live_u64s: self.live_u64s as i32 - before as i32,
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

    /// The position of whiteout `i`, in ascending order.
    pub(super) fn whiteout(&self, i: usize) -> Option<Bpos> {
        let at = self.words.len().checked_sub((i + 1) * WHITEOUT_U64S)?;
        match self.words.get(at..at + WHITEOUT_U64S)? {
            [inode, offset, snapshot] => {
                Some(Bpos::with_snapshot(*inode, *offset, *snapshot as u32))
            }
            _ => None,
        }
    }

    /// Where `pos` is among the whiteouts, or belongs.
    fn find_whiteout(&self, pos: Bpos) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.whiteouts as usize);
        while low < high {
            let mid = (low + high) / 2;
            match self.whiteout(mid).unwrap_or(Bpos::SPOS_MAX).cmp(&pos) {
                Ordering::Less => low = mid + 1,
                Ordering::Equal => return Ok(mid),
                Ordering::Greater => high = mid,
            }
        }
        Err(low)
    }

    fn add_whiteout(&mut self, pos: Bpos) {
        let Err(place) = self.find_whiteout(pos) else {
            return;
        };
        let end = self.words.len();
        let first = end - self.whiteouts as usize * WHITEOUT_U64S;
        let at = end - place * WHITEOUT_U64S;
        self.words.copy_within(first..at, first - WHITEOUT_U64S);
        if let Some(room) = self.words.get_mut(at - WHITEOUT_U64S..at) {
            room.copy_from_slice(&[pos.inode, pos.offset, pos.snapshot.into()]);
        }
        self.whiteouts += 1;
    }

    /// Takes a whiteout away; whether there was one.
    fn remove_whiteout(&mut self, pos: Bpos) -> bool {
        let Ok(place) = self.find_whiteout(pos) else {
            return false;
        };
        let end = self.words.len();
        let first = end - self.whiteouts as usize * WHITEOUT_U64S;
        let at = end - (place + 1) * WHITEOUT_U64S;
        self.words.copy_within(first..at, first + WHITEOUT_U64S);
        self.whiteouts -= 1;
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
    whiteout: usize,
}

impl NodeData {
    /// What has not been written, nor is being written.
    pub(in crate::btree) fn unwritten(&self) -> Unwritten<'_> {
        let mut at = self.start();
        let (skip, whiteout) = match self.was_written() {
            true => (self.nr_sets(), self.whiteouts as usize),
            false => (usize::from(self.written), 0),
        };
        for (i, set) in self.sets.iter().flatten().enumerate().take(skip) {
            at.set(i, set.u64s());
        }
        Unwritten {
            node: self,
            at,
            whiteout,
        }
    }

    /// Words that [`NodeData::unwritten`] takes on disk, at most.
    pub(in crate::btree) fn unwritten_max(&self) -> usize {
        self.unwritten_u64s() + self.whiteouts as usize * DELETED_U64S
    }
}

impl<'a> Iterator for Unwritten<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let format = self.node.format();
        let key = self.at.peek_live(self.node).map(|f| f.key);
        let whiteout = (self.whiteout < self.node.whiteouts as usize)
            .then(|| self.node.whiteout(self.whiteout))
            .flatten();
        if let Some(pos) = whiteout {
            if key.is_none_or(|k| pos < k.pos(format)) {
                self.whiteout += 1;
                return Some(Piece::Deleted(pos));
            }
        }
        let key = key?;
        self.at.advance(self.node);
        Some(Piece::Key(key))
    }
}
