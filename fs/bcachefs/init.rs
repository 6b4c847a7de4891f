// SPDX-License-Identifier: GPL-2.0
//! Mounting and unmounting: from device names and options to a filesystem that can be used.
//!
//! The order of a mount: name the devices ([`Request`]), read and check their superblocks, read the clean
//! section or the journal, start the btrees from it, read the snapshots. Every step hands the next one values
//! that need not be checked again. Unmounting is dropping the [`Filesystem`].

pub mod filesystem;
pub mod mount;
pub mod options;
pub mod request;

pub use filesystem::Filesystem;
pub use mount::{mount, Access};
pub use options::Options;
pub use request::Request;
