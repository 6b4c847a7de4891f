// SPDX-License-Identifier: GPL-2.0
//! Holes, and ends: taking away what a range of a file consists of.

use core::ops::Range;

use bcachefs_format::{
    keys::{
        inode::{Inode, InodeFlags},
        logged_op::LoggedOpTruncate,
    },
    Bpos, BtreeId, KeyType,
};

use super::{
    index::{self, Draft, Tried},
    logged,
    source::Owner,
};
use crate::{
    btree::{space::DiskReservation, Attempt, Btree, IterFlags},
    fs::inode::edit,
    util::error::Result,
};

/// Sectors of a hole made at a time at most: what a key can be long.
pub(super) const HOLE_MAX: u64 = 1 << 31;

/// Behind the last sector of any file.
pub(super) const END: u64 = 1 << 55;

/// The first key at or behind `from` that is seen in the file and starts before `end`: its range.
pub(super) fn next_key(
    t: &mut Attempt<'_>,
    inum: u64,
    snapshot: u32,
    range: Range<u64>,
) -> Tried<Option<Range<u64>>> {
    let start = Bpos::with_snapshot(inum, range.start, snapshot);
    let end = Bpos::with_snapshot(inum, range.end, snapshot);
    let mut iter = t.iter(BtreeId::EXTENTS, start, IterFlags::INTENT);
    let found = iter.peek_upto(t, end)?;
    Ok(found.map(|k| k.key.start_offset()..k.key.pos.offset))
}

/// Makes a hole of `range`, sectors of the file of `owner`, in as many transactions as that takes. `f` changes what else of the inode has to be. Returns whether there was
/// anything. Sleeps.
pub fn punch<O: Owner>(
    btree: &Btree,
    owner: &O,
    range: Range<u64>,
    f: &mut dyn FnMut(&mut Inode),
) -> Result<bool> {
    let mut at = range.start;
    let mut any = false;
    loop {
        let next = btree.run(|t| {
            let edited = edit(t, owner.id(), None)?;
            next_key(t, owner.id().inum, edited.snapshot, at..range.end)
        })?;
        let Some(found) = next else {
            return Ok(any);
        };
        at = at.max(found.start);
        let end = range.end.min(at + HOLE_MAX);
        let hole = Draft::hole(owner.id().inum, at..end);
        let mut reached = at;
        let mut none = DiskReservation::none();
        index::step(btree, owner, &hole, &mut none, &mut |inode, end| {
            reached = end;
            f(inode);
        })?;
        any = true;
        at = reached;
        if at >= range.end {
            return Ok(any);
        }
    }
}

/// Makes the file of `owner` end at `size` bytes: the inode says so, and what is behind the block with the end goes. Logged, if that does
/// not fit into one transaction: then the next mount goes on where a crash has interrupted it. Sleeps.
pub fn truncate<O: Owner>(btree: &Btree, owner: &O, size: u64, block_bytes: u64) -> Result {
    let first = size.div_ceil(block_bytes.max(1)).saturating_mul(block_bytes) / 512;
    if truncate_at_once(btree, owner, size, first)? {
        return Ok(());
    }
    let op = LoggedOpTruncate {
        subvol: owner.id().subvol,
        inum: owner.id().inum,
        new_i_size: size,
    };
    let place = logged::begin(btree, KeyType::LOGGED_OP_TRUNCATE, |words| op.build(words).ok())?;
    index::change_inode(btree, owner, &mut |_, inode| {
        inode.size = size;
        Ok(())
    })?;
    finish_truncate(btree, owner, first)?;
    logged::end(btree, place)
}

/// The part of a truncation that takes long: idempotent.
fn finish_truncate<O: Owner>(btree: &Btree, owner: &O, first: u64) -> Result {
    punch(btree, owner, first..END, &mut |_| ())?;
    Ok(())
}

/// Goes on with a truncation that was interrupted. Sleeps.
pub(super) fn resume_truncate<O: Owner>(
    btree: &Btree,
    owner: &O,
    op: &LoggedOpTruncate,
    block_bytes: u64,
) -> Result {
    let size = op.new_i_size;
    let first = size.div_ceil(block_bytes.max(1)).saturating_mul(block_bytes) / 512;
    index::change_inode(btree, owner, &mut |_, inode| {
        inode.size = size;
        Ok(())
    })?;
    finish_truncate(btree, owner, first)
}

/// Does it in one transaction, if all that has to go fits into one. Whether it does.
fn truncate_at_once<O: Owner>(btree: &Btree, owner: &O, size: u64, first: u64) -> Result<bool> {
    let mut all = false;
    index::change(btree, owner, None, &mut |t, edited| {
        let (inum, snapshot) = (owner.id().inum, edited.snapshot);
        let Some(found) = next_key(t, inum, snapshot, first..END)? else {
            all = true;
            edited.key.size = size;
            owner.amend(&mut edited.key);
            return Ok(());
        };
        let start = found.start.max(first);
        let hole = Draft::hole(inum, start..start + HOLE_MAX);
        let more = next_key(t, inum, snapshot, start + HOLE_MAX..END)?.is_some();
        let end = match more {
            true => start,
            false => index::reach(t, &hole, snapshot)?,
        };
        all = end == start + HOLE_MAX;
        if !all {
            return Ok(());
        }
        index::put(t, &hole, end, edited)?;
        edited.key.size = size;
        edited.key.flags = edited.key.flags.without(InodeFlags::I_SIZE_DIRTY);
        owner.amend(&mut edited.key);
        Ok(())
    })?;
    Ok(all)
}
