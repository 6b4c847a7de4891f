// SPDX-License-Identifier: GPL-2.0
//! Deleting whatever a range holds.

use super::{
    update::{CommitFlags, Committed, UpdateFlags},
    Attempt, TransError,
};
use crate::{
    btree::{Btree, IterFlags},
    util::error::Result,
};
use bcachefs_format::{Bkey, Bpos, BtreeId, KeyRef};

/// Keys deleted in one transaction.
const BATCH: u32 = 16;

impl Btree {
    /// Deletes all that `start..end` holds, in as many transactions as it takes; where snapshots are, as seen from that of `start`.
    /// Sleeps. Returns the newest journal entry.
    #[track_caller]
    pub fn delete_range(
        &self,
        btree: BtreeId,
        start: Bpos,
        end: Bpos,
        how: UpdateFlags,
        flags: CommitFlags,
    ) -> Result<Committed> {
        let mut at = Some(start);
        let mut last = Committed::default();
        while let Some(from) = at {
            let (next, done) = self.commit(None, flags, |t| t.delete_some(btree, from, end, how))?;
            last.seq = last.seq.max(done.seq);
            at = next;
        }
        Ok(last)
    }
}

impl Attempt<'_> {
    /// Deletes a number of keys from `start` on; where to go on, if not all are gone.
    fn delete_some(
        &mut self,
        btree: BtreeId,
        start: Bpos,
        end: Bpos,
        how: UpdateFlags,
    ) -> core::result::Result<Option<Bpos>, TransError> {
        let ranges = btree.is_extents();
        let (empty, last) = match btree.has_snapshots() {
            true => (start.cmp_nosnap(end).is_ge(), end.nosnap_predecessor()),
            false => (start >= end, end.predecessor()),
        };
        // Looking up to a point includes it; looking for ranges up to one does not.
        let last = if ranges { Some(end) } else { last };
        let Some(last) = last.filter(|_| !empty) else {
            return Ok(None);
        };
        let mut iter = self.iter(btree, start, IterFlags::INTENT);
        for _ in 0..BATCH {
            let Some(found) = iter.peek_upto(self, last)?.map(|k| k.key) else {
                return Ok(None);
            };
            let mut gone = Bkey::deleted(iter.pos());
            if ranges {
                let from = gone.pos.offset;
                let to = match gone.pos.inode == end.inode {
                    true => found.pos.offset.min(end.offset),
                    false => found.pos.offset,
                };
                gone = piece(gone.pos, from, to);
                let reach = self.extent_end(btree, bare(gone))?;
                gone = piece(gone.pos, from, reach);
            }
            self.update(&iter, bare(gone), how)?;
            if ranges && gone.pos.offset != found.pos.offset {
                return Ok(Some(gone.pos));
            }
            if !iter.advance() {
                return Ok(None);
            }
        }
        Ok(Some(iter.pos()))
    }
}

/// A key without value.
fn bare(key: Bkey) -> KeyRef<'static> {
    KeyRef { key, value: &[] }
}

/// A hole from `from` to `to`.
fn piece(pos: Bpos, from: u64, to: u64) -> Bkey {
    let size = u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX);
    let mut key = Bkey::deleted(pos);
    key.size = size;
    key.pos.offset = from.saturating_add(size.into());
    key
}
