// SPDX-License-Identifier: GPL-2.0
//! Making files.
//!
//! The inode is in the cache, locked, before the transaction begins: nobody gets at it by number before all is done. Its
//! number was free when that was looked up; if it is not any more the whole thing begins anew.

use bcachefs_format::{
    features::Features,
    keys::{
        inode::{Inode as Key, Mode},
        str_hash::StrHashType,
        xattr::XattrType,
    },
};
use kernel::prelude::*;
use kfs::vfs::{
    inode::{Created, Creation, What},
    InodeEntry, NewInode,
};

use super::{
    fill, mount,
    update::{committed, settle, Fields, COMMIT},
    Inode, InodeInfo,
};
use crate::{
    fs::{
        self,
        acl::AclKind,
        create::{prepare_target, NewFile},
        xattr::edit::Prepared,
        InodeId,
    },
    util::error::{Error, Result},
    vfs::{
        mount::{Bcachefs, Mount},
        xattr,
    },
};

/// Numbers that are tried. All but the first are needed only if somebody else has taken them in another way.
const TRIES: u32 = 16;

/// A file that is being made: what will be written, and the inode in the cache.
pub(super) struct Making<'a> {
    pub(super) file: NewFile,
    made: fs::create::Created,
    ready: Option<(NewInode<'a, Bcachefs>, InodeInfo)>,
}

/// Makes a file in `dir`.
pub(super) fn create<'a>(
    dir: &'a Inode,
    name: Option<&[u8]>,
    creation: &Creation<'_>,
) -> Result<Created<'a, Bcachefs>> {
    let (mount, info) = (mount(dir), dir.data());
    for _ in 0..TRIES {
        let mut making = prepare(dir, name, creation)?;
        let Making { file, made, .. } = &mut *making;
        let done = mount.fs.btree.commit(None, COMMIT, |t| {
            file.create(t, info.id, &info.state, &info.hash, name, made)
        });
        let ((), done) = match done {
            Err(Error::NumberTaken) => continue,
            done => done?,
        };
        if let Some(changed) = &made.dir {
            committed(dir, changed, done.seq, Fields::ENTRIES);
        }
        let created = finish(dir, making, done.seq)?;
        // It exists; that it may not be durable is for a later call to find out.
        let _ = settle(dir, done.seq);
        return Ok(created);
    }
    Err(Error::NumberTaken)
}

/// The new inode, once it has been written as journal entry `seq`. Nothing is needed for that which could be lacking: the file
/// exists.
#[inline(never)]
fn finish<'a>(
    dir: &'a Inode,
    mut making: KBox<Making<'a>>,
    seq: u64,
) -> Result<Created<'a, Bcachefs>> {
    let Making { made, ready, .. } = &mut *making;
    let (Some(key), Some((mut new, info))) = (made.key.as_ref(), ready.take()) else {
        return Err(Error::InodeMissing);
    };
    info.state.made(key, seq);
    let kind = fill(mount(dir), &mut new, key)?;
    Ok(new.finish_created(kind, info))
}

/// Everything that is decided before the transaction.
#[inline(never)]
pub(super) fn prepare<'a>(
    dir: &'a Inode,
    name: Option<&[u8]>,
    creation: &Creation<'_>,
) -> Result<KBox<Making<'a>>> {
    let mount = mount(dir);
    let (inum, mut new) = take_number(dir, mount)?;
    new.set_number(inum);
    new.set_created_by(creation, dir);
    let attributes = inherit(dir, name, creation, &mut new)?;
    let target = match creation.what {
        What::Symlink(target) => {
            mount.require(Features::INLINE_DATA)?;
            Some(prepare_target(target)?)
        }
        _ => None,
    };
    let dev = match creation.what {
        What::Device { major, minor, .. } => (major << 20) | (minor & 0xf_ffff),
        _ => 0,
    };
    let (uid, gid) = new.owner();
    let file = NewFile {
        inum,
        mode: Mode(new.mode()),
        uid,
        gid,
        dev,
        now: mount.now(dir.super_block()),
        str_hash: StrHashType::for_new(mount.str_hash),
        hash_seed: kfs::random::u64(),
        attributes,
        target,
        block_sectors: mount.fs.sup.block_sectors,
    };
    let info = describe(dir, &file)?;
    let made = fs::create::Created::default();
    Ok(KBox::new(Making { file, made, ready: Some((new, info)) }, GFP_KERNEL)?)
}

/// The attributes that a new file has from the beginning, and its permissions as its directory's lists have them.
#[inline(never)]
fn inherit(
    dir: &Inode,
    name: Option<&[u8]>,
    creation: &Creation<'_>,
    new: &mut NewInode<'_, Bcachefs>,
) -> Result<KVec<Prepared>> {
    let inherited = match creation.what {
        What::Symlink(_) => {
            new.set_no_acl();
            Default::default()
        }
        _ => new.inherit_acl(dir)?,
    };
    let mut attributes = KVec::new();
    let lists = [(AclKind::Access, &inherited.access), (AclKind::Default, &inherited.default)];
    for (kind, list) in lists {
        if let Some(list) = list {
            attributes.push(xattr::prepare_acl(kind, list)?, GFP_KERNEL)?;
        }
    }
    new.label(dir, name, |label| {
        let attr = Prepared::new(XattrType::SECURITY, label.name, label.value);
        attributes.push(attr.map_err(Error::errno)?, GFP_KERNEL)?;
        Ok(())
    })?;
    Ok(attributes)
}

/// What will be known of the inode in memory.
#[inline(never)]
fn describe(dir: &Inode, file: &NewFile) -> Result<InodeInfo> {
    let id = InodeId { subvol: dir.data().id.subvol, inum: file.inum };
    let key = Key {
        hash_seed: file.hash_seed,
        str_hash: file.str_hash,
        ..Key::default()
    };
    InodeInfo::new(id, &key)
}

/// A free number, and a new inode in the cache for it.
fn take_number<'a>(dir: &'a Inode, mount: &Mount) -> Result<(u64, NewInode<'a, Bcachefs>)> {
    for _ in 0..TRIES {
        let inum = mount.numbers.take(&mount.fs.btree)?;
        let id = InodeId { subvol: dir.data().id.subvol, inum };
        // An inode of this number that is in the cache has just been made by somebody else.
        if let InodeEntry::New(new) = dir.super_block().inode(id)? {
            return Ok((inum, new));
        }
    }
    Err(Error::NumberTaken)
}
