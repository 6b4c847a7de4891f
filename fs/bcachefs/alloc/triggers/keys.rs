// SPDX-License-Identifier: GPL-2.0
//! Making keys for updates.

use super::Trans;
use crate::{
    alloc::bucket::Listed,
    btree::{trans::update::UpdateFlags, Attempt, Iter},
    util::error::Error,
};
use bcachefs_format::{
    bkey::BKEY_U64S,
    keys::{
        alloc::{Alloc, ALLOC_WORDS},
        BuildError,
    },
    Bkey, Bpos, BtreeId, Invalid, KeyRef, KeyType,
};

/// A value that cannot be written is wrong.
pub(in crate::alloc) fn unwritable(_: BuildError) -> Error {
    Error::BtreeKeyInvalid
}

/// The header of a key whose value has `words` words.
pub(in crate::alloc) fn header(key_type: KeyType, pos: Bpos, words: usize) -> Bkey {
    Bkey {
        u64s: BKEY_U64S.saturating_add(words as u8),
        key_type,
        ..Bkey::deleted(pos)
    }
}

/// A key that marks a position, or takes the mark away.
pub(super) fn bit(pos: Bpos, present: bool) -> KeyRef<'static> {
    let key_type = match present {
        true => KeyType::SET,
        false => KeyType::DELETED,
    };
    KeyRef {
        key: header(key_type, pos, 0),
        value: &[],
    }
}

/// Marks a position, or takes the mark away.
pub(super) fn set_bit(t: &mut Attempt<'_>, btree: BtreeId, pos: Bpos, present: bool) -> Trans {
    t.insert(btree, bit(pos, present), UpdateFlags::default())
}

/// The same in a btree that the write buffer serves.
pub(super) fn set_bit_later(t: &mut Attempt<'_>, btree: BtreeId, pos: Bpos, present: bool) -> Trans {
    t.write_buffered(btree, bit(pos, present))
}

/// Puts the bucket at `pos` into the list that `listed` says, or takes it out.
pub(in crate::alloc) fn list(t: &mut Attempt<'_>, pos: Bpos, listed: Listed, present: bool) -> Trans {
    match listed {
        Listed::Not => Ok(()),
        Listed::Free(offset) => {
            let end = Bpos::new(pos.inode, offset.saturating_add(1));
            let mut key = bit(end, present);
            key.key.size = 1;
            t.insert(BtreeId::FREESPACE, key, UpdateFlags::default())
        }
        Listed::NeedDiscard => set_bit(t, BtreeId::NEED_DISCARD, pos, present),
    }
}

/// Whether keys of this type say what a bucket holds.
pub(in crate::alloc) fn is_alloc(key_type: KeyType) -> bool {
    matches!(
        key_type,
        KeyType::ALLOC | KeyType::ALLOC_V2 | KeyType::ALLOC_V3 | KeyType::ALLOC_V4
    )
}

/// What a bucket holds, by its key or for want of one.
pub(in crate::alloc) fn parse_alloc(
    key: Option<KeyRef<'_>>,
) -> core::result::Result<Alloc, Invalid> {
    match key.filter(|k| is_alloc(k.key.key_type)) {
        Some(key) => Alloc::parse(key),
        None => Ok(Alloc::default()),
    }
}

/// Updates the key of the bucket at `pos`, where `iter` is.
pub(in crate::alloc) fn update_alloc(
    t: &mut Attempt<'_>,
    iter: &Iter<'_>,
    pos: Bpos,
    a: &Alloc,
) -> Trans {
    let mut value = [0; ALLOC_WORDS];
    let n = a.build(&mut value).map_err(unwritable)?;
    let key = KeyRef {
        key: header(KeyType::ALLOC_V4, pos, n),
        value: value.get(..n).unwrap_or(&[]),
    };
    t.update(iter, key, UpdateFlags::default())
}
