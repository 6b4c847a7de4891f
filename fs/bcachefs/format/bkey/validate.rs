// SPDX-License-Identifier: GPL-2.0
//! The rules every key has to obey, whatever its value.

use super::{Bkey, KeyType, BKEY_U64S};
use crate::btree_id::BtreeId;
use crate::error::{ErrorId, Invalid};
use crate::pos::Bpos;

/// Where a key was found: which tree, and how high in it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct KeyContext {
    /// The btree.
    pub btree: BtreeId,
    /// Level of the node that holds the key; 0 for leaves.
    pub level: u8,
}

impl KeyContext {
    /// Keys of the leaves of `btree`.
    pub const fn leaf(btree: BtreeId) -> Self {
        KeyContext { btree, level: 0 }
    }
}

/// Byte offsets of fields in an unpacked key, for messages.
const AT_U64S: usize = 0;
const AT_TYPE: usize = 2;
const AT_SIZE: usize = 16;
const AT_POS: usize = 20;

impl Bkey {
    /// Checks the header: type, size and position against the kind of tree. Values are checked by
    /// the type's own rules.
    pub fn validate(&self, ctx: KeyContext) -> Result<(), Invalid> {
        if self.u64s < BKEY_U64S {
            return Err(Invalid::new(
                ErrorId::BKEY_U64S_TOO_SMALL,
                "key is shorter than a key header",
                AT_U64S,
                self.u64s.into(),
                BKEY_U64S.into(),
            ));
        }
        if ctx.level > 0 {
            if self.key_type != KeyType::DELETED && !self.key_type.is_btree_ptr() {
                return Err(Invalid::new(
                    ErrorId::BKEY_INVALID_TYPE_FOR_BTREE,
                    "key of this type in an interior node",
                    AT_TYPE,
                    self.key_type.0.into(),
                    KeyType::BTREE_PTR_V2.0.into(),
                ));
            }
            return self.check_size_zero();
        }
        if ctx.btree.is_extents() && !self.key_type.is_whiteout() {
            self.check_extent_size()?;
        } else {
            self.check_size_zero()?;
        }
        // Of btrees of later versions it is not known how they use the snapshot field.
        if ctx.btree.is_known() {
            self.check_snapshot(ctx.btree)?;
        }
        if self.pos.eq_nosnap(Bpos::POS_MAX) {
            return Err(Invalid::new(
                ErrorId::BKEY_AT_POS_MAX,
                "key at the highest position",
                AT_POS,
                self.pos.offset,
                u64::MAX - 1,
            ));
        }
        Ok(())
    }

    fn check_size_zero(&self) -> Result<(), Invalid> {
        if self.size == 0 {
            return Ok(());
        }
        Err(Invalid::new(
            ErrorId::BKEY_SIZE_NONZERO,
            "key that is no range has a size",
            AT_SIZE,
            self.size.into(),
            0,
        ))
    }

    fn check_extent_size(&self) -> Result<(), Invalid> {
        if self.size == 0 {
            return Err(Invalid::new(
                ErrorId::BKEY_EXTENT_SIZE_ZERO,
                "extent of size 0",
                AT_SIZE,
                0,
                1,
            ));
        }
        if u64::from(self.size) > self.pos.offset {
            return Err(Invalid::new(
                ErrorId::BKEY_EXTENT_SIZE_GREATER_THAN_OFFSET,
                "extent starts below offset 0",
                AT_SIZE,
                self.size.into(),
                self.pos.offset,
            ));
        }
        Ok(())
    }

    fn check_snapshot(&self, btree: BtreeId) -> Result<(), Invalid> {
        if btree.has_snapshots() && self.pos.snapshot == 0 {
            return Err(Invalid::new(
                ErrorId::BKEY_SNAPSHOT_ZERO,
                "key without snapshot in a tree with snapshots",
                AT_POS,
                0,
                1,
            ));
        }
        if !btree.has_snapshot_field() && self.pos.snapshot != 0 {
            return Err(Invalid::new(
                ErrorId::BKEY_SNAPSHOT_NONZERO,
                "key with snapshot in a tree without snapshots",
                AT_POS,
                self.pos.snapshot.into(),
                0,
            ));
        }
        Ok(())
    }

    /// Checks that the key lies within the range of the node that holds it.
    pub fn validate_range(&self, min_key: Bpos, max_key: Bpos) -> Result<(), Invalid> {
        if self.pos < min_key {
            return Err(Invalid::new(
                ErrorId::BKEY_BEFORE_START_OF_BTREE_NODE,
                "key before the start of its node",
                AT_POS,
                self.pos.offset,
                min_key.offset,
            ));
        }
        if self.pos > max_key {
            return Err(Invalid::new(
                ErrorId::BKEY_AFTER_END_OF_BTREE_NODE,
                "key after the end of its node",
                AT_POS,
                self.pos.offset,
                max_key.offset,
            ));
        }
        Ok(())
    }
}
