// SPDX-License-Identifier: GPL-2.0
//! The paths of an attempt.

use crate::{
    btree::node::{Cursor, Edit, NodeData, NodeLocks},
    util::error::Result,
};
use bcachefs_format::{btree_node::BTREE_MAX_DEPTH, Bpos, BtreeId};
use core::cell::Cell;
use kernel::prelude::*;
use kfs::sync::six::{Mode, Slot};

/// Paths an attempt can have.
pub(in crate::btree) const PATHS_MAX: usize = 64;
const LEVELS: usize = BTREE_MAX_DEPTH as usize;
/// Numbers that btrees can have.
const BTREES: usize = 64;

/// See the description of the module above.
pub(in crate::btree) struct Path {
    pub btree: BtreeId,
    pub pos: Bpos,
    /// The level it leads to.
    pub level: u8,
    /// Nodes below this level are locked for intent, the others for read.
    pub want: u8,
    /// Whether something found through it has been handed out.
    pub hold: bool,
    /// Whether an update of the transaction goes to its node.
    pub kept: bool,
    /// Whether `cursor` is valid, as long as `seq` is the node's.
    pub ready: bool,
    /// The sequence number under which its node was looked at last. The lock set knows only one for all paths to a node.
    pub seq: u32,
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
            want: 0,
            hold: false,
            kept: false,
            ready: false,
            seq: 0,
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

    /// The cursor, if it is at `pos`. It still has to be compared with the node.
    #[inline]
    pub(in crate::btree) fn place_of(&self, pos: Bpos) -> Option<Cursor> {
        (self.ready && self.pos == pos).then_some(self.cursor)
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
        self.kept = false;
        self.ready = false;
        self.want = 0;
    }

    fn is_empty(&self) -> bool {
        self.slots.iter().all(|s| s.is_none())
    }
}

/// How a path that wants intent below level `want` locks a node at `level`.
#[inline]
pub(in crate::btree) fn mode(want: u8, level: u8) -> Mode {
    if level < want {
        Mode::Intent
    } else {
        Mode::Read
    }
}

/// The table of paths.
pub(in crate::btree) struct Paths {
    table: KVec<Path>,
    /// For each btree, what every path wants at least, because turning read into intent has failed.
    raised: [u8; BTREES],
    /// The transaction changes something: what it has seen has to stay true, even if the iterator is gone.
    pub(in crate::btree) writing: bool,
}

impl Paths {
    /// An empty table, with room for all. May sleep.
    pub(in crate::btree) fn new() -> Result<Self> {
        Ok(Paths {
            table: KVec::with_capacity(PATHS_MAX, GFP_KERNEL)?,
            raised: [0; BTREES],
            writing: false,
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

    /// The level below which `path` locks nodes for intent.
    #[inline]
    pub(in crate::btree) fn want(&self, path: &Path) -> u8 {
        let raised = self.raised.get(usize::from(path.btree.0));
        path.want.max(raised.copied().unwrap_or(0))
    }

    /// Makes the path lock nodes below level `want` for intent, next time it is gone.
    pub(in crate::btree) fn set_want(&mut self, index: u8, want: u8) {
        if let Some(path) = self.get_mut(index) {
            path.want = want;
        }
    }

    /// Makes all paths of `btree` want at least `want`, until the transaction has been committed.
    pub(in crate::btree) fn raise(&mut self, btree: BtreeId, want: u8) {
        if let Some(raised) = self.raised.get_mut(usize::from(btree.0)) {
            *raised = want.max(*raised);
        }
    }

    /// Takes [`Paths::raise`] back.
    pub(in crate::btree) fn lower(&mut self) {
        self.raised = [0; BTREES];
    }

    /// Whether an iterator or an update uses the path.
    #[inline]
    fn in_use(&self, live: &Live, index: usize) -> bool {
        live.contains(index as u8) || self.table.get(index).is_some_and(|p| p.kept)
    }

    /// Whether the attempt depends on what was found through the path.
    #[inline]
    pub(in crate::btree) fn depends(&self, live: &Live, index: u8) -> bool {
        let i = usize::from(index);
        self.table
            .get(i)
            .is_some_and(|p| p.hold && (self.writing || self.in_use(live, i)))
    }

    /// Finds a path nobody uses, one that is near `pos` already if there is one. It wants intent below level `want`.
    pub(in crate::btree) fn pick(
        &mut self,
        live: &Live,
        btree: BtreeId,
        level: u8,
        pos: Bpos,
        want: u8,
        locks: &mut NodeLocks,
    ) -> Option<u8> {
        let mut best: Option<(u8, u8)> = None;
        for (i, p) in self.table.iter().enumerate() {
            if self.in_use(live, i) {
                continue;
            }
            let score = if p.hold && self.writing {
                // What it has shown would not be checked any more.
                0
            } else if p.btree != btree || p.level != level {
                u8::from(p.is_empty())
            } else if p
                .slot(p.level)
                .and_then(|s| locks.get(s))
                .is_some_and(|n| n.covers(pos))
            {
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
        path.want = want;
        Some(index)
    }

    /// Makes path `to` of the same btree and level as `from` lead where that leads.
    pub(in crate::btree) fn copy(&mut self, from: u8, to: u8, locks: &mut NodeLocks) {
        let Some(&Path { slots, .. }) = self.get(from) else {
            return;
        };
        let Some(path) = self.get_mut(to).filter(|_| from != to) else {
            return;
        };
        for slot in slots.iter().flatten() {
            locks.share(*slot);
        }
        for level in 0..BTREE_MAX_DEPTH {
            path.drop_level(level, locks);
        }
        path.slots = slots;
    }

    /// Whether a path in use, other than `except`, needs the lock of `slot`.
    pub(in crate::btree) fn needs(&self, live: &Live, except: u8, slot: Slot) -> bool {
        self.table.iter().enumerate().any(|(i, p)| {
            if i == usize::from(except) || !p.slots.contains(&Some(slot)) {
                return false;
            }
            let want = self.want(p);
            // Who has locked several levels means to change them.
            let holds = p.hold || want > p.level + 1;
            let top = want.max(p.level + 1);
            holds
                && (p.level..top).any(|l| p.slot(l) == Some(slot))
                && (self.writing || self.in_use(live, i))
        })
    }

    /// Whether a path other than `except` keeps the node in `slot` as it was under `seq`, locked as one that wants intent below `want`.
    pub(in crate::btree) fn is_kept(&self, except: u8, slot: Slot, seq: u32, want: u8) -> bool {
        self.table.iter().enumerate().any(|(i, p)| {
            let same = p.slot(p.level) == Some(slot) && p.seq == seq;
            i != usize::from(except) && p.hold && same && self.want(p) >= want
        })
    }

    /// The key at `pos` in the node of `slot` has been changed by `edit`: paths to the node stay where they are.
    #[inline]
    pub(in crate::btree) fn key_changed(&mut self, slot: Slot, pos: Bpos, edit: &Edit) {
        for p in self.table.iter_mut().filter(|p| p.slot(p.level) == Some(slot)) {
            p.cursor.keep_up(edit, p.pos > pos);
        }
    }

    /// Makes path `to`, whose node is that of `from`, be at the place where `from` is, if that is not behind `pos`: from there it is not
    /// far.
    #[inline]
    pub(in crate::btree) fn follow(&mut self, from: u8, to: u8, pos: Bpos) {
        let Some(&Path { pos: at, level, ready: true, seq, slots, cursor, .. }) = self.get(from) else {
            return;
        };
        let Some(path) = self.get_mut(to).filter(|_| from != to && at <= pos) else {
            return;
        };
        let same = slots.get(usize::from(level)) == path.slots.get(usize::from(level));
        if same && path.level == level && !path.hold {
            (path.pos, path.seq, path.cursor, path.ready) = (at, seq, cursor, true);
        }
    }

    /// A node is different now, by what the attempt itself has done: what was found out about places in it is void, unless the place
    /// has been kept up with. The lock's sequence number was `before` and is `now`.
    pub(in crate::btree) fn node_changed(
        &mut self,
        slot: Slot,
        node: Option<&NodeData>,
        before: u32,
        now: u32,
    ) {
        for p in self.table.iter_mut().filter(|p| p.slot(p.level) == Some(slot)) {
            p.ready &= node.is_some_and(|n| n.is_current(&p.cursor));
            if p.seq == before {
                p.seq = now;
            }
        }
    }

    /// No update needs its path any more, and what iterators that are gone have shown does not matter.
    pub(in crate::btree) fn release(&mut self, live: &Live) {
        for (i, p) in self.table.iter_mut().enumerate() {
            p.kept = false;
            if !live.contains(i as u8) {
                p.hold = false;
                p.want = 0;
            }
        }
    }

    /// Forgets everything.
    pub(in crate::btree) fn clear(&mut self, locks: &mut NodeLocks) {
        for p in self.table.iter_mut() {
            p.reset(locks);
        }
        self.table.clear();
        self.lower();
        self.writing = false;
    }

    /// At the start of another attempt: nothing has been handed out yet.
    pub(in crate::btree) fn forget_results(&mut self) {
        for p in self.table.iter_mut() {
            p.hold = false;
            p.kept = false;
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
