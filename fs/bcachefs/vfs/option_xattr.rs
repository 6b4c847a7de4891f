// SPDX-License-Identifier: GPL-2.0
//! An inode's options as attributes, which are not stored as such: `bcachefs.NAME` is an option that
//! was set on the inode itself, `bcachefs_effective.NAME` is the value in effect.

use bcachefs_format::keys::inode::{Inode as Key, InodeOpt};
use kernel::{error::Result, prelude::*, str::CString};
use kfs::vfs::xattr::{Handler, Names, Value};

use super::{
    inode::{mount, Inode},
    mount::Bcachefs,
};
use crate::{
    fs::options::{self, Text},
    util::error::{self, Error},
};

/// Options set on the inode itself.
pub(super) struct Explicit;
/// Options in effect.
pub(super) struct Effective;

#[vtable]
impl Handler for Explicit {
    type FileSystem = Bcachefs;

    const PREFIX: &'static CStr = c"bcachefs.";

    fn get(inode: &Inode, name: &[u8], value: &mut Value<'_>) -> Result {
        let found = options::by_name(name).and_then(|opt| {
            let value = options::explicit(&inode.data().key(), opt)?;
            Some((opt, value))
        });
        found
            .ok_or(Error::XattrMissing)
            .and_then(|(opt, n)| print(inode, opt, n, value))
            .map_err(Error::errno)
    }
}

#[vtable]
impl Handler for Effective {
    type FileSystem = Bcachefs;

    const PREFIX: &'static CStr = c"bcachefs_effective.";

    fn get(inode: &Inode, name: &[u8], value: &mut Value<'_>) -> Result {
        let sup = &mount(inode).fs.sup;
        options::by_name(name)
            .ok_or(Error::XattrMissing)
            .and_then(|opt| Ok((opt, options::effective(sup, &inode.data().key(), opt)?)))
            .and_then(|(opt, n)| print(inode, opt, n, value))
            .map_err(Error::errno)
    }
}

fn print(inode: &Inode, opt: InodeOpt, value: u32, out: &mut Value<'_>) -> error::Result {
    let fs = &mount(inode).fs;
    let text = Text {
        sup: &fs.sup,
        devices: &fs.devices,
        opt,
        value,
    };
    let text = CString::try_from_fmt(core::format_args!("{text}"))?;
    out.write(text.to_bytes());
    Ok(())
}

/// Hands the names of the options that `inode` carries to `names`.
pub(super) fn list(inode: &Key, names: &mut Names<'_>) {
    let carried = || InodeOpt::ALL.into_iter().filter(|o| inode.options.get(*o).is_some());
    for opt in carried().filter(|opt| inode.options.is_explicit(*opt)) {
        names.add(b"bcachefs.", opt.name().as_bytes());
    }
    for opt in carried() {
        names.add(b"bcachefs_effective.", opt.name().as_bytes());
    }
}
