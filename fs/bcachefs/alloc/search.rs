// SPDX-License-Identifier: GPL-2.0
//! Looking for a free bucket of a device.
//!
//! The freespace btree lists free buckets, those first whose generation is not far ahead of the oldest pointer to them. What it says is only
//! a hint where to look: the bucket's alloc key decides. Before a device has been entered there, the alloc keys are all there is; buckets
//! without one are free.
//!
//! A search goes on where the last one ended, and goes round once. Nodes and other things go round separately, as they are wanted in
//! different regions of the device; only if there is nothing in the right region the other one is used.

use super::{
    device::{AllocDevice, NoBucket, Want},
    open_buckets::{Id, NotOpened, OPEN_MAX},
    region::{Map, Region, Wanted},
    reserves::open_reserve,
    waiting::Answer,
};
use crate::{
    btree::{Attempt, IterFlags, TransError},
};
use bcachefs_format::{
    keys::{alloc::Alloc, data_type::DataType},
    Bpos, BtreeId,
};
use core::ops::Range;
use kernel::sync::atomic::{Atomic, Relaxed};

/// Bits of a position in the freespace btree that are the bucket's number; above it is how far ahead its generation is.
const BUCKET_BITS: u32 = 56;

/// Where searches go on.
pub(super) struct Cursors {
    /// In the freespace btree, for nodes and for other things.
    freespace: [Atomic<u64>; 2],
    /// Among alloc keys.
    alloc: [Atomic<u64>; 2],
}

impl Cursors {
    /// At `first_bucket`.
    pub(super) fn new(first_bucket: u64) -> Self {
        let at = || [Atomic::new(first_bucket), Atomic::new(first_bucket)];
        Cursors { freespace: at(), alloc: at() }
    }

    /// Where they are: of the freespace btree, then among alloc keys; for nodes, then for others.
    pub(super) fn positions(&self) -> [u64; 4] {
        let [a, b] = &self.freespace;
        let [c, d] = &self.alloc;
        [a, b, c, d].map(|c| c.load(Relaxed))
    }
}

/// Buckets that were passed over.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Passed {
    /// They are open.
    pub open: u64,
    /// What emptied them is not durable yet.
    pub waiting: u64,
    /// Never given out.
    pub nouse: u64,
    /// Not free after all.
    pub wrong: u64,
}

/// The first candidate in `range`, where `skip` says for a bucket that is none where to go on.
pub(super) fn candidate(
    range: Range<u64>,
    region: &Region,
    mut skip: impl FnMut(u64) -> Option<u64>,
) -> Option<u64> {
    let mut at = range.start;
    while at < range.end {
        match region.next(at)? {
            next if next != at => at = next,
            _ => match skip(at) {
                // Always forward.
                Some(next) => at = next.max(at + 1),
                None => return Some(at),
            },
        }
    }
    None
}

/// Positions of the freespace btree as a part that says how far the generation is ahead, and the buckets of that part.
pub(super) fn parts(range: Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> {
    let mask = (1u64 << BUCKET_BITS) - 1;
    let mut at = range.start;
    core::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let genbits = at >> BUCKET_BITS;
        let end = range.end.min((at | mask).saturating_add(1));
        let buckets = at & mask..(end - 1 & mask) + 1;
        at = end;
        Some((genbits, buckets))
    })
}

impl AllocDevice {
    /// Opens a free bucket. `free` buckets are there for this urgency. May sleep and restart.
    pub(super) fn search(
        &self,
        t: &mut Attempt<'_>,
        want: Want,
        free: u64,
    ) -> Result<Result<Id, NoBucket>, TransError> {
        let reserve = open_reserve(OPEN_MAX as u32, want.watermark);
        if self.shared.open.nr_free() <= reserve {
            return Ok(Err(NoBucket::TooManyOpen));
        }
        let Some((initialized, map)) = self.state() else {
            return Ok(Err(NoBucket::NoneFree));
        };
        let (class, wanted) = match want.data_type {
            DataType::BTREE => (0, Wanted::Nodes),
            _ => (1, Wanted::Others),
        };
        let cursors = match initialized {
            true => &self.cursors.freespace,
            false => &self.cursors.alloc,
        };
        let (Some(cursor), first) = (cursors.get(class), self.geometry.first_bucket) else {
            return Ok(Err(NoBucket::NoneFree));
        };
        let mut passed = Passed::default();
        for wanted in [wanted, Wanted::Any] {
            let region = Region {
                map,
                bucket_sectors: self.geometry.bucket_sectors,
                wanted,
            };
            let start = cursor.load(Relaxed).max(first);
            for range in [start..u64::MAX, first..start] {
                let found = match initialized {
                    true => self.lap_freespace(t, range, &region, want, reserve, &mut passed)?,
                    false => self.lap_alloc(t, range, &region, want, reserve, &mut passed)?,
                };
                match found {
                    Some((at, id)) => {
                        cursor.store(at.saturating_add(1), Relaxed);
                        return Ok(Ok(id));
                    }
                    None if self.shared.open.nr_free() <= reserve => {
                        return Ok(Err(NoBucket::TooManyOpen))
                    }
                    None => {}
                }
            }
        }
        if passed.waiting.saturating_mul(2) > free {
            if let Ok(engine) = t.btree().engine() {
                engine.journal.flush_async(engine.journal.cur_seq());
            }
        }
        Ok(Err(NoBucket::NoneFree))
    }

    /// Whether the freespace btree knows of the device, and where nodes are on it.
    ///
    /// Not inlined, like all that looks at members and counters here: these are large, and searches are deep.
    #[inline(never)]
    fn state(&self) -> Option<(bool, Map)> {
        let member = self.shared.client.member(self.index)?;
        Some((member.freespace_initialized(), Map::of(&member)))
    }

    /// Whether a bucket need not be looked at more closely: where to go on.
    fn skip(&self, bucket: u64, passed: &mut Passed) -> Option<u64> {
        let dev = self.index;
        let shared = &self.shared;
        if let Some(end) = self.nouse.end_of(bucket) {
            passed.nouse += 1;
            return Some(end);
        }
        if shared.open.is_open(dev, bucket) {
            passed.open += 1;
            return Some(bucket + 1);
        }
        if let Answer::Waiting(_) = shared.waiting.look_up(dev, bucket, shared.flushed()) {
            passed.waiting += 1;
            return Some(bucket + 1);
        }
        None
    }

    /// Opens `bucket` if its alloc key, which is locked, allows it. `Ok(None)`: look further.
    fn try_open(
        &self,
        alloc: &Alloc,
        bucket: u64,
        want: Want,
        reserve: u32,
        passed: &mut Passed,
    ) -> Option<Id> {
        if alloc.journal_seq > self.shared.flushed() {
            passed.waiting += 1;
            return None;
        }
        // From here on until somebody commits a key for it, being open is all that protects it. Nobody can have done so since
        // the key was read: it is locked.
        let opened = self.shared.open.open(
            self.index,
            bucket,
            alloc.generation,
            want.data_type,
            self.geometry.bucket_sectors as u32,
            reserve,
        );
        match opened {
            Ok(id) => Some(id),
            Err(NotOpened::Already) => {
                passed.open += 1;
                None
            }
            Err(NotOpened::TableFull) => None,
        }
    }

    /// Goes through a range of the freespace btree. The position of the bucket and the open bucket.
    fn lap_freespace(
        &self,
        t: &mut Attempt<'_>,
        range: Range<u64>,
        region: &Region,
        want: Want,
        reserve: u32,
        passed: &mut Passed,
    ) -> Result<Option<(u64, Id)>, TransError> {
        let dev = u64::from(self.index);
        let end = Bpos::new(dev, range.end);
        let mut iter = t.iter(BtreeId::FREESPACE, Bpos::new(dev, range.start), IterFlags::NONE);
        while let Some(key) = iter.peek_upto(t, end)? {
            let key = key.key;
            let found = key.start_offset().max(range.start)..key.pos.offset.min(range.end);
            for (genbits, mut buckets) in parts(found) {
                buckets.end = buckets.end.min(self.geometry.nbuckets);
                while let Some(bucket) = candidate(buckets.clone(), region, |b| self.skip(b, passed)) {
                    buckets.start = bucket + 1;
                    let alloc = self.alloc_key(t, bucket)?;
                    let good = |a: &Alloc| {
                        a.data_type == DataType::FREE && u64::from(a.gc_gen() >> 4) == genbits
                    };
                    let Some(alloc) = alloc.filter(good) else {
                        passed.wrong += 1;
                        self.inconsistent(bucket, format_args!("in the freespace btree but not free"));
                        continue;
                    };
                    if let Some(id) = self.try_open(&alloc, bucket, want, reserve, passed) {
                        return Ok(Some((genbits << BUCKET_BITS | bucket, id)));
                    }
                    if self.shared.open.nr_free() <= reserve {
                        return Ok(None);
                    }
                }
            }
            if !iter.advance() {
                break;
            }
        }
        Ok(None)
    }

    /// Goes through a range of buckets by their alloc keys.
    fn lap_alloc(
        &self,
        t: &mut Attempt<'_>,
        range: Range<u64>,
        region: &Region,
        want: Want,
        reserve: u32,
        passed: &mut Passed,
    ) -> Result<Option<(u64, Id)>, TransError> {
        let Some(last) = self.geometry.nbuckets.min(range.end).checked_sub(1) else {
            return Ok(None);
        };
        let mut at = range.start;
        while at <= last {
            // The next bucket with a key: those before it are free.
            let (key, alloc) = {
                let (pos, end) = (self.bucket_pos(at), self.bucket_pos(last));
                let mut iter = t.iter(BtreeId::ALLOC, pos, IterFlags::NONE);
                match iter.peek_upto(t, end)? {
                    Some(key) => (key.key.pos.offset, Alloc::parse(key).ok()),
                    None => (last + 1, None),
                }
            };
            let mut hole = at..key;
            while let Some(bucket) = candidate(hole.clone(), region, |b| self.skip(b, passed)) {
                hole.start = bucket + 1;
                // The hole is locked only as far as its last look.
                let alloc = self.alloc_key(t, bucket)?;
                let Some(alloc) = alloc.filter(|a| a.data_type == DataType::FREE) else {
                    continue;
                };
                if let Some(id) = self.try_open(&alloc, bucket, want, reserve, passed) {
                    return Ok(Some((bucket, id)));
                }
                if self.shared.open.nr_free() <= reserve {
                    return Ok(None);
                }
            }
            let free = alloc.filter(|a| a.data_type == DataType::FREE);
            let one = candidate(key..key.saturating_add(1), region, |b| self.skip(b, passed));
            if let (Some(_), Some(bucket)) = (free, one) {
                let alloc = self.alloc_key(t, bucket)?;
                if let Some(alloc) = alloc.filter(|a| a.data_type == DataType::FREE) {
                    if let Some(id) = self.try_open(&alloc, bucket, want, reserve, passed) {
                        return Ok(Some((bucket, id)));
                    }
                }
            }
            at = key.saturating_add(1);
        }
        Ok(None)
    }
}

#[kernel::macros::kunit_tests(bcachefs_alloc_search)]
mod tests {
    use super::*;
    use bcachefs_format::sb::Member;

    #[test]
    fn parts_by_generation() {
        let g = |bits: u64, b: u64| bits << BUCKET_BITS | b;
        let all: kernel::alloc::KVec<_> = {
            let mut v = kernel::alloc::KVec::new();
            for p in parts(g(0, 5)..g(0, 9)).chain(parts(g(2, 7)..g(2, 8))) {
                let _ = v.push(p, kernel::alloc::flags::GFP_KERNEL);
            }
            v
        };
        assert_eq!(all.as_slice(), [(0, 5..9), (2, 7..8)]);
        // Across a border, as a damaged btree may have it.
        let mut p = parts(g(0, (1 << BUCKET_BITS) - 2)..g(1, 3));
        assert_eq!(p.next(), Some((0, (1 << BUCKET_BITS) - 2..1 << BUCKET_BITS)));
        assert_eq!(p.next(), Some((1, 0..3)));
        assert_eq!(p.next(), None);
        assert_eq!(parts(5..5).next(), None);
        assert_eq!(parts(u64::MAX - 1..u64::MAX).count(), 1);
    }

    #[test]
    fn candidates_match_model() {
        let mut member = Member::empty();
        member.btree_bitmap_shift = 6;
        member.btree_allocated_bitmap.set(0b1001_0110);
        for wanted in [Wanted::Nodes, Wanted::Others, Wanted::Any] {
            let region = Region { map: Map::of(&member), bucket_sectors: 16, wanted };
            let taken = |b: u64| b % 3 == 0 || (20..25).contains(&b);
            let skip = |b: u64| match b {
                20..25 => Some(25),
                b if taken(b) => Some(b + 1),
                _ => None,
            };
            let right = |b: u64| {
                let covers = member.bitmap_covers(b * 16, b * 16 + 16);
                wanted == Wanted::Any || covers == (wanted == Wanted::Nodes)
            };
            for start in 0..64 {
                for end in start..64 {
                    let want = (start..end).find(|b| right(*b) && !taken(*b));
                    assert_eq!(candidate(start..end, &region, skip), want);
                }
            }
        }
    }
}
