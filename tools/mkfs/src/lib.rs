// SPDX-License-Identifier: GPL-2.0
//! Making a bcachefs filesystem: superblocks, nothing else. Btrees, journal and root directory are made by
//! the kernel when it mounts the filesystem for the first time, read-write.
//!
//! What is asked for ([`request`], filled in by [`cli`]) and what the devices are ([`device`]) make a [`plan`]:
//! sizes ([`geometry`]), labels and targets ([`labels`]), flags ([`flags`]). A plan becomes one superblock for each device
//! ([`image`]), which the format's validator has to accept before a byte is written.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod checksum;
pub mod cli;
pub mod device;
pub mod flags;
pub mod geometry;
pub mod image;
pub mod labels;
pub mod options;
pub mod plan;
pub mod probe;
pub mod request;
pub mod size;
pub mod write;

/// What goes wrong is told to a person and ends the program.
pub type Result<T> = std::result::Result<T, String>;
