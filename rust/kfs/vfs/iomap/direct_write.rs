// SPDX-License-Identifier: GPL-2.0

//! The memory of direct writes.

use super::{direct_run::DirectRun, Destination};
use crate::{
    bindings,
    block::{PageSpan, Segment},
    vfs::{filesystem::FileSystem, inode::Inode},
};
use core::{marker::PhantomData, ptr::NonNull};
use kernel::prelude::*;

/// The memory of a direct write, or a part of it, that is to be written; whole blocks.
///
/// It belongs to user space as a rule, which may change it at the same time: what is looked at twice may be different. Dropped
/// unfinished it fails with `EIO`.
///
/// # Invariants
///
/// `inode` is of a filesystem `T`, and there until the run is gone.
pub struct DirectWrite<T> {
    run: DirectRun,
    inode: NonNull<bindings::inode>,
    _type: PhantomData<fn(T)>,
}

// SAFETY: Inodes may be used from any thread.
unsafe impl<T> Send for DirectWrite<T> {}
// SAFETY: As above; the run can only be looked at through a shared reference.
unsafe impl<T> Sync for DirectWrite<T> {}

/// The memory of a [`DirectWrite`], for a device.
pub struct DirectSpan(DirectRun);

// SAFETY: The memory is pinned until the bio is ended, which the run in here delays.
unsafe impl PageSpan for DirectSpan {
    const WRITABLE: bool = false;

    fn span_len(&self) -> usize {
        self.0.span_len()
    }

    fn segment(&self, offset: usize) -> Option<Segment> {
        self.0.segment(offset)
    }
}

impl<T: FileSystem> DirectWrite<T> {
    /// # Safety
    ///
    /// `run` must be the memory of a direct write to `inode`, which must be of a filesystem `T`.
    pub(super) unsafe fn new(run: DirectRun, inode: NonNull<bindings::inode>) -> Self {
        // INVARIANT: The file is open until the bio is ended, which the run delays.
        Self { run, inode, _type: PhantomData }
    }

    /// The file.
    pub fn inode(&self) -> &Inode<T> {
        // SAFETY: By the type invariants.
        unsafe { Inode::from_raw(self.inode.as_ptr()) }
    }

    /// The position in the file that the first byte belongs to.
    pub fn position(&self) -> u64 {
        self.run.position()
    }

    /// The length in bytes, never 0.
    #[allow(clippy::len_without_is_empty)] // Never empty.
    pub fn len(&self) -> usize {
        self.run.span_len()
    }

    /// The memory, for a device.
    pub fn span(&self) -> DirectSpan {
        DirectSpan(self.run.share())
    }

    /// Shows all bytes, piece by piece, in order: copies of one moment.
    pub fn inspect(&self, f: &mut dyn FnMut(&[u8])) -> Result {
        self.run.inspect(0, self.run.span_len(), f)
    }

    /// Takes the first `length` bytes off, as a run of its own. `length` must be a multiple of the block size, more than 0 and less
    /// than [`len`](Self::len), else `EINVAL`.
    pub fn split_to(&mut self, length: usize) -> Result<Self> {
        Ok(Self {
            run: self.run.split_to(length)?,
            inode: self.inode,
            _type: PhantomData,
        })
    }

    /// Completes the write of this part.
    pub fn finish(self, result: Result) {
        self.run.finish(result);
    }
}
