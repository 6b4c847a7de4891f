// SPDX-License-Identifier: GPL-2.0
//! bcachefs: a checksumming, copy-on-write, multi-device filesystem.
//!
//! This crate is the filesystem proper. The on-disk format lives in `bcachefs_format`, everything
//! the kernel offers arrives through `kernel` and `kfs`; no unsafe code is written here.
//!
//! Modules import downward only, in the order listed: a module uses those above it.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![warn(missing_docs)]

use kernel::prelude::*;
use kfs::vfs::Registration;

pub mod util;

pub mod sb;

pub mod journal;

pub mod btree;

pub mod snapshots;

pub mod alloc;

pub mod data;

pub mod fs;

pub mod recovery;

pub mod init;

#[cfg(bcachefs_tests)]
pub mod tests;

pub mod show;

pub mod vfs;

module! {
    type: Bcachefs,
    name: "bcachefs",
    authors: ["The bcachefs-rust developers"],
    description: "bcachefs: checksumming, copy-on-write, multi-device filesystem",
    license: "GPL",
    alias: ["fs-bcachefs"],
}

/// The module: a registered file system type.
pub struct Bcachefs {
    _type: Registration<vfs::Bcachefs>,
}

impl kernel::Module for Bcachefs {
    fn init(module: &'static ThisModule) -> Result<Self> {
        Ok(Bcachefs {
            _type: Registration::new(module)?,
        })
    }
}
