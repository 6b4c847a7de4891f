// SPDX-License-Identifier: GPL-2.0
//! Buckets that are never given out: those of superblocks and journal.
//!
//! Normally the btrees say what such buckets hold. But the first nodes of a new filesystem are placed before anything can be
//! recorded, and a bucket of the journal must not be given out whatever a damaged btree says.

use crate::util::error::Result;
use kernel::prelude::*;

/// Ranges of buckets, half-open, ascending and apart.
#[derive(Default)]
pub(super) struct Ranges {
    ranges: KVVec<(u64, u64)>,
}

impl Ranges {
    /// Of ranges in any order, as start and number of buckets. May sleep.
    pub(super) fn collect<const N: usize>(
        of: [&mut dyn Iterator<Item = (u64, u64)>; N],
    ) -> Result<Self> {
        let mut ranges = KVVec::new();
        for (start, nr) in of.into_iter().flatten() {
            if nr != 0 {
                ranges.push((start, start.saturating_add(nr)), GFP_KERNEL)?;
            }
        }
        ranges.sort_unstable();
        let mut merged: KVVec<(u64, u64)> = KVVec::with_capacity(ranges.len(), GFP_KERNEL)?;
        for &(start, end) in ranges.iter() {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end), GFP_KERNEL)?,
            }
        }
        Ok(Ranges { ranges: merged })
    }

    /// The end of the range that holds `bucket`.
    pub(super) fn end_of(&self, bucket: u64) -> Option<u64> {
        let after = self.ranges.partition_point(|r| r.0 <= bucket);
        let range = self.ranges.get(after.checked_sub(1)?)?;
        (bucket < range.1).then_some(range.1)
    }

    /// Number of buckets.
    pub(super) fn buckets(&self) -> u64 {
        self.ranges.iter().map(|r| r.1 - r.0).sum()
    }
}

/// The buckets of `bucket_sectors` sectors that `sectors` sectors from `sector` on lie in, as start and number.
pub(super) fn buckets_of(sector: u64, sectors: u64, bucket_sectors: u16) -> (u64, u64) {
    let size = u64::from(bucket_sectors.max(1));
    let start = sector / size;
    (start, sector.saturating_add(sectors).div_ceil(size).saturating_sub(start))
}

#[kernel::macros::kunit_tests(bcachefs_alloc_nouse)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged_and_found() -> kernel::error::Result {
        let all = [(20, 5), (3, 2), (5, 1), (21, 1), (9, 0), (100, 1)];
        let r = Ranges::collect([&mut all.into_iter()]).map_err(|e| e.errno())?;
        assert_eq!(r.buckets(), 9);
        let model = |b: u64| all.iter().any(|(s, n)| (*s..s + n).contains(&b));
        for b in 0..200 {
            assert_eq!(r.end_of(b).is_some(), model(b));
        }
        assert_eq!(r.end_of(4), Some(6));
        assert_eq!(r.end_of(20), Some(25));
        assert!(Ranges::default().end_of(0).is_none());
        Ok(())
    }

    #[test]
    fn parts_of_buckets_count() {
        assert_eq!(buckets_of(8, 2048, 256), (0, 9));
        assert_eq!(buckets_of(2056, 2048, 256), (8, 9));
        assert_eq!(buckets_of(512, 256, 256), (2, 1));
    }
}
