// SPDX-License-Identifier: GPL-2.0
//! Changing what a range of a file consists of: the keys of extents and the inode, in one transaction.

use bcachefs_format::{
    bkey::BKEY_U64S,
    keys::{extent::cut::cut_front, inode::Inode},
    Bkey, Bpos, BtreeId, KeyRef, KeyType,
};
use core::ops::Range;
use kernel::prelude::*;
use kfs::mem::insist;

use super::source::Owner;
use crate::{
    btree::{
        space::DiskReservation,
        trans::update::{CommitFlags, UpdateFlags},
        Attempt, Btree, IterFlags, TransError,
    },
    fs::inode::{edit, Changed, Edit},
    util::error::{Error, Result},
};

/// Result of what may restart.
pub(super) type Tried<T = ()> = core::result::Result<T, TransError>;

/// Words of the longest value there can be.
pub(super) const VALUE_WORDS_MAX: usize = bcachefs_format::bkey::BKEY_VAL_U64S_MAX as usize;

/// Words that describe an extent that is written here: a checksum, copies, and what is to be done with it in the background.
pub(super) const EXTENT_WORDS_MAX: usize = 3 + crate::btree::space::REPLICAS_MAX + 1;

/// For changes that space has been promised for, or that free some.
pub(super) const COMMIT: CommitFlags = CommitFlags {
    no_enospc: true,
    ..DEFAULT
};

const DEFAULT: CommitFlags = CommitFlags {
    watermark: crate::util::watermark::Watermark::Normal,
    no_enospc: false,
    no_check_rw: false,
    journal_reclaim: false,
    no_journal_res: None,
    skip_accounting: false,
    no_triggers: false,
};

/// Whether keys of this type count for what an inode says is allocated.
pub(super) fn is_allocated(key_type: KeyType) -> bool {
    matches!(
        key_type,
        KeyType::EXTENT
            | KeyType::RESERVATION
            | KeyType::REFLINK_P
            | KeyType::INLINE_DATA
            | KeyType::ERROR
    )
}

/// Sectors of `range` that are allocated in the file, as seen from `snapshot`.
pub(super) fn allocated(
    t: &mut Attempt<'_>,
    inum: u64,
    snapshot: u32,
    range: Range<u64>,
) -> Tried<u64> {
    let start = Bpos::with_snapshot(inum, range.start, snapshot);
    let end = Bpos::with_snapshot(inum, range.end, snapshot);
    let mut iter = t.iter(BtreeId::EXTENTS, start, IterFlags::INTENT);
    let mut sum = 0u64;
    while let Some(k) = iter.peek_upto(t, end)? {
        let (from, to) = (k.key.start_offset().max(range.start), k.key.pos.offset.min(range.end));
        if from < to && is_allocated(k.key.key_type) {
            sum += to - from;
        }
        if k.key.pos.offset >= range.end || !iter.advance() {
            break;
        }
    }
    Ok(sum)
}

/// A key that is to be put into the extents btree, piece by piece if need be.
pub(super) struct Draft {
    pub key: Bkey,
    /// As many words as were asked for; the key says how many are in use.
    value: KVec<u64>,
}

impl Draft {
    /// Of nothing, which makes a hole of `range`. Its length fits into 32 bits. Does not allocate.
    pub(super) fn hole(inum: u64, range: Range<u64>) -> Self {
        let size = range.end.saturating_sub(range.start);
        let mut key = Bkey::deleted(Bpos::new(inum, range.end));
        key.size = u32::try_from(size).unwrap_or(u32::MAX);
        Draft { key, value: KVec::new() }
    }

    /// With room for a value of `words` words, to be [set](Self::set). Sleeps until there is memory.
    pub(super) fn with_room(words: usize) -> Self {
        let value = insist(|| KVec::from_elem(0u64, words, GFP_KERNEL));
        Draft { key: Bkey::default(), value }
    }

    /// A key for `range` of the file whose value, of at most `words` words, `fill` writes; it returns the words used. Sleeps until there is memory.
    pub(super) fn new(
        key_type: KeyType,
        inum: u64,
        range: Range<u64>,
        words: usize,
        fill: impl FnOnce(&mut [u64]) -> Option<usize>,
    ) -> Result<Self> {
        let mut draft = Self::with_room(words);
        draft.set(key_type, inum, range, fill)?;
        Ok(draft)
    }

    /// Makes it another key. Does not allocate.
    pub(super) fn set(
        &mut self,
        key_type: KeyType,
        inum: u64,
        range: Range<u64>,
        fill: impl FnOnce(&mut [u64]) -> Option<usize>,
    ) -> Result {
        let used = fill(&mut self.value).filter(|used| *used <= self.value.len());
        let used = used.ok_or(Error::ExtentInvalid)?;
        let size = range.end.saturating_sub(range.start);
        let u64s = used.checked_add(BKEY_U64S.into()).and_then(|n| u8::try_from(n).ok());
        self.key = Bkey {
            u64s: u64s.ok_or(Error::ExtentInvalid)?,
            key_type,
            pos: Bpos::new(inum, range.end),
            size: u32::try_from(size).map_err(|_| Error::ExtentInvalid)?,
            ..Bkey::default()
        };
        Ok(())
    }

    /// Makes it a copy of `key`. Does not allocate.
    pub(super) fn copy(&mut self, key: KeyRef<'_>) -> Result {
        let to = self.value.get_mut(..key.value.len()).ok_or(Error::ExtentInvalid)?;
        to.copy_from_slice(key.value);
        self.key = key.key;
        Ok(())
    }

    /// The key in `snapshot`.
    pub(super) fn at(&self, snapshot: u32) -> KeyRef<'_> {
        let mut key = self.key;
        key.pos.snapshot = snapshot;
        let used = usize::from(key.value_u64s());
        KeyRef { key, value: self.value.get(..used).unwrap_or(&[]) }
    }

    /// The part of it before sector `end`, in `snapshot`.
    fn until(&self, end: u64, snapshot: u32) -> KeyRef<'_> {
        let mut part = self.at(snapshot);
        if end >= part.key.pos.offset {
            return part;
        }
        let size = end.saturating_sub(part.key.start_offset());
        part.key.pos.offset = end;
        part.key.size = part.key.size.min(u32::try_from(size).unwrap_or(u32::MAX));
        if part.key.key_type == KeyType::INLINE_DATA {
            let words = usize::try_from(size.saturating_mul(64)).unwrap_or(usize::MAX);
            let words = part.value.len().min(words);
            part.value = part.value.get(..words).unwrap_or(&[]);
            // Not more than before.
            part.key.u64s = BKEY_U64S + words as u8;
        }
        part
    }

    /// Drops the part behind `end`.
    pub(super) fn cut_back(&mut self, end: u64) {
        self.key = self.until(end, self.key.pos.snapshot).key;
    }

    /// Drops the part before `start`.
    pub(super) fn advance(&mut self, start: u64) -> Result {
        if self.key.key_type == KeyType::DELETED {
            let rest = self.key.pos.offset.saturating_sub(start);
            self.key.size = self.key.size.min(u32::try_from(rest).unwrap_or(u32::MAX));
            return Ok(());
        }
        cut_front(&mut self.key, &mut self.value, start).map_err(Error::from)
    }
}

/// How far one transaction can go with `draft`: up to which sector. May sleep and restart.
pub(super) fn reach(t: &mut Attempt<'_>, draft: &Draft, snapshot: u32) -> Tried<u64> {
    let end = t.extent_end(BtreeId::EXTENTS, draft.at(snapshot))?;
    match end > draft.key.start_offset() {
        true => Ok(end),
        false => Err(Error::TransTooBig.into()),
    }
}

/// Puts `draft` up to sector `end`, which is not further than it reaches, in the place of what it covers; the inode's sectors follow. May sleep and restart.
#[inline(never)]
pub(super) fn put(t: &mut Attempt<'_>, draft: &Draft, end: u64, edited: &mut Edit) -> Tried {
    let start = draft.key.start_offset();
    let before = allocated(t, edited.key.inum, edited.snapshot, start..end)?;
    let after = if is_allocated(draft.key.key_type) { end - start } else { 0 };
    let part = draft.until(end, edited.snapshot);
    t.insert(BtreeId::EXTENTS, part, UpdateFlags::default())?;
    let sectors = &mut edited.key.sectors;
    *sectors = sectors.saturating_add(after).saturating_sub(before);
    Ok(())
}

/// What [`change`] runs: with locks held, perhaps more than once.
pub(super) type Change<'a> = dyn FnMut(&mut Attempt<'_>, &mut Edit) -> Tried + 'a;

/// A transaction that changes the inode of `owner`, and whatever else `f` puts into it. Sleeps.
pub(super) fn change<O: Owner>(
    btree: &Btree,
    owner: &O,
    reservation: Option<&mut DiskReservation>,
    f: &mut Change<'_>,
) -> Result {
    let mut changed = None;
    let seq = commit(btree, owner, reservation, f, &mut changed)?;
    if let Some(changed) = &changed {
        owner.committed(changed, seq);
    }
    Ok(())
}

/// Apart from what is done with the result: keys are large, and so is what a transaction needs of the stack.
#[inline(never)]
fn commit<O: Owner>(
    btree: &Btree,
    owner: &O,
    reservation: Option<&mut DiskReservation>,
    f: &mut Change<'_>,
    out: &mut Option<Changed>,
) -> Result<u64> {
    let ((), done) = btree.commit(reservation, COMMIT, |t| attempt(t, owner, f, out))?;
    Ok(done.seq)
}

#[inline(never)]
fn attempt<O: Owner>(
    t: &mut Attempt<'_>,
    owner: &O,
    f: &mut Change<'_>,
    out: &mut Option<Changed>,
) -> Tried {
    let mut edited = edit(t, owner.id(), owner.state())?;
    f(t, &mut edited)?;
    *out = Some(edited.put(t)?);
    Ok(())
}

/// Changes the inode of `owner` by `f`. Sleeps.
pub fn change_inode<O: Owner>(
    btree: &Btree,
    owner: &O,
    f: &mut dyn FnMut(&mut Attempt<'_>, &mut Inode) -> Tried,
) -> Result {
    change(btree, owner, None, &mut |t, edited| {
        f(t, &mut edited.key)?;
        owner.amend(&mut edited.key);
        Ok(())
    })
}

/// Puts as much of `draft` as one transaction can take in the place of what it covers, from its start on; `f` changes what else of the inode has to be, knowing up
/// to which sector that is. Sleeps.
pub(super) fn step<O: Owner>(
    btree: &Btree,
    owner: &O,
    draft: &Draft,
    reservation: &mut DiskReservation,
    f: &mut dyn FnMut(&mut Inode, u64),
) -> Result {
    change(btree, owner, Some(reservation), &mut |t, edited| {
        let end = reach(t, draft, edited.snapshot)?;
        put(t, draft, end, edited)?;
        f(&mut edited.key, end);
        owner.amend(&mut edited.key);
        Ok(())
    })
}

/// Puts all of `draft` in the place of what it covers, in as many transactions as that takes. `f` as for [`step`], once for each. Sleeps.
pub(super) fn replace_all<O: Owner>(
    btree: &Btree,
    owner: &O,
    mut draft: Draft,
    reservation: &mut DiskReservation,
    f: &mut dyn FnMut(&mut Inode, u64),
) -> Result {
    loop {
        let mut reached = 0;
        step(btree, owner, &draft, reservation, &mut |inode, end| {
            reached = end;
            f(inode, end);
        })?;
        if reached >= draft.key.pos.offset {
            return Ok(());
        }
        draft.advance(reached)?;
    }
}
