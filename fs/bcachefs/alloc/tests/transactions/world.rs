// SPDX-License-Identifier: GPL-2.0
//! Btrees in memory with two devices, and what surrounds triggers.

use crate::{
    alloc::{
        check::{check_leaves, Subject},
        counters::Accounting,
        geometry::{Buckets, Geometries},
        mark,
        rebalance::Targets,
        replicas::{self, Replicas, ReplicasStore},
        trigger_client::TriggerClient,
        triggers::{keys, AllocTriggers},
    },
    btree::{
        tests::{memory::Sink, scratch, Draw},
        trans::update::{CommitFlags, UpdateFlags},
        Ancestry, Attempt, Btree, IterFlags, TransError,
    },
    snapshots::SnapshotTable,
    util::error::{Error, Result},
};
use bcachefs_format::{
    bkey::BKEY_U64S,
    keys::{
        accounting::{Accounting as Value, ACCOUNTING_COUNTERS_MAX},
        alloc::Alloc,
        data_type::DataType,
        extent::Ptr,
        inode::{Inode, InodeFlags},
        reflink::{ReflinkP, ReflinkV},
        snapshot::Snapshot,
    },
    sb::ReplicasEntry,
    Bkey, Bpos, BtreeId, KeyRef, KeyType,
};
use core::ops::ControlFlow;
use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, Mutex, SpinLock,
    },
};

/// Sectors of a bucket.
pub(super) const BUCKET: u32 = 32;
const NR: usize = 30;
const DEVICES: [Buckets; 2] = [
    Buckets { dev: 0, first: 0, nr: NR as u64, sectors: BUCKET },
    Buckets { dev: 1, first: 2, nr: NR as u64, sectors: BUCKET },
];
/// Snapshots: who is whose parent.
const TREE: [(u32, u32); 5] = [(60, 90), (70, 90), (80, 100), (90, 100), (100, 0)];
const LEAVES: [u32; 3] = [60, 70, 80];

/// The superblock's list.
#[pin_data]
struct List {
    #[pin]
    sets: Mutex<KVec<Replicas>>,
    /// Has the free buckets of the first device listed while the superblock is written the first time.
    #[pin]
    meanwhile: Mutex<Option<Arc<Btree>>>,
}

impl ReplicasStore for List {
    fn lists_replicas(&self, entry: &ReplicasEntry<'_>) -> bool {
        self.sets.lock().iter().any(|s| replicas::entry(s) == *entry)
    }

    fn mark_replicas(&self, entries: &mut dyn Iterator<Item = ReplicasEntry<'_>>) -> Result {
        let meanwhile = self.meanwhile.lock().take();
        if let (Some(btree), Some(first)) = (meanwhile, DEVICES.first()) {
            mark::list_free(&btree, first)?;
        }
        for set in entries.filter_map(|e| replicas::set(&e)) {
            self.sets.lock().push(set, GFP_KERNEL)?;
        }
        Ok(())
    }
}

/// The allocator.
pub(super) struct Client {
    clock: Atomic<u64>,
    /// A bucket held open: device and number, and one; 0 for none.
    open: Atomic<u64>,
    generations: KVec<Atomic<u32>>,
}

impl Client {
    pub(super) fn holds(&self, pos: Bpos) -> bool {
        self.open.load(Relaxed) == pos.inode * NR as u64 + pos.offset + 1
    }
}

impl TriggerClient for Client {
    fn is_open(&self, dev: u8, bucket: u64) -> bool {
        self.holds(Bpos::new(dev.into(), bucket))
    }

    fn bucket_changed(&self, dev: u8, bucket: u64, _: &Alloc, new: &Alloc) {
        if let Some(g) = self.generations.get(usize::from(dev) * NR + bucket as usize) {
            g.store(new.generation.into(), Relaxed);
        }
    }

    fn io_time(&self) -> [u64; 2] {
        [self.clock.fetch_add(1u64, Relaxed) + 1, 1]
    }
}

/// What is written to the journal for the write buffer.
#[pin_data]
struct Buffered {
    #[pin]
    words: SpinLock<KVVec<u64>>,
    lost: Atomic<u64>,
}

impl Sink for Buffered {
    fn key(&self, btree: BtreeId, key: KeyRef<'_>) {
        let mut words = self.words.lock();
        let mut put = |w| {
            if words.push_within_capacity(w).is_err() {
                self.lost.add(1u64, Relaxed);
            }
        };
        put(btree.0.into());
        key.key.to_words().into_iter().for_each(&mut put);
        key.value.iter().copied().for_each(&mut put);
    }
}

/// A key found.
pub(super) struct Found {
    pub(super) key: Bkey,
    pub(super) value: KVec<u64>,
}

impl Found {
    fn new(k: KeyRef<'_>) -> Result<Self> {
        let mut value = KVec::new();
        value.extend_from_slice(k.value, GFP_ATOMIC)?;
        Ok(Found { key: k.key, value })
    }
}

pub(super) struct World {
    btree: Arc<Btree>,
    triggers: Arc<AllocTriggers>,
    accounting: Arc<Accounting>,
    list: Arc<List>,
    snapshots: Arc<SnapshotTable>,
    pub(super) client: Arc<Client>,
    buffered: Arc<Buffered>,
    pub(super) draw: Draw,
    /// Sectors written of each bucket since it was free.
    written: [[u32; NR]; 2],
    /// Where shared data is put next.
    pub(super) shared_end: u64,
    seen: [bool; DataType::COUNT as usize],
}

impl World {
    pub(super) fn new(seed: u64, restarts: u32) -> Result<Self> {
        let world = Self::unlisted(seed)?;
        for b in &DEVICES {
            mark::count_free(&world.btree, b)?;
            mark::list_free(&world.btree, b)?;
        }
        world.btree.inject_restarts(seed, restarts);
        Ok(world)
    }

    /// Without freespace keys.
    fn unlisted(seed: u64) -> Result<Self> {
        let mut nodes = KVVec::new();
        for (id, parent) in TREE {
            let mut s = Snapshot { parent, ..Snapshot::default() };
            let children = TREE.iter().rev().filter(|t| t.1 == id);
            for (to, (child, _)) in s.children.iter_mut().zip(children) {
                *to = *child;
            }
            nodes.push((id, s), GFP_KERNEL)?;
        }
        let snapshots = SnapshotTable::build(nodes)?;
        let list = Arc::pin_init(
            pin_init!(List {
                sets <- new_mutex!(KVec::new(), "list"),
                meanwhile <- new_mutex!(None, "meanwhile"),
            }),
            GFP_KERNEL,
        )?;
        let members = DEVICES.iter().map(|b| (b.dev, b.sectors));
        let accounting = Accounting::with_members(members, core::iter::empty(), list.clone())?;
        let mut generations = KVec::new();
        for _ in 0..2 * NR {
            generations.push(Atomic::new(0), GFP_KERNEL)?;
        }
        let client = Client { clock: Atomic::new(0), open: Atomic::new(0), generations };
        let client = Arc::new(client, GFP_KERNEL)?;
        let triggers = AllocTriggers::for_tests(
            Geometries::of(&DEVICES)?,
            Targets::without_groups(3),
            accounting.clone(),
            snapshots.clone(),
            client.clone(),
        )?;
        let words = KVVec::with_capacity(1 << 16, GFP_KERNEL)?;
        let buffered = Arc::pin_init(
            pin_init!(Buffered {
                words <- new_spinlock!(words, "buffered"),
                lost: Atomic::new(0),
            }),
            GFP_KERNEL,
        )?;
        let btree = scratch(BtreeId::all(), snapshots.clone(), triggers.clone(), buffered.clone())?;
        Ok(World {
            btree,
            triggers,
            accounting,
            list,
            snapshots,
            client,
            buffered,
            draw: Draw(seed),
            written: [[0; NR]; 2],
            shared_end: 0,
            seen: [false; DataType::COUNT as usize],
        })
    }

    /// Whether a free bucket is given data while all free ones are being listed, and is not listed at the end.
    pub(super) fn listed_meanwhile() -> Result<bool> {
        let world = Self::unlisted(1)?;
        let Some(dev) = DEVICES.first() else {
            return Ok(false);
        };
        mark::count_free(&world.btree, dev)?;
        let bucket = 3;
        *world.list.meanwhile.lock() = Some(world.btree.clone());
        world.commit(|t| {
            let value = [Ptr::new(dev.dev, bucket * u64::from(BUCKET), 0).word().to_le()];
            let key = keys::header(KeyType::EXTENT, Bpos::with_snapshot(4096, 8, 60), 1);
            let key = KeyRef { key: Bkey { size: 8, ..key }, value: &value };
            t.insert(BtreeId::EXTENTS, key, UpdateFlags::default())
        })?;
        let (mut listed, mut free) = (false, 0);
        world.all(BtreeId::FREESPACE, |k| {
            listed |= k.key.start_offset() <= bucket && bucket < k.key.pos.offset;
            free += k.key.size;
        })?;
        let taken = world.bucket(dev.pos(bucket))?.data_type == DataType::USER;
        let done = world.list.meanwhile.lock().is_none();
        Ok(done && taken && !listed && u64::from(free) + 1 == dev.nr - dev.first)
    }

    pub(super) fn leaf(&mut self) -> u32 {
        let i = self.draw.below(LEAVES.len() as u64) as usize;
        LEAVES.get(i).copied().unwrap_or(60)
    }

    pub(super) fn is_leaf(&self, snapshot: u32) -> bool {
        self.snapshots.is_leaf(snapshot)
    }

    pub(super) fn any_snapshot(&mut self) -> u32 {
        let i = self.draw.below(TREE.len() as u64) as usize;
        TREE.get(i).map_or(60, |t| t.0)
    }

    pub(super) fn commit(
        &self,
        f: impl for<'t> FnMut(&mut Attempt<'t>) -> core::result::Result<(), TransError>,
    ) -> Result {
        self.btree.commit(None, super::FLAGS, f).map(drop)
    }

    fn all(&self, btree: BtreeId, mut f: impl FnMut(KeyRef<'_>)) -> Result {
        self.btree.walk(btree, Bpos::POS_MIN, Bpos::SPOS_MAX, IterFlags::EACH, |k| {
            f(k);
            Ok(ControlFlow::<()>::Continue(()))
        })?;
        Ok(())
    }

    /// Some key of a type.
    pub(super) fn pick(&mut self, btree: BtreeId, key_type: KeyType) -> Result<Option<Found>> {
        let mut nr = 0;
        self.all(btree, |k| nr += u64::from(k.key.key_type == key_type))?;
        let mut left = self.draw.below(nr);
        let mut found = None;
        self.all(btree, |k| {
            if k.key.key_type == key_type {
                if left == 0 && found.is_none() {
                    found = Found::new(k).ok();
                }
                left = left.saturating_sub(1);
            }
        })?;
        Ok(found)
    }

    /// The key at exactly `pos`.
    pub(super) fn find(&self, btree: BtreeId, pos: Bpos) -> Result<Option<Found>> {
        let mut found = None;
        self.all(btree, |k| {
            if k.key.pos == pos {
                found = Found::new(k).ok();
            }
        })?;
        Ok(found)
    }

    fn bucket(&self, pos: Bpos) -> Result<Alloc> {
        self.btree.run(|t| {
            let key = t.get(BtreeId::ALLOC, pos)?;
            Ok(keys::parse_alloc(key)?)
        })
    }

    pub(super) fn buckets_of_type(&self, data_type: DataType) -> Result<KVec<Bpos>> {
        let mut found = KVec::new();
        for b in &DEVICES {
            for nr in b.first..b.nr {
                if self.bucket(b.pos(nr))?.data_type == data_type {
                    found.push(b.pos(nr), GFP_KERNEL)?;
                }
            }
        }
        Ok(found)
    }

    /// A pointer to `sectors` unused sectors of a device.
    pub(super) fn place(&mut self, dev: usize, sectors: u32) -> Result<Option<Ptr>> {
        let Some(b) = DEVICES.get(dev) else {
            return Ok(None);
        };
        let start = self.draw.below(b.nr);
        for i in 0..b.nr {
            let nr = (start + i) % b.nr;
            if !b.contains(nr) {
                continue;
            }
            let a = self.bucket(b.pos(nr))?;
            let Some(written) = self.written.get_mut(dev).and_then(|w| w.get_mut(nr as usize)) else {
                continue;
            };
            match a.data_type {
                DataType::FREE => *written = 0,
                DataType::USER | DataType::CACHED if *written + sectors <= BUCKET => {}
                _ => continue,
            }
            let sector = nr * u64::from(BUCKET) + u64::from(*written);
            *written += sectors;
            return Ok(Some(Ptr::new(b.dev, sector, a.generation)));
        }
        Ok(None)
    }

    /// Holds another bucket open than before, or none.
    pub(super) fn hold(&mut self) -> Result {
        let open = self.draw.below(3 * NR as u64);
        self.client.open.store(open, Relaxed);
        Ok(())
    }

    /// What the write buffer does.
    pub(super) fn settle(&mut self) -> Result {
        let words = core::mem::replace(
            &mut *self.buffered.words.lock(),
            KVVec::new(),
        );
        let flags = CommitFlags { no_triggers: true, ..super::FLAGS };
        let exact = UpdateFlags { exact: true, no_triggers: true, ..UpdateFlags::default() };
        let mut rest = &words[..];
        while let Some((btree, key)) = rest.split_first() {
            let (header, after) = key.split_first_chunk::<{ BKEY_U64S as usize }>().ok_or(Error::NoMem)?;
            let header = Bkey::from_words(header);
            let (value, after) = after.split_at(header.value_u64s().into());
            rest = after;
            let btree = BtreeId(*btree as u8);
            let delta = KeyRef { key: header, value };
            self.btree.commit(None, flags, |t| {
                if btree != BtreeId::ACCOUNTING {
                    return t.insert(btree, delta, exact);
                }
                let mut counters = [0i64; ACCOUNTING_COUNTERS_MAX];
                let old = t.get(btree, header.pos)?;
                for key in [old, Some(delta)].into_iter().flatten() {
                    for (to, from) in counters.iter_mut().zip(Value::parse(key)?.counters()) {
                        *to += from;
                    }
                }
                let mut sum = [0; ACCOUNTING_COUNTERS_MAX];
                let n = value.len();
                Value::build(counters.get(..n).unwrap_or(&[]), &mut sum).map_err(keys::unwritable)?;
                t.insert(btree, KeyRef { key: header, value: &sum[..n] }, exact)
            })?;
        }
        let mut words = words;
        words.clear();
        *self.buffered.words.lock() = words;
        Ok(())
    }

    /// Whether everything is as it should be.
    pub(super) fn check(&mut self) -> Result {
        let report = check_leaves(Subject {
            btree: &self.btree,
            geometries: Geometries::of(&DEVICES)?,
            targets: Targets::without_groups(3),
            node_sectors: 8,
            listed: 3,
            accounting: Some(&self.accounting),
        })?;
        if !report.is_clean() {
            pr_err!("{}\n", format_args!("{report}"));
            return Err(Error::BucketInconsistent);
        }
        if self.triggers.complaints() != 0 || self.buffered.lost.load(Relaxed) != 0 {
            return Err(Error::BucketInconsistent);
        }
        for b in &DEVICES {
            for nr in b.first..b.nr {
                let a = self.bucket(b.pos(nr))?;
                let kept = self.client.generations.get(usize::from(b.dev) * NR + nr as usize);
                if kept.is_none_or(|g| g.load(Relaxed) != a.generation.into()) {
                    pr_err!("{}\n", format_args!("bucket {}:{nr}: generation in memory", b.dev));
                    return Err(Error::BucketInconsistent);
                }
                if let Some(seen) = self.seen.get_mut(usize::from(a.data_type.0)) {
                    *seen = true;
                }
            }
        }
        self.check_references()?;
        self.check_inodes()
    }

    /// Shared data has as many references as it says, and some.
    fn check_references(&self) -> Result {
        let mut references: KVec<(u64, u64)> = KVec::with_capacity(1024, GFP_KERNEL)?;
        self.all(BtreeId::EXTENTS, |k| {
            if let (KeyType::REFLINK_P, Ok(p)) = (k.key.key_type, ReflinkP::parse(k)) {
                let start = p.idx - u64::from(p.front_pad);
                let end = p.idx + u64::from(k.key.size) + u64::from(p.back_pad);
                let _ = references.push_within_capacity((start, end));
            }
        })?;
        let mut wrong = None;
        self.all(BtreeId::REFLINK, |k| {
            let (start, end) = (k.key.start_offset(), k.key.pos.offset);
            let nr = references.iter().filter(|r| r.0 < end && r.1 > start).count() as u64;
            let is = ReflinkV::parse(k).map_or(0, |v| v.refcount);
            if is != nr || nr == 0 {
                wrong = Some((k.key, is, nr));
            }
        })?;
        match wrong {
            Some((key, is, nr)) => {
                pr_err!("{}\n", format_args!("{key}: {is} references, should be {nr}"));
                Err(Error::ExtentInvalid)
            }
            None => Ok(()),
        }
    }

    /// Inodes know whether they have versions below, and those without names are listed.
    fn check_inodes(&self) -> Result {
        let mut inodes: KVec<(Bpos, InodeFlags)> = KVec::with_capacity(64, GFP_KERNEL)?;
        self.all(BtreeId::INODES, |k| {
            if let (KeyType::INODE_V3, Ok(inode)) = (k.key.key_type, Inode::parse(k)) {
                let _ = inodes.push_within_capacity((k.key.pos, inode.flags));
            }
        })?;
        for (pos, flags) in inodes.iter() {
            let below = inodes.iter().any(|(other, _)| {
                other.offset == pos.offset
                    && other.snapshot != pos.snapshot
                    && self.snapshots.is_ancestor(other.snapshot, pos.snapshot)
            });
            if flags.contains(InodeFlags::HAS_CHILD_SNAPSHOT) != below {
                pr_err!("{}\n", format_args!("inode {pos}: {flags}, versions below: {below}"));
                return Err(Error::InodeInvalid);
            }
        }
        let mut listed: KVec<Bpos> = KVec::with_capacity(64, GFP_KERNEL)?;
        self.all(BtreeId::DELETED_INODES, |k| {
            let _ = listed.push_within_capacity(k.key.pos);
        })?;
        let unlinked = inodes.iter().filter(|i| i.1.contains(InodeFlags::UNLINKED));
        if !unlinked.map(|i| &i.0).eq(listed.iter()) {
            pr_err!("{}\n", format_args!("inodes without names are not those listed"));
            return Err(Error::InodeInvalid);
        }
        Ok(())
    }

    /// Whether there was something to see.
    pub(super) fn used_everything(&self) -> Result {
        let wanted = [DataType::FREE, DataType::USER, DataType::CACHED, DataType::NEED_DISCARD];
        let mut seen = wanted.iter().map(|t| self.seen.get(usize::from(t.0)) == Some(&true));
        let reused = self.client.generations.iter().any(|g| g.load(Relaxed) != 0);
        match seen.all(|s| s) && reused {
            true => Ok(()),
            false => Err(Error::Unsupported),
        }
    }
}
