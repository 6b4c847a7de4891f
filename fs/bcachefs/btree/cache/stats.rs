// SPDX-License-Identifier: GPL-2.0
//! What has happened in the cache: numbers for people.

use core::fmt;
use kernel::sync::atomic::{Atomic, Relaxed};

/// Why a node was not evicted when it was looked at.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum NotFreed {
    /// Too few nodes would have been left.
    CacheReserve,
    /// Locked for intent.
    LockIntent,
    /// Locked for read or write.
    LockWrite,
    /// It has changes that are not written.
    Dirty,
    /// It is being read.
    ReadInFlight,
    /// It is being written.
    WriteInFlight,
    /// It is a root, or has to stay for another reason.
    Noevict,
    /// Its children are not durable yet.
    WriteBlocked,
    /// It is new and not reachable yet.
    WillMakeReachable,
    /// It has been used since the hand last came by.
    AccessBit,
}

impl NotFreed {
    const NAMES: [&'static str; 10] = [
        "cache_reserve",
        "lock_intent",
        "lock_write",
        "dirty",
        "read_in_flight",
        "write_in_flight",
        "noevict",
        "write_blocked",
        "will_make_reachable",
        "access_bit",
    ];
}

/// Counters since mount.
pub struct CacheStats {
    freed: Atomic<u64>,
    cannibalised: Atomic<u64>,
    scans: Atomic<u64>,
    not_freed: [Atomic<u64>; NotFreed::NAMES.len()],
}

impl CacheStats {
    pub(super) fn new() -> Self {
        CacheStats {
            freed: Atomic::new(0),
            cannibalised: Atomic::new(0),
            scans: Atomic::new(0),
            not_freed: [const { Atomic::new(0) }; NotFreed::NAMES.len()],
        }
    }

    pub(super) fn scanned(&self) {
        self.scans.add(1u64, Relaxed);
    }

    pub(super) fn evicted(&self) {
        self.freed.add(1u64, Relaxed);
    }

    pub(super) fn cannibalised(&self, n: usize) {
        self.cannibalised.add(n as u64, Relaxed);
    }

    pub(super) fn not_freed(&self, why: NotFreed) {
        if let Some(c) = self.not_freed.get(why as usize) {
            c.add(1u64, Relaxed);
        }
    }

    /// Nodes evicted since mount.
    pub fn nr_evicted(&self) -> u64 {
        self.freed.load(Relaxed)
    }

    /// How often a node was spared for `why`.
    pub fn nr_not_freed(&self, why: NotFreed) -> u64 {
        self.not_freed
            .get(why as usize)
            .map_or(0, |c| c.load(Relaxed))
    }
}

impl fmt::Display for CacheStats {
    #[inline(never)]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "scans: {}", self.scans.load(Relaxed))?;
        writeln!(f, "freed: {}", self.freed.load(Relaxed))?;
        writeln!(f, "cannibalised: {}", self.cannibalised.load(Relaxed))?;
        writeln!(f, "not freed:")?;
        for (name, n) in NotFreed::NAMES.iter().zip(&self.not_freed) {
            writeln!(f, "  {name}: {}", n.load(Relaxed))?;
        }
        Ok(())
    }
}
