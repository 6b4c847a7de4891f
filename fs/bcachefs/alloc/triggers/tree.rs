// SPDX-License-Identifier: GPL-2.0
//! Subvolumes and snapshots.

use super::{keys, AllocTriggers, Trans};
use crate::btree::Attempt;
use bcachefs_format::{keys::subvolume::Subvolume, Bpos, BtreeId, KeyRef, KeyType};

/// Room for what other transactions make at the same time.
const NEW_SNAPSHOTS: usize = 16;

/// The subvolume that the directory entry of subvolume `key` is in; 0 if it has none.
fn parent(key: KeyRef<'_>) -> core::result::Result<u64, bcachefs_format::Invalid> {
    match key.key.key_type {
        KeyType::SUBVOLUME => Ok(Subvolume::parse(key)?.fs_path_parent.into()),
        _ => Ok(0),
    }
}

impl AllocTriggers {
    /// A subvolume appears, moves or goes: it is among the children of the one it is in.
    #[inline(never)]
    pub(super) fn subvolume(&self, t: &mut Attempt<'_>, old: KeyRef<'_>, new: KeyRef<'_>) -> Trans {
        let id = new.key.pos.offset;
        let (was, is) = (parent(old)?, parent(new)?);
        if was == is {
            return Ok(());
        }
        for (parent, present) in [(was, false), (is, true)] {
            if parent != 0 {
                let pos = Bpos::new(parent, id);
                keys::set_bit(t, BtreeId::SUBVOLUME_CHILDREN, pos, present)?;
            }
        }
        Ok(())
    }

    /// A snapshot is going to appear or change: makes room for it in the table, which the commit cannot do.
    #[inline(never)]
    pub(super) fn prepare_snapshot(&self, t: &mut Attempt<'_>) -> Trans {
        let new = NEW_SNAPSHOTS + 1 + t.nr_updates(BtreeId::SNAPSHOTS);
        if !self.snapshots.has_room(new) {
            t.unlocked(|| self.snapshots.reserve(new + NEW_SNAPSHOTS))??;
        }
        Ok(())
    }
}
