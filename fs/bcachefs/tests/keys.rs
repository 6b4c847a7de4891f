// SPDX-License-Identifier: GPL-2.0
//! The keys that tests make, and taking all of them away.

use crate::{
    btree::{
        trans::update::{CommitFlags, Committed, UpdateFlags},
        Attempt, Btree, IterFlags, TransError,
    },
    util::error::Result,
};
use bcachefs_format::{bkey::BKEY_U64S, Bkey, Bpos, BtreeId, KeyRef, KeyType};

/// Trees that tests use: points, and ranges. Both hold keys for each snapshot.
pub(super) const POINTS: BtreeId = BtreeId::XATTRS;
pub(super) const RANGES: BtreeId = BtreeId::EXTENTS;

/// The snapshot of the filesystem's first subvolume, until that has snapshots.
pub(super) const SNAPSHOT: u32 = u32::MAX;

/// Inodes below this one belong to tests. The first of them to measurements; the others to a thread each.
pub(super) const INODES: u64 = 128;

/// The inode of a thread.
pub(super) fn inode_of(thread: u32) -> u64 {
    u64::from(thread) + 1
}

/// A position seen from the usual snapshot.
pub(super) const fn pos(inode: u64, offset: u64) -> Bpos {
    Bpos::with_snapshot(inode, offset, SNAPSHOT)
}

/// A key with one word as its value, or one that deletes.
#[derive(Copy, Clone, Debug)]
pub(super) struct Cookie {
    key: Bkey,
    value: [u64; 1],
}

impl Cookie {
    /// A point.
    pub(super) fn point(pos: Bpos, value: u64) -> Self {
        Cookie {
            key: Bkey {
                u64s: BKEY_U64S + 1,
                key_type: KeyType::COOKIE,
                pos,
                ..Bkey::default()
            },
            value: [value],
        }
    }

    /// A range: from `start` on, as long as `size`.
    pub(super) fn range(start: Bpos, size: u32, value: u64) -> Self {
        let mut end = start;
        end.offset = start.offset.saturating_add(size.into());
        let mut cookie = Self::point(end, value);
        cookie.key.size = size;
        cookie
    }

    /// What takes a range away.
    pub(super) fn hole(start: Bpos, size: u32) -> Self {
        let mut hole = Self::range(start, size, 0);
        hole.key.u64s = BKEY_U64S;
        hole.key.key_type = KeyType::DELETED;
        hole
    }

    /// As the btree wants it.
    pub(super) fn as_ref(&self) -> KeyRef<'_> {
        KeyRef {
            key: self.key,
            value: self
                .value
                .get(..self.key.value_u64s().into())
                .unwrap_or(&[]),
        }
    }
}

/// The value of a cookie; `None` for other keys.
pub(super) fn value_of(k: KeyRef<'_>) -> Option<u64> {
    match k.key.key_type {
        KeyType::COOKIE => k.value.first().copied(),
        _ => None,
    }
}

/// [`Btree::commit`] without anything special.
#[track_caller]
pub(super) fn commit<R>(
    btree: &Btree,
    f: impl for<'t> FnMut(&mut Attempt<'t>) -> core::result::Result<R, TransError>,
) -> Result<(R, Committed)> {
    btree.commit(None, CommitFlags::default(), f)
}

/// Takes away every key of every snapshot in the inodes of tests, whiteouts included. Sleeps.
pub(super) fn clear(btree: &Btree) -> Result {
    for id in [POINTS, RANGES] {
        clear_inodes(btree, id, 0, INODES)?;
    }
    Ok(())
}

/// The same for one btree and the inodes `from..to`.
pub(super) fn clear_inodes(btree: &Btree, id: BtreeId, from: u64, to: u64) -> Result {
    // Several a commit: it is a matter of millions.
    const AT_ONCE: usize = 16;
    let raw = IterFlags::ALL_SNAPSHOTS | IterFlags::NOT_EXTENTS | IterFlags::INTENT;
    let exactly = UpdateFlags {
        exact: true,
        internal_snapshot: true,
        ..UpdateFlags::default()
    };
    let mut at = Bpos::new(from, 0);
    loop {
        let (next, _) = commit(btree, |t| {
            let mut found = [Bpos::POS_MIN; AT_ONCE];
            let mut n = 0;
            let mut iter = t.iter(id, at, raw);
            while let Some(slot) = found.get_mut(n) {
                match iter.peek(t)? {
                    Some(k) if k.key.pos.inode < to => *slot = k.key.pos,
                    _ => break,
                }
                n += 1;
                if !iter.advance() {
                    break;
                }
            }
            for pos in found.iter().take(n) {
                t.delete(id, *pos, exactly)?;
            }
            Ok(found.get(n.wrapping_sub(1)).copied())
        })?;
        match next {
            Some(last) => at = last,
            None => return Ok(()),
        }
    }
}

/// Whether a btree has no key at all in the inodes `from..to`. Sleeps.
pub(super) fn is_empty(btree: &Btree, id: BtreeId, from: u64, to: u64) -> Result<bool> {
    btree.run(|t| {
        let raw = IterFlags::ALL_SNAPSHOTS | IterFlags::NOT_EXTENTS;
        let mut iter = t.iter(id, Bpos::new(from, 0), raw);
        Ok(iter.peek(t)?.is_none_or(|k| k.key.pos.inode >= to))
    })
}
