// SPDX-License-Identifier: GPL-2.0
//! How old pointers to a bucket can still be.
//!
//! Each reuse of a bucket raises its generation; cached pointers of old generations stay in extents, where they are passed over. When the
//! generation is too far ahead of the oldest that a pointer may have, the bucket is not used any more. Then all pointers are
//! looked through, and the bound recorded with each bucket is raised to the oldest generation that was found.
//!
//! What keeps a bound low, extents with pointers that have been stale for long, is not rewritten: those need the bucket until their data
//! is overwritten.
//!
//! Buckets can be reused while this runs: their generations were read at the start, and new pointers have the newest, so that the
//! bounds stay true.

use super::{
    device::AllocDevice,
    discard::{update, COMMIT},
    generations::Generations,
    shared::Shared,
};
use crate::{
    btree::{trans::update::UpdateFlags, Attempt, Btree, IterFlags, TransError},
    util::{
        counters::Counter,
        error::{Error, Result},
    },
};
use bcachefs_format::{
    keys::{
        alloc::Alloc,
        extent::{Extent, Ptr},
        reflink::ReflinkV,
    },
    Bpos, BtreeId, KeyRef, KeyType,
};
use core::ops::ControlFlow;
use kernel::{
    impl_has_work, new_work,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
    workqueue::{Work, WorkItem},
};

/// How far a generation is ahead at least for it to be worth an update. The freespace btree tells steps of so many apart.
const WORTH: u8 = 16;

/// Btrees whose keys have pointers that can become stale.
const BTREES: [BtreeId; 2] = [BtreeId::EXTENTS, BtreeId::REFLINK];

/// See the description of the module.
#[pin_data]
pub(super) struct GensGc {
    shared: Arc<Shared>,
    devices: KVec<Arc<AllocDevice>>,
    /// How often there was something new to do, and how often there had been when it was done last.
    wanted: Atomic<u64>,
    done: Atomic<u64>,
    #[pin]
    work: Work<GensGc>,
}

impl_has_work! {
    impl HasWork<Self> for GensGc { self.work }
}

impl WorkItem for GensGc {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.shared.counters.inc(Counter::GC_GENS_START);
        // What is left undone is wanted again when the next bucket needs it.
        if this.collect().is_ok() {
            this.shared.counters.inc(Counter::GC_GENS_END);
        }
    }
}

/// `alloc` if no pointer to its bucket is older than `oldest`. `None` if that is not worth an update.
fn refreshed(alloc: &Alloc, oldest: u8) -> Option<Alloc> {
    let raise = oldest.wrapping_sub(alloc.oldest_gen);
    if alloc.gc_gen() < WORTH || raise == 0 || raise > alloc.gc_gen() {
        return None;
    }
    let mut new = Alloc { oldest_gen: oldest, ..*alloc };
    new.data_type = new.data_type_if(new.data_type);
    Some(new)
}

/// Calls `f` with every pointer in `key`.
fn for_each_ptr(key: KeyRef<'_>, f: impl FnMut(Ptr)) -> Result {
    match key.key.key_type {
        KeyType::EXTENT => Extent::new(key).entries().ptrs().for_each(f),
        KeyType::REFLINK_V => ReflinkV::parse(key)?.entries().ptrs().for_each(f),
        _ => {}
    }
    Ok(())
}

impl GensGc {
    /// For these devices. May sleep.
    pub(super) fn new(shared: Arc<Shared>, devices: KVec<Arc<AllocDevice>>) -> Result<Arc<Self>> {
        Ok(Arc::pin_init(
            pin_init!(GensGc {
                shared,
                devices,
                // There may be something from before.
                wanted: Atomic::new(1),
                done: Atomic::new(0),
                work <- new_work!("bcachefs_gens_gc"),
            }),
            GFP_KERNEL,
        )?)
    }

    /// A bucket needs it. Any context.
    pub(super) fn note(&self) {
        self.wanted.add(1u64, Relaxed);
    }

    /// Does it, if a bucket has come to need it since the last time. Any context.
    pub(super) fn queue(this: &Arc<Self>) {
        let due = this.wanted.load(Relaxed) != this.done.load(Relaxed);
        if due && this.shared.is_running() {
            // It is queued already, if this fails.
            let _ = this.shared.queue.enqueue(this.clone());
        }
    }

    /// Looks through all pointers and records what follows. Sleeps.
    fn collect(&self) -> Result {
        self.done.store(self.wanted.load(Relaxed), Relaxed);
        let btree = self.shared.btree().ok_or(Error::AllocatorStopped)?;
        let oldest = self.oldest(&btree)?;
        for (device, oldest) in self.devices.iter().zip(oldest.iter()) {
            self.record(&btree, device, oldest)?;
        }
        Ok(())
    }

    /// The oldest generation that a pointer to each bucket has, for each device. Sleeps.
    pub(super) fn oldest(&self, btree: &Btree) -> Result<KVec<Generations>> {
        let mut all = KVec::with_capacity(self.devices.len(), GFP_KERNEL)?;
        for device in self.devices.iter() {
            let now = device.generations.as_ref().ok_or(Error::BucketInconsistent)?;
            all.push(now.snapshot()?, GFP_KERNEL)?;
        }
        for id in BTREES {
            let flags = IterFlags::ALL_SNAPSHOTS | IterFlags::PREFETCH;
            let (start, end) = (Bpos::POS_MIN, Bpos::SPOS_MAX);
            let ended = btree.walk(id, start, end, flags, |key| {
                for_each_ptr(key, |ptr| {
                    let at = self.devices.iter().position(|d| d.index == ptr.dev());
                    let place = at.and_then(|at| Some((self.devices.get(at)?, all.get(at)?)));
                    if let Some((device, oldest)) = place {
                        oldest.lower(device.bucket_of(ptr.offset()), ptr.generation());
                    }
                })?;
                Ok(match self.shared.is_running() {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                })
            })?;
            if ended.is_some() {
                return Err(Error::AllocatorStopped);
            }
        }
        Ok(all)
    }

    /// Records the bounds of a device's buckets. Sleeps.
    fn record(&self, btree: &Btree, device: &AllocDevice, oldest: &Generations) -> Result {
        let end = device.bucket_pos(u64::MAX);
        let mut at = device.bucket_pos(0);
        while self.shared.is_running() {
            // The next key that is to change.
            let found = btree.walk(BtreeId::ALLOC, at, end, IterFlags::PREFETCH, |key| {
                let bucket = key.key.pos.offset;
                let change = oldest.get(bucket).and_then(|o| refreshed(&Alloc::parse(key).ok()?, o));
                Ok(match change {
                    Some(_) => ControlFlow::Break(bucket),
                    None => ControlFlow::Continue(()),
                })
            })?;
            let Some(bucket) = found else { break };
            let Some(_writing) = self.shared.client.writers().get() else {
                return Err(Error::ReadOnly);
            };
            let bound = oldest.get(bucket).unwrap_or(0);
            let pos = device.bucket_pos(bucket);
            btree.commit(None, COMMIT, |t| raise(t, pos, bound))?;
            at = device.bucket_pos(bucket.saturating_add(1));
        }
        Ok(())
    }
}

/// Records that no pointer to the bucket at `pos` is older than `oldest`.
fn raise(t: &mut Attempt<'_>, pos: Bpos, oldest: u8) -> core::result::Result<(), TransError> {
    let mut iter = t.iter(BtreeId::ALLOC, pos, IterFlags::INTENT);
    let new = match iter.peek_slot(t)? {
        Some(key) if !key.key.key_type.is_whiteout() => refreshed(&Alloc::parse(key)?, oldest),
        _ => None,
    };
    match new {
        Some(new) => update(t, &iter, &new, UpdateFlags::default()),
        None => Ok(()),
    }
}

#[kernel::macros::kunit_tests(bcachefs_alloc_gens_gc)]
mod tests {
    use super::*;
    use bcachefs_format::keys::data_type::DataType;

    #[test]
    fn bounds_are_raised_only() {
        let a = Alloc {
            generation: 100,
            oldest_gen: 2,
            data_type: DataType::NEED_GC_GENS,
            ..Alloc::default()
        };
        let free = Alloc { oldest_gen: 100, data_type: DataType::FREE, ..a };
        assert_eq!(refreshed(&a, 100), Some(free));
        // Some pointers are still there.
        assert_eq!(refreshed(&a, 3), Some(Alloc { oldest_gen: 3, ..a }));
        assert_eq!(refreshed(&a, 2), None);
        // Older than recorded, or newer than there is: both are wrong, and neither is recorded.
        assert_eq!(refreshed(&a, 1), None);
        assert_eq!(refreshed(&a, 101), None);
        // Not worth it.
        let new = Alloc { generation: 17, oldest_gen: 2, data_type: DataType::FREE, ..a };
        assert_eq!(refreshed(&new, 17), None);
        // Generations wrap, and a bucket in use stays what it is.
        let user = Alloc {
            generation: 10,
            oldest_gen: 200,
            data_type: DataType::USER,
            dirty_sectors: 8,
            ..a
        };
        assert_eq!(refreshed(&user, 5), Some(Alloc { oldest_gen: 5, ..user }));
    }
}
