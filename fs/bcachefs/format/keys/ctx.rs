// SPDX-License-Identifier: GPL-2.0
//! What a validator may know besides the key itself.
//!
//! Validation is pure: everything that depends on the filesystem is handed in here, so that the
//! same rules run in the kernel, in user space and on a bare key. What is absent is not checked.

/// When a key is being looked at. Some rules bind writers only: an older writer may have broken
/// them, and the key is still readable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// The key was read from a btree node, a journal entry or the clean section.
    Read,
    /// The key is about to be written.
    Commit,
}

/// The part of a member device that pointers are checked against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceGeometry {
    /// First bucket that may hold data.
    pub first_bucket: u64,
    /// Number of buckets, counted from bucket 0.
    pub nbuckets: u64,
    /// Size of a bucket in sectors.
    pub bucket_size: u32,
}

/// Finds the geometry of a member device.
pub trait Devices {
    /// The geometry of member `dev`, or `None` if there is no such member (which is not in itself
    /// an error in a key).
    fn geometry(&self, dev: u8) -> Option<DeviceGeometry>;
}

/// The surroundings of a key under validation.
#[derive(Clone, Copy)]
pub struct ValidateCtx<'a> {
    /// Whether the key was read or is to be written.
    pub when: When,
    /// Member devices; without them pointers are not checked against device bounds.
    pub devices: Option<&'a dyn Devices>,
    /// Size of a btree node in sectors; 0 if unknown.
    pub btree_node_sectors: u32,
    /// Largest uncompressed size of a checksummed or compressed extent, in sectors; 0 if unknown.
    pub encoded_extent_max: u32,
}

impl ValidateCtx<'_> {
    /// A context for keys read from disk with nothing known of the filesystem.
    pub const READ: Self = Self {
        when: When::Read,
        devices: None,
        btree_node_sectors: 0,
        encoded_extent_max: 0,
    };

    /// A context for keys about to be written with nothing known of the filesystem.
    pub const COMMIT: Self = Self {
        when: When::Commit,
        ..Self::READ
    };

    /// Whether the rules for writers apply.
    pub fn is_commit(&self) -> bool {
        self.when == When::Commit
    }

    /// The geometry of member `dev`, if it is known.
    pub fn geometry(&self, dev: u8) -> Option<DeviceGeometry> {
        self.devices?.geometry(dev)
    }
}
