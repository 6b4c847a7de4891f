// SPDX-License-Identifier: GPL-2.0
//! Keys that have to be in other btrees, collected while nodes are locked.

use super::{sums::Values, Report};
use crate::{
    btree::{Attempt, Btree, TransError},
    util::error::Result,
};
use bcachefs_format::{
    keys::{
        accounting::{Accounting, AccountingKey},
        backpointer::Backpointer,
    },
    Bpos, BtreeId, KeyRef, KeyType,
};
use kernel::prelude::*;

/// Most keys that follow from one key.
const PER_KEY: usize = 20;
/// Keys collected before they are looked up.
const BATCH: usize = 4096;

enum Wanted {
    Backpointer(Bpos, Backpointer),
    Inode(u64, Values),
    Rebalance(Bpos),
}

impl Wanted {
    fn place(&self) -> Option<(BtreeId, Bpos)> {
        Some(match self {
            Wanted::Backpointer(pos, _) => (BtreeId::BACKPOINTERS, *pos),
            Wanted::Inode(inum, _) => {
                let what = AccountingKey::Inum { inum: *inum };
                (BtreeId::ACCOUNTING, what.to_pos()?)
            }
            Wanted::Rebalance(pos) => (BtreeId::REBALANCE_WORK, *pos),
        })
    }

    /// Compares with what is there.
    fn compare(&self, found: Option<KeyRef<'_>>, report: &mut Report) {
        match self {
            Wanted::Backpointer(pos, want) => {
                let key = found.filter(|k| k.key.key_type == KeyType::BACKPOINTER);
                let bp = key.and_then(|k| Backpointer::parse(k).ok());
                match bp {
                    Some(bp) if bp == *want => {}
                    Some(bp) => report.differs(format_args!("{pos}: {bp}, should be {want}")),
                    None => report.differs(format_args!("{pos}: no backpointer, should be {want}")),
                }
            }
            Wanted::Inode(inum, want) => {
                let value = found.and_then(|k| Accounting::parse(k).ok());
                let is = value.map_or([0; 3], |v| [v.counter(0), v.counter(1), v.counter(2)]);
                if is != *want {
                    report.drift(format_args!("inum {inum}: {is:?}, should be {want:?}"));
                }
            }
            Wanted::Rebalance(pos) => {
                if found.is_none_or(|k| k.key.key_type != KeyType::SET) {
                    report.differs(format_args!("{pos}: not in rebalance_work"));
                }
            }
        }
    }
}

/// What is to be looked up.
pub(super) struct Pending {
    wanted: KVVec<Wanted>,
}

impl Pending {
    pub(super) fn new() -> Self {
        Pending { wanted: KVVec::new() }
    }

    /// Whether what follows from one key fits.
    pub(super) fn has_room(&self) -> bool {
        self.wanted.capacity() - self.wanted.len() >= PER_KEY
    }

    fn push(&mut self, wanted: Wanted) {
        // There is room, see `has_room`.
        let _ = self.wanted.push_within_capacity(wanted);
    }

    pub(super) fn backpointer(&mut self, pos: Bpos, bp: Backpointer) {
        self.push(Wanted::Backpointer(pos, bp));
    }

    pub(super) fn inode(&mut self, inum: u64, values: Values) {
        self.push(Wanted::Inode(inum, values));
    }

    pub(super) fn rebalance(&mut self, pos: Bpos) {
        self.push(Wanted::Rebalance(pos));
    }

    /// Looks up what has been collected. Sleeps.
    pub(super) fn look_up(&mut self, btree: &Btree, report: &mut Report) -> Result {
        let mut done = 0;
        btree.run(|t| self.some(t, &mut done, report))?;
        self.wanted.clear();
        self.wanted.reserve(BATCH, GFP_KERNEL)?;
        Ok(())
    }

    /// Goes on behind the first `done`.
    fn some(
        &self,
        t: &mut Attempt<'_>,
        done: &mut usize,
        report: &mut Report,
    ) -> core::result::Result<(), TransError> {
        while let Some(wanted) = self.wanted.get(*done) {
            if let Some((btree, pos)) = wanted.place() {
                wanted.compare(t.get(btree, pos)?, report);
            }
            *done += 1;
        }
        Ok(())
    }
}
