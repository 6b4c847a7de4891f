// SPDX-License-Identifier: GPL-2.0
//! Tables over key types: how long their values are, and which btrees they belong in.

use crate::bkey::KeyType;
use crate::btree_id::BtreeId;

/// What length the value of a type may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueSize {
    /// Not checked: of no consequence, or the type is unknown.
    Any,
    /// None.
    Empty,
    /// At least so many bytes.
    AtLeast(usize),
}

/// The length of values of type `t`.
pub const fn value_size(t: KeyType) -> ValueSize {
    let min = match t {
        KeyType::ERROR | KeyType::HASH_WHITEOUT | KeyType::SET => return ValueSize::Empty,
        KeyType::COOKIE
        | KeyType::BTREE_PTR
        | KeyType::EXTENT
        | KeyType::RESERVATION
        | KeyType::INODE_GENERATION
        | KeyType::XATTR
        | KeyType::ALLOC
        | KeyType::ALLOC_V2
        | KeyType::STRIPE
        | KeyType::REFLINK_V
        | KeyType::INDIRECT_INLINE_DATA
        | KeyType::LRU
        | KeyType::SNAPSHOT_TREE
        | KeyType::ACCOUNTING => 8,
        KeyType::INODE
        | KeyType::DIRENT
        | KeyType::REFLINK_P
        | KeyType::SUBVOLUME
        | KeyType::ALLOC_V3 => 16,
        KeyType::SNAPSHOT | KeyType::LOGGED_OP_TRUNCATE | KeyType::LOGGED_OP_FINSERT => 24,
        KeyType::QUOTA | KeyType::INODE_V2 | KeyType::BACKPOINTER => 32,
        KeyType::BTREE_PTR_V2 => 40,
        KeyType::ALLOC_V4 | KeyType::INODE_V3 => 48,
        // Exact, which is checked with the type's other rules.
        KeyType::BUCKET_GENS => 256,
        _ => return ValueSize::Any,
    };
    ValueSize::AtLeast(min)
}

/// The types that leaves of each btree may hold, besides `deleted`; by number of the btree.
const LEAF_TYPES: [&[KeyType]; BtreeId::COUNT as usize] = [
    &[
        KeyType::WHITEOUT,
        KeyType::ERROR,
        KeyType::COOKIE,
        KeyType::EXTENT,
        KeyType::RESERVATION,
        KeyType::REFLINK_P,
        KeyType::INLINE_DATA,
    ],
    &[
        KeyType::WHITEOUT,
        KeyType::INODE,
        KeyType::INODE_V2,
        KeyType::INODE_V3,
        KeyType::INODE_GENERATION,
    ],
    &[KeyType::WHITEOUT, KeyType::HASH_WHITEOUT, KeyType::DIRENT],
    &[
        KeyType::WHITEOUT,
        KeyType::COOKIE,
        KeyType::HASH_WHITEOUT,
        KeyType::XATTR,
    ],
    &[
        KeyType::ALLOC,
        KeyType::ALLOC_V2,
        KeyType::ALLOC_V3,
        KeyType::ALLOC_V4,
    ],
    &[KeyType::QUOTA],
    &[KeyType::STRIPE],
    &[
        KeyType::REFLINK_V,
        KeyType::INDIRECT_INLINE_DATA,
        KeyType::ERROR,
    ],
    &[KeyType::SUBVOLUME],
    &[KeyType::SNAPSHOT],
    &[KeyType::SET],
    &[KeyType::SET],
    &[KeyType::SET],
    &[KeyType::BACKPOINTER],
    &[KeyType::BUCKET_GENS],
    &[KeyType::SNAPSHOT_TREE],
    &[KeyType::SET],
    &[KeyType::LOGGED_OP_TRUNCATE, KeyType::LOGGED_OP_FINSERT],
    &[KeyType::SET, KeyType::COOKIE],
    &[KeyType::SET],
    &[KeyType::ACCOUNTING],
];

/// Whether leaves of `btree` may hold keys of type `t`. Nothing is known of later btrees and
/// types: those are allowed.
pub fn allowed_in(btree: BtreeId, t: KeyType) -> bool {
    match LEAF_TYPES.get(usize::from(btree.0)) {
        Some(types) => t == KeyType::DELETED || t.0 >= KeyType::COUNT || types.contains(&t),
        None => true,
    }
}
