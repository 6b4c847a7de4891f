// SPDX-License-Identifier: GPL-2.0

//! File data through iomap: page cache, direct I/O, `SEEK_HOLE`, `SEEK_DATA`, `FIEMAP`.
//!
//! The filesystem answers two questions: what is at this range of the file ([`Read::begin`]), and what are the bytes
//! ([`Read::read`]). Where the bytes go is a [`Destination`]: a run of locked page-cache folios
//! ([`FolioRun`]) or the memory of a direct read ([`DirectRun`]). Both are owned, may be split, may be sent to another thread, and complete the read of
//! their part when they are finished; dropped unfinished they complete it with `EIO`, so that nothing waits for ever.
//!
//! Writing is the other way round: [`Write`] is asked to promise space before pages become dirty, and later gets runs of them to write back
//! ([`FolioWrite`]), or the memory of a direct write ([`DirectWrite`]).
//!
//! A filesystem whose `read` knows about holes itself may answer every `begin` that is not a
//! [`report`](Purpose::Report) with one mapping of the whole range: readahead then comes as one run, however the file is laid out.

pub mod cache;
mod direct_run;
mod direct_write;
mod fiemap;
mod folio_run;
mod folio_write;
mod table;
mod write;
mod write_file;
mod write_table;

pub use self::{
    direct_run::DirectRun,
    direct_write::{DirectSpan, DirectWrite},
    fiemap::{fiemap, FiemapRequest},
    folio_run::FolioRun,
    folio_write::{FolioSpan, FolioWrite},
    table::Table,
    write::{Allocate, Write},
};

pub(super) use self::table::{direct_operations, operations};

use super::{filesystem::FileSystem, inode::Inode};
use crate::block::{BlockDevice, PageSpan};
use kernel::{error::VTABLE_DEFAULT_ERROR, prelude::*, sync::Arc};

/// Reading a file's data.
#[vtable]
pub trait Read: 'static {
    /// The filesystem.
    type FileSystem: FileSystem;

    /// Says what is at `position`, for at most `length` bytes that matter.
    ///
    /// The mapping must contain `position`; it may be longer than asked for and start before. A [`report`](Purpose::Report) can ask about
    /// positions far past the end of the file: answer with one hole up to [`MAX_FILE_POSITION`](super::MAX_FILE_POSITION). For a direct read it must end at a
    /// block boundary, also if the file ends before.
    fn begin(
        inode: &Inode<Self::FileSystem>,
        position: u64,
        length: u64,
        purpose: Purpose,
    ) -> Result<Mapping>;

    /// Reads into folios of the page cache. The run was mapped [`Mapped`](MappingKind::Mapped) by one `begin`; it begins and ends at
    /// block boundaries and may go past the end of the file by less than a block: zeros belong there.
    ///
    /// May return before the read is complete.
    fn read(inode: &Inode<Self::FileSystem>, run: FolioRun);

    /// Reads into the memory of a direct read.
    ///
    /// May return before the read is complete.
    fn read_direct(_inode: &Inode<Self::FileSystem>, _run: DirectRun) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// A block device whose limits (logical block size, alignment of memory) hold for direct reads of this file. Needed if
    /// `read_direct` is implemented; without a device a direct read fails with `EOPNOTSUPP`.
    fn direct_device(_inode: &Inode<Self::FileSystem>) -> Result<Arc<BlockDevice>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Widens a readahead of `length` bytes at `position`: returns a range that contains it. Where the filesystem has to read
    /// more anyway (a whole checksummed or compressed extent), this keeps what was read.
    fn readahead_window(
        _inode: &Inode<Self::FileSystem>,
        _position: u64,
        _length: u64,
    ) -> Option<(u64, u64)> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// What a mapping is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Reading into the page cache.
    Read,
    /// A direct read.
    Direct,
    /// Telling user space (`FIEMAP`, `SEEK_HOLE`, `SEEK_DATA`).
    Report,
}

/// What is at a range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingKind {
    /// Nothing: zeros.
    Hole,
    /// Data.
    Mapped,
    /// Space reserved and not written: zeros.
    Unwritten,
    /// Data in memory that has no place on disk yet: as [`Mapped`](Self::Mapped) for reading.
    Delayed,
}

/// The answer of [`Read::begin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// What is there.
    pub kind: MappingKind,
    /// Where it begins in the file, in bytes.
    pub position: u64,
    /// How long it is in bytes, never 0.
    pub length: u64,
    /// Where it is on disk, in bytes, as `FIEMAP` shows it.
    pub address: Option<u64>,
    /// Other files refer to the same data.
    pub shared: bool,
}

/// Memory that the data of a read goes to. As a [`PageSpan`] a device can read into it.
///
/// Its length ([`PageSpan::span_len`]) is never 0. Offsets are in bytes from the start of this destination; a range that is not inside is refused with `EINVAL` and nothing is written.
/// May be used from any thread, in process context.
pub trait Destination: PageSpan + Sized {
    /// The position in the file that the first byte belongs to.
    fn position(&self) -> u64;

    /// Copies `data` to `offset`.
    fn copy_in(&mut self, offset: usize, data: &[u8]) -> Result;

    /// Zeroes `length` bytes at `offset`.
    fn zero(&mut self, offset: usize, length: usize) -> Result;

    /// Shows the bytes of a range, piece by piece: to verify in place what a device read. The memory of a direct read can change
    /// meanwhile: what looks wrong there is to be read again, elsewhere, before anything is made of it.
    fn inspect(&self, offset: usize, length: usize, f: &mut dyn FnMut(&[u8])) -> Result;

    /// Takes the first `length` bytes off, as a destination of its own. `length` must be a multiple of the block size,
    /// more than 0 and less than [`span_len`](PageSpan::span_len), else `EINVAL`.
    fn split_to(&mut self, length: usize) -> Result<Self>;

    /// Completes the read. All bytes must have been written if the result is `Ok`.
    fn finish(self, result: Result);
}
