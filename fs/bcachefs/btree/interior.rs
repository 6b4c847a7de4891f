// SPDX-License-Identifier: GPL-2.0
//! Changes of the shape of btrees: new nodes in the place of old ones, and roots.
//!
//! Nodes on disk are appended to, and never overwritten: whatever needs more than that, a node that is full above all, takes new
//! nodes. They are made and written first, then one entry of the journal makes them reachable, then the old ones are
//! let go. A crash leaves the tree as it was before that entry, or as it is after it.
//!
//! | part | what |
//! |---|---|
//! | [`replace`] | from a wish to what lookups find |
//! | [`way`] | the way to a node, locked for intent |
//! | [`plan`] | which nodes are replaced, by how many |
//! | [`reserve`] | what new nodes need, got before anything is locked |
//! | [`draft`] | making new nodes, and putting them in place |
//! | [`update`], [`list`] | updates that can be seen and are not durable yet |
//! | [`finish`] | making them durable, one after the other |
//! | [`merge`] | smaller trees |
//! | [`pointer`] | changing the pointer to a node that stays |
//!
//! # Rules
//!
//! - Nothing waits for memory, the allocator or the journal with a node locked.
//! - A node whose pointers are not in the journal yet is not written (`WRITE_BLOCKED`).
//! - A node that nothing durable points to yet is written once (`WILL_MAKE_REACHABLE`).
//! - All pointers that change are in the journal, also those in nodes that are new themselves: the journal may still have older ones
//!   for the same places.

mod draft;
mod finish;
mod list;
mod merge;
mod plan;
mod pointer;
mod replace;
mod reserve;
mod update;
mod way;

use super::{
    node::{Flag, Node},
    trans::{update::CommitFlags, Attempt, Reason, TransError},
    Btree,
};
use crate::util::error::{Error, Result};
use bcachefs_format::{jset::build::EntryWriter, Bpos, BtreeId};
use core::fmt;
use kernel::{
    c_str,
    prelude::*,
    sync::{Arc, SetOnce},
};
use kfs::work::{Job, Kind, WorkQueue};
use list::Updates;
use plan::{Goal, Wish};
use replace::Replaced;
use reserve::Places;

/// What changing the shape of btrees keeps.
#[pin_data]
pub(super) struct Interior {
    #[pin]
    updates: Updates,
    #[pin]
    places: Places,
    /// Finishes updates, once there can be any.
    job: SetOnce<Pin<KBox<Job<Btree>>>>,
}

impl Interior {
    /// Without updates. May sleep.
    pub(super) fn new() -> Result<Pin<KBox<Self>>> {
        let places = Places::new()?;
        Ok(KBox::pin_init(
            pin_init!(Self {
                updates <- Updates::new(),
                places <- places,
                job: SetOnce::new(),
            }),
            GFP_KERNEL,
        )?)
    }
}

impl Interior {
    /// Asks for the finishing of updates.
    fn kick(&self) {
        if let Some(job) = self.job.as_ref() {
            job.kick();
        }
    }

    /// Lets go of what is left when the btrees are shut down: nothing, unless writing has failed.
    pub(super) fn stop(&self) {
        if let Some(job) = self.job.as_ref() {
            job.stop();
        }
        self.updates.clear();
        self.places.clear();
    }
}

impl fmt::Display for Interior {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.updates.fmt(f)?;
        self.places.fmt(f)
    }
}

impl Btree {
    /// Makes room in the node that `path` (an index into the transaction's paths) ends in: splits it, or writes it anew. A stand-in
    /// for an empty root gets a real node. Gives up all locks and paths; sleeps; ends in a restart or an error.
    ///
    /// With `journal_reclaim` and a watermark below `Reclaim` it does not wait for room but fails with
    /// [`Error::WouldDeadlock`].
    pub fn split_leaf(
        &self,
        t: &mut Attempt<'_>,
        path: u8,
        flags: CommitFlags,
    ) -> core::result::Result<(), TransError> {
        let p = t.path(path)?;
        let (btree, level, pos) = (p.btree, p.level, p.pos);
        let Some(head) = p.slot(level).and_then(|slot| t.head(slot)) else {
            return Err(t.restart(Reason::Relock));
        };
        let goal = Goal {
            btree,
            level,
            pos,
            hash: head.hash,
            wish: Wish::Room,
        };
        self.replace(t, &goal, &flags)?;
        Err(t.restart(Reason::Split))
    }

    /// Writes the node of `btree` at `level` that `pos` is in, and that is cached under `hash`, to another place. Whether it was
    /// there. Sleeps; no locks held.
    pub fn rewrite_node(
        &self,
        btree: BtreeId,
        level: u8,
        pos: Bpos,
        hash: u64,
        flags: CommitFlags,
    ) -> Result<bool> {
        let goal = Goal {
            btree,
            level,
            pos,
            hash,
            wish: Wish::Rewrite,
        };
        let writers = &self.engine()?.writers;
        let _writer = match flags.no_check_rw {
            false => Some(writers.get().ok_or(Error::ReadOnly)?),
            true => None,
        };
        let replaced = self.run(|t| self.replace(t, &goal, &flags))?;
        Ok(replaced == Replaced::Done)
    }

    /// The first write of a new node has ended; copies on `failed` devices are missing, possibly all. Process context; does not
    /// sleep.
    pub fn new_node_written(&self, node: &Arc<Node>, failed: &[u8]) {
        let lost = node.shared().has(Flag::NEVER_WRITE);
        if self.interior.updates.node_written(node, failed, lost) {
            self.interior.kick();
        }
    }

    /// Waits until all changes of shape have been finished; whether there were any. Sleeps.
    pub fn flush_interior(&self) -> Result<bool> {
        Ok(self.interior.updates.wait_idle())
    }

    /// From now on shapes can change. The btrees must be shut down for their memory to be freed after that.
    pub(super) fn start_interior(self: &Arc<Self>) -> Result {
        let queue = WorkQueue::new(c_str!("bcachefs-interior"), Kind::UnboundUrgent)?;
        let queue = Arc::new(queue, GFP_KERNEL)?;
        let job = KBox::pin_init(Job::new(queue, finish::run), GFP_KERNEL)?;
        job.start(self.clone());
        match self.interior.job.populate(job) {
            true => Ok(()),
            false => Err(Error::BtreeWriting),
        }
    }

    /// Gives back the places for nodes that are kept in reserve, when writing ends: after [`Btree::flush_interior`], before the
    /// allocator is stopped.
    pub fn stop_interior(&self) {
        self.interior.places.clear();
    }

    /// Writes records of all roots, as they are now. Only with nothing in flight is that what the journal would say.
    pub fn root_records(&self, out: &mut EntryWriter<'_>) -> Result {
        self.roots.records(out).map_err(|_| Error::SuperFull)
    }

    /// Changes of shape in flight.
    pub fn show_updates(&self) -> impl fmt::Display + '_ {
        ShowUpdates(&self.interior)
    }
}

struct ShowUpdates<'a>(&'a Interior);

impl fmt::Display for ShowUpdates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
