// SPDX-License-Identifier: GPL-2.0
//! Tests of the allocator as a whole, on devices that are numbers, over btrees that are keys in the journal; and of triggers
//! in transactions, over btrees in memory.

mod fixture;
mod places;
mod transactions;
mod waits;

/// Fails the test at this line unless the condition holds.
macro_rules! check {
    ($cond:expr) => {
        if !$cond {
            kernel::pr_err!("alloc test {}:{}: {} does not hold\n", file!(), line!(), stringify!($cond));
            return Err(crate::util::error::Error::BucketInconsistent);
        }
    };
}
use check;

#[kernel::macros::kunit_tests(bcachefs_alloc)]
mod suite {
    use super::{places, waits};
    use kernel::prelude::*;

    fn run(f: fn() -> crate::util::error::Result) -> Result {
        f().map_err(|e| e.errno())
    }

    #[test]
    fn free_buckets_only() -> Result {
        run(places::free_buckets_only)
    }

    #[test]
    fn before_there_are_keys() -> Result {
        run(places::before_there_are_keys)
    }

    #[test]
    fn generations_part_the_search() -> Result {
        run(places::generations_part_the_search)
    }

    #[test]
    fn oldest_pointers_are_found() -> Result {
        run(places::oldest_pointers_are_found)
    }

    #[test]
    fn copies_on_different_devices() -> Result {
        run(places::copies_on_different_devices)
    }

    #[test]
    fn targets_first() -> Result {
        run(places::targets_first)
    }

    #[test]
    fn write_points_keep_apart() -> Result {
        run(places::write_points_keep_apart)
    }

    #[test]
    fn nodes_never_span_buckets() -> Result {
        run(places::nodes_never_span_buckets)
    }

    #[test]
    fn urgent_ones_dig_deeper() -> Result {
        run(places::urgent_ones_dig_deeper)
    }

    #[test]
    fn removed_devices_are_left() -> Result {
        run(places::removed_devices_are_left)
    }

    #[test]
    fn woken_when_durable() -> Result {
        run(waits::woken_when_durable)
    }

    #[test]
    fn woken_when_closed() -> Result {
        run(waits::woken_when_closed)
    }

    #[test]
    fn stopping_wakes_in_vain() -> Result {
        run(waits::stopping_wakes_in_vain)
    }

    #[test]
    fn slow_waits_are_reported() -> Result {
        run(waits::slow_waits_are_reported)
    }

    #[test]
    fn emptied_buckets_are_discarded() -> Result {
        run(waits::emptied_buckets_are_discarded)
    }

    #[test]
    fn promises_follow_capacity() -> Result {
        run(waits::promises_follow_capacity)
    }
}
