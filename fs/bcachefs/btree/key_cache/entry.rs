// SPDX-License-Identifier: GPL-2.0
//! A key in the cache.

use super::hash;
use crate::{
    journal::engine::{Pin, PinKind},
    util::error::Result,
};
use bcachefs_format::{Bkey, Bpos, BtreeId, KeyRef};
use kernel::{
    alloc::Flags,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed, Release},
        Arc,
    },
};
use kfs::sync::{
    six::{LockSet, SixLock},
    InlineAtomic,
};

/// Room for values is a multiple of this many words, and half as much again as the first one takes.
const ROUND: usize = 4;

/// A key and its lock.
pub(in crate::btree) type CachedKey = SixLock<KeyData, KeyHead>;

/// The locks of keys that a transaction has.
pub(in crate::btree) type KeyLocks = LockSet<KeyData, KeyHead>;

/// What the lock protects.
pub(in crate::btree) struct KeyData {
    key: Bkey,
    value: KVec<u64>,
}

impl KeyData {
    /// The key.
    #[inline]
    pub(in crate::btree) fn get(&self) -> KeyRef<'_> {
        KeyRef {
            key: self.key,
            value: &self.value,
        }
    }

    /// Makes room for a value of `words` words: in `spare`, if memory cannot be had at once. Whether there is room.
    pub(in crate::btree) fn make_room(&mut self, words: usize, spare: &mut KVec<u64>) -> bool {
        if self.value.capacity() >= words {
            return true;
        }
        let more = words - self.value.len();
        if self.value.reserve(more, GFP_NOWAIT | __GFP_NOWARN).is_ok() {
            return true;
        }
        if spare.capacity() < words.max(self.value.len()) {
            return false;
        }
        spare.clear();
        for word in self.value.iter() {
            // There is room.
            let _ = spare.push_within_capacity(*word);
        }
        core::mem::swap(&mut self.value, spare);
        true
    }

    /// Becomes `key`. False, if room was not made.
    pub(in crate::btree) fn set(&mut self, key: KeyRef<'_>) -> bool {
        self.key = key.key;
        self.value.clear();
        let mut words = key.value.iter();
        words.all(|word| self.value.push_within_capacity(*word).is_ok())
    }
}

/// What can be seen without the lock.
pub(in crate::btree) struct KeyHead {
    btree: BtreeId,
    pos: Bpos,
    /// Under what it is found.
    pub(in crate::btree) hash: u64,
    /// The journal's entry that has the value. Changes with the lock held for write.
    seq: Atomic<u64>,
    /// Changes with the lock held for intent at least.
    dirty: Atomic<u32>,
    accessed: Atomic<u32>,
    dead: Atomic<u32>,
    /// Holds what is dirty in the journal.
    pub(in crate::btree) pin: Arc<Pin>,
}

impl KeyHead {
    /// Whether it is this key.
    #[inline]
    pub(super) fn is(&self, btree: BtreeId, pos: Bpos) -> bool {
        self.btree == btree && self.pos == pos
    }

    /// Where it belongs.
    pub(super) fn place(&self) -> (BtreeId, Bpos) {
        (self.btree, self.pos)
    }

    /// Notes that it is used.
    #[inline]
    pub(super) fn touch(&self) {
        if self.accessed.read() == 0 {
            self.accessed.store(1, Relaxed);
        }
    }

    /// Whether it has been used since this was asked last.
    pub(super) fn was_touched(&self) -> bool {
        self.accessed.xchg(0, Relaxed) != 0
    }

    /// Whether it has left the cache.
    #[inline]
    pub(super) fn is_dead(&self) -> bool {
        self.dead.read_acquire() != 0
    }

    pub(super) fn kill(&self) {
        self.dead.store(1, Release);
    }

    /// Whether the leaf has another value.
    pub(in crate::btree) fn is_dirty(&self) -> bool {
        self.dirty.read_acquire() != 0
    }

    /// Sets that, and says what it was.
    pub(super) fn set_dirty(&self, dirty: bool) -> bool {
        self.dirty.xchg(u32::from(dirty), Full) != 0
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq.read_acquire()
    }

    /// The value is in entry `seq` of the journal.
    pub(in crate::btree) fn set_seq(&self, seq: u64) {
        self.seq.store(seq, Release);
    }
}

/// A copy of `key`, as its leaf has it. Allocates with `flags`.
pub(super) fn copy(btree: BtreeId, key: KeyRef<'_>, flags: Flags) -> Result<Arc<CachedKey>> {
    let words = key.value.len();
    let room = (words + words / 2).next_multiple_of(ROUND).min(usize::from(u8::MAX));
    let mut value = KVec::with_capacity(room.max(words), flags)?;
    value.extend_from_slice(key.value, flags)?;
    let hash = hash(btree, key.key.pos);
    let head = KeyHead {
        btree,
        pos: key.key.pos,
        hash,
        seq: Atomic::new(0),
        dirty: Atomic::new(0),
        accessed: Atomic::new(1),
        dead: Atomic::new(0),
        pin: Pin::new(PinKind::KeyCache, hash, flags)?,
    };
    let data = KeyData {
        key: Bkey {
            needs_whiteout: false,
            ..key.key
        },
        value,
    };
    let lock = SixLock::new::<core::convert::Infallible>(data, head);
    Ok(Arc::pin_init(lock, flags)?)
}
