// SPDX-License-Identifier: GPL-2.0
//! Memory put aside for nodes.
//!
//! To make room in the journal or in memory, nodes must be changed and new ones made, which takes memory.

use super::Cache;
use crate::{
    btree::node::{NodeMem, Shape},
    util::error::{Error, Result},
};
use kernel::{alloc::Flags, prelude::*};

/// Nodes for which there is memory.
const NODES: usize = 4;

impl Cache {
    /// Puts memory aside. May sleep.
    pub fn fill_reserve(&self, shape: Shape) -> Result {
        let room = KVec::with_capacity(NODES, GFP_KERNEL)?;
        let old = core::mem::replace(&mut *self.memory.lock(), room);
        drop(old);
        for _ in 0..NODES {
            self.put_memory(NodeMem::new(shape, GFP_KERNEL)?);
        }
        Ok(())
    }

    /// Memory for a node: allocated with `flags`, or from what was put aside.
    pub fn node_memory(&self, shape: Shape, flags: Flags) -> Result<NodeMem> {
        if let Ok(mem) = NodeMem::new(shape, flags | __GFP_NOWARN) {
            return Ok(mem);
        }
        self.memory.lock().pop().ok_or(Error::NoMem)
    }

    /// Whether less is put aside than should be.
    pub(super) fn wants_memory(&self) -> bool {
        let memory = self.memory.lock();
        memory.len() < memory.capacity()
    }

    /// Puts memory of a node aside, unless there is enough.
    pub fn put_memory(&self, mem: NodeMem) {
        // Dropped after the lock, if there was no room.
        let left = self.memory.lock().push_within_capacity(mem);
        drop(left);
    }
}
