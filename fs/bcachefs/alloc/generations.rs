// SPDX-License-Identifier: GPL-2.0
//! The generations of a device's buckets, in memory.
//!
//! A byte for each bucket, so that whether a pointer is stale is known without reading a key. Read from the btree when the filesystem
//! becomes writable, kept up to date by commits.

use crate::{
    btree::{Btree, IterFlags},
    util::error::Result,
};
use bcachefs_format::{
    keys::bucket_gens::{BucketGens, BUCKETS_PER_KEY},
    Bpos, BtreeId, KeyType,
};
use core::ops::ControlFlow;
use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

/// Generations in a word.
const PER_WORD: u64 = 4;

/// See the description of the module.
pub(super) struct Generations {
    words: KVVec<Atomic<u32>>,
    nbuckets: u64,
}

impl Generations {
    /// All 0. May sleep.
    pub(super) fn new(nbuckets: u64) -> Result<Self> {
        let n = usize::try_from(nbuckets.div_ceil(PER_WORD)).unwrap_or(usize::MAX);
        let mut words = KVVec::with_capacity(n, GFP_KERNEL)?;
        for _ in 0..n {
            words.push(Atomic::new(0), GFP_KERNEL)?;
        }
        Ok(Generations { words, nbuckets })
    }

    /// As the btree has them. Sleeps.
    pub(super) fn read(btree: &Btree, dev: u8, nbuckets: u64) -> Result<Self> {
        let gens = Self::new(nbuckets)?;
        let dev = u64::from(dev);
        let last = nbuckets / BUCKETS_PER_KEY as u64;
        let flags = IterFlags::PREFETCH;
        let (start, end) = (Bpos::new(dev, 0), Bpos::new(dev, last));
        btree.walk(BtreeId::BUCKET_GENS, start, end, flags, |key| {
            if key.key.key_type == KeyType::BUCKET_GENS {
                let first = key.key.pos.offset.saturating_mul(BUCKETS_PER_KEY as u64);
                for (bucket, generation) in (first..).zip(BucketGens::parse(key)?.gens) {
                    gens.set(bucket, *generation);
                }
            }
            Ok(ControlFlow::<()>::Continue(()))
        })?;
        Ok(gens)
    }

    /// The same as they are now. May sleep.
    pub(super) fn snapshot(&self) -> Result<Self> {
        let mut words = KVVec::with_capacity(self.words.len(), GFP_KERNEL)?;
        for word in self.words.iter() {
            words.push(Atomic::new(word.load(Relaxed)), GFP_KERNEL)?;
        }
        Ok(Generations { words, nbuckets: self.nbuckets })
    }

    /// Sets the generation of `bucket` to `generation`, if that is older. Not for two tasks at the same time.
    pub(super) fn lower(&self, bucket: u64, generation: u8) {
        if self.get(bucket).is_some_and(|now| now.wrapping_sub(generation) as i8 > 0) {
            self.set(bucket, generation);
        }
    }

    fn place(&self, bucket: u64) -> Option<(&Atomic<u32>, u32)> {
        if bucket >= self.nbuckets {
            return None;
        }
        let word = self.words.get(usize::try_from(bucket / PER_WORD).ok()?)?;
        Some((word, (bucket % PER_WORD) as u32 * 8))
    }

    /// The generation of `bucket`; `None` if there is no such bucket. Any context.
    pub(super) fn get(&self, bucket: u64) -> Option<u8> {
        let (word, shift) = self.place(bucket)?;
        Some((word.load(Relaxed) >> shift) as u8)
    }

    /// Sets the generation of `bucket`. Any context.
    pub(super) fn set(&self, bucket: u64, generation: u8) {
        let Some((word, shift)) = self.place(bucket) else {
            return;
        };
        let mut old = word.load(Relaxed);
        loop {
            let new = old & !(0xff << shift) | u32::from(generation) << shift;
            match word.cmpxchg(old, new, Relaxed) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }
}

#[kernel::macros::kunit_tests(bcachefs_alloc_generations)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_stay() -> kernel::error::Result {
        let g = Generations::new(10).map_err(|e| e.errno())?;
        for bucket in 0..12 {
            g.set(bucket, 0x11 * bucket as u8);
        }
        g.set(5, 0xff);
        g.set(5, 1);
        let got: [_; 12] = core::array::from_fn(|b| g.get(b as u64));
        let want: [_; 12] = core::array::from_fn(|b| match b {
            5 => Some(1),
            10.. => None,
            b => Some(0x11 * b as u8),
        });
        assert_eq!(got, want);

        // Only what is older counts, also when generations wrap.
        let bounds = g.snapshot().map_err(|e| e.errno())?;
        bounds.set(3, 2);
        for (generation, want) in [(3, 2), (255, 255), (0, 255), (200, 200)] {
            bounds.lower(3, generation);
            assert_eq!(bounds.get(3), Some(want));
        }
        bounds.lower(99, 0);
        assert_eq!(g.get(3), Some(0x33));
        Ok(())
    }
}
