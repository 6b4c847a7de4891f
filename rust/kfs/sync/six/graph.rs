// SPDX-License-Identifier: GPL-2.0

//! Who waits for whom, and how cycles are found.
//!
//! Lock sets that may wait for each other belong to one [`Graph`]. A set that is about to sleep publishes what it
//! waits for and what it holds, queues for the lock, and searches, all with the graph's lock held; it withdraws
//! what it published, again under that lock, before it changes its table. So what the search reads of others does
//! not change under it, and of all members of a cycle the one that publishes last sees the others.
//!
//! Edges lead from a set to those that wait for a lock it holds in a mode that excludes what they want. The search is
//! depth first, visits a set once and keeps at most [`DEPTH`] on its stack.
//!
//! Lock order: the graph's lock, then the lock of one list of waiters.

use super::{
    raw::{Mode, Queued, Raw},
    set::{Held, LockError},
    waiter::Waiter,
};
use core::ptr::NonNull;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{Arc, SpinLock},
};

/// How many sets the search follows from one to the next.
pub(super) const DEPTH: usize = 8;

/// What one waiting set has published.
pub(super) struct Node {
    waits_for: Option<(NonNull<Raw>, Mode)>,
    held: Tables,
    /// Order of publication.
    ticket: u64,
    /// The last search that came by.
    visited: u64,
    /// How willing the set is to be restarted; 0: not at all.
    preference: u8,
}

impl Node {
    pub(super) const fn new() -> Self {
        Node {
            waits_for: None,
            held: [(core::ptr::null(), 0); 2],
            ticket: 0,
            visited: 0,
            preference: 0,
        }
    }
}

/// What a transaction holds: the table of the set that waits, and that of another one beside it.
pub(super) type Tables = [(*const Held, usize); 2];

impl Node {
    /// The `index`-th entry of both tables, as if they were one.
    ///
    /// # Safety
    ///
    /// The node must be published, and the graph's lock be held.
    unsafe fn held(&self, index: usize) -> Option<&Held> {
        let [(first, n), (second, m)] = self.held;
        let entry = match index.checked_sub(n) {
            None => first.wrapping_add(index),
            Some(i) if i < m => second.wrapping_add(i),
            Some(_) => return None,
        };
        // SAFETY: The tables are as long as published and are not changed while they are (contract of `wait`).
        Some(unsafe { &*entry })
    }
}

/// A domain of lock sets that may wait for each other.
#[pin_data]
pub struct Graph {
    #[pin]
    inner: SpinLock<Counters>,
}

struct Counters {
    ticket: u64,
    search: u64,
    cycles: u64,
    overflows: u64,
}

struct Frame {
    waiter: NonNull<Waiter>,
    index: usize,
    after: u64,
}

enum Found {
    Cycle(usize),
    TooDeep,
    Nothing,
}

impl Graph {
    /// A graph without members. May sleep.
    pub fn new() -> Result<Arc<Graph>> {
        Arc::pin_init(
            pin_init!(Graph {
                inner <- new_spinlock!(
                    Counters { ticket: 0, search: 0, cycles: 0, overflows: 0 },
                    "six::Graph"
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// How many cycles were found and how many searches gave up for depth.
    pub fn stats(&self) -> (u64, u64) {
        let g = self.inner.lock();
        (g.cycles, g.overflows)
    }

    /// Waits until `waiter` has `mode` of `raw`, unless that closes a cycle and this waiter is to give up.
    ///
    /// # Safety
    ///
    /// `waiter` must belong to this graph, be used by the caller alone, and be in no list. Each of `held` must point to that
    /// many entries that nobody changes until this returns, whose locks the caller keeps alive and holds as they say. `raw`
    /// must be kept alive by the caller.
    pub(super) unsafe fn wait(
        &self,
        waiter: Pin<&Waiter>,
        raw: &Raw,
        mode: Mode,
        held: Tables,
        preference: u8,
    ) -> Result<(), LockError> {
        // SAFETY: The waiter is neither published nor queued, and the caller its only user.
        unsafe { waiter.reset() };
        let mut verdict = Ok(());
        {
            let mut g = self.inner.lock();
            g.ticket += 1;
            // SAFETY: We hold the graph's lock and keep no other reference to the node.
            let node = unsafe { &mut *waiter.node.get() };
            *node = Node {
                waits_for: Some((NonNull::from(raw), mode)),
                held,
                ticket: g.ticket,
                visited: 0,
                preference: match mode {
                    Mode::Write => preference.min(1),
                    _ => preference,
                },
            };
            if raw.lock_or_queue(waiter, mode) == Queued::Acquired {
                node.waits_for = None;
                return Ok(());
            }
            if let Err(e) = self.search(&mut g, waiter) {
                verdict = Err(e);
            }
        }
        if verdict.is_ok() {
            loop {
                waiter.sleep();
                if waiter.granted() {
                    break;
                }
                if waiter.aborted() {
                    verdict = Err(LockError::WouldDeadlock);
                    break;
                }
            }
        }
        // Whoever handed the lock over, or is about to, does so under the list's lock; whoever aborts us, under the graph's.
        let given_up = verdict.is_err() && raw.cancel(waiter, mode);
        raw.settle();
        let _g = self.inner.lock();
        // SAFETY: We hold the graph's lock and keep no other reference to the node.
        unsafe { (*waiter.node.get()).waits_for = None };
        if given_up {
            verdict
        } else {
            // It came while we were about to give up: then we are in nobody's way.
            Ok(())
        }
    }

    /// Breaks every cycle through `me`. An error if `me` is the one to give up.
    fn search(&self, g: &mut Counters, me: Pin<&Waiter>) -> Result<(), LockError> {
        let me = NonNull::from(me.get_ref());
        loop {
            g.search += 1;
            let mut stack: [Option<Frame>; DEPTH] = [const { None }; DEPTH];
            match self.find_cycle(g.search, me, &mut stack) {
                Found::Nothing => return Ok(()),
                Found::TooDeep => {
                    g.overflows += 1;
                    // SAFETY: `me` is the caller's and published; we hold the graph's lock.
                    let preference = unsafe { (*me.as_ref().node.get()).preference };
                    return if preference == 0 {
                        Ok(())
                    } else {
                        Err(LockError::TooDeep)
                    };
                }
                Found::Cycle(depth) => {
                    g.cycles += 1;
                    let mut victim = me;
                    let mut best = 0;
                    for frame in stack.iter().take(depth).flatten() {
                        // SAFETY: Everybody on the stack is published, thus alive while we hold the graph's lock.
                        let preference = unsafe { (*frame.waiter.as_ref().node.get()).preference };
                        if preference > best {
                            best = preference;
                            victim = frame.waiter;
                        }
                    }
                    if best == 0 {
                        kernel::pr_err!("six: {depth} lock sets wait for each other and none may fail\n");
                    }
                    if victim == me {
                        return Err(LockError::WouldDeadlock);
                    }
                    // SAFETY: As above.
                    unsafe { victim.as_ref() }.abort();
                }
            }
        }
    }

    /// Walks from `me` to those that wait for it, and on, until it comes back to `me`.
    fn find_cycle(
        &self,
        search: u64,
        me: NonNull<Waiter>,
        stack: &mut [Option<Frame>; DEPTH],
    ) -> Found {
        let mut depth: usize = 1;
        stack[0] = Some(Frame {
            waiter: me,
            index: 0,
            after: 0,
        });
        while let Some(Some(frame)) = depth.checked_sub(1).and_then(|d| stack.get_mut(d)) {
            // SAFETY: Everybody on the stack is published, thus alive and unchanging while we hold the graph's lock.
            let node = unsafe { &*frame.waiter.as_ref().node.get() };
            // SAFETY: As above.
            let Some(held) = (unsafe { node.held(frame.index) }) else {
                depth -= 1;
                continue;
            };
            let Some((lock, mut mode)) = held.get() else {
                frame.index += 1;
                continue;
            };
            if node.waits_for == Some((lock, Mode::Write)) {
                // Who waits for write keeps readers out already.
                mode = Mode::Write;
            }
            let (after, from) = (frame.after, frame.waiter);
            // SAFETY: Who published the entry keeps the lock alive.
            let next = unsafe { lock.as_ref() }.find_waiter(|w, want| {
                let ptr = NonNull::from(w);
                if !core::ptr::eq(&*w.graph, self) || !mode.excludes(want) || w.aborted() {
                    return None;
                }
                // SAFETY: It is in a list and belongs to this graph, hence published; we hold the graph's lock.
                let n = unsafe { &*w.node.get() };
                (ptr != from && n.ticket > after && (ptr == me || n.visited != search))
                    .then_some((ptr, n.ticket))
            });
            let Some((next, ticket)) = next else {
                frame.index += 1;
                frame.after = 0;
                continue;
            };
            frame.after = ticket;
            if next == me {
                // Somebody on the way may have been given its lock meanwhile: then it waits no more, and neither do those behind.
                let stale = stack.iter().take(depth).skip(1).position(|f| {
                    let Some(f) = f else { return false };
                    // SAFETY: As above.
                    unsafe { f.waiter.as_ref() }.granted()
                });
                match stale {
                    None => return Found::Cycle(depth),
                    Some(at) => {
                        depth = at + 1;
                        continue;
                    }
                }
            }
            // SAFETY: As above; no other reference to the node exists.
            unsafe { (*next.as_ref().node.get()).visited = search };
            let Some(slot) = stack.get_mut(depth) else {
                return Found::TooDeep;
            };
            *slot = Some(Frame {
                waiter: next,
                index: 0,
                after: 0,
            });
            depth += 1;
        }
        Found::Nothing
    }
}
