// SPDX-License-Identifier: GPL-2.0
//! Operations that take several transactions: noted before they begin, so that the next mount finishes what a crash has interrupted.

use bcachefs_format::{
    bkey::BKEY_U64S,
    keys::{
        inode::Inode,
        logged_op::{LoggedOpFinsert, LoggedOpTruncate},
    },
    Bkey, Bpos, BtreeId, KeyRef, KeyType,
};
use core::ops::ControlFlow;
use kernel::prelude::*;

use super::{index::COMMIT, punch, shift, source::Owner};
use crate::{
    btree::{trans::update::UpdateFlags, Attempt, Btree, IterFlags, TransError},
    fs::{
        inode::{Changed, State},
        InodeId,
    },
    util::error::{Error, Result},
};

/// Words of the longest operation.
const OP_WORDS_MAX: usize = 5;

/// Operations that are looked at in one go at mount.
const BATCH: usize = 64;

/// Puts an operation at `place`.
pub(super) fn put(
    t: &mut Attempt<'_>,
    key_type: KeyType,
    place: u64,
    fill: &dyn Fn(&mut [u64]) -> Option<usize>,
) -> core::result::Result<(), TransError> {
    let mut words = [0u64; OP_WORDS_MAX];
    let used = fill(&mut words).filter(|used| *used <= OP_WORDS_MAX).ok_or(Error::BtreeKeyInvalid)?;
    let key = Bkey {
        u64s: BKEY_U64S + used as u8,
        key_type,
        ..Bkey::deleted(Bpos::new(0, place))
    };
    let value = words.get(..used).ok_or(Error::BtreeKeyInvalid)?;
    t.insert(BtreeId::LOGGED_OPS, KeyRef { key, value }, UpdateFlags::default())
}

/// Notes an operation, whose value `fill` writes; its place. Sleeps.
pub(super) fn begin(
    btree: &Btree,
    key_type: KeyType,
    fill: impl Fn(&mut [u64]) -> Option<usize>,
) -> Result<u64> {
    let (place, _) = btree.commit(None, COMMIT, |t| {
        let last = Bpos::new(0, u64::MAX);
        let flags = IterFlags::INTENT.with(IterFlags::KEEP);
        let mut iter = t.iter(BtreeId::LOGGED_OPS, last, flags);
        let place = iter.peek_prev(t)?.map_or(1, |k| k.key.pos.offset.saturating_add(1));
        put(t, key_type, place, &fill)?;
        Ok(place)
    })?;
    Ok(place)
}

/// The operation at `place` is complete. Sleeps.
pub(super) fn end(btree: &Btree, place: u64) -> Result {
    btree.commit(None, COMMIT, |t| {
        t.delete(BtreeId::LOGGED_OPS, Bpos::new(0, place), UpdateFlags::default())
    })?;
    Ok(())
}

/// A file that nobody has in memory.
struct Nobody(InodeId);

impl Owner for Nobody {
    fn id(&self) -> InodeId {
        self.0
    }

    fn state(&self) -> Option<&State> {
        None
    }

    fn amend(&self, _: &mut Inode) {}

    fn committed(&self, _: &Changed, _: u64) {}
}

/// An operation that was interrupted.
#[derive(Copy, Clone)]
enum Op {
    Truncate(LoggedOpTruncate),
    Finsert(LoggedOpFinsert),
}

/// Finishes what was interrupted, before anybody uses the filesystem. Returns how many operations that were. Sleeps for long.
pub fn resume_all(btree: &Btree, block_bytes: u64) -> Result<u64> {
    let mut count = 0;
    loop {
        let mut found = KVec::with_capacity(BATCH, GFP_KERNEL)?;
        let end_pos = Bpos::new(0, u64::MAX);
        btree.walk(BtreeId::LOGGED_OPS, Bpos::POS_MIN, end_pos, IterFlags::NONE, |key| {
            let op = match key.key.key_type {
                KeyType::LOGGED_OP_TRUNCATE => Op::Truncate(LoggedOpTruncate::parse(key)?),
                KeyType::LOGGED_OP_FINSERT => Op::Finsert(LoggedOpFinsert::parse(key)?),
                _ => return Ok(ControlFlow::Continue(())),
            };
            match found.push_within_capacity((key.key.pos.offset, op)) {
                Ok(()) => Ok(ControlFlow::Continue(())),
                Err(_) => Ok(ControlFlow::Break(())),
            }
        })?;
        if found.is_empty() {
            return Ok(count);
        }
        for &(place, op) in found.iter() {
            let done = match op {
                Op::Truncate(op) => {
                    let owner = Nobody(InodeId { subvol: op.subvol, inum: op.inum });
                    punch::resume_truncate(btree, &owner, &op, block_bytes)
                }
                Op::Finsert(op) => {
                    let owner = Nobody(InodeId { subvol: op.subvol, inum: op.inum });
                    shift::resume(btree, &owner, place, op)
                }
            };
            match done {
                // The file may be gone, or its subvolume.
                Ok(()) | Err(Error::InodeMissing | Error::SubvolumeMissing) => end(btree, place)?,
                Err(e) => return Err(e),
            }
            count += 1;
        }
    }
}
