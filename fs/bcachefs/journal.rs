// SPDX-License-Identifier: GPL-2.0
//! The journal: reading it when a filesystem is opened, and writing it ([`engine`]).
//!
//! After a clean shutdown the superblock's clean section says where the btrees start. After any other
//! the journal does: it is scanned on all devices, the range that recovery would replay is chosen, and
//! the keys in it become an overlay ([`JournalKeys`]) that readers of the btrees look at first. Either
//! way the result is a [`StartState`]. Only [`engine`] writes.

pub mod blacklist;
pub mod engine;
mod gather;
pub mod overlay;
mod range;
pub mod read;
mod scan;
pub mod start;
mod summary;
mod window;

pub use blacklist::Blacklist;
pub use overlay::JournalKeys;
pub use start::{RingStart, Root, RootState, StartState};
pub use summary::Summary;
