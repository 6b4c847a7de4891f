// SPDX-License-Identifier: GPL-2.0

//! POSIX access control lists.

use super::{filesystem::FileSystem, super_block::SuperBlock};
use crate::{bindings, errno::Errno};
use kernel::prelude::*;

/// Which of a file's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The list that decides about access to the file.
    Access,
    /// The list that files made in this directory inherit.
    Default,
}

/// Whom an entry is about. Numbers are ids in the filesystem's user namespace, as stored on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// The file's owner.
    UserObject,
    /// A user by id.
    User(u32),
    /// The file's group.
    GroupObject,
    /// A group by id.
    Group(u32),
    /// The most that a named user or any group can have.
    Mask,
    /// Everybody else.
    Other,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whom it is about.
    pub tag: Tag,
    /// What is permitted: read 4, write 2, execute 1.
    pub permissions: u8,
}

/// A list, in the canonical order: owner, users, group, groups, mask, other.
pub type Entries = KVec<Entry>;

impl Tag {
    /// The tag's number, and the id.
    fn raw(self) -> (u32, u32) {
        match self {
            Self::UserObject => (bindings::ACL_USER_OBJ, 0),
            Self::User(id) => (bindings::ACL_USER, id),
            Self::GroupObject => (bindings::ACL_GROUP_OBJ, 0),
            Self::Group(id) => (bindings::ACL_GROUP, id),
            Self::Mask => (bindings::ACL_MASK, 0),
            Self::Other => (bindings::ACL_OTHER, 0),
        }
    }
}

/// Makes a `struct posix_acl`, with one reference; `EUCLEAN` if it is not a proper list. May sleep.
pub(super) fn build<T: FileSystem>(
    sb: &SuperBlock<T>,
    entries: &[Entry],
) -> Result<*mut bindings::posix_acl> {
    let count = u32::try_from(entries.len())?;
    // SAFETY: No requirements.
    let acl = unsafe { bindings::posix_acl_alloc(count, bindings::GFP_KERNEL) };
    if acl.is_null() {
        return Err(ENOMEM);
    }
    let mut proper = true;
    for (index, entry) in (0..count).zip(entries) {
        let (tag, id) = entry.tag.raw();
        // SAFETY: The list is ours; the helper checks the index.
        proper &= unsafe {
            bindings::kfs_posix_acl_set(
                sb.as_raw(),
                acl,
                index,
                tag as i16,
                (entry.permissions & 7).into(),
                id,
            )
        };
    }
    // SAFETY: The list is ours, all its entries have been set; a superblock's user namespace is constant.
    unsafe {
        if !proper || bindings::posix_acl_valid((*sb.as_raw()).s_user_ns, acl) != 0 {
            bindings::kfs_posix_acl_release(acl);
            return Err(Errno::EUCLEAN.into());
        }
    }
    Ok(acl)
}

/// The entries of a list of the VFS; `EINVAL` if one is about somebody who has no id here. May sleep.
///
/// # Safety
///
/// `list` must be a list, which does not change meanwhile.
pub(super) unsafe fn entries<T: FileSystem>(
    sb: &SuperBlock<T>,
    list: *const bindings::posix_acl,
) -> Result<Entries> {
    let mut entries = Entries::new();
    // SAFETY: By the contract, as below.
    let count = unsafe { bindings::kfs_posix_acl_count(list) };
    for index in 0..count {
        let (mut tag, mut permissions, mut id) = (0, 0, 0);
        // SAFETY: The helper checks the index.
        let known = unsafe {
            bindings::kfs_posix_acl_get(
                sb.as_raw(),
                list,
                index,
                &mut tag,
                &mut permissions,
                &mut id,
            )
        };
        let tag = match tag as u32 {
            bindings::ACL_USER_OBJ => Tag::UserObject,
            bindings::ACL_USER => Tag::User(id),
            bindings::ACL_GROUP_OBJ => Tag::GroupObject,
            bindings::ACL_GROUP => Tag::Group(id),
            bindings::ACL_MASK => Tag::Mask,
            bindings::ACL_OTHER => Tag::Other,
            _ => return Err(EINVAL),
        };
        if !known {
            return Err(EINVAL);
        }
        let permissions = (permissions & 7) as u8;
        entries.push(Entry { tag, permissions }, GFP_KERNEL)?;
    }
    Ok(entries)
}

/// A list of the VFS that is ours.
///
/// # Invariants
///
/// The pointer is to a list, with a reference of its own.
pub(super) struct Owned(core::ptr::NonNull<bindings::posix_acl>);

impl Owned {
    /// # Safety
    ///
    /// `list` must be null or a list, a reference to which is given away.
    pub(super) unsafe fn from_raw(list: *mut bindings::posix_acl) -> Option<Self> {
        core::ptr::NonNull::new(list).map(Self)
    }

    pub(super) fn entries<T: FileSystem>(&self, sb: &SuperBlock<T>) -> Result<Entries> {
        // SAFETY: By the type invariant; lists in use do not change.
        unsafe { entries(sb, self.0.as_ptr()) }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::kfs_posix_acl_release(self.0.as_ptr()) };
    }
}
