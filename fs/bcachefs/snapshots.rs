// SPDX-License-Identifier: GPL-2.0
//! Snapshot trees and subvolumes, as far as reading needs them.

mod subvolume;
mod table;

pub use subvolume::{subvolume, SubvolumeInfo};
pub use table::SnapshotTable;
