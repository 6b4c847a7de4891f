// SPDX-License-Identifier: GPL-2.0
//! The loops around attempts.

use super::{error::Reason, info::Now, Attempt, Restart, TransError};
use crate::{
    btree::{
        iter::{Iter, IterFlags},
        node::{NodeData, NodeHead},
        Btree,
    },
    util::{
        counters::Counter,
        error::{Error, Result},
    },
};
use bcachefs_format::{Bpos, BtreeId, KeyRef};
use core::{ops::ControlFlow, panic::Location};
use kernel::current;
use kfs::{mem::NofsScope, sync::six::Patience};

/// Restarts after which a transaction is given up. No transaction that only waits for others needs as many.
const RESTARTS_MAX: u32 = 1 << 16;
/// Times a transaction is restarted for lack of memory.
const MEMORY_RESTARTS_MAX: u32 = 16;
/// Nodes to evict for a transaction that lacks memory.
const CANNIBALISE: usize = 8;

impl Btree {
    /// Runs `f` as a transaction: again whenever it returns a restart, until it returns something else. May sleep.
    ///
    /// `f` starts from nothing each time. Transactions of one task do not nest.
    #[track_caller]
    pub fn run<R>(
        &self,
        mut f: impl for<'t> FnMut(&mut Attempt<'t>) -> core::result::Result<R, TransError>,
    ) -> Result<R> {
        if self.is_shut_down() {
            return Err(Error::BtreeShutDown);
        }
        let pid = current!().pid();
        if self.checks() && self.buffers.transactions.busy(pid) {
            self.fill
                .report(format_args!("a transaction inside another one of task {pid}"));
            return Err(Error::TransNested);
        }
        let _nofs = NofsScope::enter();
        let mut buffer = self.buffers.take();
        buffer.info.start(Now {
            pid,
            caller: Some(Location::caller()),
            restarts: 0,
        });
        let (mut restarts, mut memory, mut commits) = (0, 0, 0);
        let result = loop {
            let _srcu = self.barrier.read();
            let mut attempt = Attempt::new(self, &mut buffer, restarts, memory != 0);
            if restarts != 0 {
                attempt.unlock();
                attempt.locks.set_patience(Patience::Restarting);
                self.counters.inc(Counter::TRANS_TRAVERSE_ALL);
                attempt.traverse_all();
                attempt.locks.set_patience(Patience::Ordinary);
            }
            let result = f(&mut attempt);
            let failed = attempt.failed();
            commits += attempt.commits;
            let reason = match result {
                Ok(r) if failed.is_none() => break Ok(r),
                Err(TransError::Fs(e)) => break Err(e),
                Err(TransError::Restart(Restart(reason))) => reason,
                // It went on after a restart: what it did does not count.
                Ok(_) => failed.unwrap_or(Reason::Relock),
            };
            restarts += 1;
            self.counters.inc(reason.counter());
            buffer.locks.unlock_all();
            buffer.keys.clear();
            buffer.info.restarted(restarts);
            if restarts >= RESTARTS_MAX {
                break Err(Error::TransTooManyRestarts);
            }
            match reason {
                Reason::FillMemory => {
                    memory += 1;
                    let freed = self.fill.cache.cannibalise(CANNIBALISE);
                    self.counters.inc(Counter::BTREE_CACHE_CANNIBALIZE);
                    if memory >= MEMORY_RESTARTS_MAX && freed == 0 {
                        break Err(Error::NoMem);
                    }
                }
                // It would fill up again.
                Reason::TooManyPaths if restarts > 8 => break Err(Error::TransTooManyPaths),
                Reason::TooManyPaths => {
                    let b = &mut *buffer;
                    b.paths.clear(&mut b.locks);
                }
                _ => {}
            }
        };
        buffer.info.end(commits);
        self.buffers.put(buffer);
        result
    }

    /// Calls `f` with every key from `start` to `end`, once each and in order, until it breaks. May sleep; `f` must not, and must
    /// not start transactions: the key's node is locked.
    #[track_caller]
    pub fn walk<R>(
        &self,
        btree: BtreeId,
        start: Bpos,
        end: Bpos,
        flags: IterFlags,
        mut f: impl FnMut(KeyRef<'_>) -> Result<ControlFlow<R>>,
    ) -> Result<Option<R>> {
        let mut at = start;
        self.run(|t| {
            let mut iter = t.iter(btree, at, flags);
            while let Some(key) = iter.peek_upto(t, end)? {
                if let ControlFlow::Break(r) = f(key)? {
                    return Ok(Some(r));
                }
                let more = iter.advance();
                // From here on if there is a restart.
                at = iter.pos();
                if !more {
                    break;
                }
            }
            Ok(None)
        })
    }

    /// Calls `f` with every node at `level`, in order, until it breaks. The same rules as for [`Btree::walk`].
    #[track_caller]
    pub fn walk_nodes<R>(
        &self,
        btree: BtreeId,
        level: u8,
        f: impl FnMut(&NodeHead, &NodeData) -> Result<ControlFlow<R>>,
    ) -> Result<Option<R>> {
        self.walk_nodes_from(btree, level, Bpos::POS_MIN, f)
    }

    /// The same, from the node on that `start` is in.
    #[track_caller]
    pub fn walk_nodes_from<R>(
        &self,
        btree: BtreeId,
        level: u8,
        start: Bpos,
        mut f: impl FnMut(&NodeHead, &NodeData) -> Result<ControlFlow<R>>,
    ) -> Result<Option<R>> {
        let mut at = Some(start);
        self.run(|t| {
            while let Some(pos) = at {
                let mut iter = Iter::new(t, btree, level, pos, IterFlags::PREFETCH);
                let Some((head, node)) = iter.peek_node(t)? else {
                    break;
                };
                if let ControlFlow::Break(r) = f(head, node)? {
                    return Ok(Some(r));
                }
                at = node.max().successor();
            }
            Ok(None)
        })
    }
}
