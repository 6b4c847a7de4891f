// SPDX-License-Identifier: GPL-2.0
//! POSIX access control lists, as stored in extended attributes.
//!
//! A version word, 1, then entries: tag, permissions and, for a named user or group only, the id.
//! So an entry takes four or eight bytes.

use core::fmt;

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::IntoBytes as _;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::Invalid;
use crate::keys::layout::{array_at, assert_layout, view, BuildError};

/// The version that is written, the only one there is.
const VERSION: u32 = 1;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskAclEntry {
    tag: U16,
    perm: U16,
}

assert_layout!(DiskAclEntry, 4, { tag: 0, perm: 2 });

/// Whom an entry is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AclTag {
    /// The owner.
    UserObj,
    /// A user, by id.
    User(u32),
    /// The owning group.
    GroupObj,
    /// A group, by id.
    Group(u32),
    /// The most that users and groups other than the owner get.
    Mask,
    /// Everybody else.
    Other,
}

impl AclTag {
    /// The stored tag, which is also the VFS's, and the id if the entry has one.
    pub const fn to_raw(self) -> (u16, Option<u32>) {
        match self {
            Self::UserObj => (0x01, None),
            Self::User(id) => (0x02, Some(id)),
            Self::GroupObj => (0x04, None),
            Self::Group(id) => (0x08, Some(id)),
            Self::Mask => (0x10, None),
            Self::Other => (0x20, None),
        }
    }
}

/// One entry of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AclEntry {
    /// Whom it is about.
    pub tag: AclTag,
    /// Permissions: 4 read, 2 write, 1 execute.
    pub perm: u16,
}

/// A validated list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acl<'a> {
    /// What follows the version; every entry in it is known to decode.
    entries: &'a [u8],
}

impl<'a> Acl<'a> {
    /// Reads the content of an ACL attribute. An empty list is valid here.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Invalid> {
        let version = array_at::<4>(bytes, 0).map(u32::from_le_bytes);
        let (Some(VERSION), Some(entries)) = (version, bytes.get(4..)) else {
            return Err(Invalid::plain(
                "unknown version of ACL",
                0,
                version.unwrap_or(0).into(),
                VERSION.into(),
            ));
        };
        let mut rest = entries;
        while !rest.is_empty() {
            let Some((_, after)) = next_entry(rest) else {
                return Err(Invalid::plain(
                    "ACL entry of unknown kind, or cut off",
                    bytes.len() - rest.len(),
                    array_at::<2>(rest, 0).map_or(0, |t| u16::from_le_bytes(t).into()),
                    0,
                ));
            };
            rest = after;
        }
        Ok(Self { entries })
    }

    /// The entries.
    pub fn entries(&self) -> impl Iterator<Item = AclEntry> + 'a {
        let mut rest = self.entries;
        core::iter::from_fn(move || {
            let (entry, after) = next_entry(rest)?;
            rest = after;
            Some(entry)
        })
    }

    /// Writes the content of an ACL attribute with these entries; returns the bytes used.
    pub fn build(
        entries: impl IntoIterator<Item = AclEntry>,
        out: &mut [u8],
    ) -> Result<usize, BuildError> {
        let mut len = 0;
        let mut put = |bytes: &[u8]| {
            let to = out
                .get_mut(len..len + bytes.len())
                .ok_or(BuildError::NoRoom)?;
            to.copy_from_slice(bytes);
            len += bytes.len();
            Ok(())
        };
        put(&VERSION.to_le_bytes())?;
        for entry in entries {
            let (tag, id) = entry.tag.to_raw();
            put(DiskAclEntry {
                tag: U16::new(tag),
                perm: U16::new(entry.perm),
            }
            .as_bytes())?;
            if let Some(id) = id {
                put(&id.to_le_bytes())?;
            }
        }
        Ok(len)
    }
}

/// The entry at the front of `bytes`, and what follows it.
fn next_entry(bytes: &[u8]) -> Option<(AclEntry, &[u8])> {
    let (raw, after) = view::<DiskAclEntry>(bytes)?;
    let named = |make: fn(u32) -> AclTag| {
        let (id, after) = view::<U32>(after)?;
        Some((make(id.get()), after))
    };
    let (tag, after) = match raw.tag.get() {
        0x01 => (AclTag::UserObj, after),
        0x02 => named(AclTag::User)?,
        0x04 => (AclTag::GroupObj, after),
        0x08 => named(AclTag::Group)?,
        0x10 => (AclTag::Mask, after),
        0x20 => (AclTag::Other, after),
        _ => return None,
    };
    let perm = raw.perm.get();
    Some((AclEntry { tag, perm }, after))
}

impl fmt::Display for Acl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sep = "";
        for e in self.entries() {
            f.write_str(sep)?;
            match e.tag {
                AclTag::UserObj => f.write_str("user_obj")?,
                AclTag::User(id) => write!(f, "user {id}")?,
                AclTag::GroupObj => f.write_str("group_obj")?,
                AclTag::Group(id) => write!(f, "group {id}")?,
                AclTag::Mask => f.write_str("mask")?,
                AclTag::Other => f.write_str("other")?,
            }
            write!(f, " {:o}", e.perm)?;
            sep = ", ";
        }
        Ok(())
    }
}
