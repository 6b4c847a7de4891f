// SPDX-License-Identifier: GPL-2.0
//! What a transaction works with, and where it comes from.
//!
//! A buffer is some kilobytes of tables. The last one used on a CPU waits there for the next transaction; if there is
//! none a new one is made, and if there is no memory for that either, the transaction waits for the filesystem's
//! reserve, of which there is one.

use super::{
    info::{Info, Transactions},
    pending::{Pending, VALUE_U64S_MAX},
};
use crate::{
    btree::{
        key_cache::HeldKeys,
        node::NodeLocks,
        path::{Live, Paths, PATHS_MAX},
    },
    util::error::{Error, Result},
};
use bcachefs_format::btree_node::BTREE_MAX_DEPTH;
use kernel::{
    new_condvar, new_mutex,
    prelude::*,
    sync::{Arc, CondVar, Mutex},
};
use kfs::{mem::PerCpu, sync::six::Graph};

/// The tables of one transaction.
pub(in crate::btree) struct Buffer {
    pub(super) locks: NodeLocks,
    pub(super) keys: HeldKeys,
    pub(super) paths: Paths,
    pub(super) live: Live,
    pub(super) pending: Pending,
    pub(super) scratch: KVVec<u64>,
    pub(super) info: Arc<Info>,
    transactions: Arc<Transactions>,
    /// It is the reserve, and goes back there.
    reserve: bool,
}

impl Buffer {
    fn new(graph: &Arc<Graph>, transactions: &Arc<Transactions>) -> Result<KBox<Self>> {
        let locks = PATHS_MAX as u16 * u16::from(BTREE_MAX_DEPTH);
        KBox::try_init(
            try_init!(Buffer {
                locks: NodeLocks::new(graph.clone(), locks)?,
                keys: HeldKeys::new(graph.clone())?,
                paths: Paths::new()?,
                live: Live::new(),
                pending: Pending::new()?,
                scratch: KVVec::with_capacity(2 * VALUE_U64S_MAX, GFP_KERNEL)?,
                transactions: transactions.clone(),
                reserve: false,
                // Last: what is left again is a whole buffer.
                info: transactions.enter()?,
            }? Error),
            GFP_KERNEL,
        )
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.transactions.leave(&self.info);
    }
}

/// The buffers of one filesystem.
#[pin_data]
pub(in crate::btree) struct Buffers {
    graph: Arc<Graph>,
    pub(in crate::btree) transactions: Arc<Transactions>,
    idle: PerCpu<KBox<Buffer>>,
    #[pin]
    reserve: Mutex<Option<KBox<Buffer>>>,
    #[pin]
    returned: CondVar,
}

impl Buffers {
    /// Makes the reserve. May sleep.
    pub(in crate::btree) fn new() -> Result<Arc<Self>> {
        let graph = Graph::new()?;
        let transactions = Arc::pin_init(Transactions::new(), GFP_KERNEL)?;
        let mut reserve = Buffer::new(&graph, &transactions)?;
        reserve.reserve = true;
        Ok(Arc::pin_init(
            try_pin_init!(Self {
                graph,
                transactions,
                idle: PerCpu::new()?,
                reserve <- new_mutex!(Some(reserve), "btree_trans_reserve"),
                returned <- new_condvar!("btree_trans_returned"),
            }? kernel::error::Error),
            GFP_KERNEL,
        )?)
    }

    /// A buffer with empty tables. May sleep; does not fail.
    #[inline]
    pub(super) fn take(&self) -> KBox<Buffer> {
        if let Some(buffer) = self.idle.take() {
            return buffer;
        }
        if let Ok(buffer) = Buffer::new(&self.graph, &self.transactions) {
            return buffer;
        }
        let mut reserve = self.reserve.lock();
        loop {
            if let Some(buffer) = reserve.take() {
                return buffer;
            }
            self.returned.wait(&mut reserve);
        }
    }

    /// Takes a buffer back, releases all locks in it and forgets its paths.
    #[inline]
    pub(super) fn put(&self, mut buffer: KBox<Buffer>) {
        let b = &mut *buffer;
        b.paths.clear(&mut b.locks);
        b.locks.clear();
        b.keys.clear();
        b.live.clear();
        b.pending.reset();
        if buffer.reserve {
            *self.reserve.lock() = Some(buffer);
            self.returned.notify_one();
        } else {
            drop(self.idle.put(buffer));
        }
    }

    /// How many cycles of waiting transactions were found, and searches given up.
    pub(in crate::btree) fn graph_stats(&self) -> (u64, u64) {
        self.graph.stats()
    }
}
