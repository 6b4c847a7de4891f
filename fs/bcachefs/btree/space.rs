// SPDX-License-Identifier: GPL-2.0
//! Room on the devices: what the btrees ask of the allocator.

use super::trans::Attempt;
use crate::util::{
    error::{Error, Result},
    watermark::Watermark,
};
use bcachefs_format::keys::extent::Ptr;
use kernel::{prelude::*, sync::Arc};

/// Most copies of anything.
pub const REPLICAS_MAX: usize = 4;

/// What happens when there is less room than asked for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Shortage {
    /// It is an error.
    Fail,
    /// There always is: for what must not fail.
    Ignore,
    /// As much as there is.
    Partial,
}

/// Why there is no place right now.
pub enum SpaceError {
    /// Not until something becomes free. Wait with no lock held, then ask again.
    Blocked(KBox<dyn SpaceWait>),
    /// It failed.
    Failed(Error),
}

/// A registration with the allocator to be woken.
pub trait SpaceWait: Send {
    /// Waits until it is worth asking again. Sleeps. An error when there is no hope, as at shutdown.
    fn wait(self: KBox<Self>) -> Result;
}

/// Buckets that are kept open for something written to them and not yet referred to. Released on drop.
pub struct OpenBuckets {
    ids: [u16; REPLICAS_MAX],
    nr: u8,
    space: Option<Arc<dyn Space>>,
}

impl OpenBuckets {
    /// None.
    pub fn none() -> Self {
        OpenBuckets { ids: [0; REPLICAS_MAX], nr: 0, space: None }
    }

    /// Takes over one reference to each of `ids`, which are the allocator's; `None` if they are too many.
    pub fn new(space: Arc<dyn Space>, ids: &[u16]) -> Option<Self> {
        let mut all = [0; REPLICAS_MAX];
        all.get_mut(..ids.len())?.copy_from_slice(ids);
        Some(OpenBuckets { ids: all, nr: ids.len() as u8, space: Some(space) })
    }

    /// The allocator's numbers.
    pub fn ids(&self) -> &[u16] {
        self.ids.get(..usize::from(self.nr)).unwrap_or(&[])
    }
}

impl Drop for OpenBuckets {
    fn drop(&mut self) {
        if let Some(space) = self.space.take() {
            space.release(self.ids());
        }
    }
}

/// Where a node can be written.
pub struct NodePlace {
    /// One pointer for each copy, with generation.
    pub ptrs: [Ptr; REPLICAS_MAX],
    /// How many.
    pub nr: u8,
    /// To be kept until a key refers to the node.
    pub open: OpenBuckets,
}

/// Sectors that have been promised. What is left is given back on drop.
pub struct DiskReservation {
    /// Sectors left, all copies together.
    pub sectors: u64,
    /// Copies that are planned for.
    pub replicas: u8,
    space: Option<Arc<dyn Space>>,
}

impl DiskReservation {
    /// Of nothing.
    pub fn none() -> Self {
        DiskReservation { sectors: 0, replicas: 1, space: None }
    }

    /// Of `sectors` that `space` has set aside.
    pub fn new(space: Arc<dyn Space>, sectors: u64, replicas: u8) -> Self {
        DiskReservation { sectors, replicas, space: Some(space) }
    }

    /// Uses `sectors` of it; what is missing.
    pub fn consume(&mut self, sectors: u64) -> u64 {
        let have = self.sectors.min(sectors);
        self.sectors -= have;
        sectors - have
    }
}

impl DiskReservation {
    /// Takes up to `sectors` of it off, as a reservation of its own.
    pub fn split(&mut self, sectors: u64) -> DiskReservation {
        let taken = self.sectors.min(sectors);
        self.sectors -= taken;
        DiskReservation { sectors: taken, replicas: self.replicas, space: self.space.clone() }
    }

    /// Adds what `other` has, which is of the same filesystem.
    pub fn join(&mut self, mut other: DiskReservation) {
        if self.space.is_none() {
            self.space = other.space.clone();
        }
        self.sectors += core::mem::take(&mut other.sectors);
    }
}

impl Drop for DiskReservation {
    fn drop(&mut self) {
        if let (Some(space), true) = (self.space.take(), self.sectors != 0) {
            space.unreserve(self.sectors);
        }
    }
}

/// The allocator, as the btrees see it.
pub trait Space: Send + Sync {
    /// Sets `sectors` aside. Does not sleep longer than for a mutex; node locks may be held only with `Shortage::Ignore`.
    fn reserve(&self, sectors: u64, how: Shortage) -> Result<u64>;

    /// Gives back what was set aside. Does not sleep.
    fn unreserve(&self, sectors: u64);

    /// A commit changed what is in use by `delta` sectors, of which `reserved` had been set aside. Does not sleep.
    fn committed(&self, delta: i64, reserved: u64);

    /// A place for a node with `replicas` copies. `t`, where given, is used to look at buckets; its locks may be given up.
    fn node_place(
        &self,
        t: &mut Attempt<'_>,
        replicas: u8,
        watermark: Watermark,
    ) -> core::result::Result<core::result::Result<NodePlace, SpaceError>, super::TransError>;

    /// One user less of these open buckets. Does not sleep.
    fn release(&self, ids: &[u16]);

    /// Copies of metadata that the filesystem wants.
    fn metadata_replicas(&self) -> u8;
}
