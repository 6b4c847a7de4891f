// SPDX-License-Identifier: GPL-2.0
//! How members are divided into buckets, whether they are present or not.

use crate::{
    sb::{device::MEMBERS_MAX, Super},
    util::error::Result,
};
use bcachefs_format::{sb::Member, Bpos};
use kernel::prelude::*;

/// The buckets of one member.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Buckets {
    /// The member's index.
    pub dev: u8,
    /// First bucket that may be used.
    pub first: u64,
    /// Number of buckets, counted from bucket 0.
    pub nr: u64,
    /// Sectors of a bucket. Not zero.
    pub sectors: u32,
}

impl Buckets {
    /// Of a member, which has been validated.
    pub fn new(dev: u8, member: &Member) -> Option<Self> {
        let sectors = u32::from(member.bucket_size.get());
        (sectors != 0).then_some(Buckets {
            dev,
            first: member.first_bucket.get().into(),
            nr: member.nbuckets.get(),
            sectors,
        })
    }

    /// The bucket that holds `sector`, if it is one that may be used.
    #[inline]
    pub fn bucket_of(&self, sector: u64) -> Option<u64> {
        let bucket = sector / u64::from(self.sectors.max(1));
        self.contains(bucket).then_some(bucket)
    }

    /// Whether there is such a bucket, and it may be used.
    #[inline]
    pub fn contains(&self, bucket: u64) -> bool {
        (self.first..self.nr).contains(&bucket)
    }

    /// Sectors from the start of its bucket to `sector`.
    #[inline]
    pub fn in_bucket(&self, sector: u64) -> u64 {
        sector % u64::from(self.sectors.max(1))
    }

    /// The position of `bucket` in the trees of buckets.
    #[inline]
    pub fn pos(&self, bucket: u64) -> Bpos {
        Bpos::new(u64::from(self.dev), bucket)
    }
}

/// The buckets of all members.
pub struct Geometries {
    members: KVec<Option<Buckets>>,
}

impl Geometries {
    /// As the superblock has them. May sleep.
    pub fn new(sup: &Super) -> Result<Self> {
        let mut members = KVec::from_elem(None, MEMBERS_MAX, GFP_KERNEL)?;
        for (dev, member) in sup.raw()?.members().iter() {
            if let Some(place) = members.get_mut(usize::from(dev)) {
                *place = Buckets::new(dev, &member);
            }
        }
        Ok(Geometries { members })
    }

    /// Of members given one by one.
    #[cfg(bcachefs_kunit)]
    pub(super) fn of(all: &[Buckets]) -> Result<Self> {
        let mut members = KVec::from_elem(None, MEMBERS_MAX, GFP_KERNEL)?;
        for b in all {
            if let Some(place) = members.get_mut(usize::from(b.dev)) {
                *place = Some(*b);
            }
        }
        Ok(Geometries { members })
    }

    /// Of member `dev`, if there is one.
    #[inline]
    pub fn get(&self, dev: u8) -> Option<Buckets> {
        self.members.get(usize::from(dev)).copied().flatten()
    }

    /// All of them, by index.
    pub fn iter(&self) -> impl Iterator<Item = Buckets> + '_ {
        self.members.iter().copied().flatten()
    }
}
