// SPDX-License-Identifier: GPL-2.0
//! Memory for nodes that are changed.
//!
//! A node that is only read takes as much memory as its keys. The first change gives it as much as the node has room on disk, so
//! that no change needs memory. It comes as a [`NodeMem`], which is got before locks are taken, or without waiting.

use super::{data::NodeData, index::Index, set::Finder, table::Table};
use bcachefs_format::btree_node::SECTOR_U64S;
use kernel::{alloc::AllocError, prelude::*};

/// Sizes that all nodes of a filesystem share.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Shape {
    /// Sectors of a node.
    pub node_sectors: u32,
    /// Sectors of a block, in which nodes are written. Not zero.
    pub block_sectors: u16,
}

impl Shape {
    /// Words of a node on disk.
    #[inline]
    pub fn u64s(&self) -> usize {
        self.node_sectors as usize * SECTOR_U64S
    }

    /// `u64s` words rounded up to whole blocks, in sectors.
    #[inline]
    pub fn sectors(&self, u64s: usize) -> u32 {
        let block = usize::from(self.block_sectors.max(1)) * SECTOR_U64S;
        (u64s.div_ceil(block) * block / SECTOR_U64S) as u32
    }
}

/// Memory for one node: for its keys, and for finding them.
pub struct NodeMem {
    /// As many words as a node has on disk.
    pub(super) words: KVVec<u64>,
    /// Room for the search tree of all keys.
    pub(super) index: Index,
    /// Room for the table of the open set.
    pub(super) table: Table,
}

impl NodeMem {
    /// Memory for a node. Allocates with `flags`.
    pub fn new(shape: Shape, flags: kernel::alloc::Flags) -> Result<Self, AllocError> {
        let n = shape.u64s();
        Ok(NodeMem {
            words: KVVec::from_elem(0, n, flags)?,
            index: Index::with_room(n, flags)?,
            table: Table::new(flags)?,
        })
    }
}

impl NodeData {
    /// Takes the memory of a node that is no more; `None` if it was never changed, and all is freed. The keys are gone.
    pub(in crate::btree) fn take_memory(&mut self) -> Option<NodeMem> {
        let writable = self.is_writable();
        let words = core::mem::take(&mut self.words);
        let mut index = self.index.take();
        let mut table = self.table.take();
        for set in self.sets.iter_mut().filter_map(|s| s.take()) {
            match set.finder {
                Finder::Tree(tree) if index.is_none() => index = Some(tree),
                Finder::Table(t) => table = Some(t),
                Finder::Tree(_) => {}
            }
        }
        Some(NodeMem {
            words: Some(words).filter(|_| writable)?,
            index: index.map(Index::emptied).unwrap_or_default(),
            table: table?,
        })
    }
}

/// A node cannot be changed before it has got memory: give up all locks, call [`crate::btree::Btree::provide`], begin again.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct NeedMemory;
