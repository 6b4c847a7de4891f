// SPDX-License-Identifier: GPL-2.0
//! What the btrees need in order to be written.

use super::{space::Space, triggers::Triggers, Btree};
#[cfg(bcachefs_kunit)]
use super::tests::memory::{Memory, MemoryRoom};
use crate::{
    journal::engine::{Blocked, Journal, Pin, Reservation},
    util::{
        error::{Error, Result},
        watermark::Watermark,
        write_refs::WriteRefs,
    },
};
use bcachefs_format::{jset::EntryType, BtreeId, KeyRef};
use kernel::sync::Arc;

/// The parts of the filesystem that changes of btrees go through.
pub struct Engine {
    /// The journal.
    pub journal: Arc<Journal>,
    /// What changes entail.
    pub triggers: Arc<dyn Triggers>,
    /// Room on the devices.
    pub space: Arc<dyn Space>,
    /// Permission to change anything: whoever commits holds a reference.
    pub writers: Arc<WriteRefs>,
}

impl Btree {
    /// What changes go through. An error while the filesystem is read-only.
    #[inline]
    pub fn engine(&self) -> Result<&Engine> {
        self.engine.as_ref().ok_or(Error::ReadOnly)
    }

    /// The same, as a commit uses it.
    pub(super) fn writing(&self) -> Result<Writing<'_>> {
        #[cfg(bcachefs_kunit)]
        if let Some(memory) = self.memory.as_ref() {
            return Ok(memory.writing());
        }
        let engine = self.engine()?;
        Ok(Writing {
            log: Log::Journal(&engine.journal),
            triggers: &*engine.triggers,
            space: &engine.space,
            writers: Some(&engine.writers),
        })
    }
}

/// What a commit needs.
pub(super) struct Writing<'a> {
    pub log: Log<'a>,
    pub triggers: &'a dyn Triggers,
    pub space: &'a Arc<dyn Space>,
    /// `None` if there is no permission to ask for.
    pub writers: Option<&'a WriteRefs>,
}

/// Where a commit is written first.
#[derive(Copy, Clone)]
pub(super) enum Log<'a> {
    /// The journal.
    Journal(&'a Journal),
    /// In tests: nowhere but in memory.
    #[cfg(bcachefs_kunit)]
    Memory(&'a Memory),
}

/// Room for a commit's records.
pub(super) enum Room<'a> {
    /// In the journal.
    Journal(Reservation<'a>),
    /// None is needed: what is written is in this entry of the journal already.
    Given(u64),
    #[cfg(bcachefs_kunit)]
    Memory(MemoryRoom<'a>),
}

impl<'a> Log<'a> {
    /// See [`Journal::reserve`].
    pub(super) fn reserve(
        self,
        u64s: u32,
        watermark: Watermark,
    ) -> core::result::Result<Room<'a>, Blocked> {
        match self {
            Log::Journal(journal) => journal.reserve(u64s, watermark).map(Room::Journal),
            #[cfg(bcachefs_kunit)]
            Log::Memory(memory) => memory.reserve(u64s).map(Room::Memory),
        }
    }

    /// See [`Journal::wait`].
    pub(super) fn wait(self, u64s: u32, watermark: Watermark, reclaim: bool) -> Result<bool> {
        match self {
            Log::Journal(journal) => journal.wait(u64s, watermark, reclaim),
            #[cfg(bcachefs_kunit)]
            Log::Memory(memory) => memory.wait(),
        }
    }

    /// See [`Journal::pin`].
    pub(super) fn pin(self, pin: &Arc<Pin>, seq: u64) {
        match self {
            Log::Journal(journal) => journal.pin(pin, seq),
            #[cfg(bcachefs_kunit)]
            Log::Memory(_) => {}
        }
    }

    /// Whether nodes can come and go: in tests without a journal they stay as they are.
    pub(super) fn is_journal(self) -> bool {
        matches!(self, Log::Journal(_))
    }

    /// See [`Journal::halt`].
    pub(super) fn halt(self, error: Error) {
        match self {
            Log::Journal(journal) => journal.halt(error),
            #[cfg(bcachefs_kunit)]
            Log::Memory(memory) => memory.halt(),
        }
    }

    /// The journal itself, for nodes to be pinned in.
    pub(super) fn journal(self) -> Option<&'a Journal> {
        match self {
            Log::Journal(journal) => Some(journal),
            #[cfg(bcachefs_kunit)]
            Log::Memory(_) => None,
        }
    }
}

impl Room<'_> {
    /// The entry.
    pub(super) fn seq(&self) -> u64 {
        match self {
            Room::Journal(r) => r.seq(),
            Room::Given(seq) => *seq,
            #[cfg(bcachefs_kunit)]
            Room::Memory(r) => r.seq(),
        }
    }

    /// See [`Reservation::offset`].
    pub(super) fn offset(&self) -> u32 {
        match self {
            Room::Journal(r) => r.offset(),
            Room::Given(_) => 0,
            #[cfg(bcachefs_kunit)]
            Room::Memory(r) => r.offset(),
        }
    }

    /// Gives it back: what was to be written has been.
    pub(super) fn put(self) {}

    /// Writes a record with one key. An error: there is less room than was asked for.
    pub(super) fn key(
        &mut self,
        kind: EntryType,
        btree: BtreeId,
        level: u8,
        key: &KeyRef<'_>,
    ) -> Result {
        let written = match self {
            Room::Journal(r) => r.key(kind, btree, level, key),
            Room::Given(_) => true,
            #[cfg(bcachefs_kunit)]
            Room::Memory(r) => r.key(kind, btree, level, key),
        };
        written.then_some(()).ok_or(Error::TransTooBig)
    }

    /// Writes whole records. An error: there is less room than was asked for.
    pub(super) fn records(&mut self, words: &[u64]) -> Result {
        let written = match self {
            Room::Journal(r) => r.records(words),
            Room::Given(_) => true,
            #[cfg(bcachefs_kunit)]
            Room::Memory(r) => r.records(words),
        };
        written.then_some(()).ok_or(Error::TransTooBig)
    }
}
