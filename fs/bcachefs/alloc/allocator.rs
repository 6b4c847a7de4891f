// SPDX-License-Identifier: GPL-2.0
//! The allocator: who gives out space.

use super::{
    accounting::{Counted, Usage},
    client::{is_writable, AllocClient},
    device::{AllocDevice, NoBucket},
    gens_gc::GensGc,
    open_buckets::Id,
    request::{AllocRequest, Choice, Lack},
    reservations::Reservations,
    reserves,
    shared::Shared,
    targets::Targets,
    wait::Blocked,
    waiting::Answer,
    write_points::{Point, WritePoints},
};
use crate::{
    btree::{
        space::{OpenBuckets, Shortage, Space, SpaceError, REPLICAS_MAX},
        Attempt, Btree, TransError,
    },
    sb::{device::MEMBERS_MAX, Devices, Super},
    util::{
        counters::Counters,
        error::{Error, Result},
    },
};
use bcachefs_format::{
    keys::{
        alloc::Alloc,
        data_type::DataType,
        extent::Ptr,
    },
    sb::{Options, Target},
};
use kernel::{
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, Mutex,
    },
};

/// Write points are taken out of use when their buckets are more than one part in so many of what is free.
const SHRINK: u64 = 8;
/// They are put into use while they are not.
const GROW: u64 = 32;

/// The options that matter here.
#[derive(Copy, Clone, Debug)]
pub(super) struct Config {
    pub node_sectors: u16,
    pub metadata_replicas: u8,
    pub metadata_required: u8,
    pub metadata_target: Target,
    /// Kept back for moving data: bytes, or, if that is 0, percent.
    pub gc_reserve_bytes: u64,
    pub gc_reserve_percent: u8,
    /// How long to wait for a bucket before saying so.
    pub stuck_seconds: u16,
}

impl Config {
    fn new(o: &Options) -> Self {
        Config {
            node_sectors: o.btree_node_size,
            metadata_replicas: o.metadata_replicas,
            metadata_required: o.metadata_replicas_required,
            metadata_target: o.metadata_target,
            gc_reserve_bytes: o.gc_reserve_bytes,
            gc_reserve_percent: o.gc_reserve_percent,
            stuck_seconds: o.allocator_stuck_timeout,
        }
    }
}

/// The allocator of a filesystem.
///
/// At rest it knows the devices and nothing else. [`Allocator::start`] makes it give out space, [`Allocator::stop`] ends that.
#[pin_data]
pub struct Allocator {
    _stop: StopOnDrop,
    pub(super) shared: Arc<Shared>,
    pub(super) config: Config,
    pub(super) targets: Targets,
    devices: KVec<Option<Arc<AllocDevice>>>,
    pub(super) points: WritePoints,
    #[pin]
    pub(super) reservations: Reservations,
    pub(super) gens: Arc<GensGc>,
    capacity: Atomic<u64>,
    bucket_max: u64,
    /// Starting, stopping, and changes of which devices there are.
    #[pin]
    state: Mutex<()>,
}

/// Where something can be written.
pub struct Placed {
    /// One pointer for each copy, with generation; marked as cached if the copy does not count.
    pub ptrs: [Ptr; REPLICAS_MAX],
    /// How many.
    pub nr: u8,
    /// Sectors, from where each pointer points to.
    pub sectors: u32,
    /// To be kept until a key refers to them.
    pub open: OpenBuckets,
}

impl Allocator {
    /// An allocator at rest. Entries of the journal up to `flushed` are durable. May sleep.
    pub fn new(
        sup: &Super,
        devices: &Devices,
        client: Arc<dyn AllocClient>,
        counters: Arc<Counters>,
        flushed: u64,
    ) -> Result<Arc<Self>> {
        let name = CString::try_from_fmt(core::format_args!("{sup}"))?;
        let shared = Shared::new(client, counters, name, flushed)?;
        let sb = sup.raw()?;
        let mut all = KVec::with_capacity(MEMBERS_MAX, GFP_KERNEL)?;
        for dev in 0..MEMBERS_MAX as u8 {
            let device = match devices.get(dev) {
                Some(device) => {
                    let (device, shared) = (device.clone(), shared.clone());
                    Some(AllocDevice::of(device, shared, &sb, sup.btree_node_sectors)?)
                }
                None => None,
            };
            all.push(device, GFP_KERNEL)?;
        }
        let config = Config::new(&sb.options()?);
        Self::with_devices(shared, all, Targets::new(&sb)?, config)
    }

    /// An allocator at rest on these devices. May sleep.
    pub(super) fn with_devices(
        shared: Arc<Shared>,
        devices: KVec<Option<Arc<AllocDevice>>>,
        targets: Targets,
        config: Config,
    ) -> Result<Arc<Self>> {
        let sizes = devices.iter().flatten().map(|d| d.geometry.bucket_sectors);
        let bucket_max = sizes.max().unwrap_or(0);
        let mut for_gens = KVec::with_capacity(devices.len(), GFP_KERNEL)?;
        for device in devices.iter().flatten() {
            for_gens.push(device.clone(), GFP_KERNEL)?;
        }
        let gens = GensGc::new(shared.clone(), for_gens)?;
        let (points, reservations) = (WritePoints::new()?, Reservations::new()?);
        Ok(Arc::pin_init(
            pin_init!(Allocator {
                _stop: StopOnDrop(shared.clone()),
                shared,
                config,
                targets,
                devices,
                points,
                reservations <- reservations,
                gens,
                capacity: Atomic::new(0),
                bucket_max,
                state <- new_mutex!((), "bcachefs_allocator"),
            }),
            GFP_KERNEL,
        )?)
    }

    pub(super) fn device(&self, dev: u8) -> Option<&Arc<AllocDevice>> {
        self.devices.get(usize::from(dev))?.as_ref()
    }

    /// The devices there are.
    pub(super) fn devices(&self) -> impl Iterator<Item = &Arc<AllocDevice>> {
        self.devices.iter().flatten()
    }

    /// Reads the generations of all buckets, once. Sleeps.
    pub fn read_generations(&self, btree: &Btree) -> Result {
        self.devices().try_for_each(|d| d.read_generations(btree))
    }

    /// Starts giving out space on the devices that are in use, and what makes space. Sleeps.
    pub fn start(&self, btree: Arc<Btree>) -> Result {
        self.read_generations(&btree)?;
        let _state = self.state.lock();
        for d in self.devices() {
            let dev = d.index;
            let yes = self.shared.client.member(dev).is_some_and(|m| is_writable(&m));
            self.shared.set_writable(dev, yes);
        }
        self.shared.start(btree);
        self.recalc_capacity();
        self.kick();
        Ok(())
    }

    /// Stops giving out space. Who waits for some is woken, in vain; buckets that nobody is writing to are closed; when this
    /// returns no worker runs. Sleeps, no locks of nodes may be held.
    pub fn stop(&self) {
        let _state = self.state.lock();
        self.shared.stop();
        self.drop_buckets(None);
        for d in self.devices() {
            self.shared.set_writable(d.index, false);
        }
    }

    /// Starts giving out space on `dev`. Sleeps.
    pub fn add_device(&self, dev: u8) {
        let _state = self.state.lock();
        if self.device(dev).is_some() {
            self.shared.set_writable(dev, true);
        }
        self.recalc_capacity();
    }

    /// Stops giving out space on `dev`. Buckets of it that something is being written to stay open until that has ended:
    /// [`Allocator::nr_open`]. Sleeps, no locks of nodes may be held.
    pub fn remove_device(&self, dev: u8) {
        let _state = self.state.lock();
        self.shared.set_writable(dev, false);
        self.recalc_capacity();
        self.drop_buckets(Some(dev));
        self.shared.freed.announce();
    }

    /// Write points let go of their buckets on `dev`, or of all, and so do partial ones.
    fn drop_buckets(&self, dev: Option<u8>) {
        let open = &self.shared.open;
        self.points.drop_buckets(|id| {
            let drop = open.info(id).is_none_or(|b| dev.is_none_or(|dev| b.dev == dev));
            if drop {
                self.shared.put_open(&[id]);
            }
            drop
        });
        if open.drop_partial(dev) {
            self.shared.freed.announce();
        }
    }

    /// Buckets of `dev` that are open. Any context.
    pub fn nr_open(&self, dev: u8) -> u64 {
        self.shared.open.nr_open(dev)
    }

    /// Computes anew how much space there is, after the devices or their states have changed. Does not sleep.
    pub fn recalc_capacity(&self) {
        let writable = self.shared.writable();
        let devices = self.devices().filter(|d| writable.has(d.index));
        let o = &self.config;
        let capacity = reserves::capacity(devices.map(|d| d.geometry.capacity()), |total| {
            reserves::gc_reserve(total, o.gc_reserve_bytes, o.gc_reserve_percent)
        });
        self.capacity.store(capacity, Relaxed);
        self.reservations.invalidate();
        self.shared.freed.announce();
    }

    /// Space that is there and in use, promises included. Any context.
    pub fn usage(&self) -> Usage {
        self.usage_with(self.reservations.reserved())
    }

    /// The same, if `promised` sectors have been promised.
    fn usage_with(&self, promised: u64) -> Usage {
        let u = self.shared.client.usage();
        let counted = Counted {
            hidden: u.hidden,
            data: u.btree.saturating_add(u.data),
            reserved: u.reserved.saturating_add(promised),
            inodes: u.inodes,
        };
        Usage::new(self.capacity.load(Relaxed), counted)
    }

    /// Promises `sectors`; returns how many. See [`Space::reserve`](crate::btree::space::Space::reserve).
    pub(super) fn reserve(&self, sectors: u64, how: Shortage) -> Result<u64> {
        let free = |promised| self.usage_with(promised).available();
        self.reservations.reserve(sectors, how, free)
    }

    /// Whether a bucket is open: chosen to be written to, or being written to. Any context.
    pub fn is_open(&self, dev: u8, bucket: u64) -> bool {
        self.shared.open.is_open(dev, bucket)
    }

    /// The generation of a bucket. `None` if there is no such bucket, or generations have not been read. Any context.
    pub fn generation(&self, dev: u8, bucket: u64) -> Option<u8> {
        self.device(dev)?.generations.as_ref()?.get(bucket)
    }

    /// Whether the generations of the buckets of `dev` are known.
    pub fn knows_generations(&self, dev: u8) -> bool {
        self.device(dev).is_some_and(|d| d.generations.as_ref().is_some())
    }

    /// A commit changes what is recorded of a bucket from `old` to `new`, with the journal's sequence number filled in. Write locks of
    /// nodes may be held; does not sleep.
    pub fn bucket_changed(&self, dev: u8, bucket: u64, old: &Alloc, new: &Alloc) {
        let Some(d) = self.device(dev) else { return };
        if let Some(gens) = d.generations.as_ref() {
            gens.set(bucket, new.generation);
        }
        let shared = &self.shared;
        let flushed = shared.flushed();
        if new.data_type.is_empty() && !old.data_type.is_empty() && new.journal_seq != 0 {
            shared.waiting.insert(dev, bucket, new.journal_seq, flushed);
        }
        let durable = new.journal_seq <= flushed;
        match new.data_type {
            t if t == old.data_type => {}
            DataType::FREE if durable => shared.freed.announce(),
            DataType::NEED_DISCARD if durable && !self.is_open(dev, bucket) => {
                AllocDevice::queue_discard_fast(d, bucket)
            }
            DataType::CACHED => {
                if d.wants_invalidated() {
                    AllocDevice::queue_invalidate(d);
                }
            }
            DataType::NEED_GC_GENS => self.gens.note(),
            _ => {}
        }
    }

    /// Whether what emptied a bucket is durable: `None` if its alloc key has to be looked at. Any context.
    pub fn is_durable(&self, dev: u8, bucket: u64) -> Option<bool> {
        match self.shared.waiting.look_up(dev, bucket, self.shared.flushed()) {
            Answer::Durable => Some(true),
            Answer::Waiting(_) => Some(false),
            Answer::Unknown => None,
        }
    }

    /// Entries of the journal up to `seq` are durable: buckets that they emptied can be used. Does not sleep.
    pub fn journal_flushed(&self, seq: u64) {
        self.shared.set_flushed(seq);
        self.shared.freed.announce();
        for d in self.devices() {
            if d.counted(DataType::NEED_DISCARD) != 0 {
                AllocDevice::queue_discard(d);
            }
        }
    }

    /// Sectors that can be written before it is time to move what is in half-empty buckets together, on some device that is written
    /// to; 0 if it is. Does not sleep.
    pub fn sectors_until_crowded(&self) -> u64 {
        let writable = self.shared.writable();
        let devices = self.devices().filter(|d| writable.has(d.index));
        devices.map(|d| d.until_crowded()).min().unwrap_or(u64::MAX)
    }

    /// Has the workers look whether there is something to do. Does not sleep.
    pub fn kick(&self) {
        for d in self.devices() {
            AllocDevice::queue_discard(d);
            if d.wants_invalidated() {
                AllocDevice::queue_invalidate(d);
            }
        }
    }

    /// Whether buckets half full of so many write points are too large a part of what is free.
    #[inline(never)]
    fn too_many_points(&self, points: u32, part: u64) -> bool {
        let stranded = u64::from(points).saturating_mul(self.bucket_max);
        stranded.saturating_mul(part) > self.usage().free()
    }

    /// Finds a place for `req` in a filesystem that is written to. See [`Allocator::alloc_for`].
    pub fn alloc_sectors(
        this: &Arc<Self>,
        t: &mut Attempt<'_>,
        req: &AllocRequest,
    ) -> core::result::Result<core::result::Result<Placed, SpaceError>, TransError> {
        let space = &t.btree().engine()?.space;
        Self::alloc_for(this, t, space, req)
    }

    /// Finds a place for `req`; what is open is given back to `space`. Locks of nodes may be given up, but the transaction is as before if this succeeds. With a
    /// [`SpaceError::Blocked`], wait with no lock held and ask again. May sleep and restart.
    pub(super) fn alloc_for(
        this: &Arc<Self>,
        t: &mut Attempt<'_>,
        space: &Arc<dyn Space>,
        req: &AllocRequest,
    ) -> core::result::Result<core::result::Result<Placed, SpaceError>, TransError> {
        // Before looking, so that nothing that happens since is missed.
        let seen = this.shared.freed.now();
        loop {
            if !this.shared.is_running() {
                return Ok(Err(SpaceError::Failed(Error::AllocatorStopped)));
            }
            let general = this.points.general();
            if this.points.lacks(req.point) && !this.too_many_points(general + 1, GROW) {
                this.points.grow();
            }
            let Some(mut point) = this.points.lock(t, req.point)? else {
                return Ok(Err(SpaceError::Failed(Error::NoSpace)));
            };
            let lack = match this.choose(t, req, &mut point)? {
                Ok(choice) => match this.place(space, req, &mut point, choice) {
                    Some(placed) => return Ok(Ok(placed)),
                    // A bucket that was chosen has gone: impossible, as the write point has it.
                    None => Lack::Devices,
                },
                Err(lack) => lack,
            };
            drop(point);
            let leave = |id| this.shared.leave_open(id);
            if lack == Lack::Bucket(NoBucket::NoneFree)
                && this.too_many_points(general, SHRINK)
                && this.points.general() > 1
                && this.points.shrink(t, general, leave)?
            {
                continue;
            }
            if req.only_target || lack == Lack::Devices {
                return Ok(Err(SpaceError::Failed(Self::hopeless(lack))));
            }
            // The caller is to give up its locks anyway.
            t.unlock();
            let wait = Blocked::new(this.clone(), seen, req.watermark, req.data_type);
            return Ok(Err(SpaceError::Blocked(KBox::new(wait, GFP_KERNEL)?)));
        }
    }

    /// Takes sectors of the buckets chosen. `None` if one is not what it was chosen for.
    #[inline(never)]
    fn place(
        &self,
        space: &Arc<dyn Space>,
        req: &AllocRequest,
        point: &mut Point,
        mut choice: Choice,
    ) -> Option<Placed> {
        let open = &self.shared.open;
        let durability = |id: Id| open.info(id).map_or(0, |b| u32::from(self.durability(b.dev)));
        choice.trim(req.wanted(), durability);
        let chosen = choice.chosen;
        let free = |id: &Id| open.info(*id).map_or(0, |b| b.sectors_free);
        let most = chosen.as_slice().iter().map(free).min().unwrap_or(0);
        let sectors = most.min(req.sectors.max(1));

        let mut ptrs = [Ptr::new(0, 0, 0); REPLICAS_MAX];
        let mut taken = OpenBuckets::none();
        let mut nr = 0;
        for (slot, id) in ptrs.iter_mut().zip(chosen.as_slice()) {
            let dev = open.info(*id).map_or(u8::MAX, |b| b.dev);
            let Some(device) = self.device(dev) else { break };
            let start = |bucket| device.bucket_start(bucket);
            let Some(ptr) = open.take_sectors(*id, sectors, start) else { break };
            *slot = ptr.with_cached(req.data_type == DataType::CACHED || self.durability(dev) == 0);
            nr += 1;
        }
        if nr != 0 {
            let ids = chosen.as_slice().get(..nr).unwrap_or(&[]);
            taken = OpenBuckets::new(space.clone(), ids).unwrap_or(taken);
        }
        // What is left of a bucket for nodes must be enough for one.
        let least = if req.data_type == DataType::BTREE { req.sectors_min } else { 1 };
        point.open.retain(|id| {
            let left = open.info(id).map_or(0, |b| b.sectors_free);
            if left < least {
                open.use_up(id);
            }
            let keep = left >= least && chosen.contains(id);
            if !keep {
                self.shared.leave_open(id);
            }
            keep
        });
        if nr != chosen.len() || nr == 0 || sectors == 0 {
            return None;
        }
        point.allocated = point.allocated.saturating_add(sectors.into());
        Some(Placed { ptrs, nr: nr as u8, sectors, open: taken })
    }

    /// Whether the superblock says that there may be nodes at these places. Does not sleep.
    #[inline(never)]
    pub(super) fn are_marked(&self, places: &[(u8, u64, u32)]) -> bool {
        places.iter().all(|&(dev, start, sectors)| {
            let member = self.shared.client.member(dev);
            member.is_some_and(|m| m.bitmap_covers(start, start.saturating_add(sectors.into())))
        })
    }

    pub(super) fn release(&self, ids: &[Id]) {
        self.shared.put_open(ids);
    }
}

/// Stops the allocator when it is dropped: work items would otherwise be the last to hold the queue they run on.
struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}
