// SPDX-License-Identifier: GPL-2.0
//! Taking keys out that have not been used for long, when memory is short.

use super::KeyCache;
use kernel::sync::atomic::Relaxed;
use kfs::mem::{Reclaim, Scanned, Shrink, Tuning};

/// Keys that reclaim leaves.
const RESERVE: usize = 128;

/// They are cheap to bring back, and small.
pub(in crate::btree) const TUNING: Tuning = Tuning {
    seeks: 0,
    batch: 16384,
};

impl KeyCache {
    /// Looks at `nr` keys, from where the last scan ended, and evicts what is clean and has not been used since. How many that were, and
    /// how many were looked at. May sleep.
    pub(in crate::btree) fn evict(&self, nr: usize) -> (usize, usize) {
        let hand = self.hand.load(Relaxed);
        let Ok(walk) = self.table.walk(hand.saturating_add(nr)) else {
            return (0, 0);
        };
        let (mut freed, mut looked) = (0, 0);
        for (_, key) in walk.skip(hand) {
            looked += 1;
            let head = key.shared();
            if head.is_dirty() || head.was_touched() {
                continue;
            }
            let Ok(owned) = key.try_exclusive() else {
                continue;
            };
            // With the lock held it stays so.
            if head.is_dirty() || head.is_dead() {
                continue;
            }
            self.remove(&key);
            drop(owned);
            freed += 1;
        }
        // What has been removed is not to be passed over; at the end it begins anew.
        let end = looked < nr;
        self.hand.store(if end { 0 } else { hand + looked - freed }, Relaxed);
        self.evicted.add(freed as u64, Relaxed);
        (freed, looked)
    }
}

impl Shrink for KeyCache {
    fn count(&self, _: &Reclaim) -> usize {
        self.nr_keys().saturating_sub(self.nr_dirty()).saturating_sub(RESERVE)
    }

    fn scan(&self, _: &Reclaim, nr: usize) -> Scanned {
        let (freed, scanned) = self.evict(nr);
        Scanned::Freed { freed, scanned }
    }
}
