// SPDX-License-Identifier: GPL-2.0
//! The cache of btree nodes.
//!
//! Nodes are found by the hash key of their pointer, without a lock. All nodes in the table are also in a
//! list, on which a hand goes round: what has been used since the last round is spared, the rest is evicted. The memory
//! of evicted nodes is returned at once; the lock and head of a node live on as long as somebody refers to them, with
//! the flag `DEAD` and a new sequence number, so that nobody mistakes them for the node.
//!
//! Eviction is started by memory reclaim, through a registered shrinker, by transactions that could not get
//! memory ([`Cache::cannibalise`]), and at unmount.
//!
//! Dirty nodes stay. When most nodes are dirty, eviction has those written that it would like to have.
//!
//! Lock order: node locks, then the list's. With the list's lock held node locks are only tried.

mod reserve;
mod shrink;
mod stats;

pub use stats::{CacheStats, NotFreed};

use super::node::{Flag, Node, NodeHead, NodeMem};
use crate::util::error::{Error, Result};
use core::fmt;
use bcachefs_format::{btree_node::BTREE_MAX_DEPTH, BtreeId};
use kernel::{
    new_condvar, new_mutex, new_spinlock,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, CondVar, Mutex, SetOnce, SpinLock,
    },
};
use kfs::hash::{InsertError, Table};

/// Nodes in memory, in no particular order, and where the hand stands.
struct List {
    nodes: KVVec<Arc<Node>>,
    hand: usize,
}

/// Writes dirty nodes that are to be evicted.
pub trait WriteBack: Send + Sync {
    /// Has the node written. Does not sleep; any locks may be held.
    fn write_soon(&self, node: &Arc<Node>);

    /// Waits until some write gets on, but not for long. Sleeps.
    fn wait_a_little(&self);
}

/// See the module's description.
#[pin_data]
pub struct Cache {
    #[pin]
    table: Table<Node>,
    #[pin]
    list: Mutex<List>,
    nr: Atomic<usize>,
    bytes: Atomic<u64>,
    /// Dirty nodes.
    dirty: Atomic<usize>,
    /// Nodes that reclaim leaves alone.
    reserve: Atomic<usize>,
    write_back: SetOnce<Arc<dyn WriteBack>>,
    /// Memory for nodes that are needed in order to free memory.
    #[pin]
    memory: SpinLock<KVec<NodeMem>>,
    /// Whether a transaction is cannibalising.
    #[pin]
    cannibal: Mutex<bool>,
    #[pin]
    cannibal_wait: CondVar,
    stats: CacheStats,
}

/// What [`Cache::insert`] found.
pub enum Inserted {
    /// The node is in the cache now.
    New,
    /// Another one was there already.
    Lost(Arc<Node>),
}

impl Cache {
    /// An empty cache. May sleep.
    pub fn new() -> Result<Arc<Self>> {
        Ok(Arc::pin_init(
            try_pin_init!(Self {
                table <- Table::new(),
                list <- new_mutex!(List { nodes: KVVec::new(), hand: 0 }, "btree_cache"),
                nr: Atomic::new(0),
                bytes: Atomic::new(0),
                dirty: Atomic::new(0),
                reserve: Atomic::new(0),
                write_back: SetOnce::new(),
                memory <- new_spinlock!(KVec::new(), "btree_cache_memory"),
                cannibal <- new_mutex!(false, "btree_cache_cannibal"),
                cannibal_wait <- new_condvar!("btree_cache_cannibal_wait"),
                stats: CacheStats::new(),
            }? kernel::error::Error),
            GFP_KERNEL,
        )?)
    }

    /// The node under `hash`. Does not sleep.
    #[inline]
    pub fn get(&self, hash: u64) -> Option<Arc<Node>> {
        self.table.get(hash)
    }

    /// Puts a node that is about to be read into the cache. May sleep.
    pub fn insert(&self, node: &Arc<Node>) -> Result<Inserted> {
        let head = node.shared();
        let mut list = self.list.lock();
        list.nodes.reserve(1, GFP_KERNEL | __GFP_NOWARN)?;
        match self.table.insert(head.hash, node.clone()) {
            Ok(()) => {}
            Err(InsertError::Exists(present)) => return Ok(Inserted::Lost(present)),
            Err(InsertError::Failed(e)) => return Err(e.into()),
        }
        head.set_place(list.nodes.len() as u32);
        // Room was made above.
        let _ = list.nodes.push_within_capacity(node.clone());
        self.nr.store(list.nodes.len(), Relaxed);
        Ok(Inserted::New)
    }

    /// Accounts for the memory of a node's keys once they have been read.
    pub fn account(&self, node: &Node, bytes: usize) {
        let old = node.shared().bytes.xchg(bytes as u64, Relaxed);
        self.bytes.add((bytes as u64).wrapping_sub(old), Relaxed);
    }

    /// Takes a node that could not be read out again, so that the next one to ask tries anew.
    pub fn forget(&self, node: &Node) {
        let mut list = self.list.lock();
        self.remove_locked(&mut list, node);
    }

    fn remove_locked(&self, list: &mut List, node: &Node) {
        let head = node.shared();
        let place = head.place.load(Relaxed) as usize;
        let here = list
            .nodes
            .get(place)
            .is_some_and(|n| core::ptr::eq::<Node>(&**n, node));
        if !here {
            return;
        }
        self.table.remove(head.hash, node);
        head.set(Flag::DEAD);
        let last = list.nodes.len() - 1;
        list.nodes.swap(place, last);
        list.nodes.pop();
        if let Some(moved) = list.nodes.get(place) {
            moved.shared().set_place(place as u32);
        }
        self.nr.store(list.nodes.len(), Relaxed);
        self.cleaned(head);
        let bytes = head.bytes.xchg(0, Relaxed);
        self.bytes.add(bytes.wrapping_neg(), Relaxed);
    }

    /// Says who writes dirty nodes; once.
    pub fn set_write_back(&self, write_back: Arc<dyn WriteBack>) {
        self.write_back.populate(write_back);
    }

    /// The node has become dirty.
    pub fn dirtied(&self, head: &NodeHead) {
        if !head.set(Flag::COUNTED) {
            self.dirty.add(1usize, Relaxed);
        }
    }

    /// The node is not dirty any more.
    pub fn cleaned(&self, head: &NodeHead) {
        if head.clear(Flag::COUNTED) {
            self.dirty.add(usize::MAX, Relaxed);
        }
    }

    /// Number of dirty nodes.
    pub fn nr_dirty(&self) -> usize {
        self.dirty.load(Relaxed)
    }

    /// Sets how many nodes reclaim leaves alone, so that a transaction always finds some to take over.
    pub fn set_reserve(&self, nodes: usize) {
        self.reserve.store(nodes, Relaxed);
    }

    /// Number of nodes in the cache.
    pub fn nr_nodes(&self) -> usize {
        self.nr.load(Relaxed)
    }

    /// What has happened in the cache.
    pub fn stats(&self) -> &CacheStats {
        &self.stats
    }

    /// For a transaction that has no memory for a node: evicts nodes, used or not. One transaction at a time does so; the
    /// others wait, for which no lock of a node may be held. Returns how many were evicted.
    pub fn cannibalise(&self, want: usize) -> usize {
        {
            let mut busy = self.cannibal.lock();
            while *busy {
                self.cannibal_wait.wait(&mut busy);
            }
            *busy = true;
        }
        let mut freed = self.evict(want, shrink::Mercy::None);
        if let (0, Some(write_back)) = (freed, self.write_back.as_ref()) {
            // All that is left is dirty, or in use.
            self.write_some(want, &**write_back);
            write_back.wait_a_little();
            freed = self.evict(want, shrink::Mercy::None);
        }
        self.stats.cannibalised(freed);
        *self.cannibal.lock() = false;
        self.cannibal_wait.notify_one();
        freed
    }

    /// Evicts everything, dirty or not. Reads and writes must have ended, and nobody may use nodes any more. The number of nodes that are still
    /// held, which is a bug.
    pub fn clear(&self) -> usize {
        let mut list = self.list.lock();
        let keep = [
            Flag::NOEVICT,
            Flag::DIRTY,
            Flag::WRITE_BLOCKED,
            Flag::WILL_MAKE_REACHABLE,
            Flag::WRITE_IN_FLIGHT,
        ];
        for node in list.nodes.iter() {
            for flag in keep {
                node.shared().clear(flag);
            }
        }
        drop(list);
        let memory = core::mem::take(&mut *self.memory.lock());
        drop(memory);
        self.reserve.store(0, Relaxed);
        self.evict(usize::MAX, shrink::Mercy::None);
        list = self.list.lock();
        list.nodes.len()
    }

    /// Calls `f` with every node, until it returns false. The list stays locked: `f` must not wait for a node.
    pub fn for_each(&self, mut f: impl FnMut(&Node) -> bool) {
        let list = self.list.lock();
        for node in list.nodes.iter() {
            if !f(node) {
                break;
            }
        }
    }

    /// The node at place `index` of the list, for walks that must not hold the list's lock.
    pub fn nth(&self, index: usize) -> Option<Arc<Node>> {
        self.list.lock().nodes.get(index).cloned()
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "nodes in memory: {}", self.nr_nodes())?;
        writeln!(f, "memory of keys: {} bytes", self.bytes.load(Relaxed))?;
        writeln!(f, "dirty: {}", self.nr_dirty())?;
        writeln!(f, "reserve: {}", self.reserve.load(Relaxed))?;
        self.show_levels(f)?;
        self.stats.fmt(f)
    }
}

impl Cache {
    #[inline(never)]
    fn show_levels(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for level in 0..BTREE_MAX_DEPTH {
            let mut per_btree = [0u32; 64];
            self.for_each(|n| {
                let head = n.shared();
                let count = per_btree.get_mut(usize::from(head.btree.0));
                if let Some(c) = count.filter(|_| head.level == level) {
                    *c += 1;
                }
                true
            });
            for (id, nodes) in per_btree.iter().enumerate().filter(|(_, nodes)| **nodes != 0) {
                writeln!(f, "  level {level} of {}: {nodes} nodes", BtreeId(id as u8))?;
            }
        }
        Ok(())
    }
}

impl From<InsertError<Node>> for Error {
    fn from(e: InsertError<Node>) -> Self {
        match e {
            InsertError::Exists(_) => Error::BtreeTopology,
            InsertError::Failed(e) => e.into(),
        }
    }
}
