// SPDX-License-Identifier: GPL-2.0
//! A tree of snapshots for tests: keys as they would be if a subvolume had been snapshotted again and again, without a subvolume. Snapshots
//! are known from the mount after the one they were made in.

use super::keys::{commit, SNAPSHOT};
use crate::{
    btree::{trans::update::UpdateFlags, Btree},
    util::error::{Error, Result},
};
use bcachefs_format::{
    bkey::BKEY_U64S,
    keys::{snapshot::Snapshot, snapshot_tree::SnapshotTree},
    Bkey, Bpos, BtreeId, KeyRef, KeyType,
};
use kernel::prelude::*;

/// Parent of each node, by index: two nodes at most have the same one.
const PARENTS: [Option<usize>; 9] = [
    None,
    Some(0),
    Some(0),
    Some(1),
    Some(1),
    Some(2),
    Some(3),
    Some(3),
    Some(6),
];
/// Number of the root; the others follow downwards.
const ROOT: u32 = u32::MAX - 4096;
/// Number of the tree.
const TREE: u32 = 4096;

/// One snapshot of those that a test may use.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Node {
    /// Its number.
    pub(super) id: u32,
    /// Index of its parent.
    pub(super) parent: Option<usize>,
    /// Distance from the root.
    pub(super) depth: u32,
}

/// The snapshots there are: a tree, if one has been made, else the usual one alone. Parents come before their children.
pub(super) fn nodes(btree: &Btree) -> Result<KVec<Node>> {
    let mut all = KVec::new();
    let root = Bpos::new(0, ROOT.into());
    let made = btree.run(|t| Ok(t.get(BtreeId::SNAPSHOTS, root)?.is_some()))?;
    if made {
        for (i, parent) in PARENTS.iter().enumerate() {
            all.push(node(i, *parent), GFP_KERNEL)?;
        }
    } else {
        let usual = Node {
            id: SNAPSHOT,
            parent: None,
            depth: 0,
        };
        all.push(usual, GFP_KERNEL)?;
    }
    Ok(all)
}

fn id(index: usize) -> u32 {
    ROOT - index as u32
}

fn node(index: usize, parent: Option<usize>) -> Node {
    Node {
        id: id(index),
        parent,
        depth: depth(Some(index)) - 1,
    }
}

/// Nodes from `index` to the root, both counted.
fn depth(mut index: Option<usize>) -> u32 {
    let mut n = 0;
    while let Some(i) = index {
        n += 1;
        index = PARENTS.get(i).copied().flatten();
    }
    n
}

fn snapshot(index: usize) -> Snapshot {
    let parent = PARENTS.get(index).copied().flatten();
    let mut children = [0; 2];
    let own = PARENTS.iter().enumerate().filter(|c| *c.1 == Some(index));
    for (slot, (child, _)) in children.iter_mut().zip(own) {
        *slot = id(child);
    }
    // Any ancestors do: three times the parent.
    let above = parent.map_or(0, id);
    Snapshot {
        parent: above,
        children,
        tree: TREE,
        depth: depth(Some(index)) - 1,
        skip: [above; 3],
        ..Snapshot::default()
    }
}

/// A key of `words` words.
fn key(key_type: KeyType, number: u32, words: usize) -> Bkey {
    Bkey {
        u64s: BKEY_U64S + words as u8,
        key_type,
        pos: Bpos::new(0, number.into()),
        ..Bkey::default()
    }
}

fn snapshot_key(index: usize, room: &mut [u64]) -> Result<KeyRef<'_>> {
    let words = snapshot(index)
        .build(room)
        .map_err(|_| Error::BtreeKeyInvalid)?;
    Ok(KeyRef {
        key: key(KeyType::SNAPSHOT, id(index), words),
        value: room.get(..words).unwrap_or(&[]),
    })
}

fn tree_key(room: &mut [u64]) -> Result<KeyRef<'_>> {
    let tree = SnapshotTree {
        master_subvol: 0,
        root_snapshot: ROOT,
    };
    let words = tree.build(room).map_err(|_| Error::BtreeKeyInvalid)?;
    Ok(KeyRef {
        key: key(KeyType::SNAPSHOT_TREE, TREE, words),
        value: room.get(..words).unwrap_or(&[]),
    })
}

/// Makes the tree. Sleeps.
pub(super) fn make(btree: &Btree) -> Result {
    commit(btree, |t| {
        let mut room = [0; 16];
        let tree = tree_key(&mut room)?;
        t.insert(BtreeId::SNAPSHOT_TREES, tree, UpdateFlags::default())?;
        for index in 0..PARENTS.len() {
            let mut room = [0; 16];
            let snapshot = snapshot_key(index, &mut room)?;
            t.insert(BtreeId::SNAPSHOTS, snapshot, UpdateFlags::default())?;
        }
        Ok(())
    })?;
    pr_info!(
        "test: a tree of {} snapshots for the next mount\n",
        PARENTS.len()
    );
    Ok(())
}

/// Takes the tree away, which no key may be in any more. Sleeps.
pub(super) fn remove(btree: &Btree) -> Result {
    super::keys::clear(btree)?;
    commit(btree, |t| {
        for index in 0..PARENTS.len() {
            let pos = Bpos::new(0, id(index).into());
            t.delete(BtreeId::SNAPSHOTS, pos, UpdateFlags::default())?;
        }
        let pos = Bpos::new(0, TREE.into());
        t.delete(BtreeId::SNAPSHOT_TREES, pos, UpdateFlags::default())
    })?;
    Ok(())
}

/// The format's own validator accepts every key, and the table of snapshots is what the keys say.
#[cfg(bcachefs_kunit)]
pub(super) fn keys_are_valid() -> Result {
    use super::check;
    use crate::{btree::Ancestry, snapshots::SnapshotTable};

    let mut all = KVVec::new();
    for index in (0..PARENTS.len()).rev() {
        let mut room = [0; 16];
        let k = snapshot_key(index, &mut room)?;
        let found = Snapshot::parse(k).map_err(|_| Error::BtreeKeyInvalid)?;
        check!(found == snapshot(index));
        all.push((id(index), found), GFP_KERNEL)?;
    }
    let table = SnapshotTable::build(all)?;
    for (i, _) in PARENTS.iter().enumerate() {
        let mut above = KVec::new();
        let mut at = Some(i);
        while let Some(a) = at {
            above.push(a, GFP_KERNEL)?;
            at = PARENTS.get(a).copied().flatten();
        }
        for j in 0..PARENTS.len() {
            check!(table.is_ancestor(id(i), id(j)) == above.contains(&j));
        }
    }
    Ok(())
}
