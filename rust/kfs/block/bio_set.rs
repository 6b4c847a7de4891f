// SPDX-License-Identifier: GPL-2.0

//! Reserves for transfers, and the queue their completions run on.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use super::request::Request;
use crate::{
    bindings,
    mem::RawPool,
    work::{init_raw, Kind, WorkQueue},
};
use kernel::{
    container_of,
    error::to_result,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        static_lock_class, Arc,
    },
    types::Opaque,
};

/// What asynchronous transfers are made of: bios and request records with reserves, and a work queue.
///
/// One per mounted file system. The completion closures run on an unbound, urgent work queue with a rescuer thread: unbound,
/// because what they do (checksums, decompression) takes a CPU for long, and would otherwise all be done on the
/// CPU that takes the device's interrupts; with a rescuer, because freeing memory may depend on them.
///
/// Who unmounts calls [`wait_idle`](Self::wait_idle), after the last transfer was started, before giving up
/// what the closures use.
///
/// # Invariants
///
/// `bios` is initialised. `inflight` is the number of requests that have been begun and not finished.
#[pin_data(PinnedDrop)]
pub struct BioSet {
    #[pin]
    bios: Opaque<bindings::bio_set>,
    pub(super) requests: RawPool,
    pub(super) queue: WorkQueue,
    inflight: Atomic<i32>,
    #[pin]
    drop_work: Opaque<bindings::work_struct>,
}

// SAFETY: A `bio_set` is made for concurrent use and not bound to a thread, and so are the other fields.
unsafe impl Send for BioSet {}
// SAFETY: As above.
unsafe impl Sync for BioSet {}

impl BioSet {
    /// Puts aside what `reserve` (at least one) bios and requests need, and starts a work queue.
    ///
    /// May sleep. Fails with `ENOMEM`.
    pub fn new(reserve: u32) -> Result<Arc<Self>> {
        let reserve = reserve.max(1);
        Arc::pin_init(
            try_pin_init!(Self {
                requests: RawPool::new(reserve, size_of::<Request>())?,
                queue: WorkQueue::new(c"kfs-io", Kind::UnboundUrgent)?,
                inflight: Atomic::new(0),
                drop_work <- Opaque::ffi_init(|work| {
                    // SAFETY: `work` is pinned memory for a work item.
                    unsafe { init_raw(work, drop_set, c"BioSet", static_lock_class!()) }
                }),
                // INVARIANT: The last field, so that it is initialised only if there will be a value to drop.
                bios <- Opaque::try_ffi_init(|set| {
                    // SAFETY: `set` is pinned memory for a `bio_set`; it undoes itself when it fails.
                    to_result(unsafe { bindings::kfs_bioset_init(set, reserve) })
                }),
            }),
            GFP_KERNEL,
        )
    }

    /// Waits until no transfer is under way and all completion closures have returned.
    ///
    /// Not from such a closure. Others must have stopped starting transfers, else this may wait for long.
    pub fn wait_idle(&self) {
        // SAFETY: The count has the layout of an `atomic_t` and lives as long as `self` is borrowed.
        unsafe { bindings::kfs_wait_until_zero(self.inflight.as_ptr().cast()) };
        // The last work item may be between its last action and its end.
        self.queue.flush();
    }

    pub(super) fn as_raw(&self) -> *mut bindings::bio_set {
        self.bios.get()
    }

    /// A request begins.
    pub(super) fn begin(&self) {
        self.inflight.add(1, Relaxed);
    }

    /// A request has finished, on the work queue of `set`.
    pub(super) fn finish(set: Arc<Self>) {
        if set.inflight.fetch_sub(1, Full) == 1 {
            // SAFETY: Only the address is used.
            unsafe { bindings::kfs_wake_at_zero(set.inflight.as_ptr().cast()) };
        }
        // A work queue cannot be destroyed by one of its own items. If nobody else has a reference any more, leave it to
        // a queue of the system.
        if let Some(last) = Arc::into_unique_or_drop(set) {
            let last: Arc<Self> = last.into();
            let last = Arc::into_raw(last);
            // SAFETY: Initialised in `new()`, and queued once, as there is one last reference. `drop_set` takes that reference.
            unsafe { bindings::kfs_schedule_work((*last).drop_work.get()) };
        }
    }
}

/// # Safety
///
/// Called by a work queue for the `drop_work` of a [`BioSet`], with a reference to it.
unsafe extern "C" fn drop_set(work: *mut bindings::work_struct) {
    let work: *mut Opaque<bindings::work_struct> = work.cast();
    // SAFETY: By the caller's promise, as `finish` handed it over.
    drop(unsafe { Arc::from_raw(container_of!(work, BioSet, drop_work)) });
}

#[pinned_drop]
impl PinnedDrop for BioSet {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant it is initialised. Requests hold references to the set, so that none is under way,
        // and all bios are back.
        unsafe { bindings::bioset_exit(self.bios.get()) };
    }
}
