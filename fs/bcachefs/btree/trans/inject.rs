// SPDX-License-Identifier: GPL-2.0
//! Restarts on demand, for testing.
//!
//! Wherever a restart can come up one may be injected. Which ones are is decided by a generator that is seeded, so that a
//! run can be repeated; the more often an attempt has been restarted the rarer they become, so that it ends.

use kernel::sync::atomic::{Atomic, Relaxed};
use kfs::sync::InlineAtomic;

/// The setting of one filesystem.
pub struct Inject {
    one_in: Atomic<u32>,
    state: Atomic<u64>,
}

impl Inject {
    /// None.
    pub(in crate::btree) const fn off() -> Self {
        Inject {
            one_in: Atomic::new(0),
            state: Atomic::new(0),
        }
    }

    /// Restarts one in `one_in` times; 0 for never.
    pub fn set(&self, seed: u64, one_in: u32) {
        self.state.store(seed, Relaxed);
        self.one_in.store(one_in, Relaxed);
    }

    /// Whether to restart here, for the `restarts`-th time.
    #[inline]
    pub(super) fn fires(&self, restarts: u32) -> bool {
        match self.one_in.read() {
            0 => false,
            n => self.draw(n, restarts),
        }
    }

    #[cold]
    fn draw(&self, one_in: u32, restarts: u32) -> bool {
        // A Weyl sequence, scrambled: each draw is independent of how threads interleave but for its place.
        let mut x = self
            .state
            .fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        let range = u64::from(one_in) << (restarts / 4).min(20);
        x.checked_rem(range) == Some(0)
    }
}
