// SPDX-License-Identifier: GPL-2.0
//! From a node to its child.

use crate::btree::{
    node::{NodeData, PtrKey},
    Btree,
};
use bcachefs_format::{Bpos, BtreeId, KeyRef, KeyType};

/// Children of a node to the right of the one looked for, to be read ahead.
pub(super) const AHEAD_MAX: usize = 4;

/// Copies a pointer to a node; `None` for any other key.
fn as_ptr(k: KeyRef<'_>) -> Option<PtrKey> {
    k.key
        .key_type
        .is_btree_ptr()
        .then(|| PtrKey::new(k))
        .flatten()
}

impl Btree {
    /// The pointer to the child of `node` that comes after the one that ends at `end`; keys of the journal come first.
    pub(super) fn child_after(
        &self,
        node: &NodeData,
        btree: BtreeId,
        level: u8,
        end: Bpos,
    ) -> Option<PtrKey> {
        let from = end.successor().filter(|p| *p <= node.max())?;
        as_ptr(self.child_from(node, btree, level, from)?)
    }

    /// The pointer to the child of `node` that covers `pos`; keys of the journal come first. `None` if there is no such child, which
    /// is an error in the tree.
    pub(in crate::btree) fn child_at(
        &self,
        node: &NodeData,
        btree: BtreeId,
        level: u8,
        pos: Bpos,
    ) -> Option<PtrKey> {
        as_ptr(self.child_from(node, btree, level, pos)?)
    }

    /// The first pointer at or after `pos` in `node`, as the journal has it.
    fn child_from<'a>(
        &'a self,
        node: &'a NodeData,
        btree: BtreeId,
        level: u8,
        mut pos: Bpos,
    ) -> Option<KeyRef<'a>> {
        let overlay = self.overlay(btree, level);
        loop {
            let mut cursor = node.seek(pos);
            let in_node = cursor
                .peek_live(node)
                .map(|found| found.key.unpack(node.format()));
            let Some(keys) = overlay else {
                return in_node;
            };
            let in_journal = keys.first_from(pos, node.max());
            match (in_node, in_journal) {
                (Some(n), Some(j)) if n.key.pos < j.key.pos => return Some(n),
                (n, None) => return n,
                (_, Some(j)) if j.key.key_type != KeyType::DELETED => return Some(j),
                // Deleted since: on to what is behind it.
                (_, Some(j)) => pos = j.key.pos.successor()?,
            }
        }
    }
}
