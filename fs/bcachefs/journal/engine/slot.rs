// SPDX-License-Identifier: GPL-2.0
//! The staging buffers: what entries are gathered in until they are written.

use kernel::sync::atomic::{Atomic, Relaxed, Release};
use kfs::{mem::AtomicWords, sync::InlineAtomic};

use super::word::ENTRY_U64S_MAX;
use crate::util::error::Result;

/// The part of a staging buffer that is used without a lock.
///
/// Who holds a reference to the buffer (in the word, see [`super::word`]) has it for one entry: `seq` and `limit` do not change.
pub(super) struct Slot {
    /// The records. Ranges that are given out are disjoint.
    pub(super) words: AtomicWords,
    seq: Atomic<u64>,
    limit: Atomic<u32>,
}

impl Slot {
    /// May sleep.
    pub(super) fn new() -> Result<Self> {
        Ok(Slot {
            words: AtomicWords::new(ENTRY_U64S_MAX as usize)?,
            seq: Atomic::new(0),
            limit: Atomic::new(0),
        })
    }

    /// Is now for entry `seq`, of at most `limit` words. Nobody has a reference.
    pub(super) fn begin(&self, seq: u64, limit: u32) {
        self.limit.store(limit, Relaxed);
        self.seq.store(seq, Release);
    }

    /// The entry that this is for.
    pub(super) fn seq(&self) -> u64 {
        self.seq.read_acquire()
    }

    /// Words that can be given out.
    #[inline]
    pub(super) fn limit(&self) -> u32 {
        self.limit.read()
    }
}

/// How far a staging buffer is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// For no entry.
    Free,
    /// Reservations are made.
    Open,
    /// None are made any more; some have not been given back.
    Closed,
    /// All have been.
    Ready,
    /// Being made into an entry.
    Composing,
    /// It is an entry with places on disk, to be submitted.
    Placed,
    /// Caches of devices are being flushed before it is written.
    Flushing,
    /// Being written.
    Writing,
    /// On disk, or failed.
    Done,
}

/// Most copies of an entry.
pub(super) const COPIES_MAX: usize = 4;

/// What is known of the entry in a staging buffer. Under the journal's lock.
#[derive(Copy, Clone, Debug)]
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) phase: Phase,
    /// Words of records.
    pub(super) used: u32,
    /// Words kept for records that are added when it is written.
    pub(super) late: u32,
    /// Sectors, at most.
    pub(super) sectors: u32,
    /// Oldest entry needed, as of when it was closed.
    pub(super) last_seq: u64,
    /// Somebody waits for it to be durable.
    pub(super) must_flush: bool,
    /// It has been promised that it will not be a flush entry.
    pub(super) no_flush: bool,
    /// It is a flush entry; decided when it is composed.
    pub(super) flush: bool,
    /// Caches have been flushed already.
    pub(super) flushed: bool,
    /// To be closed at this time, in milliseconds.
    pub(super) expires: u64,
    /// Where the copies are, by device.
    pub(super) spots: [Option<super::ring::Spot>; COPIES_MAX],
    /// Bytes to be written.
    pub(super) bytes: usize,
    /// Transfers under way.
    pub(super) pending: u32,
    /// Devices on which it is, as a mask.
    pub(super) good: u64,
    /// It could not be written.
    pub(super) failed: bool,
}

impl Entry {
    pub(super) const FREE: Entry = Entry {
        seq: 0,
        phase: Phase::Free,
        used: 0,
        late: 0,
        sectors: 0,
        last_seq: 0,
        must_flush: false,
        no_flush: false,
        flush: false,
        flushed: false,
        expires: 0,
        spots: [None; COPIES_MAX],
        bytes: 0,
        pending: 0,
        good: 0,
        failed: false,
    };

    /// Whether it still needs room on disk.
    pub(super) fn unplaced(&self) -> bool {
        matches!(
            self.phase,
            Phase::Open | Phase::Closed | Phase::Ready | Phase::Composing
        )
    }

    /// The devices that were chosen, as a mask.
    pub(super) fn devices(&self) -> u64 {
        let spots = self.spots.iter().flatten();
        spots.fold(0, |mask, spot| mask | 1 << (spot.device & 63))
    }
}
