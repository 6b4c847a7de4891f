// SPDX-License-Identifier: GPL-2.0
//! Replaying the journal: its keys go from the overlay into the nodes.
//!
//! Keys are not journalled again. Each is inserted under the number of the entry it came from, which the node then keeps in the
//! journal until it is written. Triggers are not run: what they did is in the journal, too.
//!
//! 1. Increments of accounting, those that the btree does not contain already: versions say which.
//! 2. Everything else, in the order of the btrees, which is fast, as far as the journal has room for the changes of shape that
//!    this brings.
//! 3. What was left, in the order of the journal: from here on old entries become free as the nodes are written.
//!
//! A key that has been overwritten meanwhile, by a change of shape or of allocation, is left out.

use bcachefs_format::{Bkey, Bpos, BtreeId, Bversion, KeyRef, KeyType};
use kernel::prelude::*;

use crate::{
    btree::{
        trans::update::{CommitFlags, UpdateFlags},
        Attempt, Btree, TransError,
    },
    fs_err, fs_info,
    journal::{
        engine::Journal,
        overlay::Overlay,
        start::{BTREE_DEPTH_MAX, BTREE_ROOTS_MAX},
    },
    sb::Super,
    util::{
        error::{Error, Result},
        sort::sort_by_key,
        watermark::Watermark,
    },
};

/// Most counters of an accounting key.
const COUNTERS_MAX: usize = 8;

/// A key that is left for the third step.
#[derive(Copy, Clone)]
struct Left {
    seq: u64,
    btree: BtreeId,
    level: u8,
    /// Its index in the overlay of its level.
    index: usize,
}

/// What has been done.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
struct Done {
    accounting: usize,
    in_order: usize,
    late: usize,
}

/// Puts the keys of the journal into the nodes. The journal has been started and still holds all entries that they are from. Sleeps
/// for long.
///
/// # Errors
///
/// None of them can be recovered from: what is in memory is neither the old state nor the new one.
pub fn replay(sup: &Super, btree: &Btree, journal: &Journal) -> Result {
    let mut done = Done {
        accounting: replay_accounting(btree)?,
        ..Done::default()
    };
    let mut left: KVVec<Left> = KVVec::new();
    for id in (0..BTREE_ROOTS_MAX as u8).map(BtreeId) {
        for level in 0..BTREE_DEPTH_MAX {
            if id == BtreeId::ACCOUNTING && level == 0 {
                continue;
            }
            let keys = btree.journal_keys().keys(id, level);
            for index in 0..keys.len() {
                let seq = keys.seq(index).ok_or(Error::BtreeTopology)?;
                match replay_key(btree, keys, id, level, index, in_order(seq)) {
                    Ok(()) => done.in_order += 1,
                    Err(Error::WouldDeadlock) => left.push(
                        Left {
                            seq,
                            btree: id,
                            level,
                            index,
                        },
                        GFP_KERNEL,
                    )?,
                    Err(e) => return Err(failed(sup, keys, id, level, index, e)),
                }
            }
        }
    }
    sort_by_key(&mut left, |l| (l.seq, l.btree.0, l.level, l.index));
    for l in left.iter() {
        // Entries before this one have nothing left to give.
        journal.replayed(l.seq);
        let keys = btree.journal_keys().keys(l.btree, l.level);
        replay_key(btree, keys, l.btree, l.level, l.index, late(l.seq))
            .map_err(|e| failed(sup, keys, l.btree, l.level, l.index, e))?;
        done.late += 1;
    }
    journal.replayed(u64::MAX);
    btree.journal_replayed();
    btree.allow_accounting_flush();
    if done != Done::default() {
        fs_info!(
            sup,
            "journal replayed: {} keys in the order of the btrees, {} in that of the journal, {} counters",
            done.in_order,
            done.late,
            done.accounting
        );
    }
    Ok(())
}

fn failed(sup: &Super, keys: Overlay<'_>, id: BtreeId, level: u8, index: usize, e: Error) -> Error {
    let pos = keys.get(index).map_or(Bpos::POS_MIN, |k| k.key.pos);
    fs_err!(sup, "replaying the journal: {id} level {level} {pos}: {e}");
    e
}

/// For the second step: does not wait for room in the journal.
fn in_order(seq: u64) -> CommitFlags {
    CommitFlags {
        watermark: Watermark::Normal,
        journal_reclaim: true,
        ..late(seq)
    }
}

/// For the third step: may wait.
fn late(seq: u64) -> CommitFlags {
    CommitFlags {
        watermark: Watermark::Reclaim,
        no_enospc: true,
        no_check_rw: true,
        journal_reclaim: false,
        no_journal_res: Some(seq),
        skip_accounting: true,
        no_triggers: true,
    }
}

const EXACT: UpdateFlags = UpdateFlags {
    exact: true,
    internal_snapshot: true,
    no_triggers: true,
    bypass_key_cache: true,
    invalidate: false,
};

fn replay_key(
    btree: &Btree,
    keys: Overlay<'_>,
    id: BtreeId,
    level: u8,
    index: usize,
    flags: CommitFlags,
) -> Result {
    let key = keys.get(index).ok_or(Error::BtreeTopology)?;
    if keys.is_hidden(index) {
        return Ok(());
    }
    btree.run(|t| {
        // A key for a level above the root is of a tree that was deeper when it was written.
        if level > 0 && btree.root_level(id) < level {
            return Ok(());
        }
        t.update_node_key(id, level, key, EXACT)?;
        // The node is locked now: nobody overwrites the key from here on.
        if keys.is_hidden(index) {
            return Ok(());
        }
        t.commit(None, flags)?;
        Ok(())
    })
}

/// Adds increments that the btree does not have. Returns how many counters have changed.
fn replay_accounting(btree: &Btree) -> Result<usize> {
    // From here on readers see what nodes have.
    btree.uncover(BtreeId::ACCOUNTING);
    let keys = btree.journal_keys().keys(BtreeId::ACCOUNTING, 0);
    let (mut at, mut changed) = (0, 0);
    while let Some(first) = keys.get(at) {
        let pos = first.key.pos;
        let end = keys.upper_bound(pos);
        changed += usize::from(btree.run(|t| add_up(t, keys, at..end, pos))?);
        at = end.max(at + 1);
    }
    Ok(changed)
}

/// Adds the increments `range`, all of one counter at `pos`, to what the btree has.
fn add_up(
    t: &mut Attempt<'_>,
    keys: Overlay<'_>,
    range: core::ops::Range<usize>,
    pos: Bpos,
) -> core::result::Result<bool, TransError> {
    let mut sum = [0u64; COUNTERS_MAX];
    let mut key = Bkey {
        key_type: KeyType::ACCOUNTING,
        ..Bkey::deleted(pos)
    };
    let mut have = Bversion::ZERO;
    if let Some(k) = t.get(BtreeId::ACCOUNTING, pos)? {
        if k.key.key_type == KeyType::ACCOUNTING {
            have = k.key.version;
            key = k.key;
            for (to, from) in sum.iter_mut().zip(k.value) {
                *to = *from;
            }
        }
    }
    let mut oldest = None;
    for i in range {
        let (Some(k), Some(seq)) = (keys.get(i), keys.seq(i)) else {
            continue;
        };
        if k.key.key_type != KeyType::ACCOUNTING || k.key.version <= have {
            continue;
        }
        key.u64s = key.u64s.max(k.key.u64s);
        key.version = key.version.max(k.key.version);
        for (to, from) in sum.iter_mut().zip(k.value) {
            *to = to.wrapping_add(*from);
        }
        oldest = Some(oldest.map_or(seq, |o: u64| o.min(seq)));
    }
    let Some(seq) = oldest else {
        return Ok(false);
    };
    let value = sum
        .get(..usize::from(key.value_u64s()))
        .ok_or(Error::MetadataInvalid)?;
    t.update_node_key(BtreeId::ACCOUNTING, 0, KeyRef { key, value }, EXACT)?;
    // Pinned at the oldest of them.
    t.commit(None, late(seq))?;
    Ok(true)
}
