// SPDX-License-Identifier: GPL-2.0

//! The trait for writing a file's data.

use super::{DirectWrite, FolioWrite, Read};
use crate::vfs::inode::Inode;
use kernel::prelude::*;

/// Writing a file's data, through the page cache and around it.
///
/// Data written to the page cache has its space *promised* first, block by block, so that writing it back does not run out. A promise
/// is made before a block becomes dirty and is the filesystem's until it is written back, or given back.
///
/// Nobody changes what is being written back: writers wait for it.
#[vtable]
pub trait Write: Read {
    /// Promises space for the blocks that the range touches, those that have a promise already excepted. Returns how many bytes from `position` on
    /// are promised, at least one. Of a page fault, which says `whole`, all of the range has to be.
    ///
    /// With `whole` a folio may be locked: must not wait for one.
    fn promise(
        inode: &Inode<Self::FileSystem>,
        position: u64,
        length: u64,
        whole: bool,
    ) -> Result<u64>;

    /// Gives back what was promised for the blocks that lie in the range: none of them is dirty. A folio may be locked: must not wait
    /// for one.
    fn give_back(inode: &Inode<Self::FileSystem>, position: u64, length: u64);

    /// What is to be done to have zeros at `position`, for at most `length` bytes: `true` if they have to be written, with the
    /// space promised, `false` if there are zeros already; and for how many bytes that holds, at least one. What is dirty or
    /// being written back has to be written.
    ///
    /// Promising must not fail for lack of space.
    fn zero(inode: &Inode<Self::FileSystem>, position: u64, length: u64) -> Result<(bool, u64)>;

    /// Writes folios of the page cache back. The run consists of whole blocks; what lies behind the end of the file is zero.
    ///
    /// May return before that is complete. Folios are locked meanwhile: must not wait for one, nor allocate memory in a way that does.
    fn write(inode: &Inode<Self::FileSystem>, run: FolioWrite<Self::FileSystem>);

    /// Writes the memory of a direct write: whole blocks. The file's size in memory is raised afterwards, if all of it succeeds.
    ///
    /// May return before that is complete.
    fn write_direct(inode: &Inode<Self::FileSystem>, run: DirectWrite<Self::FileSystem>);

    /// Makes what was written of the file durable; all its data has been written back. With `data_only`, times need not be.
    fn sync(inode: &Inode<Self::FileSystem>, data_only: bool) -> Result;

    /// Changes how a range is laid out. The inode is locked for change, no direct transfers are under way and no page can be brought into memory
    /// or made dirty by a fault.
    fn allocate(
        inode: &Inode<Self::FileSystem>,
        how: Allocate,
        position: u64,
        length: u64,
    ) -> Result;

    /// Makes a range of `to` share the data of a range of `from`, which may be the same file; returns how much of it. Both are locked for
    /// change, both ranges have been written back and the one of `to` is not in the page cache. The ranges begin with blocks and end
    /// with blocks, or with the files.
    fn share(
        from: &Inode<Self::FileSystem>,
        from_position: u64,
        to: &Inode<Self::FileSystem>,
        to_position: u64,
        length: u64,
    ) -> Result<u64>;
}

/// What `fallocate` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// Space for the range, which keeps its contents; where `keep_size` is not set the file ends no earlier than it.
    Space {
        /// The size of the file stays.
        keep_size: bool,
    },
    /// A hole. The size of the file stays.
    Hole,
    /// Zeros, with space for them.
    Zeros {
        /// The size of the file stays.
        keep_size: bool,
    },
    /// Nothing: what is behind the range moves to its start.
    Collapse,
    /// A hole that was not there: what is at the start of the range and behind moves to its end.
    Insert,
}
