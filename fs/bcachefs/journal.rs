// SPDX-License-Identifier: GPL-2.0
//! The journal, as far as opening a filesystem needs it.
//!
//! After a clean shutdown the superblock's clean section says where the btrees start. After any other
//! the journal does: it is scanned on all devices, the range that recovery would replay is chosen, and
//! the keys in it become an overlay ([`JournalKeys`]) that readers of the btrees look at first. Either
//! way the result is a [`StartState`]. Nothing in here writes.

pub mod blacklist;
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
pub use start::{Root, RootState, StartState};
pub use summary::Summary;
