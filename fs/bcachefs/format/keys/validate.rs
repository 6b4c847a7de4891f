// SPDX-License-Identifier: GPL-2.0
//! Checking a key as a whole: the rules for all keys, then those of its type.
//!
//! Pure. The same rules run after every read and before every write; a few bind writers only
//! ([`ValidateCtx::when`](crate::keys::ValidateCtx)).

use crate::bkey::{KeyContext, KeyRef, KeyType, BKEY_U64S};
use crate::btree_id::BtreeId;
use crate::check::Checked;
use crate::error::{ErrorId, Invalid};
use crate::keys::ctx::ValidateCtx;
use crate::keys::{
    accounting, alloc, backpointer, btree_ptr, bucket_gens, dirent, extent, inode, layout, lru,
    quota, reflink, reservation, snapshot, snapshot_tree, stripe, subvolume, types, xattr,
};

/// Checks a key found at `level` (0: leaf) of `btree`.
///
/// Values of unknown types are not looked at: the key is to be kept.
pub fn validate(
    key: KeyRef<'_>,
    btree: BtreeId,
    level: u8,
    ctx: &ValidateCtx<'_>,
) -> Result<(), Invalid> {
    validate_header(key, btree, level, ctx)?;
    validate_value(key, ctx)
}

/// As [`validate`], with the key handed back as one that has passed.
pub fn check<'a>(
    key: KeyRef<'a>,
    btree: BtreeId,
    level: u8,
    ctx: &ValidateCtx<'_>,
) -> Result<Checked<KeyRef<'a>>, Invalid> {
    validate(key, btree, level, ctx).map(|()| Checked::new(key))
}

/// Checks what does not depend on the value.
pub fn validate_header(
    key: KeyRef<'_>,
    btree: BtreeId,
    level: u8,
    ctx: &ValidateCtx<'_>,
) -> Result<(), Invalid> {
    let k = &key.key;
    if k.u64s < BKEY_U64S || usize::from(k.value_u64s()) != key.value.len() {
        return Err(Invalid::new(
            ErrorId::BKEY_U64S_TOO_SMALL,
            "length of the key does not go with its value",
            0,
            k.u64s.into(),
            u64::from(BKEY_U64S) + key.value.len() as u64,
        ));
    }
    // Nothing is known of the keys of a later version's btrees.
    if level == 0 && !btree.is_known() {
        return Ok(());
    }
    k.validate(KeyContext { btree, level })?;
    // On reading a key in the wrong btree is no more than odd; nobody may write one.
    if level == 0 && ctx.is_commit() && !types::allowed_in(btree, k.key_type) {
        return Err(Invalid::new(
            ErrorId::BKEY_INVALID_TYPE_FOR_BTREE,
            "type of key does not belong in the btree",
            2,
            k.key_type.0.into(),
            btree.0.into(),
        ));
    }
    Ok(())
}

/// Checks the value by the rules of its type.
pub fn validate_value(key: KeyRef<'_>, ctx: &ValidateCtx<'_>) -> Result<(), Invalid> {
    let have = 8 * key.value.len();
    match types::value_size(key.key.key_type) {
        types::ValueSize::Any => {}
        types::ValueSize::Empty if have != 0 => {
            return Err(Invalid::new(
                ErrorId::BKEY_VAL_SIZE_NONZERO,
                "value in a key whose type has none",
                0,
                have as u64,
                0,
            ))
        }
        types::ValueSize::Empty => {}
        types::ValueSize::AtLeast(min) if have < min => return Err(layout::too_small(have, min)),
        types::ValueSize::AtLeast(_) => {}
    }
    match key.key.key_type {
        KeyType::BTREE_PTR | KeyType::BTREE_PTR_V2 => btree_ptr::validate_value(key, ctx),
        KeyType::EXTENT => extent::validate_value(key, ctx),
        KeyType::RESERVATION => reservation::Reservation::validate(key),
        KeyType::INODE | KeyType::INODE_V2 | KeyType::INODE_V3 => inode::Inode::validate(key),
        KeyType::INODE_GENERATION => inode::InodeGeneration::validate(key),
        KeyType::DIRENT => dirent::Dirent::validate(key, ctx),
        KeyType::XATTR => xattr::Xattr::validate(key),
        KeyType::ALLOC | KeyType::ALLOC_V2 | KeyType::ALLOC_V3 | KeyType::ALLOC_V4 => {
            alloc::Alloc::validate(key)
        }
        KeyType::QUOTA => quota::Quota::validate(key),
        KeyType::STRIPE => stripe::Stripe::validate(key, ctx),
        KeyType::REFLINK_P => reflink::ReflinkP::validate(key),
        KeyType::REFLINK_V => reflink::ReflinkV::validate(key, ctx),
        KeyType::SUBVOLUME => subvolume::Subvolume::validate(key),
        KeyType::SNAPSHOT => snapshot::Snapshot::validate(key),
        KeyType::SNAPSHOT_TREE => snapshot_tree::SnapshotTree::validate(key),
        KeyType::LRU => lru::validate_pos(key),
        KeyType::BACKPOINTER => backpointer::Backpointer::validate(key, ctx),
        KeyType::BUCKET_GENS => bucket_gens::BucketGens::parse(key).map(drop),
        KeyType::ACCOUNTING => accounting::Accounting::validate(key),
        // The size is all there is to check: deleted, whiteout, error, hash_whiteout, set, cookie,
        // inline_data, indirect_inline_data, logged operations. Unknown types are kept unseen.
        _ => Ok(()),
    }
}
