// SPDX-License-Identifier: GPL-2.0
//! Tests of the journal on devices in memory: what is on them after a crash, at any moment, is what has been promised.

mod concurrent;
mod full;
mod order;
mod world;

use self::world::check;
pub(super) use self::world::in_memory;

#[kernel::macros::kunit_tests(bcachefs_journal_engine)]
mod suite {
    use super::{concurrent, full, order};
    use kernel::prelude::*;

    fn run(f: fn() -> crate::util::error::Result) -> Result {
        f().map_err(|e| e.errno())
    }

    #[test]
    fn what_is_flushed_is_there() -> Result {
        run(order::flushed)
    }

    #[test]
    fn flush_entries_wait_for_those_before() -> Result {
        run(order::flush_waits)
    }

    #[test]
    fn several_devices_are_flushed_first() -> Result {
        run(order::several_devices)
    }

    #[test]
    fn promised_entries_are_not_flushed() -> Result {
        run(order::promises)
    }

    #[test]
    fn buffered_keys_are_handed_over() -> Result {
        run(order::buffered)
    }

    #[test]
    fn a_failed_copy_is_not_the_end() -> Result {
        run(order::one_device_fails)
    }

    #[test]
    fn failed_writes_end_it() -> Result {
        run(order::all_devices_fail)
    }

    #[test]
    fn failed_flushes_end_it() -> Result {
        run(order::flush_fails)
    }

    #[test]
    fn long_entries_make_buffers_grow() -> Result {
        run(order::grows)
    }

    #[test]
    fn pins_are_written_out() -> Result {
        run(full::reclaims)
    }

    #[test]
    fn a_stuck_journal_fails() -> Result {
        run(full::stuck)
    }

    #[test]
    fn replay_lets_go_in_order() -> Result {
        run(full::replay)
    }

    #[test]
    fn stopping_leaves_nothing_needed() -> Result {
        run(full::stop_and_start)
    }

    #[test]
    fn tasks_crash_anywhere() -> Result {
        run(concurrent::one_device)
    }

    #[test]
    fn tasks_crash_with_two_devices() -> Result {
        run(concurrent::two_devices)
    }
}
