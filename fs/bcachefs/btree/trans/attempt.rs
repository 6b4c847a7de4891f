// SPDX-License-Identifier: GPL-2.0
//! One try of a transaction.

use super::{buffer::Buffer, error::Reason, pending::Pending, TransError};
use crate::{
    btree::{
        iter::{Iter, IterFlags, COUNTERS_MAX},
        key_cache::HeldKeys,
        node::{NodeData, NodeHead, NodeLocks},
        path::{Live, Path, Paths},
        Btree,
    },
    util::error::Error,
};
use bcachefs_format::{Bpos, BtreeId, KeyRef};
use kernel::prelude::*;
use kfs::sync::six::Slot;

/// What a transaction's body works with. Keys borrowed from it are valid until the next call that takes it mutably.
pub struct Attempt<'t> {
    pub(in crate::btree) btree: &'t Btree,
    pub(in crate::btree) locks: &'t mut NodeLocks,
    /// What it has of the key cache.
    pub(in crate::btree) keys: &'t mut HeldKeys,
    pub(in crate::btree) paths: &'t mut Paths,
    pub(in crate::btree) live: &'t Live,
    /// What it wants to change.
    pub(in crate::btree) pending: &'t mut Pending,
    /// Room for the keys that a trigger looks at.
    pub(super) scratch: &'t mut KVVec<u64>,
    /// The value of the accounting key returned last.
    pub(in crate::btree) counters: [u64; COUNTERS_MAX],
    restarts: u32,
    /// Commits made.
    pub(super) commits: u32,
    /// Memory ran out in an earlier attempt.
    low_memory: bool,
    /// The attempt is over.
    failed: Option<Reason>,
}

impl<'t> Attempt<'t> {
    pub(super) fn new(
        btree: &'t Btree,
        buffer: &'t mut Buffer,
        restarts: u32,
        low_memory: bool,
    ) -> Self {
        buffer.paths.forget_results();
        buffer.live.clear();
        buffer.keys.clear();
        buffer.pending.reset();
        Attempt {
            btree,
            locks: &mut buffer.locks,
            keys: &mut buffer.keys,
            paths: &mut buffer.paths,
            live: &buffer.live,
            pending: &mut buffer.pending,
            scratch: &mut buffer.scratch,
            counters: [0; COUNTERS_MAX],
            restarts,
            commits: 0,
            low_memory,
            failed: None,
        }
    }

    /// The btrees.
    #[inline]
    pub fn btree(&self) -> &'t Btree {
        self.btree
    }

    /// How often the transaction has been restarted before this attempt.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Why the attempt is over, if it is.
    pub(super) fn failed(&self) -> Option<Reason> {
        self.failed
    }

    /// Ends the attempt.
    #[cold]
    pub(in crate::btree) fn restart(&mut self, reason: Reason) -> TransError {
        self.failed = Some(reason);
        reason.into()
    }

    /// An attempt that is over stays so, however its user treats the error; and restarts may be injected.
    #[inline]
    pub(in crate::btree) fn check(&mut self) -> Result<(), TransError> {
        if let Some(reason) = self.failed {
            return Err(reason.into());
        }
        if self.btree.inject.fires(self.restarts) {
            return Err(self.restart(Reason::Injected));
        }
        Ok(())
    }

    /// How memory is allocated while locks are held: without waiting, unless that did not do.
    pub(in crate::btree) fn gfp(&self) -> kernel::alloc::Flags {
        if self.low_memory {
            GFP_KERNEL | __GFP_NOWARN
        } else {
            GFP_NOWAIT | __GFP_NOWARN
        }
    }

    #[inline]
    pub(in crate::btree) fn path(&self, index: u8) -> Result<&Path, TransError> {
        match self.paths.get(index) {
            Some(path) => Ok(path),
            None => Err(Reason::TooManyPaths.into()),
        }
    }

    /// The keys of a locked node.
    #[inline]
    pub(in crate::btree) fn node(&self, slot: Slot) -> Option<&NodeData> {
        self.locks.get(slot)
    }

    /// The head of a node.
    pub(in crate::btree) fn head(&self, slot: Slot) -> Option<&NodeHead> {
        self.locks.lock_ref(slot).map(|l| l.shared())
    }

    /// An iterator at `pos`. Does not read anything yet.
    pub fn iter(&mut self, btree: BtreeId, pos: Bpos, flags: IterFlags) -> Iter<'t> {
        Iter::new(self, btree, 0, pos, flags)
    }

    /// The key at `pos`, seen from its snapshot where keys live in snapshots; in trees of extents the one that covers
    /// `pos`. `None` if there is none. May sleep.
    pub fn get<'a>(
        &'a mut self,
        btree: BtreeId,
        pos: Bpos,
    ) -> Result<Option<KeyRef<'a>>, TransError> {
        Iter::new(self, btree, 0, pos, IterFlags::NONE).into_slot(self)
    }

    /// Releases all locks. Keys found before are gone (the borrow says so); positions of iterators stay.
    pub fn unlock(&mut self) {
        self.locks.unlock_all();
        self.keys.locks.unlock_all();
    }

    /// Takes back the locks that results of this attempt depend on. If one of the nodes has changed: restart.
    pub fn relock(&mut self) -> Result<(), TransError> {
        self.check()?;
        self.relock_held(None, Reason::Relock)
    }

    /// Runs `f`, which may sleep and do I/O, without any lock.
    pub fn unlocked<R>(&mut self, f: impl FnOnce() -> R) -> Result<R, TransError> {
        self.unlock();
        let r = f();
        self.relock()?;
        Ok(r)
    }

    /// After a restart: goes the paths of the attempt before, in the order of their positions, and keeps their nodes locked,
    /// so that this attempt finds them where they are.
    pub(super) fn traverse_all(&mut self) {
        let mut order: [u8; crate::btree::path::PATHS_MAX] = core::array::from_fn(|i| i as u8);
        let n = self.paths.len().min(order.len());
        let Some(order) = order.get_mut(..n) else {
            return;
        };
        // Few, and mostly in order already.
        let key = |i: u8| self.paths.get(i).map(|p| (p.btree, p.pos, !p.level));
        for end in 1..order.len() {
            for i in (1..=end).rev() {
                match (order.get(i - 1), order.get(i)) {
                    (Some(&a), Some(&b)) if key(a) > key(b) => order.swap(i - 1, i),
                    _ => break,
                }
            }
        }
        for &mut i in order {
            let Some(path) = self.paths.get_mut(i) else {
                continue;
            };
            if path.slot(path.level).is_none() && !path.ready {
                continue;
            }
            let pos = path.pos;
            // Reading it may fail; who needs it will see. A restart ends this pass, not the attempt.
            if self.traverse(i, pos, 0).is_err() && self.failed.take().is_some() {
                self.unlock();
                return;
            }
        }
    }

    /// An error for a place that only a mistake in this code can lead to.
    #[cold]
    pub(in crate::btree) fn lost(&self) -> TransError {
        Error::BtreeTopology.into()
    }
}
