// SPDX-License-Identifier: GPL-2.0
//! What an attempt has of the key cache.
//!
//! Each path may have shown a key: one in the cache, whose lock it then keeps, or one in a leaf that was not in the cache. Updates
//! keep the keys that they change until the commit.

use super::{Bare, KeyCache, KeyLocks};
use crate::{btree::path::PATHS_MAX, util::error::Result};
use bcachefs_format::KeyRef;
use kernel::{prelude::*, sync::Arc};
use kfs::sync::six::{Graph, Mode, Slot};

/// Keys that updates of one transaction keep at most.
const KEPT_MAX: usize = 256;

/// A lock, and the sequence number under which it was looked at: the set knows only one for all users of a lock.
#[derive(Copy, Clone)]
struct Seen {
    slot: Slot,
    seq: u32,
}

/// What a path has shown.
#[derive(Copy, Clone, Default)]
pub(super) enum Shown {
    /// Nothing of interest here.
    #[default]
    Nothing,
    /// A key in the cache.
    Key(Slot),
    /// A key in a leaf that was not in the cache.
    Bare(Bare),
}

/// See the module's description.
pub(in crate::btree) struct HeldKeys {
    pub(in crate::btree) locks: KeyLocks,
    /// By path.
    keys: KVec<Option<Seen>>,
    bares: KVec<Option<Bare>>,
    /// Paths that have one of them.
    shown: u64,
    kept: KVec<Seen>,
    /// Memory for a value that has become longer.
    pub(in crate::btree) spare: KVec<u64>,
}

impl HeldKeys {
    /// Nothing. May sleep.
    pub(in crate::btree) fn new(graph: Arc<Graph>) -> Result<Self> {
        const { assert!(PATHS_MAX <= 64) };
        Ok(HeldKeys {
            locks: KeyLocks::new(graph, (PATHS_MAX + KEPT_MAX) as u16)?,
            keys: KVec::from_elem(None, PATHS_MAX, GFP_KERNEL)?,
            bares: KVec::from_elem(None, PATHS_MAX, GFP_KERNEL)?,
            shown: 0,
            kept: KVec::with_capacity(KEPT_MAX, GFP_KERNEL)?,
            spare: KVec::new(),
        })
    }

    /// Releases and forgets everything.
    #[inline]
    pub(in crate::btree) fn clear(&mut self) {
        self.locks.clear();
        self.kept.clear();
        while self.shown != 0 {
            self.take(self.shown.trailing_zeros() as u8);
        }
    }

    /// A key that is locked.
    #[inline]
    pub(in crate::btree) fn get(&self, slot: Slot) -> Option<KeyRef<'_>> {
        self.locks.get(slot).map(|data| data.get())
    }

    fn take(&mut self, path: u8) -> Option<Seen> {
        self.shown &= !(1 << (path & 63));
        if let Some(bare) = self.bares.get_mut(usize::from(path)) {
            *bare = None;
        }
        self.keys.get_mut(usize::from(path))?.take()
    }

    /// What path `path` has shown does not matter any more.
    #[inline]
    pub(in crate::btree) fn forget(&mut self, path: u8) {
        if self.shown >> (path & 63) & 1 != 0 {
            if let Some(key) = self.take(path) {
                self.locks.put(key.slot);
            }
        }
    }

    pub(super) fn shown(&self, path: u8) -> Shown {
        if self.shown >> (path & 63) & 1 == 0 {
            return Shown::Nothing;
        }
        let at = usize::from(path);
        match (self.keys.get(at), self.bares.get(at)) {
            (Some(Some(key)), _) => Shown::Key(key.slot),
            (_, Some(Some(bare))) => Shown::Bare(*bare),
            _ => Shown::Nothing,
        }
    }

    /// Path `path` shows a locked key. Takes over a use of the slot.
    pub(super) fn show_key(&mut self, path: u8, slot: Slot) {
        self.forget(path);
        let seq = self.locks.seq(slot).unwrap_or(0);
        if let Some(key) = self.keys.get_mut(usize::from(path)) {
            *key = Some(Seen { slot, seq });
            self.shown |= 1 << (path & 63);
        }
    }

    /// Path `path` shows a key that is not in the cache.
    pub(super) fn show_bare(&mut self, path: u8, new: Bare) {
        self.forget(path);
        if let Some(bare) = self.bares.get_mut(usize::from(path)) {
            *bare = Some(new);
            self.shown |= 1 << (path & 63);
        }
    }

    /// The key in `slot` has come into the cache by the attempt itself, which has it locked; `before` is its counter.
    pub(super) fn came(&mut self, slot: Slot, before: Bare) {
        for path in 0..PATHS_MAX as u8 {
            let Shown::Bare(bare) = self.shown(path) else {
                continue;
            };
            if bare == before {
                self.locks.share(slot);
                self.show_key(path, slot);
            } else if let Some(passed) = before.passed(bare) {
                self.show_bare(path, passed);
            }
        }
    }

    /// Locks again what path `path` has shown, if it is as it was. Does not sleep.
    pub(super) fn relock(&mut self, path: u8, mode: Mode) -> bool {
        match self.keys.get(usize::from(path)) {
            Some(Some(key)) => self.locks.relock(key.slot, mode) && self.locks.seq(key.slot) == Some(key.seq),
            _ => true,
        }
    }

    /// Keeps a key that is locked for intent until the commit. Takes over a use of the slot. False if there are too many.
    pub(super) fn keep(&mut self, slot: Slot) -> bool {
        if self.kept.iter().any(|kept| kept.slot == slot) {
            self.locks.put(slot);
            return true;
        }
        let seq = self.locks.seq(slot).unwrap_or(0);
        let kept = self.kept.push_within_capacity(Seen { slot, seq }).is_ok();
        if !kept {
            self.locks.put(slot);
        }
        kept
    }

    /// Locks again what updates keep, if it is as it was. Does not sleep.
    pub(super) fn relock_kept(&mut self) -> bool {
        let locks = &mut self.locks;
        let mut kept = self.kept.iter();
        kept.all(|k| locks.relock(k.slot, Mode::Intent) && locks.seq(k.slot) == Some(k.seq))
    }

    /// The attempt itself has changed a key, whose sequence number was `before` and is `now`.
    pub(super) fn changed(&mut self, slot: Slot, before: u32, now: u32) {
        let change = |seen: &mut Seen| {
            if seen.slot == slot && seen.seq == before {
                seen.seq = now;
            }
        };
        self.keys.iter_mut().flatten().for_each(change);
        self.kept.iter_mut().for_each(change);
    }

    /// Updates need their keys no more.
    pub(super) fn release_kept(&mut self) {
        while let Some(kept) = self.kept.pop() {
            self.locks.put(kept.slot);
        }
    }

    /// Whether a path has shown anything.
    #[inline]
    pub(super) fn any_shown(&self) -> bool {
        self.shown != 0
    }
}

impl Bare {
    /// `other` with a key counted that has come in, if it is of the same counter and was noted when `self` was.
    pub(super) fn passed(self, other: Bare) -> Option<Bare> {
        let same = KeyCache::same_counter(self, other) && self.count == other.count;
        same.then_some(Bare {
            count: self.count.wrapping_add(1),
            ..other
        })
    }
}
