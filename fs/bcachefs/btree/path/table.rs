// SPDX-License-Identifier: GPL-2.0
//! The paths of an attempt.

use crate::{
    btree::node::{Cursor, NodeLocks},
    util::error::Result,
};
use bcachefs_format::{btree_node::BTREE_MAX_DEPTH, Bpos, BtreeId};
use core::cell::Cell;
use kernel::prelude::*;
use kfs::sync::six::Slot;

/// Paths an attempt can have.
pub(in crate::btree) const PATHS_MAX: usize = 64;
const LEVELS: usize = BTREE_MAX_DEPTH as usize;

/// See the description of the module above.
pub(in crate::btree) struct Path {
    pub btree: BtreeId,
    pub pos: Bpos,
    /// The level it leads to.
    pub level: u8,
    /// Whether something found through it has been handed out.
    pub hold: bool,
    /// Whether `cursor` is valid.
    pub ready: bool,
    /// The nodes, by level.
    pub slots: [Option<Slot>; LEVELS],
    pub cursor: Cursor,
}

impl Path {
    const fn unused() -> Self {
        Path {
            btree: BtreeId(0),
            pos: Bpos::POS_MIN,
            level: 0,
            hold: false,
            ready: false,
            slots: [None; LEVELS],
            cursor: Cursor::NONE,
        }
    }

    /// The slot of the node at `level`.
    #[inline]
    pub(in crate::btree) fn slot(&self, level: u8) -> Option<Slot> {
        *self.slots.get(usize::from(level))?
    }

    /// Puts a node at `level`.
    #[inline]
    pub(in crate::btree) fn set_slot(&mut self, level: u8, slot: Option<Slot>) {
        if let Some(s) = self.slots.get_mut(usize::from(level)) {
            *s = slot;
        }
    }

    /// Gives up the node at `level`.
    pub(in crate::btree) fn drop_level(&mut self, level: u8, locks: &mut NodeLocks) {
        let slot = self.slots.get_mut(usize::from(level));
        if let Some(slot) = slot.and_then(|s| s.take()) {
            locks.put(slot);
        }
        if level <= self.level {
            self.ready = false;
        }
    }

    /// Gives up all nodes.
    pub(in crate::btree) fn reset(&mut self, locks: &mut NodeLocks) {
        for level in 0..BTREE_MAX_DEPTH {
            self.drop_level(level, locks);
        }
        self.hold = false;
        self.ready = false;
    }

    fn is_empty(&self) -> bool {
        self.slots.iter().all(|s| s.is_none())
    }
}

/// The table of paths.
pub(in crate::btree) struct Paths {
    table: KVec<Path>,
}

impl Paths {
    /// An empty table, with room for all. May sleep.
    pub(in crate::btree) fn new() -> Result<Self> {
        Ok(Paths {
            table: KVec::with_capacity(PATHS_MAX, GFP_KERNEL)?,
        })
    }

    /// The path at `index`, if there is one.
    #[inline]
    pub(in crate::btree) fn get(&self, index: u8) -> Option<&Path> {
        self.table.get(usize::from(index))
    }

    /// The path at `index`, if there is one.
    #[inline]
    pub(in crate::btree) fn get_mut(&mut self, index: u8) -> Option<&mut Path> {
        self.table.get_mut(usize::from(index))
    }

    /// Number of paths that have been used.
    pub(in crate::btree) fn len(&self) -> usize {
        self.table.len()
    }

    /// Finds a path nobody uses, one that is near `pos` already if there is one.
    pub(in crate::btree) fn pick(
        &mut self,
        live: &Live,
        btree: BtreeId,
        level: u8,
        pos: Bpos,
        locks: &mut NodeLocks,
    ) -> Option<u8> {
        let mut best: Option<(u8, u8)> = None;
        for (i, p) in self.table.iter().enumerate() {
            if live.contains(i as u8) {
                continue;
            }
            let here = p.slot(p.level).and_then(|s| locks.get(s));
            let score = if p.btree != btree || p.level != level {
                u8::from(p.is_empty())
            } else if here.is_some_and(|n| n.covers(pos)) {
                3
            } else {
                2
            };
            if best.is_none_or(|(s, _)| score > s) {
                best = Some((score, i as u8));
                if score == 3 {
                    break;
                }
            }
        }
        let grow = best.is_none_or(|(score, _)| score == 0) && self.table.len() < PATHS_MAX;
        let index = if grow {
            self.table.push_within_capacity(Path::unused()).ok()?;
            (self.table.len() - 1) as u8
        } else {
            best?.1
        };
        let path = self.get_mut(index)?;
        if path.btree != btree || path.level != level {
            path.reset(locks);
        }
        path.btree = btree;
        path.level = level;
        path.hold = false;
        Some(index)
    }

    /// Whether a path in use, other than `except`, needs the lock of `slot`.
    pub(in crate::btree) fn needs(&self, live: &Live, except: u8, slot: Slot) -> bool {
        self.table.iter().enumerate().any(|(i, p)| {
            i != usize::from(except)
                && p.hold
                && p.slot(p.level) == Some(slot)
                && live.contains(i as u8)
        })
    }

    /// Forgets everything.
    pub(in crate::btree) fn clear(&mut self, locks: &mut NodeLocks) {
        for p in self.table.iter_mut() {
            p.reset(locks);
        }
        self.table.clear();
    }

    /// At the start of another attempt: nothing has been handed out yet.
    pub(in crate::btree) fn forget_results(&mut self) {
        for p in self.table.iter_mut() {
            p.hold = false;
        }
    }
}

/// Which paths are in use by iterators.
pub(in crate::btree) struct Live(Cell<u64>);

impl Live {
    pub(in crate::btree) const fn new() -> Self {
        Live(Cell::new(0))
    }

    #[inline]
    pub(in crate::btree) fn contains(&self, index: u8) -> bool {
        self.0.get() & (1 << (index & 63)) != 0
    }

    pub(in crate::btree) fn clear(&self) {
        self.0.set(0);
    }

    /// Marks a path as used for as long as the result lives.
    #[inline]
    pub(in crate::btree) fn claim(&self, index: u8) -> LiveRef<'_> {
        self.0.set(self.0.get() | 1 << (index & 63));
        LiveRef { live: self, index }
    }
}

/// The use of a path.
pub(in crate::btree) struct LiveRef<'t> {
    live: &'t Live,
    index: u8,
}

impl LiveRef<'_> {
    #[inline]
    pub(in crate::btree) fn index(&self) -> u8 {
        self.index
    }
}

impl Drop for LiveRef<'_> {
    #[inline]
    fn drop(&mut self) {
        self.live.0.set(self.live.0.get() & !(1 << (self.index & 63)));
    }
}
