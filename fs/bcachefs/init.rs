// SPDX-License-Identifier: GPL-2.0
//! Mounting and unmounting: from device names and options to a filesystem that can be used.
//!
//! The order of a mount: name the devices ([`Request`]), read and check their superblocks, read the clean
//! section or the journal, start the btrees from it, read the snapshots. Every step hands the next one values
//! that need not be checked again. That makes a filesystem that can be read; [`Writing`] takes it from there to one that can be
//! changed, and back. Unmounting is dropping the [`Filesystem`].
//!
//! Here is also where those meet that work for each other but do not know each other: what the journal, the allocator and the triggers
//! ask for is in `journal_client` and `alloc_client`.

mod alloc_client;
pub mod filesystem;
mod journal_client;
pub mod mount;
pub mod options;
pub mod request;
mod root_table;
pub mod writing;

pub use filesystem::Filesystem;
pub use mount::{mount, Access};
pub use options::Options;
pub use request::Request;
pub use writing::{Phase, Writing};
