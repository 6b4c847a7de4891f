// SPDX-License-Identifier: GPL-2.0
//! The filesystem as the VFS sees it.
//!
//! Thin: each function fetches what is asked for from `fs/`, `data/` or `alloc/` and puts it into the
//! VFS's terms. Here, and nowhere below, errors become errnos ([`Error::errno`]).
//!
//! | file | kernel table |
//! |---|---|
//! | `mount` | file system type, mount options, superblock |
//! | `inode` | inode cache, attributes, symbolic links |
//! | `dir` | lookup, readdir |
//! | `file` | page cache, direct I/O, layout |
//! | `xattr` | extended attributes, ACLs |
//! | `option_xattr` | an inode's options as attributes |
//! | `export` | file handles |
//!
//! [`Error::errno`]: crate::util::error::Error::errno

mod dir;
mod export;
mod file;
mod inode;
mod mount;
mod option_xattr;
mod xattr;

pub use mount::Bcachefs;
