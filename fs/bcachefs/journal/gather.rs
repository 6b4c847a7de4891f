// SPDX-License-Identifier: GPL-2.0
//! Putting the start state together from records, in the order they were written.
//!
//! Records come from the superblock's clean section or from journal entries; they look the same in both.

use bcachefs_format::{
    jset::entry::{Entry, RawEntry, UsageKind},
    keys::{validate, ValidateCtx},
    Invalid, KeyRef,
};
use kernel::prelude::*;

use super::{
    overlay::JournalKeysBuilder,
    start::{Root, RootState, BTREE_DEPTH_MAX, BTREE_ROOTS_MAX},
};
use crate::util::error::Result;

/// Collects what the records say; later ones replace earlier ones.
pub(super) struct Gather {
    pub(super) roots: KVec<RootState>,
    pub(super) keys: JournalKeysBuilder,
    pub(super) key_version: u64,
    pub(super) clocks: [u64; 2],
    /// Ranges of old-style blacklist records, half open.
    pub(super) blacklisted: KVVec<(u64, u64)>,
}

impl Gather {
    pub(super) fn new() -> Result<Self> {
        let mut roots = KVec::with_capacity(BTREE_ROOTS_MAX, GFP_KERNEL)?;
        for _ in 0..BTREE_ROOTS_MAX {
            roots.push(RootState::Absent, GFP_KERNEL)?;
        }
        Ok(Gather {
            roots,
            keys: JournalKeysBuilder::new(),
            key_version: 0,
            clocks: [0; 2],
            blacklisted: KVVec::new(),
        })
    }

    /// Takes in one record of the entry with sequence number `seq`. `invalid` hears of records and keys that
    /// break a rule; those are left out. May sleep.
    pub(super) fn add(
        &mut self,
        seq: u64,
        raw: &RawEntry<'_>,
        invalid: &mut dyn FnMut(&Invalid),
    ) -> Result {
        let entry = match raw.parse() {
            Ok(entry) => entry,
            Err(e) => {
                invalid(&e);
                return Ok(());
            }
        };
        match entry {
            Entry::BtreeKeys(keys) => {
                for key in keys {
                    match key.and_then(|key| check_key(raw, &key).map(|()| key)) {
                        Ok(key) => self.keys.push(seq, raw.btree, raw.level, &key)?,
                        Err(e) => invalid(&e),
                    }
                }
            }
            Entry::BtreeRoot(root) => {
                let Some(slot) = self.roots.get_mut(usize::from(raw.btree.0)) else {
                    invalid(&unknown_btree(raw));
                    return Ok(());
                };
                *slot = match root {
                    None => RootState::Lost,
                    Some(key) => match check_root(raw, &key) {
                        Ok(()) => RootState::At(Root::new(raw.level, &key)?),
                        Err(e) => {
                            invalid(&e);
                            return Ok(());
                        }
                    },
                };
            }
            Entry::Blacklist { start, end } => {
                self.blacklisted.push((start, end), GFP_KERNEL)?;
            }
            Entry::Usage { kind, value } if kind == UsageKind::KEY_VERSION => {
                self.key_version = value;
            }
            Entry::Clock { rw, time } => {
                if let Some(clock) = self.clocks.get_mut(usize::from(rw)) {
                    *clock = time;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn unknown_btree(raw: &RawEntry<'_>) -> Invalid {
    Invalid::plain(
        "record is for a btree that cannot exist",
        raw.offset + 2,
        raw.btree.0.into(),
        BTREE_ROOTS_MAX as u64 - 1,
    )
}

/// The rules of a key's place.
fn check_place(raw: &RawEntry<'_>) -> core::result::Result<(), Invalid> {
    if usize::from(raw.btree.0) >= BTREE_ROOTS_MAX {
        return Err(unknown_btree(raw));
    }
    if raw.level >= BTREE_DEPTH_MAX {
        return Err(Invalid::plain(
            "record is for a level that no btree has",
            raw.offset + 3,
            raw.level.into(),
            u64::from(BTREE_DEPTH_MAX) - 1,
        ));
    }
    Ok(())
}

fn check_key(raw: &RawEntry<'_>, key: &KeyRef<'_>) -> core::result::Result<(), Invalid> {
    check_place(raw)?;
    validate(*key, raw.btree, raw.level, &ValidateCtx::READ).map_err(|e| e.within(raw.offset))
}

/// A root's key is one of the level above the root node.
fn check_root(raw: &RawEntry<'_>, key: &KeyRef<'_>) -> core::result::Result<(), Invalid> {
    check_place(raw)?;
    validate(*key, raw.btree, raw.level + 1, &ValidateCtx::READ).map_err(|e| e.within(raw.offset))
}
