// SPDX-License-Identifier: GPL-2.0
//! Messages about damaged nodes: precise, but not without end.

use core::fmt;
use kernel::{
    new_spinlock,
    prelude::*,
    str::CString,
    sync::SpinLock,
    time::{Instant, Monotonic},
};

/// Messages that may be printed in a row.
const BURST: u32 = 20;
/// After which as many more may be.
const INTERVAL_MS: i64 = 5000;

struct Window {
    start: Instant<Monotonic>,
    printed: u32,
    dropped: u32,
}

/// Prints messages about one filesystem.
#[pin_data]
pub(super) struct Report {
    name: CString,
    #[pin]
    window: SpinLock<Window>,
}

impl Report {
    /// For the filesystem called `name`.
    pub(super) fn new(name: CString) -> impl PinInit<Self> {
        pin_init!(Self {
            name,
            window <- new_spinlock!(
                Window { start: Instant::now(), printed: 0, dropped: 0 },
                "btree_report"
            ),
        })
    }

    fn allowed(&self) -> Option<u32> {
        let mut w = self.window.lock();
        if w.start.elapsed().as_millis() >= INTERVAL_MS {
            w.start = Instant::now();
            w.printed = 0;
        }
        if w.printed >= BURST {
            w.dropped += 1;
            return None;
        }
        w.printed += 1;
        Some(core::mem::take(&mut w.dropped))
    }

    /// Prints an error.
    pub(super) fn error(&self, text: fmt::Arguments<'_>) {
        let Some(dropped) = self.allowed() else {
            return;
        };
        let name = self.name.to_str().unwrap_or("?");
        if dropped != 0 {
            pr_err!("{name}: {dropped} messages about btree nodes not printed\n");
        }
        pr_err!("{name}: {text}\n");
    }
}
