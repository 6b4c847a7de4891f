// SPDX-License-Identifier: GPL-2.0
//! The btrees: nodes, their cache, transactions, paths and iterators.
//!
//! One [`Btree`] serves all trees of a filesystem. Access is by transactions ([`Btree::run`]) whose iterators yield keys
//! borrowed from locked nodes. Keys of the journal that nodes on disk lack are laid over them at every level.
//!
//! | part | what |
//! |---|---|
//! | [`node`] | keys of a node in memory: loading, searching, walking |
//! | [`cache`] | nodes in memory, and taking them out |
//! | [`fill`], [`source`] | bringing nodes into memory, from whatever copy is good |
//! | [`write`] | bringing changes of nodes to the devices |
//! | `key_cache` | keys that change often, apart from their leaves |
//! | `write_buffer` | keys that are journalled now and put into nodes later |
//! | [`trans`] | attempts, restarts, buffers |
//! | `path` | ways from roots to positions |
//! | [`iter`] | keys and slots, forwards and backwards, as a snapshot sees them |

pub mod cache;
pub mod engine;
pub mod fill;
mod interior;
pub mod iter;
mod key_cache;
pub mod node;
mod path;
mod report;
mod roots;
pub mod show;
pub mod source;
pub mod space;
#[cfg(bcachefs_kunit)]
pub(crate) mod tests;
pub mod trans;
pub mod triggers;
pub mod write;
mod write_buffer;

pub use fill::Geometry;
pub use iter::{Iter, IterFlags};
pub use trans::{Attempt, Restart, TransError};

use crate::{
    journal::{overlay::Overlay, JournalKeys, StartState},
    sb::Devices,
    util::{
        counters::Counters,
        error::Result,
    },
};
use bcachefs_format::{
    btree_node::BTREE_MAX_DEPTH, checksum::CsumType, version::Version, Bkey, BtreeId, KeyType,
};
use cache::Cache;
use engine::Engine;
use fill::Fill;
use interior::Interior;
use key_cache::KeyCache;
use write_buffer::WriteBuffer;
use kernel::{
    c_str,
    prelude::*,
    str::CString,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed},
        Arc, SetOnce,
    },
};
use kfs::{
    mem::{Shrinker, Tuning},
    sync::Srcu,
};
use roots::Roots;
use source::{DeviceSource, NodeSource};
use trans::{buffer::Buffers, Inject};
use write::Writer;

/// Which snapshot sees the keys of which.
pub trait Ancestry: Send + Sync {
    /// Whether a key in snapshot `ancestor` is seen from snapshot `id`, unless something nearer hides it: whether they are
    /// the same, or `ancestor` is above `id`. Does not sleep.
    fn is_ancestor(&self, id: u32, ancestor: u32) -> bool;

    /// Whether snapshot `id` has children. Does not sleep.
    fn is_internal(&self, id: u32) -> bool;
}

/// What the btrees need to know of the filesystem.
pub struct Config {
    /// Sectors of a node.
    pub node_sectors: u32,
    /// Sectors of a block.
    pub block_sectors: u16,
    /// What headers of nodes start with.
    pub magic: u64,
    /// Version of the filesystem.
    pub version: u16,
    /// Oldest version of metadata on disk.
    pub version_min: u16,
    /// Type of the checksums of nodes that are written.
    pub metadata_csum: CsumType,
    /// What messages call the filesystem.
    pub name: CString,
}

/// All btrees of a filesystem.
pub struct Btree {
    fill: Arc<Fill>,
    roots: Roots,
    keys: JournalKeys,
    /// For each btree, the levels at which the journal has keys.
    overlaid: [u8; 64],
    /// The journal has been replayed: nodes have it all.
    replayed: Atomic<u32>,
    /// A bit for each btree on which the journal's keys are not laid any more.
    uncovered: Atomic<u64>,
    ancestry: SetOnce<Arc<dyn Ancestry>>,
    engine: SetOnce<Engine>,
    writer: SetOnce<Arc<Writer>>,
    /// What nodes are written to.
    devices: Option<Arc<Devices>>,
    interior: Pin<KBox<Interior>>,
    write_buffer: Pin<KBox<WriteBuffer>>,
    key_cache: Arc<KeyCache>,
    counters: Arc<Counters>,
    buffers: Arc<Buffers>,
    /// Held by every transaction; for what must outlive those that may still look at it.
    barrier: Pin<KBox<Srcu>>,
    inject: Inject,
    checks: Atomic<u32>,
    shut_down: Atomic<u32>,
    /// What stands for the journal, and the rest of the engine, in tests.
    #[cfg(bcachefs_kunit)]
    memory: SetOnce<tests::memory::Memory>,
    _shrinker: Shrinker<Cache>,
    _key_shrinker: Shrinker<KeyCache>,
}

impl Btree {
    /// The btrees on `devices`, starting from what the journal says, whose keys are taken. Reads no nodes yet. May sleep.
    #[inline(never)]
    pub fn new(
        config: Config,
        devices: Arc<Devices>,
        start: &mut StartState,
        counters: Arc<Counters>,
    ) -> Result<Arc<Self>> {
        let node_bytes = config.node_sectors as usize * 512;
        let source: KBox<dyn NodeSource> =
            KBox::new(DeviceSource::new(devices.clone(), node_bytes)?, GFP_KERNEL)?;
        Self::with(config, source, Some(devices), start, counters)
    }

    /// The same over any source of nodes.
    pub fn with_source(
        config: Config,
        source: KBox<dyn NodeSource>,
        start: &mut StartState,
        counters: Arc<Counters>,
    ) -> Result<Arc<Self>> {
        Self::with(config, source, None, start, counters)
    }

    #[inline(never)]
    fn with(
        config: Config,
        source: KBox<dyn NodeSource>,
        devices: Option<Arc<Devices>>,
        start: &mut StartState,
        counters: Arc<Counters>,
    ) -> Result<Arc<Self>> {
        let cache = Cache::new()?;
        let roots = Roots::new(start)?;
        cache.set_reserve(roots.reserve());
        let mut overlaid = [0; 64];
        for (id, levels) in overlaid.iter_mut().enumerate() {
            for level in 0..BTREE_MAX_DEPTH {
                if !start.keys.keys(BtreeId(id as u8), level).is_empty() {
                    *levels |= 1 << level;
                }
            }
        }
        let geometry = Geometry {
            node_sectors: config.node_sectors,
            block_sectors: config.block_sectors,
            magic: config.magic,
            version: Version(config.version),
            version_min: Version(config.version_min),
            metadata_csum: config.metadata_csum,
        };
        let shrinker = Shrinker::register(
            c_str!("bcachefs-btree_cache"),
            Tuning {
                seeks: 2,
                ..Tuning::default()
            },
            cache.clone(),
        )?;
        let key_cache = KeyCache::new()?;
        let key_shrinker = Shrinker::register(
            c_str!("bcachefs-key_cache"),
            key_cache::TUNING,
            key_cache.clone(),
        )?;
        let fill = Fill::new(
            cache,
            geometry,
            source,
            start.take_blacklist(),
            counters.clone(),
            config.name,
        )?;
        let buffers = Buffers::new()?;
        let (interior, write_buffer) = (Interior::new()?, WriteBuffer::new()?);
        let barrier = KBox::pin_init(Srcu::new(), GFP_KERNEL)?;
        let keys = start.take_keys();
        Ok(Arc::init(
            init!(Self {
                fill,
                roots,
                keys,
                overlaid,
                replayed: Atomic::new(0),
                uncovered: Atomic::new(0),
                ancestry: SetOnce::new(),
                engine: SetOnce::new(),
                writer: SetOnce::new(),
                devices,
                interior,
                write_buffer,
                key_cache,
                counters,
                buffers,
                barrier,
                inject: Inject::off(),
                checks: Atomic::new(0),
                shut_down: Atomic::new(0),
                #[cfg(bcachefs_kunit)]
                memory: SetOnce::new(),
                _shrinker: shrinker,
                _key_shrinker: key_shrinker,
            }),
            GFP_KERNEL,
        )?)
    }

    /// Says how snapshots are related; once, before trees with snapshots are looked at from one.
    pub fn set_ancestry(&self, ancestry: Arc<dyn Ancestry>) {
        self.ancestry.populate(ancestry);
    }

    /// Whether keys of `ancestor` are seen from `id`. Without a table nothing but a snapshot's own.
    #[inline]
    fn sees(&self, id: u32, ancestor: u32) -> bool {
        id == ancestor
            || self
                .ancestry
                .as_ref()
                .is_some_and(|a| a.is_ancestor(id, ancestor))
    }

    /// The keys of the journal for one level of a btree, if there are any.
    #[inline]
    fn overlay(&self, btree: BtreeId, level: u8) -> Option<Overlay<'_>> {
        let levels = self.overlaid.get(usize::from(btree.0))?;
        if levels & (1 << (level & 7)) == 0
            || self.replayed.load(Relaxed) != 0
            || self.uncovered.load(Relaxed) & 1 << (btree.0 & 63) != 0
        {
            return None;
        }
        Some(self.keys.keys(btree, level))
    }

    /// Notes that a node has been changed at `pos`: what the journal had there is old. The node must be locked for write.
    #[inline]
    fn overlay_written(&self, btree: BtreeId, level: u8, key: &Bkey) {
        if key.key_type != KeyType::ACCOUNTING && self.overlay(btree, level).is_some() {
            self.keys.overwritten(btree, level, key.pos);
        }
    }

    /// Makes transactions restart, on average one in `one_in` times that they could; 0 turns it off.
    pub fn inject_restarts(&self, seed: u64, one_in: u32) {
        self.inject.set(seed, one_in);
    }

    /// Turns checks on that cost time: whether transactions nest.
    pub fn set_checks(&self, on: u32) {
        self.checks.store(on, Relaxed);
    }

    #[inline]
    fn checks(&self) -> bool {
        self.checks.load(Relaxed) != 0
    }

    #[inline]
    fn is_shut_down(&self) -> bool {
        self.shut_down.load(Acquire) != 0
    }

    /// Reads the roots of all btrees, so that lost ones are known from the start. The first error; the rest is read anyway.
    pub fn read_roots(&self) -> Result {
        let mut result = Ok(());
        for id in 0..=BtreeId::MAX.0 {
            let read = self.run(|t| {
                let mut iter = t.iter(BtreeId(id), bcachefs_format::Bpos::POS_MIN, IterFlags::NONE);
                iter.read_root(t)
            });
            if let Err(e) = read {
                self.fill
                    .report(format_args!("btree {}: root: {e}", BtreeId(id)));
                result = result.and(Err(e));
            }
        }
        result
    }

    /// At unmount, when no transaction runs any more and none will: waits for reads and writes, and lets go of all nodes. What is
    /// dirty is lost, see [`Btree::flush_nodes`].
    pub fn shutdown(&self) {
        if self.shut_down.xchg(1, Full) != 0 {
            return;
        }
        self.interior.stop();
        self.write_buffer.stop();
        if let Some(writer) = self.writer.as_ref() {
            writer.shut_down();
        }
        self.fill.wait_idle();
        self.clear_key_cache();
        self.roots.clear();
        let left = self.fill.cache.clear();
        if left != 0 {
            self.fill
                .report(format_args!("{left} btree nodes still in use at unmount"));
        }
    }

    /// The level of the root of `btree`; 0 for an empty tree, and one whose root is lost.
    pub fn root_level(&self, btree: BtreeId) -> u8 {
        self.roots.level(btree)
    }

    /// Whether `btree` has a root that is recorded as lost, or makes no sense.
    pub fn root_is_lost(&self, btree: BtreeId) -> bool {
        btree.0 <= BtreeId::MAX.0 && self.roots.is_lost(btree)
    }

    /// Has readers of `btree` see nodes only, without the journal: for replay of increments, which has to know what nodes have.
    pub fn uncover(&self, btree: BtreeId) {
        self.uncovered
            .store(self.uncovered.load(Relaxed) | 1 << (btree.0 & 63), Relaxed);
    }

    /// Says that nodes have everything the journal had: it is not looked at any more.
    pub fn journal_replayed(&self) {
        self.replayed.store(1, Relaxed);
    }

    /// Has the keys of `btree` cached one by one, too. Before transactions run.
    pub fn cache_keys_of(&self, btree: BtreeId) {
        self.key_cache.serve(btree);
    }

    /// Lets keys come into the key cache from now on. The journal has been replayed, and changes are allowed.
    pub fn start_caching_keys(&self) {
        self.key_cache.fill(true);
    }

    /// Empties the key cache. What is dirty there remains in the journal.
    fn clear_key_cache(&self) {
        let journal = self.engine.as_ref().map(|e| &e.journal);
        self.key_cache.clear(|head| {
            if let Some(journal) = journal {
                journal.unpin(&head.pin);
            }
        });
    }

    /// The keys of the journal that are laid over the nodes.
    pub fn journal_keys(&self) -> &JournalKeys {
        &self.keys
    }

    /// The cache of nodes.
    pub fn cache(&self) -> &Cache {
        &self.fill.cache
    }
}

impl Drop for Btree {
    fn drop(&mut self) {
        self.shutdown();
    }
}

