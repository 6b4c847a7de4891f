// SPDX-License-Identifier: GPL-2.0
//! The buckets of a device's journal, in ring order.

use super::field::FIELD_HEADER_BYTES;
use super::Field;
use crate::error::Invalid;
use crate::super_block::SuperBlock;

/// Most ranges a list may have. Finding overlaps takes time in the square of the number, and a
/// journal is made of few ranges, of one in most cases.
pub const RANGES_MAX: usize = 16384;
/// Fewest buckets a journal needs to be of use.
pub const JOURNAL_BUCKETS_MIN: u64 = 8;

/// A run of journal buckets.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct BucketRange {
    /// First bucket.
    pub start: u64,
    /// Number of buckets.
    pub nr: u64,
}

/// The journal's bucket list, of either field type.
#[derive(Copy, Clone, Debug, Default)]
pub struct JournalBuckets<'a> {
    payload: &'a [u64],
    v2: bool,
}

impl<'a> JournalBuckets<'a> {
    /// Of a field of type journal: single buckets.
    pub fn v1(field: &Field<'a>) -> Self {
        JournalBuckets {
            payload: field.payload(),
            v2: false,
        }
    }

    /// Of a field of type journal_v2: ranges.
    pub fn v2(field: &Field<'a>) -> Self {
        JournalBuckets {
            payload: field.payload(),
            v2: true,
        }
    }

    /// The ranges, in ring order.
    pub fn ranges(&self) -> impl Iterator<Item = BucketRange> + Clone + 'a {
        let v2 = self.v2;
        self.payload
            .chunks_exact(if v2 { 2 } else { 1 })
            .map(move |c| BucketRange {
                start: c.first().copied().unwrap_or(0),
                nr: c.get(1).copied().unwrap_or(1),
            })
    }

    /// Number of buckets.
    pub fn nr(&self) -> u64 {
        self.ranges().fold(0, |sum, r| sum.saturating_add(r.nr))
    }

    /// The buckets, in ring order. On a validated superblock there are less than 2^31 of them, each
    /// of which the device has.
    pub fn iter(&self) -> impl Iterator<Item = u64> + 'a {
        self.ranges()
            .flat_map(|r| r.start..r.start.saturating_add(r.nr))
    }

    /// The bucket at ring index `index`.
    pub fn get(&self, index: u64) -> Option<u64> {
        let mut left = index;
        for r in self.ranges() {
            match left.checked_sub(r.nr) {
                None => return r.start.checked_add(left),
                Some(rest) => left = rest,
            }
        }
        None
    }

    /// Checks the field. Errors count bytes from its start.
    pub fn validate(&self, sb: &SuperBlock<'_>) -> Result<(), Invalid> {
        let stride = if self.v2 { 16 } else { 8 };
        let at = |i: usize| FIELD_HEADER_BYTES + i * stride;
        let nr_ranges = self.ranges().count();
        if nr_ranges > RANGES_MAX {
            let what = "journal: too many ranges of buckets";
            return Err(Invalid::plain(what, 0, nr_ranges as u64, RANGES_MAX as u64));
        }
        let member = sb.this_member();
        let (first, end) = member.map_or((0, 0), |m| {
            (u64::from(m.first_bucket.get()), m.nbuckets.get())
        });
        for (i, r) in self.ranges().enumerate() {
            let bad = |what, got, want| Err(Invalid::plain(what, at(i), got, want));
            let range_end = match r.start.checked_add(r.nr) {
                Some(range_end) if r.nr > 0 => range_end,
                _ => return bad("journal: range is empty or overflows", r.nr, 1),
            };
            if r.start == 0 {
                return bad("journal: bucket 0", 0, 1);
            }
            if r.start < first {
                return bad(
                    "journal: bucket before the first usable one",
                    r.start,
                    first,
                );
            }
            if range_end > end {
                return bad("journal: bucket past the end of the device", range_end, end);
            }
            let overlaps = |o: BucketRange| {
                r.start < o.start.saturating_add(o.nr) && o.start < r.start.saturating_add(r.nr)
            };
            if let Some(other) = self.ranges().take(i).find(|o| overlaps(*o)) {
                return bad("journal: bucket listed twice", r.start, other.start);
            }
        }
        // Ranges that do not overlap and end before `end` cannot add up to more than that.
        Ok(())
    }
}
