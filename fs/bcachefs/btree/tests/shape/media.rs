// SPDX-License-Identifier: GPL-2.0
//! Devices in memory, for nodes and journal, that remember in which order they were written.

use super::SECTORS;
use crate::{
    btree::{
        fill::ReadOp,
        source::{CopyError, NodeSource},
        space::{
            NodePlace, OpenBuckets, Shortage, Space, SpaceError, SpaceWait, REPLICAS_MAX,
        },
        trans::{Attempt, TransError},
        triggers::{KeyMut, MissingReplicas, Place, Triggers},
        write::sink::{NodeSink, WriteDone},
    },
    journal::engine::JournalClient,
    util::{
        error::{Error, Result},
        watermark::Watermark,
    },
};
use bcachefs_format::{
    jset::build::EntryWriter,
    keys::{self, accounting::AccountingKey, extent::Ptr},
    Bkey, BtreeId, Bversion, KeyRef,
};
use core::fmt;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, Mutex,
    },
};
use kfs::block::{IoBuf, SharedBuf};

/// Something that became durable.
pub(super) enum Event {
    /// Part of a node.
    Node {
        /// Number of the node's place.
        place: usize,
        /// First sector.
        at: usize,
        /// What was written.
        words: KVVec<u64>,
    },
    /// An entry of the journal.
    Entry(KVVec<u64>),
}

/// Nodes as they are on the media, by place.
pub(super) type Nodes = KVVec<KVVec<u64>>;

/// Writes part of a node.
pub(super) fn store(nodes: &mut Nodes, place: usize, at: usize, words: &[u64]) -> Result {
    while nodes.len() <= place {
        nodes.push(KVVec::new(), GFP_KERNEL)?;
    }
    let node = nodes.get_mut(place).ok_or(Error::NoMem)?;
    if node.is_empty() {
        node.resize(SECTORS * 64, 0, GFP_KERNEL)?;
    }
    let start = at * 64;
    let to = node.get_mut(start..start + words.len());
    to.ok_or(Error::BtreeTopology)?.copy_from_slice(words);
    Ok(())
}

/// What is on the media, and how it got there.
pub(super) struct Written {
    pub nodes: Nodes,
    /// Empty unless events are remembered.
    pub events: KVVec<Event>,
    pub remember: bool,
    /// Something went wrong in a place that cannot say so.
    pub wrong: u32,
}

/// See the module's description.
#[pin_data]
pub(super) struct Media {
    #[pin]
    pub written: Mutex<Written>,
}

impl Media {
    pub(super) fn new(nodes: Nodes, remember: bool) -> Result<Arc<Self>> {
        let written = Written {
            nodes,
            events: KVVec::new(),
            remember,
            wrong: 0,
        };
        Ok(Arc::pin_init(
            pin_init!(Media {
                written <- new_mutex!(written),
            }),
            GFP_KERNEL,
        )?)
    }

    fn note(&self, event: impl FnOnce(&mut Written) -> Result) {
        let mut written = self.written.lock();
        if event(&mut written).is_err() {
            written.wrong += 1;
        }
    }
}

fn copy(words: &[u64]) -> Result<KVVec<u64>> {
    let mut out = KVVec::new();
    out.extend_from_slice(words, GFP_KERNEL)?;
    Ok(out)
}

/// Reads and writes nodes.
pub(super) struct Port(pub Arc<Media>);

impl NodeSource for Port {
    fn buffer(&self) -> Option<IoBuf> {
        self.try_buffer()
    }

    fn try_buffer(&self) -> Option<IoBuf> {
        IoBuf::new(SECTORS * 512, GFP_KERNEL).ok()
    }

    fn read(&self, ptr: Ptr, mut buf: IoBuf, op: KBox<ReadOp>) {
        let found = {
            let written = self.0.written.lock();
            let node = written.nodes.get(ptr.offset() as usize);
            match node.zip(buf.as_words_mut().get_mut(..SECTORS * 64)) {
                Some((node, to)) if node.len() == to.len() => {
                    to.copy_from_slice(node);
                    Ok(())
                }
                _ => Err(CopyError::DeviceMissing),
            }
        };
        op.copy_read(ptr, found, buf)
    }

    fn count_error(&self, _: Ptr, _: &CopyError) {}

    fn geometry(&self) -> Option<&dyn keys::Devices> {
        None
    }

    fn describe(&self, ptr: Ptr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "place {}", ptr.offset())
    }

    fn wait_idle(&self) {}
}

impl NodeSink for Port {
    fn write(&self, ptr: Ptr, at: u32, buf: SharedBuf, bytes: usize, done: WriteDone) {
        self.0.note(|w| {
            let words = buf.as_words().get(..bytes / 8).ok_or(Error::NoMem)?;
            let (place, at) = (ptr.offset() as usize, at as usize);
            store(&mut w.nodes, place, at, words)?;
            if w.remember {
                let words = copy(words)?;
                w.events.push(Event::Node { place, at, words }, GFP_KERNEL)?;
            }
            Ok(())
        });
        done.end(Ok(()));
    }

    fn wait_idle(&self) {}
}

impl Media {
    /// Notes an entry of the journal.
    pub(super) fn entry_written(&self, words: &[u64]) {
        self.note(|w| {
            if w.remember {
                w.events.push(Event::Entry(copy(words)?), GFP_KERNEL)?;
            }
            Ok(())
        });
    }
}

/// Says nothing. Roots are found in the entries that changed them, all of which are kept.
pub(super) struct Client(pub Atomic<u32>);

impl JournalClient for Client {
    fn root(&self, _: u64, _: BtreeId, _: u8, _: KeyRef<'_>) -> Result {
        Ok(())
    }

    fn late_u64s(&self) -> u32 {
        0
    }

    fn late_entries(&self, _: u64, _: &mut EntryWriter<'_>) -> Result {
        Ok(())
    }

    fn write_buffered(&self, _: u64, _: u32, _: BtreeId, _: KeyRef<'_>) -> Result {
        Ok(())
    }

    fn mark_replicas(&self, _: &[u8]) -> Result {
        Ok(())
    }

    fn flushed(&self, _: u64) {}

    fn failed(&self, _: Error) {
        self.0.store(1, Relaxed);
    }
}

/// What the allocator counts.
pub(super) struct Counts {
    next: Atomic<u64>,
    /// Open buckets.
    pub open: Atomic<i64>,
    /// Sectors set aside.
    pub reserved: Atomic<i64>,
    /// Sectors of nodes, by what triggers were told.
    pub used: Atomic<i64>,
    /// How often somebody had to wait for a place.
    pub waited: Atomic<u64>,
}

impl Counts {
    pub(super) fn new() -> Result<Arc<Self>> {
        let counts = Counts {
            next: Atomic::new(0),
            open: Atomic::new(0),
            reserved: Atomic::new(0),
            used: Atomic::new(0),
            waited: Atomic::new(0),
        };
        Ok(Arc::new(counts, GFP_KERNEL)?)
    }
}

/// An allocator that never uses a place twice. One in seven times there is none at first.
pub(super) struct Room(pub Arc<Counts>);

struct Turn;

impl SpaceWait for Turn {
    fn wait(self: KBox<Self>) -> Result {
        Ok(())
    }
}

impl Space for Room {
    fn reserve(&self, sectors: u64, _: Shortage) -> Result<u64> {
        self.0.reserved.add(sectors as i64, Relaxed);
        Ok(sectors)
    }

    fn unreserve(&self, sectors: u64) {
        self.0.reserved.add(-(sectors as i64), Relaxed);
    }

    fn committed(&self, delta: i64, reserved: u64) {
        let _ = delta;
        self.0.reserved.add(-(reserved as i64), Relaxed);
    }

    fn node_place(
        &self,
        _: &mut Attempt<'_>,
        replicas: u8,
        _: Watermark,
    ) -> core::result::Result<core::result::Result<NodePlace, SpaceError>, TransError> {
        let n = self.0.next.fetch_add(1u64, Relaxed);
        if n % 7 == 3 {
            self.0.waited.add(1u64, Relaxed);
            return Ok(Err(SpaceError::Blocked(KBox::new(Turn, GFP_KERNEL)?)));
        }
        let space: Arc<dyn Space> = Arc::new(Room(self.0.clone()), GFP_KERNEL)?;
        self.0.open.add(1i64, Relaxed);
        let open = OpenBuckets::new(space, &[1]).ok_or(Error::NoMem)?;
        Ok(Ok(NodePlace {
            ptrs: [Ptr::new(0, n, 0); REPLICAS_MAX],
            nr: replicas,
            open,
        }))
    }

    fn release(&self, ids: &[u16]) {
        self.0.open.add(-(ids.len() as i64), Relaxed);
    }

    fn metadata_replicas(&self) -> u8 {
        1
    }
}

/// Triggers that count sectors of nodes.
pub(super) struct Census(pub Arc<Counts>);

impl Triggers for Census {
    fn has_transactional(&self, _: BtreeId, level: u8, key: &Bkey) -> bool {
        level != 0 && key.key_type.is_btree_ptr()
    }

    fn transactional(
        &self,
        t: &mut Attempt<'_>,
        place: Place,
        old: KeyRef<'_>,
        new: KeyMut<'_>,
    ) -> core::result::Result<(), TransError> {
        let node = |k: &Bkey| i64::from(k.key_type.is_btree_ptr()) * SECTORS as i64;
        let delta = node(new.key) - node(&old.key);
        if delta != 0 {
            let id = place.btree.0.into();
            t.account(AccountingKey::Btree { id }, &[delta])?;
        }
        Ok(())
    }

    fn has_atomic(&self, _: BtreeId, _: u8, _: &Bkey) -> bool {
        false
    }

    fn atomic(&self, _: Place, _: u64, _: KeyRef<'_>, _: KeyMut<'_>) -> Result {
        Ok(())
    }

    fn account(&self, delta: KeyRef<'_>, _: Bversion) -> core::result::Result<(), MissingReplicas> {
        self.0.used.add(self.used_sectors(delta), Relaxed);
        Ok(())
    }

    fn unaccount(&self, delta: KeyRef<'_>) {
        self.0.used.add(-self.used_sectors(delta), Relaxed);
    }

    fn mark_replicas(&self, _: &mut dyn Iterator<Item = KeyRef<'_>>) -> Result {
        Ok(())
    }

    fn used_sectors(&self, delta: KeyRef<'_>) -> i64 {
        delta.value.first().map_or(0, |w| *w as i64)
    }
}
