// SPDX-License-Identifier: GPL-2.0
//! An allocator without a filesystem.

use crate::{
    alloc::{
        allocator::Config,
        client::{AllocClient, ClockKind, DeviceUsage},
        counters::Totals,
        device::{AllocDevice, Disk},
        nouse::Ranges,
        request::AllocRequest,
        reserves::Geometry,
        shared::Shared,
        space::btree_space,
        targets::Targets,
        write_points::WritePointSpec,
        Allocator, DeviceSet, Placed,
    },
    btree::{
        space::{Space, SpaceError},
        tests::image,
        Btree,
    },
    journal::overlay::JournalKeysBuilder,
    util::{
        counters::Counters,
        error::Result,
        watermark::Watermark,
        write_refs::WriteRefs,
    },
};
use bcachefs_format::{
    bkey::BKEY_U64S,
    keys::{
        alloc::{Alloc, ALLOC_WORDS},
        bucket_gens::{BucketGens, BUCKETS_PER_KEY},
        data_type::DataType,
        extent::Ptr,
    },
    sb::{Member, MemberState, Target},
    Bkey, Bpos, BtreeId, KeyRef, KeyType,
};
use core::fmt;
use kernel::{
    new_spinlock,
    prelude::*,
    str::CString,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, SpinLock,
    },
};

/// Sectors of a node.
pub(super) const NODE: u16 = 8;
/// Sectors of a bucket.
pub(super) const BUCKET: u16 = 64;
/// Buckets of a device.
pub(super) const NBUCKETS: u64 = 1024;
/// Entries of the journal up to here are durable.
pub(super) const FLUSHED: u64 = 100;
/// Every kind of data.
const ALL_DATA: u8 = 0b11100;

/// What a filesystem would say.
pub(super) struct World {
    pub members: KVec<Member>,
    pub usage: Pin<KBox<SpinLock<[DeviceUsage; 4]>>>,
    pub fs: Pin<KBox<SpinLock<Totals>>>,
    pub writers: WriteRefs,
    pub marked: Atomic<u64>,
}

impl AllocClient for World {
    fn member(&self, dev: u8) -> Option<Member> {
        self.members.get(usize::from(dev)).copied()
    }

    fn device_usage(&self, dev: u8) -> DeviceUsage {
        let usage = self.usage.lock();
        usage.get(usize::from(dev)).copied().unwrap_or_default()
    }

    fn usage(&self) -> Totals {
        *self.fs.lock()
    }

    fn io_clock(&self, _: ClockKind) -> u64 {
        1
    }

    fn writers(&self) -> &WriteRefs {
        &self.writers
    }

    fn mark_btree_nodes(&self, places: &[(u8, u64, u32)]) -> Result {
        self.marked.add(places.len() as u64, Relaxed);
        Ok(())
    }
}

/// A device that counts.
pub(super) struct Counting {
    pub discarded: Atomic<u64>,
    pub last: Atomic<u64>,
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("test")
    }
}

impl Disk for Counting {
    fn can_discard(&self) -> bool {
        true
    }

    fn discard(&self, sector: u64, sectors: u64) -> Result {
        self.last.store(sector, Relaxed);
        self.discarded.add(sectors, Relaxed);
        Ok(())
    }
}

/// A member as these tests want it.
pub(super) struct Dev {
    pub durability: u8,
    pub freespace: bool,
    /// Sectors of each part of the map of nodes, as a shift, and the map.
    pub map: (u8, u64),
}

/// An ordinary one.
pub(super) const DEV: Dev = Dev { durability: 1, freespace: true, map: (6, u64::MAX) };

/// The keys of the filesystem.
pub(super) struct Keys(JournalKeysBuilder);

impl Keys {
    pub(super) fn new() -> Self {
        Keys(JournalKeysBuilder::new())
    }

    fn push(&mut self, btree: BtreeId, key: Bkey, value: &[u64]) -> Result {
        let key = Bkey { u64s: BKEY_U64S + value.len() as u8, ..key };
        self.0.push(1, btree, 0, &KeyRef { key, value })
    }

    /// Buckets from `start` to `end` are free.
    pub(super) fn free(&mut self, dev: u8, start: u64, end: u64, genbits: u64) -> Result {
        let pos = Bpos::new(dev.into(), genbits << 56 | end);
        let size = (end - start) as u32;
        let key = Bkey { key_type: KeyType::SET, size, ..Bkey::deleted(pos) };
        self.push(BtreeId::FREESPACE, key, &[])
    }

    /// What is recorded of a bucket.
    pub(super) fn alloc(&mut self, dev: u8, bucket: u64, alloc: &Alloc) -> Result {
        let mut value = [0; ALLOC_WORDS];
        let n = alloc.build(&mut value).map_err(|_| crate::util::error::Error::BtreeKeyInvalid)?;
        let key = Bkey {
            key_type: KeyType::ALLOC_V4,
            ..Bkey::deleted(Bpos::new(dev.into(), bucket))
        };
        self.push(BtreeId::ALLOC, key, value.get(..n).unwrap_or(&[]))
    }

    /// An extent of `inode` with a pointer to a bucket.
    pub(super) fn extent(&mut self, inode: u64, dev: u8, bucket: u64, generation: u8) -> Result {
        let pos = Bpos::with_snapshot(inode, 8, u32::MAX);
        let ptr = Ptr::new(dev, bucket * u64::from(BUCKET) + 3, generation).with_cached(true);
        let key = Bkey { key_type: KeyType::EXTENT, size: 8, ..Bkey::deleted(pos) };
        self.push(BtreeId::EXTENTS, key, &[ptr.word()])
    }

    /// The generations of the first 256 buckets of a device.
    pub(super) fn gens(&mut self, dev: u8, gens: &[u8; BUCKETS_PER_KEY]) -> Result {
        let mut value = [0; BUCKETS_PER_KEY / 8];
        let n = BucketGens { gens }.build(&mut value);
        n.map_err(|_| crate::util::error::Error::BtreeKeyInvalid)?;
        let key = Bkey { key_type: KeyType::BUCKET_GENS, ..Bkey::deleted(Bpos::new(dev.into(), 0)) };
        self.push(BtreeId::BUCKET_GENS, key, &value)
    }

    /// A bucket to be discarded.
    pub(super) fn need_discard(&mut self, dev: u8, bucket: u64) -> Result {
        let pos = Bpos::new(dev.into(), bucket);
        let key = Bkey { key_type: KeyType::SET, ..Bkey::deleted(pos) };
        self.push(BtreeId::NEED_DISCARD, key, &[])
    }
}

/// A bucket with data of users.
pub(super) fn full() -> Alloc {
    Alloc { data_type: DataType::USER, dirty_sectors: 8, need_discard: true, ..Alloc::default() }
}

/// All of it.
pub(super) struct Fixture {
    pub world: Arc<World>,
    pub disk: Arc<Counting>,
    pub btree: Arc<Btree>,
    pub allocator: Arc<Allocator>,
    pub space: Arc<dyn Space>,
}

impl Fixture {
    /// With these devices, each with `free` free buckets as far as the counters say, and these keys. It has been started.
    pub(super) fn new(devices: &[Dev], keys: Keys, free: u64) -> Result<Self> {
        let mut members = KVec::new();
        let mut usage = DeviceUsage::default();
        if let Some(n) = usage.buckets.get_mut(usize::from(DataType::FREE.0)) {
            *n = free;
        }
        for d in devices {
            let mut m = Member::empty();
            m.nbuckets.set(NBUCKETS);
            m.bucket_size.set(BUCKET);
            m.flags = Member::make_flags(MemberState::RW, true, ALL_DATA, None, d.durability, d.freespace);
            m.btree_bitmap_shift = d.map.0;
            m.btree_allocated_bitmap.set(d.map.1);
            members.push(m, GFP_KERNEL)?;
        }
        let world = World {
            members,
            usage: KBox::pin_init(new_spinlock!([usage; 4]), GFP_KERNEL)?,
            fs: KBox::pin_init(new_spinlock!(Totals::default()), GFP_KERNEL)?,
            writers: WriteRefs::new()?,
            marked: Atomic::new(0),
        };
        world.writers.start();
        let world = Arc::new(world, GFP_KERNEL)?;
        let disk = Counting { discarded: Atomic::new(0), last: Atomic::new(0) };
        let disk = Arc::new(disk, GFP_KERNEL)?;
        let counters = Counters::new(core::iter::empty())?;
        let name = CString::try_from_fmt(core::format_args!("test"))?;
        let shared = Shared::new(world.clone(), counters, name, FLUSHED)?;
        let mut all = KVec::new();
        for index in 0..devices.len() as u8 {
            let geometry = Geometry {
                nbuckets: NBUCKETS,
                first_bucket: 1,
                bucket_sectors: BUCKET.into(),
                node_sectors: NODE.into(),
            };
            // The last sixteen are those of a superblock.
            let nouse = Ranges::collect([&mut [(0, 1), (NBUCKETS - 16, 16)].into_iter()])?;
            let device = AllocDevice::new(index, disk.clone(), geometry, nouse, shared.clone())?;
            all.push(Some(device), GFP_KERNEL)?;
        }
        let config = Config {
            node_sectors: NODE,
            metadata_replicas: 1,
            metadata_required: 1,
            metadata_target: Target(0),
            gc_reserve_bytes: 0,
            gc_reserve_percent: 8,
            stuck_seconds: 1,
        };
        let allocator = Allocator::with_devices(shared, all, Targets::none(), config)?;
        let btree = image::without_nodes(keys.0.finish()?)?;
        allocator.start(btree.clone())?;
        let space = btree_space(&allocator)?;
        Ok(Fixture { world, disk, btree, allocator, space })
    }

    /// Asks for a place.
    pub(super) fn ask(
        &self,
        req: &AllocRequest,
    ) -> Result<core::result::Result<Placed, SpaceError>> {
        self.btree.run(|t| Allocator::alloc_for(&self.allocator, t, &self.space, req))
    }

    /// The same, where there must be one.
    pub(super) fn place(&self, req: &AllocRequest) -> Result<Placed> {
        match self.ask(req)? {
            Ok(placed) => Ok(placed),
            Err(SpaceError::Failed(e)) => Err(e),
            Err(SpaceError::Blocked(_)) => Err(crate::util::error::Error::NoSpace),
        }
    }

    /// Whether one would have to wait.
    pub(super) fn is_blocked(&self, req: &AllocRequest) -> Result<bool> {
        Ok(matches!(self.ask(req)?, Err(SpaceError::Blocked(_))))
    }
}

/// The buckets of a place, each as device and bucket.
pub(super) fn buckets(p: &Placed) -> impl Iterator<Item = (u8, u64)> + '_ {
    let ptrs = p.ptrs.iter().take(p.nr.into());
    ptrs.map(|ptr| (ptr.dev(), ptr.offset() / u64::from(BUCKET)))
}

/// For a whole bucket of data.
pub(super) fn whole(key: u64) -> AllocRequest {
    AllocRequest {
        point: WritePointSpec::Hashed(key),
        data_type: DataType::USER,
        sectors: BUCKET.into(),
        sectors_min: BUCKET.into(),
        replicas: 1,
        required: 1,
        target: Target(0),
        only_target: false,
        have: DeviceSet::NONE,
        watermark: Watermark::Normal,
    }
}

/// For a node.
pub(super) fn node() -> AllocRequest {
    AllocRequest {
        point: WritePointSpec::Btree,
        data_type: DataType::BTREE,
        sectors: NODE.into(),
        sectors_min: NODE.into(),
        watermark: Watermark::Btree,
        ..whole(0)
    }
}
