// SPDX-License-Identifier: GPL-2.0
//! The two ways in which an attempt ends early.

use crate::util::{counters::Counter, error::Error};
use bcachefs_format::Invalid;
use kfs::sync::six::LockError;

/// Why an attempt has to be made again.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(in crate::btree) enum Reason {
    /// A lock that results depend on could not be taken back after it was given up.
    Relock,
    /// The same, when a path was used again.
    RelockPath,
    /// The same, when it was to be locked for intent.
    RelockPathIntent,
    /// The same, after waiting for a node to be read.
    RelockAfterFill,
    /// A read lock could not be turned into intent.
    Upgrade,
    /// There was no memory for a node.
    FillMemory,
    /// A node left the cache again and again before it could be locked.
    NodeReused,
    /// More paths or locks than there is room for.
    TooManyPaths,
    /// Waiting would have closed a cycle.
    WouldDeadlock,
    /// The same, when a node was to be locked for write.
    WouldDeadlockWrite,
    /// The search for cycles gave up.
    RecursionLimit,
    /// A lock was lost while waiting for room in the journal.
    JournalWait,
    /// A lock was lost while the superblock was made to list replicas.
    MarkReplicas,
    /// A node was split, or written anew.
    Split,
    /// Nodes were merged.
    #[allow(dead_code)] // Until they are.
    Merge,
    /// The tree changed while a split was prepared.
    #[allow(dead_code)] // Until nodes are split.
    SplitRace,
    /// A key came into the key cache after it had been found in its leaf.
    KeyCacheRaced,
    /// A read lock on a cached key could not be turned into intent.
    KeyCacheUpgrade,
    /// A lock was lost while memory was allocated for a cached key.
    KeyCacheRealloced,
    /// Asked for, to test that restarts work.
    Injected,
}

impl Reason {
    /// The counter of this kind of restart.
    pub(in crate::btree) fn counter(self) -> Counter {
        match self {
            Reason::Relock => Counter::TRANS_RESTART_RELOCK,
            Reason::RelockPath => Counter::TRANS_RESTART_RELOCK_PATH,
            Reason::RelockPathIntent => Counter::TRANS_RESTART_RELOCK_PATH_INTENT,
            Reason::RelockAfterFill => Counter::TRANS_RESTART_RELOCK_AFTER_FILL,
            Reason::Upgrade => Counter::TRANS_RESTART_UPGRADE,
            Reason::FillMemory => Counter::TRANS_RESTART_MEMORY_ALLOCATION_FAILURE,
            Reason::NodeReused => Counter::TRANS_RESTART_BTREE_NODE_REUSED,
            Reason::TooManyPaths => Counter::TRANS_RESTART_TOO_MANY_ITERS,
            Reason::WouldDeadlock => Counter::TRANS_RESTART_WOULD_DEADLOCK,
            Reason::WouldDeadlockWrite => Counter::TRANS_RESTART_WOULD_DEADLOCK_WRITE,
            Reason::JournalWait => Counter::TRANS_RESTART_JOURNAL_RES_GET,
            Reason::MarkReplicas => Counter::TRANS_RESTART_MARK_REPLICAS,
            Reason::Split => Counter::TRANS_RESTART_BTREE_NODE_SPLIT,
            Reason::Merge => Counter::TRANS_RESTART_RELOCK_NEXT_NODE,
            Reason::SplitRace => Counter::TRANS_RESTART_SPLIT_RACE,
            Reason::RecursionLimit => Counter::TRANS_RESTART_WOULD_DEADLOCK_RECURSION_LIMIT,
            Reason::KeyCacheRaced => Counter::TRANS_RESTART_KEY_CACHE_RACED,
            Reason::KeyCacheUpgrade => Counter::TRANS_RESTART_KEY_CACHE_UPGRADE,
            Reason::KeyCacheRealloced => Counter::TRANS_RESTART_KEY_CACHE_KEY_REALLOCED,
            Reason::Injected => Counter::TRANS_RESTART_INJECTED,
        }
    }
}

impl From<LockError> for Reason {
    fn from(e: LockError) -> Self {
        match e {
            LockError::WouldDeadlock => Reason::WouldDeadlock,
            LockError::TooDeep => Reason::RecursionLimit,
            LockError::Upgrade => Reason::Upgrade,
            LockError::Full | LockError::NoSlot => Reason::TooManyPaths,
        }
    }
}

/// The attempt has to be made again. Made by the btree only; hand it up to the loop.
#[must_use]
#[derive(PartialEq, Eq, Debug)]
pub struct Restart(pub(in crate::btree) Reason);

/// Why an attempt ended early. There is no way from here to [`Error`] but the loop of a transaction.
#[derive(PartialEq, Eq, Debug)]
pub enum TransError {
    /// It has to be made again.
    Restart(Restart),
    /// It has failed.
    Fs(Error),
}

impl From<Reason> for TransError {
    fn from(reason: Reason) -> Self {
        TransError::Restart(Restart(reason))
    }
}

impl From<LockError> for TransError {
    fn from(e: LockError) -> Self {
        Reason::from(e).into()
    }
}

impl From<Error> for TransError {
    fn from(e: Error) -> Self {
        TransError::Fs(e)
    }
}

impl From<kernel::error::Error> for TransError {
    fn from(e: kernel::error::Error) -> Self {
        TransError::Fs(e.into())
    }
}

impl From<kernel::alloc::AllocError> for TransError {
    fn from(e: kernel::alloc::AllocError) -> Self {
        TransError::Fs(e.into())
    }
}

impl From<Invalid> for TransError {
    fn from(e: Invalid) -> Self {
        TransError::Fs(e.into())
    }
}
