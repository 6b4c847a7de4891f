// SPDX-License-Identifier: GPL-2.0
//! Deleting inodes that have no names and no users any more.
//!
//! What belongs to the inode goes first, in as many transactions as it takes; the inode last. A crash in between leaves
//! an inode without names, whose deletion the next mount finishes.

use core::ops::ControlFlow;

use bcachefs_format::{
    bkey::{Bkey, BKEY_U64S},
    keys::inode::{Inode, InodeFlags, InodeGeneration},
    pos::Bpos,
    BtreeId, KeyRef, KeyType,
};

use kernel::prelude::*;

use super::{super::dirent, edit::edit_in};
use crate::{
    btree::{
        trans::update::{CommitFlags, UpdateFlags},
        Attempt, Btree, IterFlags, TransError,
    },
    util::{
        error::{Error, Result as Done},
        watermark::Watermark,
    },
};

/// Deleting gives space back, so it may use what others may not.
const IN_USE: How = How {
    update: UpdateFlags {
        exact: false,
        internal_snapshot: false,
        no_triggers: false,
        bypass_key_cache: false,
        invalidate: false,
    },
    commit: CommitFlags {
        watermark: Watermark::Normal,
        no_enospc: true,
        no_check_rw: false,
        journal_reclaim: false,
        no_journal_res: None,
        skip_accounting: false,
        no_triggers: false,
    },
};

/// While the filesystem is being mounted. What nobody sees any more from a snapshot that has others below is deleted there: they have no
/// versions of their own.
const AT_MOUNT: How = How {
    update: UpdateFlags { internal_snapshot: true, ..IN_USE.update },
    commit: CommitFlags { no_check_rw: true, ..IN_USE.commit },
};

/// How deletions are made.
#[derive(Copy, Clone)]
struct How {
    update: UpdateFlags,
    commit: CommitFlags,
}

/// Positions on the list that are taken at a time.
const BATCH: usize = 256;

/// Deletes the inode with number `inum` in `snapshot`, which has no links, and all that belongs to it. Its last user is gone.
/// Sleeps.
///
/// # Errors
///
/// [`Error::InodeMissing`] if it is gone already; [`Error::NotPermitted`] if it has a name after all.
pub fn delete_unused(btree: &Btree, inum: u64, snapshot: u32) -> Done {
    delete(btree, inum, snapshot, &IN_USE)
}

fn delete(btree: &Btree, inum: u64, snapshot: u32, how: &How) -> Done {
    let inode = btree.run(|t| Ok(edit_in(t, inum, snapshot, None)?.key))?;
    check(&inode, snapshot)?;
    let start = Bpos::with_snapshot(inum, 0, snapshot);
    let end = Bpos::with_snapshot(inum.saturating_add(1), 0, snapshot);
    for id in [BtreeId::EXTENTS, BtreeId::XATTRS, BtreeId::DIRENTS] {
        let has = match id {
            BtreeId::EXTENTS => inode.mode.is_reg() || inode.mode.is_lnk(),
            BtreeId::DIRENTS => inode.mode.is_dir(),
            _ => true,
        };
        if has {
            btree.delete_range(id, start, end, how.update, how.commit)?;
        }
    }
    btree.commit(None, how.commit, |t| leave_generation(t, inum, snapshot, how.update))?;
    Ok(())
}


fn check(inode: &Inode, snapshot: u32) -> Done {
    let unlinked = inode.flags.contains(InodeFlags::UNLINKED);
    if !unlinked || inode.snapshot == snapshot && inode.flags.contains(InodeFlags::HAS_CHILD_SNAPSHOT)
    {
        return Err(Error::NotPermitted);
    }
    Ok(())
}

/// Puts the next generation in the place of the inode.
#[inline(never)]
fn leave_generation(
    t: &mut Attempt<'_>,
    inum: u64,
    snapshot: u32,
    flags: UpdateFlags,
) -> core::result::Result<(), TransError> {
    let edit = edit_in(t, inum, snapshot, None)?;
    check(&edit.key, snapshot)?;
    let generation = InodeGeneration { generation: edit.key.generation.wrapping_add(1) };
    let mut words = [0; 2];
    let n = generation.build(&mut words).map_err(|_| Error::InodeInvalid)?;
    let value = words.get(..n).ok_or(Error::InodeInvalid)?;
    let key = Bkey {
        key_type: KeyType::INODE_GENERATION,
        u64s: BKEY_U64S.saturating_add(n as u8),
        ..Bkey::deleted(Bpos::with_snapshot(0, inum, snapshot))
    };
    t.insert(BtreeId::INODES, KeyRef { key, value }, flags)
}

/// Finishes, before anybody uses the filesystem, the deletion of all inodes that have no names. Entries of the list of those that are
/// not without names, or not without versions in snapshots below, come off it. Returns how many were deleted. Sleeps for long.
pub fn finish_all(btree: &Btree) -> Done<u64> {
    // The list is written late.
    btree.flush_write_buffer()?;
    let mut deleted = 0;
    let mut from = Bpos::POS_MIN;
    loop {
        let (found, more) = listed(btree, from)?;
        for &pos in found.iter() {
            from = pos.successor().unwrap_or(Bpos::SPOS_MAX);
            match finish(btree, pos) {
                Ok(()) => deleted += 1,
                Err(Error::InodeMissing | Error::NotPermitted | Error::DirectoryNotEmpty) => {
                    unlist(btree, pos)?;
                }
                Err(e) => return Err(e),
            }
        }
        if !more {
            return Ok(deleted);
        }
    }
}

fn finish(btree: &Btree, pos: Bpos) -> Done {
    let inode = btree.run(|t| Ok(edit_in(t, pos.offset, pos.snapshot, None)?.key))?;
    if inode.snapshot != pos.snapshot {
        return Err(Error::InodeMissing);
    }
    if inode.mode.is_dir() && !btree.run(|t| dirent::is_empty(t, pos.offset, pos.snapshot, None))? {
        return Err(Error::DirectoryNotEmpty);
    }
    delete(btree, pos.offset, pos.snapshot, &AT_MOUNT)
}

/// Some positions on the list, from `from` on, and whether there may be more.
fn listed(btree: &Btree, from: Bpos) -> Done<(KVec<Bpos>, bool)> {
    let mut found = KVec::with_capacity(BATCH, GFP_KERNEL)?;
    let flags = IterFlags::ALL_SNAPSHOTS;
    btree.walk(BtreeId::DELETED_INODES, from, Bpos::SPOS_MAX, flags, |key| {
        if !key.key.key_type.is_whiteout() && found.push_within_capacity(key.key.pos).is_err() {
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let more = found.len() == BATCH;
    Ok((found, more))
}

fn unlist(btree: &Btree, pos: Bpos) -> Done {
    btree.commit(None, AT_MOUNT.commit, |t| {
        let key = KeyRef { key: Bkey::deleted(pos), value: &[] };
        t.write_buffered(BtreeId::DELETED_INODES, key)
    })?;
    Ok(())
}
