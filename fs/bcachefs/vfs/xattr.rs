// SPDX-License-Identifier: GPL-2.0
//! Extended attributes and access control lists.

use bcachefs_format::keys::{
    acl::{AclEntry, AclTag},
    xattr::XattrType,
};
use kernel::{error::Result, prelude::*};
use kfs::vfs::{
    acl,
    xattr::{Handler, Names, SetMode, Value},
};

use super::{
    inode::{
        attributes::with_permissions,
        mount,
        update::{change, transact, Fields, COMMIT, COMMIT_ALWAYS},
        Inode,
    },
    mount::Bcachefs,
    option_xattr,
};
use crate::{
    fs::{
        acl::AclKind,
        xattr::{
            self,
            edit::{Attributes, Prepared, SetMode as Mode},
        },
    },
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

            fn set(inode: &Inode, name: &[u8], value: Option<&[u8]>, mode: SetMode) -> Result {
                set(inode, XattrType::$xattr_type, name, value, mode).map_err(Error::errno)
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

/// Sets or removes an attribute. Sleeps.
fn set(
    inode: &Inode,
    xattr_type: XattrType,
    name: &[u8],
    value: Option<&[u8]>,
    mode: SetMode,
) -> error::Result {
    let attr = value.map(|v| Prepared::new(xattr_type, name, v)).transpose()?;
    let mode = match mode {
        SetMode::Either => Mode::Either,
        SetMode::Create => Mode::Create,
        SetMode::Replace => Mode::Replace,
    };
    write(inode, xattr_type, name, attr.as_ref(), mode, None)
}

/// Sets or removes an attribute, and the permissions with it if `permissions` says so.
fn write(
    inode: &Inode,
    xattr_type: XattrType,
    name: &[u8],
    attr: Option<&Prepared>,
    mode: Mode,
    permissions: Option<u16>,
) -> error::Result {
    let info = inode.data();
    let now = mount(inode).now(inode.super_block());
    let how = if attr.is_some() { COMMIT } else { COMMIT_ALWAYS };
    transact(inode, how, Fields::CTIME.and(Fields::MODE), &mut |t, edited| {
        let snapshot = edited.snapshot;
        let attributes = Attributes { inum: info.id.inum, hash: info.hash, snapshot };
        match attr {
            Some(attr) => attributes.set(t, attr, mode)?,
            None => attributes.remove(t, xattr_type, name)?,
        }
        edited.key.ctime = now;
        if let Some(mode) = permissions {
            edited.key.mode = with_permissions(&edited.key, mode);
        }
        Ok(())
    })?;
    Ok(())
}

/// A list as it is written.
pub(super) fn prepare_acl(kind: AclKind, entries: &[acl::Entry]) -> error::Result<Prepared> {
    let mut stored = KVec::with_capacity(entries.len(), GFP_KERNEL)?;
    for entry in entries {
        let tag = match entry.tag {
            acl::Tag::UserObject => AclTag::UserObj,
            acl::Tag::User(id) => AclTag::User(id),
            acl::Tag::GroupObject => AclTag::GroupObj,
            acl::Tag::Group(id) => AclTag::Group(id),
            acl::Tag::Mask => AclTag::Mask,
            acl::Tag::Other => AclTag::Other,
        };
        stored.push(AclEntry { tag, perm: entry.permissions.into() }, GFP_KERNEL)?;
    }
    crate::fs::acl::prepare(kind, &stored)
}

fn acl_kind(kind: acl::Kind) -> AclKind {
    match kind {
        acl::Kind::Access => AclKind::Access,
        acl::Kind::Default => AclKind::Default,
    }
}

/// Sets or removes an access control list. Sleeps.
pub(super) fn set_acl(
    inode: &Inode,
    kind: acl::Kind,
    entries: Option<&[acl::Entry]>,
    mode: Option<u16>,
) -> error::Result {
    let kind = acl_kind(kind);
    let attr = entries.map(|e| prepare_acl(kind, e)).transpose()?;
    let done = write(inode, kind.xattr_type(), &[], attr.as_ref(), Mode::Either, mode);
    match done {
        // There was none to be removed; the permissions may have changed all the same.
        Err(Error::XattrMissing) => match mode {
            Some(mode) => set_permissions(inode, mode),
            None => Ok(()),
        },
        done => done,
    }
}

fn set_permissions(inode: &Inode, mode: u16) -> error::Result {
    let now = mount(inode).now(inode.super_block());
    let fields = Fields::CTIME.and(Fields::MODE);
    change(inode, fields, |key| {
        key.mode = with_permissions(key, mode);
        key.ctime = now;
    })?;
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
    option_xattr::list(&info.key(), names);
    Ok(())
}

/// An access control list. May sleep.
pub(super) fn acl(inode: &Inode, kind: acl::Kind) -> error::Result<Option<acl::Entries>> {
    let info = inode.data();
    let kind = acl_kind(kind);
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
