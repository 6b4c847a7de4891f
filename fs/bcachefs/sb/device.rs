// SPDX-License-Identifier: GPL-2.0
//! Member devices that are present.
//!
//! # Invariants
//!
//! A device's geometry has been checked: `first_bucket <= nbuckets`, every bucket lies within the
//! block device, `bucket_sectors` is not zero.

use core::fmt;

use bcachefs_format::{sb::Member, Bpos};
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, UniqueArc,
    },
};
use kfs::block::{BlockDevice, DeviceName};

use crate::util::error::{Error, Result};

/// Most members a filesystem can have.
pub const MEMBERS_MAX: usize = 64;

/// What failed on a device, for its counters.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum IoErrorKind {
    /// A read failed.
    Read,
    /// A write failed.
    Write,
    /// What was read has the wrong checksum.
    Checksum,
}

/// One member device, opened.
pub struct Device {
    /// Index in the superblock's member list; what pointers name.
    pub index: u8,
    /// The block device. Can be written only while the filesystem is read-write.
    pub bdev: Arc<BlockDevice>,
    /// What the superblock says of it.
    pub member: Member,
    /// Number of buckets.
    pub nbuckets: u64,
    /// First usable bucket.
    pub first_bucket: u64,
    /// Sectors of a bucket. Not zero.
    pub bucket_sectors: u16,
    /// Buckets of its journal in ring order, as ranges: first bucket and number of buckets. On a filesystem that has not been
    /// initialised yet and is about to be, those that it is to get.
    pub(crate) journal: KVVec<(u64, u64)>,
    errors: [Atomic<u64>; 3],
}

impl Device {
    /// A member that has been validated, on its block device. `None` if the device is too small.
    #[inline(never)]
    pub(super) fn new(
        index: u8,
        bdev: Arc<BlockDevice>,
        member: Member,
        journal: KVVec<(u64, u64)>,
    ) -> Result<UniqueArc<Self>> {
        let made = init!(Device {
            index,
            nbuckets: member.nbuckets.get(),
            first_bucket: member.first_bucket.get().into(),
            bucket_sectors: member.bucket_size.get(),
            bdev,
            member,
            journal,
            errors: [const { Atomic::new(0) }; 3],
        });
        let device = UniqueArc::init(made, GFP_KERNEL)?;
        // INVARIANT: validation has checked the numbers against each other, this the size.
        let fits = device.member.sectors() <= device.bdev.size_sectors();
        match device.bucket_sectors != 0 && fits {
            true => Ok(device),
            false => Err(Error::DeviceTooSmall),
        }
    }

    /// Name of the block device, for messages.
    pub fn name(&self) -> DeviceName {
        self.bdev.name()
    }

    /// The bucket that holds `sector`.
    #[inline]
    pub fn bucket_of(&self, sector: u64) -> u64 {
        sector / u64::from(self.bucket_sectors.max(1))
    }

    /// First sector of bucket `bucket`.
    #[inline]
    pub fn bucket_start(&self, bucket: u64) -> u64 {
        bucket.saturating_mul(u64::from(self.bucket_sectors))
    }

    /// The position of bucket `bucket` in the trees of buckets.
    #[inline]
    pub fn bucket_pos(&self, bucket: u64) -> Bpos {
        Bpos::new(u64::from(self.index), bucket)
    }

    /// Whether `sectors` sectors from `sector` on lie in usable buckets, without crossing the end.
    pub fn contains(&self, sector: u64, sectors: u32) -> bool {
        let start = self.bucket_start(self.first_bucket);
        let end = self.bucket_start(self.nbuckets);
        sector >= start
            && sector
                .checked_add(u64::from(sectors))
                .is_some_and(|e| e <= end)
    }

    /// Counts an I/O error. Any context.
    pub fn count_error(&self, kind: IoErrorKind) {
        if let Some(n) = self.errors.get(kind as usize) {
            n.add(1, Relaxed);
        }
    }

    /// Errors of one kind since mount.
    pub fn errors(&self, kind: IoErrorKind) -> u64 {
        self.errors
            .get(kind as usize)
            .map_or(0, |e| e.load(Relaxed))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.name(), f)
    }
}

/// The members that are present.
pub struct Devices {
    slots: KVec<Option<Arc<Device>>>,
}

impl Devices {
    /// No members, room for all.
    pub(super) fn new() -> Result<Self> {
        let mut slots = KVec::with_capacity(MEMBERS_MAX, GFP_KERNEL)?;
        for _ in 0..MEMBERS_MAX {
            slots.push(None, GFP_KERNEL)?;
        }
        Ok(Devices { slots })
    }

    /// Adds a member. `false` if its slot is taken or does not exist.
    pub(super) fn add(&mut self, device: Arc<Device>) -> bool {
        match self.slots.get_mut(usize::from(device.index)) {
            Some(slot @ None) => {
                *slot = Some(device);
                true
            }
            _ => false,
        }
    }

    /// The member with index `index`, if it is present.
    #[inline]
    pub fn get(&self, index: u8) -> Option<&Arc<Device>> {
        self.slots.get(usize::from(index))?.as_ref()
    }

    /// All members present, by index.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Device>> {
        self.slots.iter().flatten()
    }
}
