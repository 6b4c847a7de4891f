// SPDX-License-Identifier: GPL-2.0
//! Tests of the btrees against models: sorted arrays and exhaustive searches.

mod concurrent;
mod image;
mod iterators;
mod nodes;
mod snapshots;

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

#[kernel::macros::kunit_tests(bcachefs_btree)]
mod suite {
    use super::{concurrent, iterators, nodes, snapshots};
    use kernel::prelude::*;

    fn run(f: fn() -> crate::util::error::Result) -> Result {
        f().map_err(|e| e.errno())
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
    fn snapshot_ancestry() -> Result {
        run(snapshots::ancestry)
    }

    #[test]
    fn snapshot_visibility() -> Result {
        run(snapshots::visibility)
    }
}
