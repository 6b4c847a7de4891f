// SPDX-License-Identifier: GPL-2.0
//! File handles, for NFS and `open_by_handle_at(2)`.
//!
//! A handle names an inode by number, subvolume and generation; with a parent, also that. Handles of types that
//! other implementations of the format use for the same content are the same.

use kernel::{error::Result, prelude::*};
use kfs::vfs::{
    export::{Handle, Operations},
    InodeRef, SuperBlock,
};

use super::{
    inode::{self, Inode},
    mount::Bcachefs,
};
use crate::{
    fs::{self, InodeId},
    util::error::{self, Error},
};

/// An inode alone.
const WITHOUT_PARENT: u8 = 0xb1;
/// An inode and its parent.
const WITH_PARENT: u8 = 0xb2;

/// Words that name one inode: number (low, high), subvolume, generation.
const WORDS: usize = 4;

/// File handles of the filesystem.
pub(super) struct Handles;

/// What a handle says of an inode.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Name {
    id: InodeId,
    generation: u32,
}

impl Name {
    fn of(inode: &Inode) -> Self {
        Name {
            id: inode.data().id,
            generation: inode.generation(),
        }
    }

    fn words(self) -> [u32; WORDS] {
        let inum = self.id.inum;
        [inum as u32, (inum >> 32) as u32, self.id.subvol, self.generation]
    }

    /// From the words of a handle that begin at `words`.
    fn parse(words: &[u32]) -> Option<Self> {
        let [low, high, subvol, generation] = *words.first_chunk::<WORDS>()?;
        Some(Name {
            id: InodeId {
                subvol,
                inum: u64::from(low) | u64::from(high) << 32,
            },
            generation,
        })
    }
}

#[vtable]
impl Operations for Handles {
    type FileSystem = Bcachefs;

    fn encode(inode: &Inode, parent: Option<&Inode>) -> Handle {
        let own = Name::of(inode).words();
        let handle = match parent {
            None => Handle::new(WITHOUT_PARENT, &own),
            Some(parent) => {
                let [a, b, c, d] = own;
                let [e, f, g, h] = Name::of(parent).words();
                Handle::new(WITH_PARENT, &[a, b, c, d, e, f, g, h])
            }
        };
        handle.unwrap_or(Handle::UNUSABLE)
    }

    fn decode<'a>(
        sb: &'a SuperBlock<Bcachefs>,
        handle: &Handle,
    ) -> Result<InodeRef<'a, Bcachefs>> {
        let name = match handle.kind() {
            WITHOUT_PARENT | WITH_PARENT => Name::parse(handle.words()),
            _ => None,
        };
        open(sb, name).map_err(Error::errno)
    }

    fn decode_parent<'a>(
        sb: &'a SuperBlock<Bcachefs>,
        handle: &Handle,
    ) -> Result<InodeRef<'a, Bcachefs>> {
        let name = match handle.kind() {
            WITH_PARENT => handle.words().get(WORDS..).and_then(Name::parse),
            _ => None,
        };
        open(sb, name).map_err(Error::errno)
    }

    fn parent(child: &Inode) -> Result<InodeRef<'_, Bcachefs>> {
        let info = child.data();
        fs::inode::parent(info.id, &info.key())
            .and_then(|parent| inode::get(child.super_block(), parent))
            .map_err(Error::errno)
    }

    fn name(parent: &Inode, child: &Inode) -> Result<KVec<u8>> {
        let (dir, info) = (parent.data().id, child.data());
        inode::mount(parent)
            .fs
            .btree
            .run(|t| fs::dirent::name_of(t, dir, info.id, &info.key()))
            .map_err(Error::errno)
    }
}

/// The inode that a handle names, if it is still the same one and has a name in the filesystem.
fn open<'a>(
    sb: &'a SuperBlock<Bcachefs>,
    name: Option<Name>,
) -> error::Result<InodeRef<'a, Bcachefs>> {
    let name = name.ok_or(Error::HandleStale)?;
    let inode = match inode::get(sb, name.id) {
        Err(Error::InodeMissing | Error::SubvolumeMissing) => return Err(Error::HandleStale),
        found => found?,
    };
    let key = inode.data().key();
    if key.generation != name.generation || fs::inode::is_unlinked(&key) {
        return Err(Error::HandleStale);
    }
    Ok(inode)
}
