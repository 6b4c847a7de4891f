// SPDX-License-Identifier: GPL-2.0
//! The ring of journal buckets on one device.
//!
//! Four places in the ring, each at or behind the one before, cut it up:
//!
//! | from | to | buckets |
//! |---|---|---|
//! | `cur` + 1 | `discarded` | free to be written |
//! | `discarded` | `clean_ondisk` | free, to be discarded first |
//! | `clean_ondisk` | `clean` | free as soon as a flush entry says so on disk |
//! | `clean` | `cur` | needed |

use kernel::prelude::*;

use crate::util::error::{Error, Result};

/// Up to where buckets count as free.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Until {
    /// Discarded: can be written at once.
    Discarded,
    /// Not needed by the newest flush entry on disk.
    CleanOnDisk,
    /// Not needed any more.
    Clean,
    /// All there are.
    Total,
}

/// Room, in sectors.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Room {
    /// For the next entry.
    pub(super) next_entry: u32,
    /// For all.
    pub(super) total: u64,
}

/// The journal of one device, while it is written.
pub(super) struct Ring {
    /// The device.
    pub(super) device: u8,
    /// How many copies one on this device counts for. Not zero.
    pub(super) durability: u8,
    /// Whether free buckets are discarded.
    pub(super) discard: bool,
    /// Sectors of a bucket.
    bucket_sectors: u32,
    /// Bucket numbers in ring order.
    buckets: KVVec<u64>,
    /// The highest sequence number in each bucket, or a bound above it.
    seqs: KVVec<u64>,
    cur: usize,
    /// Sectors left in the current bucket.
    left: u32,
    discarded: usize,
    clean_ondisk: usize,
    clean: usize,
    /// Sectors written, by which devices take turns.
    pub(super) written: u64,
}

/// Where on a device something goes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Spot {
    /// The device.
    pub(super) device: u8,
    /// First sector.
    pub(super) sector: u64,
}

impl Ring {
    /// A ring whose bucket `cur` is filled up to `used` sectors. Nothing counts as free until
    /// [`Ring::advance`] has been called.
    pub(super) fn new(
        device: u8,
        bucket_sectors: u32,
        buckets: KVVec<u64>,
        seqs: &[u64],
        cur: usize,
        used: u32,
    ) -> Result<Self> {
        let nr = buckets.len();
        if nr < 2 || cur >= nr || bucket_sectors == 0 {
            return Err(Error::JournalTooSmall);
        }
        let mut all = KVVec::with_capacity(nr, GFP_KERNEL)?;
        for i in 0..nr {
            all.push(seqs.get(i).copied().unwrap_or(0), GFP_KERNEL)?;
        }
        let next = (cur + 1) % nr;
        Ok(Ring {
            device,
            durability: 1,
            discard: false,
            bucket_sectors,
            buckets,
            seqs: all,
            cur,
            left: bucket_sectors.saturating_sub(used),
            discarded: next,
            clean_ondisk: next,
            clean: next,
            written: 0,
        })
    }

    fn nr(&self) -> usize {
        self.buckets.len().max(1)
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) % self.nr()
    }

    fn seq(&self, at: usize) -> u64 {
        self.seqs.get(at).copied().unwrap_or(u64::MAX)
    }

    /// Sectors of a bucket.
    pub(super) fn bucket_sectors(&self) -> u32 {
        self.bucket_sectors
    }

    /// Index of the current bucket, and the sectors used in it.
    pub(super) fn position(&self) -> (u32, u32) {
        // Rings have fewer than 2^32 buckets.
        (self.cur as u32, self.bucket_sectors - self.left)
    }

    /// Takes note that entries below `last_seq` are not needed any more, and that a flush entry on disk says so of those
    /// below `last_seq_ondisk`.
    pub(super) fn advance(&mut self, last_seq: u64, last_seq_ondisk: u64) {
        while self.clean != self.cur && self.seq(self.clean) < last_seq {
            self.clean = self.next(self.clean);
        }
        while self.clean_ondisk != self.clean && self.seq(self.clean_ondisk) < last_seq_ondisk {
            self.clean_ondisk = self.next(self.clean_ondisk);
        }
        if !self.discard {
            self.discarded = self.clean_ondisk;
        }
    }

    /// Buckets that can be written before `until`. One is kept until a newer flush entry would free some: it is for that
    /// entry.
    fn available(&self, until: Until) -> u32 {
        let end = match until {
            Until::Discarded => self.discarded,
            Until::CleanOnDisk => self.clean_ondisk,
            Until::Clean => self.clean,
            Until::Total => return self.nr() as u32,
        };
        let free = (end + self.nr() - self.cur - 1) % self.nr();
        let kept = usize::from(self.clean_ondisk == self.clean);
        free.saturating_sub(kept) as u32
    }

    /// Room up to `until` after the entries `pending` have been placed, given their sectors in order.
    pub(super) fn room(&self, until: Until, pending: &[u32]) -> Room {
        let mut buckets = self.available(until);
        if until == Until::Total {
            return Room {
                next_entry: self.bucket_sectors,
                total: u64::from(self.bucket_sectors) * u64::from(buckets),
            };
        }
        let mut left = self.left;
        for &sectors in pending {
            if left < sectors {
                if buckets == 0 || self.bucket_sectors < sectors {
                    return Room::default();
                }
                buckets -= 1;
                left = self.bucket_sectors;
            }
            left -= sectors;
        }
        // The rest of a bucket may be skipped for the sake of a long entry.
        if left < self.bucket_sectors && buckets > 0 {
            buckets -= 1;
            left = self.bucket_sectors;
        }
        Room {
            next_entry: left,
            total: u64::from(left) + u64::from(buckets) * u64::from(self.bucket_sectors),
        }
    }

    /// Whether `sectors` fit into the current bucket.
    pub(super) fn fits(&self, sectors: u32) -> bool {
        sectors <= self.left
    }

    /// Goes on to the next bucket, so that `sectors` fit. `false` if there is none that may be written, or it would not help.
    pub(super) fn next_bucket(&mut self, sectors: u32) -> bool {
        if sectors > self.bucket_sectors || self.available(Until::Discarded) == 0 {
            return false;
        }
        self.cur = self.next(self.cur);
        self.left = self.bucket_sectors;
        if let Some(seq) = self.seqs.get_mut(self.cur) {
            *seq = 0;
        }
        true
    }

    /// Takes `sectors` of the current bucket for entry `seq`. `None` if they do not fit.
    pub(super) fn take(&mut self, sectors: u32, seq: u64) -> Option<Spot> {
        let bucket = *self.buckets.get(self.cur)?;
        let used = self.bucket_sectors - self.left;
        self.left = self.left.checked_sub(sectors)?;
        if let Some(s) = self.seqs.get_mut(self.cur) {
            *s = seq.max(*s);
        }
        self.written = self.written.wrapping_add(sectors.into());
        Some(Spot {
            device: self.device,
            sector: bucket.checked_mul(self.bucket_sectors.into())? + u64::from(used),
        })
    }

    /// First sector of the next bucket to be discarded.
    pub(super) fn to_discard(&self) -> Option<u64> {
        let at = (self.discarded != self.clean_ondisk).then_some(self.discarded)?;
        self.buckets.get(at)?.checked_mul(self.bucket_sectors.into())
    }

    /// The bucket that [`Ring::to_discard`] named has been discarded.
    pub(super) fn was_discarded(&mut self) {
        if self.discarded != self.clean_ondisk {
            self.discarded = self.next(self.discarded);
        }
    }

    /// Up to which entry all should be written out for half of the ring to be free.
    pub(super) fn half_seq(&self) -> u64 {
        self.seq((self.cur + self.nr() / 2) % self.nr())
    }

    /// Whether a flush entry would free buckets.
    pub(super) fn wants_flush(&self) -> bool {
        self.clean != self.clean_ondisk
    }
}

#[cfg(bcachefs_kunit)]
#[kernel::macros::kunit_tests(bcachefs_journal_ring)]
mod tests {
    use super::*;

    fn ring(nr: u64, seqs: &[u64], cur: usize, used: u32) -> Result<Ring> {
        let mut buckets = KVVec::new();
        for b in 0..nr {
            buckets.push(100 + b, GFP_KERNEL)?;
        }
        Ring::new(3, 16, buckets, seqs, cur, used)
    }

    #[test]
    fn one_bucket_is_kept() -> kernel::error::Result {
        let mut r = ring(4, &[], 0, 4).map_err(|e| e.errno())?;
        // Everything is dirty at first.
        assert_eq!(r.room(Until::Clean, &[]).total, 12);
        r.advance(1, 1);
        // Three free, one is kept.
        assert_eq!(r.available(Until::Discarded), 2);
        assert_eq!(r.room(Until::Discarded, &[]), Room { next_entry: 16, total: 32 });
        assert_eq!(r.take(12, 1), Some(Spot { device: 3, sector: 1604 }));
        assert!(r.take(1, 1).is_none() && !r.fits(1));
        for seq in 2..4 {
            assert!(r.next_bucket(16));
            assert!(r.take(16, seq).is_some());
            r.advance(1, 1);
        }
        assert!(!r.next_bucket(1));
        assert_eq!(r.room(Until::Discarded, &[]), Room::default());
        // The first bucket is not needed any more, but no flush entry says so: the bucket kept is for that one.
        r.advance(2, 1);
        assert!(r.wants_flush());
        assert_eq!(r.available(Until::Discarded), 1);
        assert_eq!(r.available(Until::Clean), 2);
        assert!(r.next_bucket(4));
        assert_eq!(r.take(4, 4), Some(Spot { device: 3, sector: 1648 }));
        assert_eq!(r.available(Until::Discarded), 0);
        r.advance(2, 2);
        assert_eq!(r.available(Until::Discarded), 0);
        r.advance(4, 4);
        assert_eq!(r.available(Until::Discarded), 2);
        assert_eq!(r.position(), (3, 4));
        Ok(())
    }

    #[test]
    fn discards_come_first() -> kernel::error::Result {
        let mut r = ring(8, &[9; 8], 5, 16).map_err(|e| e.errno())?;
        r.discard = true;
        r.advance(9, 9);
        assert_eq!(r.available(Until::Clean), 0);
        r.advance(10, 10);
        assert_eq!((r.available(Until::Clean), r.available(Until::Discarded)), (6, 0));
        let mut nr = 0;
        let mut first = None;
        while let Some(sector) = r.to_discard() {
            first.get_or_insert(sector);
            r.was_discarded();
            nr += 1;
        }
        assert_eq!((nr, first), (7, Some(106 * 16)));
        assert_eq!(r.available(Until::Discarded), 6);
        Ok(())
    }

    #[test]
    fn entries_to_be_placed_take_room() -> kernel::error::Result {
        let mut r = ring(8, &[], 0, 6).map_err(|e| e.errno())?;
        r.advance(1, 1);
        assert_eq!(r.room(Until::Clean, &[]), Room { next_entry: 16, total: 96 });
        // 10 fit into what is left, the next 8 do not.
        assert_eq!(r.room(Until::Clean, &[10]), Room { next_entry: 16, total: 96 });
        assert_eq!(r.room(Until::Clean, &[10, 8]), Room { next_entry: 16, total: 80 });
        assert_eq!(r.room(Until::Clean, &[16; 6]), Room { next_entry: 0, total: 0 });
        assert_eq!(r.room(Until::Clean, &[16, 16, 16, 16, 16, 12]).next_entry, 4);
        assert_eq!(r.room(Until::Clean, &[17]), Room::default());
        assert_eq!(r.room(Until::Total, &[10]).total, 128);
        Ok(())
    }

    #[test]
    fn half_is_ahead() -> kernel::error::Result {
        let r = ring(4, &[5, 6, 3, 4], 1, 0).map_err(|e| e.errno())?;
        assert_eq!(r.half_seq(), 4);
        assert!(ring(1, &[], 0, 0).is_err() && ring(4, &[], 4, 0).is_err());
        Ok(())
    }
}
