// SPDX-License-Identifier: GPL-2.0
//! From what recovery found to a journal that can be written.

use bcachefs_format::{
    checksum::{CsumOpt, Encryption},
    sb::MemberState,
};
use kernel::{
    c_str, new_condvar, new_mutex, new_spinlock,
    prelude::*,
    sync::{atomic::Atomic, Arc},
    time::{Instant, Monotonic},
};
use kfs::work::{Job, Kind, WorkQueue};

use super::{
    disk::Disk,
    pins::Pins,
    ring::Ring,
    slot::{Entry, Slot},
    space::Space,
    state::{Bufs, Config, Core, Inner, Owners, Reclaim},
    word::{Word, SLOTS},
    JournalClient,
};
use crate::{
    journal::{start::RingStart, StartState},
    sb::{Devices, Super},
    util::{
        error::{Error, Result},
        watermark::Watermark,
    },
};

/// Words of a staging buffer at first.
const BUF_U64S: u32 = 8192;

/// Data type of the journal among those a device may be restricted to.
const DATA_JOURNAL: u32 = 2;

/// Milliseconds after which a full journal is declared stuck.
const STUCK_MS: u64 = 30_000;

impl Config {
    /// What the superblock says.
    #[inline(never)]
    pub(super) fn new(sup: &Super) -> Result<Self> {
        // Validated to be options.
        let option = CsumOpt(sup.flags.meta_csum_type() as u8);
        let csum_type = option.metadata_type(Encryption::Off).ok_or(Error::Unsupported)?;
        let ms = |ms: u64, default| match u32::try_from(ms) {
            Ok(0) | Err(_) => default,
            Ok(ms) => ms,
        };
        Ok(Config {
            uuid: sup.user_uuid,
            magic: sup.jset_magic(),
            version: sup.version,
            csum_type,
            block_bytes: sup.block_bytes() as usize,
            copies: (sup.flags.meta_replicas_want() as usize).clamp(1, super::slot::COPIES_MAX),
            copies_required: (sup.flags.meta_replicas_req() as usize).max(1),
            flush_delay: ms(sup.flags.journal_flush_delay(), 1000),
            reclaim_delay: ms(sup.flags.journal_reclaim_delay(), 100),
            stuck_ms: STUCK_MS,
        })
    }
}

/// The journals of `devices`, where `start` says that they go on.
#[inline(never)]
pub(super) fn rings(devices: &Devices, start: &StartState) -> Result<KVec<Ring>> {
    let mut rings = KVec::new();
    for device in devices.iter() {
        let member = &device.member;
        let durability = member.durability();
        let allowed = member.data_allowed() >> DATA_JOURNAL & 1 != 0;
        if member.state() != MemberState::RW || durability == 0 || !allowed {
            continue;
        }
        let mut buckets = KVVec::new();
        for &(first, nr) in device.journal.iter() {
            for bucket in first..first.saturating_add(nr) {
                buckets.push(bucket, GFP_KERNEL)?;
            }
        }
        if buckets.is_empty() {
            continue;
        }
        let nothing = RingStart::new(device.index);
        let at = start.rings.iter().find(|r| r.device == device.index).unwrap_or(&nothing);
        let sectors = u32::from(device.bucket_sectors);
        let mut ring =
            Ring::new(device.index, sectors, buckets, &at.seqs, at.bucket as usize, at.used)?;
        ring.durability = durability;
        ring.discard = member.discard() && device.bdev.can_discard();
        rings.push(ring, GFP_KERNEL)?;
    }
    Ok(rings)
}

/// What a journal is put together of.
struct Parts {
    pins: Pins,
    slots: [Slot; SLOTS],
    writes: Arc<WorkQueue>,
    reclaims: Arc<WorkQueue>,
    disk: Arc<dyn Disk>,
    rings: KVec<Ring>,
    client: Arc<dyn JournalClient>,
}

#[inline(never)]
fn slots() -> Result<[Slot; SLOTS]> {
    Ok([Slot::new()?, Slot::new()?, Slot::new()?, Slot::new()?])
}

#[inline(never)]
fn queue(name: &'static CStr, kind: Kind) -> Result<Arc<WorkQueue>> {
    Ok(Arc::new(WorkQueue::new(name, kind)?, GFP_KERNEL)?)
}

impl Core {
    /// A journal whose next entry is `next`, in which entries from `first` on are needed.
    #[inline(never)]
    pub(super) fn make(
        config: Config,
        disk: Arc<dyn Disk>,
        rings: KVec<Ring>,
        first: u64,
        next: u64,
        client: Arc<dyn JournalClient>,
    ) -> Result<Arc<Self>> {
        let last = next.checked_sub(1).ok_or(Error::JournalMissing)?;
        if rings.is_empty() {
            return Err(Error::JournalTooSmall);
        }
        let pins = Pins::new(first, next)?;
        let slots = slots()?;
        let writes = queue(c_str!("bcachefs-journal"), Kind::UnboundUrgent)?;
        // Of its own: it waits for writes.
        let reclaims = queue(c_str!("bcachefs-reclaim"), Kind::Unbound)?;
        let parts = Parts { pins, slots, writes, reclaims, disk, rings, client };
        let core = Core::assemble(&config, parts, first, last)?;
        core.ask_late();
        core.grow(1)?;
        core.grow(BUF_U64S.min(core.most()))?;
        core.update_space(&mut core.inner.lock());
        Ok(core)
    }

    /// Puts a journal together whose last entry was `last`. Apart from [`Core::make`]: the parts are on the stack while they are moved.
    #[inline(never)]
    fn assemble(config: &Config, parts: Parts, first: u64, last: u64) -> Result<Arc<Self>> {
        let Parts { pins, slots, writes, reclaims, disk, rings, client } = parts;
        Ok(Arc::pin_init(
            pin_init!(Core {
                word: Atomic::new(Word::closed_after(last).0),
                watermark: Atomic::new(Watermark::Reclaim as u32),
                late: Atomic::new(0),
                slots,
                cur_seq: Atomic::new(last),
                last_seq: Atomic::new(first),
                flushed_seq: Atomic::new(last),
                inner <- new_spinlock!(init!(Inner {
                    pins,
                    entries: [Entry::FREE; SLOTS],
                    cur: last,
                    open: false,
                    composed: last,
                    ondisk: last,
                    flushed: last,
                    last_seq_ondisk: first,
                    err_seq: u64::MAX,
                    last_empty: 0,
                    rings,
                    space: Space::default(),
                    need_flush: true,
                    last_flush: 0,
                    buf_u64s: 0,
                    want_u64s: 0,
                    blocked: 0,
                    write_buffer_full: false,
                    discards: 0,
                    stopped: true,
                    failed: None,
                    tell: false,
                    flushing: None,
                    flushing_changed: false,
                })),
                owners <- new_spinlock!(init!(Owners {
                    client: Some(client),
                    flushers: [const { None }; 3],
                })),
                bufs <- new_mutex!(init!(Bufs {
                    spare: KVec::new(),
                    bytes: 0,
                    composed: [const { None }; SLOTS],
                })),
                reclaim <- new_mutex!(Reclaim::default()),
                discarding <- new_mutex!(()),
                growing <- new_mutex!(()),
                room <- new_condvar!(),
                done <- new_condvar!(),
                writer <- Job::new(writes, Core::write),
                reclaimer <- Job::new(reclaims, Core::reclaim),
                disk,
                config: *config,
                since: Instant::<Monotonic>::now(),
            }),
            GFP_KERNEL,
        )?)
    }
}
