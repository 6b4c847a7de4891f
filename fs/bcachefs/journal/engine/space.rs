// SPDX-License-Identifier: GPL-2.0
//! How much room the journals of all devices have together.

use super::ring::{Ring, Room, Until};
use super::slot::COPIES_MAX;

/// Room for entries with as many copies as they are to have, by what it takes to use it.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Space {
    /// Now.
    pub(super) discarded: Room,
    /// After discards.
    pub(super) clean_ondisk: Room,
    /// After a flush.
    pub(super) clean: Room,
    /// If nothing were needed.
    pub(super) total: Room,
}

impl Space {
    /// Of `rings`, for entries of which `copies` are written, after the entries of `pending` sectors have been.
    pub(super) fn of(rings: &[Ring], copies: usize, pending: &[u32]) -> Self {
        let nth = |until| {
            let mut entries = Largest::new();
            let mut totals = Largest::new();
            for ring in rings {
                let room = ring.room(until, pending);
                entries.add(room.next_entry.into());
                totals.add(room.total);
            }
            Room {
                // A room's `next_entry` has 32 bits.
                next_entry: entries.nth(copies) as u32,
                total: totals.nth(copies),
            }
        };
        Space {
            discarded: nth(Until::Discarded),
            clean_ondisk: nth(Until::CleanOnDisk),
            clean: nth(Until::Clean),
            total: nth(Until::Total),
        }
    }

    /// Whether so little is free that only what makes room may use it.
    pub(super) fn is_low(&self) -> bool {
        self.clean.total.saturating_mul(4) <= self.total.total
    }

    /// Whether an entry can do without a flush: there is room without what a flush would free, and not much would be freed.
    pub(super) fn may_skip_flush(&self) -> bool {
        let (ondisk, clean) = (self.clean_ondisk.total, self.clean.total);
        u64::from(self.clean_ondisk.next_entry) < ondisk
            && clean.saturating_sub(ondisk) <= self.total.total / 8
            && ondisk.saturating_mul(2) > clean
    }
}

/// The largest of some numbers, in descending order: as many as an entry can have copies.
struct Largest {
    sorted: [u64; COPIES_MAX],
    nr: usize,
}

impl Largest {
    fn new() -> Self {
        Largest { sorted: [0; COPIES_MAX], nr: 0 }
    }

    fn add(&mut self, mut n: u64) {
        self.nr += 1;
        for at in self.sorted.iter_mut().take(self.nr) {
            if n > *at {
                core::mem::swap(at, &mut n);
            }
        }
    }

    /// The `n`-th largest, or 0 if there are fewer.
    fn nth(&self, n: usize) -> u64 {
        let n = n.max(1);
        if n > self.nr {
            return 0;
        }
        self.sorted.get(n - 1).copied().unwrap_or(0)
    }
}

#[cfg(bcachefs_kunit)]
#[kernel::macros::kunit_tests(bcachefs_journal_space)]
mod tests {
    use super::*;
    use kernel::prelude::*;

    #[test]
    fn the_last_copy_decides() -> kernel::error::Result {
        let mut rings = KVec::new();
        for nr in [8, 16, 4] {
            let mut buckets = KVVec::new();
            for b in 0..nr {
                buckets.push(b + 1, GFP_KERNEL)?;
            }
            let mut ring = Ring::new(0, 8, buckets, &[], 0, 0).map_err(|e| e.errno())?;
            ring.advance(1, 1);
            rings.push(ring, GFP_KERNEL)?;
        }
        assert_eq!(Space::of(&rings, 1, &[]).clean, Room { next_entry: 8, total: 8 * 15 });
        assert_eq!(Space::of(&rings, 2, &[]).clean, Room { next_entry: 8, total: 8 * 7 });
        assert_eq!(Space::of(&rings, 3, &[]).clean, Room { next_entry: 8, total: 8 * 3 });
        assert_eq!(Space::of(&rings, 4, &[]).clean, Room::default());
        assert_eq!(Space::of(&rings, 2, &[]).total.total, 64);
        Ok(())
    }

    #[test]
    fn flushes_are_due_before_it_gets_tight() {
        let room = |total| Room { next_entry: 16, total };
        let space = |clean_ondisk, clean| Space {
            discarded: Room::default(),
            clean_ondisk: room(clean_ondisk),
            clean: room(clean),
            total: room(1600),
        };
        assert!(space(800, 800).may_skip_flush());
        assert!(space(800, 1000).may_skip_flush());
        assert!(!space(800, 1001).may_skip_flush());
        assert!(!space(100, 250).may_skip_flush());
        assert!(!space(16, 16).may_skip_flush());
        assert!(space(400, 400).is_low() && !space(0, 401).is_low());
    }
}
