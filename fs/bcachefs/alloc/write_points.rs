// SPDX-License-Identifier: GPL-2.0
//! Write points: who writes to which open buckets.
//!
//! What belongs together, and will go together, should share buckets. So writers go through write points, each with open buckets of its own:
//! general ones, shared out among those who write by a hash of whatever tells them apart, and one each for nodes, for data that is moved
//! to empty buckets, and for data that is moved in the background.
//!
//! The number of general write points in use goes down when space gets short, as each holds a bucket that is half full.
//!
//! Locking: a write point's mutex is taken with no lock of a node held, or tried.

use super::{
    open_buckets::{Id, List},
    stripe_clock::StripeClock,
};
use crate::{
    btree::{Attempt, TransError},
    util::error::Result,
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Mutex, MutexGuard,
    },
};

/// General write points.
pub(super) const GENERAL_MAX: usize = 32;
/// Write points that serve one purpose.
const DEDICATED: usize = 3;
/// Open buckets of a write point. More than copies, as those that did not fit may fit next time.
pub(super) const PER_POINT: usize = 8;

/// Which write point.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum WritePointSpec {
    /// A general one for writers with this hash.
    Hashed(u64),
    /// For nodes of btrees.
    Btree,
    /// For data moved to empty buckets.
    Copygc,
    /// For data moved in the background.
    Rebalance,
}

/// What a write point has.
pub(super) struct Point {
    /// Open buckets, with a reference each.
    pub open: List<Id, PER_POINT>,
    pub clock: StripeClock,
    /// Sectors it has given out.
    pub allocated: u64,
}

#[pin_data]
struct WritePoint {
    #[pin]
    point: Mutex<Point>,
    /// Whose it is, for general ones.
    key: Atomic<u64>,
    /// When it was used last, in uses of all.
    used: Atomic<u64>,
}

/// All write points.
pub(super) struct WritePoints {
    points: KVec<Pin<KBox<WritePoint>>>,
    /// General ones in use.
    general: Atomic<u32>,
    uses: Atomic<u64>,
}

/// Locks a write point; locks of nodes are given up if it has to be waited for. Sleeps.
fn lock<'p>(
    t: &mut Attempt<'_>,
    point: &'p Mutex<Point>,
) -> core::result::Result<MutexGuard<'p, Point>, TransError> {
    if let Some(guard) = point.try_lock() {
        return Ok(guard);
    }
    t.unlock();
    let guard = point.lock();
    t.relock()?;
    Ok(guard)
}

impl WritePoints {
    /// Write points without buckets. May sleep.
    pub(super) fn new() -> Result<Self> {
        let mut points = KVec::new();
        for _ in 0..GENERAL_MAX + DEDICATED {
            let init = pin_init!(WritePoint {
                point <- new_mutex!(
                    Point { open: List::new(), clock: StripeClock::new(), allocated: 0 },
                    "bcachefs_write_point"
                ),
                key: Atomic::new(0),
                used: Atomic::new(0),
            });
            points.push(KBox::pin_init(init, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        Ok(WritePoints {
            points,
            general: Atomic::new(GENERAL_MAX as u32),
            uses: Atomic::new(0),
        })
    }

    /// General write points in use.
    pub(super) fn general(&self) -> u32 {
        self.general.load(Relaxed)
    }

    /// Puts one more general write point into use.
    pub(super) fn grow(&self) {
        let now = self.general();
        if (now as usize) < GENERAL_MAX {
            // Whoever was faster has done it.
            let _ = self.general.cmpxchg(now, now + 1, Relaxed);
        }
    }

    /// Takes one general write point out of use, unless somebody has done so since there were `before`. `false` if
    /// only one is left. `leave` gets its buckets. Sleeps; gives up locks of nodes.
    pub(super) fn shrink(
        &self,
        t: &mut Attempt<'_>,
        before: u32,
        leave: impl FnMut(Id),
    ) -> core::result::Result<bool, TransError> {
        let now = self.general();
        if now < before {
            return Ok(true);
        }
        if now <= 1 || self.general.cmpxchg(now, now - 1, Relaxed).is_err() {
            return Ok(now > 1);
        }
        if let Some(p) = self.points.get(now as usize - 1) {
            let mut point = lock(t, &p.point)?;
            let open = point.open;
            point.open = List::new();
            open.as_slice().iter().copied().for_each(leave);
        }
        Ok(true)
    }

    /// Whether a general write point serves `key`.
    fn serves(&self, key: u64) -> Option<&Pin<KBox<WritePoint>>> {
        let mut general = self.points.iter().take(self.general() as usize);
        general.find(|p| p.key.load(Relaxed) == key)
    }

    /// Whether [`WritePoints::lock`] would have to take a write point away from somebody.
    pub(super) fn lacks(&self, spec: WritePointSpec) -> bool {
        matches!(spec, WritePointSpec::Hashed(key) if self.serves(key | 1).is_none())
    }

    /// Locks the write point for `spec`. Sleeps; gives up locks of nodes if it has to wait.
    pub(super) fn lock(
        &self,
        t: &mut Attempt<'_>,
        spec: WritePointSpec,
    ) -> core::result::Result<Option<MutexGuard<'_, Point>>, TransError> {
        let used = self.uses.fetch_add(1, Relaxed) + 1;
        let key = match spec {
            // Never 0, which nobody has.
            WritePointSpec::Hashed(key) => key | 1,
            WritePointSpec::Btree => return self.dedicated(t, 0),
            WritePointSpec::Copygc => return self.dedicated(t, 1),
            WritePointSpec::Rebalance => return self.dedicated(t, 2),
        };
        if let Some(p) = self.serves(key) {
            let guard = lock(t, &p.point)?;
            if p.key.load(Relaxed) == key {
                p.used.store(used, Relaxed);
                return Ok(Some(guard));
            }
        }
        // The one that has not been used for longest.
        let general = || self.points.iter().take(self.general().max(1) as usize);
        let oldest = general().min_by_key(|p| p.used.load(Relaxed));
        let Some(oldest) = oldest else {
            return Ok(None);
        };
        let guard = lock(t, &oldest.point)?;
        oldest.key.store(key, Relaxed);
        oldest.used.store(used, Relaxed);
        Ok(Some(guard))
    }

    fn dedicated(
        &self,
        t: &mut Attempt<'_>,
        nr: usize,
    ) -> core::result::Result<Option<MutexGuard<'_, Point>>, TransError> {
        match self.points.get(GENERAL_MAX + nr) {
            Some(p) => lock(t, &p.point).map(Some),
            None => Ok(None),
        }
    }

    /// Takes those buckets from all write points that `drop` says. `drop` takes the reference over. Sleeps; no locks of nodes may be
    /// held.
    pub(super) fn drop_buckets(&self, mut drop: impl FnMut(Id) -> bool) {
        for p in self.points.iter() {
            p.point.lock().open.retain(|id| !drop(id));
        }
    }

    /// Calls `f` with the name and the contents of each write point. Sleeps.
    pub(super) fn for_each(&self, mut f: impl FnMut(&str, u64, &Point) -> core::fmt::Result) -> core::fmt::Result {
        for (i, p) in self.points.iter().enumerate() {
            let name = match i.checked_sub(GENERAL_MAX) {
                None => "general",
                Some(0) => "btree",
                Some(1) => "copygc",
                Some(_) => "rebalance",
            };
            f(name, p.key.load(Relaxed), &p.point.lock())?;
        }
        Ok(())
    }
}
