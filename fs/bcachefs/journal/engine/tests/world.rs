// SPDX-License-Identifier: GPL-2.0
//! Devices in memory that lose what was not flushed, and a client that remembers what it was told.

use bcachefs_format::{
    checksum::CsumType,
    jset::{build::EntryWriter, entry::Entry as Record, DiskJset, Jset},
    Bkey, Bpos, BtreeId, KeyRef, KeyType, Uuid, Version,
};
use kernel::{
    c_str, new_mutex,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, Mutex,
    },
};
use kfs::{
    block::{IoBuf, WriteFlags},
    work::{Kind, WorkQueue},
};

use super::super::{
    disk::{Disk, Ticket},
    ring::{Ring, Spot},
    state::{Config, Core},
    JournalClient, PinFlush, PinFlusher,
};
use crate::{
    journal::range::{choose, Candidate, Range},
    util::{
        checksum::Checksums,
        error::{Error, Result},
    },
};

pub(super) const MAGIC: u64 = 0x1234_5678_9abc_def0;
/// Sectors of a bucket.
pub(super) const BUCKET: usize = 64;
pub(super) const TASKS: usize = 4;

/// Fails a test from anywhere.
macro_rules! check {
    ($what:expr) => {
        if !$what {
            kernel::pr_err!("check failed: {} at {}:{}\n", stringify!($what), file!(), line!());
            return Err($crate::util::error::Error::MetadataInvalid);
        }
    };
}
pub(super) use check;

/// A write that may or may not be on the medium.
struct Loose {
    id: u64,
    spot: Spot,
    data: KVVec<u64>,
    complete: bool,
}

/// A transfer that has not been completed.
enum Op {
    Write { id: u64, spot: Spot, buf: IoBuf, flags: WriteFlags, ticket: Ticket, flushes: KVec<u64> },
    Flush { device: u8, ticket: Ticket, flushes: KVec<u64> },
}

/// A transfer, for the record.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Logged {
    pub(super) device: u8,
    /// Entry that was written; 0 for a flush.
    pub(super) seq: u64,
    pub(super) flags: Option<WriteFlags>,
    /// First sector.
    pub(super) sector: u64,
}

pub(super) struct State {
    /// What is on the media, in words.
    media: KVec<KVVec<u64>>,
    loose: KVec<Loose>,
    last_id: u64,
    /// Transfers wait until they are let go.
    pub(super) hold: bool,
    held: KVec<Op>,
    pub(super) log: KVec<Logged>,
    /// Devices that fail, as masks.
    pub(super) fail_writes: u64,
    pub(super) fail_flushes: u64,
    pub(super) discards: u32,
    /// What each task has written out.
    pub(super) durable: [u64; TASKS],
}

/// Devices.
#[pin_data]
pub(super) struct World {
    #[pin]
    pub(super) state: Mutex<State>,
    /// Where transfers are completed; at once if there is none.
    queue: Option<WorkQueue>,
    devices: u8,
    /// Told of every entry that has been written.
    seen: Option<Arc<dyn Fn(&[u64]) + Send + Sync>>,
    self_ref: kernel::sync::SetOnce<Arc<World>>,
}

impl World {
    pub(super) fn new(devices: u8, buckets: usize, queued: bool) -> Result<Arc<Self>> {
        Self::with(devices, buckets * BUCKET, queued, None)
    }

    fn with(
        devices: u8,
        sectors: usize,
        queued: bool,
        seen: Option<Arc<dyn Fn(&[u64]) + Send + Sync>>,
    ) -> Result<Arc<Self>> {
        let mut media = KVec::new();
        for _ in 0..devices {
            let mut words = KVVec::new();
            words.resize(sectors * 64, 0, GFP_KERNEL)?;
            media.push(words, GFP_KERNEL)?;
        }
        let state = State {
            media,
            loose: KVec::new(),
            last_id: 0,
            hold: false,
            held: KVec::new(),
            log: KVec::new(),
            fail_writes: 0,
            fail_flushes: 0,
            discards: 0,
            durable: [0; TASKS],
        };
        let queue = match queued {
            true => Some(WorkQueue::new(c_str!("journal-test"), Kind::Unbound)?),
            false => None,
        };
        Ok(Arc::pin_init(
            pin_init!(World {
                state <- new_mutex!(state),
                queue,
                devices,
                seen,
                self_ref: kernel::sync::SetOnce::new(),
            }),
            GFP_KERNEL,
        )?)
    }

    /// Lets transfers go in the background from now on, for which it refers to itself.
    pub(super) fn background(self: &Arc<Self>) {
        self.self_ref.populate(self.clone());
    }

    fn begin(&self, op: Op) {
        let mut s = self.state.lock();
        if s.hold {
            let _ = s.held.push(op, GFP_KERNEL);
            return;
        }
        drop(s);
        match (&self.queue, self.self_ref.as_ref()) {
            (Some(queue), Some(world)) => {
                let world = world.clone();
                // A test that cannot get memory hangs; so be it.
                let _ = queue.try_spawn(GFP_KERNEL, move || world.end(op));
            }
            _ => self.end(op),
        }
    }

    /// Completes a transfer.
    fn end(&self, op: Op) {
        let mut s = self.state.lock();
        match op {
            Op::Write { id, spot, buf, flags, ticket, flushes } => {
                let ok = s.fail_writes >> spot.device & 1 == 0;
                if ok {
                    for id in flushes {
                        s.settle(id);
                    }
                    if let Some(loose) = s.loose.iter_mut().find(|l| l.id == id) {
                        loose.complete = true;
                    }
                    if flags == flags | WriteFlags::FUA {
                        s.settle(id);
                    }
                } else {
                    s.loose.retain(|l| l.id != id);
                }
                drop(s);
                if let Some(seen) = self.seen.as_ref().filter(|_| ok) {
                    seen(buf.as_words());
                }
                ticket.written(ok, buf);
            }
            Op::Flush { device, ticket, flushes } => {
                let ok = s.fail_flushes >> device & 1 == 0;
                for id in flushes {
                    if ok {
                        s.settle(id);
                    }
                }
                drop(s);
                ticket.flushed(ok);
            }
        }
    }

    /// Completes what is held: the one with index `at`. `false` if there is none.
    pub(super) fn let_go(&self, at: usize) -> bool {
        let op = {
            let mut s = self.state.lock();
            s.held.remove(at).ok()
        };
        match op {
            Some(op) => self.end(op),
            None => return false,
        }
        true
    }

    pub(super) fn held(&self) -> usize {
        self.state.lock().held.len()
    }

    /// What a crash would leave: everything that is durable, and of the rest what `keep` says, from none of it (0) to all (8).
    pub(super) fn crash(&self, keep: u32) -> Result<Image> {
        let s = self.state.lock();
        let mut media = KVec::new();
        for m in s.media.iter() {
            let mut copy = KVVec::new();
            copy.extend_from_slice(m, GFP_KERNEL)?;
            media.push(copy, GFP_KERNEL)?;
        }
        for l in s.loose.iter() {
            // In whole sectors.
            let part = l.data.len() / 64 * keep as usize / 8 * 64;
            apply(&mut media, l, part);
        }
        Ok(Image { media, durable: s.durable })
    }
}

fn apply(media: &mut KVec<KVVec<u64>>, l: &Loose, part: usize) {
    let start = l.spot.sector as usize * 64;
    let to = media.get_mut(usize::from(l.spot.device)).and_then(|m| m.get_mut(start..start + part));
    if let (Some(to), Some(from)) = (to, l.data.get(..part)) {
        to.copy_from_slice(from);
    }
}

impl State {
    /// A write reaches the medium.
    fn settle(&mut self, id: u64) {
        if let Some(at) = self.loose.iter().position(|l| l.id == id) {
            if let Ok(l) = self.loose.remove(at) {
                apply(&mut self.media, &l, l.data.len());
            }
        }
    }

    /// What a flush of `device` that begins now makes durable.
    fn complete_on(&self, device: u8) -> KVec<u64> {
        let mut ids = KVec::new();
        for l in self.loose.iter().filter(|l| l.spot.device == device && l.complete) {
            let _ = ids.push(l.id, GFP_KERNEL);
        }
        ids
    }
}

impl Disk for World {
    fn write(&self, spot: Spot, buf: IoBuf, bytes: usize, flags: WriteFlags, ticket: Ticket) {
        let op = {
            let mut s = self.state.lock();
            s.last_id += 1;
            let id = s.last_id;
            let mut data = KVVec::new();
            let _ = data.extend_from_slice(buf.as_words().get(..bytes / 8).unwrap_or_default(), GFP_KERNEL);
            let flushes = match flags == flags | WriteFlags::PREFLUSH {
                true => s.complete_on(spot.device),
                false => KVec::new(),
            };
            let _ = s.loose.push(Loose { id, spot, data, complete: false }, GFP_KERNEL);
            let logged = Logged {
                device: spot.device,
                seq: ticket.seq,
                flags: Some(flags),
                sector: spot.sector,
            };
            let _ = s.log.push(logged, GFP_KERNEL);
            Op::Write { id, spot, buf, flags, ticket, flushes }
        };
        self.begin(op);
    }

    fn flush(&self, device: u8, ticket: Ticket) {
        let flushes = {
            let mut s = self.state.lock();
            let logged = Logged { device, seq: 0, flags: None, sector: 0 };
            let _ = s.log.push(logged, GFP_KERNEL);
            s.complete_on(device)
        };
        self.begin(Op::Flush { device, ticket, flushes });
    }

    fn caches(&self) -> u64 {
        (1 << self.devices) - 1
    }

    fn discard(&self, spot: Spot, sectors: u32) {
        let mut s = self.state.lock();
        s.discards += 1;
        let start = spot.sector as usize * 64;
        let end = start + sectors as usize * 64;
        let media = s.media.get_mut(usize::from(spot.device));
        if let Some(words) = media.and_then(|m| m.get_mut(start..end)) {
            words.fill(0xdddd);
        }
    }

    fn wait_idle(&self) {
        if let Some(queue) = &self.queue {
            queue.flush();
        }
    }
}

/// What a crash left.
pub(super) struct Image {
    media: KVec<KVVec<u64>>,
    pub(super) durable: [u64; TASKS],
}

/// A key that was found.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) seq: u64,
    pub(super) task: u64,
    pub(super) n: u64,
}

impl Image {
    /// All entries found: header and keys of each to `f`; bad ones with no words.
    fn entries(&self, mut f: impl FnMut(&DiskJset, Option<&[u64]>) -> Result) -> Result {
        for media in self.media.iter() {
            for bucket in media.chunks(BUCKET * 64) {
                let (mut at, mut last) = (0, 0);
                while let Some(words) = bucket.get(at..).filter(|w| !w.is_empty()) {
                    let Ok((head, _)) = DiskJset::ref_from_prefix(words.as_bytes()) else { break };
                    if head.magic.get() != MAGIC || head.seq.get() < last {
                        break;
                    }
                    last = head.seq.get();
                    let good = Jset::new(words).is_ok_and(|j| j.verify(&Checksums).is_ok());
                    f(head, good.then_some(words))?;
                    at += head.bytes().next_multiple_of(512) / 8;
                }
            }
        }
        Ok(())
    }

    /// What recovery would replay, if there is anything.
    pub(super) fn range(&self) -> Result<Option<Range>> {
        let mut all: KVVec<Candidate> = KVVec::new();
        self.entries(|head, words| {
            let c = Candidate {
                seq: head.seq.get(),
                last_seq: head.last_seq.get(),
                flush: !head.is_no_flush(),
                good: words.is_some(),
            };
            match all.iter_mut().find(|o| o.seq == c.seq) {
                Some(o) if c.good => *o = c,
                Some(_) => {}
                None => all.push(c, GFP_KERNEL)?,
            }
            Ok(())
        })?;
        crate::util::sort::sort_by_key(&mut all, |c| c.seq);
        let range = choose(&all);
        if let Some(r) = &range {
            for seq in r.first..=r.last {
                check!(all.iter().any(|c| c.seq == seq && c.good));
            }
        }
        Ok(range)
    }

    /// The keys that recovery would replay.
    pub(super) fn keys(&self) -> Result<KVVec<Found>> {
        let mut found: KVVec<Found> = KVVec::new();
        let Some(range) = self.range()? else {
            return Ok(found);
        };
        let mut seen: KVVec<u64> = KVVec::new();
        self.entries(|head, words| {
            let Some(words) = words.filter(|_| range.contains(head.seq.get())) else {
                return Ok(());
            };
            if seen.contains(&head.seq.get()) {
                return Ok(());
            }
            seen.push(head.seq.get(), GFP_KERNEL)?;
            let jset = Jset::new(words)?.validate(MAGIC)?;
            for record in jset.entries() {
                match record?.parse()? {
                    Record::BtreeKeys(keys) => {
                        for key in keys {
                            let key = key?;
                            let (task, n) = (key.key.pos.inode, key.key.pos.offset);
                            found.push(Found { seq: jset.seq(), task, n }, GFP_KERNEL)?;
                        }
                    }
                    Record::WriteBufferKeys(_) => return Err(Error::MetadataInvalid),
                    _ => {}
                }
            }
            Ok(())
        })?;
        crate::util::sort::sort_by_key(&mut found, |f| (f.task, f.n));
        Ok(found)
    }

    /// Header of the entry `seq`.
    pub(super) fn header(&self, seq: u64) -> Result<Option<DiskJset>> {
        let mut found = None;
        self.entries(|head, words| {
            if head.seq.get() == seq && words.is_some() {
                found = Some(*head);
            }
            Ok(())
        })?;
        Ok(found)
    }
}

/// What the journal told.
#[pin_data]
pub(super) struct Client {
    pub(super) flushed: Atomic<u64>,
    pub(super) failed: Atomic<u32>,
    pub(super) marked: Atomic<u64>,
    #[pin]
    pub(super) buffered: Mutex<KVec<(u64, u32, u64)>>,
}

impl Client {
    pub(super) fn new() -> Result<Arc<Self>> {
        Ok(Arc::pin_init(
            pin_init!(Client {
                flushed: Atomic::new(0),
                failed: Atomic::new(0),
                marked: Atomic::new(0),
                buffered <- new_mutex!(KVec::new()),
            }),
            GFP_KERNEL,
        )?)
    }
}

impl JournalClient for Client {
    fn late_u64s(&self) -> u32 {
        16
    }

    fn late_entries(&self, _seq: u64, out: &mut EntryWriter<'_>) -> Result {
        Ok(out.datetime(1)?)
    }

    fn root(&self, _seq: u64, _btree: BtreeId, _level: u8, _key: KeyRef<'_>) -> Result {
        Ok(())
    }

    fn write_buffered(&self, seq: u64, offset: u32, _btree: BtreeId, key: KeyRef<'_>) -> Result {
        Ok(self.buffered.lock().push((seq, offset, key.key.pos.offset), GFP_KERNEL)?)
    }

    fn mark_replicas(&self, devs: &[u8]) -> Result {
        for dev in devs {
            let old = self.marked.load(Relaxed);
            self.marked.store(old | 1 << dev, Relaxed);
        }
        Ok(())
    }

    fn flushed(&self, seq: u64) {
        let old = self.flushed.load(Relaxed);
        self.flushed.store(old.max(seq), Relaxed);
    }

    fn failed(&self, _error: Error) {
        self.failed.add(1, Relaxed);
    }
}

/// Writes nothing out.
pub(super) struct Lazy(pub(super) PinFlush);

impl PinFlusher for Lazy {
    fn flush(&self, _cookie: u64, _seq: u64) -> PinFlush {
        self.0
    }
}

pub(super) fn config(copies: usize) -> Config {
    Config {
        uuid: Uuid([7; 16]),
        magic: MAGIC,
        version: Version::CURRENT,
        csum_type: CsumType::CRC32C_NONZERO,
        block_bytes: 512,
        copies,
        copies_required: 1,
        flush_delay: 20,
        reclaim_delay: 5,
        stuck_ms: 300,
    }
}

/// Journals over all of the media.
pub(super) fn rings(devices: u8, buckets: u64) -> Result<KVec<Ring>> {
    let mut rings = KVec::new();
    for device in 0..devices {
        let mut list = KVVec::new();
        for b in 0..buckets {
            list.push(b, GFP_KERNEL)?;
        }
        rings.push(Ring::new(device, BUCKET as u32, list, &[], 0, 0)?, GFP_KERNEL)?;
    }
    Ok(rings)
}

/// A journal that begins with entry 1, started.
pub(super) fn journal(
    config: Config,
    world: &Arc<World>,
    buckets: u64,
    client: &Arc<Client>,
) -> Result<Arc<Core>> {
    let rings = rings(world.devices, buckets)?;
    let core = Core::make(config, world.clone(), rings, 1, 1, client.clone())?;
    core.start()?;
    Ok(core)
}

/// See [`Journal::in_memory`](super::super::Journal::in_memory).
pub(in crate::journal::engine) fn in_memory(
    client: Arc<dyn JournalClient>,
    first_seq: u64,
    buckets: u32,
    bucket_sectors: u32,
    seen: Arc<dyn Fn(&[u64]) + Send + Sync>,
) -> Result<Arc<Core>> {
    let world = World::with(1, buckets as usize * bucket_sectors as usize, false, Some(seen))?;
    let mut list = KVVec::new();
    for b in 0..u64::from(buckets) {
        list.push(b, GFP_KERNEL)?;
    }
    let mut rings = KVec::new();
    rings.push(Ring::new(0, bucket_sectors, list, &[], 0, 0)?, GFP_KERNEL)?;
    Core::make(config(1), world, rings, first_seq, first_seq, client)
}

/// The key number `n` of task `task`.
pub(super) fn key(task: u64, n: u64) -> Bkey {
    Bkey { u64s: 6, key_type: KeyType::COOKIE, ..Bkey::deleted(Bpos::new(task, n)) }
}
