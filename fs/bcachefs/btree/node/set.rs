// SPDX-License-Identifier: GPL-2.0
//! A sorted set of keys inside a node, and finding keys in it.

use super::{index::Index, table::Table};
use bcachefs_format::{
    bset::Keys,
    packed::{BkeyFormat, SearchPos},
};

/// Words of deleted keys that are put up with.
const DEAD_U64S: u32 = 64;

/// How keys of a set are found.
pub(super) enum Finder {
    /// It does not grow.
    Tree(Index),
    /// It is the one that grows.
    Table(Table),
}

impl Finder {
    /// Offset of a key that is below the searched position, or of the first one; no more than a few keys before the first
    /// that is not below it.
    #[inline]
    pub(super) fn seek(&self, keys: Keys<'_>, format: &BkeyFormat, search: &SearchPos) -> u32 {
        match self {
            Finder::Tree(tree) => tree.seek(keys, format, search),
            Finder::Table(table) => table.seek(keys, format, search),
        }
    }

    /// Offset of a key before the one at `at`, no more than a few keys away; 0 if there is none nearer.
    #[inline]
    pub(super) fn before(&self, at: u32) -> u32 {
        match self {
            Finder::Tree(tree) => tree.before(at),
            Finder::Table(table) => table.before(at),
        }
    }

    /// Bytes of memory in use.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Finder::Tree(tree) => tree.bytes(),
            Finder::Table(table) => table.bytes(),
        }
    }
}

/// A sorted set of keys inside a node.
pub(super) struct Set {
    /// First word.
    pub(super) start: u32,
    /// The word after the last one.
    pub(super) end: u32,
    /// Words of keys that have been deleted in place. None in the set that grows.
    pub(super) dead: u32,
    pub(super) finder: Finder,
}

impl Set {
    /// Words of all keys.
    #[inline]
    pub(super) fn u64s(&self) -> u32 {
        self.end.saturating_sub(self.start)
    }

    /// Whether so much of it is deleted that it should go.
    #[inline]
    pub(super) fn is_wasteful(&self) -> bool {
        self.dead > DEAD_U64S && u64::from(self.dead) * 3 > u64::from(self.u64s())
    }

    /// Whether it is the one that grows.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        matches!(self.finder, Finder::Table(_))
    }
}
