// SPDX-License-Identifier: GPL-2.0
//! What the allocator learns from the rest of the filesystem.

use super::counters::Totals;
use crate::util::{error::Result, write_refs::WriteRefs};
use bcachefs_format::{
    keys::data_type::DataType,
    sb::{Member, MemberState},
};

/// Data types with counters: those a bucket can have, and `unstriped`.
pub const TYPES: usize = DataType::COUNT as usize;

/// What the buckets of a device hold, by number of the data type.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct DeviceUsage {
    /// Buckets.
    pub buckets: [u64; TYPES],
    /// Sectors in use.
    pub sectors: [u64; TYPES],
    /// Sectors of buckets in use that are not.
    pub fragmented: [u64; TYPES],
}

impl DeviceUsage {
    /// Whether nothing has been counted, not even free buckets: those of a new filesystem are only entered after its first nodes
    /// have been placed.
    pub fn is_unknown(&self) -> bool {
        self.buckets.iter().all(|n| *n == 0)
    }

    /// Buckets of type `data_type`.
    pub fn buckets(&self, data_type: DataType) -> u64 {
        self.buckets.get(usize::from(data_type.0)).copied().unwrap_or(0)
    }
}

/// One of the two clocks that go by sectors of I/O.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ClockKind {
    /// Sectors read.
    Read,
    /// Sectors written.
    Write,
}

/// What the allocator needs of those below it. Unless it says so nothing of it sleeps, and locks of nodes may be held.
pub trait AllocClient: Send + Sync {
    /// Member `dev` as the superblock has it now.
    fn member(&self, dev: u8) -> Option<Member>;

    /// What device `dev` holds now. May lag behind a little, but not behind a commit that has returned.
    fn device_usage(&self, dev: u8) -> DeviceUsage;

    /// What the filesystem holds now.
    fn usage(&self) -> Totals;

    /// A clock; never 0.
    fn io_clock(&self, clock: ClockKind) -> u64;

    /// Permission to change things.
    fn writers(&self) -> &WriteRefs;

    /// Has the superblock say that there are nodes at these places: device, first sector, sectors. Writes it if it does not; only then it
    /// sleeps, and no locks of nodes may be held.
    fn mark_btree_nodes(&self, places: &[(u8, u64, u32)]) -> Result;

    /// Somebody waits because there is no bucket. Any context.
    fn short_of_buckets(&self) {}

    /// Whether devices are told about discarded buckets at all (not with option `nochanges` and the like).
    fn may_discard(&self) -> bool {
        true
    }
}

/// Whether new data may be put on a member at all.
pub(super) fn is_writable(member: &Member) -> bool {
    member.state() == MemberState::RW
}
