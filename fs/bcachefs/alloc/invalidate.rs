// SPDX-License-Identifier: GPL-2.0
//! Invalidation: buckets that hold cached data only are reused when space is short, those first that were not read for longest.
//!
//! The generation goes up, which makes the pointers to what was in the bucket stale; they stay in the extents, and readers pass them
//! over.

use super::{
    client::ClockKind,
    device::AllocDevice,
    discard::{update, COMMIT},
};
use crate::{
    btree::{trans::update::UpdateFlags, Attempt, Btree, IterFlags, TransError},
    util::{counters::Counter, error::Result},
};
use bcachefs_format::{
    keys::{
        alloc::{Alloc, IO_TIME_MAX},
        data_type::DataType,
        lru::LruPos,
    },
    BtreeId,
};
use core::ops::ControlFlow;
use kernel::sync::atomic::Relaxed;

/// How far before the clock's value times count as old: clocks wrap.
const AHEAD: u64 = 1 << 32;

/// The times of a list, oldest first, when it is `now`: two ranges, ends included.
fn oldest_first(now: u64) -> [(u64, u64); 2] {
    let start = (now + AHEAD) & IO_TIME_MAX;
    [(start, IO_TIME_MAX), (0, start.saturating_sub(1))]
}

/// `alloc` after its bucket has been taken over at `now`; `None` if it is not the one that is in the list at `time`.
fn invalidated(alloc: &Alloc, time: u64, now: [u64; 2]) -> Option<Alloc> {
    if alloc.data_type != DataType::CACHED || alloc.io_time[0] & IO_TIME_MAX != time {
        return None;
    }
    let mut new = Alloc {
        generation: alloc.generation.wrapping_add(1),
        need_inc_gen: false,
        dirty_sectors: 0,
        cached_sectors: 0,
        stripe_sectors: 0,
        data_type: DataType::FREE,
        io_time: now.map(|t| (t & IO_TIME_MAX).max(1)),
        ..*alloc
    };
    new.data_type = new.data_type_if(new.data_type);
    Some(new)
}

impl AllocDevice {
    /// Invalidates as many buckets as are wanted now.
    pub(super) fn work_invalidate(&self) {
        let Some(btree) = self.shared.btree() else {
            return;
        };
        let now = self.shared.client.io_clock(ClockKind::Read) & IO_TIME_MAX;
        for (first, last) in oldest_first(now) {
            if self.invalidate_range(&btree, first, last) != Ok(ControlFlow::Continue(())) {
                return;
            }
        }
    }

    /// Those from time `first` to `last`. Breaks when there are enough.
    #[inline(never)]
    fn invalidate_range(&self, btree: &Btree, first: u64, last: u64) -> Result<ControlFlow<()>> {
        let list = u16::from(self.index);
        let pos = |time, dev, bucket| LruPos { list, time, dev, bucket }.to_pos();
        let mut at = pos(first, 0, 0);
        let end = pos(last, u16::MAX, IO_TIME_MAX);
        loop {
            if !self.shared.is_running() || !self.wants_invalidated() {
                return Ok(ControlFlow::Break(()));
            }
            let Some(_writing) = self.shared.client.writers().get() else {
                return Ok(ControlFlow::Break(()));
            };
            let next = btree.run(|t| {
                let mut iter = t.iter(BtreeId::LRU, at, IterFlags::NONE);
                Ok(iter.peek_upto(t, end)?.map(|key| key.key.pos))
            })?;
            let Some(found) = next else {
                return Ok(ControlFlow::Continue(()));
            };
            let entry = LruPos::from_pos(found);
            if entry.dev != list || entry.bucket >= self.geometry.nbuckets {
                self.inconsistent(entry.bucket, format_args!("in another device's list"));
            } else {
                let (done, _) = btree.commit(None, COMMIT, |t| self.invalidate_one(t, &entry))?;
                if done {
                    self.done.invalidated.add(1u64, Relaxed);
                    self.shared.counters.inc(Counter::BUCKET_INVALIDATE);
                }
            }
            match found.successor() {
                Some(pos) => at = pos,
                None => return Ok(ControlFlow::Continue(())),
            }
        }
    }

    /// Takes over the bucket of a list's entry. `false` if it is not what the list says: the list's btree lags behind.
    #[inline(never)]
    fn invalidate_one(
        &self,
        t: &mut Attempt<'_>,
        entry: &LruPos,
    ) -> core::result::Result<bool, TransError> {
        if self.shared.open.is_open(self.index, entry.bucket) {
            return Ok(false);
        }
        let client = &self.shared.client;
        let now = [ClockKind::Read, ClockKind::Write].map(|c| client.io_clock(c));
        let pos = self.bucket_pos(entry.bucket);
        let mut iter = t.iter(BtreeId::ALLOC, pos, IterFlags::INTENT);
        let new = match iter.peek_slot(t)? {
            Some(key) if !key.key.key_type.is_whiteout() => {
                invalidated(&Alloc::parse(key)?, entry.time, now)
            }
            _ => None,
        };
        let flags = UpdateFlags { invalidate: true, ..UpdateFlags::default() };
        match new {
            Some(new) => update(t, &iter, &new, flags).map(|()| true),
            None => Ok(false),
        }
    }
}

#[kernel::macros::kunit_tests(bcachefs_alloc_invalidate)]
mod tests {
    use super::*;

    #[test]
    fn oldest_come_first() {
        let [a, b] = oldest_first(1000);
        // 1000 is the newest: everything above what is just ahead of it is from the round before.
        assert_eq!(a, (AHEAD + 1000, IO_TIME_MAX));
        assert_eq!(b, (0, AHEAD + 999));
        let [a, b] = oldest_first(IO_TIME_MAX);
        assert_eq!(a, (AHEAD - 1, IO_TIME_MAX));
        assert_eq!(b, (0, AHEAD - 2));
    }

    #[test]
    fn cached_buckets_are_taken_over() {
        let a = Alloc {
            need_discard: true,
            need_inc_gen: true,
            generation: 255,
            oldest_gen: 250,
            data_type: DataType::CACHED,
            cached_sectors: 100,
            io_time: [77, 5],
            journal_seq: 3,
            ..Alloc::default()
        };
        let want = Alloc {
            generation: 0,
            need_inc_gen: false,
            cached_sectors: 0,
            data_type: DataType::NEED_DISCARD,
            io_time: [1000, 1],
            ..a
        };
        assert_eq!(invalidated(&a, 77, [1000, 0]), Some(want));
        // The list lags behind: it was read in the meantime, or is used for something else.
        assert_eq!(invalidated(&a, 76, [1000, 0]), None);
        let user = Alloc { dirty_sectors: 8, data_type: DataType::USER, ..a };
        assert_eq!(invalidated(&user, 77, [1000, 0]), None);
    }
}
