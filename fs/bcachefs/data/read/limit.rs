// SPDX-License-Identifier: GPL-2.0
//! A limit on how often something is printed.
//!
//! A damaged device can fail thousands of reads a second. The first messages of every few seconds
//! tell what there is to know; the counters tell how many there were.
//!
//! Context: any.

use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::time::{Instant, Monotonic};

/// Length of a period, in nanoseconds.
const PERIOD_NS: i64 = 5_000_000_000;

/// Messages in a period.
const BURST: u32 = 20;

/// Counts messages by period. Two threads that meet at the turn of a period may both begin it; the
/// count is approximate then, which does no harm.
pub(in crate::data) struct Limit {
    birth: Instant<Monotonic>,
    period: Atomic<i64>,
    printed: Atomic<u32>,
}

/// What is to become of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::data) enum Verdict {
    /// Print it.
    Print,
    /// Print it, and say that it is the last for now.
    Last,
    /// Leave it out.
    Drop,
}

impl Limit {
    pub(in crate::data) fn new() -> Self {
        Limit {
            birth: Instant::now(),
            period: Atomic::new(0),
            printed: Atomic::new(0),
        }
    }

    /// Asks to print one message now.
    pub(in crate::data) fn admit(&self) -> Verdict {
        let now = self.birth.elapsed().as_nanos() / PERIOD_NS;
        if self.period.load(Relaxed) != now {
            self.period.store(now, Relaxed);
            self.printed.store(0, Relaxed);
        }
        verdict(self.printed.fetch_add(1, Relaxed))
    }
}

/// For the message that follows `before` others in its period.
fn verdict(before: u32) -> Verdict {
    match before {
        n if n < BURST - 1 => Verdict::Print,
        n if n == BURST - 1 => Verdict::Last,
        _ => Verdict::Drop,
    }
}
