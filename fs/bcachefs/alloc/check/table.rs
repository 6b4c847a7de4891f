// SPDX-License-Identifier: GPL-2.0
//! All buckets: what their keys say, and what has been found to be in them.

use crate::{alloc::geometry::{Buckets, Geometries}, util::error::Result};
use bcachefs_format::keys::{alloc::Alloc, data_type::DataType};
use kernel::prelude::*;

/// A bucket.
#[derive(Copy, Clone, Default)]
pub(super) struct Bucket {
    generation: u8,
    oldest_gen: u8,
    data_type: DataType,
    need_discard: bool,
    sectors: [u32; 3],
    stripe: u32,
    read_time: u64,
    /// What has been found.
    found: [u32; 3],
    found_type: DataType,
}

impl Bucket {
    /// What the key of the bucket says.
    pub(super) fn recorded(&self) -> Alloc {
        let [dirty_sectors, cached_sectors, stripe_sectors] = self.sectors;
        Alloc {
            generation: self.generation,
            oldest_gen: self.oldest_gen,
            data_type: self.data_type,
            need_discard: self.need_discard,
            dirty_sectors,
            cached_sectors,
            stripe_sectors,
            stripe: self.stripe,
            io_time: [self.read_time, 0],
            ..Alloc::default()
        }
    }

    /// What the key of the bucket should say, as far as that can be told.
    pub(super) fn expected(&self) -> Alloc {
        let [dirty_sectors, cached_sectors, stripe_sectors] = self.found;
        let mut a = Alloc { dirty_sectors, cached_sectors, stripe_sectors, ..self.recorded() };
        a.data_type = a.data_type_if(self.found_type);
        a
    }

    /// Takes over what its key says.
    pub(super) fn record(&mut self, a: &Alloc) {
        let [read_time, _] = a.io_time;
        *self = Bucket {
            generation: a.generation,
            oldest_gen: a.oldest_gen,
            data_type: a.data_type,
            need_discard: a.need_discard,
            sectors: [a.dirty_sectors, a.cached_sectors, a.stripe_sectors],
            stripe: a.stripe,
            read_time,
            ..*self
        };
    }

    /// Takes over what has been found in it so far.
    pub(super) fn found(&mut self, a: &Alloc) {
        self.found = [a.dirty_sectors, a.cached_sectors, a.stripe_sectors];
        self.found_type = a.data_type;
    }
}

/// All buckets of all members.
pub(super) struct Table {
    pub(super) geometries: Geometries,
    members: KVec<KVVec<Bucket>>,
}

impl Table {
    /// Empty. May sleep; takes some 50 bytes for each bucket.
    pub(super) fn new(geometries: Geometries) -> Result<Self> {
        let mut members = KVec::new();
        for member in geometries.iter() {
            while members.len() <= usize::from(member.dev) {
                members.push(KVVec::new(), GFP_KERNEL)?;
            }
            if let Some(place) = members.get_mut(usize::from(member.dev)) {
                *place = KVVec::from_elem(Bucket::default(), member.nr as usize, GFP_KERNEL)?;
            }
        }
        Ok(Table { geometries, members })
    }

    /// The bucket `bucket` of `dev`, if it can be used.
    pub(super) fn get_mut(&mut self, dev: u64, bucket: u64) -> Option<&mut Bucket> {
        let dev = u8::try_from(dev).ok()?;
        self.geometries.get(dev).filter(|b| b.contains(bucket))?;
        self.members.get_mut(usize::from(dev))?.get_mut(usize::try_from(bucket).ok()?)
    }

    /// The same for reading, and how its device is divided.
    pub(super) fn get(&self, dev: u64, bucket: u64) -> Option<(Buckets, &Bucket)> {
        let dev = u8::try_from(dev).ok()?;
        let buckets = self.geometries.get(dev).filter(|b| b.contains(bucket))?;
        let member = self.members.get(usize::from(dev))?;
        Some((buckets, member.get(usize::try_from(bucket).ok()?)?))
    }

    /// All buckets that can be used.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Buckets, u64, &Bucket)> {
        self.geometries.iter().flat_map(|buckets| {
            let member = self.members.get(usize::from(buckets.dev));
            let all = member.map_or(&[][..], |m| m).iter().enumerate();
            all.map(move |(nr, b)| (buckets, nr as u64, b))
                .filter(move |(_, nr, _)| buckets.contains(*nr))
        })
    }
}
