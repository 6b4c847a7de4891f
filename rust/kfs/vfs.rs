// SPDX-License-Identifier: GPL-2.0

//! Filesystems: what a Rust filesystem offers to the VFS, and what it may ask of it.
//!
//! A filesystem implements [`FileSystem`] (the type, its mount options, its superblocks) and one trait per
//! C table it wants to fill: [`inode::Operations`], [`dir::Operations`], [`iomap::Read`], [`xattr::Operations`],
//! [`export::Operations`]. A [`Registration`] makes the type known to `mount(2)`.
//!
//! # Conventions
//!
//! - References to C objects ([`Inode`], [`SuperBlock`]) are borrowed for one call, or bound by lifetime to the
//!   superblock ([`InodeRef`]); none can be kept beyond the life of the mount.
//! - Every trait method runs in process context and may sleep, unless its documentation says otherwise. Calls that the
//!   VFS makes under RCU are answered here with "ask again in process context".
//! - Positions and lengths in files are `u64` bytes, never above [`MAX_FILE_POSITION`].
//! - Errors are errnos ([`kernel::error::Error`]).
//!
//! # The states of an inode
//!
//! ```text
//! SuperBlock::inode(key) ──┬─ cached ──────────────────────────────► InodeRef
//!                          └─ NewInode ── finish(kind, data) ──────► InodeRef
//!                                └─ dropped ─► as if it had never been looked up
//! ```

pub mod acl;
pub mod context;
pub mod dir;
pub mod export;
pub mod file;
pub mod inode;
pub mod iomap;
pub mod parameters;
pub mod stat;
pub mod super_block;
pub mod xattr;

mod filesystem;
mod registration;
mod super_operations;

pub use self::{
    context::{Log, MountFlags, MountPurpose},
    filesystem::{FileSystem, TypeFlags},
    inode::{Inode, InodeEntry, InodeRef, NewInode},
    registration::Registration,
    super_block::SuperBlock,
};

/// The greatest position in a file, in bytes: what an `loff_t` holds.
pub const MAX_FILE_POSITION: u64 = i64::MAX as u64;

/// A point in time: seconds since 1970, and nanoseconds (less than 1,000,000,000) after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamp {
    /// Seconds since 1970, negative before it.
    pub seconds: i64,
    /// Nanoseconds, always counted forward.
    pub nanoseconds: u32,
}
