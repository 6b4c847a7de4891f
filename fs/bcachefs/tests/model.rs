// SPDX-License-Identifier: GPL-2.0
//! Random operations on the btree, each checked against a model in memory.
//!
//! Every thread has an inode and a model of it ([`points`], [`ranges`]): what it reads has to be what it has written, whatever the others
//! do to the nodes meanwhile. Threads share nodes, so they are in each other's way all the time; restarts are injected on top, and nodes taken from
//! the cache.
//!
//! With a tree of snapshots ([`tree`]) what happens is what happens when a subvolume is snapshotted again and again: first
//! operations are on the root, then on its children, which inherit what the root has, and so on; whoever has children does not change any
//! more, but is still read.

mod ahead;
mod points;
mod ranges;
mod versions;

use super::{
    check,
    keys::{clear, clear_inodes, commit, inode_of, is_empty, Cookie, POINTS, RANGES},
    random::Random,
    tree,
};
use crate::{
    btree::{trans::update::UpdateFlags, Btree},
    util::{
        error::{Error, Result},
        threads,
    },
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};
use versions::Versions;

/// A transaction restarts by injection with this chance, at each place where it could.
const RESTART_ONE_IN: u32 = 200;
/// How everything is changed: what a snapshot got before it had children is written when it has them.
pub(super) const CHANGE: UpdateFlags = UpdateFlags {
    internal_snapshot: true,
    exact: false,
    no_triggers: false,
    bypass_key_cache: false,
    invalidate: false,
};
/// Operations between lines in the log, for all threads.
const REPORT: u64 = 1 << 18;

/// What a thread knows: what has to be in its inode.
pub(super) struct Model {
    pub(super) inode: u64,
    pub(super) points: Versions,
    pub(super) ranges: Versions,
    pub(super) random: Random,
    /// Makes values, so that no two are alike.
    next: u64,
    /// Keys, places and the like that operations need, allocated beforehand.
    pub(super) keys: KVVec<Cookie>,
}

/// Where an operation looks from, or changes something.
#[derive(Copy, Clone)]
pub(super) struct View {
    /// Index of the snapshot among the nodes of the tree.
    pub(super) node: usize,
    /// Its number.
    pub(super) snapshot: u32,
}

impl Model {
    fn new(thread: u32, seed: u64, nodes: &[tree::Node]) -> Result<Self> {
        Ok(Model {
            inode: inode_of(thread),
            points: Versions::new(nodes, points::PLACES)?,
            ranges: Versions::new(nodes, ranges::SECTORS)?,
            random: Random::new(seed, thread.into()),
            next: 1,
            keys: KVVec::with_capacity(ahead::KEYS_MAX, GFP_KERNEL)?,
        })
    }

    /// A value that nothing has had.
    pub(super) fn value(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// One operation: changes go to `new`, reading is done from `old`.
    fn step(&mut self, b: &Btree, new: View, old: View) -> Result {
        match self.random.below(100) {
            0..=24 => self.put_points(b, new),
            25..=34 => self.delete_point(b, new),
            35..=36 => self.delete_points(b, new),
            37..=46 => self.look_up_point(b, old),
            47..=52 => self.walk_points(b, old),
            53..=55 => self.walk_points_back(b, old),
            56..=57 => self.walk_point_slots(b, old),
            58..=75 => self.put_range(b, new),
            76..=79 => self.cut_hole(b, new),
            80..=81 => self.delete_ranges(b, new),
            82..=87 => self.look_up_sector(b, old),
            88..=92 => self.walk_ranges(b, old),
            93..=94 => self.walk_ranges_back(b, old),
            95..=96 => self.walk_range_slots(b, old),
            97..=98 => self.put_both(b, new),
            _ => self.disturb(b),
        }
    }

    /// Several points and a range in one transaction.
    fn put_both(&mut self, b: &Btree, view: View) -> Result {
        let (points, range) = (self.some_points(view)?, self.some_range(view));
        self.keys
            .push_within_capacity(range)
            .map_err(|_| Error::NoMem)?;
        let keys = &self.keys;
        commit(b, |t| {
            for (i, key) in keys.iter().enumerate() {
                let id = if i < points { POINTS } else { RANGES };
                t.insert(id, key.as_ref(), CHANGE)?;
            }
            Ok(())
        })?;
        self.note_points(view, points)?;
        self.note_range(view, range)
    }

    /// What is not an operation, but must not change anything either.
    fn disturb(&mut self, b: &Btree) -> Result {
        match self.random.below(8) {
            0 => {
                b.cache().cannibalise(self.random.below(64) as usize);
            }
            1 => {
                let journal = b.engine()?.journal.clone();
                journal.flush(journal.cur_seq().saturating_sub(1))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Everything, seen from one snapshot, both ways.
    fn verify(&mut self, b: &Btree, view: View) -> Result {
        self.verify_points(b, view)?;
        self.verify_ranges(b, view)
    }
}

/// Has `threads` threads do `ops` operations together. What is there of earlier tests is taken away before, and so is what this one made
/// afterwards. Sleeps.
pub(super) fn run(btree: &Arc<Btree>, ops: u64, threads: u32, seed: u64) -> Result {
    clear(btree)?;
    let nodes = Arc::new(tree::nodes(btree)?, GFP_KERNEL)?;
    let snapshots = nodes.len();
    btree.inject_restarts(seed | 1, RESTART_ONE_IN);
    let all = Arc::new(Atomic::<u64>::new(0), GFP_KERNEL)?;
    let each = (ops / u64::from(threads)).max(1);
    let b = btree.clone();
    let result = threads::run(threads, move |me| {
        job(&b, &mut Model::new(me, seed, &nodes)?, &nodes, each, &all)
    });
    btree.inject_restarts(0, 0);
    let nanos = result.inspect_err(|_| pr_err!("model_test: {threads} threads, seed {seed}: failed\n"))?;
    for id in [POINTS, RANGES] {
        check!(is_empty(btree, id, 0, super::keys::INODES)?);
    }
    let (done, secs) = (each * u64::from(threads), nanos / 1_000_000_000);
    pr_info!("model_test: {done} operations by {threads} threads on {snapshots} snapshots in {secs} s, seed {seed}: ok\n");
    Ok(())
}

fn job(
    b: &Arc<Btree>,
    model: &mut Model,
    nodes: &[tree::Node],
    ops: u64,
    all: &Atomic<u64>,
) -> Result {
    let depths = nodes.iter().map(|n| n.depth).max().unwrap_or(0) + 1;
    let each = (ops / u64::from(depths)).max(1);
    for depth in 0..depths {
        // Parents come first: those that may be read are the first ones, those that may be changed the last of them.
        let readable = nodes.iter().filter(|n| n.depth <= depth).count() as u64;
        let frozen = nodes.iter().filter(|n| n.depth < depth).count() as u64;
        let view = |node: u64| View {
            node: node as usize,
            snapshot: nodes.get(node as usize).map_or(0, |n| n.id),
        };
        for op in 0..each {
            let new = view(frozen + model.random.below(readable - frozen));
            let old = view(model.random.below(readable));
            if let Err(e) = model.step(b, new, old) {
                let (new, old) = (new.snapshot, old.snapshot);
                let why = e.text();
                pr_err!(
                    "model_test: operation {op} at depth {depth}, snapshots {new}, {old}: {why}\n"
                );
                return Err(e);
            }
            let n = all.fetch_add(1u64, Relaxed) + 1;
            if n % REPORT == 0 {
                pr_info!("model_test: {n} operations\n");
            }
        }
        for node in 0..readable {
            model.verify(b, view(node))?;
        }
    }
    for id in [POINTS, RANGES] {
        clear_inodes(b, id, model.inode, model.inode + 1)?;
    }
    Ok(())
}

/// The models against what they have to be, spelled out.
#[cfg(bcachefs_kunit)]
pub(super) fn models_are_right() -> Result {
    versions::is_right()
}
