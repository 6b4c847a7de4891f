// SPDX-License-Identifier: GPL-2.0
//! Directories: lookup and readdir.
//!
//! The position of an entry in a listing is the offset of its key, which stays as long as the
//! entry; 0 and 1 are those of "." and "..".

use bcachefs_format::keys::inode::FileType;
use kernel::error::Result;
use kfs::vfs::{
    dir::{Emitter, EntryType, Operations, Room},
    file::Table,
    InodeRef,
};

use super::{
    inode::{self, mount, Inode},
    mount::Bcachefs,
};
use crate::{
    fs::dirent::{self, Batch},
    fs_warn,
    util::error::{self, Error},
};

/// Open directories.
pub(super) struct Listing;

pub(super) const DIR_FILE: Table<Bcachefs> = Table::directory::<Listing>();

/// The inode that `name` in `dir` leads to; `None` if there is no such name. May sleep.
pub(super) fn lookup<'a>(
    dir: &'a Inode,
    name: &[u8],
) -> error::Result<Option<InodeRef<'a, Bcachefs>>> {
    let (mount, info) = (mount(dir), dir.data());
    let target = mount
        .fs
        .btree
        .run(|t| dirent::lookup(t, info.id, &info.hash, name))?;
    let Some(target) = target else {
        return Ok(None);
    };
    match inode::get(dir.super_block(), target) {
        Err(Error::InodeMissing) => {
            fs_warn!(
                *mount.reader,
                "directory {}: an entry leads to {target}, which does not exist",
                info.id
            );
            Err(Error::DirentTarget)
        }
        found => found.map(Some),
    }
}

impl Operations for Listing {
    type FileSystem = Bcachefs;

    fn iterate(dir: &Inode, emitter: &mut Emitter<'_>) -> Result {
        iterate(dir, emitter).map_err(Error::errno)
    }

    fn sync(dir: &Inode) -> Result {
        inode::unused::write_times(dir)
            .and_then(|()| inode::update::make_durable(dir))
            .map_err(Error::errno)
    }
}

fn iterate(dir: &Inode, emitter: &mut Emitter<'_>) -> error::Result {
    let (mount, info) = (mount(dir), dir.data());
    if emitter.emit_dots() == Room::Full {
        return Ok(());
    }
    let mut batch = Batch::default();
    loop {
        let from = emitter.position();
        // The entries are copied out: handing them on may fault, which no lock may be held for.
        mount
            .fs
            .btree
            .run(|t| dirent::list(t, info.id, from, &mut batch))?;
        for (entry, name) in batch.iter() {
            let kind = entry_type(entry.file_type);
            let next = entry.offset.saturating_add(1);
            if emitter.emit(name, entry.inum, kind, entry.offset, next) == Room::Full {
                return Ok(());
            }
        }
        match batch.next() {
            Some(next) => emitter.set_position(next),
            None => return Ok(()),
        }
    }
}

fn entry_type(file_type: FileType) -> EntryType {
    match file_type {
        FileType::FIFO => EntryType::Fifo,
        FileType::CHR => EntryType::CharDevice,
        FileType::DIR => EntryType::Directory,
        FileType::BLK => EntryType::BlockDevice,
        FileType::REG => EntryType::Regular,
        FileType::LNK => EntryType::Symlink,
        FileType::SOCK => EntryType::Socket,
        _ => EntryType::Unknown,
    }
}
