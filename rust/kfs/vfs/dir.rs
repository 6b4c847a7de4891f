// SPDX-License-Identifier: GPL-2.0

//! Reading directories.

use super::{filesystem::FileSystem, inode::Inode};
use crate::bindings;
use core::{marker::PhantomData, ptr::NonNull};
use kernel::prelude::*;

/// Operations on an open directory.
///
/// Seeking is by position as [`Emitter::emit`] reports it, up to the superblock's greatest file size; so the positions of
/// a directory must stay valid for as long as it may be open (`seekdir`, NFS).
pub trait Operations: 'static {
    /// The filesystem.
    type FileSystem: FileSystem;

    /// Emits entries from `emitter.position()` on, in the order of their positions, until there are no more or
    /// [`Emitter::emit`] says stop. Positions 0 and 1 belong to `.` and `..`: see [`Emitter::emit_dots`].
    ///
    /// The directory is locked shared.
    fn iterate(dir: &Inode<Self::FileSystem>, emitter: &mut Emitter<'_>) -> Result;

    /// Makes the names in the directory durable, and the directory itself. Nothing is locked.
    fn sync(dir: &Inode<Self::FileSystem>) -> Result;
}

/// The type of a directory entry, as `readdir(3)` reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryType {
    /// Not known.
    Unknown,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A directory.
    Directory,
    /// A block device.
    BlockDevice,
    /// A regular file.
    Regular,
    /// A symbolic link.
    Symlink,
    /// A socket.
    Socket,
}

impl EntryType {
    fn raw(self) -> u32 {
        match self {
            Self::Unknown => bindings::DT_UNKNOWN,
            Self::Fifo => bindings::DT_FIFO,
            Self::CharDevice => bindings::DT_CHR,
            Self::Directory => bindings::DT_DIR,
            Self::BlockDevice => bindings::DT_BLK,
            Self::Regular => bindings::DT_REG,
            Self::Symlink => bindings::DT_LNK,
            Self::Socket => bindings::DT_SOCK,
        }
    }
}

/// Whether the reader has room for more entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Room {
    /// The entry was taken; there may be room for another.
    More,
    /// The entry was not taken: return, the next call starts at it.
    Full,
}

/// Where directory entries go.
///
/// # Invariants
///
/// `ctx` is the context of a running `iterate_shared`; nobody else uses it during `'a`.
pub struct Emitter<'a> {
    /// Not a reference: the actor goes from this structure to the one around it.
    ctx: NonNull<bindings::dir_context>,
    dots: Dots,
    _call: PhantomData<&'a mut bindings::dir_context>,
}

/// What `.` and `..` need.
#[derive(Clone, Copy)]
pub(super) struct Dots {
    pub(super) own: u64,
    pub(super) parent: u64,
}

impl Emitter<'_> {
    /// # Safety
    ///
    /// The invariant of the type must hold.
    pub(super) unsafe fn new(ctx: *mut bindings::dir_context, dots: Dots) -> Self {
        // SAFETY: By the contract, it points at a context.
        let ctx = unsafe { NonNull::new_unchecked(ctx) };
        Self { ctx, dots, _call: PhantomData }
    }

    /// The position to go on from.
    pub fn position(&self) -> u64 {
        // SAFETY: By the type invariant.
        let position = unsafe { (*self.ctx.as_ptr()).pos };
        position.max(0) as u64
    }

    /// Moves on to `position` without an entry: the next call starts there.
    pub fn set_position(&mut self, position: u64) {
        let position = position.min(super::MAX_FILE_POSITION) as i64;
        // SAFETY: By the type invariant.
        unsafe { (*self.ctx.as_ptr()).pos = position };
    }

    /// Emits `.` and `..` if the position is 0 or 1; the position is 2 at least when this answers [`Room::More`].
    pub fn emit_dots(&mut self) -> Room {
        let dots = self.dots;
        if self.position() == 0 && self.emit(b".", dots.own, EntryType::Directory, 0, 1) == Room::Full {
            return Room::Full;
        }
        if self.position() == 1
            && self.emit(b"..", dots.parent, EntryType::Directory, 1, 2) == Room::Full
        {
            return Room::Full;
        }
        Room::More
    }

    /// Emits the entry at `position`; the entry after it is at `next` or later.
    ///
    /// `name` is neither empty nor contains `/` or a zero byte; such a name is skipped.
    pub fn emit(&mut self, name: &[u8], number: u64, kind: EntryType, position: u64, next: u64) -> Room {
        self.set_position(position);
        let dots = name == b"." || name == b"..";
        let malformed = name.is_empty() || name.iter().any(|b| matches!(b, 0 | b'/'));
        let Ok(length) = i32::try_from(name.len()) else {
            self.set_position(next);
            return Room::More;
        };
        if malformed || (dots && position >= 2) {
            self.set_position(next);
            return Room::More;
        }
        let ctx = self.ctx.as_ptr();
        // SAFETY: By the type invariant the context is the one the VFS passed, with its own actor; the name is readable for
        // `length` bytes.
        let taken = unsafe {
            let Some(actor) = (*ctx).actor else {
                return Room::Full;
            };
            actor(ctx, name.as_ptr().cast(), length, (*ctx).pos, number, kind.raw())
        };
        if taken {
            self.set_position(next);
            Room::More
        } else {
            Room::Full
        }
    }
}
