// SPDX-License-Identifier: GPL-2.0
//! Waiting for space.

use super::allocator::Allocator;
use crate::{
    btree::space::SpaceWait,
    fs_warn,
    util::{
        error::{Error, Result},
        watermark::Watermark,
    },
};
use bcachefs_format::keys::data_type::DataType;
use core::fmt;
use kernel::{prelude::*, sync::Arc};
use kfs::sync::Seen;

/// Someone who found no bucket.
pub(super) struct Blocked {
    allocator: Arc<Allocator>,
    seen: Seen,
    watermark: Watermark,
    data_type: DataType,
}

impl Blocked {
    /// Of one who began to look when the allocator was at `seen`.
    pub(super) fn new(
        allocator: Arc<Allocator>,
        seen: Seen,
        watermark: Watermark,
        data_type: DataType,
    ) -> Self {
        Blocked { allocator, seen, watermark, data_type }
    }

    /// Waits at most so long at a time, and says so when it takes longer.
    fn wait_reporting(&self, ms: u32, mut report: impl FnMut()) -> Result {
        let shared = &self.allocator.shared;
        let mut reported = false;
        loop {
            if !shared.is_running() {
                return Err(Error::AllocatorStopped);
            }
            shared.client.short_of_buckets();
            if shared.freed.wait(self.seen, ms) {
                return match shared.is_running() {
                    true => Ok(()),
                    false => Err(Error::AllocatorStopped),
                };
            }
            if !reported {
                report();
                reported = true;
            }
        }
    }
}

impl SpaceWait for Blocked {
    fn wait(self: KBox<Self>) -> Result {
        let seconds = match self.allocator.config.stuck_seconds {
            0 => 30,
            seconds => u32::from(seconds),
        };
        self.wait_reporting(seconds.saturating_mul(1000), || {
            let who = self.allocator.name();
            fs_warn!(
                who,
                "waiting for a bucket ({}, {}) for {seconds} seconds already",
                self.data_type,
                self.watermark
            );
            let _ = self.allocator.show_reserves(&mut Lines(who));
        })
    }
}

/// Prints to the kernel's log.
struct Lines<'a>(&'a str);

impl fmt::Write for Lines<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            fs_warn!(self.0, "{line}");
        }
        Ok(())
    }
}
