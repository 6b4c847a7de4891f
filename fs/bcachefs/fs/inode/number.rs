// SPDX-License-Identifier: GPL-2.0
//! Numbers of new inodes.
//!
//! Each processor has a range of its own if the superblock says so, and goes on from the highest number in it, from its start
//! again when the range has been used up. A number is free if no snapshot has anything there, be it what
//! is left of a deleted inode; so a number in use is not handed out, and one that was handed out is not for a long time.

use core::ops::RangeInclusive;

use bcachefs_format::{
    keys::inode::INUM_MIN,
    pos::Bpos,
    sb::options::Options as SbOptions,
    BtreeId,
};
use kernel::{
    cpu::{nr_cpu_ids, CpuId},
    new_mutex,
    prelude::*,
    sync::Mutex,
};

use crate::{
    btree::{Attempt, Btree, IterFlags, TransError},
    util::error::{Error, Result},
};

/// Keys looked at in one transaction in search of a free number.
const BATCH: u32 = 1024;

/// The numbers of a mounted filesystem.
pub struct Numbers {
    /// The next number to try, by shard; 0 before the first.
    shards: KVec<Pin<KBox<Shard>>>,
    /// How many bits of a number say where in its shard it is.
    bits: u32,
}

#[pin_data]
struct Shard {
    #[pin]
    next: Mutex<u64>,
}

impl Numbers {
    /// For a filesystem with these options.
    pub fn new(options: &SbOptions) -> Result<Self> {
        let bits: u32 = if options.inodes_32bit { 31 } else { 63 };
        let count = match options.shard_inode_numbers {
            true => (nr_cpu_ids() as usize).max(1).next_power_of_two(),
            false => 1,
        };
        let mut shards = KVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            let shard = pin_init!(Shard { next <- new_mutex!(0, "inode_numbers") });
            shards.push(KBox::pin_init(shard, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        Ok(Numbers { shards, bits: bits.saturating_sub(count.trailing_zeros()) })
    }

    /// The numbers of shard `shard`.
    fn range(&self, shard: usize) -> RangeInclusive<u64> {
        let first = (shard as u64) << self.bits;
        let last = first | ((1 << self.bits) - 1);
        first.max(INUM_MIN)..=last
    }

    /// A number that is free, and that nobody else gets meanwhile. May sleep.
    ///
    /// # Errors
    ///
    /// [`Error::InodeNumbersFull`] if there is none in the processor's range.
    pub fn take(&self, btree: &Btree) -> Result<u64> {
        let index = CpuId::current().as_u32() as usize % self.shards.len().max(1);
        let shard = self.shards.get(index).ok_or(Error::InodeNumbersFull)?;
        let range = self.range(index);
        let mut next = shard.next.lock();
        if *next == 0 {
            let highest = btree.run(|t| highest(t, &range))?;
            *next = highest.map_or(*range.start(), |n| n.saturating_add(1));
        }
        let mut found = free_from(btree, *next, *range.end())?;
        if found.is_none() {
            found = free_from(btree, *range.start(), *range.end())?;
        }
        let found = found.ok_or(Error::InodeNumbersFull)?;
        *next = found.saturating_add(1);
        Ok(found)
    }
}

/// The highest number in use in `range`.
fn highest(
    t: &mut Attempt<'_>,
    range: &RangeInclusive<u64>,
) -> core::result::Result<Option<u64>, TransError> {
    let last = Bpos::with_snapshot(0, *range.end(), u32::MAX);
    let mut iter = t.iter(BtreeId::INODES, last, IterFlags::ALL_SNAPSHOTS);
    let found = iter.peek_prev(t)?;
    Ok(found.map(|k| k.key.pos.offset).filter(|n| range.contains(n)))
}

/// The first number from `from` to `last` with nothing there.
fn free_from(btree: &Btree, from: u64, last: u64) -> Result<Option<u64>> {
    let mut want = from;
    loop {
        if want > last {
            return Ok(None);
        }
        let done = btree.run(|t| {
            let mut at = want;
            let start = Bpos::with_snapshot(0, at, 0);
            let end = Bpos::with_snapshot(0, last, u32::MAX);
            let mut iter = t.iter(BtreeId::INODES, start, IterFlags::ALL_SNAPSHOTS);
            for _ in 0..BATCH {
                match iter.peek_upto(t, end)? {
                    Some(key) if key.key.pos.offset <= at => at = key.key.pos.offset.saturating_add(1),
                    _ => return Ok((at, true)),
                }
                if at > last || !iter.advance() {
                    break;
                }
            }
            Ok((at, at > last))
        })?;
        want = done.0;
        if done.1 {
            return Ok((want <= last).then_some(want));
        }
    }
}

/// Whether nothing is at `inum`; stays true until the commit.
pub fn is_free(t: &mut Attempt<'_>, inum: u64) -> core::result::Result<bool, TransError> {
    let start = Bpos::with_snapshot(0, inum, 0);
    let end = Bpos::with_snapshot(0, inum, u32::MAX);
    let flags = IterFlags::ALL_SNAPSHOTS | IterFlags::INTENT | IterFlags::KEEP;
    let mut iter = t.iter(BtreeId::INODES, start, flags);
    Ok(iter.peek_upto(t, end)?.is_none())
}
