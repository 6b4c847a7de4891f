// SPDX-License-Identifier: GPL-2.0
//! Btrees that grow and shrink, and what a crash at any moment leaves of them.

mod cached;
mod crash;
mod media;

pub(super) use cached::{limits, matches_model, tasks};
pub(super) use crash::{crashes, crashes_with_cache};

use super::{
    check,
    image::{self, Draw, Key},
};
use crate::{
    btree::{
        engine::Engine,
        source::NodeSource,
        trans::update::{CommitFlags, UpdateFlags},
        write::sink::NodeSink,
        Btree, IterFlags,
    },
    journal::{
        engine::Journal,
        start::{RootState, StartState},
        Blacklist, JournalKeys,
    },
    util::{
        error::{Error, Result},
        write_refs::WriteRefs,
    },
};
use bcachefs_format::{
    bkey::BKEY_U64S, keys::btree_ptr::BtreePtr, Bkey, Bpos, BtreeId, KeyRef, KeyType,
};
use core::ops::ControlFlow;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};
use media::{Census, Client, Counts, Media, Nodes, Port, Room};

/// Sectors of a node: few, so that there are many nodes.
const SECTORS: usize = 8;
/// The btree of these tests. Its keys are looked at one by one, whatever the snapshot.
const TREE: BtreeId = BtreeId::XATTRS;
const VIEW: IterFlags = IterFlags::ALL_SNAPSHOTS;
/// Buckets of the journal.
const BUCKETS: u32 = 64;
/// Sectors of one.
const BUCKET_SECTORS: u32 = 128;
/// What its entries start with.
const JSET_MAGIC: u64 = 0x1234_5678_9abc_def0;

/// What a filesystem starts from: nothing, or what a crash left. What nodes have of entries `lost` did not count.
fn start(
    root: Option<crate::journal::Root>,
    keys: JournalKeys,
    next_seq: u64,
    lost: Blacklist,
) -> Result<StartState> {
    let mut roots = KVec::new();
    let mut root = root;
    for id in 0..=BtreeId::MAX.0 {
        let state = match root.take_if(|_| id == TREE.0) {
            Some(root) => RootState::At(root),
            None => RootState::Absent,
        };
        roots.push(state, GFP_KERNEL)?;
    }
    Ok(StartState {
        roots,
        keys,
        blacklist: lost,
        key_version: 0,
        clocks: [0; 2],
        next_seq,
        replayed: None,
        rings: KVec::new(),
    })
}

fn mount(media: &Arc<Media>, mut start: StartState) -> Result<Arc<Btree>> {
    let source: KBox<dyn NodeSource> = KBox::new(Port(media.clone()), GFP_KERNEL)?;
    image::mount(source, SECTORS as u32, &mut start)
}

/// A filesystem that begins with nothing and can be written.
pub(super) struct Fs {
    pub(super) btree: Arc<Btree>,
    journal: Arc<Journal>,
    media: Arc<Media>,
    counts: Arc<Counts>,
    client: Arc<Client>,
}

impl Fs {
    pub(super) fn new(remember: bool) -> Result<Self> {
        let media = Media::new(Nodes::new(), remember)?;
        let btree = mount(&media, start(None, JournalKeys::empty(), 1, Blacklist::new(KVVec::new()))?)?;
        let client = Arc::new(Client(Atomic::new(0)), GFP_KERNEL)?;
        let notes = media.clone();
        let seen: Arc<dyn Fn(&[u64]) + Send + Sync> =
            Arc::new(move |words: &[u64]| notes.entry_written(words), GFP_KERNEL)?;
        let journal = Journal::in_memory(client.clone(), 1, BUCKETS, BUCKET_SECTORS, seen)?;
        let counts = Counts::new()?;
        let writers = Arc::new(WriteRefs::new()?, GFP_KERNEL)?;
        writers.start();
        let engine = Engine {
            journal: journal.clone(),
            triggers: Arc::new(Census(counts.clone()), GFP_KERNEL)?,
            space: Arc::new(Room(counts.clone()), GFP_KERNEL)?,
            writers,
        };
        let sink: KBox<dyn NodeSink> = KBox::new(Port(media.clone()), GFP_KERNEL)?;
        btree.start_writing_to(engine, sink)?;
        journal.start()?;
        Ok(Fs {
            btree,
            journal,
            media,
            counts,
            client,
        })
    }

    /// Commits exactly this key. The journal's entry.
    fn put(&self, key: KeyRef<'_>) -> Result<u64> {
        let flags = CommitFlags::default();
        let ((), done) = self.btree.commit(None, flags, |t| {
            t.update_node_key(TREE, 0, key, UpdateFlags::default())
        })?;
        Ok(done.seq)
    }

    /// Waits until everything that has begun has ended.
    fn settle(&self) -> Result {
        while self.btree.flush_interior()? | self.btree.flush_nodes()? {}
        Ok(())
    }

    /// Ends writing.
    pub(super) fn close(self) -> Result {
        self.settle()?;
        self.journal.flush_pins(u64::MAX)?;
        self.settle()?;
        self.btree.stop_interior();
        check!(self.client.0.load(Relaxed) == 0 && !self.journal.failed());
        self.journal.stop()?;
        self.btree.shutdown();
        self.journal.detach();
        Ok(())
    }

    /// Ends writing, and looks whether everything has been given back.
    fn end(self) -> Result {
        self.settle()?;
        self.journal.flush_pins(u64::MAX)?;
        self.settle()?;
        self.btree.stop_interior();
        let nodes = count_nodes(&self.btree)? as i64 * SECTORS as i64;
        let (open, reserved, used) = (
            self.counts.open.load(Relaxed),
            self.counts.reserved.load(Relaxed),
            self.counts.used.load(Relaxed),
        );
        pr_info!(
            "btree test: nodes {nodes} sectors, used {used} reserved {reserved} open {open}, waited {}\n",
            self.counts.waited.load(Relaxed)
        );
        check!(open == 0 && reserved == 0 && used == nodes);
        check!(self.client.0.load(Relaxed) == 0 && !self.journal.failed());
        check!(self.media.written.lock().wrong == 0);
        self.journal.stop()?;
        self.btree.shutdown();
        self.journal.detach();
        Ok(())
    }
}

fn position(n: u64) -> Bpos {
    Bpos::with_snapshot(1 + n / 512, n % 512, u32::MAX)
}

fn deleted(pos: Bpos) -> KeyRef<'static> {
    KeyRef {
        key: Bkey::deleted(pos),
        value: &[],
    }
}

/// Number of nodes.
fn count_nodes(b: &Btree) -> Result<u64> {
    let mut n = 0;
    for level in 0..4 {
        b.walk_nodes(TREE, level, |head, _| {
            n += u64::from(!head.has(crate::btree::node::Flag::FAKE));
            Ok(ControlFlow::<()>::Continue(()))
        })?;
    }
    Ok(n)
}

/// Checks that at each level nodes follow one another without a gap, from the first to the last position, and that each is
/// where the level above says. Returns the level of the root.
fn check_shape(b: &Btree) -> Result<u8> {
    let root = b.roots.level(TREE);
    let mut above: KVVec<(Bpos, Bpos)> = KVVec::new();
    for level in (0..=root).rev() {
        let mut next = Some(Bpos::POS_MIN);
        let mut at = 0;
        let mut below: KVVec<(Bpos, Bpos)> = KVVec::new();
        b.walk_nodes(TREE, level, |head, node| {
            check!(head.level == level && next == Some(node.min()) && node.max() == head.max());
            next = node.max().successor();
            if level != root {
                check!(above.get(at) == Some(&(node.min(), node.max())));
            }
            at += 1;
            if level > 0 {
                for k in node.iter() {
                    let min = BtreePtr::parse(k)?.min_key.ok_or(Error::BtreeTopology)?;
                    below.push((min, k.key.pos), GFP_KERNEL | __GFP_NOWARN)?;
                }
            }
            Ok(ControlFlow::<()>::Continue(()))
        })?;
        check!(next.is_none());
        check!(level == root || at == above.len());
        above = below;
    }
    Ok(root)
}

/// Checks that the btree holds exactly the keys `n` for which `value` has one.
fn check_keys(b: &Btree, keys: u64, value: impl Fn(u64) -> Option<u64>) -> Result {
    let mut n = 0;
    let mut next = || loop {
        if n >= keys {
            return None;
        }
        n += 1;
        if let Some(v) = value(n - 1) {
            return Some(Key::new(position(n - 1), v));
        }
    };
    b.walk(TREE, Bpos::POS_MIN, Bpos::SPOS_MAX, VIEW, |k| {
        let want = next();
        if want != Some(Key::of(k)) {
            pr_err!("btree test: found {:?}, not {want:?}\n", Key::of(k));
            return Err(Error::BtreeTopology);
        }
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    check!(next().is_none());
    Ok(())
}

/// The numbers below `n` in an order drawn from `seed`.
fn shuffled(n: u64, seed: u64) -> Result<KVVec<u64>> {
    let mut order = KVVec::with_capacity(n as usize, GFP_KERNEL)?;
    for i in 0..n {
        order.push(i, GFP_KERNEL)?;
    }
    let mut draw = Draw(seed);
    for i in (1..order.len()).rev() {
        order.swap(i, draw.below(i as u64 + 1) as usize);
    }
    Ok(order)
}

/// Grows a btree to three levels, changes it, and takes everything away again.
fn grow_and_shrink(keys: u64, seed: u64, restarts: u32) -> Result {
    let fs = Fs::new(false)?;
    fs.btree.inject_restarts(seed, restarts);
    let b = &fs.btree;
    for (i, &n) in shuffled(keys, seed)?.iter().enumerate() {
        fs.put(Key::new(position(n), n * 3).as_ref())?;
        if i % 4000 == 3999 {
            b.inject_restarts(0, 0);
            check_shape(b)?;
            b.inject_restarts(seed + i as u64, restarts);
        }
    }
    b.inject_restarts(0, 0);
    let root = check_shape(b)?;
    pr_info!("btree test: root at level {root}, {} nodes\n", count_nodes(b)?);
    check!(root == 2);
    check_keys(b, keys, |n| Some(n * 3))?;
    // Once more in order, with other values, while nodes are evicted and read again.
    b.inject_restarts(seed, restarts);
    for n in 0..keys {
        fs.put(Key::new(position(n), n * 5).as_ref())?;
        if n % 500 == 0 {
            b.cache().cannibalise(8);
        }
    }
    b.inject_restarts(0, 0);
    check_shape(b)?;
    check_keys(b, keys, |n| Some(n * 5))?;
    fs.settle()?;
    let nodes = count_nodes(b)?;
    b.inject_restarts(seed, restarts);
    for &n in shuffled(keys, seed + 1)?.iter() {
        fs.put(deleted(position(n)))?;
    }
    b.inject_restarts(0, 0);
    check_shape(b)?;
    check_keys(b, keys, |_| None)?;
    // The last levels go when the journal has nothing of them any more, and something is deleted.
    for n in 0..8 {
        fs.settle()?;
        fs.journal.flush_pins(u64::MAX)?;
        fs.settle()?;
        fs.journal.meta()?;
        fs.put(Key::new(position(n), n).as_ref())?;
        fs.put(deleted(position(n)))?;
    }
    let left = count_nodes(b)?;
    pr_info!("btree test: {nodes} nodes, then {left}, root at level {}\n", b.roots.level(TREE));
    check!(check_shape(b)? == 0 && left == 1);
    check_keys(b, keys, |_| None)?;
    fs.end()
}

pub(super) fn grows_and_shrinks() -> Result {
    grow_and_shrink(16000, 5, 0)
}

pub(super) fn with_restarts() -> Result {
    grow_and_shrink(16000, 6, 40)
}

/// A long key: few of them fill a node.
struct Long {
    value: [u64; LONG_U64S],
}

const LONG_U64S: usize = 150;

impl Long {
    /// An extended attribute, `n` in its name and value.
    fn new(n: u64) -> Self {
        let bytes = 8 * LONG_U64S as u64 - 5;
        let mut value = [n; LONG_U64S];
        if let Some(head) = value.first_mut() {
            *head = 1 << 8 | bytes << 16 | u64::from(b'a') << 32 | n << 40;
        }
        Long { value }
    }

    fn at(&self, pos: Bpos) -> KeyRef<'_> {
        let key = Bkey {
            u64s: BKEY_U64S + LONG_U64S as u8,
            key_type: KeyType::XATTR,
            ..Bkey::deleted(pos)
        };
        KeyRef {
            key,
            value: &self.value,
        }
    }
}

/// A btree that is as deep as can be, and full: what does not fit is refused, and that is all.
pub(super) fn fills() -> Result {
    let fs = Fs::new(false)?;
    let b = &fs.btree;
    let (mut there, mut refused) = (KVVec::new(), 0);
    for &n in shuffled(60_000, 9)?.iter() {
        match fs.put(Long::new(n).at(position(n))) {
            Ok(_) => there.push(n, GFP_KERNEL)?,
            Err(Error::BtreeTooDeep) => refused += 1,
            Err(e) => return Err(e),
        }
        if refused >= 400 {
            break;
        }
    }
    fs.settle()?;
    check!(b.roots.level(TREE) == 3 && refused >= 400);
    check!(check_shape(b)? == 3);
    pr_info!("btree test: full with {} keys, {} nodes\n", there.len(), count_nodes(b)?);
    check!(!fs.journal.failed());
    // Changing and deleting may take dividing a leaf, too, which is refused then; the pointers to all nodes change all the while.
    let tried = |result: Result<u64>| match result {
        Ok(_) => Ok(1),
        Err(Error::BtreeTooDeep) => Ok(0),
        Err(e) => Err(e),
    };
    let (mut changed, mut gone, mut again) = (0, 0, 0);
    for round in 1..=2 {
        for &n in there.iter() {
            changed += tried(fs.put(Long::new(n + round).at(position(n))))?;
        }
        fs.settle()?;
        fs.journal.flush_pins(u64::MAX)?;
    }
    check!(!fs.journal.failed() && check_shape(b)? == 3);
    for &n in there.iter() {
        gone += tried(fs.put(deleted(position(n))))?;
    }
    // Then there is room.
    for &n in there.iter().take(100) {
        again += tried(fs.put(Long::new(n).at(position(n))))?;
    }
    pr_info!("btree test: {changed} changed, {gone} deleted, {again} of 100 put back\n");
    check!(changed > 0 && gone > there.len() / 4 && again > 50);
    check_shape(b)?;
    fs.end()
}

/// Nodes that are written anew say the same.
pub(super) fn rewrites() -> Result {
    let fs = Fs::new(false)?;
    let keys = 2000;
    for n in 0..keys {
        fs.put(Key::new(position(n), n).as_ref())?;
    }
    for level in [0, 1] {
        let mut at = Some(Bpos::POS_MIN);
        while let Some(pos) = at {
            let found = fs.btree.walk_nodes_from(TREE, level, pos, |head, node| {
                Ok(ControlFlow::Break((head.hash, node.max())))
            })?;
            let Some((hash, max)) = found else { break };
            check!(fs.btree.rewrite_node(TREE, level, pos, hash, CommitFlags::default())?);
            // It is another node now.
            check!(!fs.btree.rewrite_node(TREE, level, pos, hash, CommitFlags::default())?);
            at = max.successor();
        }
    }
    check!(check_shape(&fs.btree)? >= 1);
    check_keys(&fs.btree, keys, Some)?;
    fs.end()
}
