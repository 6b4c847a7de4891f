// SPDX-License-Identifier: GPL-2.0
//! Making btrees smaller again: nodes with their neighbours, and roots with one child.
//!
//! Whether it is worth looking is decided by bounds that each node keeps for both sides. They come down as keys go, and are set
//! right whenever the two nodes are looked at. All of this may be left for another time: when there is no room for new
//! nodes, say, the bound is put up a little, and what wanted to commit goes on.

use super::{
    plan::{Goal, Wish},
    replace::Replaced,
};
use crate::{
    btree::{
        node::{shape, Flag, NodeHead, Sibling},
        trans::{update::CommitFlags, Attempt, Reason, TransError},
        Btree, Iter, IterFlags,
    },
    util::{error::Error, watermark::Watermark},
};
use bcachefs_format::{btree_node::BTREE_MAX_DEPTH, Bpos, BtreeId};

/// What merging is done with on behalf of a commit with `flags`.
fn merge_flags(flags: &CommitFlags) -> CommitFlags {
    let mut merging = *flags;
    // Less is used when it is done.
    merging.no_enospc = true;
    if flags.watermark <= Watermark::Reclaim {
        merging.watermark = flags.watermark.max(Watermark::Btree);
        merging.journal_reclaim = true;
    }
    merging
}

/// The side on which the node has a neighbour that may be small enough, by what the node knows.
fn candidate(head: &NodeHead, max_u64s: usize) -> Option<Sibling> {
    let small = |side: &Sibling| {
        head.sibling(*side)
            .is_some_and(|n| shape::wants_merge(n as usize, max_u64s))
    };
    [Sibling::Prev, Sibling::Next].into_iter().find(small)
}

impl Btree {
    /// Merges the node that `path` ends in with a neighbour, if they would be a small node together, and so on upwards. If there is
    /// nothing to do that is found out without giving up any lock; else it sleeps and ends in a restart.
    pub fn maybe_merge(
        &self,
        t: &mut Attempt<'_>,
        path: u8,
        flags: CommitFlags,
    ) -> Result<(), TransError> {
        if flags.watermark >= Watermark::InteriorUpdates || self.engine().is_err() {
            return Ok(());
        }
        let p = t.path(path)?;
        let (btree, level, pos) = (p.btree, p.level, p.pos);
        let Some(slot) = p.slot(level) else {
            return Ok(());
        };
        let (Some(head), Some(data)) = (t.head(slot), t.node(slot)) else {
            return Ok(());
        };
        // Looking whether the root can go waits for the journal.
        let shrinks = !flags.journal_reclaim && self.may_shrink(btree);
        if !shrinks && candidate(head, data.max_u64s()).is_none() {
            return Ok(());
        }
        let flags = merge_flags(&flags);
        t.forget_all();
        self.merge_up(t, btree, level, pos, &flags)?;
        if shrinks {
            self.shrink(t, btree, &flags)?;
        }
        Err(t.restart(Reason::Merge))
    }

    /// Merges nodes at `pos` from `level` upwards as long as there is something to merge.
    fn merge_up(
        &self,
        t: &mut Attempt<'_>,
        btree: BtreeId,
        mut level: u8,
        pos: Bpos,
        flags: &CommitFlags,
    ) -> Result<(), TransError> {
        while level < BTREE_MAX_DEPTH {
            let Some((hash, side)) = self.merge_candidate(t, btree, level, pos)? else {
                return Ok(());
            };
            let goal = Goal {
                btree,
                level,
                pos,
                hash,
                wish: Wish::Merge(side),
            };
            match self.replace(t, &goal, flags) {
                // The node above has one less now.
                Ok(Replaced::Done) => {
                    level += 1;
                    if self.roots.level(btree) == level {
                        self.roots.set_lone(btree, true);
                    }
                }
                Ok(Replaced::Needless) => {}
                Ok(Replaced::Gone) => return Ok(()),
                Err(TransError::Fs(e)) => return self.merge_failed(&goal, side, e),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The node at `pos` and the side on which it may be merged.
    fn merge_candidate(
        &self,
        t: &mut Attempt<'_>,
        btree: BtreeId,
        level: u8,
        pos: Bpos,
    ) -> Result<Option<(u64, Sibling)>, TransError> {
        t.forget_all();
        let mut iter = Iter::new(t, btree, level, pos, IterFlags::NONE);
        let found = iter.peek_node(t)?;
        Ok(found.and_then(|(head, data)| {
            if head.has(Flag::FAKE) {
                return None;
            }
            Some((head.hash, candidate(head, data.max_u64s())?))
        }))
    }

    /// Merging did not work out. It need not, unless the filesystem has failed.
    fn merge_failed(&self, goal: &Goal, side: Sibling, e: Error) -> Result<(), TransError> {
        let failed = match self.engine() {
            Ok(engine) => engine.journal.failed(),
            Err(_) => true,
        };
        if failed {
            return Err(e.into());
        }
        // Not again before more has gone.
        if let Some(node) = self.fill.cache.get(goal.hash) {
            let u64s = self.shape().u64s();
            let bound = u64s / 3 + u64s / 12;
            node.shared().set_sibling(side, Some(bound as u32));
        }
        Ok(())
    }

    /// Whether it is worth looking if the root can go: it may have one child only, and nothing that it was told is in the part of
    /// the journal that recovery would go through. There would be nowhere to put that.
    fn may_shrink(&self, btree: BtreeId) -> bool {
        let (true, Ok(engine)) = (self.roots.is_lone(btree), self.engine()) else {
            return false;
        };
        let level = self.roots.level(btree);
        level > 0 && self.roots.last_change(btree, level) < engine.journal.last_seq()
    }

    /// Makes the only child of the root the root.
    fn shrink(
        &self,
        t: &mut Attempt<'_>,
        btree: BtreeId,
        flags: &CommitFlags,
    ) -> Result<(), TransError> {
        // Before the look, so that a child that goes right after it is not overlooked.
        self.roots.set_lone(btree, false);
        let Some((hash, level)) = self.lone_root(t, btree)? else {
            return Ok(());
        };
        self.roots.set_lone(btree, true);
        // What recovery would start from must be on disk, too.
        t.forget_all();
        let journal = &self.engine()?.journal;
        journal.flush(journal.cur_seq())?;
        let goal = Goal {
            btree,
            level,
            pos: Bpos::POS_MIN,
            hash,
            wish: Wish::Shrink,
        };
        match self.replace(t, &goal, flags) {
            Ok(_) | Err(TransError::Fs(Error::WouldDeadlock)) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// The root, if it has one child only: what it is cached under, and its level.
    fn lone_root(
        &self,
        t: &mut Attempt<'_>,
        btree: BtreeId,
    ) -> Result<Option<(u64, u8)>, TransError> {
        t.forget_all();
        let level = self.roots.level(btree);
        let mut iter = Iter::new(t, btree, level, Bpos::POS_MIN, IterFlags::NONE);
        let Some((head, data)) = iter.peek_node(t)? else {
            return Ok(None);
        };
        let child = self.child_at(data, btree, level, Bpos::POS_MIN);
        let lone = level > 0 && child.is_some_and(|c| c.get().key.pos == Bpos::SPOS_MAX);
        Ok((lone && self.roots.hash(btree) == Some(head.hash)).then_some((head.hash, level)))
    }
}
