// SPDX-License-Identifier: GPL-2.0
//! Discarding: what a bucket that has been emptied goes through before it is free.
//!
//! A bucket may be discarded when the entry of the journal that emptied it is durable and it is not open. Until the transaction that
//! makes it free commits, it stays in the need_discard btree, from which only this code removes anything; so it cannot be given
//! out while the device is discarding it. One worker for each device goes through that btree; another one takes the fast path, with
//! buckets it is told of when they become empty.

use super::{
    device::AllocDevice,
    waiting::Answer,
};
use crate::{
    btree::{
        trans::update::{CommitFlags, UpdateFlags},
        Attempt, Btree, Iter, IterFlags, TransError,
    },
    fs_warn,
    util::{counters::Counter, error::Result, watermark::Watermark},
};
use bcachefs_format::{
    bkey::BKEY_U64S,
    keys::{
        alloc::{Alloc, ALLOC_WORDS},
        data_type::DataType,
    },
    Bkey, Bpos, BtreeId, KeyRef, KeyType,
};
use kernel::sync::atomic::Relaxed;

/// Which worker.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Way {
    /// Through the btree.
    Btree,
    /// The fast path.
    Fast,
}

/// What became of a bucket.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Outcome {
    /// It is free, or as good as.
    Done,
    /// Not to be discarded now: it is open, or the other worker has it.
    Busy,
    /// Not before the journal has been flushed.
    Waiting,
    /// Not to be discarded at all.
    NotNeeded,
}

/// How workers commit: they are needed so that others find space.
pub(super) const COMMIT: CommitFlags = CommitFlags {
    watermark: Watermark::Btree,
    no_enospc: true,
    no_check_rw: false,
    journal_reclaim: false,
    no_journal_res: None,
    skip_accounting: false,
    no_triggers: false,
};

/// `alloc` after its bucket has been discarded; `None` if that was not called for.
fn discarded(alloc: &Alloc) -> Option<Alloc> {
    if alloc.data_type != DataType::NEED_DISCARD {
        return None;
    }
    let mut new = Alloc { need_discard: false, ..*alloc };
    new.data_type = new.data_type_if(alloc.data_type);
    Some(new)
}

/// Makes `alloc` the key at the iterator's position when the transaction commits.
pub(super) fn update(
    t: &mut Attempt<'_>,
    iter: &Iter<'_>,
    alloc: &Alloc,
    flags: UpdateFlags,
) -> core::result::Result<(), TransError> {
    let mut value = [0u64; ALLOC_WORDS];
    let words = alloc.build(&mut value).map_err(|_| crate::util::error::Error::BtreeKeyInvalid)?;
    let key = Bkey {
        u64s: BKEY_U64S + words as u8,
        key_type: KeyType::ALLOC_V4,
        ..Bkey::deleted(iter.pos())
    };
    let value = value.get(..words).unwrap_or(&value);
    t.update(iter, KeyRef { key, value }, flags)
}

impl AllocDevice {
    /// Goes through the need_discard btree.
    pub(super) fn work_discard(&self) {
        let Some(btree) = self.shared.btree() else {
            return;
        };
        let (mut seen, mut waiting) = (0u64, 0u64);
        let mut at = 0;
        while self.shared.is_running() {
            let Some(_writing) = self.shared.client.writers().get() else {
                return;
            };
            let outcome = self.next_discard(&btree, at).and_then(|next| match next {
                Some(bucket) => {
                    at = bucket.saturating_add(1);
                    self.discard_bucket(&btree, bucket, Way::Btree).map(Some)
                }
                None => Ok(None),
            });
            match outcome {
                Ok(Some(Outcome::Waiting)) => waiting += 1,
                Ok(Some(_)) => {}
                Ok(None) => break,
                // The next kick tries again.
                Err(_) => return,
            }
            seen += 1;
        }
        if waiting * 2 > seen {
            if let Ok(engine) = btree.engine() {
                engine.journal.flush_async(engine.journal.cur_seq());
            }
        }
    }

    /// Discards the buckets it has been told of.
    pub(super) fn work_discard_fast(&self) {
        let Some(btree) = self.shared.btree() else {
            return;
        };
        while self.shared.is_running() {
            let Some(_writing) = self.shared.client.writers().get() else {
                return;
            };
            let Some(bucket) = self.discards.lock().fast.pop() else {
                return;
            };
            // What goes wrong here is found again in the btree.
            if self.discard_bucket(&btree, bucket, Way::Fast).is_err() {
                return;
            }
        }
    }

    /// The next bucket in the need_discard btree. Sleeps.
    fn next_discard(&self, btree: &Btree, from: u64) -> Result<Option<u64>> {
        let (start, end) = (self.bucket_pos(from), self.bucket_pos(u64::MAX));
        btree.run(|t| {
            let mut iter = t.iter(BtreeId::NEED_DISCARD, start, IterFlags::NONE);
            Ok(iter.peek_upto(t, end)?.map(|key| key.key.pos.offset))
        })
    }

    /// Notes that `bucket` is being discarded; `false` if it is already.
    fn claim(&self, bucket: u64, way: Way) -> bool {
        let mut discards = self.discards.lock();
        if discards.in_flight.contains(&Some(bucket)) {
            return false;
        }
        if let Some(slot) = discards.in_flight.get_mut(way as usize) {
            *slot = Some(bucket);
        }
        true
    }

    fn discard_bucket(&self, btree: &Btree, bucket: u64, way: Way) -> Result<Outcome> {
        if !self.claim(bucket, way) {
            return Ok(Outcome::Busy);
        }
        let result = self.discard_claimed(btree, bucket, way);
        if let Some(slot) = self.discards.lock().in_flight.get_mut(way as usize) {
            *slot = None;
        }
        if result == Ok(Outcome::Done) {
            self.done.discarded.add(1u64, Relaxed);
            self.shared.counters.inc(Counter::BUCKET_DISCARD);
        }
        result
    }

    #[inline(never)]
    fn discard_claimed(&self, btree: &Btree, bucket: u64, way: Way) -> Result<Outcome> {
        let (shared, dev) = (&self.shared, self.index);
        if bucket >= self.geometry.nbuckets || self.nouse.end_of(bucket).is_some() {
            self.inconsistent(bucket, format_args!("in the need_discard btree, but cannot be used"));
            return Ok(Outcome::NotNeeded);
        }
        if shared.open.is_open(dev, bucket) {
            return Ok(Outcome::Busy);
        }
        if let Answer::Waiting(_) = shared.waiting.look_up(dev, bucket, shared.flushed()) {
            return Ok(Outcome::Waiting);
        }
        let alloc = btree.run(|t| self.alloc_key(t, bucket))?;
        match alloc {
            Some(a) if a.data_type == DataType::NEED_DISCARD => {
                if a.journal_seq > shared.flushed() {
                    return Ok(Outcome::Waiting);
                }
            }
            _ => {
                if way == Way::Btree {
                    self.inconsistent(
                        bucket,
                        format_args!("in the need_discard btree, but not to be discarded"),
                    );
                }
                return Ok(Outcome::NotNeeded);
            }
        }
        self.discard_on_device(bucket);
        let pos = self.bucket_pos(bucket);
        let (done, _) = btree.commit(None, COMMIT, |t| self.mark_discarded(t, pos))?;
        Ok(if done { Outcome::Done } else { Outcome::NotNeeded })
    }

    /// Tells the device. What is written there afterwards is safe: this sleeps until it is done.
    #[inline(never)]
    fn discard_on_device(&self, bucket: u64) {
        let wanted = self.shared.client.member(self.index).is_some_and(|m| m.discard());
        if !wanted || !self.shared.client.may_discard() || !self.disk.can_discard() {
            return;
        }
        let start = self.bucket_start(bucket);
        let sectors = self.geometry.bucket_sectors;
        if let Err(e) = self.disk.discard(start, sectors) {
            // It is only a hint.
            if self.done.discard_errors.fetch_add(1, Relaxed) == 0 {
                fs_warn!(&*self.disk, "discard of bucket {bucket}: {e:?}");
            }
        }
    }

    /// The bucket at `pos` needs no discard any more. Whether it did.
    #[inline(never)]
    fn mark_discarded(
        &self,
        t: &mut Attempt<'_>,
        pos: Bpos,
    ) -> core::result::Result<bool, TransError> {
        let mut iter = t.iter(BtreeId::ALLOC, pos, IterFlags::INTENT);
        let new = match iter.peek_slot(t)? {
            Some(key) if key.key.key_type != KeyType::DELETED => discarded(&Alloc::parse(key)?),
            _ => None,
        };
        match new {
            Some(new) => update(t, &iter, &new, UpdateFlags::default()).map(|()| true),
            None => Ok(false),
        }
    }
}

#[kernel::macros::kunit_tests(bcachefs_alloc_discard)]
mod tests {
    use super::*;

    #[test]
    fn discarded_buckets_become_free() {
        let a = Alloc {
            need_discard: true,
            need_inc_gen: true,
            generation: 7,
            oldest_gen: 6,
            journal_seq: 12,
            data_type: DataType::NEED_DISCARD,
            io_time: [3, 4],
            ..Alloc::default()
        };
        let free = discarded(&a);
        let want = Alloc { need_discard: false, data_type: DataType::FREE, ..a };
        assert_eq!(free, Some(want));
        // Already, or full.
        assert_eq!(discarded(&want), None);
        let user = Alloc { dirty_sectors: 8, data_type: DataType::USER, ..a };
        assert_eq!(discarded(&user), None);
        // Old pointers may still be there.
        let old = Alloc { generation: 102, ..a };
        let got = discarded(&old).map(|a| a.data_type);
        assert_eq!(got, Some(DataType::NEED_GC_GENS));
    }
}
