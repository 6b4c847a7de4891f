// SPDX-License-Identifier: GPL-2.0
//! Where on a device nodes of btrees lie.
//!
//! The superblock has a map of 64 equal regions of each device and says which ones may hold nodes, so that all nodes can be found by reading
//! these. Nodes are placed where the map allows them already, data elsewhere, as long as there is room.

use bcachefs_format::sb::Member;

/// The superblock's map of one device.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Map {
    /// Sectors of a region, as a shift.
    pub shift: u8,
    /// Bit for each region.
    pub regions: u64,
}

impl Map {
    /// Of a member.
    pub(super) fn of(member: &Member) -> Self {
        Map { shift: member.btree_bitmap_shift, regions: member.btree_allocated_bitmap.get() }
    }

    /// Whether there may be nodes in all of the sectors from `start` to `end`.
    pub(super) fn covers(&self, start: u64, end: u64) -> bool {
        let shift = u32::from(self.shift).min(63);
        let (first, last) = (start >> shift, end.saturating_sub(1) >> shift);
        last < REGIONS && (first..=last).all(|bit| self.regions >> bit & 1 != 0)
    }
}

/// Regions of the map.
const REGIONS: u64 = 64;

/// Which buckets of a device are wanted.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    /// Those that lie where nodes may be.
    Nodes,
    /// Those that do not.
    Others,
    /// All.
    Any,
}

/// Buckets of a device by where they lie.
pub(super) struct Region {
    pub map: Map,
    /// Sectors of a bucket. Not zero.
    pub bucket_sectors: u64,
    pub wanted: Wanted,
}

impl Region {
    /// The first bucket from `bucket` on that is wanted, or a later one before which there is none; `None` at the end.
    pub(super) fn next(&self, bucket: u64) -> Option<u64> {
        let wanted = match self.wanted {
            Wanted::Any => return Some(bucket),
            Wanted::Nodes => true,
            Wanted::Others => false,
        };
        let shift = u32::from(self.map.shift).min(57);
        let mut bucket = bucket;
        // Each round passes at least one region, or one bucket that crosses a border.
        for _ in 0..=2 * REGIONS {
            let start = bucket.checked_mul(self.bucket_sectors)?;
            let end = start.checked_add(self.bucket_sectors)?;
            if self.map.covers(start, end) == wanted {
                return Some(bucket);
            }
            let first = start >> shift;
            if first >= REGIONS {
                // Never reached with `Others`: nothing is covered here.
                return None;
            }
            let border = (first + 1) << shift;
            let next = match wanted {
                true => border.div_ceil(self.bucket_sectors),
                false => border / self.bucket_sectors,
            };
            // A bucket that begins in a region of the right kind and ends in one of the wrong kind.
            let here = self.map.covers(start, start + 1) == wanted;
            bucket = if here { bucket + 1 } else { next.max(bucket + 1) };
        }
        Some(bucket)
    }
}

#[kernel::macros::kunit_tests(bcachefs_alloc_region)]
mod tests {
    use super::*;

    #[test]
    fn jumps_skip_nothing() {
        let mut member = Member::empty();
        member.btree_bitmap_shift = 6;
        for (map, bucket_sectors) in [
            (0u64, 16u64),
            (u64::MAX, 48),
            (0x8000_0000_0000_0001, 16),
            (0x0f0f_1234_5678_9abc, 24),
            (0x5555_5555_5555_5555, 64),
            (0xaaaa_aaaa_ffff_0000, 100),
            (0x0000_ffff_0000_ffff, 400),
        ] {
            member.btree_allocated_bitmap.set(map);
            let map = Map::of(&member);
            for wanted in [Wanted::Nodes, Wanted::Others, Wanted::Any] {
                let region = Region { map, bucket_sectors, wanted };
                let ok = |b: u64| {
                    let start = b * bucket_sectors;
                    let covers = member.bitmap_covers(start, start + bucket_sectors);
                    wanted == Wanted::Any || covers == (wanted == Wanted::Nodes)
                };
                let nbuckets = 64 * 64 / bucket_sectors + 10;
                for from in 0..nbuckets {
                    let mut at = Some(from);
                    // What is returned may have to be looked at again.
                    while let Some(b) = at.filter(|b| *b < nbuckets && !ok(*b)) {
                        at = region.next(b + 1);
                    }
                    let got = region.next(from).filter(|b| *b < nbuckets);
                    let want = (from..nbuckets).find(|b| ok(*b));
                    assert_eq!(got, want);
                }
            }
        }
    }
}
