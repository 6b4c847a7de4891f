// SPDX-License-Identifier: GPL-2.0
//! The updates in flight.
//!
//! They are listed in the order in which they became visible, and finished in that order: an update may depend on any that came
//! before. What changes while an update is in flight is kept here: the node above its own, which must not be written
//! meanwhile, and, when that node is replaced in turn, the update that did so.
//!
//! Lock order: node locks, the list's, the journal's.

use super::update::Update;
use crate::{
    btree::{node::Node, space::DiskReservation},
    journal::engine::Journal,
    util::error::Result,
};
use core::fmt;
use kernel::{
    new_condvar, new_spinlock,
    prelude::*,
    sync::{Arc, CondVar, SpinLock},
};

/// Updates there is room for at first.
const ROOM: usize = 16;

/// An update in flight.
pub(super) struct Entry {
    /// The update.
    pub update: Arc<Update>,
    /// The node that points to the new ones, which must not be written yet.
    pub parent: Option<Arc<Node>>,
    /// The later update that replaces that node.
    pub heir: Option<Arc<Update>>,
    /// Space for the new nodes.
    pub disk: Option<DiskReservation>,
}

struct Inner {
    queue: KVec<Entry>,
    /// Updates that are being made; there is room for them in `queue`.
    begun: usize,
    next: u64,
}

impl Inner {
    fn entry(&mut self, id: u64) -> Option<&mut Entry> {
        self.queue.iter_mut().find(|e| e.update.id == id)
    }

    fn is_idle(&self) -> bool {
        self.begun == 0 && self.queue.is_empty()
    }
}

/// See the module's description.
#[pin_data]
pub(super) struct Updates {
    #[pin]
    inner: SpinLock<Inner>,
    #[pin]
    idle: CondVar,
}

/// An update that has been written and may be journalled: all before it have been finished.
pub(super) struct Written(Arc<Update>);

impl Written {
    /// The update.
    pub(super) fn update(&self) -> &Arc<Update> {
        &self.0
    }
}

/// What is above the new nodes of an update.
pub(super) enum Above {
    /// A node, held back until the update is journalled.
    Parent(Arc<Node>),
    /// It has been replaced by a later update.
    Heir(Arc<Update>),
    /// Nothing: they are roots.
    Nothing,
}

impl Updates {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_spinlock!(
                Inner { queue: KVec::new(), begun: 0, next: 1 },
                "btree_interior_updates"
            ),
            idle <- new_condvar!("btree_interior_updates_idle"),
        })
    }

    /// Announces an update and makes room for it. May sleep.
    pub(super) fn begin(&self) -> Result<Ticket<'_>> {
        loop {
            let want = {
                let mut inner = self.inner.lock();
                if inner.queue.capacity() > inner.queue.len() + inner.begun {
                    inner.begun += 1;
                    let id = inner.next;
                    inner.next += 1;
                    return Ok(Ticket { list: self, id });
                }
                ROOM.max(inner.queue.capacity() * 2)
            };
            let mut room = KVec::with_capacity(want, GFP_KERNEL)?;
            let mut inner = self.inner.lock();
            if room.capacity() > inner.queue.capacity() {
                for entry in inner.queue.drain_all() {
                    // It has more room than the old one.
                    let _ = room.push_within_capacity(entry);
                }
                core::mem::swap(&mut inner.queue, &mut room);
            }
            drop(inner);
        }
    }

    /// Lists an update behind all others. Does not sleep.
    pub(super) fn publish(&self, ticket: Ticket<'_>, entry: Entry) {
        let refused = self.inner.lock().queue.push_within_capacity(entry);
        // The ticket stands for room.
        drop(refused);
        drop(ticket);
    }

    /// The first write of `node` has ended, without the copies on `failed` devices; `lost`: without any. Whether an update is
    /// complete by that.
    pub(super) fn node_written(&self, node: &Arc<Node>, failed: &[u8], lost: bool) -> bool {
        let inner = self.inner.lock();
        let mut updates = inner.queue.iter().map(|e| &e.update);
        let Some(update) = updates.find(|u| u.note_written(node, failed)) else {
            return false;
        };
        if lost {
            update.fail();
        }
        update.ended()
    }

    /// The first of the list, if it has been written.
    pub(super) fn next_written(&self) -> Option<Written> {
        let inner = self.inner.lock();
        let first = inner.queue.first()?;
        first
            .update
            .is_written()
            .then(|| Written(first.update.clone()))
    }

    /// What is above the new nodes of update `id` at this moment.
    pub(super) fn above(&self, id: u64) -> Above {
        match self.inner.lock().entry(id) {
            Some(Entry { parent: Some(node), .. }) => Above::Parent(node.clone()),
            Some(Entry { heir: Some(heir), .. }) => Above::Heir(heir.clone()),
            _ => Above::Nothing,
        }
    }

    /// Update `id` holds its parent back no longer. Whether no other does. The parent's lock must be held for write.
    pub(super) fn unblock(&self, id: u64) -> bool {
        let mut inner = self.inner.lock();
        let Some(node) = inner.entry(id).and_then(|e| e.parent.take()) else {
            return false;
        };
        let held = |e: &Entry| e.parent.as_ref().is_some_and(|p| Arc::ptr_eq(p, &node));
        let last = !inner.queue.iter().any(held);
        drop(inner);
        last
    }

    /// `node` is replaced by update `heir`: what others wait to have written with it is with that from now on, and so is
    /// what they keep in the journal. The node's lock must be held for write.
    pub(super) fn inherit(&self, node: &Arc<Node>, heir: &Arc<Update>, journal: &Journal) {
        let mut inner = self.inner.lock();
        for entry in inner.queue.iter_mut() {
            if entry.parent.as_ref().is_some_and(|p| Arc::ptr_eq(p, node)) {
                // Others hold references to both: nothing is freed here.
                entry.parent = None;
                entry.heir = Some(heir.clone());
                journal.pin_copy(&heir.pin, &entry.update.pin);
            }
        }
    }

    /// Takes the space set aside for update `id`.
    pub(super) fn take_disk(&self, id: u64) -> Option<DiskReservation> {
        self.inner.lock().entry(id)?.disk.take()
    }

    /// Takes a finished update off the list.
    pub(super) fn remove(&self, written: Written) {
        let mut inner = self.inner.lock();
        let at = inner
            .queue
            .iter()
            .position(|e| Arc::ptr_eq(&e.update, &written.0));
        let entry = at.map(|at| inner.queue.remove(at));
        let idle = inner.is_idle();
        drop(inner);
        // Gives back what the update held, before those who wait for it go on.
        drop(entry);
        drop(written);
        if idle {
            self.idle.notify_all();
        }
    }

    /// Lets go of all that will not be finished.
    pub(super) fn clear(&self) {
        let left = core::mem::take(&mut self.inner.lock().queue);
        drop(left);
        self.idle.notify_all();
    }

    /// Waits until there are none; whether there were any. Sleeps.
    pub(super) fn wait_idle(&self) -> bool {
        let mut inner = self.inner.lock();
        let any = !inner.is_idle();
        while !inner.is_idle() {
            self.idle.wait(&mut inner);
        }
        any
    }
}

impl fmt::Display for Updates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut index = 0;
        loop {
            // One at a time: printing may sleep.
            let (update, blocks, begun) = {
                let inner = self.inner.lock();
                match inner.queue.get(index) {
                    Some(e) => (Some(e.update.clone()), e.parent.is_some(), 0),
                    None => (None, false, inner.begun),
                }
            };
            index += 1;
            match update {
                Some(update) if blocks => writeln!(f, "{} holds back its parent", &*update)?,
                Some(update) => writeln!(f, "{}", &*update)?,
                None => return writeln!(f, "being made: {begun}"),
            }
        }
    }
}

/// An update that is being made.
pub(super) struct Ticket<'l> {
    list: &'l Updates,
    id: u64,
}

impl Ticket<'_> {
    /// Number of the update.
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut inner = self.list.inner.lock();
        inner.begun -= 1;
        let idle = inner.is_idle();
        drop(inner);
        if idle {
            self.list.idle.notify_all();
        }
    }
}
