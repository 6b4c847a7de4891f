// SPDX-License-Identifier: GPL-2.0
//! Choosing buckets for one extent.
//!
//! In this order: buckets the write point has, buckets others have left behind, new ones. Devices of the target first; if that does not
//! do, all. A device that has no bucket right now does not keep the others from being tried.

use super::{
    allocator::Allocator,
    client::is_writable,
    device::{AllocDevice, NoBucket, Want},
    device_set::DeviceSet,
    gens_gc::GensGc,
    open_buckets::{Id, Ids, OpenBucket},
    targets::allows,
    write_points::{Point, WritePointSpec},
};
use crate::{
    btree::{Attempt, TransError},
    sb::device::MEMBERS_MAX,
    util::{error::Error, watermark::Watermark},
};
use bcachefs_format::{
    keys::data_type::DataType,
    sb::{Member, Target},
};

/// What is asked for.
#[derive(Copy, Clone, Debug)]
pub struct AllocRequest {
    /// Whose buckets.
    pub point: WritePointSpec,
    /// What will be written.
    pub data_type: DataType,
    /// Sectors wanted.
    pub sectors: u32,
    /// Fewer are of no use. At least 1.
    pub sectors_min: u32,
    /// Durability wanted.
    pub replicas: u8,
    /// With less it fails, if there are not enough devices for more.
    pub required: u8,
    /// Where it should go.
    pub target: Target,
    /// It must go there, and failing that, fail: never waits.
    pub only_target: bool,
    /// Devices that hold the extent already.
    pub have: DeviceSet,
    /// How urgent it is.
    pub watermark: Watermark,
}

/// Why there is no place.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Lack {
    /// There are buckets to wait for.
    Bucket(NoBucket),
    /// There are not enough devices.
    Devices,
}

/// Buckets chosen so far.
pub(super) struct Choice {
    pub chosen: Ids,
    pub durability: u32,
    /// Devices that hold the extent, or will.
    have: DeviceSet,
    /// No bucket on a device that is no durable copy is wanted, or not any more.
    have_cache: bool,
}

impl AllocRequest {
    /// What the buckets hold: cached data may be in one with other data of users.
    pub(super) fn bucket_type(&self) -> DataType {
        match self.data_type {
            DataType::CACHED => DataType::USER,
            t => t,
        }
    }

    /// Whether an open bucket could be used.
    fn suits(&self, b: &OpenBucket) -> bool {
        b.data_type == self.bucket_type() && b.sectors_free >= self.sectors_min.max(1)
    }

    pub(super) fn wanted(&self) -> u32 {
        u32::from(self.replicas.max(1))
    }
}

impl Choice {
    pub(super) fn new(req: &AllocRequest) -> Self {
        Choice {
            chosen: Ids::new(),
            durability: 0,
            have: req.have,
            // Metadata is never where it does not count as a copy.
            have_cache: matches!(req.data_type, DataType::BTREE | DataType::JOURNAL | DataType::SB),
        }
    }

    /// Whether a bucket on `dev`, a copy on which counts for `durability`, is wanted.
    fn wants(&self, dev: u8, durability: u8) -> bool {
        !self.have.has(dev) && (durability != 0 || !self.have_cache)
    }

    /// Takes a bucket; `false` if there are as many as an extent can have.
    pub(super) fn take(&mut self, id: Id, dev: u8, durability: u8) -> bool {
        if !self.chosen.push(id) {
            return false;
        }
        self.have.add(dev);
        self.durability += u32::from(durability);
        self.have_cache |= durability == 0;
        true
    }

    /// Drops buckets beyond `wanted` that the rest does without, the last first.
    pub(super) fn trim(&mut self, wanted: u32, durability: impl Fn(Id) -> u32) {
        let mut extra = self.durability.saturating_sub(wanted);
        let mut drop = Ids::new();
        for id in self.chosen.as_slice().iter().rev() {
            let d = durability(*id);
            if d != 0 && d <= extra {
                extra -= d;
                self.durability -= d;
                let _ = drop.push(*id);
            }
        }
        self.chosen.retain(|id| !drop.contains(id));
    }
}

impl Allocator {
    /// Devices on which data of `data_type` can be put now.
    #[inline(never)]
    pub(super) fn eligible(&self, data_type: DataType) -> DeviceSet {
        let mut set = DeviceSet::NONE;
        for dev in self.shared.writable().iter() {
            let member = self.shared.client.member(dev);
            if member.is_some_and(|m| is_writable(&m) && allows(&m, data_type)) {
                set.add(dev);
            }
        }
        set
    }

    /// What a copy on `dev` counts for.
    #[inline(never)]
    pub fn durability(&self, dev: u8) -> u8 {
        self.shared.client.member(dev).as_ref().map_or(0, Member::durability)
    }

    /// Chooses open buckets for `req`. New ones are in `point` as well, whatever comes of it. May sleep and restart.
    pub(super) fn choose(
        &self,
        t: &mut Attempt<'_>,
        req: &AllocRequest,
        point: &mut Point,
    ) -> Result<Result<Choice, Lack>, TransError> {
        let all = self.eligible(req.data_type);
        let mut choice = Choice::new(req);
        let target = self.targets.devices(req.target);
        if let Some(target) = target {
            let found = self.choose_from(t, req, point, &mut choice, all.and(target))?;
            match found {
                Ok(()) => return Ok(Ok(choice)),
                // Others would not get more open buckets either: they are not a reason to leave the target.
                Err(Lack::Bucket(NoBucket::TooManyOpen)) => {
                    return Ok(Err(Lack::Bucket(NoBucket::TooManyOpen)))
                }
                Err(lack) if req.only_target => return Ok(self.settle(req, choice, lack)),
                Err(_) => choice.have_cache = true,
            }
        }
        let found = self.choose_from(t, req, point, &mut choice, all)?;
        Ok(match found {
            Ok(()) => Ok(choice),
            Err(lack) => self.settle(req, choice, lack),
        })
    }

    /// Fewer copies than wanted will do if there are no more devices.
    fn settle(&self, req: &AllocRequest, choice: Choice, lack: Lack) -> Result<Choice, Lack> {
        let enough = choice.durability >= u32::from(req.required.max(1));
        if lack == Lack::Devices && enough {
            Ok(choice)
        } else {
            Err(lack)
        }
    }

    /// Chooses buckets on the devices `from`.
    fn choose_from(
        &self,
        t: &mut Attempt<'_>,
        req: &AllocRequest,
        point: &mut Point,
        choice: &mut Choice,
        from: DeviceSet,
    ) -> Result<Result<(), Lack>, TransError> {
        let open = &self.shared.open;
        let mut durable = [0u8; MEMBERS_MAX];
        for (slot, dev) in durable.iter_mut().zip(0..) {
            if from.has(dev) {
                *slot = self.durability(dev);
            }
        }
        let durability = |dev: u8| durable.get(usize::from(dev)).copied().unwrap_or(0);
        for id in point.open.as_slice() {
            if choice.durability >= req.wanted() {
                return Ok(Ok(()));
            }
            let Some(b) = open.info(*id).filter(|b| req.suits(b) && from.has(b.dev)) else {
                continue;
            };
            let d = durability(b.dev);
            if choice.wants(b.dev, d) && !choice.take(*id, b.dev, d) {
                return Ok(Err(Lack::Devices));
            }
        }
        // Partial ones are open already; but if nearly none is left, they are for those who are more urgent.
        while choice.durability < req.wanted() {
            let fits = |b: &OpenBucket| {
                req.suits(b) && from.has(b.dev) && choice.wants(b.dev, durability(b.dev))
            };
            let Some(id) = open.adopt(fits) else { break };
            let Some(b) = open.info(id) else { break };
            self.keep(point, id, choice);
            if !choice.take(id, b.dev, durability(b.dev)) {
                return Ok(Err(Lack::Devices));
            }
        }
        self.open_new(t, req, point, choice, from)
    }

    /// Gives `point` an open bucket. If it has no room for it, it leaves one behind that was not chosen.
    fn keep(&self, point: &mut Point, id: Id, choice: &Choice) {
        if point.open.push(id) {
            return;
        }
        let mut idle = point.open.as_slice().iter().copied();
        if let Some(idle) = idle.find(|id| !choice.chosen.contains(*id)) {
            point.open.retain(|i| i != idle);
            self.shared.leave_open(idle);
        }
        // It has more room than a choice: one was idle.
        if !point.open.push(id) {
            self.shared.put_open(&[id]);
        }
    }

    /// Opens new buckets.
    #[inline(never)]
    fn open_new(
        &self,
        t: &mut Attempt<'_>,
        req: &AllocRequest,
        point: &mut Point,
        choice: &mut Choice,
        from: DeviceSet,
    ) -> Result<Result<(), Lack>, TransError> {
        if choice.durability >= req.wanted() {
            return Ok(Ok(()));
        }
        let want = Want { data_type: req.bucket_type(), watermark: req.watermark };
        let mut lack = Lack::Devices;
        for dev in point.clock.order(from).iter() {
            let durability = self.durability(dev);
            let Some(device) = self.device(dev).filter(|_| choice.wants(dev, durability)) else {
                continue;
            };
            match AllocDevice::open_bucket(device, t, want)? {
                Ok(id) => {
                    point.clock.chosen(dev, device.available());
                    self.keep(point, id, choice);
                    if !choice.take(id, dev, durability) {
                        return Ok(Err(Lack::Devices));
                    }
                }
                Err(why) => {
                    lack = Lack::Bucket(why);
                    if device.counted(DataType::NEED_GC_GENS) != 0 {
                        GensGc::queue(&self.gens);
                    }
                }
            }
            if choice.durability >= req.wanted() {
                return Ok(Ok(()));
            }
        }
        Ok(Err(lack))
    }

    /// What to tell those for whom there is nothing to wait.
    pub(super) fn hopeless(lack: Lack) -> Error {
        match lack {
            Lack::Bucket(_) => Error::NoSpace,
            Lack::Devices => Error::DevicesInsufficient,
        }
    }
}

#[kernel::macros::kunit_tests(bcachefs_alloc_request)]
mod tests {
    use super::*;

    fn request(data_type: DataType) -> AllocRequest {
        AllocRequest {
            point: WritePointSpec::Btree,
            data_type,
            sectors: 8,
            sectors_min: 8,
            replicas: 2,
            required: 1,
            target: Target(0),
            only_target: false,
            have: DeviceSet::one(5),
            watermark: Watermark::Normal,
        }
    }

    #[test]
    fn each_device_once_and_one_cache() {
        let mut c = Choice::new(&request(DataType::USER));
        assert!(!c.wants(5, 1) && c.wants(0, 1) && c.wants(1, 0));
        assert!(c.take(10, 1, 0));
        // A second copy that does not count is not wanted.
        assert!(!c.wants(1, 1) && !c.wants(2, 0) && c.wants(2, 1));
        assert!(c.take(11, 2, 2));
        assert_eq!(c.durability, 2);
        let c = Choice::new(&request(DataType::BTREE));
        assert!(!c.wants(1, 0) && c.wants(1, 1));
    }

    #[test]
    fn surplus_is_given_back() {
        let durability = |id: Id| u32::from(id % 10);
        let choose = |ids: &[Id], wanted: u32| {
            let mut c = Choice::new(&request(DataType::USER));
            for (dev, id) in ids.iter().enumerate() {
                assert!(c.take(*id, dev as u8, durability(*id) as u8));
            }
            c.trim(wanted, durability);
            let sum: u32 = c.chosen.as_slice().iter().map(|id| durability(*id)).sum();
            assert_eq!(sum, c.durability);
            c.chosen
        };
        // One that counts for two makes the first superfluous; the last is looked at first.
        assert_eq!(choose(&[11, 22], 2).as_slice(), [22]);
        assert_eq!(choose(&[22, 11], 2).as_slice(), [22]);
        assert_eq!(choose(&[11, 21], 2).as_slice(), [11, 21]);
        assert_eq!(choose(&[12, 22], 3).as_slice(), [12, 22]);
        // A cached copy is no surplus.
        assert_eq!(choose(&[10, 22, 31], 2).as_slice(), [10, 22]);
    }

    #[test]
    fn one_more_than_fits_is_refused() {
        let mut c = Choice::new(&request(DataType::USER));
        for dev in 0..4 {
            assert!(c.take(100 + Id::from(dev), dev, 1));
        }
        assert!(!c.take(99, 9, 1));
        assert_eq!((c.chosen.len(), c.durability), (4, 4));
    }
}
