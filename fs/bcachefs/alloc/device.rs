// SPDX-License-Identifier: GPL-2.0
//! A device, as the allocator sees it.

use super::{
    generations::Generations,
    nouse::{buckets_of, Ranges},
    open_buckets::Id,
    reserves::Geometry,
    search::Cursors,
    shared::Shared,
};
use crate::{
    btree::{Attempt, Btree, TransError},
    sb::Device,
    util::{error::Result, watermark::Watermark},
};
use bcachefs_format::{
    keys::{alloc::Alloc, data_type::DataType},
    Bpos, BtreeId, SuperBlock,
};
use core::fmt;
use kernel::{
    impl_has_work, new_spinlock, new_work,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, SetOnce, SpinLock,
    },
    workqueue::{Work, WorkItem},
};

/// Buckets that can be queued for the fast path of discards.
const FAST_MAX: usize = 256;

/// Buckets that are being discarded, or are to be.
pub(super) struct Discards {
    /// By the worker that goes through the btree, and by that of the fast path.
    pub in_flight: [Option<u64>; 2],
    /// For the fast path.
    pub fast: KVVec<u64>,
}

/// What has been done.
pub(super) struct Done {
    pub discarded: Atomic<u64>,
    pub invalidated: Atomic<u64>,
    pub discard_errors: Atomic<u64>,
    /// Buckets that were not what they were recorded to be.
    pub wrong: Atomic<u64>,
}

/// What is done to the device itself; what prints is its name.
pub(super) trait Disk: fmt::Display + Send + Sync {
    /// Whether it has a use for discards.
    fn can_discard(&self) -> bool;

    /// Discards `sectors` sectors from `sector` on. Sleeps until that is done.
    fn discard(&self, sector: u64, sectors: u64) -> Result;
}

impl Disk for Device {
    fn can_discard(&self) -> bool {
        self.bdev.can_discard()
    }

    fn discard(&self, sector: u64, sectors: u64) -> Result {
        Ok(self.bdev.discard(sector, sectors)?)
    }
}

/// See the description of the module.
#[pin_data]
pub(super) struct AllocDevice {
    /// Index of the member.
    pub index: u8,
    pub disk: Arc<dyn Disk>,
    pub shared: Arc<Shared>,
    pub geometry: Geometry,
    pub nouse: Ranges,
    pub generations: SetOnce<Generations>,
    pub cursors: Cursors,
    #[pin]
    pub discards: SpinLock<Discards>,
    pub done: Done,
    #[pin]
    discard: Work<AllocDevice, 1>,
    #[pin]
    discard_fast: Work<AllocDevice, 2>,
    #[pin]
    invalidate: Work<AllocDevice, 3>,
}

impl_has_work! {
    impl HasWork<Self, 1> for AllocDevice { self.discard }
    impl HasWork<Self, 2> for AllocDevice { self.discard_fast }
    impl HasWork<Self, 3> for AllocDevice { self.invalidate }
}

impl WorkItem<1> for AllocDevice {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.work_discard();
    }
}

impl WorkItem<2> for AllocDevice {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.work_discard_fast();
    }
}

impl WorkItem<3> for AllocDevice {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.work_invalidate();
    }
}

/// Why there is no bucket.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum NoBucket {
    /// None is free.
    NoneFree,
    /// Too many are open.
    TooManyOpen,
}

/// What a bucket is wanted for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Want {
    pub data_type: DataType,
    pub watermark: Watermark,
}

impl AllocDevice {
    /// Of a member, in a filesystem with this superblock. May sleep.
    pub(super) fn of(
        device: Arc<Device>,
        shared: Arc<Shared>,
        sb: &SuperBlock<'_>,
        node_sectors: u16,
    ) -> Result<Arc<Self>> {
        let layout = &sb.header().layout;
        let size = device.bucket_sectors;
        let copies = layout.copies().map(|at| buckets_of(at, layout.copy_sectors(), size));
        // Before the first copy is what says where the copies are.
        let nouse = Ranges::collect([
            &mut [(0u64, 1u64)].into_iter() as &mut dyn Iterator<Item = (u64, u64)>,
            &mut { copies },
            &mut device.journal.iter().copied(),
        ])?;
        let geometry = Geometry {
            nbuckets: device.nbuckets,
            first_bucket: device.first_bucket,
            bucket_sectors: size.into(),
            node_sectors: node_sectors.max(1).into(),
        };
        Self::new(device.index, device, geometry, nouse, shared)
    }

    /// With these buckets, of which those in `nouse` are not to be used. May sleep.
    pub(super) fn new(
        index: u8,
        disk: Arc<dyn Disk>,
        geometry: Geometry,
        nouse: Ranges,
        shared: Arc<Shared>,
    ) -> Result<Arc<Self>> {
        let discards = Discards {
            in_flight: [None; 2],
            fast: KVVec::with_capacity(FAST_MAX, GFP_KERNEL)?,
        };
        let done = Done {
            discarded: Atomic::new(0),
            invalidated: Atomic::new(0),
            discard_errors: Atomic::new(0),
            wrong: Atomic::new(0),
        };
        let cursors = Cursors::new(geometry.first_bucket);
        Ok(Arc::pin_init(
            pin_init!(AllocDevice {
                index,
                disk,
                shared,
                geometry,
                nouse,
                generations: SetOnce::new(),
                cursors,
                discards <- new_spinlock!(discards, "bcachefs_discards"),
                done,
                discard <- new_work!("bcachefs_discard"),
                discard_fast <- new_work!("bcachefs_discard_fast"),
                invalidate <- new_work!("bcachefs_invalidate"),
            }),
            GFP_KERNEL,
        )?)
    }

    /// The position of bucket `bucket` in the trees of buckets.
    pub(super) fn bucket_pos(&self, bucket: u64) -> Bpos {
        Bpos::new(self.index.into(), bucket)
    }

    /// The bucket that holds `sector`.
    pub(super) fn bucket_of(&self, sector: u64) -> u64 {
        sector / self.geometry.bucket_sectors.max(1)
    }

    /// First sector of bucket `bucket`.
    pub(super) fn bucket_start(&self, bucket: u64) -> u64 {
        bucket.saturating_mul(self.geometry.bucket_sectors)
    }

    /// Reads the generations of its buckets, once. Sleeps.
    pub(super) fn read_generations(&self, btree: &Btree) -> Result {
        if self.generations.as_ref().is_none() {
            let gens = Generations::read(btree, self.index, self.geometry.nbuckets)?;
            // If somebody else has, theirs are as good.
            self.generations.populate(gens);
        }
        Ok(())
    }

    /// Has the worker look for buckets to discard. Any context.
    pub(super) fn queue_discard(this: &Arc<Self>) {
        if this.shared.is_running() {
            // It is queued already, if this fails.
            let _ = this.shared.queue.enqueue::<_, 1>(this.clone());
        }
    }

    /// Has `bucket`, which can be discarded now, discarded. Any context.
    pub(super) fn queue_discard_fast(this: &Arc<Self>, bucket: u64) {
        if !this.shared.is_running() {
            return;
        }
        let queued = {
            let mut discards = this.discards.lock();
            discards.fast.len() < FAST_MAX && discards.fast.push_within_capacity(bucket).is_ok()
        };
        if queued {
            let _ = this.shared.queue.enqueue::<_, 2>(this.clone());
        } else {
            Self::queue_discard(this);
        }
    }

    /// Has the worker look for cached buckets to reuse. Any context.
    pub(super) fn queue_invalidate(this: &Arc<Self>) {
        if this.shared.is_running() {
            let _ = this.shared.queue.enqueue::<_, 3>(this.clone());
        }
    }

    /// Buckets that are free for `want`; `None` if nothing has been counted, and `want` cannot wait until it is: a new
    /// filesystem places nodes before it has counters. Starts what makes buckets free, if there are too few compared with what
    /// waits for it.
    #[inline(never)]
    fn free(this: &Arc<Self>, want: Want) -> Option<u64> {
        let usage = this.shared.client.device_usage(this.index);
        if usage.is_unknown() && want.watermark > Watermark::Normal {
            return None;
        }
        let open = this.shared.open.nr_open(this.index);
        let free = this.geometry.free(&usage, open, want.watermark);
        if usage.buckets(DataType::NEED_DISCARD) > free {
            Self::queue_discard(this);
        }
        if this.geometry.want_invalidated(&usage) != 0 {
            Self::queue_invalidate(this);
        }
        Some(free)
    }

    /// Buckets of type `data_type`, as counted.
    #[inline(never)]
    pub(super) fn counted(&self, data_type: DataType) -> u64 {
        self.shared.client.device_usage(self.index).buckets(data_type)
    }

    /// Whether cached buckets should be taken over.
    #[inline(never)]
    pub(super) fn wants_invalidated(&self) -> bool {
        let usage = self.shared.client.device_usage(self.index);
        self.geometry.want_invalidated(&usage) != 0
    }

    /// Buckets that ordinary data can have.
    #[inline(never)]
    pub(super) fn available(&self) -> u64 {
        let usage = self.shared.client.device_usage(self.index);
        let open = self.shared.open.nr_open(self.index);
        self.geometry.available(&usage, open, Watermark::Normal)
    }

    /// See [`Geometry::until_crowded`].
    #[inline(never)]
    pub(super) fn until_crowded(&self) -> u64 {
        let usage = self.shared.client.device_usage(self.index);
        self.geometry.until_crowded(&usage, self.shared.open.nr_open(self.index))
    }

    /// Opens a free bucket, with one reference. May sleep and restart.
    #[inline(never)]
    pub(super) fn open_bucket(
        this: &Arc<Self>,
        t: &mut Attempt<'_>,
        want: Want,
    ) -> core::result::Result<core::result::Result<Id, NoBucket>, TransError> {
        use crate::util::counters::Counter;
        let shared = &this.shared;
        let found = match Self::free(this, want) {
            Some(0) => Err(NoBucket::NoneFree),
            free => this.search(t, want, free.unwrap_or(0))?,
        };
        shared.counters.inc(match found {
            Ok(_) => Counter::BUCKET_ALLOC,
            Err(_) => Counter::BUCKET_ALLOC_FAIL,
        });
        Ok(found)
    }

    /// What is recorded of `bucket`; `None` if that makes no sense. May sleep and restart.
    pub(super) fn alloc_key(
        &self,
        t: &mut Attempt<'_>,
        bucket: u64,
    ) -> core::result::Result<Option<Alloc>, TransError> {
        Ok(match t.get(BtreeId::ALLOC, self.bucket_pos(bucket))? {
            None => Some(Alloc::default()),
            Some(key) => Alloc::parse(key).ok(),
        })
    }

    /// A bucket is not what it is recorded to be. The first few are reported.
    #[cold]
    pub(super) fn inconsistent(&self, bucket: u64, what: fmt::Arguments<'_>) {
        if self.done.wrong.fetch_add(1, Relaxed) < 10 {
            crate::fs_err!(DisplayC(&self.shared.name), "{}: bucket {bucket}: {what}", &*self.disk);
        }
    }
}

/// Prints a C string.
struct DisplayC<'a>(&'a CStr);

impl fmt::Display for DisplayC<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or("?"))
    }
}
