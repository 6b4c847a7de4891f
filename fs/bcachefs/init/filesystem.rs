// SPDX-License-Identifier: GPL-2.0
//! A mounted filesystem.

use core::fmt;

use kernel::sync::Arc;

use super::Options;
use crate::{
    btree::Btree,
    journal::Summary,
    sb::{Devices, Super},
    snapshots::SnapshotTable,
    util::counters::Counters,
};

/// Everything a mounted filesystem consists of below the VFS.
///
/// Dropping it releases all: the btree waits for its reads and frees its nodes first, the devices are closed
/// when the last of those that hold them is gone. May sleep.
pub struct Filesystem {
    /// Filesystem-wide superblock.
    pub sup: Super,
    /// Member devices.
    pub devices: Arc<Devices>,
    /// Mount options in effect.
    pub options: Options,
    /// Event counters.
    pub counters: Arc<Counters>,
    /// What the journal had to say.
    pub journal: Summary,
    /// The btrees.
    pub btree: Arc<Btree>,
    /// The snapshots, and which descends from which.
    pub snapshots: Arc<SnapshotTable>,
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        self.btree.shutdown();
    }
}

impl fmt::Display for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.sup, f)
    }
}
