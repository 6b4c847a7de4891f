// SPDX-License-Identifier: GPL-2.0
//! Space that has been promised.
//!
//! Everything that will use space sets it aside first, so that it does not run out in the middle. How much there is to set aside is
//! computed rarely: the result is handed out from a common pool to shards, one for each processor, in portions.
//!
//! # Invariants
//!
//! When the pool is refilled with what is free, all that has been set aside is accounted for, as taking from a shard and counting
//! it as set aside are one step under the shard's lock. So what has been set aside never exceeds what is free, except by what
//! [`Shortage::Ignore`] asks for. In between, space that is given back is only found by the next refill.

use crate::{
    btree::space::Shortage,
    util::error::{Error, Result},
};
use kernel::{
    cpu::{nr_cpu_ids, CpuId},
    new_mutex, new_spinlock,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Mutex, SpinLock,
    },
};

/// Sectors that a shard takes beyond what is asked for.
const PORTION: u64 = 1024;

/// A processor's part.
#[derive(Copy, Clone, Default)]
struct Shard {
    /// Sectors that can be set aside without looking further.
    cache: u64,
    /// Sectors set aside here, less those given back here: only the sum over all shards, wrapping, means something.
    reserved: u64,
}

/// See the description of the module.
#[pin_data]
pub(super) struct Reservations {
    shards: KVec<Pin<KBox<SpinLock<Shard>>>>,
    pool: Atomic<u64>,
    #[pin]
    refill: Mutex<()>,
    /// Sectors that commits used without having set them aside.
    unreserved: Atomic<u64>,
}

impl Reservations {
    /// With an empty pool. May sleep.
    pub(super) fn new() -> Result<impl PinInit<Self>> {
        let mut shards = KVec::new();
        for _ in 0..nr_cpu_ids().max(1) {
            let shard = new_spinlock!(Shard::default(), "bcachefs_reservations");
            shards.push(KBox::pin_init(shard, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        Ok(pin_init!(Self {
            shards,
            pool: Atomic::new(0),
            refill <- new_mutex!((), "bcachefs_reservations_refill"),
            unreserved: Atomic::new(0),
        }))
    }

    /// This processor's shard, more or less.
    fn with_shard<R>(&self, f: impl FnOnce(&mut Shard) -> R) -> Option<R> {
        let cpu = CpuId::current().as_u32() as usize;
        let shard = self.shards.get(cpu).or(self.shards.first())?;
        let r = f(&mut shard.lock());
        Some(r)
    }

    /// Takes at least `need` and at most `want` sectors from the pool; nothing if it has fewer.
    fn take(&self, need: u64, want: u64) -> u64 {
        let mut have = self.pool.load(Relaxed);
        loop {
            if have < need {
                return 0;
            }
            let taken = have.min(want);
            match self.pool.cmpxchg(have, have - taken, Relaxed) {
                Ok(_) => return taken,
                Err(now) => have = now,
            }
        }
    }

    /// Takes `sectors` from what is at hand. Does not sleep.
    fn try_reserve(&self, sectors: u64) -> bool {
        let got = self.with_shard(|shard| {
            if let Some(need) = sectors.checked_sub(shard.cache).filter(|need| *need != 0) {
                let taken = self.take(need, need.saturating_add(PORTION));
                if taken == 0 {
                    return false;
                }
                shard.cache = shard.cache.saturating_add(taken);
            }
            shard.cache -= sectors;
            shard.reserved = shard.reserved.wrapping_add(sectors);
            true
        });
        got == Some(true)
    }

    /// Sets `sectors` aside; returns how many, which is fewer only with [`Shortage::Partial`]. `free` says what is free if so many
    /// sectors have been set aside. Sleeps for a mutex, but not with [`Shortage::Ignore`].
    pub(super) fn reserve(
        &self,
        sectors: u64,
        how: Shortage,
        free: impl FnOnce(u64) -> u64,
    ) -> Result<u64> {
        if sectors == 0 || self.try_reserve(sectors) {
            return Ok(sectors);
        }
        if how == Shortage::Ignore {
            self.with_shard(|s| s.reserved = s.reserved.wrapping_add(sectors));
            return Ok(sectors);
        }
        let _refill = self.refill.lock();
        let free = free(self.drain());
        let granted = match how {
            Shortage::Partial => sectors.min(free),
            _ if sectors > free => {
                self.pool.store(free, Relaxed);
                return Err(Error::NoSpace);
            }
            _ => sectors,
        };
        self.with_shard(|s| s.reserved = s.reserved.wrapping_add(granted));
        self.pool.store(free - granted, Relaxed);
        Ok(granted)
    }

    /// Empties pool and caches; what has been set aside. Nothing can be taken from what was emptied, so that what is set
    /// aside while this runs is either in the result or waits for the mutex.
    fn drain(&self) -> u64 {
        self.pool.store(0, Relaxed);
        let mut reserved = 0u64;
        for shard in self.shards.iter() {
            let mut shard = shard.lock();
            shard.cache = 0;
            reserved = reserved.wrapping_add(shard.reserved);
        }
        // What was given back twice must not look like a promise of everything.
        if reserved > u64::MAX / 2 {
            0
        } else {
            reserved
        }
    }

    /// Has the pool computed anew when it is needed next. Does not sleep.
    pub(super) fn invalidate(&self) {
        self.pool.store(0, Relaxed);
        for shard in self.shards.iter() {
            shard.lock().cache = 0;
        }
    }

    /// Gives back what was set aside. Does not sleep.
    pub(super) fn unreserve(&self, sectors: u64) {
        self.with_shard(|s| s.reserved = s.reserved.wrapping_sub(sectors));
    }

    /// A commit has changed what is in use by `delta` sectors, of which `reserved` had been set aside: those now count as used. Does
    /// not sleep.
    pub(super) fn committed(&self, delta: i64, reserved: u64) {
        self.unreserve(reserved);
        let delta = u64::try_from(delta).unwrap_or(0);
        let extra = delta.saturating_sub(reserved);
        if extra != 0 {
            self.unreserved.add(extra, Relaxed);
            // If the pool has less, what is in the shards is too much by the rest, until the next refill.
            if self.take(extra, extra) == 0 {
                self.invalidate();
            }
        }
    }

    /// Sectors set aside now. Does not sleep.
    pub(super) fn reserved(&self) -> u64 {
        let all = self.shards.iter().map(|s| s.lock().reserved);
        let sum = all.fold(0u64, u64::wrapping_add);
        if sum > u64::MAX / 2 {
            0
        } else {
            sum
        }
    }

    /// Sectors that can be set aside without computing anything.
    pub(super) fn at_hand(&self) -> u64 {
        let cached: u64 = self.shards.iter().map(|s| s.lock().cache).sum();
        self.pool.load(Relaxed).saturating_add(cached)
    }

    /// Sectors that commits used without having set them aside.
    pub(super) fn unreserved(&self) -> u64 {
        self.unreserved.load(Relaxed)
    }
}

#[kernel::macros::kunit_tests(bcachefs_alloc_reservations)]
mod tests {
    use super::*;
    use crate::util::threads;
    use kernel::sync::Arc;

    fn reservations() -> kernel::error::Result<Arc<Reservations>> {
        let new = Reservations::new().map_err(|e| e.errno())?;
        Arc::pin_init(new, GFP_KERNEL)
    }

    #[test]
    fn three_ways_to_fall_short() -> kernel::error::Result {
        let r = reservations()?;
        let free = |reserved: u64| 10_000u64.saturating_sub(reserved);
        assert_eq!(r.reserve(4000, Shortage::Fail, free).ok(), Some(4000));
        // The rest is at hand now, without computing it.
        assert_eq!(r.at_hand(), 6000);
        assert_eq!(r.reserve(5000, Shortage::Fail, |_| 0).ok(), Some(5000));
        assert_eq!(r.reserve(1001, Shortage::Fail, free), Err(Error::NoSpace));
        assert_eq!(r.reserve(1001, Shortage::Partial, free).ok(), Some(1000));
        assert_eq!(r.reserve(1, Shortage::Partial, free).ok(), Some(0));
        assert_eq!(r.reserve(500, Shortage::Ignore, free).ok(), Some(500));
        assert_eq!(r.reserved(), 10_500);
        assert_eq!(r.reserve(0, Shortage::Fail, |_| 0).ok(), Some(0));
        r.unreserve(1500);
        assert_eq!(r.reserve(1000, Shortage::Fail, free).ok(), Some(1000));
        assert_eq!(r.reserve(1, Shortage::Fail, free), Err(Error::NoSpace));
        Ok(())
    }

    #[test]
    fn commits_turn_promises_into_use() -> kernel::error::Result {
        let r = reservations()?;
        assert!(r.reserve(100, Shortage::Fail, |n| 1000 - n).is_ok());
        r.committed(60, 60);
        assert_eq!((r.reserved(), r.at_hand(), r.unreserved()), (40, 900, 0));
        // 25 sectors that nobody had set aside.
        r.committed(65, 40);
        assert_eq!((r.reserved(), r.at_hand(), r.unreserved()), (0, 875, 25));
        // More than there is: nothing is at hand until it is computed anew.
        r.committed(5000, 0);
        assert_eq!((r.at_hand(), r.unreserved()), (0, 5025));
        // Space that becomes free is found by the next refill.
        r.committed(-400, 0);
        assert_eq!(r.at_hand(), 0);
        Ok(())
    }

    #[test]
    fn concurrent_promises_are_kept() -> kernel::error::Result {
        const ALL: u64 = 10_000;
        struct Shared {
            reservations: Arc<Reservations>,
            held: Atomic<u64>,
            most: Atomic<u64>,
            full: Atomic<u64>,
        }
        let shared = Arc::new(
            Shared {
                reservations: reservations()?,
                held: Atomic::new(0),
                most: Atomic::new(0),
                full: Atomic::new(0),
            },
            GFP_KERNEL,
        )?;
        let s = shared.clone();
        let done = threads::run(4, move |me| {
            let mut draw = u64::from(me) * 77 + 1;
            let mut mine = KVec::new();
            for _ in 0..5000 {
                draw = draw.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let want = (draw >> 33) % 3000 + 1;
                let how = if draw >> 63 == 0 { Shortage::Fail } else { Shortage::Partial };
                let free = |reserved| ALL.saturating_sub(reserved);
                match s.reservations.reserve(want, how, free) {
                    Ok(got) => {
                        let held = s.held.fetch_add(got, kernel::sync::atomic::Full) + got;
                        let mut most = s.most.load(Relaxed);
                        while most < held {
                            match s.most.cmpxchg(most, held, Relaxed) {
                                Ok(_) => break,
                                Err(now) => most = now,
                            }
                        }
                        let _ = mine.push(got, GFP_KERNEL);
                    }
                    Err(_) => s.full.add(1u64, Relaxed),
                }
                if mine.len() > 9 || draw >> 61 == 0 {
                    if let Some(got) = mine.pop() {
                        s.held.fetch_sub(got, kernel::sync::atomic::Full);
                        s.reservations.unreserve(got);
                    }
                }
            }
            for got in mine.iter() {
                s.held.fetch_sub(*got, kernel::sync::atomic::Full);
                s.reservations.unreserve(*got);
            }
            Ok(())
        });
        assert!(done.is_ok());
        assert!(shared.most.load(Relaxed) <= ALL);
        // It did get full.
        assert!(shared.full.load(Relaxed) > 0);
        assert_eq!(shared.reservations.reserved(), 0);
        let all = shared.reservations.reserve(ALL, Shortage::Fail, |n| ALL - n);
        assert_eq!(all.ok(), Some(ALL));
        Ok(())
    }
}
