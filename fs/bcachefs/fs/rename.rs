// SPDX-License-Identifier: GPL-2.0
//! Moving names.
//!
//! The new entry is put in place before the old one goes: so the rule that says whether the old one's slot must keep a chain together sees
//! the new one.

use super::{
    create::{touch, NewFile},
    dirent::{Directory, Target},
    inode::{edit, Changed, Edit},
    link::{empty, inherit, Used},
};
use crate::{
    btree::{Attempt, TransError},
    util::error::{Error, Result as Done},
};
use kernel::prelude::*;

/// A name in a directory.
#[derive(Copy, Clone)]
pub struct Place<'a> {
    /// The directory.
    pub dir: Used<'a>,
    /// The name.
    pub name: &'a [u8],
}

/// What is to be moved where.
pub struct Rename<'a> {
    /// The name that moves.
    pub from: Place<'a>,
    /// What it leads to.
    pub inode: Used<'a>,
    /// Where it moves.
    pub to: Place<'a>,
    /// What is there.
    pub target: Option<Used<'a>>,
    /// That goes the other way.
    pub exchange: bool,
    /// What is left at the old place.
    pub whiteout: Option<&'a NewFile>,
    /// The time.
    pub now: i64,
}

/// Keys that change, and where they end up. Its place is made before the transaction: it is too large for a stack.
pub struct Renamed {
    from_dir: Option<Edit>,
    to_dir: Option<Edit>,
    inode: Option<Edit>,
    target: Option<Edit>,
    /// The directory that the name was in.
    pub from_dir_key: Option<Changed>,
    /// The directory it is in, if another one.
    pub to_dir_key: Option<Changed>,
    /// What moved.
    pub inode_key: Option<Changed>,
    /// What it replaced, or exchanged places with.
    pub target_key: Option<Changed>,
}

impl Renamed {
    /// Place for it.
    pub fn new() -> Done<KBox<Self>> {
        let empty = init!(Renamed {
            from_dir: None,
            to_dir: None,
            inode: None,
            target: None,
            from_dir_key: None,
            to_dir_key: None,
            inode_key: None,
            target_key: None,
        });
        Ok(KBox::init(empty, GFP_KERNEL)?)
    }

    /// Empties it, for another attempt.
    fn clear(&mut self) {
        self.to_dir = None;
        self.target = None;
    }
}

type Tried<T = ()> = Result<T, TransError>;

/// An edit that was begun before.
fn begun(edit: &mut Option<Edit>) -> Tried<&mut Edit> {
    edit.as_mut().ok_or(Error::InodeMissing.into())
}

impl Rename<'_> {
    fn same_dir(&self) -> bool {
        self.from.dir.id == self.to.dir.id
    }

    /// Does it, in `out`.
    ///
    /// # Errors
    ///
    /// [`Error::CrossDevice`] between subvolumes, or if a directory would get other options; [`Error::DirectoryNotEmpty`] if one is to
    /// be replaced that has something in it; [`Error::NameExists`], [`Error::DirentMissing`] if names do not lead where they should;
    /// [`Error::SubvolumeName`].
    pub fn run(&self, t: &mut Attempt<'_>, out: &mut Renamed) -> Tried {
        out.clear();
        self.begin(t, out)?;
        let (from, to) = self.directories(out)?;
        let old = from.find_existing(t, self.from.name, self.inode.id.inum)?;
        let new = match self.target {
            Some(target) => to.find_existing(t, self.to.name, target.id.inum)?,
            None => self.place(t, &to, old)?,
        };
        let moving = Target::of(&begun(&mut out.inode)?.key);
        to.put(t, new, self.to.name, moving)?;
        if self.exchange {
            let coming = Target::of(&begun(&mut out.target)?.key);
            from.put(t, old, self.from.name, coming)?;
        } else if let Some(whiteout) = self.whiteout {
            let dir = begun(&mut out.from_dir)?;
            whiteout.replace(t, dir, &from, old, self.from.name)?;
        } else if !self.same_dir() || new != old {
            from.remove(t, old)?;
        }
        self.count(t, out)?;
        self.point(out, old, new)?;
        self.put(t, out)
    }

    #[inline(never)]
    fn begin(&self, t: &mut Attempt<'_>, out: &mut Renamed) -> Tried {
        let subvol = self.from.dir.id.subvol;
        let others = [Some(self.to.dir), Some(self.inode), self.target];
        if others.iter().flatten().any(|used| used.id.subvol != subvol) {
            return Err(Error::CrossDevice.into());
        }
        let begin = |t: &mut Attempt<'_>, used: Used<'_>| edit(t, used.id, Some(used.state));
        out.from_dir = Some(begin(t, self.from.dir)?);
        if !self.same_dir() {
            out.to_dir = Some(begin(t, self.to.dir)?);
        }
        out.inode = Some(begin(t, self.inode)?);
        if let Some(target) = self.target {
            out.target = Some(begin(t, target)?);
        }
        if [&out.inode, &out.target].iter().any(|e| e.is_some_and(|e| e.key.is_subvol_root())) {
            return Err(Error::SubvolumeName.into());
        }
        Ok(())
    }

    fn directories(&self, out: &mut Renamed) -> Tried<(Directory, Directory)> {
        let snapshot = begun(&mut out.from_dir)?.snapshot;
        let directory = |used: Used<'_>| Directory { id: used.id, hash: *used.hash, snapshot };
        Ok((directory(self.from.dir), directory(self.to.dir)))
    }

    /// Where a new name goes. If the old one's slot is on the way there, it can stay in that.
    fn place(&self, t: &mut Attempt<'_>, to: &Directory, old: u64) -> Tried<u64> {
        let free = to.find_place(t, self.to.name)?;
        let on_the_way = self.same_dir() && (to.hash(self.to.name)..free).contains(&old);
        Ok(if on_the_way && self.whiteout.is_none() { old } else { free })
    }

    /// Links of directories and of what is replaced.
    #[inline(never)]
    fn count(&self, t: &mut Attempt<'_>, out: &mut Renamed) -> Tried {
        let inode_is_dir = begun(&mut out.inode)?.key.mode.is_dir();
        let target_is_dir = out.target.is_some_and(|e| e.key.mode.is_dir());
        if let Some(to) = out.to_dir.as_mut() {
            if inode_is_dir {
                begun(&mut out.from_dir)?.drop_child();
                to.add_child()?;
            }
            if self.exchange && target_is_dir {
                to.drop_child();
                begun(&mut out.from_dir)?.add_child()?;
            }
        }
        if self.exchange || out.target.is_none() {
            return Ok(());
        }
        if let (Some(target), true) = (self.target, target_is_dir) {
            let snapshot = begun(&mut out.target)?.snapshot;
            empty(t, target.id, snapshot)?;
            let dir = if out.to_dir.is_some() { &mut out.to_dir } else { &mut out.from_dir };
            begun(dir)?.drop_child();
        }
        begun(&mut out.target)?.drop_link();
        Ok(())
    }

    /// Entries that inodes know, options, times.
    #[inline(never)]
    fn point(&self, out: &mut Renamed, old: u64, new: u64) -> Tried {
        let from_options = begun(&mut out.from_dir)?.key.options;
        let to_options = out.to_dir.map_or(from_options, |d| d.key.options);
        let inode = begun(&mut out.inode)?;
        (inode.key.dir, inode.key.dir_offset) = (self.to.dir.id.inum, new);
        self.take_options(inode, &to_options)?;
        inode.key.ctime = self.now;
        if let Some(target) = out.target.as_mut() {
            target.key.ctime = self.now;
            if self.exchange {
                (target.key.dir, target.key.dir_offset) = (self.from.dir.id.inum, old);
                self.take_options(target, &from_options)?;
            } else {
                target.forget_entry(self.to.dir.id.inum, new);
            }
        }
        touch(begun(&mut out.from_dir)?, self.now);
        if let Some(dir) = out.to_dir.as_mut() {
            touch(dir, self.now);
        }
        Ok(())
    }

    fn take_options(
        &self,
        inode: &mut Edit,
        dir: &bcachefs_format::keys::inode::InodeOptions,
    ) -> Tried {
        if self.same_dir() {
            return Ok(());
        }
        let new = inherit(&inode.key.options, dir);
        if new != inode.key.options && inode.key.mode.is_dir() {
            return Err(Error::CrossDevice.into());
        }
        inode.key.options = new;
        Ok(())
    }

    #[inline(never)]
    fn put(&self, t: &mut Attempt<'_>, out: &mut Renamed) -> Tried {
        out.from_dir_key = Some(begun(&mut out.from_dir)?.put(t)?);
        if let Some(dir) = &out.to_dir {
            out.to_dir_key = Some(dir.put(t)?);
        }
        out.inode_key = Some(begun(&mut out.inode)?.put(t)?);
        if let Some(target) = &out.target {
            out.target_key = Some(target.put(t)?);
        }
        Ok(())
    }
}
