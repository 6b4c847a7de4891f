// SPDX-License-Identifier: GPL-2.0
//! Writing keys out of the cache: what dirties it, and what makes it clean again.

use super::{entry::KeyHead, KeyCache};
use crate::{
    btree::{
        engine::Log,
        trans::{
            pending::{Target, Update},
            update::{CommitFlags, UpdateFlags},
            Attempt, TransError,
        },
        write::Writer,
        Btree,
    },
    journal::engine::{PinFlush, PinFlusher},
    util::{
        error::{Error, Result},
        watermark::Watermark,
    },
};
use kernel::sync::{atomic::Relaxed, Arc};
use kfs::sync::six::{Mode, Slot};

/// How long a wait lasts until it is looked again whether the journal has failed.
const WAIT_MS: u32 = 100;

/// Result of what may restart.
type Tried<T = ()> = core::result::Result<T, TransError>;

/// Writes out what the pins of cached keys stand for.
pub(in crate::btree) struct KeyPins(pub(in crate::btree) Arc<Writer>);

impl PinFlusher for KeyPins {
    fn flush(&self, cookie: u64, seq: u64) -> PinFlush {
        let Some(btree) = self.0.btree() else {
            return PinFlush::Stop;
        };
        match btree.write_key_out(cookie, seq) {
            Ok(()) => PinFlush::Done,
            Err(Error::WouldDeadlock | Error::JournalFailed | Error::BtreeShutDown) => PinFlush::Stop,
            Err(e) => {
                btree.fill.report(format_args!("a key of the key cache cannot be written: {e}"));
                PinFlush::Stop
            }
        }
    }

    fn excess(&self) -> u32 {
        let Some(btree) = self.0.btree() else {
            return 0;
        };
        let cache = &btree.key_cache;
        let more = cache.nr_dirty().saturating_sub(cache.limits().soft);
        u32::try_from(more).unwrap_or(u32::MAX)
    }
}

impl Btree {
    /// Writes the key with this hash to its leaf, if it is pinned at entry `seq` of the journal. Sleeps; no locks may be held.
    fn write_key_out(&self, hash: u64, seq: u64) -> Result {
        let cache = &*self.key_cache;
        let Some(key) = cache.table.get(hash) else {
            return Ok(());
        };
        let journal = self.writing()?.log.journal().ok_or(Error::ReadOnly)?;
        let head = key.shared();
        let due = || head.pin.seq() == Some(seq) && head.is_dirty();
        if !due() {
            return Ok(());
        }
        // If nothing else holds the oldest entry and room is short, the key goes into a new one, so that this one is free at once.
        let oldest = seq <= journal.last_seq();
        let flags = CommitFlags {
            watermark: match oldest {
                true => Watermark::Reclaim,
                false => Watermark::default(),
            },
            no_enospc: true,
            no_check_rw: true,
            journal_reclaim: true,
            no_journal_res: (!oldest || !journal.is_low()).then_some(seq),
            skip_accounting: true,
            no_triggers: true,
        };
        self.run(|t| {
            let Some(slot) = t.lock_key(&key, Mode::Intent)? else {
                return Ok(());
            };
            t.keep_key(slot)?;
            // From here on nobody else changes it.
            if !due() {
                return Ok(());
            }
            if head.seq() > seq {
                cache.moved.add(1u64, Relaxed);
                journal.pin_move(&head.pin, head.seq());
                return Ok(());
            }
            t.put_out(slot, head)?;
            t.commit(None, flags)?;
            Ok(())
        })?;
        cache.cleaned.announce();
        Ok(())
    }
}

impl Attempt<'_> {
    /// Adds the update that brings the key in `slot`, which is kept, to its leaf.
    fn put_out(&mut self, slot: Slot, head: &KeyHead) -> Tried {
        self.paths.writing = true;
        let words = self.keys.get(slot).map_or(0, |key| key.value.len());
        self.make_room(words)?;
        let new = match self.keys.get(slot) {
            Some(key) => self.pending.store(key)?,
            None => return Err(self.lost()),
        };
        let (btree, pos) = head.place();
        let path = self.keeper(btree, 0, pos, None)?;
        let to = Target {
            path: Some(path),
            key: Some(slot),
            bare: None,
        };
        let flags = UpdateFlags {
            exact: true,
            internal_snapshot: true,
            no_triggers: true,
            bypass_key_cache: true,
            invalidate: false,
        };
        let update = Update::new(btree, 0, new, flags, to, None);
        Ok(self.pending.put(Update { cleans: true, ..update })?)
    }
}

impl KeyCache {
    /// With the key locked for write: it has got a value that is in entry `seq` of the journal.
    pub(in crate::btree) fn changed(&self, log: Log<'_>, head: &KeyHead, seq: u64) {
        self.dirtied(head);
        head.set_seq(seq);
        log.pin(&head.pin, seq);
        if self.nr_dirty() > self.limits().soft {
            if let Some(journal) = log.journal() {
                journal.kick_reclaim();
            }
        }
    }

    /// With the key locked for intent: its leaf, which is dirty, has its value.
    pub(in crate::btree) fn written(&self, log: Log<'_>, head: &KeyHead) {
        self.written.add(1u64, Relaxed);
        self.let_go(log, head);
    }

    /// With the key locked for write: its leaf has been changed directly.
    pub(in crate::btree) fn drop_key(&self, log: Log<'_>, key: &super::CachedKey) {
        self.dropped.add(1u64, Relaxed);
        self.let_go(log, key.shared());
        self.remove(key);
    }

    fn let_go(&self, log: Log<'_>, head: &KeyHead) {
        if self.cleaned(head) {
            if let Some(journal) = log.journal() {
                journal.unpin(&head.pin);
            }
        }
    }

    /// Whether a commit that makes `more` clean keys dirty has to wait, unless it makes room itself.
    pub(in crate::btree) fn is_full(&self, more: usize) -> bool {
        more != 0 && self.nr_dirty() + more > self.limits().hard
    }

    /// Waits until dirty keys are few enough, and has them written out. Sleeps; no locks may be held.
    pub(in crate::btree) fn wait(&self, log: Log<'_>) -> Result {
        self.waits.add(1u64, Relaxed);
        let Some(journal) = log.journal() else {
            return Ok(());
        };
        loop {
            let seen = self.cleaned.now();
            if self.nr_dirty() <= self.limits().resume {
                return Ok(());
            }
            if journal.failed() {
                return Err(Error::JournalFailed);
            }
            journal.kick_reclaim();
            self.cleaned.wait(seen, WAIT_MS);
        }
    }
}
