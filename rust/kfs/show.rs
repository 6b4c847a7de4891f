// SPDX-License-Identifier: GPL-2.0

//! Showing what goes on inside, as files.
//!
//! - [`sysfs`]: small values under `/sys/fs/`, one per file, for tools and administrators.
//! - [`debugfs`]: text of any length for developers, printed piece by piece.

pub mod debugfs;
pub mod sysfs;

mod registry;
mod text;

pub use self::text::{PageWriter, Text};
