// SPDX-License-Identifier: GPL-2.0
//! Extended attributes and access control lists.

use bcachefs_format::keys::{acl::AclTag, xattr::XattrType};
use kernel::{error::Result, prelude::*};
use kfs::vfs::{
    acl,
    xattr::{Handler, Names, Value},
};

use super::{
    inode::{mount, Inode},
    mount::Bcachefs,
    option_xattr,
};
use crate::{
    fs::{acl::AclKind, xattr},
    util::error::{self, Error},
};

/// Bytes of names after which listing stops: more than the VFS takes.
const LIST_MAX: usize = 128 << 10;

/// The names of `user.` attributes.
pub(super) struct User;
/// The names of `trusted.` attributes.
pub(super) struct Trusted;
/// The names of `security.` attributes.
pub(super) struct Security;

macro_rules! handler {
    ($name:ident, $prefix:literal, $xattr_type:ident) => {
        #[vtable]
        impl Handler for $name {
            type FileSystem = Bcachefs;

            const PREFIX: &'static CStr = $prefix;

            fn get(inode: &Inode, name: &[u8], value: &mut Value<'_>) -> Result {
                get(inode, XattrType::$xattr_type, name, value).map_err(Error::errno)
            }
        }
    };
}

handler!(User, c"user.", USER);
handler!(Trusted, c"trusted.", TRUSTED);
handler!(Security, c"security.", SECURITY);

fn get(
    inode: &Inode,
    xattr_type: XattrType,
    name: &[u8],
    value: &mut Value<'_>,
) -> error::Result {
    let info = inode.data();
    let found = mount(inode)
        .fs
        .btree
        .run(|t| xattr::get(t, info.id, &info.hash, xattr_type, name))?;
    value.write(&found.ok_or(Error::XattrMissing)?);
    Ok(())
}

/// Hands all names to `names`. May sleep.
pub(super) fn list(inode: &Inode, names: &mut Names<'_>) -> error::Result {
    let info = inode.data();
    // Copied out first: the walk may start again.
    let mut found: KVec<(&'static str, KVec<u8>)> = KVec::new();
    mount(inode).fs.btree.run(|t| {
        let mut bytes = 0;
        found.clear();
        xattr::list(t, info.id, |prefix, name| {
            let mut copy = KVec::new();
            copy.extend_from_slice(name, GFP_KERNEL)?;
            found.push((prefix, copy), GFP_KERNEL)?;
            bytes += prefix.len() + name.len() + 1;
            Ok(bytes <= LIST_MAX)
        })
    })?;
    for (prefix, name) in found.iter() {
        names.add(prefix.as_bytes(), name);
    }
    option_xattr::list(&info.key, names);
    Ok(())
}

/// An access control list. May sleep.
pub(super) fn acl(inode: &Inode, kind: acl::Kind) -> error::Result<Option<acl::Entries>> {
    let info = inode.data();
    let kind = match kind {
        acl::Kind::Access => AclKind::Access,
        acl::Kind::Default => AclKind::Default,
    };
    let found = mount(inode)
        .fs
        .btree
        .run(|t| crate::fs::acl::get(t, info.id, &info.hash, kind))?;
    let Some(found) = found else {
        return Ok(None);
    };
    let mut entries = acl::Entries::new();
    for entry in found.iter() {
        let tag = match entry.tag {
            AclTag::UserObj => acl::Tag::UserObject,
            AclTag::User(id) => acl::Tag::User(id),
            AclTag::GroupObj => acl::Tag::GroupObject,
            AclTag::Group(id) => acl::Tag::Group(id),
            AclTag::Mask => acl::Tag::Mask,
            AclTag::Other => acl::Tag::Other,
        };
        let permissions = (entry.perm & 7) as u8;
        entries.push(acl::Entry { tag, permissions }, GFP_KERNEL)?;
    }
    // A list without entries is none.
    Ok((!entries.is_empty()).then_some(entries))
}
