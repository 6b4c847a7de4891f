// SPDX-License-Identifier: GPL-2.0
//! The key cache: single keys that change often, apart from their leaves.
//!
//! A key in the cache has a lock of its own. A change of it goes to the journal and the cache, and reaches its leaf when the
//! journal wants to be rid of the entry that has it, or at unmount. So keys that change all the time (buckets, inodes) neither
//! have leaves written all the time nor make transactions wait for one another that happen to change neighbours.
//!
//! Nothing of this is on disk: what is only in the cache is in the journal as well, and pinned there.
//!
//! # Invariants
//!
//! - Leaves say which keys there are; the cache has newer values of some of them. A key is in the cache only while its leaf has a
//!   key, no whiteout, at exactly its position. So new keys, whiteouts and deletions go to the leaf, and the two latter throw out
//!   what the cache has, in the same commit. Whoever walks finds all keys in the leaves and looks here for each.
//! - A key in the cache that is not dirty is what its leaf has. A dirty one is pinned in the journal at an entry that is not
//!   newer than the one that has its value.
//! - Dirty keys stay in the cache until they are clean, or thrown out by a commit to the leaf. What has left the cache is marked
//!   dead, under its lock: who finds that looks again.
//!
//! # Rules
//!
//! - The locks of keys are in a second set of the transaction, and in the same graph as those of nodes: whoever waits for either
//!   lets others see what it has of both. There is no order between them.
//! - A key comes into the cache with its leaf locked, at least for read, by a transaction that wants to change it. Those who have
//!   read the leaf do not notice: its lock can be had for read by several. So keys have counters ([`Bare`]) that are raised when
//!   one of theirs comes in. Who has found a key in a leaf and none here notes the counter before the look, and compares when all
//!   is locked for the commit; it restarts if it is another, since the key may have changed here since.
//! - A change of a key that is here takes intent on the key, and write for the commit; nothing of the leaf.
//! - A change that goes to the leaf takes intent on the key as well, if it is here, from before it is known to be so until the commit.
//! - Writing a key out takes intent on the key and changes the leaf as the entry of the journal in which the key is already. The
//!   value is exactly that of the pinned entry: if the key is in a newer one, the pin moves there instead. So what is changed all
//!   the time is not written out all the time.
//! - While the journal is not replayed nothing comes in; everything else goes on as always.

mod attempt;
mod entry;
mod flush;
mod held;
mod shrink;

pub(super) use entry::{CachedKey, KeyLocks};
pub(super) use flush::KeyPins;
pub(super) use held::HeldKeys;
pub(super) use shrink::TUNING;

use crate::util::error::Result;
use bcachefs_format::{Bpos, BtreeId};
use core::fmt;
use entry::KeyHead;
use kernel::{
    alloc::Flags,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Arc,
    },
};
use kfs::{
    hash::{InsertError, Table},
    new_event,
    sync::{Event, InlineAtomic},
};

/// Btrees whose keys are always cached.
const ALWAYS: u64 = 1 << BtreeId::ALLOC.0 | 1 << BtreeId::LOGGED_OPS.0;

/// Counters of keys that have come in. A power of two.
const COUNTERS: usize = 1024;

/// Proof that a key was not in the cache at some moment: the counter it shares with others, as it was before the look.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Bare {
    hash: u64,
    count: u32,
}

/// See the module's description.
#[pin_data]
pub(super) struct KeyCache {
    #[pin]
    table: Table<CachedKey>,
    /// A bit for each btree that has keys here.
    btrees: Atomic<u64>,
    /// Keys may come in.
    filling: Atomic<u32>,
    /// At least as many as are in the table.
    nr: Atomic<usize>,
    dirty: Atomic<usize>,
    came: KVec<Atomic<u32>>,
    /// Keys that the next scan passes over.
    hand: Atomic<usize>,
    /// There are fewer dirty keys than before.
    #[pin]
    cleaned: Event,
    filled: Atomic<u64>,
    evicted: Atomic<u64>,
    dropped: Atomic<u64>,
    written: Atomic<u64>,
    moved: Atomic<u64>,
    waits: Atomic<u64>,
}

/// Numbers of keys, dirty ones, for which something happens.
#[derive(Copy, Clone)]
struct Limits {
    /// More are written out although the journal does not need it.
    soft: usize,
    /// Commits that would make more of them wait.
    hard: usize,
    /// They go on when there are no more than these.
    resume: usize,
}

impl Limits {
    /// With `keys` in the cache.
    fn of(keys: usize) -> Self {
        Limits {
            soft: 1024 + keys / 2,
            hard: 4096 + keys / 4 * 3,
            resume: 2048 + keys / 8 * 5,
        }
    }
}

/// Under what a key is found. Keys may have the same: then the second one has no place in the cache.
fn hash(btree: BtreeId, pos: Bpos) -> u64 {
    let low = u64::from(pos.snapshot) << 8 | u64::from(btree.0);
    [pos.inode, pos.offset, low].into_iter().fold(0, |h: u64, word| {
        let x = (h.rotate_left(23) ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    })
}

impl KeyCache {
    /// An empty cache, into which nothing comes yet. May sleep.
    pub(super) fn new() -> Result<Arc<Self>> {
        let mut came = KVec::with_capacity(COUNTERS, GFP_KERNEL)?;
        for _ in 0..COUNTERS {
            came.push(Atomic::new(0), GFP_KERNEL)?;
        }
        Ok(Arc::pin_init(
            try_pin_init!(Self {
                table <- Table::new(),
                btrees: Atomic::new(ALWAYS),
                filling: Atomic::new(0),
                nr: Atomic::new(0),
                dirty: Atomic::new(0),
                came,
                hand: Atomic::new(0),
                cleaned <- new_event!("bcachefs_key_cache"),
                filled: Atomic::new(0),
                evicted: Atomic::new(0),
                dropped: Atomic::new(0),
                written: Atomic::new(0),
                moved: Atomic::new(0),
                waits: Atomic::new(0),
            }? kernel::error::Error),
            GFP_KERNEL,
        )?)
    }

    /// Whether keys of `btree` may be here.
    #[inline]
    pub(super) fn serves(&self, btree: BtreeId) -> bool {
        self.btrees.read() >> (btree.0 & 63) & 1 != 0
    }

    /// Has the keys of `btree` cached, too. Before transactions run.
    pub(super) fn serve(&self, btree: BtreeId) {
        let bit = 1 << (btree.0 & 63);
        self.btrees.store(self.btrees.read() | bit, Relaxed);
    }

    /// Lets keys come in, or not any more.
    pub(super) fn fill(&self, on: bool) {
        self.filling.store(u32::from(on), Relaxed);
    }

    fn is_filling(&self) -> bool {
        self.filling.read() != 0
    }

    /// The key, if it is here. It may leave before it can be locked.
    #[inline]
    fn get(&self, btree: BtreeId, pos: Bpos) -> Option<Arc<CachedKey>> {
        if self.nr.read() == 0 {
            return None;
        }
        let key = self.table.get(hash(btree, pos))?;
        key.shared().is(btree, pos).then_some(key)
    }

    fn counter(&self, hash: u64) -> Option<&Atomic<u32>> {
        self.came.get(hash as usize & (COUNTERS - 1))
    }

    fn same_counter(a: Bare, b: Bare) -> bool {
        (a.hash ^ b.hash) as usize & (COUNTERS - 1) == 0
    }

    /// To be called before the look that finds that a key is not here.
    fn bare(&self, btree: BtreeId, pos: Bpos) -> Bare {
        let hash = hash(btree, pos);
        let count = self.counter(hash).map_or(0, |c| c.read_acquire());
        Bare { hash, count }
    }

    /// Whether the key has not come in since.
    fn still(&self, bare: Bare) -> bool {
        self.counter(bare.hash).is_some_and(|c| c.read_acquire() == bare.count)
    }

    /// Puts a key into the cache, unless it, or one with the same hash, is there. The leaf must be locked. The counter as it was
    /// before. Allocates with `flags`.
    fn insert(&self, key: &Arc<CachedKey>, flags: Flags) -> Result<Option<Bare>> {
        let hash = key.shared().hash;
        // In this order: who has the counter as it is afterwards finds the key.
        self.nr.fetch_add(1usize, Full);
        let inserted = self.table.insert_with(hash, key.clone(), flags);
        if inserted.is_err() {
            self.nr.fetch_sub(1usize, Full);
        }
        match inserted {
            Ok(()) => {}
            Err(InsertError::Exists(_)) => return Ok(None),
            Err(InsertError::Failed(e)) => return Err(e.into()),
        }
        let count = self.counter(hash).map_or(0, |c| c.fetch_add(1u32, Full));
        self.filled.add(1u64, Relaxed);
        Ok(Some(Bare { hash, count }))
    }

    /// Takes a key out, which is locked for write, or about to be freed.
    fn remove(&self, key: &CachedKey) {
        let head = key.shared();
        head.kill();
        if self.table.remove(head.hash, key) {
            self.nr.fetch_sub(1usize, Full);
        }
    }

    /// The key, locked for write, has become dirty; whether it was clean.
    fn dirtied(&self, head: &KeyHead) {
        if !head.set_dirty(true) {
            self.dirty.add(1usize, Relaxed);
        }
    }

    /// The key, locked for intent, is not dirty any more. Whether it was.
    fn cleaned(&self, head: &KeyHead) -> bool {
        let was = head.set_dirty(false);
        if was {
            self.dirty.add(usize::MAX, Relaxed);
        }
        was
    }

    fn limits(&self) -> Limits {
        Limits::of(self.nr_keys())
    }

    /// Keys in the cache.
    pub(super) fn nr_keys(&self) -> usize {
        self.nr.read()
    }

    /// Those that their leaves do not have as they are here.
    pub(super) fn nr_dirty(&self) -> usize {
        self.dirty.read()
    }

    /// Calls `f` with every key. Nobody uses the cache meanwhile.
    #[cfg(bcachefs_kunit)]
    pub(super) fn for_each(
        &self,
        mut f: impl FnMut(&KeyHead, bcachefs_format::KeyRef<'_>) -> Result,
    ) -> Result {
        for (_, key) in self.table.walk(usize::MAX)? {
            let owned = key.try_exclusive();
            let owned = owned.map_err(|_| crate::util::error::Error::BtreeTopology)?;
            f(key.shared(), owned.get())?;
        }
        Ok(())
    }

    /// Empties the cache; nobody uses it any more. What is dirty is lost. Calls `f` with every key. Sleeps.
    pub(super) fn clear(&self, f: impl Fn(&KeyHead)) {
        self.fill(false);
        // A walk may miss some while it removes others.
        for _ in 0..64 {
            let Ok(walk) = self.table.walk(usize::MAX) else {
                break;
            };
            for (_, key) in walk {
                f(key.shared());
                self.cleaned(key.shared());
                self.remove(&key);
            }
            if self.table.is_empty() {
                break;
            }
        }
    }
}

impl fmt::Display for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits { soft, hard, resume } = self.limits();
        writeln!(f, "cached keys: {}", self.nr_keys())?;
        writeln!(f, "dirty: {}", self.nr_dirty())?;
        writeln!(f, "limits: written out above {soft}, waited for from {hard} down to {resume}")?;
        let counts = [
            ("come in", &self.filled),
            ("evicted", &self.evicted),
            ("changed in the btree", &self.dropped),
            ("written out", &self.written),
            ("pins moved on", &self.moved),
            ("waits", &self.waits),
        ];
        for (name, count) in counts {
            writeln!(f, "{name}: {}", count.load(Relaxed))?;
        }
        Ok(())
    }
}
