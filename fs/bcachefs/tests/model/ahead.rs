// SPDX-License-Identifier: GPL-2.0
//! Limits of a single operation, so that what it needs can be allocated once.

/// Points that one transaction changes.
pub(super) const POINTS_MAX: u64 = 8;
/// Keys that one transaction changes.
pub(super) const KEYS_MAX: usize = POINTS_MAX as usize + 1;
/// Places that a walk goes over.
pub(super) const WALK_MAX: u64 = 300;
/// Places that are deleted at a time.
pub(super) const DELETE_MAX: u64 = 200;
/// Sectors of a range.
pub(super) const RANGE_MAX: u64 = 128;
