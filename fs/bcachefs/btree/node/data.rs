// SPDX-License-Identifier: GPL-2.0
//! The keys of a node in memory.
//!
//! # Invariants
//!
//! - The words of every set are well-formed keys in ascending order, without repeated positions.
//! - A position is live in at most one set.
//! - After a read there is one set, and it holds no `deleted` keys. Later sets are for keys added since; only the
//!   last one grows.

use super::{cursor::Cursor, index::Index};
use bcachefs_format::{
    bset::{Keys, PackedRef},
    packed::{BkeyFormat, FormatCalc, SearchPos},
    Bpos, KeyRef,
};
use core::{cmp::Ordering, fmt};
use kernel::{alloc::AllocError, prelude::*};

/// Sets a node has at most in memory.
pub const SETS_MAX: usize = 3;

/// A sorted set of keys inside a node.
pub struct Set {
    start: u32,
    end: u32,
    index: Index,
}

/// What a node's lock protects.
pub struct NodeData {
    words: KVVec<u64>,
    format: BkeyFormat,
    min: Bpos,
    max: Bpos,
    seq: u64,
    generation: u32,
    sectors_written: u32,
    sets: [Option<Set>; SETS_MAX],
    live_keys: u32,
    packed_keys: u32,
}

impl NodeData {
    /// A node without keys for the whole key space. Does not allocate.
    pub fn empty() -> Self {
        NodeData {
            words: KVVec::new(),
            format: FormatCalc::new().finish(),
            min: Bpos::POS_MIN,
            max: Bpos::SPOS_MAX,
            seq: 0,
            generation: 0,
            sectors_written: 0,
            sets: [const { None }; SETS_MAX],
            live_keys: 0,
            packed_keys: 0,
        }
    }

    /// A node with one set: `words`, which must be well-formed keys of `format` in strictly ascending order.
    pub fn new(
        words: KVVec<u64>,
        format: BkeyFormat,
        min: Bpos,
        max: Bpos,
        flags: kernel::alloc::Flags,
    ) -> Result<Self, AllocError> {
        let keys = Keys::new(&words);
        let index = Index::build(keys, &format, flags)?;
        let (mut live_keys, mut packed_keys) = (0, 0);
        for (_, key) in keys.iter(&format) {
            live_keys += u32::from(!key.is_deleted());
            packed_keys += u32::from(key.is_packed());
        }
        let set = Set {
            start: 0,
            end: words.len() as u32,
            index,
        };
        // INVARIANT: The caller's promise about `words`; one set.
        Ok(NodeData {
            words,
            format,
            min,
            max,
            sets: [Some(set), None, None],
            live_keys,
            packed_keys,
            ..Self::empty()
        })
    }

    /// Notes what the node's header and pointer say beside its range.
    pub fn with_identity(mut self, seq: u64, generation: u32, sectors_written: u32) -> Self {
        self.seq = seq;
        self.generation = generation;
        self.sectors_written = sectors_written;
        self
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
        let index: usize = self.sets.iter().flatten().map(|s| s.index.bytes()).sum();
        self.words.capacity() * 8 + index
    }

    /// The words of set `i`.
    #[inline]
    pub(super) fn keys(&self, i: usize) -> Option<(Keys<'_>, &Index)> {
        let set = self.sets.get(i)?.as_ref()?;
        let words = self.words.get(set.start as usize..set.end as usize)?;
        Some((Keys::new(words), &set.index))
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
        let mut cursor = Cursor::default();
        for i in 0..SETS_MAX {
            let Some((keys, index)) = self.keys(i) else {
                break;
            };
            let mut at = index.seek(keys, &self.format, &search) as usize;
            while let Some(key) = keys.get(at, &self.format) {
                if key.cmp_search(&search, &self.format) != Ordering::Less {
                    break;
                }
                at += key.u64s();
            }
            cursor.set(i, at as u32);
        }
        cursor
    }

    /// A cursor before the first key.
    pub fn start(&self) -> Cursor {
        Cursor::default()
    }

    /// All live keys in order.
    pub fn iter(&self) -> impl Iterator<Item = KeyRef<'_>> {
        let mut cursor = self.start();
        core::iter::from_fn(move || {
            let found = cursor.peek_live(self)?;
            cursor.advance(self);
            Some(found.key.unpack(&self.format))
        })
    }
}

impl fmt::Display for NodeData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} - {}", self.min, self.max)?;
        writeln!(
            f,
            "    seq {:x} generation {} sectors written {}",
            self.seq, self.generation, self.sectors_written
        )?;
        writeln!(f, "    format {}", self.format)?;
        for (i, s) in self.sets.iter().flatten().enumerate() {
            writeln!(
                f,
                "    set {i}: u64s {} index bytes {}",
                s.end.saturating_sub(s.start),
                s.index.bytes()
            )?;
        }
        writeln!(
            f,
            "    keys {} packed {} memory {} bytes",
            self.live_keys,
            self.packed_keys,
            self.bytes()
        )
    }
}
