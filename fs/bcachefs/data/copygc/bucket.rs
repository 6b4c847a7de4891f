// SPDX-License-Identifier: GPL-2.0
//! Which buckets are to be emptied, and what is in them.

use core::ops::ControlFlow;

use bcachefs_format::{
    keys::{
        alloc::Alloc,
        backpointer::Backpointer,
        btree_ptr::BtreePtr,
        data_type::DataType,
        lru::{LruPos, LRU_FRAGMENTATION},
    },
    Bpos, BtreeId,
};
use kernel::prelude::*;

use super::{
    extent::{Outcome, Room},
    Copygc, BATCH,
};
use crate::{
    alloc::bucket::fragmentation_time,
    btree::{trans::update::CommitFlags, IterFlags},
    sb::Device,
    util::{
        error::{Error, Result},
        watermark::Watermark,
    },
};

/// A place in the list of buckets by fragmentation.
#[derive(Copy, Clone)]
pub(super) struct Place(Bpos);

impl Place {
    /// Before the emptiest bucket.
    pub(super) const FIRST: Place = Place(Self::at(1));

    const fn at(time: u64) -> Bpos {
        LruPos { list: LRU_FRAGMENTATION, time, dev: 0, bucket: 0 }.to_pos()
    }

    /// Behind the fullest.
    const END: Bpos = Self::at((1 << 31) + 1);
}

/// A bucket with something in it that is to be moved.
#[derive(Copy, Clone, Debug)]
pub(super) struct Bucket {
    pub dev: u8,
    pub nr: u64,
    /// What pointers into it have.
    pub generation: u8,
}

impl Bucket {
    /// Whether a pointer goes into it.
    pub(super) fn has(&self, device: &Device, ptr: bcachefs_format::keys::extent::Ptr) -> bool {
        ptr.dev() == self.dev
            && device.bucket_of(ptr.offset()) == self.nr
            && ptr.generation() == self.generation
    }
}

impl Copygc {
    /// The next buckets of the list from `from` on, which moves on; not those that are being written to. Empty at the end of the
    /// list. Sleeps.
    #[inline(never)]
    pub(super) fn candidates(&self, from: &mut Place) -> Result<KVec<Bucket>> {
        let mut found = KVec::with_capacity(BATCH, GFP_KERNEL)?;
        let mut entries: KVec<Bpos> = KVec::with_capacity(BATCH, GFP_KERNEL)?;
        while found.is_empty() {
            entries.clear();
            self.parts.btree.walk(BtreeId::LRU, from.0, Place::END, IterFlags::NONE, |key| {
                Ok(match entries.push_within_capacity(key.key.pos) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                })
            })?;
            let Some(last) = entries.last() else {
                break;
            };
            from.0 = last.successor().unwrap_or(Place::END);
            for &pos in entries.iter() {
                if let Some(bucket) = self.candidate(LruPos::from_pos(pos))? {
                    found.push(bucket, GFP_KERNEL)?;
                }
            }
        }
        Ok(found)
    }

    /// The bucket of an entry of the list, if that is up to date and the bucket can be emptied. Sleeps.
    #[inline(never)]
    fn candidate(&self, entry: LruPos) -> Result<Option<Bucket>> {
        let dev = u8::try_from(entry.dev).ok();
        let Some(device) = dev.and_then(|dev| self.parts.devices.get(dev)) else {
            return Ok(None);
        };
        let nr = entry.bucket;
        if self.parts.allocator.is_open(device.index, nr) {
            return Ok(None);
        }
        let alloc = self.parts.btree.run(|t| {
            let key = t.get(BtreeId::ALLOC, device.bucket_pos(nr))?;
            Ok(key.and_then(|k| Alloc::parse(k).ok()))
        })?;
        let movable = |a: &Alloc| {
            matches!(a.data_type, DataType::USER | DataType::BTREE)
                && a.stripe == 0
                && fragmentation_time(a, device.bucket_sectors.into()) == entry.time
        };
        Ok(alloc.filter(movable).map(|a| Bucket {
            dev: device.index,
            nr,
            generation: a.generation,
        }))
    }

    /// Moves what can be moved out of `bucket`. Sleeps.
    #[inline(never)]
    pub(super) fn evacuate(&self, room: &mut Room, bucket: &Bucket) -> Result {
        let Some(device) = self.parts.devices.get(bucket.dev) else {
            return Ok(());
        };
        let first = |nr| Backpointer::key_pos(bucket.dev, device.bucket_start(nr), 0);
        let (mut at, end) = (first(bucket.nr), first(bucket.nr.saturating_add(1)));
        loop {
            let next = self.parts.btree.run(|t| {
                let mut iter = t.iter(BtreeId::BACKPOINTERS, at, IterFlags::NONE);
                let found = iter.peek_upto(t, end)?.filter(|k| k.key.pos < end);
                Ok(found.map(|k| (k.key.pos, Backpointer::parse(k).ok())))
            })?;
            let Some((pos, bp)) = next else {
                return Ok(());
            };
            // Reused already: what is there now is not what was to be moved.
            let generation = self.parts.allocator.generation(bucket.dev, bucket.nr);
            if generation.is_some_and(|now| now != bucket.generation) {
                return Ok(());
            }
            let done = match bp {
                Some(bp) if bp.level != 0 => self.rewrite(&bp, device, bucket),
                Some(bp) => self.relocate(room, &bp, device, bucket),
                None => Ok(Outcome::Left),
            };
            match done {
                Ok(Outcome::NoRoom) => return Ok(()),
                Ok(Outcome::Moved | Outcome::Left) => {}
                // Nothing is written any more.
                Err(e @ (Error::ReadOnly | Error::JournalFailed | Error::AllocatorStopped)) => {
                    return Err(e)
                }
                Err(e) => {
                    let nr = bucket.nr;
                    self.warn(format_args!("{} bucket {nr}: cannot be emptied: {e}", **device));
                }
            }
            match pos.successor() {
                Some(pos) => at = pos,
                None => return Ok(()),
            }
        }
    }

    /// Writes the node that `bp` leads to elsewhere, if it is in `bucket`. Sleeps.
    #[inline(never)]
    fn rewrite(&self, bp: &Backpointer, device: &Device, bucket: &Bucket) -> Result<Outcome> {
        const COMMIT: CommitFlags = CommitFlags {
            watermark: Watermark::BtreeCopygc,
            no_enospc: true,
            ..CommitFlags::NORMAL
        };
        let (btree, level) = (&self.parts.btree, bp.level.saturating_sub(1));
        let found = btree.walk_nodes_from(bp.btree, level, bp.pos, |head, _| {
            let ptr = head.ptr();
            let inside = BtreePtr::parse(ptr.get())?.ptrs().any(|p| bucket.has(device, p));
            Ok(ControlFlow::Break(inside.then_some(head.hash)))
        })?;
        Ok(match found {
            Some(Some(hash)) if btree.rewrite_node(bp.btree, level, bp.pos, hash, COMMIT)? => {
                Outcome::Moved
            }
            _ => Outcome::Left,
        })
    }
}
