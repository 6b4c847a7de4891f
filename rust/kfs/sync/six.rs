// SPDX-License-Identifier: GPL-2.0

//! Shared/intent/exclusive locks that belong to a transaction.
//!
//! A [`SixLock`] has three modes. Any number may hold it for *read*; one at a time may hold it for
//! *intent*, beside the readers; the holder of intent, and nobody else, may go on to *write*, which
//! excludes readers. A sequence number changes with every release of write, so that somebody who
//! gave a lock up can take it back later and know that what it protects has not changed
//! ([`LockSet::relock`]).
//!
//! Locks are not taken one by one into guards but into a [`LockSet`], which a transaction owns: a table
//! of locks with the strongest mode held of each. Asking for a lock that the set holds already
//! shares the entry, so recursion does not arise; what a lock protects is borrowed from the
//! set, so that giving up locks (which takes the set mutably) while a borrow is alive does not compile.
//!
//! There is no order in which locks have to be taken. Before it sleeps, a set looks for a cycle among the
//! sets that wait ([`Graph`]); one member of a cycle is told to give up, gets
//! [`LockError::WouldDeadlock`], and is expected to release everything and start again.
//!
//! Everything here is for process context. Taking a lock may sleep; the `try` functions,
//! [`LockSet::relock`] and all releases do not.

mod graph;
mod lock;
mod raw;
mod set;
#[cfg(bcachefs_kunit)]
mod tests;
mod waiter;

pub use graph::Graph;
pub use lock::{Busy, Exclusive, Seat, SixLock};
pub use raw::Mode;
pub use set::{LockError, LockSet, Patience, Slot};
