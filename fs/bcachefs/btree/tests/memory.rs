// SPDX-License-Identifier: GPL-2.0
//! What changes of btrees go through, in memory.

use crate::{
    btree::{
        engine::{Log, Writing},
        space::{NodePlace, Shortage, Space, SpaceError},
        trans::{Attempt, TransError},
        triggers::{KeyMut, MissingReplicas, Place, Triggers},
    },
    journal::engine::Blocked,
    util::{
        error::{Error, Result},
        watermark::Watermark,
    },
};
use bcachefs_format::{
    jset::{entry::JournalKeys, Entries, EntryType},
    Bkey, BtreeId, Bversion, KeyRef,
};
use kernel::sync::{
    atomic::{Atomic, Full, Relaxed},
    Arc, SetOnce,
};

/// Stands for the journal: numbers entries, is full now and then, and checks that nobody writes more than was asked for.
pub(in crate::btree) struct Memory {
    seq: Atomic<u64>,
    draws: Atomic<u64>,
    /// Full one in so many times; 0: never.
    full_one_in: u64,
    pub waits: Atomic<u64>,
    pub words: Atomic<u64>,
    pub keys: Atomic<u64>,
    /// Reservations that were too small or too large.
    pub wrong: Atomic<u64>,
    pub halted: Atomic<u64>,
    pub sink: SetOnce<Arc<dyn Sink>>,
    triggers: Arc<dyn Triggers>,
    space: Arc<dyn Space>,
}

impl Memory {
    /// A journal that is full one in `full_one_in` times.
    pub(in crate::btree) fn new(
        full_one_in: u64,
        triggers: Arc<dyn Triggers>,
        space: Arc<dyn Space>,
    ) -> Self {
        Memory {
            seq: Atomic::new(100),
            draws: Atomic::new(0),
            full_one_in,
            waits: Atomic::new(0),
            words: Atomic::new(0),
            keys: Atomic::new(0),
            wrong: Atomic::new(0),
            halted: Atomic::new(0),
            sink: SetOnce::new(),
            triggers,
            space,
        }
    }

    pub(in crate::btree) fn writing(&self) -> Writing<'_> {
        Writing {
            log: Log::Memory(self),
            triggers: &*self.triggers,
            space: &self.space,
            writers: None,
        }
    }

    pub(in crate::btree) fn reserve(
        &self,
        u64s: u32,
    ) -> core::result::Result<MemoryRoom<'_>, Blocked> {
        if self.halted.load(Relaxed) != 0 {
            return Err(Blocked::Failed);
        }
        let draw = self.draws.fetch_add(1u64, Relaxed);
        if draw.checked_rem(self.full_one_in) == Some(1) {
            return Err(Blocked::Full);
        }
        Ok(MemoryRoom {
            memory: self,
            seq: self.seq.fetch_add(1u64, Full),
            left: u64s.into(),
            used: 0,
        })
    }

    pub(in crate::btree) fn wait(&self) -> Result<bool> {
        self.waits.add(1u64, Relaxed);
        Ok(true)
    }

    pub(in crate::btree) fn halt(&self) {
        self.halted.store(1, Relaxed);
    }
}

/// What gets the keys that are journalled for the write buffer. Nodes are locked.
pub(crate) trait Sink: Send + Sync {
    /// A key.
    fn key(&self, btree: BtreeId, key: KeyRef<'_>);
}

/// Room in an entry.
pub(in crate::btree) struct MemoryRoom<'a> {
    memory: &'a Memory,
    seq: u64,
    left: i64,
    used: u32,
}

impl MemoryRoom<'_> {
    pub(in crate::btree) fn seq(&self) -> u64 {
        self.seq
    }

    pub(in crate::btree) fn offset(&self) -> u32 {
        self.used
    }

    fn take(&mut self, words: usize) -> bool {
        self.left -= words as i64;
        self.used += words as u32;
        self.memory.words.add(words as u64, Relaxed);
        self.left >= 0
    }

    pub(in crate::btree) fn key(
        &mut self,
        kind: EntryType,
        btree: BtreeId,
        _: u8,
        key: &KeyRef<'_>,
    ) -> bool {
        self.memory.keys.add(1u64, Relaxed);
        if let (EntryType::WRITE_BUFFER_KEYS, Some(sink)) = (kind, self.memory.sink.as_ref()) {
            sink.key(btree, *key);
        }
        self.take(1 + usize::from(key.key.u64s))
    }

    pub(in crate::btree) fn records(&mut self, words: &[u64]) -> bool {
        if let Some(sink) = self.memory.sink.as_ref() {
            let records = Entries::new(words).flatten();
            for r in records.filter(|r| r.entry_type == EntryType::WRITE_BUFFER_KEYS) {
                for key in JournalKeys::over(r.payload).flatten() {
                    sink.key(r.btree, key);
                }
            }
        }
        self.take(words.len())
    }
}

impl Drop for MemoryRoom<'_> {
    fn drop(&mut self) {
        // Given back untouched, or used up.
        if self.left != 0 && self.used != 0 {
            self.memory.wrong.add(1u64, Relaxed);
        }
    }
}

/// No triggers.
pub(in crate::btree) struct NoTriggers;

impl Triggers for NoTriggers {
    fn has_transactional(&self, _: BtreeId, _: u8, _: &Bkey) -> bool {
        false
    }

    fn transactional(
        &self,
        _: &mut Attempt<'_>,
        _: Place,
        _: KeyRef<'_>,
        _: KeyMut<'_>,
    ) -> core::result::Result<(), TransError> {
        Ok(())
    }

    fn has_atomic(&self, _: BtreeId, _: u8, _: &Bkey) -> bool {
        false
    }

    fn atomic(&self, _: Place, _: u64, _: KeyRef<'_>, _: KeyMut<'_>) -> Result {
        Ok(())
    }

    fn account(&self, _: KeyRef<'_>, _: Bversion) -> core::result::Result<(), MissingReplicas> {
        Ok(())
    }

    fn unaccount(&self, _: KeyRef<'_>) {}

    fn mark_replicas(&self, _: &mut dyn Iterator<Item = KeyRef<'_>>) -> Result {
        Ok(())
    }

    fn used_sectors(&self, _: KeyRef<'_>) -> i64 {
        0
    }
}

/// Space without end, but no place for nodes.
pub(in crate::btree) struct Endless;

impl Space for Endless {
    fn reserve(&self, sectors: u64, _: Shortage) -> Result<u64> {
        Ok(sectors)
    }

    fn unreserve(&self, _: u64) {}

    fn committed(&self, _: i64, _: u64) {}

    fn node_place(
        &self,
        _: &mut Attempt<'_>,
        _: u8,
        _: Watermark,
    ) -> core::result::Result<core::result::Result<NodePlace, SpaceError>, TransError> {
        Ok(Err(SpaceError::Failed(Error::NoSpace)))
    }

    fn release(&self, _: &[u16]) {}

    fn metadata_replicas(&self) -> u8 {
        1
    }
}
