// SPDX-License-Identifier: GPL-2.0
//! Extended attributes: by name, and the list of names.

pub mod edit;

use bcachefs_format::{
    bkey::KeyType,
    btree_id::BtreeId,
    keys::{
        str_hash::StrHashInfo,
        xattr::{Xattr, XattrType},
    },
    pos::Bpos,
};
use kernel::prelude::*;

use super::{
    str_hash::{self, KernelCrc, Slot},
    InodeId,
};
use crate::{
    btree::{Attempt, IterFlags, TransError},
    snapshots,
    util::error::Error,
};

/// Longest name without its prefix.
const NAME_MAX: usize = u8::MAX as usize;

/// The value of the attribute of type `xattr_type` called `name` (without prefix) of the inode `id`,
/// whose names are hashed by `hash`. `None` if there is none.
pub fn get(
    t: &mut Attempt<'_>,
    id: InodeId,
    hash: &StrHashInfo,
    xattr_type: XattrType,
    name: &[u8],
) -> Result<Option<KVec<u8>>, TransError> {
    if name.len() > NAME_MAX {
        return Ok(None);
    }
    let snapshot = snapshots::subvolume(t, id.subvol)?.snapshot;
    let start = hash.xattr(xattr_type.0, name, &KernelCrc);
    str_hash::find(t, BtreeId::XATTRS, id.inum, snapshot, start, |key| {
        if key.key.key_type != KeyType::XATTR {
            return Ok(Slot::Other);
        }
        let attr = Xattr::parse(key).map_err(|_| Error::XattrInvalid)?;
        if attr.xattr_type != xattr_type || attr.name != name {
            return Ok(Slot::Other);
        }
        let mut value = KVec::new();
        value.extend_from_slice(attr.value, GFP_KERNEL)?;
        Ok(Slot::Match(value))
    })
}

/// Calls `each` with prefix and name of every attribute of the inode `id`, in the order of their
/// keys, until it says stop by returning `false`. The name of an ACL is all prefix.
///
/// `each` runs with node locks held and must not sleep, except to allocate memory; after a restart of the transaction
/// the list begins anew.
pub fn list(
    t: &mut Attempt<'_>,
    id: InodeId,
    mut each: impl FnMut(&'static str, &[u8]) -> Result<bool, TransError>,
) -> Result<(), TransError> {
    let snapshot = snapshots::subvolume(t, id.subvol)?.snapshot;
    let start = Bpos::with_snapshot(id.inum, 0, snapshot);
    let end = Bpos::with_snapshot(id.inum, u64::MAX, snapshot);
    let mut iter = t.iter(BtreeId::XATTRS, start, IterFlags::NONE);
    while let Some(key) = iter.peek_upto(t, end)? {
        if key.key.key_type == KeyType::XATTR {
            let attr = Xattr::parse(key).map_err(|_| Error::XattrInvalid)?;
            // Attributes of types that are not known cannot be named.
            if let Some(prefix) = attr.xattr_type.prefix() {
                if !each(prefix, attr.name)? {
                    break;
                }
            }
        }
        if !iter.advance() {
            break;
        }
    }
    Ok(())
}
