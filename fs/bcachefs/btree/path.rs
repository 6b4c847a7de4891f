// SPDX-License-Identifier: GPL-2.0
//! Paths: the way from a root to a position, as far as it has been gone.
//!
//! A path refers to its nodes by their slots in the attempt's lock set. Only the node at the level the path
//! leads to is kept locked; the ones above are remembered with their sequence numbers, so that moving on takes the
//! nearest one back that still covers the new position. A path may want intent instead of read: at its own level, to change
//! keys, or on some levels above, to change the shape of the tree; these stay locked, too.
//!
//! The node of an update is kept locked by the path of the iterator that it was made with; when that goes on to another node,
//! another path takes over. All updates in a node share one path.
//!
//! # Invariants
//!
//! - The cursor of a path at its level stands before the first key that is not below the path's position.
//! - If `hold` is set, something found through the path has been handed out: its node may be locked again, but not
//!   replaced by another.

mod child;
mod lock;
mod table;
mod traverse;

pub(super) use table::{mode, Live, LiveRef, Path, Paths, PATHS_MAX};
