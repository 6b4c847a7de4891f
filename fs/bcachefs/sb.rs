// SPDX-License-Identifier: GPL-2.0
//! Superblocks: the description of the filesystem and of its member devices.
//!
//! Reading finds a valid copy on every device given, chooses the newest, checks that the devices
//! belong together and are enough to mount, and leaves two immutable values: [`Super`], what holds for
//! the whole filesystem, and [`Devices`], the members that are present. Nothing in here writes.

pub mod device;
mod open;
pub mod policy;
mod read;
pub mod super_block;

pub use device::{Device, Devices};
pub use open::open;
pub use super_block::Super;
