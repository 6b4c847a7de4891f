// SPDX-License-Identifier: GPL-2.0

//! Extended attributes and file handles.

use crate::{open, ExampleFs};
use kernel::prelude::*;
use kfs::{
    errno::Errno,
    vfs::{export, xattr, Inode, InodeRef, SuperBlock},
};

pub(crate) struct UserXattr;

#[vtable]
impl xattr::Handler for UserXattr {
    type FileSystem = ExampleFs;
    const PREFIX: &'static CStr = c"user.";

    fn get(inode: &Inode<ExampleFs>, name: &[u8], value: &mut xattr::Value<'_>) -> Result {
        if inode.number() != 10 || name != b"colour" {
            return Err(Errno::ENODATA.into());
        }
        value.write(b"blue");
        value.write(b"ish");
        Ok(())
    }
}

pub(crate) struct TrustedXattr;

#[vtable]
impl xattr::Handler for TrustedXattr {
    type FileSystem = ExampleFs;
    const PREFIX: &'static CStr = c"trusted.";

    fn get(inode: &Inode<ExampleFs>, name: &[u8], value: &mut xattr::Value<'_>) -> Result {
        if inode.number() != 10 || name != b"secret" {
            return Err(Errno::ENODATA.into());
        }
        value.write(b"xyzzy");
        Ok(())
    }
}

pub(crate) struct Handles;

impl Handles {
    fn find<'a>(
        sb: &'a SuperBlock<ExampleFs>,
        handle: &export::Handle,
        at: usize,
    ) -> Result<InodeRef<'a, ExampleFs>> {
        match (handle.words().get(at), handle.words().get(at + 1)) {
            (Some(number), Some(generation)) if number ^ 0x5555 == *generation => {
                open(sb, (*number).into()).map_err(|_| Errno::ESTALE.into())
            }
            _ => Err(Errno::ESTALE.into()),
        }
    }
}

#[vtable]
impl export::Operations for Handles {
    type FileSystem = ExampleFs;

    fn encode(inode: &Inode<ExampleFs>, parent: Option<&Inode<ExampleFs>>) -> export::Handle {
        let mut words = [inode.number() as u32, inode.generation(), 0, 0];
        let length = match parent {
            Some(parent) => {
                words[2] = parent.number() as u32;
                words[3] = parent.generation();
                4
            }
            None => 2,
        };
        export::Handle::new(if parent.is_some() { 2 } else { 1 }, &words[..length])
            .unwrap_or(export::Handle::UNUSABLE)
    }

    fn decode<'a>(
        sb: &'a SuperBlock<ExampleFs>,
        handle: &export::Handle,
    ) -> Result<InodeRef<'a, ExampleFs>> {
        Self::find(sb, handle, 0)
    }

    fn decode_parent<'a>(
        sb: &'a SuperBlock<ExampleFs>,
        handle: &export::Handle,
    ) -> Result<InodeRef<'a, ExampleFs>> {
        Self::find(sb, handle, 2)
    }

    fn parent(child: &Inode<ExampleFs>) -> Result<InodeRef<'_, ExampleFs>> {
        open(child.super_block(), 1)
    }
}
