// SPDX-License-Identifier: GPL-2.0
//! Superblocks: the description of the filesystem and of its member devices.
//!
//! Reading finds a valid copy on every device given, chooses the newest, checks that the devices
//! belong together and are enough to mount, and leaves two immutable values: [`Super`], what holds for
//! the whole filesystem, and [`Devices`], the members that are present. What changes while the filesystem is mounted
//! is in [`LiveSuper`], which edits superblocks ([`SbImage`]) and writes them.

pub mod device;
mod image;
mod listed;
mod live;
mod open;
mod own;
pub mod policy;
mod read;
pub mod super_block;
mod write;

pub use device::{Device, Devices};
pub use image::SbImage;
pub use live::{LiveSuper, OnFailure};
pub use open::{open, Opened};
pub use own::superblock_sectors;
pub use super_block::Super;
