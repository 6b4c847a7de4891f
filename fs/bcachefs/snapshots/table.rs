// SPDX-License-Identifier: GPL-2.0
//! The trees of snapshots, in memory.
//!
//! Whether one snapshot is above another is asked for nearly every key, so the answer must not need the btree. The table is an
//! array sorted by number. Every node knows its depth and the interval that a walk of its tree in depth-first order
//! gives its subtree; one snapshot is an ancestor of another exactly if its interval holds the other's. That takes two
//! look-ups and two comparisons, whatever the depth.
//!
//! # Invariants
//!
//! - Numbers are unique and ascending. Parents have higher numbers than their children, so no chain of parents is a cycle; a
//!   key that says otherwise has been refused.
//! - Intervals of nodes that are not related do not overlap.

use crate::{
    btree::{Ancestry, Btree, IterFlags},
    util::error::Result,
};
use bcachefs_format::{keys::snapshot::Snapshot, Bpos, BtreeId, KeyRef, KeyType};
use core::{fmt, ops::ControlFlow};
use kernel::{prelude::*, sync::Arc};

/// One snapshot.
#[derive(Copy, Clone, Debug)]
struct Entry {
    id: u32,
    snapshot: Snapshot,
    /// Interval of the subtree in the order of the walk, half open.
    enter: u32,
    leave: u32,
}

/// All snapshots of a filesystem. Does not change once built; may be used in any context.
pub struct SnapshotTable {
    entries: KVVec<Entry>,
}

/// The snapshot that a key describes, if it is in order.
fn parse(k: KeyRef<'_>) -> Option<(u32, Snapshot)> {
    let id = u32::try_from(k.key.pos.offset).ok()?;
    if k.key.key_type != KeyType::SNAPSHOT || k.key.pos.inode != 0 || id == 0 {
        return None;
    }
    Some((id, Snapshot::parse(k).ok()?))
}

impl SnapshotTable {
    /// Reads the btree of snapshots. Keys that break a rule are left out: nothing is seen through them. May sleep.
    pub fn read(btree: &Btree) -> Result<Arc<Self>> {
        let mut nodes: KVVec<(u32, Snapshot)> = KVVec::new();
        let mut from = Some(Bpos::POS_MIN);
        while let Some(start) = from {
            // Memory is got between the walks: nodes are locked during them.
            nodes.reserve(256, GFP_KERNEL)?;
            from = btree.walk(
                BtreeId::SNAPSHOTS,
                start,
                Bpos::POS_MAX,
                IterFlags::NONE,
                |k| {
                    if let Some((id, s)) = parse(k) {
                        if nodes.push_within_capacity((id, s)).is_err() {
                            return Ok(ControlFlow::Break(k.key.pos));
                        }
                    }
                    Ok(ControlFlow::Continue(()))
                },
            )?;
        }
        Ok(Arc::new(Self::build(nodes)?, GFP_KERNEL)?)
    }

    /// A table of the given snapshots, in ascending order of their numbers. May sleep.
    pub fn build(nodes: KVVec<(u32, Snapshot)>) -> Result<Self> {
        let n = nodes.len();
        let mut entries = KVVec::with_capacity(n, GFP_KERNEL)?;
        for (id, snapshot) in nodes {
            entries.push(
                Entry {
                    id,
                    snapshot,
                    enter: 0,
                    leave: 0,
                },
                GFP_KERNEL,
            )?;
        }
        let mut table = SnapshotTable { entries };
        table.number()?;
        Ok(table)
    }

    /// The parent of the node at `index`, if it names one that exists and comes after it.
    fn parent_of(&self, index: usize) -> Option<usize> {
        let e = self.entries.get(index)?;
        let parent = e.snapshot.parent;
        if parent <= e.id {
            return None;
        }
        self.index(parent)
    }

    /// Gives every node its interval, without recursion. Since parents have higher numbers, going down from the highest
    /// meets every node after its parent.
    fn number(&mut self) -> Result {
        let n = self.entries.len();
        // Sizes of subtrees, children before parents.
        let mut size: KVVec<u32> = KVVec::from_elem(1, n, GFP_KERNEL)?;
        for i in 0..n {
            let own = size.get(i).copied().unwrap_or(1);
            if let Some(s) = self.parent_of(i).and_then(|p| size.get_mut(p)) {
                *s = s.saturating_add(own);
            }
        }
        // Where the next child of each node begins; the last place is for the roots.
        let mut next: KVVec<u32> = KVVec::from_elem(0, n, GFP_KERNEL)?;
        let mut next_root = 0;
        for i in (0..n).rev() {
            let own = size.get(i).copied().unwrap_or(1);
            let place = match self.parent_of(i).and_then(|p| next.get_mut(p)) {
                Some(place) => place,
                None => &mut next_root,
            };
            let enter = *place;
            *place = enter.saturating_add(own);
            if let Some(first_child) = next.get_mut(i) {
                *first_child = enter.saturating_add(1);
            }
            if let Some(e) = self.entries.get_mut(i) {
                e.enter = enter;
                e.leave = enter.saturating_add(own);
            }
        }
        Ok(())
    }

    #[inline]
    fn index(&self, id: u32) -> Option<usize> {
        self.entries.binary_search_by_key(&id, |e| e.id).ok()
    }

    #[inline]
    fn entry(&self, id: u32) -> Option<&Entry> {
        self.entries.get(self.index(id)?)
    }

    /// The snapshot with number `id`.
    pub fn get(&self, id: u32) -> Option<&Snapshot> {
        self.entry(id).map(|e| &e.snapshot)
    }

    /// Whether `id` exists and has no children: only in such snapshots files are changed.
    pub fn is_leaf(&self, id: u32) -> bool {
        self.get(id).is_some_and(Snapshot::is_leaf)
    }

    /// Number of snapshots.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Ancestry for SnapshotTable {
    #[inline]
    fn is_ancestor(&self, id: u32, ancestor: u32) -> bool {
        if id == ancestor {
            return true;
        }
        if ancestor < id {
            return false;
        }
        match (self.entry(id), self.entry(ancestor)) {
            (Some(i), Some(a)) => a.enter <= i.enter && i.leave <= a.leave,
            _ => false,
        }
    }
}

impl fmt::Display for SnapshotTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for e in self.entries.iter() {
            writeln!(f, "{}: {}", e.id, e.snapshot)?;
        }
        Ok(())
    }
}
