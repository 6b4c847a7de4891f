// SPDX-License-Identifier: GPL-2.0
//! From a node to its child.

use crate::btree::{
    node::{NodeData, PtrKey},
    Btree,
};
use bcachefs_format::{Bpos, BtreeId, KeyRef, KeyType};

/// Children of a node to the right of the one looked for, to be read ahead.
pub(super) const AHEAD_MAX: usize = 4;

/// The keys of children found in a node.
pub(super) struct Children {
    /// The child that covers the position.
    pub child: PtrKey,
    /// The ones after it.
    pub ahead: [Option<PtrKey>; AHEAD_MAX],
}

/// Copies a pointer to a node; `None` for any other key.
fn as_ptr(k: KeyRef<'_>) -> Option<PtrKey> {
    k.key
        .key_type
        .is_btree_ptr()
        .then(|| PtrKey::new(k))
        .flatten()
}

impl Btree {
    /// The pointers to the child of `node` that covers `pos` and to up to `ahead` children after it. Keys of the journal
    /// come first. `None` if there is no such child, which is an error in the tree.
    pub(super) fn children(
        &self,
        node: &NodeData,
        btree: BtreeId,
        level: u8,
        pos: Bpos,
        ahead: usize,
    ) -> Option<Children> {
        let mut found = Children {
            child: as_ptr(self.child_from(node, btree, level, pos)?)?,
            ahead: [const { None }; AHEAD_MAX],
        };
        let mut last = found.child.get().key.pos;
        for next in found.ahead.iter_mut().take(ahead) {
            let from = last.successor().filter(|p| *p <= node.max());
            let Some(k) = from.and_then(|p| self.child_from(node, btree, level, p)) else {
                break;
            };
            last = k.key.pos;
            *next = as_ptr(k);
        }
        Some(found)
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
            let in_journal = keys
                .get(keys.lower_bound(pos))
                .filter(|k| k.key.pos <= node.max());
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
