// SPDX-License-Identifier: GPL-2.0
//! Time as it passes for data: the sectors read and written over the filesystem's life.
//!
//! Buckets remember when they were last used by these clocks. Their values are in every journal entry.

use kernel::sync::atomic::{Atomic, Relaxed};

/// Which clock.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Rw {
    /// Sectors read.
    Read,
    /// Sectors written.
    Write,
}

/// Both clocks.
pub struct IoClocks {
    sectors: [Atomic<u64>; 2],
}

impl IoClocks {
    /// Going on from `start`: sectors read, sectors written.
    pub fn new(start: [u64; 2]) -> Self {
        let [read, write] = start;
        IoClocks {
            sectors: [Atomic::new(read), Atomic::new(write)],
        }
    }

    fn clock(&self, rw: Rw) -> &Atomic<u64> {
        let [read, write] = &self.sectors;
        match rw {
            Rw::Read => read,
            Rw::Write => write,
        }
    }

    /// The time in sectors. Any context.
    #[inline]
    pub fn now(&self, rw: Rw) -> u64 {
        self.clock(rw).load(Relaxed)
    }

    /// Lets `sectors` pass. Any context.
    #[inline]
    pub fn add(&self, rw: Rw, sectors: u64) {
        self.clock(rw).add(sectors, Relaxed);
    }
}
