// SPDX-License-Identifier: GPL-2.0
//! The value of any key, decoded.

use core::fmt;

use crate::bkey::{KeyRef, KeyType};
use crate::error::Invalid;
use crate::keys::accounting::Accounting;
use crate::keys::alloc::Alloc;
use crate::keys::backpointer::Backpointer;
use crate::keys::btree_ptr::BtreePtr;
use crate::keys::bucket_gens::BucketGens;
use crate::keys::cookie::Cookie;
use crate::keys::dirent::Dirent;
use crate::keys::extent::Extent;
use crate::keys::inline_data::InlineData;
use crate::keys::inode::{Inode, InodeGeneration};
use crate::keys::logged_op::{LoggedOpFinsert, LoggedOpTruncate};
use crate::keys::lru::Lru;
use crate::keys::quota::Quota;
use crate::keys::reflink::{IndirectInlineData, ReflinkP, ReflinkV};
use crate::keys::reservation::Reservation;
use crate::keys::snapshot::Snapshot;
use crate::keys::snapshot_tree::SnapshotTree;
use crate::keys::stripe::Stripe;
use crate::keys::subvolume::Subvolume;
use crate::keys::xattr::Xattr;

/// The value of a key, by its type. Types that come in several generations decode to one.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant)] // short-lived, and nothing here can allocate
pub enum Value<'a> {
    /// No key here.
    Deleted,
    /// Hides the key of an ancestor snapshot.
    Whiteout,
    /// Data known to be lost.
    Error,
    /// A marker.
    Cookie(Cookie),
    /// Keeps a probe chain intact.
    HashWhiteout,
    /// Pointer to a node.
    BtreePtr(BtreePtr<'a>),
    /// Pointers to data.
    Extent(Extent<'a>),
    /// Space promised.
    Reservation(Reservation),
    /// Inode, of any generation of the value.
    Inode(Inode),
    /// What is left of a deleted inode.
    InodeGeneration(InodeGeneration),
    /// Directory entry.
    Dirent(Dirent<'a>),
    /// Extended attribute.
    Xattr(Xattr<'a>),
    /// Bucket, of any generation of the value.
    Alloc(Alloc),
    /// Limits.
    Quota(Quota),
    /// Erasure-coded stripe.
    Stripe(Stripe<'a>),
    /// Reference to shared data.
    ReflinkP(ReflinkP),
    /// Shared data.
    ReflinkV(ReflinkV<'a>),
    /// Data in the key.
    InlineData(InlineData<'a>),
    /// Shared data in the key.
    IndirectInlineData(IndirectInlineData<'a>),
    /// Subvolume.
    Subvolume(Subvolume),
    /// Snapshot.
    Snapshot(Snapshot),
    /// Present; there is no value.
    Set,
    /// Old lru entry.
    Lru(Lru),
    /// From a place on a device to its key.
    Backpointer(Backpointer),
    /// Generations of buckets.
    BucketGens(BucketGens<'a>),
    /// Tree of snapshots.
    SnapshotTree(SnapshotTree),
    /// Truncate under way.
    LoggedOpTruncate(LoggedOpTruncate),
    /// Insert or collapse under way.
    LoggedOpFinsert(LoggedOpFinsert),
    /// Counters.
    Accounting(Accounting<'a>),
    /// Of a later version; kept as it is.
    Unknown(&'a [u64]),
}

/// Decodes the value of `key`. Fails if the value cannot be taken apart; that it can does not make
/// it valid.
pub fn parse(key: KeyRef<'_>) -> Result<Value<'_>, Invalid> {
    Ok(match key.key.key_type {
        KeyType::DELETED => Value::Deleted,
        KeyType::WHITEOUT => Value::Whiteout,
        KeyType::ERROR => Value::Error,
        KeyType::COOKIE => Value::Cookie(Cookie::parse(key)?),
        KeyType::HASH_WHITEOUT => Value::HashWhiteout,
        KeyType::BTREE_PTR | KeyType::BTREE_PTR_V2 => Value::BtreePtr(BtreePtr::parse(key)?),
        KeyType::EXTENT => Value::Extent(Extent::new(key)),
        KeyType::RESERVATION => Value::Reservation(Reservation::parse(key)?),
        KeyType::INODE | KeyType::INODE_V2 | KeyType::INODE_V3 => Value::Inode(Inode::parse(key)?),
        KeyType::INODE_GENERATION => Value::InodeGeneration(InodeGeneration::parse(key)?),
        KeyType::DIRENT => Value::Dirent(Dirent::parse(key)?),
        KeyType::XATTR => Value::Xattr(Xattr::parse(key)?),
        KeyType::ALLOC | KeyType::ALLOC_V2 | KeyType::ALLOC_V3 | KeyType::ALLOC_V4 => {
            Value::Alloc(Alloc::parse(key)?)
        }
        KeyType::QUOTA => Value::Quota(Quota::parse(key)?),
        KeyType::STRIPE => Value::Stripe(Stripe::parse(key)?),
        KeyType::REFLINK_P => Value::ReflinkP(ReflinkP::parse(key)?),
        KeyType::REFLINK_V => Value::ReflinkV(ReflinkV::parse(key)?),
        KeyType::INLINE_DATA => Value::InlineData(InlineData::new(key)),
        KeyType::INDIRECT_INLINE_DATA => Value::IndirectInlineData(IndirectInlineData::parse(key)?),
        KeyType::SUBVOLUME => Value::Subvolume(Subvolume::parse(key)?),
        KeyType::SNAPSHOT => Value::Snapshot(Snapshot::parse(key)?),
        KeyType::SET => Value::Set,
        KeyType::LRU => Value::Lru(Lru::parse(key)?),
        KeyType::BACKPOINTER => Value::Backpointer(Backpointer::parse(key)?),
        KeyType::BUCKET_GENS => Value::BucketGens(BucketGens::parse(key)?),
        KeyType::SNAPSHOT_TREE => Value::SnapshotTree(SnapshotTree::parse(key)?),
        KeyType::LOGGED_OP_TRUNCATE => Value::LoggedOpTruncate(LoggedOpTruncate::parse(key)?),
        KeyType::LOGGED_OP_FINSERT => Value::LoggedOpFinsert(LoggedOpFinsert::parse(key)?),
        KeyType::ACCOUNTING => Value::Accounting(Accounting::parse(key)?),
        _ => Value::Unknown(key.value),
    })
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deleted | Self::Whiteout | Self::Error | Self::HashWhiteout | Self::Set => Ok(()),
            Self::Cookie(v) => v.fmt(f),
            Self::BtreePtr(v) => v.fmt(f),
            Self::Extent(v) => v.fmt(f),
            Self::Reservation(v) => v.fmt(f),
            Self::Inode(v) => v.fmt(f),
            Self::InodeGeneration(v) => v.fmt(f),
            Self::Dirent(v) => v.fmt(f),
            Self::Xattr(v) => v.fmt(f),
            Self::Alloc(v) => v.fmt(f),
            Self::Quota(v) => v.fmt(f),
            Self::Stripe(v) => v.fmt(f),
            Self::ReflinkP(v) => v.fmt(f),
            Self::ReflinkV(v) => v.fmt(f),
            Self::InlineData(v) => v.fmt(f),
            Self::IndirectInlineData(v) => v.fmt(f),
            Self::Subvolume(v) => v.fmt(f),
            Self::Snapshot(v) => v.fmt(f),
            Self::Lru(v) => v.fmt(f),
            Self::Backpointer(v) => v.fmt(f),
            Self::BucketGens(v) => v.fmt(f),
            Self::SnapshotTree(v) => v.fmt(f),
            Self::LoggedOpTruncate(v) => v.fmt(f),
            Self::LoggedOpFinsert(v) => v.fmt(f),
            Self::Accounting(v) => v.fmt(f),
            Self::Unknown(words) => {
                for w in *words {
                    write!(f, "{w:016x} ")?;
                }
                Ok(())
            }
        }
    }
}

/// Prints a key on one line: header, colon, value.
#[derive(Clone, Copy, Debug)]
pub struct KeyText<'a>(pub KeyRef<'a>);

impl fmt::Display for KeyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.key)?;
        match parse(self.0) {
            Ok(
                Value::Deleted | Value::Whiteout | Value::Error | Value::HashWhiteout | Value::Set,
            ) => Ok(()),
            Ok(value) => write!(f, ": {value}"),
            Err(e) => write!(f, ": (undecodable: {e})"),
        }
    }
}
