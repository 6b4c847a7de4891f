// SPDX-License-Identifier: GPL-2.0
//! Iterators: views of a btree from a position.
//!
//! An [`Iter`] has a position and finds keys from there, forwards or backwards, or what is exactly there. What it
//! sees depends on the tree and its [`IterFlags`]: in trees of extents keys are ranges, in trees with snapshots only keys that
//! the snapshot of the position sees exist. Keys of the journal are laid over those of the nodes.
//!
//! # Invariants
//!
//! - Looking forwards never moves the position back, looking backwards never moves it forward, looking at a slot
//!   leaves it. So the position says how far a walk has come, also after a restart.
//! - A key that is returned covers or follows the position (precedes it, backwards), and nothing that the view
//!   shows lies between.
//! - Slots tile the key space: a hole ends where the next key starts.

mod find;
mod flags;
mod peek;
mod peek_prev;
mod slot;

pub(super) use find::COUNTERS_MAX;
pub use flags::IterFlags;

use super::{
    node::{NodeData, NodeHead},
    path::LiveRef,
    trans::{Attempt, Reason, TransError},
};
use bcachefs_format::{Bkey, Bpos, BtreeId, KeyRef, KeyType};
use find::{Next, Place};

/// Nodes to read ahead, with `PREFETCH`.
const AHEAD: usize = 2;

/// See the description of the module.
pub struct Iter<'t> {
    path: Option<LiveRef<'t>>,
    btree: BtreeId,
    flags: IterFlags,
    /// Position; its snapshot is the one that looks, in a filtered view.
    pos: Bpos,
    /// The key returned last, until the iterator moves.
    last: Option<Bkey>,
    /// Where a change at the position goes, if that is another node than the one in which was found what is seen there.
    beside: Option<LiveRef<'t>>,
}

impl<'t> Iter<'t> {
    pub(super) fn new(
        t: &mut Attempt<'t>,
        btree: BtreeId,
        level: u8,
        pos: Bpos,
        flags: IterFlags,
    ) -> Self {
        let mut want = 0;
        if flags.has(IterFlags::INTENT) {
            want = level + 1;
            t.paths.writing = true;
        }
        t.paths.writing |= flags.has(IterFlags::KEEP);
        let index = t.paths.pick(t.live, btree, level, pos, want, t.locks);
        if let Some(index) = index {
            t.keys.forget(index);
        }
        Iter {
            path: index.map(|i| t.live.claim(i)),
            btree,
            flags: flags.resolve(btree, level),
            pos,
            last: None,
            beside: None,
        }
    }

    /// The btree.
    #[inline]
    pub fn btree(&self) -> BtreeId {
        self.btree
    }

    /// Whether all of `flags` are set or have been found out from the tree.
    #[inline]
    pub(super) fn shows(&self, flags: IterFlags) -> bool {
        self.flags.has(flags)
    }

    /// The level it was made for.
    pub(super) fn level(&self, t: &Attempt<'_>) -> Result<u8, TransError> {
        match &self.path {
            Some(path) => Ok(t.path(path.index())?.level),
            None => Err(Reason::TooManyPaths.into()),
        }
    }

    /// Its path's place in the table.
    #[inline]
    pub(super) fn path_index(&self) -> Option<u8> {
        self.path.as_ref().map(|p| p.index())
    }

    /// The position.
    #[inline]
    pub fn pos(&self) -> Bpos {
        self.pos
    }

    /// Moves to `pos`.
    #[inline]
    pub fn set_pos(&mut self, pos: Bpos) {
        self.pos = pos;
        self.last = None;
    }

    /// Looks from `snapshot` from now on.
    pub fn set_snapshot(&mut self, snapshot: u32) {
        self.set_pos(self.pos.at_snapshot(snapshot));
    }

    /// Moves behind the key returned last (behind the position, if there is none). False at the end of the key space.
    pub fn advance(&mut self) -> bool {
        let at = self.last.map_or(self.pos, |k| k.pos);
        let next = if self.last.is_some() && self.flags.has(IterFlags::EXTENTS) {
            // The next range starts where this one ends; a hole behind the last offset does not count.
            Some(at.at_snapshot(self.pos.snapshot)).filter(|p| *p > self.pos)
        } else {
            None
        };
        match next.or_else(|| self.after(at)) {
            Some(pos) => {
                self.set_pos(pos);
                true
            }
            None => false,
        }
    }

    /// Moves before the key returned last (before the position, if there is none). False at the start of the key space.
    pub fn rewind(&mut self) -> bool {
        let prev = match self.last {
            // What starts before the start of this one.
            Some(k) if self.flags.has(IterFlags::EXTENTS) && k.size != 0 => {
                Some(k.start_pos().at_snapshot(self.pos.snapshot))
            }
            Some(k) => self.before(k.pos),
            None => self.before(self.pos),
        };
        match prev {
            Some(pos) => {
                self.set_pos(pos);
                true
            }
            None => false,
        }
    }

    /// The next position of the view.
    #[inline]
    fn after(&self, pos: Bpos) -> Option<Bpos> {
        if self.flags.has(IterFlags::FILTER) {
            let next = pos.nosnap_successor()?;
            Some(next.at_snapshot(self.pos.snapshot))
        } else {
            pos.successor()
        }
    }

    /// The position of the view before `pos`.
    #[inline]
    fn before(&self, pos: Bpos) -> Option<Bpos> {
        if self.flags.has(IterFlags::FILTER) {
            let prev = pos.nosnap_predecessor()?;
            Some(prev.at_snapshot(self.pos.snapshot))
        } else {
            pos.predecessor()
        }
    }

    #[inline]
    fn index(&self, t: &mut Attempt<'t>) -> Result<u8, TransError> {
        match &self.path {
            Some(path) => Ok(path.index()),
            None => Err(t.restart(Reason::TooManyPaths)),
        }
    }

    #[inline]
    fn ahead(&self) -> usize {
        if self.flags.has(IterFlags::PREFETCH) {
            AHEAD
        } else {
            0
        }
    }

    /// In a view of a snapshot a change goes to that snapshot's own place, which comes before those of its ancestors and may be in
    /// another node than what is seen. That node is locked as well, and nothing nearer may have come into it meanwhile.
    ///
    /// To be called when `key` has been found to be what is seen at `pos` (or it is a hole), before it is returned.
    #[inline]
    fn settle(&mut self, t: &mut Attempt<'t>, pos: Bpos, key: &Bkey) -> Result<(), TransError> {
        if !self.flags.has(IterFlags::INTENT)
            || !self.flags.has(IterFlags::FILTER)
            || self.flags.has(IterFlags::EXTENTS)
        {
            return Ok(());
        }
        let index = self.index(t)?;
        let path = t.path(index)?;
        let node = path.slot(path.level).and_then(|s| t.node(s));
        if node.is_none_or(|n| n.covers(pos)) {
            return Ok(());
        }
        self.settle_beside(t, index, pos, key.key_type == KeyType::DELETED)
    }

    #[cold]
    fn settle_beside(
        &mut self,
        t: &mut Attempt<'t>,
        index: u8,
        pos: Bpos,
        hole: bool,
    ) -> Result<(), TransError> {
        if let Some(path) = t.paths.get_mut(index) {
            path.hold = true;
        }
        let beside = match &self.beside {
            Some(path) => path.index(),
            None => {
                let Some(i) = t.paths.pick(t.live, self.btree, 0, pos, 1, t.locks) else {
                    return Err(t.restart(Reason::TooManyPaths));
                };
                self.beside = Some(t.live.claim(i));
                i
            }
        };
        let mut at = pos;
        while let Next::Key(_, key) = self.next_in(t, beside, at)? {
            if !key.pos.eq_nosnap(pos) {
                break;
            }
            let gone = key.key_type == KeyType::DELETED;
            if !gone && t.btree.sees(pos.snapshot, key.pos.snapshot) {
                // The nearest one: it may be why nothing is seen.
                if hole && key.key_type == KeyType::WHITEOUT {
                    break;
                }
                return Err(t.restart(Reason::RelockPathIntent));
            }
            match key.pos.successor() {
                Some(next) => at = next,
                None => break,
            }
            if t.path(beside)?
                .slot(0)
                .and_then(|s| t.node(s))
                .is_none_or(|n| !n.covers(at))
            {
                break;
            }
        }
        // Back to where the change goes, in the same node.
        t.traverse(beside, pos, 0)?;
        if let Some(path) = t.paths.get_mut(beside) {
            path.hold = true;
        }
        Ok(())
    }

    /// Before a change: what was returned last is still so, and stays so until the commit.
    pub(super) fn keep(&self, t: &mut Attempt<'_>) -> Result<(), TransError> {
        match &self.path {
            Some(path) => t.keep(path.index()),
            None => Err(t.restart(Reason::TooManyPaths)),
        }
    }

    /// Notes that `key` is being returned, which makes the attempt depend on it.
    #[inline]
    fn returned(&mut self, t: &mut Attempt<'t>, key: Bkey) {
        self.last = Some(key);
        self.looked(t);
    }

    /// Notes that what was found, be it nothing, is what the attempt depends on.
    #[inline]
    fn looked(&self, t: &mut Attempt<'t>) {
        if let Some(path) = self.path.as_ref().and_then(|p| t.paths.get_mut(p.index())) {
            path.hold = true;
        }
    }

    /// The key at `place`, borrowed.
    #[inline]
    fn key_at<'a>(
        &'a self,
        t: &'a Attempt<'t>,
        place: Place<'t>,
        key: Bkey,
    ) -> Result<Option<KeyRef<'a>>, TransError> {
        let value = t.value_at(place, &key)?;
        Ok(Some(KeyRef { key, value }))
    }

    /// The node that the position is in, at the level the iterator was made for. `None` if the tree is not that high.
    pub(super) fn peek_node<'a>(
        &'a mut self,
        t: &'a mut Attempt<'t>,
    ) -> Result<Option<(&'a NodeHead, &'a NodeData)>, TransError> {
        let index = self.index(t)?;
        let Some(slot) = t.traverse(index, self.pos, self.ahead())? else {
            return Ok(None);
        };
        Ok(t.head(slot).zip(t.node(slot)))
    }

    /// Brings the root into memory.
    pub(super) fn read_root(&mut self, t: &mut Attempt<'t>) -> Result<(), TransError> {
        let index = self.index(t)?;
        t.traverse_root(index)
    }

    /// The slot at the position, for one look.
    pub(super) fn into_slot<'a>(
        mut self,
        t: &'a mut Attempt<'t>,
    ) -> Result<Option<KeyRef<'a>>, TransError>
    where
        't: 'a,
    {
        let Some((place, key)) = self.find_slot(t)? else {
            return Ok(None);
        };
        // What a transaction changes may depend on it.
        self.returned(t, key);
        if key.key_type.is_whiteout() {
            return Ok(None);
        }
        let value = t.value_at(place, &key)?;
        Ok(Some(KeyRef { key, value }))
    }
}
