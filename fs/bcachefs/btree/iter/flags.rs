// SPDX-License-Identifier: GPL-2.0
//! What an iterator shows.

use bcachefs_format::BtreeId;
use core::ops::BitOr;

/// Flags of an iterator, combined with `|`.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct IterFlags(u16);

impl IterFlags {
    /// The usual view of the tree.
    pub const NONE: IterFlags = IterFlags(0);
    /// Holes are returned, too, as keys of type `deleted`.
    pub const SLOTS: IterFlags = IterFlags(1 << 0);
    /// Keys of all snapshots are shown, whiteouts included, each by itself.
    pub const ALL_SNAPSHOTS: IterFlags = IterFlags(1 << 1);
    /// Extents are treated as points at their ends.
    pub const NOT_EXTENTS: IterFlags = IterFlags(1 << 2);
    /// All keys there are, each by itself at its position.
    pub const EACH: IterFlags = IterFlags(1 << 1 | 1 << 2);
    /// Leaves are read ahead.
    pub const PREFETCH: IterFlags = IterFlags(1 << 3);
    /// Keys will be changed: the node of what is shown is locked so that nobody else changes it meanwhile.
    pub const INTENT: IterFlags = IterFlags(1 << 4);

    /// That there is nothing between the position and what is found stays true until the commit, too, even if that is in another node. For
    /// looks over few nodes.
    pub const KEEP: IterFlags = IterFlags(1 << 5);

    /// Found out from the tree: keys are ranges.
    pub(in crate::btree) const EXTENTS: IterFlags = IterFlags(1 << 8);
    /// Found out from the tree: only what the snapshot sees is shown.
    pub(in crate::btree) const FILTER: IterFlags = IterFlags(1 << 9);

    /// Whether all of `flags` are set.
    #[inline]
    pub const fn has(self, flags: IterFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These flags and `flags`.
    pub const fn with(self, flags: IterFlags) -> Self {
        IterFlags(self.0 | flags.0)
    }

    const fn without(self, flags: IterFlags) -> Self {
        IterFlags(self.0 & !flags.0)
    }

    /// Adds what follows from the tree.
    pub(super) fn resolve(mut self, btree: BtreeId, level: u8) -> Self {
        self = self.without(Self::EXTENTS | Self::FILTER);
        if !btree.has_snapshot_field() && btree.is_known() {
            self = self.without(Self::ALL_SNAPSHOTS);
        }
        if level > 0 {
            return self | Self::ALL_SNAPSHOTS | Self::NOT_EXTENTS;
        }
        if btree.is_extents() && !self.has(Self::ALL_SNAPSHOTS) && !self.has(Self::NOT_EXTENTS) {
            self = self | Self::EXTENTS;
        }
        if btree.has_snapshots() && !self.has(Self::ALL_SNAPSHOTS) {
            self = self | Self::FILTER;
        }
        self
    }
}

impl BitOr for IterFlags {
    type Output = IterFlags;

    fn bitor(self, other: IterFlags) -> IterFlags {
        IterFlags(self.0 | other.0)
    }
}
