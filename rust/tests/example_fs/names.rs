// SPDX-License-Identifier: GPL-2.0

//! Inodes and directories.

use crate::{contents::Contents, node_type, open, ExampleFs, Type, MANY, MANY_COUNT};
use kernel::{prelude::*, str::CString};
use kfs::errno::Errno;
use kfs::vfs::{
    acl, dir, inode, iomap,
    stat::{Attributes, Stat},
    xattr, Inode, InodeRef,
};

pub(crate) struct Operations;

#[vtable]
impl inode::Operations for Operations {
    type FileSystem = ExampleFs;

    fn lookup<'a>(
        dir: &'a Inode<ExampleFs>,
        name: &[u8],
    ) -> Result<Option<InodeRef<'a, ExampleFs>>> {
        if name.len() > 255 {
            return Err(Errno::ENAMETOOLONG.into());
        }
        let number = match node_type(dir.data().number) {
            Some(Type::Directory(entries)) => {
                entries.iter().find(|(entry, _)| entry.as_bytes() == name).map(|(_, n)| *n)
            }
            Some(Type::Many) => core::str::from_utf8(name)
                .ok()
                .filter(|name| name.len() == 6)
                .and_then(|name| name.strip_prefix('f')?.parse::<u64>().ok())
                .filter(|index| *index < MANY_COUNT)
                .map(|index| MANY + index),
            _ => return Err(ENOTDIR),
        };
        number.map(|number| open(dir.super_block(), number)).transpose()
    }

    fn link(inode: &Inode<ExampleFs>) -> Result<KVec<u8>> {
        let Some(Type::Link(target)) = node_type(inode.data().number) else {
            return Err(EINVAL);
        };
        let mut bytes = KVec::new();
        bytes.extend_from_slice(target.as_bytes(), GFP_KERNEL)?;
        Ok(bytes)
    }

    fn getattr(inode: &Inode<ExampleFs>, stat: &mut Stat<'_>) -> Result {
        stat.set_birth_time(inode.data().birth);
        stat.set_subvolume(77);
        stat.set_attributes(
            Attributes::none().with(Attributes::COMPRESSED, inode.number() == 5),
            Attributes::COMPRESSED,
        );
        stat.set_direct_io_alignment(512, 512);
        Ok(())
    }

    fn listxattr(inode: &Inode<ExampleFs>, names: &mut xattr::Names<'_>) -> Result {
        if inode.number() == 10 {
            names.add(b"user.", b"colour");
            names.add(b"trusted.", b"secret");
            names.add(b"", b"system.posix_acl_access");
        }
        Ok(())
    }

    fn acl(inode: &Inode<ExampleFs>, kind: acl::Kind) -> Result<Option<acl::Entries>> {
        if (inode.number(), kind) != (10, acl::Kind::Access) {
            return Ok(None);
        }
        let mut entries = KVec::new();
        for (tag, permissions) in [
            (acl::Tag::UserObject, 7),
            (acl::Tag::User(1234), 5),
            (acl::Tag::GroupObject, 5),
            (acl::Tag::Mask, 5),
            (acl::Tag::Other, 5),
        ] {
            entries.push(acl::Entry { tag, permissions }, GFP_KERNEL)?;
        }
        Ok(Some(entries))
    }

    fn fiemap(inode: &Inode<ExampleFs>, request: iomap::FiemapRequest<'_>) -> Result {
        iomap::fiemap::<Contents>(inode, request)
    }
}

pub(crate) struct Entries;

impl dir::Operations for Entries {
    type FileSystem = ExampleFs;

    fn iterate(dir: &Inode<ExampleFs>, emitter: &mut dir::Emitter<'_>) -> Result {
        if emitter.emit_dots() == dir::Room::Full {
            return Ok(());
        }
        let of_type = node_type(dir.data().number);
        loop {
            let position = emitter.position();
            let index = position.saturating_sub(2);
            let room = match of_type {
                Some(Type::Directory(entries)) => {
                    let Some((name, number)) = entries.get(index as usize) else {
                        return Ok(());
                    };
                    let entry_type = match node_type(*number) {
                        Some(Type::Directory(_) | Type::Many) => dir::EntryType::Directory,
                        Some(Type::Link(_)) => dir::EntryType::Symlink,
                        Some(Type::Fifo) => dir::EntryType::Fifo,
                        Some(Type::Null) => dir::EntryType::CharDevice,
                        Some(Type::Socket) => dir::EntryType::Socket,
                        _ => dir::EntryType::Regular,
                    };
                    emitter.emit(name.as_bytes(), *number, entry_type, position, position + 1)
                }
                Some(Type::Many) if index < MANY_COUNT => {
                    let name = CString::try_from_fmt(fmt!("f{index:05}"))?;
                    let number = MANY + index;
                    let entry_type = dir::EntryType::Regular;
                    emitter.emit(name.to_bytes(), number, entry_type, position, position + 1)
                }
                _ => return Ok(()),
            };
            if room == dir::Room::Full {
                return Ok(());
            }
        }
    }
}
