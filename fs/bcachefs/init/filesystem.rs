// SPDX-License-Identifier: GPL-2.0
//! A mounted filesystem.

use core::fmt;

use kernel::sync::Arc;

use super::{writing::Writing, Options};
use crate::{
    btree::Btree,
    journal::Summary,
    sb::{Devices, LiveSuper, Super},
    snapshots::SnapshotTable,
    util::counters::Counters,
};

/// Everything a mounted filesystem consists of below the VFS.
///
/// Dropping it releases all: it becomes read-only, the btree waits for its reads and frees its nodes, the devices are closed when the
/// last of those that hold them is gone. May sleep.
pub struct Filesystem {
    /// Filesystem-wide superblock as it was when the filesystem was mounted.
    pub sup: Arc<Super>,
    /// The superblock as it is.
    pub live: Arc<LiveSuper>,
    /// Member devices.
    pub devices: Arc<Devices>,
    /// Mount options in effect.
    pub options: Options,
    /// Event counters.
    pub counters: Arc<Counters>,
    /// What the journal had to say when the filesystem was mounted.
    pub journal: Summary,
    /// The btrees.
    pub btree: Arc<Btree>,
    /// The snapshots, and which descends from which.
    pub snapshots: Arc<SnapshotTable>,
    /// What the filesystem is written with.
    pub writing: Arc<Writing>,
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        self.writing.shutdown();
        self.btree.shutdown();
    }
}

impl fmt::Display for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&*self.sup, f)
    }
}
