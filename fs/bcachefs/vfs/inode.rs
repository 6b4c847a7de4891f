// SPDX-License-Identifier: GPL-2.0
//! Inodes: from their keys into the inode cache, and what stat says of them.

pub(super) mod attributes;
mod create;
mod names;
pub(super) mod unused;
pub(super) mod update;

use bcachefs_format::keys::{
    inode::{time::UnixTime, FileType, Inode as Key, InodeFlags},
    str_hash::StrHashInfo,
};
use kernel::{error::Result, prelude::*, sync::Arc};
use kfs::vfs::{
    self, acl,
    inode::{
        Changes, Created, Creation, FileAttributes, Flags, Kind, Name, Operations, RenameMode, Table,
        TimeUpdate,
    },
    iomap::FiemapRequest,
    stat::{Attributes, Stat},
    xattr::Names,
    InodeEntry, InodeRef, NewInode, SuperBlock, Timestamp,
};

use super::{
    dir::{self, DIR_FILE},
    file::{self, DATA, DATA_FILE},
    mount::{Bcachefs, Mount},
    xattr,
};
use crate::{
    data::Promises,
    fs::{self, inode::State, link::Used, InodeId},
    util::error::{self, Error},
};

/// An inode in the cache.
pub(super) type Inode = vfs::Inode<Bcachefs>;

/// Longest target of a symbolic link, in bytes: longer ones cannot be followed.
const LINK_MAX: u64 = 4095;

/// What an inode in the cache knows beside the VFS's own fields.
pub struct InodeInfo {
    /// Which inode it is.
    pub id: InodeId,
    /// Its newest key.
    pub state: Arc<State>,
    /// How its names are hashed.
    pub hash: StrHashInfo,
    /// Space for what of its data is only in memory.
    pub promises: Pin<KBox<Promises>>,
}

impl InodeInfo {
    fn new(id: InodeId, key: &Key) -> error::Result<Self> {
        let hash = StrHashInfo::new(key).ok_or(Error::InodeInvalid)?;
        let state = State::new(key)?;
        let promises = KBox::pin_init(Promises::new(), GFP_KERNEL)?;
        Ok(InodeInfo { id, state, hash, promises })
    }

    /// The key as it is now.
    pub fn key(&self) -> Key {
        self.state.key()
    }

    /// The newest journal entry that changed the inode.
    pub fn journal_seq(&self) -> u64 {
        self.state.journal_seq()
    }

    /// For transactions.
    pub(super) fn used(&self) -> Used<'_> {
        Used { id: self.id, state: &self.state, hash: &self.hash }
    }
}

/// The operations of all types of inodes.
pub(super) struct Ops;

const INODE: Table<Bcachefs> = Table::new::<Ops>();

/// The mount that `inode` belongs to.
pub(super) fn mount(inode: &Inode) -> &Mount {
    inode.super_block().data()
}

/// The inode `id`, from the cache or from its key. May sleep.
///
/// # Errors
///
/// What [`fs::inode::find`] says.
pub(super) fn get(sb: &SuperBlock<Bcachefs>, id: InodeId) -> error::Result<InodeRef<'_, Bcachefs>> {
    match sb.inode(id)? {
        InodeEntry::Cached(inode) => Ok(inode),
        InodeEntry::New(new) => load(sb.data(), id, new),
    }
}

/// Fills in a new inode.
fn load<'a>(
    mount: &Mount,
    id: InodeId,
    mut new: NewInode<'a, Bcachefs>,
) -> error::Result<InodeRef<'a, Bcachefs>> {
    let key = mount.fs.btree.run(|t| fs::inode::find(t, id))?;
    if key.size > vfs::MAX_FILE_POSITION {
        return Err(Error::InodeInvalid);
    }
    new.set_permissions(key.mode.permissions());
    new.set_owner(key.uid, key.gid);
    let kind = fill(mount, &mut new, &key)?;
    Ok(new.finish(kind, InodeInfo::new(id, &key)?))
}

/// Fills in what follows from the key of a new inode, other than owner and permissions.
fn fill(mount: &Mount, new: &mut NewInode<'_, Bcachefs>, key: &Key) -> error::Result<Kind<Bcachefs>> {
    let time = |stored| timestamp(mount.times.to_unix(stored));
    new.set_number(key.inum);
    new.set_links(key.nlink());
    new.set_size(key.size);
    new.set_blocks(key.sectors);
    new.set_times(time(key.atime), time(key.mtime), time(key.ctime));
    new.set_generation(key.generation);
    new.set_flags(flags(key));

    let (major, minor) = key.rdev();
    Ok(match key.mode.file_type() {
        FileType::DIR => Kind::Directory {
            inode: INODE,
            file: DIR_FILE,
        },
        FileType::REG => Kind::Regular {
            inode: INODE,
            file: DATA_FILE,
            mapping: DATA,
        },
        FileType::LNK => Kind::Symlink { inode: INODE },
        FileType::CHR => Kind::CharDevice {
            inode: INODE,
            major,
            minor,
        },
        FileType::BLK => Kind::BlockDevice {
            inode: INODE,
            major,
            minor,
        },
        FileType::FIFO => Kind::Fifo { inode: INODE },
        FileType::SOCK => Kind::Socket { inode: INODE },
        _ => return Err(Error::InodeInvalid),
    })
}

/// What the VFS is to enforce.
fn flags(key: &Key) -> Flags {
    let has = |flag| key.flags.contains(flag);
    Flags {
        sync: has(InodeFlags::SYNC),
        immutable: has(InodeFlags::IMMUTABLE),
        append: has(InodeFlags::APPEND),
        noatime: has(InodeFlags::NOATIME),
    }
}

/// A time, as keys have it.
pub(super) fn stored(mount: &Mount, time: Timestamp) -> i64 {
    mount.times.from_unix(UnixTime {
        secs: time.seconds,
        nanos: time.nanoseconds,
    })
}

fn timestamp(time: UnixTime) -> Timestamp {
    Timestamp {
        seconds: time.secs,
        nanoseconds: time.nanos,
    }
}

#[vtable]
impl Operations for Ops {
    type FileSystem = Bcachefs;

    fn lookup<'a>(dir: &'a Inode, name: &[u8]) -> Result<Option<InodeRef<'a, Bcachefs>>> {
        dir::lookup(dir, name).map_err(Error::errno)
    }

    fn link(inode: &Inode) -> Result<KVec<u8>> {
        link(inode).map_err(Error::errno)
    }

    fn getattr(inode: &Inode, stat: &mut Stat<'_>) -> Result {
        let (mount, info, key) = (mount(inode), inode.data(), inode.data().key());
        stat.set_birth_time(timestamp(mount.times.to_unix(key.otime)));
        stat.set_subvolume(info.id.subvol.into());
        let block_bytes = mount.fs.sup.block_bytes();
        stat.set_block_size(block_bytes);
        if key.mode.is_reg() {
            let align = file::direct_alignment(mount);
            stat.set_direct_io_alignment(align, align);
        }
        let has = |flag| key.flags.contains(flag);
        let table = [
            (Attributes::IMMUTABLE, has(InodeFlags::IMMUTABLE)),
            (Attributes::APPEND, has(InodeFlags::APPEND)),
            (Attributes::NODUMP, has(InodeFlags::NODUMP)),
        ];
        let none = Attributes::none();
        let known = table.iter().fold(none, |set, (a, _)| set.and(*a));
        let present = table.iter().fold(none, |set, (a, on)| set.with(*a, *on));
        stat.set_attributes(present, known);
        Ok(())
    }

    fn listxattr(inode: &Inode, names: &mut Names<'_>) -> Result {
        xattr::list(inode, names).map_err(Error::errno)
    }

    fn acl(inode: &Inode, kind: acl::Kind) -> Result<Option<acl::Entries>> {
        xattr::acl(inode, kind).map_err(Error::errno)
    }

    fn fiemap(inode: &Inode, request: FiemapRequest<'_>) -> Result {
        vfs::iomap::fiemap::<file::Data>(inode, request)
    }

    fn create<'a>(
        dir: &'a Inode,
        name: Option<&[u8]>,
        creation: &Creation<'_>,
    ) -> Result<Created<'a, Bcachefs>> {
        create::create(dir, name, creation).map_err(Error::errno)
    }

    fn add_link(inode: &Inode, dir: &Inode, name: &[u8]) -> Result {
        names::link(inode, dir, name).map_err(Error::errno)
    }

    fn remove(dir: &Inode, name: &[u8], inode: &Inode) -> Result {
        names::unlink(dir, name, inode).map_err(Error::errno)
    }

    fn rename(
        from: Name<'_, Bcachefs>,
        to: Name<'_, Bcachefs>,
        mode: RenameMode,
        whiteout: Option<&Creation<'_>>,
    ) -> Result {
        names::rename(from, to, mode, whiteout).map_err(Error::errno)
    }

    fn setattr(inode: &Inode, changes: &Changes) -> Result {
        attributes::set(inode, changes).map_err(Error::errno)
    }

    fn update_time(inode: &Inode, update: TimeUpdate) -> Result {
        attributes::write_times(inode, update).map_err(Error::errno)
    }

    fn set_acl(
        inode: &Inode,
        kind: acl::Kind,
        entries: Option<&[acl::Entry]>,
        mode: Option<u16>,
    ) -> Result {
        xattr::set_acl(inode, kind, entries, mode).map_err(Error::errno)
    }

    fn attributes(inode: &Inode) -> Result<FileAttributes> {
        Ok(attributes::flags_of(inode))
    }

    fn set_attributes(inode: &Inode, wanted: &FileAttributes) -> Result {
        attributes::set_flags(inode, wanted).map_err(Error::errno)
    }
}

/// The target of a symbolic link.
fn link(inode: &Inode) -> error::Result<KVec<u8>> {
    let info = inode.data();
    let size = info.key().size;
    if size == 0 || size > LINK_MAX {
        return Err(Error::InodeInvalid);
    }
    // Not more than LINK_MAX.
    let len = size as usize;
    let mut target = mount(inode).reader.read_bytes(info.id, 0, len)?;
    if let Some(end) = target.iter().position(|b| *b == 0) {
        target.truncate(end);
    }
    if target.is_empty() {
        return Err(Error::InodeInvalid);
    }
    Ok(target)
}
