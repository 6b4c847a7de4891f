// SPDX-License-Identifier: GPL-2.0
//! Where the bytes of a write come from.
//!
//! A source is owned by the write from the moment it is handed over, and is finished exactly once: by value, or, should
//! it be dropped on the way, as failed.

use bcachefs_format::keys::inode::Inode;
use kfs::block::PageSpan;

use crate::{
    fs::{
        inode::{Changed, State},
        InodeId,
    },
    util::error::Result,
};

/// A file, as its inode in memory sees it.
pub trait Owner {
    /// Which file.
    fn id(&self) -> InodeId;

    /// Its newest key, if it is in memory.
    fn state(&self) -> Option<&State>;

    /// Brings into `key` what only memory knows so far: times. Inside a transaction: does not sleep.
    fn amend(&self, key: &mut Inode);

    /// After a commit as journal entry `seq`, which changed the inode. Does not sleep.
    fn committed(&self, changed: &Changed, seq: u64);
}

/// Memory whose bytes are to be written to consecutive sectors of a file.
///
/// Offsets are in bytes from the start. Usable from any thread in process context.
#[allow(clippy::len_without_is_empty)] // Never empty.
pub trait Source: Owner + Send + Sync + Sized + 'static {
    /// The memory, for a device. Several may exist at a time.
    type Span: PageSpan;

    /// Length in bytes, a multiple of the filesystem's block size, not zero.
    fn len(&self) -> usize;

    /// Whether nobody changes the bytes before the write is finished.
    fn is_stable(&self) -> bool;

    /// Shows all bytes, piece by piece, in order.
    fn inspect(&self, f: &mut dyn FnMut(&[u8])) -> Result;

    /// The memory, for a device; as long as the source.
    fn span(&self) -> Self::Span;

    /// Takes the first `len` bytes off, a whole number of blocks, fewer than [`len`](Self::len).
    fn split_to(&mut self, len: usize) -> Result<Self>;

    /// Ends the write of this part.
    fn finish(self, result: Result);
}
