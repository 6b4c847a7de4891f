// SPDX-License-Identifier: GPL-2.0
//! Journal sequence numbers whose entries never counted.
//!
//! A btree node may hold updates whose journal entry was lost in a crash. Each set of keys in a node
//! carries the newest sequence number in it; sets with a blacklisted number are ignored.

use crate::util::{error::Result, sort::sort_by_key};
use kernel::prelude::*;

/// A sorted list of half-open ranges of sequence numbers.
///
/// # Invariants
///
/// Ranges are not empty, in ascending order, and do not overlap.
pub struct Blacklist {
    ranges: KVVec<(u64, u64)>,
}

impl Blacklist {
    /// A list of the given ranges, in any order; overlapping ones are merged, empty ones left out.
    pub fn new(mut ranges: KVVec<(u64, u64)>) -> Self {
        ranges.retain(|r| r.0 < r.1);
        sort_by_key(&mut ranges, |r| *r);
        let mut merged = 0;
        for i in 1..ranges.len() {
            let Some(&next) = ranges.get(i) else { break };
            match ranges.get_mut(merged) {
                Some(last) if next.0 <= last.1 => last.1 = last.1.max(next.1),
                _ => {
                    merged += 1;
                    if let Some(slot) = ranges.get_mut(merged) {
                        *slot = next;
                    }
                }
            }
        }
        if !ranges.is_empty() {
            ranges.truncate(merged + 1);
        }
        // INVARIANT: sorted, and every range starts after the end of the one before.
        Blacklist { ranges }
    }

    /// The same list with half-open ranges added, in any order.
    pub fn with(self, more: &[(u64, u64)]) -> Result<Self> {
        let mut ranges = self.ranges;
        ranges.extend_from_slice(more, GFP_KERNEL)?;
        Ok(Self::new(ranges))
    }

    /// Whether `seq` is listed.
    #[inline]
    pub fn contains(&self, seq: u64) -> bool {
        self.range_of(seq).is_some()
    }

    /// The range that holds `seq`, if one does.
    pub fn range_of(&self, seq: u64) -> Option<(u64, u64)> {
        self.range_from(seq).filter(|r| r.0 <= seq)
    }

    /// The range that holds `seq`, or else the first one after it.
    pub fn range_from(&self, seq: u64) -> Option<(u64, u64)> {
        let before = self.ranges.partition_point(|r| r.1 <= seq);
        self.ranges.get(before).copied()
    }

    /// All ranges, ascending.
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }
}

#[cfg(bcachefs_kunit)]
#[kernel::macros::kunit_tests(bcachefs_journal_blacklist)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged_and_found() -> kernel::error::Result {
        let mut ranges = KVVec::new();
        for r in [(20, 30), (5, 5), (1, 3), (25, 40), (3, 4), (50, 51)] {
            ranges.push(r, GFP_KERNEL)?;
        }
        let list = Blacklist::new(ranges);
        assert_eq!(list.ranges(), &[(1, 4), (20, 40), (50, 51)]);
        assert!(!list.contains(0) && list.contains(1) && list.contains(3) && !list.contains(4));
        assert!(list.contains(39) && !list.contains(40));
        assert_eq!(list.range_of(50), Some((50, 51)));
        assert_eq!((list.range_of(4), list.range_of(51)), (None, None));
        assert_eq!(list.range_from(4), Some((20, 40)));
        assert_eq!((list.range_from(20), list.range_from(51)), (Some((20, 40)), None));
        let list = list.with(&[(4, 20)]).map_err(|e| e.errno())?;
        assert_eq!(list.ranges(), &[(1, 40), (50, 51)]);
        assert!(Blacklist::new(KVVec::new()).ranges().is_empty());
        Ok(())
    }
}
