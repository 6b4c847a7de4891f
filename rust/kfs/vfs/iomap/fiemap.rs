// SPDX-License-Identifier: GPL-2.0

//! `FIEMAP`: telling user space how a file is stored.

use super::{operations, Read};
use crate::{bindings, vfs::inode::Inode};
use core::marker::PhantomData;
use kernel::{error::to_result, prelude::*};

/// A `FIEMAP` call.
///
/// # Invariants
///
/// The pointer is that of a running `fiemap` operation.
pub struct FiemapRequest<'a> {
    info: *mut bindings::fiemap_extent_info,
    start: u64,
    length: u64,
    _call: PhantomData<&'a mut ()>,
}

impl FiemapRequest<'_> {
    /// # Safety
    ///
    /// `info` must be that of a running `fiemap` operation, which outlives the result.
    pub(in crate::vfs) unsafe fn new(
        info: *mut bindings::fiemap_extent_info,
        start: u64,
        length: u64,
    ) -> Self {
        Self { info, start, length, _call: PhantomData }
    }
}

/// Answers a `FIEMAP` call from what `R` reports. May sleep.
pub fn fiemap<R: Read>(inode: &Inode<R::FileSystem>, request: FiemapRequest<'_>) -> Result {
    // SAFETY: By the type invariants; the operations are for inodes of this filesystem.
    to_result(unsafe {
        bindings::iomap_fiemap(
            inode.as_raw(),
            request.info.cast(),
            request.start,
            request.length,
            operations::<R>(),
        )
    })
}
