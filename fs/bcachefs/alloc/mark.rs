// SPDX-License-Identifier: GPL-2.0
//! What is recorded of a device before anything else is: its superblocks, its journal, and that the rest is free.

use super::{
    bucket::{self, Listed},
    geometry::Buckets,
    triggers::keys,
};
use crate::{
    btree::{
        trans::update::{CommitFlags, UpdateFlags},
        Attempt, Btree, IterFlags, TransError,
    },
    sb::Device,
    util::error::{Error, Result},
};
use bcachefs_format::{
    keys::{accounting::AccountingKey, data_type::DataType},
    sb::DiskLayout,
    super_block::SB_SECTOR,
    Bpos, BtreeId, KeyRef, KeyType,
};
use kernel::prelude::*;

const FLAGS: CommitFlags = CommitFlags::INITIALISING;

/// Most buckets that one range of free ones covers.
const RANGE_MAX: u64 = 1 << 31;

/// How a device that is present is divided.
fn buckets_of(device: &Device) -> Buckets {
    Buckets {
        dev: device.index,
        first: device.first_bucket,
        nr: device.nbuckets,
        sectors: u32::from(device.bucket_sectors).max(1),
    }
}

/// The buckets that superblocks are in, each with the sectors taken there, ascending. May sleep.
pub fn superblock_buckets(buckets: &Buckets, layout: &DiskLayout) -> Result<KVVec<(u64, u32)>> {
    let mut all: KVVec<(u64, u32)> = KVVec::new();
    let sectors = u64::from(buckets.sectors.max(1));
    let mut add = |from: u64, to: u64| -> Result {
        let mut at = from;
        while at < to && at / sectors < buckets.nr {
            let bucket = at / sectors;
            let end = ((bucket + 1) * sectors).min(to);
            let taken = (end - at) as u32;
            match all.iter_mut().find(|(b, _)| *b == bucket) {
                Some((_, sum)) => *sum = sum.saturating_add(taken),
                None => all.push((bucket, taken), GFP_KERNEL)?,
            }
            at = end;
        }
        Ok(())
    };
    // Before the first copy there is the layout, and room for what a machine starts from.
    if layout.copies().any(|at| at == SB_SECTOR) {
        add(0, SB_SECTOR)?;
    }
    for at in layout.copies() {
        add(at, at.saturating_add(layout.copy_sectors()))?;
    }
    all.sort_unstable();
    Ok(all)
}

/// Records what a bucket holds that no key points to.
fn mark_bucket(
    t: &mut Attempt<'_>,
    pos: Bpos,
    data_type: DataType,
    sectors: u32,
) -> core::result::Result<(), TransError> {
    let mut iter = t.iter(BtreeId::ALLOC, pos, IterFlags::SLOTS | IterFlags::INTENT);
    let mut a = keys::parse_alloc(iter.peek_slot(t)?)?;
    if a.data_type == data_type && a.dirty_sectors == sectors {
        return Ok(());
    }
    if !a.data_type.is_empty() && a.data_type != data_type {
        return Err(Error::BucketInconsistent.into());
    }
    a.data_type = data_type;
    a.dirty_sectors = sectors;
    keys::update_alloc(t, &iter, pos, &a)
}

/// Makes sure that the buckets of the superblocks and of the journal of a device are recorded as such. Sleeps.
pub fn mark_device(btree: &Btree, layout: &DiskLayout, device: &Device) -> Result {
    let buckets = buckets_of(device);
    let mark = |bucket, data_type, sectors| {
        let pos = buckets.pos(bucket);
        btree.commit(None, FLAGS, |t| mark_bucket(t, pos, data_type, sectors)).map(drop)
    };
    for (bucket, sectors) in superblock_buckets(&buckets, layout)?.iter() {
        mark(*bucket, DataType::SB, *sectors)?;
    }
    for (start, nr) in device.journal.iter() {
        for bucket in *start..start.saturating_add(*nr) {
            mark(bucket, DataType::JOURNAL, buckets.sectors)?;
        }
    }
    Ok(())
}

/// Counts all buckets of a new device as free. Once, before any of them is used. Sleeps.
pub fn init_device_usage(btree: &Btree, device: &Device) -> Result {
    count_free(btree, &buckets_of(device))
}

pub(super) fn count_free(btree: &Btree, buckets: &Buckets) -> Result {
    let what = AccountingKey::DevDataType {
        dev: buckets.dev,
        data_type: DataType::FREE,
    };
    let free = buckets.nr.saturating_sub(buckets.first) as i64;
    btree.commit(None, FLAGS, |t| t.account(what, &[free, 0, 0])).map(drop)
}

/// Lists the free buckets of a device, and those to be discarded. Sleeps.
pub fn init_freespace(btree: &Btree, device: &Device) -> Result {
    list_free(btree, &buckets_of(device))
}

pub(super) fn list_free(btree: &Btree, buckets: &Buckets) -> Result {
    let mut at = buckets.first;
    while at < buckets.nr {
        let (next, _) = btree.commit(None, FLAGS, |t| list_from(t, buckets, at))?;
        at = next;
    }
    Ok(())
}

/// Lists the bucket `at`, or the free ones from there on that have no key. The bucket to go on with.
fn list_from(
    t: &mut Attempt<'_>,
    buckets: &Buckets,
    at: u64,
) -> core::result::Result<u64, TransError> {
    let end = buckets.nr.min(at + RANGE_MAX);
    // A bucket that gets its key meanwhile is not free any more.
    let mut iter = t.iter(BtreeId::ALLOC, buckets.pos(at), IterFlags::KEEP);
    let found = iter.peek_upto(t, buckets.pos(end.saturating_sub(1)))?;
    let end = found.map_or(end, |k| k.key.pos.offset);
    if end > at {
        let mut key = keys::header(KeyType::SET, buckets.pos(end), 0);
        key.size = (end - at) as u32;
        let key = KeyRef { key, value: &[] };
        t.insert(BtreeId::FREESPACE, key, UpdateFlags::default())?;
        return Ok(end);
    }
    let a = keys::parse_alloc(found)?;
    match bucket::listed(&a, at) {
        Listed::Not => {}
        listed => keys::list(t, buckets.pos(at), listed, true)?,
    }
    Ok(at + 1)
}

#[kernel::macros::kunit_tests(bcachefs_alloc_mark)]
mod tests {
    use super::*;

    #[test]
    fn superblocks_take_buckets() -> Result {
        // As on a device of 128 MiB: copies of 1 MiB at 8, 2056 and 260096.
        let buckets = Buckets { dev: 0, first: 0, nr: 1024, sectors: 256 };
        let layout = DiskLayout::new(11, &[8, 2056, 260096]);
        let all = superblock_buckets(&buckets, &layout)?;
        assert_eq!(all.len(), 25);
        for (i, (bucket, sectors)) in all.iter().enumerate() {
            let want = if i < 17 { i as u64 } else { 1016 + i as u64 - 17 };
            assert_eq!(*bucket, want);
            assert_eq!(*sectors, if *bucket == 16 { 8 } else { 256 });
        }
        // Two in one bucket, one beyond the end, none at the usual place.
        let layout = DiskLayout::new(3, &[16, 100, 1024 * 256]);
        assert_eq!(&superblock_buckets(&buckets, &layout)?[..], &[(0, 16)]);
        Ok(())
    }
}
