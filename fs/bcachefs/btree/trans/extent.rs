// SPDX-License-Identifier: GPL-2.0
//! Changes of ranges.
//!
//! In a tree of extents every key stands for the sectors from its start to its position. What a new range covers has to go from the
//! ranges that are there: of each the part before and the part behind stay, and where it belongs to an ancestor of the snapshot that is
//! written to, the part in the middle as well, for the others who see it. Each of these parts is a key of its own.
//!
//! A key hides the keys of ancestors at exactly the same position, and ranges are at their ends. So a part that ends elsewhere than the
//! range it is from would be seen by descendants that have overwritten the range: they get a whiteout there.

use super::{
    pending::{Stored, VALUE_U64S_MAX},
    update::UpdateFlags,
    Attempt, TransError,
};
use crate::{
    btree::{iter::Iter, IterFlags},
    util::error::Error,
};
use bcachefs_format::{
    keys::{
        extent::{cut::{cut_back, cut_front}, Entries},
        reflink::ReflinkP,
    },
    Bkey, Bpos, BtreeId, KeyRef, KeyType,
};
/// Result of what may restart.
type Tried<T = ()> = core::result::Result<T, TransError>;

/// Keys that one transaction changes for a range, pointers counting by themselves: a third of the paths there are.
const KEYS_MAX: u32 = crate::btree::path::PATHS_MAX as u32 / 3;

/// Flags of the iterators in here: keys one by one, to be changed, and nothing must come in between.
const KEYS: IterFlags = IterFlags::NOT_EXTENTS.with(IterFlags::INTENT).with(IterFlags::KEEP);

/// The entries of a key that has pointers.
fn entries(key: KeyRef<'_>) -> Option<Entries<'_>> {
    let words = match key.key.key_type {
        KeyType::EXTENT | KeyType::BTREE_PTR => key.value,
        KeyType::REFLINK_V => key.value.get(1..)?,
        _ => return None,
    };
    Some(Entries::new(words, key.key.size))
}

/// A key that hides what ancestors have at `pos`.
fn whiteout(pos: Bpos) -> Stored {
    Stored::bare(Bkey {
        key_type: KeyType::WHITEOUT,
        ..Bkey::deleted(pos)
    })
}

/// Sectors that the compressed copies of an extent take on disk.
fn compressed_sectors(key: KeyRef<'_>) -> u64 {
    let ptrs = entries(key).map(|e| e.decoded());
    ptrs.into_iter()
        .flatten()
        .filter(|p| p.is_dirty() && p.crc.is_compressed())
        .map(|p| p.crc.disk_sectors())
        .sum()
}

/// Whether `right`, which starts where `left` ends, says the same about its range.
fn continues(left: &KeyRef<'_>, right: &KeyRef<'_>) -> bool {
    let mergeable = match left.key.key_type {
        KeyType::SET => true,
        KeyType::RESERVATION => left.value == right.value,
        // Data: checksums would have to be computed.
        _ => false,
    };
    mergeable
        && left.key.key_type == right.key.key_type
        && left.key.version == right.key.version
        && left.key.pos == right.key.start_pos()
        && left.key.size.checked_add(right.key.size).is_some()
}

impl<'t> Attempt<'t> {
    /// Puts `new` in the place of all that it covers, as seen from its snapshot. A deleted key leaves a hole.
    #[inline(never)]
    pub(super) fn put_range(
        &mut self,
        btree: BtreeId,
        mut new: Stored,
        flags: UpdateFlags,
    ) -> Tried {
        let start = new.key.start_pos();
        if new.key.size == 0 {
            return Err(Error::BtreeKeyInvalid.into());
        }
        let mut iter = self.iter(btree, start, KEYS);
        let end = Bpos::with_snapshot(start.inode, u64::MAX, start.snapshot);
        while let Some(old) = self.copy_next(&mut iter, end)? {
            if old.key.pos.eq_nosnap(start) {
                // It ends where the new one starts.
                if self.may_merge(btree, &old, &new)? {
                    new.key.size += old.key.size;
                    self.put_deleted(btree, old.key.pos, flags, None)?;
                }
            } else if old.key.start_offset() >= new.key.pos.offset {
                if old.key.start_offset() == new.key.pos.offset && self.may_merge(btree, &new, &old)? {
                    // At the position of the old one, which it replaces.
                    new.key.size += old.key.size;
                    new.key.pos = old.key.pos;
                }
                break;
            } else {
                self.overwrite(btree, &old, &new, flags)?;
                if old.key.pos.offset > new.key.pos.offset {
                    break;
                }
            }
            if !iter.advance() {
                break;
            }
        }
        if new.key.key_type == KeyType::DELETED {
            return Ok(());
        }
        self.put(btree, 0, new, flags, None)
    }

    /// A copy of the next key that the iterator shows, in the transaction's buffer.
    fn copy_next(&mut self, iter: &mut Iter<'t>, end: Bpos) -> Tried<Option<Stored>> {
        self.make_room(VALUE_U64S_MAX)?;
        iter.copy_upto(self, end)
    }

    /// Whether the ranges can become one key, and that is all right with those who see them.
    fn may_merge(&mut self, btree: BtreeId, left: &Stored, right: &Stored) -> Tried<bool> {
        if !continues(&self.pending.get(left), &self.pending.get(right)) {
            return Ok(false);
        }
        // Replay puts keys where they were.
        if self.btree.overlay(btree, 0).is_some() {
            return Ok(false);
        }
        Ok(!self.hidden_in_descendants(btree, left.key.pos)?
            && !self.hidden_in_descendants(btree, right.key.pos)?)
    }

    /// Takes the range of `new` out of `old`.
    fn overwrite(
        &mut self,
        btree: BtreeId,
        old: &Stored,
        new: &Stored,
        flags: UpdateFlags,
    ) -> Tried {
        let (start, end) = (new.key.start_offset(), new.key.pos.offset);
        let shared = old.key.pos.snapshot != new.key.pos.snapshot;
        let front = old.key.start_offset() < start;
        let back = old.key.pos.offset > end;
        let middle = shared && (front || back);
        let parts = u64::from(front) + u64::from(middle) + u64::from(back);
        if parts > 1 {
            // Each part refers to all of what was compressed together.
            let sectors = compressed_sectors(self.pending.get(old));
            self.extra_sectors(sectors.saturating_mul(parts - 1));
        }
        self.make_room(3 * usize::from(old.key.value_u64s()))?;
        let inner = UpdateFlags {
            internal_snapshot: true,
            ..flags
        };
        if front {
            let part = self.cut(old, None, Some(start))?;
            self.hide_part(btree, old.key.pos, part.key.pos)?;
            self.put(btree, 0, part, inner, None)?;
        }
        if middle {
            let part = self.cut(old, Some(start), Some(end))?;
            self.hide_part(btree, old.key.pos, part.key.pos)?;
            self.put(btree, 0, part, inner, None)?;
            if new.key.key_type == KeyType::DELETED && back {
                // Nothing else hides it from the snapshot with the hole.
                self.put(btree, 0, whiteout(new.key.pos), flags, None)?;
            }
        }
        if back {
            let part = self.cut(old, Some(end), None)?;
            return self.put(btree, 0, part, inner, None);
        }
        let pos = old.key.pos.at_snapshot(new.key.pos.snapshot);
        if shared {
            return self.put(btree, 0, whiteout(pos), flags, None);
        }
        self.put_deleted(btree, pos, flags, None)
    }

    /// A copy of `key` from `start` to `end`.
    fn cut(&mut self, key: &Stored, start: Option<u64>, end: Option<u64>) -> Tried<Stored> {
        let mut part = self.pending.store_again(key)?;
        let mut header = part.key;
        let value = self.pending.value_mut(&part);
        if let Some(end) = end {
            cut_back(&mut header, value, end)?;
        }
        if let Some(start) = start {
            cut_front(&mut header, value, start)?;
        }
        part.key = header;
        Ok(part)
    }

    /// A part of the range at `old` is put at `pos`: those who have overwritten the range must not see it.
    fn hide_part(&mut self, btree: BtreeId, old: Bpos, pos: Bpos) -> Tried {
        if old == pos || !btree.has_snapshots() {
            return Ok(());
        }
        let ids = self.overwriting(btree, old)?;
        for &id in ids.iter() {
            // Whoever is below one that hides it does not see it.
            let covered = ids.iter().any(|a| *a != id && self.btree.sees(id, *a));
            if covered {
                continue;
            }
            let at = pos.at_snapshot(id);
            let flags = IterFlags::ALL_SNAPSHOTS | IterFlags::SLOTS | KEYS;
            let mut iter = self.iter(btree, at, flags);
            let free = iter
                .peek(self)?
                .is_none_or(|k| k.key.key_type == KeyType::DELETED);
            if free {
                let flags = UpdateFlags {
                    exact: true,
                    internal_snapshot: true,
                    ..UpdateFlags::default()
                };
                self.put(btree, 0, whiteout(at), flags, iter.path_index())?;
            }
        }
        Ok(())
    }

    /// How far a transaction that puts `key`, of a tree of extents, may go: up to which offset the keys that it changes, and those that
    /// triggers change for them, are few enough. The rest has to go into the transactions after it. May sleep.
    pub fn extent_end(&mut self, btree: BtreeId, key: KeyRef<'_>) -> Tried<u64> {
        self.check()?;
        let end = key.key.pos;
        let mut keys = 0;
        // Half for what comes.
        let reach = self.count_keys(&key.key, Refs::of(key)?, KEYS_MAX / 2, &mut keys)?;
        let until = Bpos::with_snapshot(end.inode, end.offset.min(reach), end.snapshot);
        let mut iter = self.iter(btree, key.key.start_pos(), IterFlags::INTENT);
        while let Some(k) = iter.peek_upto(self, until)? {
            let (old, refs) = (k.key, Refs::of(k)?);
            keys += 1;
            let reach = self.count_keys(&old, refs, KEYS_MAX, &mut keys)?;
            if keys >= KEYS_MAX || reach < old.pos.offset {
                return Ok(until.offset.min(reach).min(old.pos.offset));
            }
            if !iter.advance() {
                break;
            }
        }
        Ok(until.offset)
    }

    /// Adds to `keys` how many keys triggers change for a key that refers to `refs`, up to about `max`; up to which offset of the key that
    /// is.
    fn count_keys(&mut self, key: &Bkey, refs: Refs, max: u32, keys: &mut u32) -> Tried<u64> {
        let p = match refs {
            Refs::Ptrs(n) => {
                *keys += n;
                return Ok(key.pos.offset);
            }
            Refs::Shared(p) => p,
        };
        let first = p.idx.saturating_sub(p.front_pad.into());
        let size = u64::from(key.size).saturating_add(p.back_pad.into());
        let last = p.idx.saturating_add(size);
        let mut iter = self.iter(BtreeId::REFLINK, Bpos::new(0, first), IterFlags::NONE);
        while let Some(k) = iter.peek_upto(self, Bpos::new(0, last))? {
            let at = k.key.pos.offset;
            *keys += 1 + entries(k).map_or(0, |e| e.ptrs().count() as u32);
            if *keys >= max && at < last {
                // At least one sector, or nothing would ever be done.
                let sectors = at.saturating_sub(p.idx).max(1);
                let reach = key.start_offset().saturating_add(sectors);
                return Ok(reach.min(key.pos.offset));
            }
            if !iter.advance() {
                break;
            }
        }
        Ok(key.pos.offset)
    }
}

/// What else changes with a key.
enum Refs {
    /// The buckets of so many pointers.
    Ptrs(u32),
    /// The shared extents in a range.
    Shared(ReflinkP),
}

impl Refs {
    fn of(key: KeyRef<'_>) -> Tried<Self> {
        Ok(match key.key.key_type {
            KeyType::REFLINK_P => Refs::Shared(ReflinkP::parse(key)?),
            _ => Refs::Ptrs(entries(key).map_or(0, |e| e.ptrs().count() as u32)),
        })
    }
}
