// SPDX-License-Identifier: GPL-2.0
//! Inodes: how many there are, which are to be deleted, and which have versions in snapshots further down.

use super::{keys, AllocTriggers, Trans};
use crate::{
    btree::{trans::update::UpdateFlags, triggers::KeyMut, Ancestry, Attempt, IterFlags},
    util::error::Error,
};
use bcachefs_format::{
    keys::{
        accounting::AccountingKey,
        inode::{Inode, InodeFlags, INODE_WORDS_MAX},
    },
    Bpos, BtreeId, KeyRef, KeyType,
};

/// The word of an `inode_v3` value that its flags are in.
const FLAGS_WORD: usize = 2;

/// Whether keys of this type are inodes.
pub(super) fn is_inode(key_type: KeyType) -> bool {
    matches!(key_type, KeyType::INODE | KeyType::INODE_V2 | KeyType::INODE_V3)
}

/// Fills in the journal entry that the inode is in.
pub(super) fn set_journal_seq(new: &mut KeyMut<'_>, seq: u64) {
    if matches!(new.key.key_type, KeyType::INODE_V2 | KeyType::INODE_V3) {
        if let Some(word) = new.value.first_mut() {
            *word = seq.to_le();
        }
    }
}

fn flags(key: KeyRef<'_>) -> Option<InodeFlags> {
    match is_inode(key.key.key_type) {
        true => Some(Inode::parse(key).ok()?.flags),
        false => None,
    }
}

fn is_unlinked(key: KeyRef<'_>) -> bool {
    flags(key).is_some_and(|f| f.contains(InodeFlags::UNLINKED))
}

/// Sets or clears a flag of an inode in place.
fn set_flag(new: &mut KeyMut<'_>, flag: InodeFlags, on: bool) {
    if new.key.key_type != KeyType::INODE_V3 {
        return;
    }
    if let Some(word) = new.value.get_mut(FLAGS_WORD) {
        let flags = u64::from_le(*word) & !u64::from(flag.0);
        *word = (flags | if on { u64::from(flag.0) } else { 0 }).to_le();
    }
}

impl AllocTriggers {
    /// An inode appears, changes or goes.
    #[inline(never)]
    pub(super) fn inode(&self, t: &mut Attempt<'_>, old: KeyRef<'_>, new: &mut KeyMut<'_>) -> Trans {
        let pos = new.key.pos;
        let (was, is) = (is_inode(old.key.key_type), is_inode(new.key.key_type));
        let (was_unlinked, unlinked) = (is_unlinked(old), is_unlinked(new.get()));
        if was_unlinked != unlinked {
            keys::set_bit_later(t, BtreeId::DELETED_INODES, pos, unlinked)?;
        }
        if was == is {
            return Ok(());
        }
        t.account(AccountingKey::NrInodes, &[if is { 1 } else { -1 }])?;
        if is {
            let below = self.has_versions_below(t, pos, pos)?;
            set_flag(new, InodeFlags::HAS_CHILD_SNAPSHOT, below);
        }
        self.mark_version_above(t, pos, is)
    }

    /// Whether the inode at `pos` has versions in snapshots below, other than at `except`.
    fn has_versions_below(&self, t: &mut Attempt<'_>, pos: Bpos, except: Bpos) -> Trans<bool> {
        if pos.snapshot == 0 || self.snapshots.is_leaf(pos.snapshot) {
            return Ok(false);
        }
        let first = pos.at_snapshot(0);
        let last = pos.at_snapshot(pos.snapshot.saturating_sub(1));
        let mut iter = t.iter(BtreeId::INODES, first, IterFlags::ALL_SNAPSHOTS);
        while let Some(key) = iter.peek_upto(t, last)? {
            let found = key.key;
            if is_inode(found.key_type)
                && found.pos != except
                && self.snapshots.is_ancestor(found.pos.snapshot, pos.snapshot)
            {
                return Ok(true);
            }
            if !iter.advance() {
                break;
            }
        }
        Ok(false)
    }

    /// A version of an inode appears at `pos`, or goes: the nearest version above knows whether it has any below.
    fn mark_version_above(&self, t: &mut Attempt<'_>, pos: Bpos, appears: bool) -> Trans {
        if self.snapshots.get(pos.snapshot).is_none_or(|s| s.parent == 0) {
            return Ok(());
        }
        let Some(first) = pos.successor() else {
            return Ok(());
        };
        let last = pos.at_snapshot(u32::MAX);
        let flags = IterFlags::ALL_SNAPSHOTS | IterFlags::INTENT;
        let mut iter = t.iter(BtreeId::INODES, first, flags);
        let mut above = loop {
            let Some(key) = iter.peek_upto(t, last)? else {
                return Ok(());
            };
            let found = key.key;
            if is_inode(found.key_type)
                && self.snapshots.is_ancestor(pos.snapshot, found.pos.snapshot)
            {
                break Inode::parse(key)?;
            }
            if !iter.advance() {
                return Ok(());
            }
        };
        let at = pos.at_snapshot(above.snapshot);
        let below = appears || self.has_versions_below(t, at, pos)?;
        if above.flags.contains(InodeFlags::HAS_CHILD_SNAPSHOT) == below {
            return Ok(());
        }
        above.flags = match below {
            true => above.flags.with(InodeFlags::HAS_CHILD_SNAPSHOT),
            false => above.flags.without(InodeFlags::HAS_CHILD_SNAPSHOT),
        };
        let mut value = [0; INODE_WORDS_MAX];
        let n = above.build(&mut value).map_err(keys::unwritable)?;
        let key = KeyRef {
            key: keys::header(KeyType::INODE_V3, at, n),
            value: value.get(..n).ok_or(Error::InodeInvalid)?,
        };
        let flags = UpdateFlags {
            exact: true,
            internal_snapshot: true,
            ..UpdateFlags::default()
        };
        t.insert(BtreeId::INODES, key, flags)
    }
}

#[kernel::macros::kunit_tests(bcachefs_trigger_inode)]
mod tests {
    use super::*;
    use bcachefs_format::keys::inode::Mode;

    #[test]
    fn flags_are_changed_in_place() {
        let inode = Inode {
            flags: InodeFlags::UNLINKED,
            mode: Mode(0o100644),
            size: 12345,
            journal_seq: 3,
            ..Inode::default()
        };
        let mut value = [0; INODE_WORDS_MAX];
        let n = inode.build(&mut value).unwrap_or(0);
        let mut key = keys::header(KeyType::INODE_V3, Bpos::with_snapshot(0, 4097, 9), n);
        let mut new = KeyMut { key: &mut key, value: &mut value[..n] };
        assert!(is_unlinked(new.get()));
        set_flag(&mut new, InodeFlags::HAS_CHILD_SNAPSHOT, true);
        set_flag(&mut new, InodeFlags::UNLINKED, false);
        set_journal_seq(&mut new, 77);
        let want = Inode {
            inum: 4097,
            snapshot: 9,
            flags: InodeFlags::HAS_CHILD_SNAPSHOT,
            journal_seq: 77,
            ..inode
        };
        assert_eq!(Inode::parse(new.get()).ok(), Some(want));
    }
}
