// SPDX-License-Identifier: GPL-2.0
//! The keys of a node in memory.
//!
//! # Invariants
//!
//! - The words of every set are well-formed keys in ascending order, without repeated positions. The sets follow each other without
//!   gaps, from the first word on.
//! - A position is live in at most one set.
//! - After a read there is one set, and it holds no `deleted` keys. Later sets are for keys added since; only the
//!   last one grows, and only if it is open. The first `written` sets have been written.
//! - `words` is as long as the sets, or, in a node that can be changed, as long as nodes are; the positions in `whiteouts` are at its
//!   end then.
//! - No position in `whiteouts` is live in a set that has not been written.

use super::{
    cursor::Cursor,
    index::Index,
    mem::Shape,
    set::{Finder, Set},
    table::Table,
};
use bcachefs_format::{
    bset::{Keys, PackedRef},
    packed::{BkeyFormat, FormatCalc, SearchPos},
    Bpos, KeyRef,
};
use core::fmt;
use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::atomic::{Atomic, Release},
};
use kfs::sync::InlineAtomic;

/// Sets a node has at most in memory.
pub const SETS_MAX: usize = 3;

/// What a node's lock protects.
pub struct NodeData {
    pub(super) words: KVVec<u64>,
    pub(super) format: BkeyFormat,
    pub(super) min: Bpos,
    pub(super) max: Bpos,
    pub(super) shape: Shape,
    pub(super) seq: u64,
    pub(super) generation: u32,
    pub(super) sets: [Option<Set>; SETS_MAX],
    /// How many of the sets have been written.
    pub(super) written: u8,
    /// Positions that are deleted in written sets, which is not written yet.
    pub(super) whiteouts: u32,
    /// How many of them are in order; the few behind those are not.
    pub(super) whiteouts_sorted: u32,
    /// Sectors written, as the sets have it.
    pub(super) sectors: u32,
    /// Sectors written or being written. It differs from `sectors` when a write has been started since.
    pub(super) sectors_started: Atomic<u32>,
    /// Newest journal entry of a change, and of one that is not written.
    pub(super) journal_seq: u64,
    pub(super) open_seq: u64,
    pub(super) live_keys: u32,
    pub(super) live_u64s: u32,
    pub(super) packed_keys: u32,
    /// Counts what moves keys.
    pub(super) edits: u32,
    /// The table while no set grows.
    pub(super) table: Option<Table>,
    /// Memory for a search tree.
    pub(super) index: Option<Index>,
}

// A node's data is too large to be passed over the kernel's stack: it is made, and made anew, where it is.
impl NodeData {
    /// A node without keys for the whole key space, that cannot be changed. Does not allocate.
    pub fn empty() -> impl Init<Self> {
        init!(NodeData {
            words: KVVec::new(),
            format: FormatCalc::new().finish(),
            min: Bpos::POS_MIN,
            max: Bpos::SPOS_MAX,
            shape: Shape::default(),
            seq: 0,
            generation: 0,
            sets: [const { None }; SETS_MAX],
            written: 0,
            whiteouts: 0,
            whiteouts_sorted: 0,
            sectors: 0,
            sectors_started: Atomic::new(0),
            journal_seq: 0,
            open_seq: 0,
            live_keys: 0,
            live_u64s: 0,
            packed_keys: 0,
            edits: 0,
            table: None,
            index: None,
        })
    }

    /// Makes it what [`NodeData::empty`] is, and frees what it had. Does not allocate.
    #[inline(never)]
    pub fn reset(&mut self) {
        self.words = KVVec::new();
        self.format = FormatCalc::new().finish();
        self.min = Bpos::POS_MIN;
        self.max = Bpos::SPOS_MAX;
        self.shape = Shape::default();
        self.seq = 0;
        self.generation = 0;
        for set in self.sets.iter_mut() {
            *set = None;
        }
        self.written = 0;
        self.whiteouts = 0;
        self.whiteouts_sorted = 0;
        self.sectors = 0;
        self.sectors_started = Atomic::new(0);
        self.journal_seq = 0;
        self.open_seq = 0;
        self.live_keys = 0;
        self.live_u64s = 0;
        self.packed_keys = 0;
        self.edits = 0;
        self.table = None;
        self.index = None;
    }

    /// Makes it a node with one set, which has been written: `words`, which must be well-formed keys of `format` in strictly
    /// ascending order. Stays as it is without memory.
    #[inline(never)]
    pub fn set_words(
        &mut self,
        words: KVVec<u64>,
        format: &BkeyFormat,
        min: Bpos,
        max: Bpos,
        flags: kernel::alloc::Flags,
    ) -> Result<(), AllocError> {
        let keys = Keys::new(&words);
        let index = Index::build(keys, format, flags)?;
        let (mut live_keys, mut packed_keys, mut dead) = (0, 0, 0);
        for (_, key) in keys.iter(format) {
            if key.is_deleted() {
                dead += key.u64s() as u32;
            } else {
                live_keys += 1;
                packed_keys += u32::from(key.is_packed());
            }
        }
        let end = words.len() as u32;
        self.reset();
        // INVARIANT: The caller's promise about `words`; one set.
        self.words = words;
        self.format = *format;
        self.min = min;
        self.max = max;
        self.set_first(end, dead, index);
        self.written = 1;
        self.live_keys = live_keys;
        self.packed_keys = packed_keys;
        self.live_u64s = end - dead;
        Ok(())
    }

    /// Makes the words up to `end` the first set, which does not grow.
    #[inline(never)]
    pub(super) fn set_first(&mut self, end: u32, dead: u32, index: Index) {
        if let Some(first) = self.sets.first_mut() {
            *first = Some(Set {
                start: 0,
                end,
                dead,
                finder: Finder::Tree(index),
            });
        }
    }

    /// Notes what the node's header and pointer say beside its range.
    pub fn set_identity(&mut self, seq: u64, generation: u32, sectors_written: u32) {
        self.seq = seq;
        self.generation = generation;
        self.sectors = sectors_written;
        self.sectors_started = Atomic::new(sectors_written);
    }

    /// Notes the sizes of nodes, and the newest journal entry that the keys are from.
    pub fn set_shape(&mut self, shape: Shape, journal_seq: u64) {
        self.shape = shape;
        self.journal_seq = journal_seq;
    }

    /// Random number of the node.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// How often the range was rewritten.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Sizes of nodes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Newest journal entry with a change of the node.
    pub fn journal_seq(&self) -> u64 {
        self.journal_seq.max(self.open_seq)
    }

    /// Newest journal entry with a change that is not written; 0 if there is none.
    pub fn unwritten_seq(&self) -> u64 {
        self.open_seq
    }

    /// Notes that what is unwritten is journalled up to entry `seq`: for changes that were made before they were journalled. The lock
    /// must be held for write.
    pub fn note_seq(&mut self, seq: u64) {
        self.open_seq = self.open_seq.max(seq);
    }

    /// Sectors written, or being written: where the next write goes.
    #[inline]
    pub fn sectors_written(&self) -> u32 {
        self.sectors_started.read_acquire()
    }

    /// Notes that a write up to `sectors` has been started. By who has set `WRITE_IN_FLIGHT`.
    pub(in crate::btree) fn start_write(&self, sectors: u32) {
        self.sectors_started.store(sectors, Release);
    }

    /// Whether what is unwritten here has been written since.
    #[inline]
    pub(super) fn was_written(&self) -> bool {
        self.sectors_started.read() != self.sectors
    }

    /// Whether `cursor` was made for these keys and none has moved since.
    #[inline]
    pub fn is_current(&self, cursor: &Cursor) -> bool {
        cursor.edits() == self.edits
    }

    /// Lowest position of the node's range.
    #[inline]
    pub fn min(&self) -> Bpos {
        self.min
    }

    /// Highest position of the node's range.
    #[inline]
    pub fn max(&self) -> Bpos {
        self.max
    }

    /// Whether `pos` is in the node's range.
    #[inline]
    pub fn covers(&self, pos: Bpos) -> bool {
        self.min <= pos && pos <= self.max
    }

    /// Format of the packed keys.
    #[inline]
    pub fn format(&self) -> &BkeyFormat {
        &self.format
    }

    /// Bytes of memory in use.
    pub fn bytes(&self) -> usize {
        let finders: usize = self.sets.iter().flatten().map(|s| s.finder.bytes()).sum();
        let spare = self.table.as_ref().map_or(0, |t| t.bytes())
            + self.index.as_ref().map_or(0, |i| i.bytes());
        self.words.capacity() * 8 + finders + spare
    }

    /// The words of set `i`.
    #[inline]
    pub(super) fn keys(&self, i: usize) -> Option<(Keys<'_>, &Finder)> {
        let set = self.sets.get(i)?.as_ref()?;
        let words = self.words.get(set.start as usize..set.end as usize)?;
        Some((Keys::new(words), &set.finder))
    }

    /// The key at word `at` of set `set`.
    #[inline]
    pub fn key_at(&self, set: u8, at: u32) -> Option<PackedRef<'_>> {
        self.keys(usize::from(set))?
            .0
            .get(at as usize, &self.format)
    }

    /// A cursor before the first key that is not below `pos`.
    #[inline]
    pub fn seek(&self, pos: Bpos) -> Cursor {
        let search = SearchPos::new(&self.format, pos);
        let mut cursor = Cursor::new(self.edits);
        // All sets roughly first: the keys of one are fetched while the next one's tree is searched.
        for i in 0..SETS_MAX {
            let Some((keys, finder)) = self.keys(i) else {
                break;
            };
            cursor.set(i, finder.seek(keys, &self.format, &search));
        }
        for i in 0..SETS_MAX {
            let Some((keys, _)) = self.keys(i) else {
                break;
            };
            let at = keys.first_from(cursor.at(i) as usize, &self.format, &search);
            cursor.set(i, at as u32);
        }
        cursor
    }

    /// The same, or `cursor`, which is there if it is current.
    #[inline]
    pub fn seek_from(&self, cursor: Option<Cursor>, pos: Bpos) -> Cursor {
        match cursor.filter(|c| self.is_current(c)) {
            Some(cursor) => cursor,
            None => self.seek(pos),
        }
    }

    /// A cursor before the first key.
    pub fn start(&self) -> Cursor {
        Cursor::new(self.edits)
    }

    /// All live keys in order.
    pub fn iter(&self) -> impl Iterator<Item = KeyRef<'_>> {
        let mut cursor = self.start();
        core::iter::from_fn(move || {
            let found = cursor.peek_live(self)?;
            cursor.step(&found);
            Some(found.key.unpack(&self.format))
        })
    }
}

impl fmt::Display for NodeData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} - {}", self.min, self.max)?;
        writeln!(
            f,
            "    seq {:x} generation {} sectors written {} journal seq {}",
            self.seq,
            self.generation,
            self.sectors_written(),
            self.journal_seq()
        )?;
        writeln!(f, "    format {}", self.format)?;
        for (i, s) in self.sets.iter().flatten().enumerate() {
            writeln!(
                f,
                "    set {i}: u64s {} dead {} index bytes {}{}{}",
                s.u64s(),
                s.dead,
                s.finder.bytes(),
                if i < usize::from(self.written) { " written" } else { "" },
                if s.is_open() { " open" } else { "" },
            )?;
        }
        if self.whiteouts != 0 {
            writeln!(f, "    whiteouts {}", self.whiteouts)?;
        }
        writeln!(
            f,
            "    keys {} packed {} u64s {} of {} memory {} bytes",
            self.live_keys,
            self.packed_keys,
            self.live_u64s,
            self.max_u64s(),
            self.bytes()
        )
    }
}
