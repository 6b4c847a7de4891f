// SPDX-License-Identifier: GPL-2.0
//! POSIX access control lists, which are stored as extended attributes.

use bcachefs_format::keys::{
    acl::{Acl, AclEntry},
    str_hash::StrHashInfo,
    xattr::XattrType,
};
use kernel::prelude::*;

use super::{xattr, InodeId};
use crate::{
    btree::{Attempt, TransError},
    util::error::Error,
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
    const fn xattr_type(self) -> XattrType {
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
