// SPDX-License-Identifier: GPL-2.0
//! What triggers need of those who keep the state of buckets in memory.

use bcachefs_format::keys::alloc::Alloc;

/// The allocator and the clocks, as triggers see them. Nothing here sleeps; locks of nodes are held.
pub trait TriggerClient: Send + Sync {
    /// Whether the allocator holds the bucket open: something is being written to it that no key refers to yet.
    fn is_open(&self, dev: u8, bucket: u64) -> bool;

    /// The key of the bucket changes, with the commit that is under way. `new` is as it is going to be on disk: its `journal_seq`
    /// says which entry has to be durable before the bucket can be reused.
    fn bucket_changed(&self, dev: u8, bucket: u64, old: &Alloc, new: &Alloc);

    /// What the clocks of reading and of writing say, in sectors.
    fn io_time(&self) -> [u64; 2];
}
