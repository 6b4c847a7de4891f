// SPDX-License-Identifier: GPL-2.0
//! Moving what a file consists of from one place in it to another: inserting and collapsing ranges.
//!
//! Logged: the key of the operation says how far it is, and each step changes that in the transaction that moves an extent. Going on
//! after a crash is the same as going on without one.
//!
//! With `len` the distance, inserting moves what is at `src` and behind to `dst = src + len`, the last extent first; collapsing makes a hole
//! of `len` at `src` and moves what is behind it down, the first extent first, to `dst = src - len` on.

use bcachefs_format::{
    keys::logged_op::{FinsertState, LoggedOpFinsert},
    Bpos, BtreeId, KeyType,
};

use super::{
    index::{self, Draft, Tried, VALUE_WORDS_MAX},
    logged,
    punch::{self, END},
    source::Owner,
};
use crate::{
    btree::{
        trans::update::UpdateFlags,
        Attempt, Btree, IterFlags,
    },
    fs::inode::Edit,
    util::error::{Error, Result},
};

/// Makes room of `len` sectors at sector `at` of the file of `owner`: what is there and behind moves up. Sleeps.
pub fn insert<O: Owner>(btree: &Btree, owner: &O, at: u64, len: u64) -> Result {
    start(btree, owner, LoggedOpFinsert {
        state: FinsertState::START,
        subvol: owner.id().subvol,
        inum: owner.id().inum,
        dst_offset: at.checked_add(len).ok_or(Error::ExtentInvalid)?,
        src_offset: at,
        pos: u64::MAX,
    })
}

/// Takes `len` sectors at sector `at` out of the file of `owner`: what is behind moves down. Sleeps.
pub fn collapse<O: Owner>(btree: &Btree, owner: &O, at: u64, len: u64) -> Result {
    start(btree, owner, LoggedOpFinsert {
        state: FinsertState::START,
        subvol: owner.id().subvol,
        inum: owner.id().inum,
        // Only the distance counts; it may be below the start of the file.
        dst_offset: at.wrapping_sub(len),
        src_offset: at,
        pos: at,
    })
}

fn start<O: Owner>(btree: &Btree, owner: &O, op: LoggedOpFinsert) -> Result {
    let place = logged::begin(btree, KeyType::LOGGED_OP_FINSERT, |words| op.build(words).ok())?;
    run(btree, owner, place, op)?;
    logged::end(btree, place)
}

/// Goes on with an operation that was interrupted. Sleeps.
pub(super) fn resume<O: Owner>(btree: &Btree, owner: &O, place: u64, op: LoggedOpFinsert) -> Result {
    run(btree, owner, place, op)
}

/// Whether it is an insertion, and the distance.
fn distance(op: &LoggedOpFinsert) -> (bool, u64) {
    let up = op.dst_offset.wrapping_sub(op.src_offset);
    match up <= END {
        true => (true, up),
        false => (false, up.wrapping_neg()),
    }
}

fn note(t: &mut Attempt<'_>, place: u64, op: &LoggedOpFinsert) -> Tried {
    logged::put(t, KeyType::LOGGED_OP_FINSERT, place, &|words| op.build(words).ok())
}

fn run<O: Owner>(btree: &Btree, owner: &O, place: u64, mut op: LoggedOpFinsert) -> Result {
    let (up, len) = distance(&op);
    let bytes = len.saturating_mul(512);
    if op.state == FinsertState::START {
        if !up {
            punch::punch(btree, owner, op.src_offset..op.src_offset + len, &mut |_| ())?;
        }
        op.state = FinsertState::SHIFT_EXTENTS;
        index::change(btree, owner, None, &mut |t, edited| {
            if up {
                edited.key.size = edited.key.size.saturating_add(bytes);
            }
            owner.amend(&mut edited.key);
            note(t, place, &op)
        })?;
    }
    if op.state == FinsertState::SHIFT_EXTENTS {
        while shift_one(btree, owner, place, &mut op, up, len)? {}
        op.state = FinsertState::FINISH;
        index::change(btree, owner, None, &mut |t, edited| {
            if !up {
                edited.key.size = edited.key.size.saturating_sub(bytes);
            }
            owner.amend(&mut edited.key);
            note(t, place, &op)
        })?;
    }
    Ok(())
}

/// Moves one extent, or a part of one; whether there was one.
fn shift_one<O: Owner>(
    btree: &Btree,
    owner: &O,
    place: u64,
    op: &mut LoggedOpFinsert,
    up: bool,
    len: u64,
) -> Result<bool> {
    let mut next = *op;
    let mut moved = false;
    let mut draft = Draft::with_room(VALUE_WORDS_MAX);
    index::change(btree, owner, None, &mut |t, edited| {
        next = *op;
        let behind = op.pos.max(op.src_offset.saturating_add(len));
        moved = match up {
            true => last_before(t, edited, op.src_offset, op.pos, &mut draft)?,
            false => first_behind(t, edited, behind, &mut draft)?,
        };
        if !moved {
            return Ok(());
        }
        // What is moved in one transaction has to fit into one, at its old place and at its new one.
        let (start, end) = (draft.key.start_offset(), draft.key.pos.offset);
        let reach = index::reach(t, &draft, edited.snapshot)?;
        if reach < end {
            match up {
                true => {
                    // The rear part, as long as the front part that would fit.
                    let rear = end - (reach - start);
                    draft.advance(rear)?;
                }
                false => draft.cut_back(reach),
            }
        }
        let (start, end) = (draft.key.start_offset(), draft.key.pos.offset);
        let hole = Draft::hole(edited.key.inum, start..end);
        t.insert(BtreeId::EXTENTS, hole.at(edited.snapshot), UpdateFlags::default())?;
        draft.key.pos.offset = match up {
            true => end.checked_add(len).ok_or(Error::ExtentInvalid)?,
            false => end.checked_sub(len).ok_or(Error::ExtentInvalid)?,
        };
        t.insert(BtreeId::EXTENTS, draft.at(edited.snapshot), UpdateFlags::default())?;
        next.pos = if up { start } else { end };
        note(t, place, &next)
    })?;
    *op = next;
    Ok(moved)
}

/// Whether an extent is seen before `pos`, from `start` on: the last one, as far as it is, goes to `draft`.
#[inline(never)]
fn last_before(
    t: &mut Attempt<'_>,
    edited: &Edit,
    start: u64,
    pos: u64,
    draft: &mut Draft,
) -> Tried<bool> {
    let at = Bpos::with_snapshot(edited.key.inum, pos.min(END), edited.snapshot);
    let mut iter = t.iter(BtreeId::EXTENTS, at, IterFlags::INTENT);
    let Some(key) = iter.peek_prev(t)? else {
        return Ok(false);
    };
    if key.key.pos.inode != edited.key.inum || key.key.pos.offset <= start {
        return Ok(false);
    }
    draft.copy(key)?;
    draft.advance(start)?;
    draft.cut_back(pos.min(END));
    Ok(true)
}

/// Whether an extent is seen at `pos` or behind: the first one, from there on, goes to `draft`.
#[inline(never)]
fn first_behind(t: &mut Attempt<'_>, edited: &Edit, pos: u64, draft: &mut Draft) -> Tried<bool> {
    let at = Bpos::with_snapshot(edited.key.inum, pos, edited.snapshot);
    let end = Bpos::with_snapshot(edited.key.inum, END, edited.snapshot);
    let mut iter = t.iter(BtreeId::EXTENTS, at, IterFlags::INTENT);
    let Some(key) = iter.peek_upto(t, end)? else {
        return Ok(false);
    };
    draft.copy(key)?;
    draft.advance(pos)?;
    Ok(true)
}
