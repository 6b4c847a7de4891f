// SPDX-License-Identifier: GPL-2.0

//! Entries of a table, and their end.
//!
//! A lookup may have found a node just before it is removed, so that the node, and its reference to the object, have to
//! stay until a grace period has passed. RCU's callbacks run in softirq context, where an object must not be
//! dropped that may sleep when it is: the callback puts the node on a list, and a work item drops what is on the list.

use crate::{bindings, work::init_raw};
use core::{mem::offset_of, ptr::NonNull};
use kernel::{
    alloc::Flags,
    container_of,
    prelude::*,
    sync::{static_lock_class, Arc},
    types::Opaque,
};

/// An entry.
#[repr(C)]
pub(super) struct Node<T> {
    // These two are `struct hash_node` of rust/helpers/hash.c.
    head: Opaque<bindings::rhash_head>,
    pub(super) key: u64,
    pub(super) value: Arc<T>,
    /// While waiting for the grace period an RCU head, then an entry of `Graveyard::nodes`.
    rcu: Opaque<bindings::callback_head>,
    graveyard: *const Graveyard<T>,
}

impl<T> Node<T> {
    pub(super) fn new(
        key: u64,
        value: Arc<T>,
        graveyard: *const Graveyard<T>,
        flags: Flags,
    ) -> Result<KBox<Self>> {
        const {
            assert!(offset_of!(Self, head) == 0);
            assert!(offset_of!(Self, key) == size_of::<bindings::rhash_head>());
            assert!(size_of::<bindings::callback_head>() >= size_of::<bindings::llist_node>());
        }
        let node = Self {
            head: Opaque::uninit(),
            key,
            value,
            rcu: Opaque::uninit(),
            graveyard,
        };
        Ok(KBox::new(node, flags)?)
    }

    /// Drops the node when nobody can see it any more.
    ///
    /// # Safety
    ///
    /// `node` is from `KBox::into_raw()`, was removed from its table, and its graveyard lives.
    pub(super) unsafe fn bury(node: NonNull<Self>) {
        // SAFETY: By the caller's promise the node is valid, and nobody else uses this field.
        unsafe { bindings::call_rcu((*node.as_ptr()).rcu.get(), Some(Self::grace_period_over)) };
    }

    /// # Safety
    ///
    /// Called by RCU for the `rcu` of a node given to [`bury`](Self::bury).
    unsafe extern "C" fn grace_period_over(head: *mut bindings::callback_head) {
        let rcu: *mut Opaque<bindings::callback_head> = head.cast();
        // SAFETY: By the caller's promise. The node is out of RCU's hands and of all readers'.
        let node: *mut Self = unsafe { container_of!(rcu, Self, rcu) };
        // SAFETY: Its graveyard waits for this callback before it goes away.
        unsafe { (*(*node).graveyard).receive(head.cast()) };
    }
}

/// Where nodes wait, after their grace period, for process context.
#[pin_data]
pub(super) struct Graveyard<T> {
    #[pin]
    nodes: Opaque<bindings::llist_head>,
    #[pin]
    work: Opaque<bindings::work_struct>,
    _nodes: core::marker::PhantomData<KBox<Node<T>>>,
}

impl<T> Graveyard<T> {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            nodes <- Opaque::ffi_init(|nodes: *mut bindings::llist_head| {
                // SAFETY: `nodes` is memory for a list head; an empty list is a null pointer.
                unsafe { nodes.write(bindings::llist_head::default()) }
            }),
            work <- Opaque::ffi_init(|work| {
                // SAFETY: `work` is pinned memory for a work item.
                unsafe { init_raw(work, Self::run, c"hash::Graveyard", static_lock_class!()) }
            }),
            _nodes: core::marker::PhantomData,
        })
    }

    /// # Safety
    ///
    /// `node` is the `rcu` field of a node that nobody else uses any more.
    unsafe fn receive(&self, node: *mut bindings::llist_node) {
        // SAFETY: The list is valid; the field is large enough for an entry, and free to use.
        if unsafe { bindings::kfs_llist_add(node, self.nodes.get()) } {
            // SAFETY: Initialised in `new()`, and `close()` waits for it.
            unsafe { bindings::kfs_schedule_work(self.work.get()) };
        }
    }

    /// # Safety
    ///
    /// Called by the work queue for the `work` of a graveyard.
    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        let work: *mut Opaque<bindings::work_struct> = work.cast();
        // SAFETY: By the caller's promise; `close()` waits for this function.
        let this: &Self = unsafe { &*container_of!(work, Self, work) };
        this.empty();
    }

    /// Drops the nodes on the list.
    fn empty(&self) {
        // SAFETY: The list is valid.
        let mut next = unsafe { bindings::kfs_llist_del_all(self.nodes.get()) };
        while !next.is_null() {
            let rcu: *mut Opaque<bindings::callback_head> = next.cast();
            // SAFETY: Only `receive()` puts something on the list, and what was on it is now this function's.
            unsafe {
                next = (*next).next;
                drop(KBox::from_raw(container_of!(rcu, Node<T>, rcu)));
            }
        }
    }

    /// Waits until all nodes given to [`Node::bury`] are dropped. May sleep.
    pub(super) fn close(&self) {
        // SAFETY: No requirements but process context.
        unsafe { bindings::rcu_barrier() };
        // SAFETY: Initialised in `new()`.
        unsafe { bindings::flush_work(self.work.get()) };
        self.empty();
    }
}
