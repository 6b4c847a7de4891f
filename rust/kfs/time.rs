// SPDX-License-Identifier: GPL-2.0

//! The time of day.

use crate::bindings;

/// Nanoseconds since the epoch. Any context. Not negative unless the clock was set to before 1970.
pub fn real_ns() -> i64 {
    // SAFETY: May be called in any context but an NMI.
    unsafe { bindings::ktime_get_real() }
}

/// Seconds since the epoch. Any context.
pub fn real_seconds() -> u64 {
    u64::try_from(real_ns() / 1_000_000_000).unwrap_or(0)
}
