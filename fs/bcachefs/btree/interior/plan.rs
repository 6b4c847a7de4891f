// SPDX-License-Identifier: GPL-2.0
//! What a change of shape comes to: which nodes are replaced, by how many, and where that ends.
//!
//! New nodes mean new pointers in the node above. If that has no room it is replaced, too, and so on, at most up to the root;
//! when that becomes two nodes, there is a new root above them.
//!
//! A btree has only so many levels, and when it is full what wants more room is refused. But the pointers that it has must still be
//! changed, as nodes are written, and for that it is enough to write a node with pointers anew as long as it is not too full. So none
//! becomes too full by new pointers: it is divided before, though they would fit. The root of the last level that there can be takes a
//! few more pointers for those who make room than it does for others.

use super::{
    update::What,
    way::{Held, Obstacle, Tried, Way},
};
use crate::{
    btree::{
        node::{
            head::PTR_U64S_MAX,
            shape, Flag, Sibling,
        },
        trans::{update::CommitFlags, Attempt},
        Btree,
    },
    util::{error::Error, watermark::Watermark},
};
use bcachefs_format::{bkey::BKEY_U64S, btree_node::BTREE_MAX_DEPTH, Bpos, BtreeId};
use kfs::sync::six::Mode;

/// Words of a pointer that is put into a node.
const PUT_U64S: usize = PTR_U64S_MAX;
/// Words that the root of a btree that cannot become deeper keeps for those who make room.
const KEPT_U64S: usize = 4 * PUT_U64S;
/// Words of a pointer that is deleted.
const DELETE_U64S: usize = BKEY_U64S as usize;

/// What is wanted.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    /// Room in a node.
    Room,
    /// The node somewhere else.
    Rewrite,
    /// One node instead of it and a neighbour, if they are small.
    Merge(Sibling),
    /// One level less, if the root has only one child.
    Shrink,
}

/// Which node it is about.
#[derive(Copy, Clone, Debug)]
pub(super) struct Goal {
    /// The btree.
    pub btree: BtreeId,
    /// Level of the node.
    pub level: u8,
    /// A position in it.
    pub pos: Bpos,
    /// What it is cached under: another node that is there now is not meant.
    pub hash: u64,
    /// What is wanted.
    pub wish: Wish,
}

/// What happens at one level.
#[derive(Default)]
pub(super) struct Step {
    /// The nodes replaced, from left to right.
    pub old: [Option<Held>; 2],
    /// By how many.
    pub makes: usize,
}

/// What happens to the root.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum RootChange {
    /// Nothing.
    Keep,
    /// The topmost new node takes its place.
    Replace,
    /// There is another level above the two new nodes that replace it.
    Grow,
}

/// See the module's description.
pub(super) struct Plan {
    /// By level.
    pub steps: [Step; BTREE_MAX_DEPTH as usize],
    /// Lowest level that changes.
    pub lowest: u8,
    /// Highest level at which nodes are replaced.
    pub highest: u8,
    /// The node above that, which takes the new pointers.
    pub parent: Option<Held>,
    /// Words that it takes.
    pub parent_u64s: usize,
    /// What happens to the root.
    pub root: RootChange,
    /// What to call it.
    pub what: What,
    /// It is for those who make room.
    urgent: bool,
}

impl Plan {
    /// Nothing yet, at the level of `goal`, on behalf of a commit with `flags`.
    pub(super) fn new(goal: &Goal, flags: &CommitFlags) -> Self {
        Plan {
            steps: Default::default(),
            lowest: goal.level,
            highest: goal.level,
            parent: None,
            parent_u64s: 0,
            root: RootChange::Keep,
            what: What::Compact,
            urgent: flags.watermark > Watermark::Normal || flags.journal_reclaim,
        }
    }

    /// Nodes that have to be made.
    pub(super) fn nodes(&self) -> usize {
        let made: usize = self.steps.iter().map(|s| s.makes).sum();
        made + usize::from(self.root == RootChange::Grow)
    }

    /// All nodes that are replaced, the highest first.
    pub(super) fn old(&self) -> impl Iterator<Item = &Held> {
        self.steps.iter().rev().flat_map(|s| s.old.iter().flatten())
    }

    fn step(&mut self, level: u8) -> Result<&mut Step, Error> {
        self.steps
            .get_mut(usize::from(level))
            .ok_or(Error::BtreeTopology)
    }
}

impl Btree {
    /// Plans what `goal` asks for, on the locked `way`, in the empty `plan`. False: there is nothing to do. May sleep, for locks.
    #[inline(never)]
    pub(super) fn plan(
        &self,
        t: &mut Attempt<'_>,
        goal: &Goal,
        way: &Way,
        plan: &mut Plan,
    ) -> Tried<bool> {
        match goal.wish {
            Wish::Room | Wish::Rewrite => self.plan_replace(t, goal, way, plan)?,
            Wish::Merge(side) => {
                if !self.plan_merge(t, goal, way, side, plan)? {
                    return Ok(false);
                }
            }
            Wish::Shrink => return self.plan_shrink(t, goal, way, plan),
        }
        self.plan_above(t, way, plan)?;
        Ok(true)
    }

    #[inline(never)]
    fn plan_replace(
        &self,
        t: &Attempt<'_>,
        goal: &Goal,
        way: &Way,
        plan: &mut Plan,
    ) -> Tried {
        let held = way.at(goal.level)?;
        let data = t.keys_of(held)?;
        let fake = held.node.shared().has(Flag::FAKE);
        let (what, makes) = match goal.wish {
            Wish::Rewrite => (What::Rewrite, 1),
            _ if !fake && data.wants_split() => (What::Split, 2),
            _ => (What::Compact, 1),
        };
        plan.what = what;
        plan.parent_u64s = makes * PUT_U64S;
        *plan.step(goal.level)? = Step {
            old: [Some(held.clone()), None],
            makes,
        };
        Ok(())
    }

    /// Whether the node of `goal` is to become one with its neighbour. Notes what is known of the two otherwise.
    #[inline(never)]
    fn plan_merge(
        &self,
        t: &mut Attempt<'_>,
        goal: &Goal,
        way: &Way,
        side: Sibling,
        plan: &mut Plan,
    ) -> Tried<bool> {
        let held = way.at(goal.level)?.clone();
        let head = held.node.shared();
        let beyond = match side {
            Sibling::Prev => t.keys_of(&held)?.min().predecessor(),
            Sibling::Next => t.keys_of(&held)?.max().successor(),
        };
        let parent = if goal.level < way.root {
            Some(way.at(goal.level + 1)?)
        } else {
            None
        };
        let Some((parent, beyond)) = parent.zip(beyond) else {
            head.set_sibling(side, None);
            return Ok(false);
        };
        if !t.keys_of(parent)?.covers(beyond) {
            head.set_sibling(side, None);
            return Ok(false);
        }
        let other = self.lock_child(t, parent, beyond)?;
        let (left, right) = match side {
            Sibling::Prev => (other, held),
            Sibling::Next => (held, other),
        };
        let (a, b) = (t.keys_of(&left)?, t.keys_of(&right)?);
        if a.max().successor() != Some(b.min()) {
            self.fill.report(format_args!(
                "btree {} level {}: a node ends at {}, the next starts at {}",
                goal.btree,
                goal.level,
                a.max(),
                b.min()
            ));
            return Err(Error::BtreeTopology.into());
        }
        let (merged, max) = (shape::merged_u64s(a, b), a.max_u64s());
        if !shape::wants_merge(merged, max) {
            let bound = Some(shape::estimate(merged, max));
            left.node.shared().set_sibling(Sibling::Next, bound);
            right.node.shared().set_sibling(Sibling::Prev, bound);
            return Ok(false);
        }
        plan.what = What::Merge;
        plan.parent_u64s = PUT_U64S + DELETE_U64S;
        *plan.step(goal.level)? = Step {
            old: [Some(left), Some(right)],
            makes: 1,
        };
        Ok(true)
    }

    /// Whether the root, which `goal` is about, has one child only.
    #[inline(never)]
    fn plan_shrink(
        &self,
        t: &mut Attempt<'_>,
        goal: &Goal,
        way: &Way,
        plan: &mut Plan,
    ) -> Tried<bool> {
        let root = way.at(goal.level)?.clone();
        let Some(below) = goal.level.checked_sub(1).filter(|_| goal.level == way.root) else {
            return Ok(false);
        };
        let child = self.lock_child(t, &root, Bpos::POS_MIN)?;
        let data = t.keys_of(&child)?;
        if data.min() != Bpos::POS_MIN || data.max() != Bpos::SPOS_MAX {
            return Ok(false);
        }
        plan.what = What::Shrink;
        plan.lowest = below;
        plan.root = RootChange::Replace;
        *plan.step(below)? = Step {
            old: [Some(child), None],
            makes: 1,
        };
        *plan.step(goal.level)? = Step {
            old: [Some(root), None],
            makes: 0,
        };
        Ok(true)
    }

    /// Follows the new pointers up to a node that has room for them.
    #[inline(never)]
    fn plan_above(&self, t: &mut Attempt<'_>, way: &Way, plan: &mut Plan) -> Tried {
        while plan.highest < way.root {
            let level = plan.highest + 1;
            let held = way.at(level)?;
            let want = plan.parent_u64s;
            // Pointers beyond those that are replaced.
            let below = plan.step(plan.highest)?;
            let more = below.makes.saturating_sub(below.old.iter().flatten().count());
            let data = t.keys_of(held)?;
            let live = data.live_u64s() + more * PUT_U64S;
            let full = more > 0 && data.too_full(live);
            let last = level == way.root && level + 1 >= BTREE_MAX_DEPTH;
            if last && more > 0 && !plan.urgent && data.too_full(live + KEPT_U64S) {
                return Err(Error::BtreeTooDeep.into());
            }
            let rewrite = held.node.shared().has(Flag::NEED_REWRITE);
            // Nodes of few blocks are always too full.
            let room = !full || data.too_full(0);
            if !rewrite && room && self.room_in(t, held, want)? >= want {
                plan.parent = Some(held.clone());
                return Ok(());
            }
            let makes = if full || t.keys_of(held)?.too_full(live) { 2 } else { 1 };
            plan.highest = level;
            plan.parent_u64s = makes * PUT_U64S;
            *plan.step(level)? = Step {
                old: [Some(held.clone()), None],
                makes,
            };
        }
        let makes = plan.step(plan.highest)?.makes;
        plan.parent_u64s = 0;
        plan.root = if makes == 1 { RootChange::Replace } else { RootChange::Grow };
        if plan.root == RootChange::Grow && way.root + 1 >= BTREE_MAX_DEPTH {
            return Err(Error::BtreeTooDeep.into());
        }
        Ok(())
    }

    /// Locks everything that `plan` changes for write, the highest first, and makes the parent ready. May sleep.
    pub(super) fn lock_planned(&self, t: &mut Attempt<'_>, plan: &Plan) -> Tried {
        if let Some(parent) = &plan.parent {
            t.raise(parent.slot, Mode::Write)?;
            // It may have been written since it was planned, and have less room.
            if self.prepare_held(t, parent)? < plan.parent_u64s {
                return Err(Obstacle::Again.into());
            }
        }
        for held in plan.old() {
            t.raise(held.slot, Mode::Write)?;
        }
        Ok(())
    }
}
