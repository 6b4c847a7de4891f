// SPDX-License-Identifier: GPL-2.0
//! Times, stored relative to the moment the filesystem was made.

/// Nanoseconds in a second.
const NSEC_PER_SEC: u32 = 1_000_000_000;

/// How stored times relate to the clock: derived once from the superblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeBase {
    /// The moment stored as 0, in units since 1970.
    base: i64,
    /// Length of a unit in nanoseconds, 1..=10^9.
    unit: u32,
}

/// A moment as the clock has it: seconds since 1970 and nanoseconds below 10^9.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct UnixTime {
    /// Seconds since 1970; may be negative.
    pub secs: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

impl TimeBase {
    /// From the superblock's `time_base_lo` (nanoseconds since 1970) and `time_precision`
    /// (nanoseconds; 0 counts as 1, more than a second as a second).
    pub const fn new(time_base_lo: u64, time_precision: u32) -> Self {
        let unit = match time_precision {
            0 => 1,
            p if p > NSEC_PER_SEC => NSEC_PER_SEC,
            p => p,
        };
        Self {
            base: (time_base_lo / unit as u64) as i64,
            unit,
        }
    }

    /// Units in a second.
    const fn per_sec(self) -> i64 {
        (NSEC_PER_SEC / self.unit) as i64
    }

    /// Length of a unit, the granularity of times, in nanoseconds.
    pub const fn granularity(self) -> u32 {
        self.unit
    }

    /// The moment a stored time stands for.
    pub const fn to_unix(self, stored: i64) -> UnixTime {
        let units = stored.wrapping_add(self.base);
        UnixTime {
            secs: units.div_euclid(self.per_sec()),
            // Below 10^9, as the remainder is below units per second.
            nanos: units.rem_euclid(self.per_sec()) as u32 * self.unit,
        }
    }

    /// How a moment is stored, rounded down to the unit; wraps where 64 bits do not hold it.
    pub const fn from_unix(self, time: UnixTime) -> i64 {
        time.secs
            .wrapping_mul(self.per_sec())
            .wrapping_add((time.nanos / self.unit) as i64)
            .wrapping_sub(self.base)
    }
}
