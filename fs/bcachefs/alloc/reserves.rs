// SPDX-License-Identifier: GPL-2.0
//! What is kept back, so that what frees space can go on when what uses it has to wait.

use super::client::DeviceUsage;
use crate::util::watermark::Watermark;
use bcachefs_format::keys::data_type::DataType;

/// Nodes that one large update of a btree may need.
const BTREE_RESERVE_NODES: u64 = 28;

/// What of a device matters here.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Geometry {
    /// Number of buckets.
    pub nbuckets: u64,
    /// First usable bucket.
    pub first_bucket: u64,
    /// Sectors of a bucket. Not zero.
    pub bucket_sectors: u64,
    /// Sectors of a node. Not zero.
    pub node_sectors: u64,
}

impl Geometry {
    /// Buckets that the nodes of one large update fill.
    fn btree_reserve(&self) -> u64 {
        let nodes_per_bucket = (self.bucket_sectors / self.node_sectors.max(1)).max(1);
        BTREE_RESERVE_NODES.div_ceil(nodes_per_bucket)
    }

    /// Free buckets that must remain when something of urgency `watermark` has got what it wants.
    pub(super) fn reserve(&self, watermark: Watermark) -> u64 {
        let (part, btree) = (self.nbuckets >> 6, self.btree_reserve());
        match watermark {
            Watermark::Stripe => 2 * part + 2 * btree,
            Watermark::Normal => part + 2 * btree,
            Watermark::Copygc => 2 * btree,
            Watermark::Btree => btree,
            Watermark::BtreeCopygc | Watermark::Reclaim | Watermark::InteriorUpdates => 0,
        }
    }

    /// Buckets that may be opened now, `open` being open already.
    pub(super) fn free(&self, usage: &DeviceUsage, open: u64, watermark: Watermark) -> u64 {
        usage
            .buckets(DataType::FREE)
            .saturating_sub(open)
            .saturating_sub(self.reserve(watermark))
    }

    /// Buckets that can be had without moving anything: those that are free, and those that only need some treatment.
    pub(super) fn available(&self, usage: &DeviceUsage, open: u64, watermark: Watermark) -> u64 {
        let types = [
            DataType::FREE,
            DataType::CACHED,
            DataType::NEED_GC_GENS,
            DataType::NEED_DISCARD,
        ];
        let sum = types
            .into_iter()
            .fold(0u64, |sum, t| sum.saturating_add(usage.buckets(t)));
        sum.saturating_sub(open)
            .saturating_sub(self.reserve(watermark))
    }

    /// Sectors that can be written before what is in half-empty buckets has to be moved together: half of what can be had without that, less
    /// what could be gained by it.
    pub(super) fn until_crowded(&self, usage: &DeviceUsage, open: u64) -> u64 {
        let movable = [DataType::USER, DataType::BTREE];
        let gain = movable.map(|t| usage.fragmented.get(usize::from(t.0)).copied().unwrap_or(0));
        self.available(usage, open, Watermark::Stripe)
            .saturating_mul(self.bucket_sectors / 2)
            .saturating_sub(gain.iter().sum())
    }

    /// Cached buckets to reuse so that a few are always free.
    pub(super) fn want_invalidated(&self, usage: &DeviceUsage) -> u64 {
        let soon = usage
            .buckets(DataType::FREE)
            .saturating_add(usage.buckets(DataType::NEED_DISCARD))
            .saturating_sub(self.reserve(Watermark::Stripe));
        (self.nbuckets >> 7)
            .saturating_sub(soon)
            .min(usage.buckets(DataType::CACHED))
    }

    /// Sectors for data, and how many of them this device wants kept free for moving it.
    pub(super) fn capacity(&self) -> (u64, u64) {
        let sectors = self
            .nbuckets
            .saturating_sub(self.first_bucket)
            .saturating_mul(self.bucket_sectors);
        let buckets = self.btree_reserve() * 2 + (self.nbuckets >> 6) + 3;
        (sectors, buckets.saturating_mul(self.bucket_sectors).saturating_mul(2))
    }
}

/// Sectors that can hold data, of devices of which each is given as its sectors and its reserve; at least `gc_reserve` of all is
/// kept back.
pub(super) fn capacity(
    devices: impl Iterator<Item = (u64, u64)>,
    gc_reserve: impl FnOnce(u64) -> u64,
) -> u64 {
    let (mut total, mut reserved) = (0u64, 0u64);
    for (sectors, reserve) in devices {
        total = total.saturating_add(sectors);
        reserved = reserved.saturating_add(reserve);
    }
    total - reserved.max(gc_reserve(total)).min(total)
}

/// Sectors, of `total`, that are kept free for moving data: the option in bytes, or, if that is 0, in percent.
pub(super) fn gc_reserve(total: u64, bytes: u64, percent: u8) -> u64 {
    let percent = u64::from(percent);
    match bytes {
        0 => total / 100 * percent + total % 100 * percent / 100,
        bytes => bytes >> 9,
    }
}

/// Open buckets, of `all` there can be, that must remain for what is more urgent.
pub(super) fn open_reserve(all: u32, watermark: Watermark) -> u32 {
    match watermark {
        Watermark::Stripe | Watermark::Normal => all / 2,
        Watermark::Copygc => all / 3,
        Watermark::Btree | Watermark::BtreeCopygc => all / 4,
        Watermark::Reclaim => all / 6,
        Watermark::InteriorUpdates => 0,
    }
}

#[kernel::macros::kunit_tests(bcachefs_alloc_reserves)]
mod tests {
    use super::*;

    const SMALL: Geometry = Geometry {
        nbuckets: 1024,
        first_bucket: 1,
        bucket_sectors: 512,
        node_sectors: 512,
    };

    fn usage(of: &[(DataType, u64)]) -> DeviceUsage {
        let mut usage = DeviceUsage::default();
        for (t, n) in of {
            usage.buckets[usize::from(t.0)] = *n;
        }
        usage
    }

    #[test]
    fn more_urgent_means_less_kept_back() {
        assert_eq!(Watermark::ALL.map(|w| SMALL.reserve(w)), [88, 72, 56, 28, 0, 0, 0]);
        let wide = Geometry { bucket_sectors: 2048, ..SMALL };
        assert_eq!(wide.reserve(Watermark::Btree), 7);
        // A bucket that is no multiple of a node holds fewer.
        let odd = Geometry { bucket_sectors: 1535, ..SMALL };
        assert_eq!(odd.reserve(Watermark::Btree), 14);
        let open = Watermark::ALL.map(|w| open_reserve(1024, w));
        assert_eq!(open, [512, 512, 341, 256, 256, 170, 0]);
        assert!(open.windows(2).all(|w| w[0] >= w[1]));
    }

    #[test]
    fn free_and_available() {
        let u = usage(&[
            (DataType::FREE, 100),
            (DataType::CACHED, 7),
            (DataType::NEED_DISCARD, 5),
            (DataType::NEED_GC_GENS, 3),
            (DataType::USER, 900),
        ]);
        let free = Watermark::ALL.map(|w| SMALL.free(&u, 10, w));
        assert_eq!(free, [2, 18, 34, 62, 90, 90, 90]);
        assert_eq!(SMALL.free(&u, 1000, Watermark::InteriorUpdates), 0);
        assert_eq!(SMALL.available(&u, 10, Watermark::Normal), 115 - 10 - 72);
        assert_eq!(SMALL.available(&usage(&[]), 0, Watermark::Reclaim), 0);
    }

    #[test]
    fn cached_buckets_are_reused_in_time() {
        // 1/128 of 1024 is 8, above the reserve of 88.
        let plenty = usage(&[(DataType::FREE, 96), (DataType::CACHED, 50)]);
        assert_eq!(SMALL.want_invalidated(&plenty), 0);
        let few = usage(&[
            (DataType::FREE, 80),
            (DataType::NEED_DISCARD, 10),
            (DataType::CACHED, 50),
        ]);
        assert_eq!(SMALL.want_invalidated(&few), 6);
        let none = usage(&[(DataType::CACHED, 3)]);
        assert_eq!(SMALL.want_invalidated(&none), 3);
    }

    #[test]
    fn capacity_keeps_a_reserve() {
        let percent = |n| gc_reserve(n, 0, 8);
        assert_eq!((percent(1250), gc_reserve(1250, 5120, 8)), (100, 10));
        // 28 nodes twice, 1/64, 3: 75 buckets, doubled.
        let small = capacity([SMALL.capacity()].into_iter(), percent);
        assert_eq!(small, (1023 - 150) * 512);
        let large = Geometry { nbuckets: 1 << 30, ..SMALL };
        let all = ((1 << 30) - 1) * 512;
        let got = capacity([large.capacity()].into_iter(), percent);
        assert_eq!(got, all - percent(all));
        assert_eq!(capacity([].into_iter(), |n| n), 0);
    }
}
