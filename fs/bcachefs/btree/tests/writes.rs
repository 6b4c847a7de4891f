// SPDX-License-Identifier: GPL-2.0
//! Writes of nodes to devices in memory.

use super::{
    check,
    image::{Draw, Image, Key, MAGIC},
    NoRules,
};
use crate::{
    btree::{
        node::{load, shape, Flag, Node, NodeData, NodeExclusive, NodeHead, PtrKey},
        source::CopyError,
        write::{
            sink::{NodeSink, WriteDone},
            Around, NodePins, NotWritten, WriteWhy,
        },
        Btree,
    },
    journal::{
        engine::{Pin, PinFlush, PinFlusher},
        JournalKeys,
    },
    util::{
        checksum::Checksums,
        error::{Error, Result},
    },
};
use bcachefs_format::{
    btree_node::{NodeWant, SECTOR_U64S},
    keys::{btree_ptr::BtreePtr, extent::Ptr},
    version::Version,
    Bkey, Bpos, BtreeId, KeyRef, KeyType,
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Release},
        Arc, Mutex,
    },
};
use kfs::{block::SharedBuf, sync::six::SixLock};

/// A write that somebody wants.
struct Arrived {
    dev: u8,
    at: u32,
    words: KVVec<u64>,
    done: Option<WriteDone>,
}

/// What has happened around the writes.
#[derive(Default)]
struct Log {
    pinned: KVec<(usize, u64)>,
    unpinned: KVec<usize>,
    written: KVec<(u32, u64)>,
    new: KVec<u64>,
    halted: KVec<Error>,
}

/// Two devices and a journal.
#[pin_data]
struct World {
    #[pin]
    arrived: Mutex<KVec<Arrived>>,
    #[pin]
    log: Mutex<Log>,
    /// Devices whose writes fail, as a mask.
    broken: Atomic<u32>,
    /// Writes do not end before `release`.
    hold: Atomic<u32>,
    journal_failed: Atomic<u32>,
    pointer_fails: Atomic<u32>,
}

impl World {
    fn new() -> Result<Arc<Self>> {
        Ok(Arc::pin_init(
            pin_init!(World {
                arrived <- new_mutex!(KVec::new()),
                log <- new_mutex!(Log::default()),
                broken: Atomic::new(0),
                hold: Atomic::new(0),
                journal_failed: Atomic::new(0),
                pointer_fails: Atomic::new(0),
            }),
            GFP_KERNEL,
        )?)
    }

    fn end(&self, dev: u8, done: WriteDone) {
        let bad = self.broken.load(Acquire) & 1 << dev != 0;
        done.end(if bad { Err(CopyError::DeviceMissing) } else { Ok(()) });
    }

    /// Lets the writes that are held back end.
    fn release(&self) {
        let mut ended = KVec::new();
        for a in self.arrived.lock().iter_mut() {
            if let Some(done) = a.done.take() {
                let _ = ended.push((a.dev, done), GFP_KERNEL);
            }
        }
        for (dev, done) in ended {
            self.end(dev, done);
        }
    }

    fn nr_arrived(&self) -> usize {
        self.arrived.lock().len()
    }
}

struct Sink(Arc<World>);

impl NodeSink for Sink {
    fn write(&self, ptr: Ptr, at: u32, buf: SharedBuf, bytes: usize, done: WriteDone) {
        let mut words = KVVec::new();
        let copied = words.extend_from_slice(buf.as_words().get(..bytes / 8).unwrap_or(&[]), GFP_KERNEL);
        let hold = self.0.hold.load(Acquire) != 0;
        let (kept, now) = if hold { (Some(done), None) } else { (None, Some(done)) };
        let arrived = Arrived { dev: ptr.dev(), at, words, done: kept };
        // A write that is not recorded is one that failed.
        if copied.is_ok() && self.0.arrived.lock().push(arrived, GFP_KERNEL).is_ok() {
            if let Some(done) = now {
                self.0.end(ptr.dev(), done);
            }
        }
    }

    fn wait_idle(&self) {}
}

fn address(pin: &Arc<Pin>) -> usize {
    Arc::as_ptr(pin) as usize
}

struct Neighbours(Arc<World>);

impl Around for Neighbours {
    fn pin(&self, pin: &Arc<Pin>, seq: u64) {
        let _ = self.0.log.lock().pinned.push((address(pin), seq), GFP_KERNEL);
    }

    fn unpin(&self, pin: &Arc<Pin>) {
        let _ = self.0.log.lock().unpinned.push(address(pin), GFP_KERNEL);
    }

    fn failed(&self) -> bool {
        self.0.journal_failed.load(Acquire) != 0
    }

    fn halt(&self, error: Error) {
        let _ = self.0.log.lock().halted.push(error, GFP_KERNEL);
        self.0.journal_failed.store(1, Release);
    }

    fn written(&self, _: &Btree, _: &Arc<Node>, sectors: u32, failed: &[u8]) -> Result {
        let mask = failed.iter().fold(0, |m, d| m | 1u64 << d);
        let _ = self.0.log.lock().written.push((sectors, mask), GFP_KERNEL);
        match self.0.pointer_fails.load(Acquire) {
            0 => Ok(()),
            _ => Err(Error::JournalFailed),
        }
    }

    fn new_written(&self, _: &Btree, _: &Arc<Node>, failed: &[u8]) {
        let mask = failed.iter().fold(0, |m, d| m | 1u64 << d);
        let _ = self.0.log.lock().new.push(mask, GFP_KERNEL);
    }
}

/// A mounted tree of one leaf with a few keys.
struct Bench {
    btree: Arc<Btree>,
    world: Arc<World>,
    node: Arc<Node>,
    pins: NodePins,
    keys: KVec<Key>,
    /// The node's bytes on a device.
    disk: KVVec<u64>,
}

impl Bench {
    fn new() -> Result<Self> {
        let mut keys = KVec::new();
        for i in 1..6 {
            keys.push(Key::new(Bpos::new(0, i * 10), i), GFP_KERNEL)?;
        }
        let mut image = Image::new();
        let root = image.tree(BtreeId::LRU, &keys)?;
        let mut disk = KVVec::new();
        disk.extend_from_slice(image.words(0).ok_or(Error::NoMem)?, GFP_KERNEL)?;
        let btree = image.mount(BtreeId::LRU, root, JournalKeys::empty())?;
        btree.read_roots()?;
        let world = World::new()?;
        let pins = btree.start_node_writes(
            KBox::new(Sink(world.clone()), GFP_KERNEL)?,
            KBox::new(Neighbours(world.clone()), GFP_KERNEL)?,
        )?;
        let node = btree.cache().nth(0).ok_or(Error::BtreeTopology)?;
        Ok(Bench { btree, world, node, pins, keys, disk })
    }

    fn lock(&self) -> Result<NodeExclusive> {
        // A queue may have it for read.
        for _ in 0..1 << 24 {
            if let Ok(locked) = self.node.try_exclusive() {
                return Ok(locked);
            }
            core::hint::spin_loop();
        }
        Err(Error::BtreeTopology)
    }

    /// Adds a key in journal entry `seq`.
    fn add(&mut self, offset: u64, seq: u64) -> Result {
        let key = Key::new(Bpos::new(0, offset), seq);
        self.btree.provide(&self.node)?;
        let mut data = self.lock()?;
        self.btree.prepare(&self.node, &mut data, GFP_KERNEL).map_err(|_| Error::NoMem)?;
        check!(data.insert(key.as_ref(), seq).is_ok_and(|c| c.changed()));
        self.btree.dirtied(self.node.shared(), Some(seq));
        let at = self.keys.partition_point(|k| k.pos < key.pos);
        self.keys.reserve(1, GFP_KERNEL)?;
        let _ = self.keys.insert_within_capacity(at, key);
        Ok(())
    }

    fn start(&self, why: WriteWhy) -> Result<core::result::Result<(), NotWritten>> {
        let data = self.lock()?;
        Ok(self.btree.write_node(&self.node, &data, why, None))
    }

    /// What device `dev` holds after all writes that have arrived.
    fn on_disk(&mut self, dev: u8) -> Result<KVec<Key>> {
        let mut end = 0;
        for a in self.world.arrived.lock().iter().filter(|a| a.dev == dev) {
            let start = a.at as usize * SECTOR_U64S;
            let to = self.disk.get_mut(start..start + a.words.len());
            to.ok_or(Error::BtreeNodeInvalid)?.copy_from_slice(&a.words);
            end = a.at + (a.words.len() / SECTOR_U64S) as u32;
        }
        let ptr = self.node.shared().ptr();
        let p = BtreePtr::parse(ptr.get())?;
        let want = NodeWant {
            magic: MAGIC,
            btree: BtreeId::LRU,
            level: 0,
            min_key: p.min_key,
            max_key: p.max_key,
            seq: p.seq,
            sectors_written: end as u16,
            range_updated: false,
            sb_version: Version::CURRENT,
            version_min: Version::CURRENT,
            block_sectors: 1,
        };
        let mut node = KBox::init(NodeData::empty(), GFP_KERNEL)?;
        load(&self.disk, &want, &Checksums, &NoRules, GFP_KERNEL, &mut node)
            .map_err(|_| Error::BtreeNodeInvalid)?;
        let mut keys = KVec::new();
        for k in node.iter() {
            keys.push(Key::of(k), GFP_KERNEL)?;
        }
        Ok(keys)
    }

    fn same_on_disk(&mut self, dev: u8) -> Result<bool> {
        let keys = self.on_disk(dev)?;
        Ok(keys.as_slice() == self.keys.as_slice())
    }

    fn has(&self, flag: Flag) -> bool {
        self.node.shared().has(flag)
    }

    fn pin(&self, slot: usize) -> usize {
        let pins = self.node.shared().pins();
        pins.and_then(|p| p.get(slot)).map_or(0, address)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.world.hold.store(0, Release);
        self.world.release();
        self.btree.shutdown();
    }
}

/// Both copies, the pointer, the pin: in this order, and what was written is what is read.
pub(super) fn reach_all_copies() -> Result {
    let mut b = Bench::new()?;
    check!(b.start(WriteWhy::Dirty)? == Err(NotWritten::Clean));
    let mut draw = Draw(31);
    // As often as the node has room for.
    for round in 0..4 {
        for i in 0..1 + draw.below(3) {
            b.add(1000 * round + 100 * i + draw.below(100), 50 + round)?;
        }
        check!(b.has(Flag::DIRTY) && b.btree.dirty_nodes() == 1);
        check!(b.start(WriteWhy::Needed)? == Err(NotWritten::NotNeeded));
        let before = b.lock()?.sectors_written();
        match round % 3 {
            0 => check!(b.btree.flush_nodes()?),
            1 => b.btree.write_later(&b.node),
            _ => {
                // By the oldest journal entry, not by one that is older.
                let cookie = b.node.shared().hash;
                check!(b.pins.flush(cookie, 50 + round) == PinFlush::Done);
                check!(b.pins.flush(!cookie, 50 + round) == PinFlush::Done);
            }
        }
        b.btree.wait_node_writes();
        check!(!b.has(Flag::DIRTY) && !b.has(Flag::WRITE_IN_FLIGHT) && !b.has(Flag::NEED_WRITE));
        check!(b.btree.dirty_nodes() == 0);
        let after = b.lock()?.sectors_written();
        check!(after > before);
        check!(b.world.nr_arrived() == 2 * (round as usize + 1));
        check!(b.same_on_disk(0)? && b.same_on_disk(1)?);
        let log = b.world.log.lock();
        check!(log.written.last() == Some(&(after, 0)) && log.halted.is_empty());
        // The pin that was taken is the one that was given back, and they take turns.
        let slot = round as usize % 2;
        check!(log.pinned.last() == Some(&(b.pin(slot), 50 + round)));
        check!(log.unpinned.last() == Some(&b.pin(slot)) && log.unpinned.len() == round as usize + 1);
    }
    check!(!b.btree.flush_nodes()?);
    Ok(())
}

/// What changes during a write goes into the next one, which starts when it is wanted and the first has ended.
pub(super) fn follow_each_other() -> Result {
    let mut b = Bench::new()?;
    b.world.hold.store(1, Release);
    b.add(1, 100)?;
    check!(b.start(WriteWhy::Dirty)?.is_ok());
    check!(b.has(Flag::WRITE_IN_FLIGHT_INNER) && !b.has(Flag::DIRTY));
    b.add(2, 101)?;
    check!(b.has(Flag::DIRTY));
    check!(b.start(WriteWhy::Dirty)? == Err(NotWritten::InFlight));
    // Somebody wants it, for the entry that the change during the write pins.
    check!(b.pins.flush(b.node.shared().hash, 101) == PinFlush::Done);
    while b.world.nr_arrived() < 2 {
        core::hint::spin_loop();
    }
    check!(b.world.log.lock().unpinned.is_empty());
    b.world.hold.store(0, Release);
    b.world.release();
    // The end of the first starts the second.
    while b.world.nr_arrived() < 4 {
        core::hint::spin_loop();
    }
    b.btree.wait_node_writes();
    check!(!b.has(Flag::DIRTY) && !b.has(Flag::NEED_WRITE) && !b.has(Flag::WRITE_IN_FLIGHT));
    check!(b.same_on_disk(0)? && b.same_on_disk(1)?);
    let (first, second) = (b.pin(0), b.pin(1));
    let log = b.world.log.lock();
    check!(log.pinned.as_slice() == [(first, 100), (second, 101)]);
    check!(log.unpinned.as_slice() == [first, second]);
    check!(log.written.len() == 2);
    Ok(())
}

/// Flags that forbid it, and that it happens when they are gone.
pub(super) fn wait_for_permission() -> Result {
    let mut b = Bench::new()?;
    for (flag, why) in [
        (Flag::WRITE_BLOCKED, NotWritten::Blocked),
        (Flag::WILL_MAKE_REACHABLE, NotWritten::NotReachable),
    ] {
        let arrived = b.world.nr_arrived();
        let head = b.node.shared();
        head.set(flag);
        b.add(arrived as u64 + 1, 100)?;
        check!(b.start(WriteWhy::Dirty)? == Err(why));
        b.btree.write_later(&b.node);
        b.btree.wait_node_writes();
        check!(!b.btree.flush_nodes()?);
        check!(b.has(Flag::DIRTY) && b.has(Flag::NEED_WRITE) && b.world.nr_arrived() == arrived);
        b.btree.write_if_needed(&b.node);
        b.btree.wait_node_writes();
        check!(b.world.nr_arrived() == arrived);
        b.node.shared().clear(flag);
        b.btree.write_if_needed(&b.node);
        b.btree.wait_node_writes();
        check!(!b.has(Flag::DIRTY) && b.world.nr_arrived() == arrived + 2);
    }
    check!(b.same_on_disk(0)?);
    Ok(())
}

/// A node that is not reachable yet is written once, whole, before it is.
pub(super) fn make_new_nodes() -> Result {
    let b = Bench::new()?;
    let shape = b.btree.shape();
    let (min, max) = (Bpos::POS_MIN, Bpos::SPOS_MAX);
    let key = Key::new(Bpos::new(0, 5), 9);
    let mut data = KBox::init(NodeData::empty(), GFP_KERNEL)?;
    let mut mem = Some(b.btree.node_memory(GFP_KERNEL)?);
    check!(shape::blank(min, max, shape, &mut mem, &mut data));
    check!(data.insert(key.as_ref(), 0).is_ok());
    data.set_identity(0x99, 0, 0);
    let sectors = data.first_write_sectors();
    let mut value = [0; 9];
    let n = BtreePtr::new(0x99, sectors as u16, min, max)
        .build(&[Ptr::new(0, 7, 0), Ptr::new(1, 8, 0)], &mut value)
        .map_err(|_| Error::BtreeNodeInvalid)?;
    let value = value.get(..n).unwrap_or(&[]);
    let header = Bkey {
        u64s: 5 + n as u8,
        key_type: KeyType::BTREE_PTR_V2,
        ..Bkey::deleted(max)
    };
    let ptr = PtrKey::new(KeyRef { key: header, value }).ok_or(Error::BtreeNodeInvalid)?;
    let flags = [
        Flag::READ_DONE,
        Flag::DIRTY,
        Flag::NEED_WRITE,
        Flag::WILL_MAKE_REACHABLE,
    ];
    let head = NodeHead::new(BtreeId::LRU, 0, 0x99, &ptr, &flags);
    let mut node = SixLock::new_exclusive(NodeData::empty(), head, GFP_KERNEL)?;
    core::mem::swap(&mut *node, &mut data);
    let lock = node.lock().clone();
    let mem = b.btree.write_memory()?;
    check!(b.btree.write_node(&lock, &node, WriteWhy::Needed, Some(mem)).is_ok());
    check!(node.sectors_written() == sectors);
    b.btree.wait_node_io(&lock);
    b.btree.wait_node_writes();
    check!(b.world.nr_arrived() == 2 && b.world.log.lock().new.as_slice() == [0]);
    check!(b.world.log.lock().written.is_empty());
    // What is added has to wait.
    b.btree.provide(&lock)?;
    b.btree.prepare(&lock, &mut node, GFP_KERNEL).map_err(|_| Error::NoMem)?;
    check!(node.insert(Key::new(Bpos::new(0, 6), 1).as_ref(), 33).is_ok());
    b.btree.dirtied(lock.shared(), Some(33));
    let again = b.btree.write_node(&lock, &node, WriteWhy::Dirty, None);
    check!(again == Err(NotWritten::NotReachable));
    lock.shared().clear(Flag::WILL_MAKE_REACHABLE);
    check!(b.btree.write_node(&lock, &node, WriteWhy::Dirty, None).is_ok());
    drop(node);
    b.btree.wait_node_writes();
    check!(b.world.nr_arrived() == 4);
    let arrived = b.world.arrived.lock();
    check!(arrived.iter().all(|a| a.at == 0 || a.at == sectors));
    let last = b.world.log.lock().written.last().map(|w| w.0);
    check!(last.is_some_and(|w| w > sectors));
    Ok(())
}

/// Devices, the pointer, and the keys.
pub(super) fn fail() -> Result {
    // One copy is lost.
    let mut b = Bench::new()?;
    b.world.broken.store(2, Release);
    b.add(1, 100)?;
    check!(b.start(WriteWhy::Dirty)?.is_ok());
    b.btree.wait_node_writes();
    check!(b.world.log.lock().written.last().is_some_and(|(_, failed)| *failed == 2));
    check!(b.world.log.lock().unpinned.len() == 1 && !b.has(Flag::NEVER_WRITE));
    check!(b.same_on_disk(0)?);
    // Then the other one, too.
    b.world.broken.store(3, Release);
    b.add(2, 101)?;
    check!(b.start(WriteWhy::Dirty)?.is_ok());
    b.btree.wait_node_writes();
    check!(b.world.log.lock().halted.as_slice() == [Error::BtreeNodeWrite]);
    // The journal goes on keeping it, and nobody writes it again.
    check!(b.world.log.lock().unpinned.len() == 1 && b.world.log.lock().written.len() == 1);
    check!(b.has(Flag::NEVER_WRITE) && b.has(Flag::NOEVICT) && !b.has(Flag::WRITE_IN_FLIGHT));
    b.add(3, 102)?;
    check!(b.start(WriteWhy::Dirty)? == Err(NotWritten::Never));
    drop(b);

    // The pointer cannot be changed.
    let mut b = Bench::new()?;
    b.world.pointer_fails.store(1, Release);
    b.add(1, 100)?;
    check!(b.start(WriteWhy::Dirty)?.is_ok());
    b.btree.wait_node_writes();
    check!(b.world.log.lock().halted.as_slice() == [Error::JournalFailed]);
    check!(b.world.log.lock().unpinned.is_empty() && b.has(Flag::NEVER_WRITE));
    drop(b);

    // A key that must not be written: it has a size.
    let mut b = Bench::new()?;
    b.add(1, 100)?;
    {
        let mut data = b.lock()?;
        let key = Bkey { size: 8, ..Key::new(Bpos::new(0, 77), 0).as_ref().key };
        check!(data.insert(KeyRef { key, value: &[1] }, 101).is_ok());
    }
    check!(b.start(WriteWhy::Dirty)? == Err(NotWritten::Never));
    b.btree.wait_node_writes();
    check!(b.world.nr_arrived() == 0 && b.world.log.lock().unpinned.is_empty());
    check!(b.world.log.lock().halted.as_slice() == [Error::BtreeKeyInvalid]);
    check!(b.has(Flag::DIRTY) && b.has(Flag::NEVER_WRITE) && b.has(Flag::NOEVICT));
    check!(!b.has(Flag::WRITE_IN_FLIGHT));
    Ok(())
}

/// Once the journal has failed nothing reaches the devices.
pub(super) fn end_with_the_journal() -> Result {
    let mut b = Bench::new()?;
    b.add(1, 100)?;
    b.world.journal_failed.store(1, Release);
    check!(b.btree.flush_nodes()?);
    check!(b.world.nr_arrived() == 0 && b.has(Flag::NOEVICT));
    check!(!b.has(Flag::DIRTY) && !b.has(Flag::WRITE_IN_FLIGHT));
    let log = b.world.log.lock();
    check!(log.written.is_empty() && log.unpinned.is_empty() && log.new.is_empty());
    Ok(())
}

/// They are not evicted, but eviction has them written when little else is left, and then they can go.
pub(super) fn dirty_nodes_stay() -> Result {
    use crate::btree::cache::NotFreed;
    let mut b = Bench::new()?;
    // Not as a root.
    b.node.shared().clear(Flag::NOEVICT);
    b.world.hold.store(1, Release);
    b.add(1, 100)?;
    let cache = b.btree.cache();
    check!(cache.cannibalise(1) == 0 && cache.nr_nodes() == 1);
    check!(cache.stats().nr_not_freed(NotFreed::Dirty) + cache.stats().nr_not_freed(NotFreed::WriteInFlight) > 0);
    while b.world.nr_arrived() < 2 {
        core::hint::spin_loop();
    }
    check!(b.has(Flag::WRITE_IN_FLIGHT) && cache.cannibalise(1) == 0);
    b.world.hold.store(0, Release);
    b.world.release();
    b.btree.wait_node_writes();
    check!(cache.cannibalise(1) == 1 && cache.nr_nodes() == 0 && b.has(Flag::DEAD));
    // A dead node is not written any more.
    b.node.shared().set(Flag::DIRTY);
    b.btree.write_later(&b.node);
    b.btree.wait_node_writes();
    check!(b.world.nr_arrived() == 2);
    Ok(())
}
