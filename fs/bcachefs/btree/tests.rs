// SPDX-License-Identifier: GPL-2.0
//! Tests of the btrees against models: sorted arrays and exhaustive searches.

mod changes;
mod concurrent;
mod edits;
pub(crate) mod image;
mod iterators;
pub(crate) mod memory;
mod nodes;
mod shape;
mod snapshots;
mod writes;

use super::node::Rules;
use bcachefs_format::{Invalid, KeyRef};

/// Fails the test at this line unless the condition holds.
macro_rules! check {
    ($cond:expr) => {
        if !$cond {
            kernel::pr_err!("btree test {}:{}: {} does not hold\n", file!(), line!(), stringify!($cond));
            return Err(crate::util::error::Error::BtreeTopology);
        }
    };
}
use check;

/// For nodes of keys that no rule of the format is about: everything is in order.
struct NoRules;

impl Rules for NoRules {
    fn blacklisted(&self, _: u64) -> bool {
        false
    }

    fn check_value(&self, _: KeyRef<'_>) -> core::result::Result<(), Invalid> {
        Ok(())
    }

    fn issue(&self, _: &Invalid) {}
}

pub(crate) use changes::scratch;
pub(crate) use image::Draw;

#[kernel::macros::kunit_tests(bcachefs_btree)]
mod suite {
    use super::{changes, concurrent, edits, iterators, nodes, shape, snapshots, writes};
    use kernel::prelude::*;

    fn run(f: fn() -> crate::util::error::Result) -> Result {
        f().map_err(|e| {
            kernel::pr_err!("btree test: {}\n", e.text());
            e.errno()
        })
    }

    #[test]
    fn node_matches_model() -> Result {
        run(nodes::matches_model)
    }

    #[test]
    fn node_survives_damage() -> Result {
        run(nodes::survives_damage)
    }

    #[test]
    fn edits_match_model() -> Result {
        run(edits::match_model)
    }

    #[test]
    fn nodes_split_and_merge() -> Result {
        run(edits::split_and_merge)
    }

    #[test]
    fn edits_survive_full_nodes() -> Result {
        run(edits::fill_to_the_brim)
    }

    #[test]
    fn writes_reach_all_copies() -> Result {
        run(writes::reach_all_copies)
    }

    #[test]
    fn writes_follow_each_other() -> Result {
        run(writes::follow_each_other)
    }

    #[test]
    fn writes_wait_for_permission() -> Result {
        run(writes::wait_for_permission)
    }

    #[test]
    fn writes_of_new_nodes() -> Result {
        run(writes::make_new_nodes)
    }

    #[test]
    fn writes_fail() -> Result {
        run(writes::fail)
    }

    #[test]
    fn writes_end_with_the_journal() -> Result {
        run(writes::end_with_the_journal)
    }

    #[test]
    fn dirty_nodes_stay() -> Result {
        run(writes::dirty_nodes_stay)
    }

    #[test]
    fn iterator_matches_model() -> Result {
        run(iterators::matches_model)
    }

    #[test]
    fn iterator_with_restarts() -> Result {
        run(iterators::with_restarts)
    }

    #[test]
    fn iterator_over_journal() -> Result {
        run(iterators::over_journal)
    }

    #[test]
    fn extent_slots_tile() -> Result {
        run(iterators::extent_slots)
    }

    #[test]
    fn tasks_share_nodes() -> Result {
        run(concurrent::tasks_share_nodes)
    }

    #[test]
    fn second_copy_serves() -> Result {
        run(iterators::second_copy)
    }

    #[test]
    fn changed_points_match_model() -> Result {
        run(changes::points)
    }

    #[test]
    fn changed_ranges_match_model() -> Result {
        run(changes::ranges)
    }

    #[test]
    fn changed_ranges_are_merged() -> Result {
        run(changes::merged)
    }

    #[test]
    fn write_buffer_matches_model() -> Result {
        run(changes::buffered)
    }

    #[test]
    fn triggers_keep_an_index() -> Result {
        run(changes::triggers)
    }

    #[test]
    fn tasks_change_the_same_leaves() -> Result {
        run(changes::tasks)
    }

    #[test]
    fn nothing_is_seen_as_much_as_something() -> Result {
        run(changes::holes)
    }

    #[test]
    fn tasks_make_btrees_grow() -> Result {
        run(changes::grow)
    }

    #[test]
    fn snapshot_ancestry() -> Result {
        run(snapshots::ancestry)
    }

    #[test]
    fn snapshot_visibility() -> Result {
        run(snapshots::visibility)
    }

    #[test]
    fn shape_grows_and_shrinks() -> Result {
        run(shape::grows_and_shrinks)
    }

    #[test]
    fn shape_with_restarts() -> Result {
        run(shape::with_restarts)
    }

    #[test]
    fn shape_fills() -> Result {
        run(shape::fills)
    }

    #[test]
    fn shape_rewrites() -> Result {
        run(shape::rewrites)
    }

    #[test]
    fn key_cache_matches_model() -> Result {
        run(shape::matches_model)
    }

    #[test]
    fn key_cache_tasks() -> Result {
        run(shape::tasks)
    }

    #[test]
    fn key_cache_limits() -> Result {
        run(shape::limits)
    }

    #[test]
    fn key_cache_crashes() -> Result {
        run(shape::crashes_with_cache)
    }

    #[test]
    fn shape_crashes() -> Result {
        run(shape::crashes)
    }
}
