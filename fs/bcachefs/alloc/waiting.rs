// SPDX-License-Identifier: GPL-2.0
//! Buckets that became empty in an entry of the journal that is not durable yet.
//!
//! Such a bucket must not be written to: after a crash the filesystem is what it was before, and needs what is in it. Its alloc key
//! has the number of the entry and is the authority; this table answers quickly, without reading the key.
//!
//! The table has a fixed size, as entries are made in the middle of commits, where nothing can be allocated. When there is no room for
//! an entry the table remembers that, up to which entry of the journal, and answers "unknown" until that is durable.

use crate::util::error::Result;
use kernel::{new_spinlock, prelude::*, sync::SpinLock};

/// Buckets the table has room for.
const SLOTS: usize = 1 << 13;
/// Places in which a bucket can be.
const PROBES: usize = 16;

/// What the table knows of a bucket.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// It need not be waited for.
    Durable,
    /// It became empty in this entry, which is not durable.
    Waiting(u64),
    /// The alloc key has to be looked at.
    Unknown,
}

#[derive(Copy, Clone, Default)]
struct Slot {
    /// Device and bucket; free if `seq` is durable.
    bucket: u64,
    seq: u64,
}

struct Table {
    slots: KVVec<Slot>,
    /// Newest entry of the journal that a bucket without a slot waits for.
    lost: u64,
}

/// See the description of the module.
#[pin_data]
pub(super) struct WaitingTable {
    #[pin]
    table: SpinLock<Table>,
}

fn name(dev: u8, bucket: u64) -> u64 {
    u64::from(dev) << 56 | bucket & ((1 << 56) - 1)
}

/// Where a bucket can be.
fn places(bucket: u64) -> impl Iterator<Item = usize> {
    let hash = bucket.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (0..PROBES).map(move |i| (hash as usize + i) % SLOTS)
}

impl WaitingTable {
    /// An empty table. May sleep.
    pub(super) fn new() -> Result<impl PinInit<Self>> {
        let slots = KVVec::from_elem(Slot::default(), SLOTS, GFP_KERNEL)?;
        Ok(pin_init!(Self {
            table <- new_spinlock!(Table { slots, lost: 0 }, "bcachefs_waiting_buckets"),
        }))
    }

    /// The bucket became empty in entry `seq`; those up to `flushed` are durable. Does not sleep.
    pub(super) fn insert(&self, dev: u8, bucket: u64, seq: u64, flushed: u64) {
        if seq <= flushed {
            return;
        }
        let bucket = name(dev, bucket);
        let mut guard = self.table.lock();
        let table = &mut *guard;
        let mut free = None;
        for i in places(bucket) {
            match table.slots.get_mut(i) {
                Some(s) if s.bucket == bucket && s.seq > flushed => {
                    s.seq = s.seq.max(seq);
                    return;
                }
                Some(s) if s.seq <= flushed && free.is_none() => free = Some(i),
                _ => {}
            }
        }
        match free.and_then(|i| table.slots.get_mut(i)) {
            Some(slot) => *slot = Slot { bucket, seq },
            None => table.lost = table.lost.max(seq),
        }
    }

    /// Whether the bucket can be written to, as far as the journal is concerned. Does not sleep.
    pub(super) fn look_up(&self, dev: u8, bucket: u64, flushed: u64) -> Answer {
        let bucket = name(dev, bucket);
        let table = self.table.lock();
        let mut slots = places(bucket).filter_map(|i| table.slots.get(i));
        match slots.find(|s| s.bucket == bucket && s.seq > flushed) {
            Some(slot) => Answer::Waiting(slot.seq),
            None if table.lost > flushed => Answer::Unknown,
            None => Answer::Durable,
        }
    }

    /// Buckets that wait, and whether there are more. Does not sleep.
    pub(super) fn count(&self, flushed: u64) -> (usize, bool) {
        let table = self.table.lock();
        let waiting = table.slots.iter().filter(|s| s.seq > flushed).count();
        (waiting, table.lost > flushed)
    }
}

#[kernel::macros::kunit_tests(bcachefs_alloc_waiting)]
mod tests {
    use super::*;
    use kernel::sync::Arc;

    fn table() -> Result<Arc<WaitingTable>> {
        Ok(Arc::pin_init(WaitingTable::new()?, GFP_KERNEL)?)
    }

    #[test]
    fn waits_until_durable() -> kernel::error::Result {
        let t = table().map_err(|e| e.errno())?;
        t.insert(0, 7, 5, 4);
        t.insert(1, 7, 9, 4);
        // Durable already: not entered.
        t.insert(2, 7, 4, 4);
        assert_eq!(t.look_up(0, 7, 4), Answer::Waiting(5));
        assert_eq!(t.look_up(0, 7, 5), Answer::Durable);
        assert_eq!(t.look_up(1, 7, 8), Answer::Waiting(9));
        assert_eq!(t.look_up(2, 7, 4), Answer::Durable);
        assert_eq!(t.look_up(0, 8, 4), Answer::Durable);
        // Emptied again later: the newer entry counts, the older one never.
        t.insert(0, 7, 8, 4);
        t.insert(0, 7, 6, 4);
        assert_eq!(t.look_up(0, 7, 7), Answer::Waiting(8));
        assert_eq!(t.count(4), (2, false));
        assert_eq!(t.count(9), (0, false));
        Ok(())
    }

    #[test]
    fn a_full_table_says_so() -> kernel::error::Result {
        let t = table().map_err(|e| e.errno())?;
        let n = 2 * SLOTS as u64;
        for b in 0..n {
            t.insert(3, b, 10 + b, 9);
        }
        let (mut waiting, mut unknown) = (0, 0);
        for b in 0..n {
            match t.look_up(3, b, 9) {
                Answer::Waiting(seq) => {
                    assert_eq!(seq, 10 + b);
                    waiting += 1;
                }
                Answer::Unknown => unknown += 1,
                Answer::Durable => panic!("bucket {b} is forgotten"),
            }
        }
        assert_eq!(waiting + unknown, n);
        assert!(waiting <= SLOTS as u64 && waiting > SLOTS as u64 / 2);
        assert_eq!(t.count(9), (waiting as usize, true));
        // When the newest entry is durable, nothing waits, and the slots can be used again.
        assert_eq!(t.look_up(3, 0, 9 + n), Answer::Durable);
        t.insert(4, 1, 10 + n, 9 + n);
        assert_eq!(t.look_up(4, 1, 9 + n), Answer::Waiting(10 + n));
        assert_eq!(t.count(9 + n), (1, false));
        Ok(())
    }
}
