// SPDX-License-Identifier: GPL-2.0
//! A change of shape, from the moment it can be seen in memory until it is durable.
//!
//! ```text
//! Draft --publish--> Update (visible) --writes of the new nodes end--> Written --commit--> Committed --finish--> gone
//! ```
//!
//! A [`super::draft::Draft`] belongs to the transaction that makes it and leaves nothing behind when it is dropped. Published, it is
//! shared: what has been fixed by then does not change any more, the rest is counted in atomics or kept in
//! the list ([`super::list`]), with its lock. The later stages are types that only the stage before can be turned into, so
//! that nothing is journalled before the new nodes are durable, and nothing old is let go of before that is
//! journalled.

use crate::{
    btree::{
        node::{Node, PtrKey},
        space::OpenBuckets,
    },
    journal::engine::{Pin, PinKind},
    util::error::Result,
};
use bcachefs_format::{btree_node::BTREE_MAX_DEPTH, BtreeId};
use core::fmt;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed, Release},
        Arc, UniqueArc,
    },
};

/// Nodes that one update makes at most: two at each level, and a root.
pub(super) const NEW_MAX: usize = 2 * BTREE_MAX_DEPTH as usize + 1;
/// Nodes that one update replaces at most.
pub(super) const OLD_MAX: usize = 2 * BTREE_MAX_DEPTH as usize;
/// Changes of pointers that one update makes at most: two that are put and one that is deleted at each level.
pub(super) const EDITS_MAX: usize = 3 * BTREE_MAX_DEPTH as usize;
/// Words of the records of all these, and of that of a root.
pub(super) const RECORDS_U64S: usize = (EDITS_MAX + 1) * (1 + crate::btree::node::head::PTR_U64S_MAX);

/// What an update is for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum What {
    /// Two nodes instead of one.
    Split,
    /// One with more room.
    Compact,
    /// One instead of two.
    Merge,
    /// The same somewhere else.
    Rewrite,
    /// The only child of a root becomes the root.
    Shrink,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Split => "split",
            What::Compact => "compact",
            What::Merge => "merge",
            What::Rewrite => "rewrite",
            What::Shrink => "shrink",
        }
    }
}

/// A node that is replaced.
pub(super) struct Old {
    /// The node, without its keys.
    pub node: Arc<Node>,
    /// The key that pointed to it.
    pub ptr: PtrKey,
}

/// A node that takes its place.
pub(super) struct New {
    /// The node.
    pub node: Arc<Node>,
    /// The key that points to it.
    pub ptr: PtrKey,
    /// Devices, by bit, whose copy could not be written.
    failed: Atomic<u64>,
    /// Keeps the place until the pointer to it is in the journal.
    _open: OpenBuckets,
}

impl New {
    /// One.
    pub(super) fn about_to_be_written(node: Arc<Node>, ptr: PtrKey, open: OpenBuckets) -> Self {
        New {
            node,
            ptr,
            failed: Atomic::new(0),
            _open: open,
        }
    }

    /// The devices whose copy could not be written.
    pub(super) fn failed_devices(&self) -> impl Iterator<Item = u8> {
        let bits = self.failed.load(Relaxed);
        (0..64u8).filter(move |dev| bits & (1 << dev) != 0)
    }
}

/// See the module's description.
pub(super) struct Update {
    /// Number; later ones are higher.
    pub id: u64,
    /// The btree.
    pub btree: BtreeId,
    /// Level of the lowest nodes replaced.
    pub level: u8,
    /// What for.
    pub what: What,
    /// What is replaced.
    pub old: KVec<Old>,
    /// By what.
    pub new: KVec<New>,
    /// The journal's records of the change.
    pub records: KVec<u64>,
    /// Levels, by bit, at which the records have keys.
    pub levels: u8,
    /// Holds what the old nodes had not written.
    pub pin: Arc<Pin>,
    /// First writes that have not ended, and one as long as the update is being published.
    pending: Atomic<u32>,
    /// A node could not be written at all.
    failed: Atomic<u32>,
}

impl Update {
    /// An update with room for everything, so that publishing it needs no memory. May sleep.
    pub(super) fn new(id: u64, btree: BtreeId, level: u8, what: What) -> Result<UniqueArc<Self>> {
        Ok(UniqueArc::new(
            Update {
                id,
                btree,
                level,
                what,
                old: KVec::with_capacity(OLD_MAX, GFP_KERNEL)?,
                new: KVec::with_capacity(NEW_MAX, GFP_KERNEL)?,
                records: KVec::from_elem(0, RECORDS_U64S, GFP_KERNEL)?,
                levels: 0,
                // It ends by itself: whoever looks for the node of this pin finds none.
                pin: Pin::new(PinKind::Btree, 0, GFP_KERNEL)?,
                pending: Atomic::new(1),
                failed: Atomic::new(0),
            },
            GFP_KERNEL,
        )?)
    }

    /// Counts one more write that has to end.
    pub(super) fn expect_write(&self) {
        self.pending.add(1u32, Relaxed);
    }

    /// A write has ended, or the update has been published. Whether nothing is left to wait for.
    pub(super) fn ended(&self) -> bool {
        self.pending.fetch_sub(1u32, Full) == 1
    }

    /// Whether nothing is left to wait for.
    pub(super) fn is_written(&self) -> bool {
        self.pending.load(Acquire) == 0
    }

    /// Notes that a new node could not be written.
    pub(super) fn fail(&self) {
        self.failed.store(1, Release);
    }

    /// Whether a new node could not be written.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Acquire) != 0
    }

    /// Whether `node` is one of the new ones. If it is, notes that its copies on `failed` devices could not be written.
    pub(super) fn note_written(&self, node: &Arc<Node>, failed: &[u8]) -> bool {
        let Some(new) = self.new.iter().find(|n| Arc::ptr_eq(&n.node, node)) else {
            return false;
        };
        // A node is written for the first time once.
        let bits = failed.iter().fold(0, |bits, dev| bits | 1u64 << (dev & 63));
        new.failed.store(bits, Relaxed);
        true
    }
}

impl fmt::Display for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} btree {} level {} old {} new {} unwritten {}",
            self.id,
            self.what.name(),
            self.btree,
            self.level,
            self.old.len(),
            self.new.len(),
            self.pending.load(Relaxed)
        )?;
        match self.pin.seq() {
            Some(seq) => write!(f, " pins {seq}"),
            None => Ok(()),
        }
    }
}
