// SPDX-License-Identifier: GPL-2.0
//! Directory entries.
//!
//! The key is `directory : offset : snapshot`, the offset at or after the hash of the name
//! ([`str_hash`](crate::keys::str_hash)). The value is the target, its type, and the name, padded
//! with zeros to a whole word; the name's length is what is left without the padding.

use core::fmt;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bkey::KeyRef;
use crate::error::{ErrorId, Invalid};
use crate::keys::ctx::ValidateCtx;
use crate::keys::inode::FileType;
use crate::keys::layout::{assert_layout, too_small, view, BuildError, ValueWriter};
use crate::keys::text::Name;

/// Longest name that may be written, in bytes.
pub const NAME_MAX: usize = 512;

/// The fixed part. The target of a subvolume's entry is two numbers in place of one.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskDirent {
    target: U64,
    d_type: u8,
}

assert_layout!(DiskDirent, 9, { target: 0, d_type: 8 });

/// The target of an entry of type subvolume.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskSubvolTarget {
    child_subvol: U32,
    parent_subvol: U32,
}

assert_layout!(DiskSubvolTarget, 8, { child_subvol: 0, parent_subvol: 4 });

/// What an entry leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DirentTarget {
    /// An inode, by number.
    Inode(u64),
    /// The root of a subvolume.
    Subvol {
        /// The subvolume.
        child: u32,
        /// The subvolume the entry belongs to; in snapshots of it the entry is not shown.
        parent: u32,
    },
}

/// A view of a directory entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dirent<'a> {
    /// What the entry leads to.
    pub target: DirentTarget,
    /// Type of the target.
    pub d_type: FileType,
    /// The name, without terminator.
    pub name: &'a [u8],
}

impl<'a> Dirent<'a> {
    /// Reads the value of a key of type `dirent`.
    pub fn parse(key: KeyRef<'a>) -> Result<Self, Invalid> {
        let bytes = key.value_bytes();
        let Some((raw, after)) = view::<DiskDirent>(bytes) else {
            return Err(too_small(bytes.len(), 16));
        };
        let d_type = FileType(raw.d_type);
        let target = if d_type == FileType::SUBVOL {
            let sub = zerocopy::transmute_ref!(&raw.target);
            let sub: &DiskSubvolTarget = sub;
            DirentTarget::Subvol {
                child: sub.child_subvol.get(),
                parent: sub.parent_subvol.get(),
            }
        } else {
            DirentTarget::Inode(raw.target.get())
        };
        Ok(Self {
            target,
            d_type,
            name: strip_padding(after, bytes.len()),
        })
    }

    /// Whether a lookup in subvolume `subvol` sees the entry. Entries of subvolumes are seen only
    /// from the subvolume they were made in.
    pub const fn is_visible_in(&self, subvol: u32) -> bool {
        match self.target {
            DirentTarget::Inode(_) => true,
            DirentTarget::Subvol { parent, .. } => parent == subvol,
        }
    }

    /// Writes the value; returns the words used.
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        if self.name.is_empty() || self.name.len() > NAME_MAX || self.name.contains(&0) {
            return Err(BuildError::Unrepresentable("name"));
        }
        let is_subvol = matches!(self.target, DirentTarget::Subvol { .. });
        if is_subvol != (self.d_type == FileType::SUBVOL) {
            return Err(BuildError::Unrepresentable("type of the target"));
        }
        let target = match self.target {
            DirentTarget::Inode(inum) => inum,
            DirentTarget::Subvol { child, parent } => u64::from(child) | (u64::from(parent) << 32),
        };
        let mut w = ValueWriter::new(out);
        w.put(&DiskDirent {
            target: U64::new(target),
            d_type: self.d_type.0,
        })?;
        w.bytes(self.name)?;
        w.finish()
    }

    /// Checks a key of type `dirent`.
    pub(crate) fn validate(key: KeyRef<'_>, ctx: &ValidateCtx<'_>) -> Result<(), Invalid> {
        let d = Dirent::parse(key)?;
        let at = size_of::<DiskDirent>();
        let err = |id, what, got: u64, want: u64| Err(Invalid::new(id, what, at, got, want));
        if d.name.is_empty() {
            return err(ErrorId::DIRENT_EMPTY_NAME, "empty name", 0, 1);
        }
        let words = (at + d.name.len()).div_ceil(8);
        if key.value.len() > words {
            return err(
                ErrorId::DIRENT_VAL_TOO_BIG,
                "value longer than the name needs",
                key.value.len() as u64,
                words as u64,
            );
        }
        // Longer names can be read; nobody may write one.
        if ctx.is_commit() && d.name.len() > NAME_MAX {
            return err(
                ErrorId::DIRENT_NAME_TOO_LONG,
                "name too long",
                d.name.len() as u64,
                NAME_MAX as u64,
            );
        }
        if d.name.contains(&0) {
            return err(
                ErrorId::DIRENT_NAME_EMBEDDED_NUL,
                "zero byte in a name",
                0,
                1,
            );
        }
        if d.name == b"." || d.name == b".." {
            return err(
                ErrorId::DIRENT_NAME_DOT_OR_DOTDOT,
                "entry called . or ..",
                d.name.len() as u64,
                3,
            );
        }
        if d.name.contains(&b'/') {
            return err(
                ErrorId::DIRENT_NAME_HAS_SLASH,
                "slash in a name",
                b'/'.into(),
                0,
            );
        }
        if d.target == DirentTarget::Inode(key.key.pos.inode) {
            return Err(Invalid::new(
                ErrorId::DIRENT_TO_ITSELF,
                "entry leads to its own directory",
                0,
                key.key.pos.inode,
                0,
            ));
        }
        Ok(())
    }
}

/// The name in `bytes`, which run to the end of a value of `value_len` bytes: without the zeros at
/// the very end of the last word.
fn strip_padding(bytes: &[u8], value_len: usize) -> &[u8] {
    let last_word = value_len.saturating_sub(8);
    let start = value_len - bytes.len();
    let mut name = bytes;
    while let Some((0, rest)) = name.split_last() {
        if start + rest.len() < last_word {
            break;
        }
        name = rest;
    }
    name
}

impl fmt::Display for Dirent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> ", Name(self.name))?;
        match self.target {
            DirentTarget::Inode(inum) => write!(f, "{inum}")?,
            DirentTarget::Subvol { child, parent } => write!(f, "subvolume {child} in {parent}")?,
        }
        write!(f, " type {}", self.d_type)
    }
}
