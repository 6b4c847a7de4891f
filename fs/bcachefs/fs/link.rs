// SPDX-License-Identifier: GPL-2.0
//! Adding names to files that exist, and removing names.

use bcachefs_format::keys::{inode::InodeOptions, str_hash::StrHashInfo};

use super::{
    create::touch,
    dirent::{self, Directory, Target},
    inode::{edit, Changed, State},
    InodeId,
};
use crate::{
    btree::{Attempt, TransError},
    util::error::{Error, Result as Done},
};
use kernel::prelude::*;

/// An inode in use.
#[derive(Copy, Clone)]
pub struct Used<'a> {
    /// Which one.
    pub id: InodeId,
    /// Its newest key.
    pub state: &'a State,
    /// How its names are hashed.
    pub hash: &'a StrHashInfo,
}

/// What a change of a name changes. Its place is made before the transaction, and not on a stack.
#[derive(Default)]
pub struct Both {
    /// The directory.
    pub dir: Option<Changed>,
    /// The inode that the name led to, or leads to.
    pub inode: Option<Changed>,
}

impl Both {
    /// Place for it.
    pub fn new() -> Done<KBox<Self>> {
        Ok(KBox::init(init!(Both { dir: None, inode: None }), GFP_KERNEL)?)
    }
}

/// What becomes of the options of an inode that gets a name in a directory with options `dir`: those that were not set on it alone
/// are the directory's.
pub(super) fn inherit(own: &InodeOptions, dir: &InodeOptions) -> InodeOptions {
    use bcachefs_format::keys::inode::InodeOpt;
    let mut new = *own;
    for opt in InodeOpt::ALL {
        if !own.is_explicit(opt) {
            // What is stored in one place fits in the other.
            let _ = new.set(opt, dir.get(opt));
        }
    }
    new
}

/// Gives `inode`, which is not a directory, the name `name` in `dir`.
///
/// # Errors
///
/// [`Error::NameExists`]; [`Error::CrossDevice`] if it is of another subvolume, or would get other options;
/// [`Error::TooManyLinks`].
#[inline(never)]
pub fn link(
    t: &mut Attempt<'_>,
    dir: Used<'_>,
    name: &[u8],
    inode: Used<'_>,
    now: i64,
    out: &mut Both,
) -> Result<(), TransError> {
    if dir.id.subvol != inode.id.subvol {
        return Err(Error::CrossDevice.into());
    }
    let mut parent = edit(t, dir.id, Some(dir.state))?;
    let directory = Directory { id: dir.id, hash: *dir.hash, snapshot: parent.snapshot };
    let slot = directory.find_place(t, name)?;
    touch(&mut parent, now);
    let options = parent.key.options;
    out.dir = Some(parent.put(t)?);

    let mut edited = edit(t, inode.id, Some(inode.state))?;
    if edited.key.mode.is_dir() {
        return Err(Error::NotPermitted.into());
    }
    if inherit(&edited.key.options, &options) != edited.key.options {
        return Err(Error::CrossDevice.into());
    }
    edited.add_link()?;
    edited.key.ctime = now;
    (edited.key.dir, edited.key.dir_offset) = (directory.id.inum, slot);
    directory.put(t, slot, name, Target::of(&edited.key))?;
    out.inode = Some(edited.put(t)?);
    Ok(())
}

/// Removes `name` from `dir`, which leads to `inode`.
///
/// # Errors
///
/// [`Error::DirectoryNotEmpty`] if that is a directory with something in it; [`Error::DirentMissing`] if the name does not
/// lead there; [`Error::SubvolumeName`].
#[inline(never)]
pub fn unlink(
    t: &mut Attempt<'_>,
    dir: Used<'_>,
    name: &[u8],
    inode: Used<'_>,
    now: i64,
    out: &mut Both,
) -> Result<(), TransError> {
    let mut parent = edit(t, dir.id, Some(dir.state))?;
    let directory = Directory { id: dir.id, hash: *dir.hash, snapshot: parent.snapshot };
    let slot = directory.find_existing(t, name, inode.id.inum)?;
    let mut edited = edit(t, inode.id, Some(inode.state))?;
    if edited.key.is_subvol_root() {
        return Err(Error::SubvolumeName.into());
    }
    if edited.key.mode.is_dir() {
        empty(t, inode.id, edited.snapshot)?;
        parent.drop_child();
    }
    directory.remove(t, slot)?;
    touch(&mut parent, now);
    out.dir = Some(parent.put(t)?);
    edited.drop_link();
    edited.key.ctime = now;
    edited.forget_entry(directory.id.inum, slot);
    out.inode = Some(edited.put(t)?);
    Ok(())
}

/// Refuses a directory with something in it.
pub(super) fn empty(t: &mut Attempt<'_>, id: InodeId, snapshot: u32) -> Result<(), TransError> {
    match dirent::is_empty(t, id.inum, snapshot, Some(id.subvol))? {
        true => Ok(()),
        false => Err(Error::DirectoryNotEmpty.into()),
    }
}
