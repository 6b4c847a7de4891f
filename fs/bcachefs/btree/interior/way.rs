// SPDX-License-Identifier: GPL-2.0
//! The way from a root down to the node that is to be replaced, locked for intent.
//!
//! With intent held on a node nobody else changes its keys, so the nodes on the way stay each other's parents until the locks are
//! released. Whatever keeps a step from being made at once ends the try as an [`Obstacle`], which is dealt with after all
//! locks have been released.

use crate::{
    btree::{
        node::{hash_key, Flag, Node, NodeData, PtrKey},
        roots::Root,
        trans::{Attempt, Reason, TransError},
        Btree, Iter, IterFlags,
    },
    util::error::Error,
};
use bcachefs_format::{btree_node::BTREE_MAX_DEPTH, Bpos, BtreeId, Invalid};
use kernel::{prelude::*, sync::Arc};
use kfs::sync::six::{Mode, Slot};

/// What has to be done before another try.
pub(super) enum Obstacle {
    /// Nothing: something has changed meanwhile.
    Again,
    /// A node has to be read.
    NotCached {
        /// Its level.
        level: u8,
        /// A position in it.
        pos: Bpos,
    },
    /// A node is being read.
    Reading(Arc<Node>),
    /// A node lacks memory for changes.
    NoMemory(Arc<Node>),
}

/// Result of a part of a try.
pub(super) type Tried<T = ()> = core::result::Result<T, Stop>;

/// Why a try has ended early.
pub(super) enum Stop {
    /// It can be made again.
    Obstacle(Obstacle),
    /// The attempt is over.
    Trans(TransError),
}

impl From<TransError> for Stop {
    fn from(e: TransError) -> Self {
        Stop::Trans(e)
    }
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Stop::Trans(e.into())
    }
}

impl From<Invalid> for Stop {
    fn from(e: Invalid) -> Self {
        Stop::Trans(e.into())
    }
}

impl From<Obstacle> for Stop {
    fn from(o: Obstacle) -> Self {
        Stop::Obstacle(o)
    }
}

/// A locked node.
#[derive(Clone)]
pub(super) struct Held {
    /// Where in the attempt's set of locks.
    pub slot: Slot,
    /// The node.
    pub node: Arc<Node>,
}

/// Locked nodes, from that of the lowest level up to the root.
pub(super) struct Way {
    nodes: [Option<Held>; BTREE_MAX_DEPTH as usize],
    /// Level of the root.
    pub root: u8,
}

impl Way {
    /// The node at `level`.
    pub(super) fn at(&self, level: u8) -> Result<&Held, Error> {
        self.nodes
            .get(usize::from(level))
            .and_then(|n| n.as_ref())
            .ok_or(Error::BtreeTopology)
    }

    fn set(&mut self, level: u8, held: Held) {
        if let Some(n) = self.nodes.get_mut(usize::from(level)) {
            *n = Some(held);
        }
    }
}

impl<'t> Attempt<'t> {
    /// Gives up all locks, and forgets all paths and what was to be committed. Nothing found before can be used after this; the
    /// attempt must end in a restart, or with what made it forget.
    pub(in crate::btree) fn forget_all(&mut self) {
        // The allocator must not see it as if it had happened.
        self.pending.reset();
        self.paths.clear(self.locks);
        self.locks.clear();
        self.keys.clear();
    }

    /// Locks `node`. May sleep.
    pub(super) fn hold(&mut self, node: &Arc<Node>, mode: Mode) -> Tried<Held> {
        let slot = match self.locks.reference(node) {
            Ok(slot) => slot,
            Err(e) => return Err(self.restart(e.into()).into()),
        };
        self.raise(slot, mode)?;
        let head = node.shared();
        if head.has(Flag::DEAD) {
            return Err(Obstacle::Again.into());
        }
        head.touch();
        Ok(Held {
            slot,
            node: node.clone(),
        })
    }

    /// Raises what is held of a lock. May sleep.
    pub(super) fn raise(&mut self, slot: Slot, mode: Mode) -> Tried {
        match self.locks.lock_beside(slot, mode, &self.keys.locks) {
            Ok(()) => Ok(()),
            Err(e) => Err(self.restart(e.into()).into()),
        }
    }

    /// The keys of a node that is held.
    pub(super) fn keys_of(&self, held: &Held) -> Result<&NodeData, Error> {
        self.locks.get(held.slot).ok_or(Error::BtreeTopology)
    }
}

impl Btree {
    /// Locks the way to the node of `btree` at `level` that `pos` is in. `None`: the tree is not that high. May sleep.
    #[inline(never)]
    pub(super) fn lock_way(
        &self,
        t: &mut Attempt<'_>,
        btree: BtreeId,
        level: u8,
        pos: Bpos,
    ) -> Tried<Option<Way>> {
        let root = match self.roots.get(btree) {
            Root::Node(node) => node,
            Root::OnDisk(..) => return Err(Obstacle::NotCached { level, pos }.into()),
            Root::Lost => return Err(Error::BtreeRootMissing.into()),
        };
        let mut at = root.shared().level;
        if at < level {
            return Ok(None);
        }
        let held = t.hold(&root, Mode::Intent)?;
        if !self.roots.is_root(btree, &root) {
            return Err(Obstacle::Again.into());
        }
        let mut way = Way {
            nodes: [const { None }; BTREE_MAX_DEPTH as usize],
            root: at,
        };
        way.set(at, held);
        while at > level {
            let child = self.lock_child(t, way.at(at)?, pos)?;
            at -= 1;
            way.set(at, child);
        }
        Ok(Some(way))
    }

    /// Locks the child of `parent` that `pos` is in for intent. May sleep.
    #[inline(never)]
    pub(super) fn lock_child(
        &self,
        t: &mut Attempt<'_>,
        parent: &Held,
        pos: Bpos,
    ) -> Tried<Held> {
        let head = parent.node.shared();
        let (btree, above) = (head.btree, head.level);
        let Some(below) = above.checked_sub(1) else {
            return Err(Error::BtreeTopology.into());
        };
        let data = t.keys_of(parent)?;
        let Some(ptr) = self.child_at(data, btree, above, pos) else {
            self.fill.report(format_args!(
                "btree {btree} level {above} node up to {}: no child for {pos}",
                head.max()
            ));
            return Err(Error::BtreeTopology.into());
        };
        let Some(node) = self.fill.cache.get(hash_key(&ptr)?) else {
            return Err(Obstacle::NotCached { level: below, pos }.into());
        };
        if !node.shared().has(Flag::READ_DONE) {
            return Err(Obstacle::Reading(node).into());
        }
        if let Some(e) = node.shared().error() {
            return Err(e.into());
        }
        self.check_child(&node, btree, below, &ptr)?;
        t.hold(&node, Mode::Intent)
    }

    /// Checks that `node` is what `ptr` means.
    fn check_child(
        &self,
        node: &Arc<Node>,
        btree: BtreeId,
        level: u8,
        ptr: &PtrKey,
    ) -> Result<(), Error> {
        let head = node.shared();
        let max = ptr.get().key.pos;
        if head.btree == btree && head.level == level && head.max() == max {
            return Ok(());
        }
        self.fill.report(format_args!(
            "btree {btree} level {level} node up to {max}: the same node is also {head}"
        ));
        Err(Error::BtreeTopology)
    }

    /// Words that can still be put into a node that is held for intent. May sleep.
    pub(super) fn room_in(
        &self,
        t: &mut Attempt<'_>,
        held: &Held,
        want: usize,
    ) -> Tried<usize> {
        let room = t.keys_of(held)?.room();
        if room >= want {
            return Ok(room);
        }
        // It may only be that it has not been changed since it was read or written.
        t.raise(held.slot, Mode::Write)?;
        let room = self.prepare_held(t, held);
        t.locks.downgrade(held.slot, Mode::Intent);
        room
    }

    /// Gets a node that is held for write ready for changes; the words that can be put into it. Does not sleep.
    pub(super) fn prepare_held(&self, t: &mut Attempt<'_>, held: &Held) -> Tried<usize> {
        let Some(data) = t.locks.get_mut(held.slot) else {
            return Err(Error::BtreeTopology.into());
        };
        match self.prepare(&held.node, data, GFP_NOWAIT | __GFP_NOWARN) {
            Ok(()) => Ok(data.room()),
            Err(_) => Err(Obstacle::NoMemory(held.node.clone()).into()),
        }
    }

    /// Removes an obstacle. Gives up all locks and paths; sleeps.
    pub(super) fn overcome(
        &self,
        t: &mut Attempt<'_>,
        btree: BtreeId,
        obstacle: Obstacle,
    ) -> Result<(), TransError> {
        t.forget_all();
        match obstacle {
            Obstacle::Again => {}
            Obstacle::NotCached { level, pos } => {
                let mut iter = Iter::new(t, btree, level, pos, IterFlags::NONE);
                iter.peek_node(t)?;
                drop(iter);
                t.forget_all();
            }
            Obstacle::Reading(node) => {
                node.shared().wait_read();
                match node.shared().error() {
                    Some(Error::NoMem) => return Err(t.restart(Reason::FillMemory)),
                    Some(e) => return Err(e.into()),
                    None => {}
                }
            }
            Obstacle::NoMemory(node) => self.provide(&node)?,
        }
        Ok(())
    }
}
