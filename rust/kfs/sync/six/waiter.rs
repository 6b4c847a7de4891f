// SPDX-License-Identifier: GPL-2.0

//! Somebody who waits for a lock, and the list in which they queue.

use super::{graph::Node, raw::Mode, Graph};
use core::{cell::UnsafeCell, marker::PhantomPinned, ptr::NonNull};
use kernel::{
    bindings,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Relaxed, Release},
        Arc,
    },
    types::Opaque,
};

/// Where in a list of waiters somebody stands.
struct Link {
    prev: Option<NonNull<Waiter>>,
    next: Option<NonNull<Waiter>>,
    mode: Mode,
    queued: bool,
}

/// The part of a lock set that others see while it waits.
///
/// # Invariants
///
/// - `link` is accessed only with the spin lock of the list held that the waiter is in or about to enter.
/// - `node` is accessed only with the lock of `graph` held.
/// - While it is in a list, or published in the graph, a waiter is neither moved nor freed; it leaves both before the
///   function that waits returns.
#[pin_data]
pub(super) struct Waiter {
    pub(super) graph: Arc<Graph>,
    pub(super) node: UnsafeCell<Node>,
    link: UnsafeCell<Link>,
    granted: Atomic<u32>,
    aborted: Atomic<u32>,
    #[pin]
    wake: Opaque<bindings::completion>,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: Everything in it is either atomic, a completion, or guarded by a lock as the type invariants say.
unsafe impl Send for Waiter {}
// SAFETY: As above.
unsafe impl Sync for Waiter {}

impl Waiter {
    pub(super) fn new(graph: Arc<Graph>) -> impl PinInit<Self> {
        pin_init!(Self {
            graph,
            node: UnsafeCell::new(Node::new()),
            link: UnsafeCell::new(Link { prev: None, next: None, mode: Mode::Read, queued: false }),
            granted: Atomic::new(0),
            aborted: Atomic::new(0),
            wake <- Opaque::ffi_init(|slot: *mut bindings::completion| {
                // SAFETY: `slot` is valid, uninitialised memory for a completion.
                unsafe { bindings::init_completion(slot) };
            }),
            _pin: PhantomPinned,
        })
    }

    /// Forgets what happened in an earlier wait.
    ///
    /// # Safety
    ///
    /// The waiter must be neither in a list nor published, and the caller its owner.
    pub(super) unsafe fn reset(&self) {
        self.granted.store(0, Relaxed);
        self.aborted.store(0, Relaxed);
        // SAFETY: Nobody else can reach the waiter (caller), so nobody uses the completion.
        unsafe { bindings::init_completion(self.wake.get()) };
    }

    /// Sleeps until woken. Uninterruptible.
    pub(super) fn sleep(&self) {
        // SAFETY: `wake` was initialised by the constructor.
        unsafe { bindings::wait_for_completion(self.wake.get()) };
    }

    /// Whether the lock waited for has been handed over.
    #[inline]
    pub(super) fn granted(&self) -> bool {
        self.granted.load(Acquire) != 0
    }

    /// Whether somebody has chosen this waiter to break a cycle.
    #[inline]
    pub(super) fn aborted(&self) -> bool {
        self.aborted.load(Acquire) != 0
    }

    /// Makes the waiter give up. To be called with the lock of the graph held, in which it is published.
    pub(super) fn abort(&self) {
        self.aborted.store(1, Release);
        // SAFETY: `wake` is initialised. The waiter cannot go away: it takes the graph's lock before it leaves.
        unsafe { bindings::complete(self.wake.get()) };
    }
}

/// Waiters of one lock, in the order of their arrival.
///
/// # Invariants
///
/// All pointers are to waiters that are alive, and stay alive until they are taken out of the list.
pub(super) struct WaitList {
    head: Option<NonNull<Waiter>>,
    tail: Option<NonNull<Waiter>>,
}

// SAFETY: Waiters are `Sync`, and a list only points to them.
unsafe impl Send for WaitList {}

impl WaitList {
    pub(super) const fn new() -> Self {
        WaitList {
            head: None,
            tail: None,
        }
    }

    /// The link of a waiter in this list (or about to be).
    #[allow(clippy::mut_from_ref)]
    fn link(&mut self, w: NonNull<Waiter>) -> &mut Link {
        // SAFETY: The waiter is alive by the list's invariant; its link belongs to this list, of which we have the only
        // reference, and at most one link is borrowed at a time since it borrows the list.
        unsafe { &mut *(*w.as_ptr()).link.get() }
    }

    fn peek(&self, w: NonNull<Waiter>) -> (&Waiter, Mode, Option<NonNull<Waiter>>) {
        // SAFETY: As in `link`; links are changed through `&mut self` only.
        let link = unsafe { &*(*w.as_ptr()).link.get() };
        // SAFETY: The waiter is alive by the list's invariant.
        (unsafe { w.as_ref() }, link.mode, link.next)
    }

    /// Appends. The waiter must not be in any list; if it is, nothing happens.
    pub(super) fn push(&mut self, waiter: Pin<&Waiter>, mode: Mode) {
        let w = NonNull::from(waiter.get_ref());
        let tail = self.tail;
        let link = self.link(w);
        if link.queued {
            return;
        }
        *link = Link {
            prev: tail,
            next: None,
            mode,
            queued: true,
        };
        match tail {
            Some(t) => self.link(t).next = Some(w),
            None => self.head = Some(w),
        }
        self.tail = Some(w);
    }

    /// Takes a waiter out. `false` if it is not in.
    pub(super) fn remove(&mut self, waiter: Pin<&Waiter>) -> bool {
        let w = NonNull::from(waiter.get_ref());
        let link = self.link(w);
        if !link.queued {
            return false;
        }
        link.queued = false;
        let (prev, next) = (link.prev.take(), link.next.take());
        match prev {
            Some(p) => self.link(p).next = next,
            None => self.head = next,
        }
        match next {
            Some(n) => self.link(n).prev = prev,
            None => self.tail = prev,
        }
        true
    }

    /// Looks at the waiters in order until `f` returns something.
    pub(super) fn find<R>(&self, mut f: impl FnMut(&Waiter, Mode) -> Option<R>) -> Option<R> {
        let mut at = self.head;
        while let Some(w) = at {
            let (waiter, mode, next) = self.peek(w);
            if let Some(r) = f(waiter, mode) {
                return Some(r);
            }
            at = next;
        }
        None
    }

    /// How many wait for `mode`.
    pub(super) fn count(&self, mode: Mode) -> usize {
        let mut n = 0;
        self.find(|_, m| -> Option<()> {
            n += usize::from(m == mode);
            None
        });
        n
    }

    /// Whether anybody waits for `mode`.
    pub(super) fn any(&self, mode: Mode) -> bool {
        self.find(|_, m| (m == mode).then_some(())).is_some()
    }

    /// Tells the first waiter for `mode` that it holds the lock now, and takes it out. `false` if there is none.
    pub(super) fn grant_first(&mut self, mode: Mode) -> bool {
        let Some(w) = self.find(|w, m| (m == mode).then(|| NonNull::from(w))) else {
            return false;
        };
        // SAFETY: The waiter is in the list, so it is alive; and it stays so until we drop the list's lock, since who
        // waits takes that lock once more before it returns (`Raw::settle`, `Raw::cancel`).
        let waiter = unsafe { Pin::new_unchecked(w.as_ref()) };
        self.remove(waiter);
        waiter.granted.store(1, Release);
        // SAFETY: `wake` is initialised, and the waiter alive as argued above.
        unsafe { bindings::complete(waiter.wake.get()) };
        true
    }
}
