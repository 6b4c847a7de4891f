// SPDX-License-Identifier: GPL-2.0
//! POSIX access control lists, which are stored as extended attributes.

use bcachefs_format::keys::{
    acl::{Acl, AclEntry, AclTag},
    str_hash::StrHashInfo,
    xattr::{Xattr, XattrType, XATTR_SPACE_MAX},
};
use bcachefs_format::{bkey::KeyType, BtreeId};
use kernel::prelude::*;

use super::{
    str_hash::{self, KernelCrc, Slot},
    xattr::{
        self,
        edit::{Attributes, Prepared, SetMode},
    },
    InodeId,
};
use crate::{
    btree::{Attempt, TransError},
    util::error::{Error, Result as Done},
};

/// Which of an inode's lists.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum AclKind {
    /// The one that decides about access.
    Access,
    /// The one that new files in a directory get.
    Default,
}

impl AclKind {
    /// The type of the attribute it is stored as.
    pub const fn xattr_type(self) -> XattrType {
        match self {
            AclKind::Access => XattrType::POSIX_ACL_ACCESS,
            AclKind::Default => XattrType::POSIX_ACL_DEFAULT,
        }
    }
}

/// The entries of a list of the inode `id`, in their stored order. `None` if there is no such list.
pub fn get(
    t: &mut Attempt<'_>,
    id: InodeId,
    hash: &StrHashInfo,
    kind: AclKind,
) -> Result<Option<KVec<AclEntry>>, TransError> {
    let Some(bytes) = xattr::get(t, id, hash, kind.xattr_type(), &[])? else {
        return Ok(None);
    };
    let acl = Acl::parse(&bytes).map_err(|_| Error::XattrInvalid)?;
    let mut entries = KVec::new();
    for entry in acl.entries() {
        entries.push(entry, GFP_KERNEL)?;
    }
    Ok(Some(entries))
}

/// A list as it is written. Allocates memory.
///
/// # Errors
///
/// [`Error::XattrTooBig`].
pub fn prepare(kind: AclKind, entries: &[AclEntry]) -> Done<Prepared> {
    let mut bytes = KVec::from_elem(0_u8, XATTR_SPACE_MAX, GFP_KERNEL)?;
    let n = Acl::build(entries.iter().copied(), &mut bytes).map_err(|_| Error::XattrTooBig)?;
    let value = bytes.get(..n).ok_or(Error::XattrTooBig)?;
    Prepared::new(kind.xattr_type(), &[], value)
}

/// The list of a file whose permissions become `mode`: owner, others and the mask (or, without one, the group) get them.
fn chmod(entries: &mut [AclEntry], mode: u16) {
    let has_mask = entries.iter().any(|e| e.tag == AclTag::Mask);
    for entry in entries {
        entry.perm = match entry.tag {
            AclTag::UserObj => mode >> 6 & 7,
            AclTag::Mask => mode >> 3 & 7,
            AclTag::GroupObj if !has_mask => mode >> 3 & 7,
            AclTag::Other => mode & 7,
            _ => entry.perm,
        };
    }
}

/// Has the list that decides about access to an inode, if it has one, say what its permissions say now.
pub fn follow_mode(
    t: &mut Attempt<'_>,
    inum: u64,
    snapshot: u32,
    hash: &StrHashInfo,
    mode: u16,
) -> Result<(), TransError> {
    let kind = AclKind::Access;
    let start = hash.xattr(kind.xattr_type().0, &[], &KernelCrc);
    let found = str_hash::find(t, BtreeId::XATTRS, inum, snapshot, start, |key| {
        if key.key.key_type != KeyType::XATTR {
            return Ok(Slot::Other);
        }
        let attr = Xattr::parse(key).map_err(|_| Error::XattrInvalid)?;
        if attr.xattr_type != kind.xattr_type() {
            return Ok(Slot::Other);
        }
        let acl = Acl::parse(attr.value).map_err(|_| Error::XattrInvalid)?;
        let mut entries = KVec::new();
        for entry in acl.entries() {
            entries.push(entry, GFP_NOWAIT)?;
        }
        Ok(Slot::Match(entries))
    })?;
    let Some(mut entries) = found else {
        return Ok(());
    };
    chmod(&mut entries, mode);
    // Memory may have to be waited for.
    let attr = t.unlocked(|| prepare(kind, &entries))??;
    Attributes { inum, hash: *hash, snapshot }.set(t, &attr, SetMode::Replace)
}

#[kernel::macros::kunit_tests(bcachefs_fs_acl)]
mod tests {
    use super::*;

    #[test]
    fn permissions_go_into_the_list() {
        let entry = |tag, perm| AclEntry { tag, perm };
        let mut list = [
            entry(AclTag::UserObj, 7),
            entry(AclTag::User(5), 6),
            entry(AclTag::GroupObj, 5),
            entry(AclTag::Mask, 7),
            entry(AclTag::Other, 0),
        ];
        chmod(&mut list, 0o641);
        assert!(list.map(|e| e.perm) == [6, 6, 5, 4, 1]);
        let mut short = [
            entry(AclTag::UserObj, 7),
            entry(AclTag::GroupObj, 7),
            entry(AclTag::Other, 7),
        ];
        chmod(&mut short, 0o641);
        assert!(short.map(|e| e.perm) == [6, 4, 1]);
    }
}
