// SPDX-License-Identifier: GPL-2.0
//! What triggers and the allocator ask of the rest of the filesystem.
//!
//! Accounting comes first, the allocator asks it, triggers tell the allocator: everyone knows only those before them, and here is
//! where they meet.

use bcachefs_format::{
    keys::alloc::Alloc,
    sb::{Member, ReplicasEntry},
};
use kernel::sync::Arc;

use crate::{
    alloc::{
        client::{AllocClient, ClockKind, DeviceUsage},
        Accounting, Allocator, ReplicasStore, Totals, TriggerClient,
    },
    data::copygc::Signal,
    sb::LiveSuper,
    util::{
        error::Result,
        io_clock::{IoClocks, Rw},
        write_refs::WriteRefs,
    },
};

/// The superblock's list of replicas, for accounting.
pub(super) struct SuperReplicas(pub(super) Arc<LiveSuper>);

impl ReplicasStore for SuperReplicas {
    fn lists_replicas(&self, entry: &ReplicasEntry<'_>) -> bool {
        self.0.lists_replicas(entry)
    }

    fn mark_replicas(&self, entries: &mut dyn Iterator<Item = ReplicasEntry<'_>>) -> Result {
        self.0.mark_replicas(entries)
    }
}

/// For the allocator.
pub(super) struct FsAllocClient {
    pub(super) live: Arc<LiveSuper>,
    pub(super) accounting: Arc<Accounting>,
    pub(super) clocks: Arc<IoClocks>,
    pub(super) writers: Arc<WriteRefs>,
    /// Who moves data together when there are no buckets.
    pub(super) copygc: Arc<Signal>,
    /// Discards reach the devices.
    pub(super) may_discard: bool,
}

impl AllocClient for FsAllocClient {
    fn member(&self, dev: u8) -> Option<Member> {
        self.live.member(dev)
    }

    fn device_usage(&self, dev: u8) -> DeviceUsage {
        let mut usage = DeviceUsage::default();
        for (nr, [buckets, sectors, fragmented]) in self.accounting.device(dev).into_iter().enumerate() {
            let put = |to: &mut [u64], n| {
                if let Some(to) = to.get_mut(nr) {
                    *to = n;
                }
            };
            put(&mut usage.buckets, buckets);
            put(&mut usage.sectors, sectors);
            put(&mut usage.fragmented, fragmented);
        }
        usage
    }

    fn usage(&self) -> Totals {
        self.accounting.totals()
    }

    fn io_clock(&self, clock: ClockKind) -> u64 {
        let rw = match clock {
            ClockKind::Read => Rw::Read,
            ClockKind::Write => Rw::Write,
        };
        self.clocks.now(rw).max(1)
    }

    fn writers(&self) -> &WriteRefs {
        &self.writers
    }

    fn mark_btree_nodes(&self, places: &[(u8, u64, u32)]) -> Result {
        self.live.mark_btree_nodes(places)
    }

    fn short_of_buckets(&self) {
        self.copygc.short();
    }

    fn may_discard(&self) -> bool {
        self.may_discard
    }
}

/// For triggers.
pub(super) struct FsTriggerClient {
    pub(super) allocator: Arc<Allocator>,
    pub(super) clocks: Arc<IoClocks>,
}

impl TriggerClient for FsTriggerClient {
    fn is_open(&self, dev: u8, bucket: u64) -> bool {
        self.allocator.is_open(dev, bucket)
    }

    fn bucket_changed(&self, dev: u8, bucket: u64, old: &Alloc, new: &Alloc) {
        self.allocator.bucket_changed(dev, bucket, old, new);
    }

    fn io_time(&self) -> [u64; 2] {
        [self.clocks.now(Rw::Read).max(1), self.clocks.now(Rw::Write).max(1)]
    }
}
