// SPDX-License-Identifier: GPL-2.0
//! Changes that a transaction collects.
//!
//! An update says what will be at a position. It is kept until the commit, and what the transaction looks at meanwhile shows it.
//! In trees with snapshots deleting means that nothing is seen any more, which may take a whiteout; in trees of extents a
//! new range takes the place of whatever it covers ([`super::extent`]).

use super::{
    pending::{Stored, Target, Update, VALUE_U64S_MAX},
    Attempt, TransError,
};
use crate::{
    btree::{space::DiskReservation, Btree, Iter, IterFlags},
    journal::engine::Pin,
    util::{
        error::{Error, Result},
        watermark::Watermark,
    },
};
use bcachefs_format::{
    bkey::BKEY_U64S,
    jset::{build::EntryWriter, EntryType},
    keys::accounting::AccountingKey,
    Bkey, Bpos, BtreeId, KeyRef, KeyType,
};
use kernel::{prelude::*, sync::Arc};

/// Result of what may restart.
type Tried<T = ()> = core::result::Result<T, TransError>;

/// Words of a text in the journal at most, with its header.
const LOG_U64S: usize = 32;

/// How a commit is made.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct CommitFlags {
    /// How urgent it is.
    pub watermark: Watermark,
    /// Space that was not reserved may be used: for what must not fail.
    pub no_enospc: bool,
    /// Allowed although the filesystem is on its way to or from read-write.
    pub no_check_rw: bool,
    /// It makes room in the journal, and must not wait for room.
    pub journal_reclaim: bool,
    /// Not journalled: what is written is in this entry already, which is still pinned (replay).
    pub no_journal_res: Option<u64>,
    /// Accounting is not applied in memory: it has been (replay).
    pub skip_accounting: bool,
    /// No triggers are run (replay: their effects are in the journal, too).
    pub no_triggers: bool,
}

impl CommitFlags {
    /// For what may wait, may be refused, and is nothing special.
    pub const NORMAL: Self = Self {
        watermark: Watermark::Normal,
        no_enospc: false,
        no_check_rw: false,
        journal_reclaim: false,
        no_journal_res: None,
        skip_accounting: false,
        no_triggers: false,
    };

    /// For who makes a filesystem: nothing else is going on yet, and there is room.
    pub const INITIALISING: Self = Self {
        no_enospc: true,
        no_check_rw: true,
        ..Self::NORMAL
    };
}

/// How an update is made.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct UpdateFlags {
    /// The key replaces exactly what is at its position; ranges are not cut, other snapshots not looked at.
    pub exact: bool,
    /// Allowed in a snapshot that has children.
    pub internal_snapshot: bool,
    /// No triggers for this update.
    pub no_triggers: bool,
    /// Goes to the btree, not to the key cache.
    pub bypass_key_cache: bool,
    /// Triggers are told that cached pointers are being invalidated.
    pub invalidate: bool,
}

/// What has been committed.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Committed {
    /// The journal's entry; durable when the journal is flushed up to it. 0 if there was nothing to commit.
    pub seq: u64,
}

/// How a btree is looked at, as far as changes are concerned.
#[derive(Copy, Clone)]
struct View {
    ranges: bool,
    snapshots: bool,
}

impl<'t> Attempt<'t> {
    /// Makes room in the transaction's buffer for one more update and `words` words. May give up the locks and take them back.
    pub(in crate::btree) fn make_room(&mut self, words: usize) -> Tried {
        match self.pending.make_room(words, GFP_NOWAIT | __GFP_NOWARN) {
            Err(Error::NoMem) => {
                self.unlock();
                self.pending.make_room(words, GFP_KERNEL)?;
                self.relock()
            }
            result => Ok(result?),
        }
    }

    fn make_record_room(&mut self, words: usize) -> Tried {
        let now = self
            .pending
            .make_record_room(words, GFP_NOWAIT | __GFP_NOWARN);
        match now {
            Err(Error::NoMem) => {
                self.unlock();
                self.pending.make_record_room(words, GFP_KERNEL)?;
                self.relock()
            }
            result => Ok(result?),
        }
    }

    /// Makes `key` what is at its position when the transaction is committed: in the iterator's view, so that in one of ranges it
    /// replaces what it covers, and in one of a snapshot deleting hides what ancestors have. May sleep.
    ///
    /// The iterator should have been made with [`IterFlags::INTENT`]; what it has shown last is still true at the commit.
    pub fn update(&mut self, iter: &Iter<'_>, key: KeyRef<'_>, flags: UpdateFlags) -> Tried {
        self.check()?;
        iter.keep(self)?;
        let view = View {
            ranges: iter.shows(IterFlags::EXTENTS) && !flags.exact,
            snapshots: iter.shows(IterFlags::FILTER) && !flags.exact,
        };
        let near = iter.path_index();
        self.change(iter.btree(), iter.level(self)?, key, flags, view, near)
    }

    /// Puts `word` in the place of the first word of the value of the key at the iterator's position, which [`Iter::peek_slot`] shows,
    /// and leaves it as it is otherwise. The whole key is replaced, not the range it covers. May sleep.
    pub fn update_first_word(&mut self, iter: &mut Iter<'t>, word: u64, flags: UpdateFlags) -> Tried {
        self.check()?;
        self.make_room(VALUE_U64S_MAX)?;
        let Some(stored) = iter.copy_slot(self)? else {
            return Err(self.lost());
        };
        iter.keep(self)?;
        let first = self.pending.value_mut(&stored).first_mut();
        *first.ok_or(Error::BtreeKeyInvalid)? = word;
        let (btree, level) = (iter.btree(), iter.level(self)?);
        self.may_change(btree, level, stored.key.pos, flags)?;
        self.put(btree, level, stored, flags, iter.path_index())
    }

    /// [`Attempt::update`] without an iterator, in the usual view of the btree. May sleep.
    pub fn insert(&mut self, btree: BtreeId, key: KeyRef<'_>, flags: UpdateFlags) -> Tried {
        self.check()?;
        let view = View {
            ranges: btree.is_extents() && !flags.exact,
            snapshots: btree.has_snapshots() && !flags.exact,
        };
        self.change(btree, 0, key, flags, view, None)
    }

    /// Makes `key` what is at exactly its position in the node at `level` that covers it: for pointers to nodes, and for replaying
    /// keys as they were journalled. May sleep.
    pub fn update_node_key(
        &mut self,
        btree: BtreeId,
        level: u8,
        key: KeyRef<'_>,
        flags: UpdateFlags,
    ) -> Tried {
        self.check()?;
        let flags = UpdateFlags {
            exact: true,
            internal_snapshot: true,
            ..flags
        };
        self.make_room(key.value.len())?;
        let stored = self.pending.store(key)?;
        self.put(btree, level, stored, flags, None)
    }

    /// Deletes what is at `pos`, as seen from its snapshot; in trees of extents as much of the range that covers it as is seen.
    /// May sleep.
    pub fn delete(&mut self, btree: BtreeId, pos: Bpos, flags: UpdateFlags) -> Tried {
        self.check()?;
        let mut gone = Bkey::deleted(pos);
        if btree.is_extents() && !flags.exact {
            let mut iter = self.iter(btree, pos, IterFlags::INTENT | IterFlags::SLOTS);
            match iter.peek(self)? {
                Some(k) if !k.key.key_type.is_whiteout() => {
                    gone.pos = k.key.pos.at_snapshot(pos.snapshot);
                    gone.size = k.key.size;
                }
                _ => return Ok(()),
            }
        }
        let key = KeyRef {
            key: gone,
            value: &[],
        };
        self.insert(btree, key, flags)
    }

    fn change(
        &mut self,
        btree: BtreeId,
        level: u8,
        key: KeyRef<'_>,
        flags: UpdateFlags,
        view: View,
        near: Option<u8>,
    ) -> Tried {
        self.paths.writing = true;
        self.make_room(key.value.len())?;
        let stored = self.pending.store(key)?;
        self.may_change(btree, level, stored.key.pos, flags)?;
        if view.ranges {
            return self.put_range(btree, stored, flags);
        }
        if view.snapshots && stored.key.key_type == KeyType::DELETED {
            return self.put_deleted(btree, stored.key.pos, flags, near);
        }
        self.put(btree, level, stored, flags, near)
    }

    /// Whether keys of the snapshot of `pos` may be changed.
    fn may_change(&self, btree: BtreeId, level: u8, pos: Bpos, flags: UpdateFlags) -> Tried {
        let shared = level == 0
            && btree.has_snapshots()
            && !flags.internal_snapshot
            && self.btree.is_internal(pos.snapshot);
        match shared {
            true => Err(Error::SnapshotInternal.into()),
            false => Ok(()),
        }
    }

    /// Makes nothing be seen at `pos` from its snapshot: takes the key there away, or hides what an ancestor has.
    #[inline(never)]
    pub(super) fn put_deleted(
        &mut self,
        btree: BtreeId,
        pos: Bpos,
        flags: UpdateFlags,
        near: Option<u8>,
    ) -> Tried {
        let mut key = Bkey::deleted(pos);
        if self.inherits(btree, pos)? {
            key.key_type = KeyType::WHITEOUT;
        }
        self.put(btree, 0, Stored::bare(key), flags, near)
    }

    /// Adds an update of exactly one key, which stands in the transaction's buffer.
    #[inline(never)]
    pub(super) fn put(
        &mut self,
        btree: BtreeId,
        level: u8,
        new: Stored,
        flags: UpdateFlags,
        near: Option<u8>,
    ) -> Tried {
        self.paths.writing = true;
        self.make_room(0)?;
        let to = match level == 0 && self.btree.key_cache.serves(btree) {
            true => self.target(btree, &new, flags, near)?,
            false => Target {
                path: Some(self.keeper(btree, level, new.key.pos, near)?),
                key: None,
                bare: None,
            },
        };
        let path = to.path.and_then(|i| self.paths.get(i));
        let at = path.and_then(|p| p.place_of(new.key.pos));
        Ok(self.pending.put(Update::new(btree, level, new, flags, to, at))?)
    }

    /// Adds `deltas` to the counters of `key` when the transaction is committed. What is added to one key in a transaction is summed.
    pub fn account(&mut self, key: AccountingKey, deltas: &[i64]) -> Tried {
        let pos = key.to_pos().ok_or(Error::BtreeKeyInvalid)?;
        self.make_room(0)?;
        Ok(self.pending.add(pos, deltas)?)
    }

    /// Inserts `key` into a btree that the write buffer serves (backpointers, lru, ...): journalled now, in the btree later. Type
    /// `deleted` deletes; of several keys for one position the last one counts.
    pub fn write_buffered(&mut self, btree: BtreeId, key: KeyRef<'_>) -> Tried {
        self.make_record_room(1 + usize::from(BKEY_U64S) + key.value.len())?;
        let kind = EntryType::WRITE_BUFFER_KEYS;
        Ok(self.pending.push_key(kind, btree, key)?)
    }

    /// Appends whole records to the commit's journal entry.
    pub fn push_records(&mut self, words: &[u64]) -> Tried {
        self.make_record_room(words.len())?;
        Ok(self.pending.push_records(words)?)
    }

    /// Appends a text to the commit's journal entry, for people who read journals. It is cut to 248 bytes.
    pub fn log(&mut self, text: &str) -> Tried {
        let mut words = [0; LOG_U64S];
        let mut writer = EntryWriter::new(&mut words);
        writer
            .log(text.as_bytes())
            .map_err(|_| Error::BtreeKeyInvalid)?;
        let used = writer.used();
        self.push_records(words.get(..used).unwrap_or(&[]))
    }

    /// Adds sectors to the commit's disk reservation.
    pub fn extra_sectors(&mut self, sectors: u64) {
        self.pending.extra_sectors = self.pending.extra_sectors.saturating_add(sectors);
    }

    /// Has `pin` pinned at the commit's journal entry, before that can be written.
    pub fn pin_at_commit(&mut self, pin: &Arc<Pin>) -> Tried {
        self.make_record_room(0)?;
        Ok(self.pending.push_pin(pin)?)
    }

    /// How many keys of `btree` will be changed.
    pub fn nr_updates(&self, btree: BtreeId) -> usize {
        self.pending.updates().iter().filter(|u| u.btree == btree).count()
    }

    /// Whether there is anything to commit.
    pub fn is_changing(&self) -> bool {
        !self.pending.is_empty()
    }
}

impl Btree {
    /// Runs `f` as a transaction and commits what it has collected; again after restarts. May sleep.
    #[track_caller]
    pub fn commit<R>(
        &self,
        mut reservation: Option<&mut DiskReservation>,
        flags: CommitFlags,
        mut f: impl for<'t> FnMut(&mut Attempt<'t>) -> Tried<R>,
    ) -> Result<(R, Committed)> {
        self.run(|t| {
            // What it sees has to be true at the commit, from the first look on.
            t.paths.writing = true;
            let r = f(t)?;
            let done = t.commit(reservation.as_deref_mut(), flags)?;
            Ok((r, done))
        })
    }
}
