// SPDX-License-Identifier: GPL-2.0
//! Everything that new nodes need, got before anything is locked.
//!
//! A change of shape must not fail half-way, and must not wait for memory or for the allocator with nodes locked. So the
//! transaction gives up its locks, gets as many [`Spare`]s as the change can take, and locks again. Spares
//! that were not used leave their places in a small cache. From that, the last [`KEPT`] are only for those who make room in
//! the journal, or finish updates.

use super::update::NEW_MAX;
use crate::{
    btree::{
        node::{NodeData, NodeHead, NodeMem},
        space::{DiskReservation, NodePlace, Shortage, SpaceError, SpaceWait},
        trans::{update::CommitFlags, Attempt, TransError},
        write::WriteMem,
        Btree,
    },
    util::{
        error::{Error, Result},
        watermark::Watermark,
    },
};
use core::fmt;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::SpinLock,
};
use kfs::sync::six::Seat;

/// Places that are kept for those who make room.
const KEPT: usize = 28;
/// Places that are kept at all.
const CACHED_MAX: usize = 2 * KEPT;
/// Nodes to evict when there is no memory for a new one.
const CANNIBALISE: usize = 8;
/// How often that is tried.
const TRIES_MAX: u32 = 16;

/// Memory for a lock of a node.
type NodeSeat = Seat<NodeData, NodeHead>;

/// Places of nodes that were reserved and not used.
#[pin_data]
pub(super) struct Places {
    #[pin]
    places: SpinLock<KVec<NodePlace>>,
}

impl Places {
    /// None. May sleep.
    pub(super) fn new() -> Result<impl PinInit<Self>> {
        let places = KVec::with_capacity(CACHED_MAX, GFP_KERNEL)?;
        Ok(pin_init!(Self {
            places <- new_spinlock!(places, "btree_node_places"),
        }))
    }

    /// One with as many copies as are wanted now.
    fn take(&self, watermark: Watermark, replicas: u8) -> Option<NodePlace> {
        let keep = if watermark < Watermark::Reclaim { KEPT } else { 0 };
        let mut places = self.places.lock();
        if places.len() <= keep {
            return None;
        }
        let at = places.iter().rposition(|p| p.nr == replicas)?;
        places.remove(at).ok()
    }

    /// Keeps a place for later, or lets go of it. Does not sleep.
    pub(super) fn put(&self, place: NodePlace) {
        let refused = self.places.lock().push_within_capacity(place);
        drop(refused);
    }

    /// Lets go of all.
    pub(super) fn clear(&self) {
        loop {
            let place = self.places.lock().pop();
            if place.is_none() {
                return;
            }
        }
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.places.lock().len();
        writeln!(f, "places reserved and not used: {n}")
    }
}

/// What one new node needs. All of it is there until it is used.
pub(super) struct Spare {
    /// Where it will be written.
    pub place: Option<NodePlace>,
    /// Memory for its keys.
    pub mem: Option<NodeMem>,
    /// Its keys, once they have been put together. They are too large for the stack.
    pub data: NodeData,
    /// Memory for its lock and head.
    pub seat: Option<NodeSeat>,
    /// Memory for its first write.
    pub write: Option<WriteMem>,
}

/// The spares of one change, and the space that they will use.
pub(super) struct NodeReserve<'b> {
    btree: &'b Btree,
    spares: KVec<KBox<Spare>>,
    disk: DiskReservation,
}

/// The watermark at which nodes are allocated for a commit at `watermark`.
fn raised(watermark: Watermark) -> Watermark {
    match watermark {
        Watermark::Copygc => Watermark::BtreeCopygc,
        w => w.max(Watermark::Btree),
    }
}

impl<'b> NodeReserve<'b> {
    /// Nothing yet. May sleep.
    pub(super) fn new(btree: &'b Btree) -> Result<Self> {
        Ok(NodeReserve {
            btree,
            spares: KVec::with_capacity(NEW_MAX, GFP_KERNEL)?,
            disk: DiskReservation::none(),
        })
    }

    /// How many nodes can be made.
    pub(super) fn len(&self) -> usize {
        self.spares.len()
    }

    /// Takes what the next node needs.
    pub(super) fn take(&mut self) -> Result<KBox<Spare>> {
        self.spares.pop().ok_or(Error::BtreeTopology)
    }

    /// Takes all of the space that was set aside.
    pub(super) fn take_disk(&mut self) -> DiskReservation {
        core::mem::replace(&mut self.disk, DiskReservation::none())
    }

    /// Gets what is missing to `nodes` nodes. Gives up all locks and paths of `t`; sleeps.
    ///
    /// Those who make room in the journal without a watermark that lets them get at the last reserves do not wait: that would be
    /// for themselves.
    pub(super) fn ensure(
        &mut self,
        t: &mut Attempt<'_>,
        nodes: usize,
        flags: &CommitFlags,
    ) -> core::result::Result<(), TransError> {
        let engine = self.btree.engine()?;
        let watermark = raised(flags.watermark);
        let may_wait = !flags.journal_reclaim || watermark >= Watermark::Reclaim;
        t.forget_all();
        if watermark < Watermark::Reclaim
            && !engine.journal.wait(1, watermark, flags.journal_reclaim)?
        {
            return Err(Error::WouldDeadlock.into());
        }
        let replicas = engine.space.metadata_replicas();
        self.set_sectors_aside(nodes, replicas, flags)?;
        while self.spares.len() < nodes {
            match self.spare(t, watermark, replicas)? {
                Ok(spare) => {
                    // There is room for as many as one update can use.
                    if self.spares.push_within_capacity(spare).is_err() {
                        return Err(Error::BtreeTopology.into());
                    }
                }
                Err(wait) => {
                    if !may_wait {
                        return Err(Error::WouldDeadlock.into());
                    }
                    // Somebody else may need just these.
                    self.give_back();
                    wait.wait()?;
                }
            }
        }
        Ok(())
    }

    fn set_sectors_aside(
        &mut self,
        nodes: usize,
        replicas: u8,
        flags: &CommitFlags,
    ) -> core::result::Result<(), TransError> {
        let space = &self.btree.engine()?.space;
        let node_sectors = u64::from(self.btree.shape().node_sectors);
        let want = nodes as u64 * node_sectors * u64::from(replicas);
        let more = want.saturating_sub(self.disk.sectors);
        if more == 0 {
            return Ok(());
        }
        let how = if flags.no_enospc { Shortage::Ignore } else { Shortage::Fail };
        let got = space.reserve(more, how)?;
        if self.disk.sectors == 0 {
            self.disk = DiskReservation::new(space.clone(), got, replicas);
        } else {
            self.disk.sectors += got;
        }
        Ok(())
    }

    /// One more spare, or what to wait for.
    fn spare(
        &self,
        t: &mut Attempt<'_>,
        watermark: Watermark,
        replicas: u8,
    ) -> core::result::Result<core::result::Result<KBox<Spare>, KBox<dyn SpaceWait>>, TransError> {
        let btree = self.btree;
        let place = match btree.interior.places.take(watermark, replicas) {
            Some(place) => place,
            None => {
                let place = btree.engine()?.space.node_place(t, replicas, watermark)?;
                t.forget_all();
                match place {
                    Ok(place) => place,
                    Err(SpaceError::Blocked(wait)) => return Ok(Err(wait)),
                    Err(SpaceError::Failed(e)) => return Err(e.into()),
                }
            }
        };
        match self.memory() {
            Ok(mut spare) => {
                spare.place = Some(place);
                Ok(Ok(spare))
            }
            Err(e) => {
                btree.interior.places.put(place);
                Err(e.into())
            }
        }
    }

    /// Memory for a node, at the cost of other nodes if need be.
    fn memory(&self) -> Result<KBox<Spare>> {
        for _ in 0..TRIES_MAX {
            match self.try_memory() {
                Err(Error::NoMem) => {}
                result => return result,
            }
            if self.btree.fill.cache.cannibalise(CANNIBALISE) == 0 {
                break;
            }
        }
        self.try_memory()
    }

    #[inline(never)]
    fn try_memory(&self) -> Result<KBox<Spare>> {
        let flags = GFP_KERNEL | __GFP_NOWARN;
        let mut spare = KBox::init(
            init!(Spare {
                place: None,
                mem: None,
                data <- NodeData::empty(),
                seat: None,
                write: None,
            }),
            flags,
        )?;
        spare.mem = Some(self.btree.node_memory(flags)?);
        spare.seat = Some(NodeSeat::new(flags)?);
        spare.write = Some(self.btree.write_memory()?);
        Ok(spare)
    }

    fn give_back(&mut self) {
        while let Some(mut spare) = self.spares.pop() {
            if let Some(place) = spare.place.take() {
                self.btree.interior.places.put(place);
            }
        }
    }
}

impl Drop for NodeReserve<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

