// SPDX-License-Identifier: GPL-2.0
//! Transactions that change something, against arrays of what should be seen.

mod buffered;
mod grow;
mod holes;
mod index;
mod points;
mod ranges;
mod tasks;

pub(super) use buffered::buffered;
pub(super) use grow::grow;
pub(super) use holes::holes;
pub(super) use index::triggers;
pub(super) use points::points;
pub(super) use ranges::{merged, ranges};
pub(super) use tasks::tasks;

use super::{
    image::{Image, Key},
    memory::{Endless, Memory, NoTriggers, Sink},
};
use crate::{
    btree::{triggers::Triggers, Ancestry, Btree},
    journal::JournalKeys,
    snapshots::SnapshotTable,
    util::error::Result,
};
use bcachefs_format::{keys::snapshot::Snapshot, BtreeId};
use kernel::{
    prelude::*,
    sync::{atomic::Relaxed, Arc},
};

/// Snapshots: who is whose parent. Only 60, 70 and 80 have no children.
const TREE: [(u32, u32); 5] = [(60, 90), (70, 90), (80, 100), (90, 100), (100, 0)];
/// Those that change.
const LEAVES: [u32; 3] = [60, 70, 80];

/// Whether keys of `ancestor` are seen from `id`.
fn sees(mut id: u32, ancestor: u32) -> bool {
    while id != 0 {
        if id == ancestor {
            return true;
        }
        id = TREE.iter().find(|t| t.0 == id).map_or(0, |t| t.1);
    }
    false
}

fn snapshots() -> Result<Arc<SnapshotTable>> {
    let mut nodes = KVVec::new();
    for (id, parent) in TREE {
        let mut s = Snapshot {
            parent,
            ..Snapshot::default()
        };
        let children = TREE.iter().filter(|t| t.1 == id);
        for (child, (to, _)) in s.children.iter_mut().zip(children) {
            *child = *to;
        }
        nodes.push((id, s), GFP_KERNEL)?;
    }
    SnapshotTable::build(nodes)
}

/// Btrees with these keys, which can be changed. The journal is full one in `full_one_in` times.
fn btrees(
    trees: &[(BtreeId, &[Key])],
    full_one_in: u64,
    triggers: Option<Arc<dyn Triggers>>,
) -> Result<Arc<Btree>> {
    let mut image = Image::sound();
    let mut roots = KVec::new();
    for (id, keys) in trees {
        roots.push((*id, image.tree(*id, keys)?), GFP_KERNEL)?;
    }
    let b = image.mount_all(roots, JournalKeys::empty())?;
    b.set_ancestry(snapshots()?);
    let none: Arc<dyn Triggers> = Arc::new(NoTriggers, GFP_KERNEL)?;
    let space = Arc::new(Endless, GFP_KERNEL)?;
    let memory = Memory::new(full_one_in, triggers.unwrap_or(none), space);
    b.memory.populate(memory);
    Ok(b)
}

/// What the journal has to say at the end.
fn journal_is_right(b: &Btree) -> bool {
    b.memory.as_ref().is_some_and(|m| {
        m.wrong.load(Relaxed) == 0 && m.halted.load(Relaxed) == 0 && m.keys.load(Relaxed) != 0
    })
}

/// Empty btrees of one leaf each, which can be changed; `sink` gets what goes to the write buffer.
pub(crate) fn scratch(
    ids: impl Iterator<Item = BtreeId>,
    ancestry: Arc<dyn Ancestry>,
    triggers: Arc<dyn Triggers>,
    sink: Arc<dyn Sink>,
) -> Result<Arc<Btree>> {
    let mut image = Image::new();
    let mut roots = KVec::new();
    for id in ids {
        roots.push((id, image.tree(id, &[])?), GFP_KERNEL)?;
    }
    let b = image.mount_all(roots, JournalKeys::empty())?;
    b.set_ancestry(ancestry);
    let memory = Memory::new(7, triggers, Arc::new(Endless, GFP_KERNEL)?);
    memory.sink.populate(sink);
    b.memory.populate(memory);
    Ok(b)
}
