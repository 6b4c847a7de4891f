// SPDX-License-Identifier: GPL-2.0
//! Changing the shape of a btree, from the wish to what lookups find.

use super::{
    draft::Draft,
    plan::{Goal, Plan},
    reserve::NodeReserve,
    way::{Stop, Tried},
};
use crate::{
    btree::{
        trans::{update::CommitFlags, Attempt, Reason, TransError},
        Btree,
    },
    util::error::Error,
};

/// How often a change is tried before it is left to a restart. Each time something else got on.
const TRIES_MAX: u32 = 64;

/// What became of a wish.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Replaced {
    /// It is done.
    Done,
    /// The node is not there any more.
    Gone,
    /// There is nothing to do.
    Needless,
}

impl Btree {
    /// Does what `goal` asks for. Gives up all locks and paths of the attempt; sleeps.
    pub(super) fn replace(
        &self,
        t: &mut Attempt<'_>,
        goal: &Goal,
        flags: &CommitFlags,
    ) -> Result<Replaced, TransError> {
        let mut reserve = NodeReserve::new(self)?;
        let mut draft = None;
        t.forget_all();
        for _ in 0..TRIES_MAX {
            t.check()?;
            match self.try_replace(t, goal, flags, &mut draft, &mut reserve) {
                Ok(Got::Ended(replaced)) => {
                    t.forget_all();
                    return Ok(replaced);
                }
                Ok(Got::Needs(nodes)) => {
                    t.forget_all();
                    // Announced first, so that whoever ends the writing waits until what is reserved here has been given back.
                    if draft.is_none() {
                        draft = Some(Draft::begin(self, goal)?);
                    }
                    if self.engine()?.journal.failed() {
                        return Err(Error::JournalFailed.into());
                    }
                    reserve.ensure(t, nodes, flags)?;
                }
                Err(Stop::Obstacle(obstacle)) => self.overcome(t, goal.btree, obstacle)?,
                Err(Stop::Trans(e)) => return Err(e),
            }
        }
        Err(t.restart(Reason::NodeReused))
    }

    /// One try, with what has been reserved so far. Apart from [`Btree::replace`], so that what it has on the stack is not there while
    /// something is reserved.
    #[inline(never)]
    fn try_replace<'b>(
        &'b self,
        t: &mut Attempt<'_>,
        goal: &Goal,
        flags: &CommitFlags,
        draft: &mut Option<Draft<'b>>,
        reserve: &mut NodeReserve<'b>,
    ) -> Tried<Got> {
        let Some(way) = self.lock_way(t, goal.btree, goal.level, goal.pos)? else {
            return Ok(Got::Ended(Replaced::Gone));
        };
        if way.at(goal.level)?.node.shared().hash != goal.hash {
            return Ok(Got::Ended(Replaced::Gone));
        }
        let mut plan = Plan::new(goal, flags);
        if !self.plan(t, goal, &way, &mut plan)? {
            return Ok(Got::Ended(Replaced::Needless));
        }
        // One try uses a draft up, whatever comes of it.
        let Some(mut draft) = draft.take().filter(|_| reserve.len() >= plan.nodes()) else {
            return Ok(Got::Needs(plan.nodes()));
        };
        draft.fill(t, goal, &plan, reserve)?;
        t.check()?;
        draft.publish(t, &plan, reserve)?;
        Ok(Got::Ended(Replaced::Done))
    }
}

/// How far one try got.
enum Got {
    /// To an end.
    Ended(Replaced),
    /// So many nodes have to be reserved.
    Needs(usize),
}
