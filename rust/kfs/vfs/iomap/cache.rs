// SPDX-License-Identifier: GPL-2.0

//! What is done to the page cache of a file whose layout or size changes.
//!
//! For all of this the inode is locked for change.

use super::{write_table as write, Write};
use crate::{
    bindings,
    vfs::{filesystem::FileSystem, inode::Inode},
};
use kernel::{error::to_result, prelude::*};

/// A position as the kernel has it. What is out of bounds is as far as files go.
fn position(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Writes the range from `start` to before `end` back, and waits. Sleeps.
pub fn write_back<T: FileSystem>(inode: &Inode<T>, start: u64, end: u64) -> Result {
    if start >= end {
        return Ok(());
    }
    // SAFETY: By the type invariants.
    to_result(unsafe {
        let mapping = (*inode.as_raw()).i_mapping;
        bindings::filemap_write_and_wait_range(mapping, position(start), position(end - 1))
    })
}

/// Drops the pages that lie in the range from `start` to before `end`, dirty or not, and zeroes the parts of pages that do. Sleeps.
pub fn drop_range<T: FileSystem>(inode: &Inode<T>, start: u64, end: u64) {
    if start < end {
        // SAFETY: By the type invariants.
        unsafe {
            bindings::kfs_drop_range(inode.as_raw(), position(start), position(end))
        };
    }
}

/// Drops all pages behind `size`, and zeroes the rest of the one it is in. The file's size is that already. Sleeps.
pub fn drop_behind<T: FileSystem>(inode: &Inode<T>, size: u64) {
    // SAFETY: By the type invariants.
    unsafe { bindings::truncate_pagecache(inode.as_raw(), position(size)) };
}

/// The file is about to grow: see that what is behind its end are zeros. Sleeps.
pub fn zero_behind_end<T: FileSystem>(inode: &Inode<T>) {
    // SAFETY: By the type invariants.
    unsafe { bindings::kfs_zero_behind_end(inode.as_raw()) };
}

/// The file has grown from `old` to `new` bytes: pages that are mapped and partly behind the old end are looked at anew.
pub fn extended<T: FileSystem>(inode: &Inode<T>, old: u64, new: u64) {
    // SAFETY: By the type invariants.
    unsafe { bindings::pagecache_isize_extended(inode.as_raw(), position(old), position(new)) };
}

/// Makes the range from `start` to before `end` zeros, in pages that are dirty then. Sleeps.
pub fn zero_range<W: Write>(inode: &Inode<W::FileSystem>, start: u64, end: u64) -> Result {
    if start >= end {
        return Ok(());
    }
    // SAFETY: By the type invariants; the operations are for inodes of this filesystem.
    to_result(unsafe {
        bindings::iomap_zero_range(
            inode.as_raw(),
            position(start),
            position(end - start),
            core::ptr::null_mut(),
            write::operations::<W>(),
            write::write_operations::<W>(),
            core::ptr::null_mut(),
        )
    })
}

/// Waits until no direct transfers are under way; new ones are kept out by the lock of the inode. Sleeps.
pub fn wait_direct<T: FileSystem>(inode: &Inode<T>) {
    // SAFETY: By the type invariants.
    unsafe { bindings::inode_dio_wait(inode.as_raw()) };
}

/// Keeps faults from bringing pages into memory, or making them dirty, as long as it lives.
pub struct NoFaults<'a, T: FileSystem>(&'a Inode<T>);

impl<'a, T: FileSystem> NoFaults<'a, T> {
    /// Sleeps. Not for a page fault, and not in an `allocate` or `share`, which hold it.
    pub fn begin(inode: &'a Inode<T>) -> Self {
        // SAFETY: By the type invariants.
        unsafe { bindings::kfs_invalidate_lock(inode.as_raw()) };
        Self(inode)
    }
}

impl<T: FileSystem> Drop for NoFaults<'_, T> {
    fn drop(&mut self) {
        // SAFETY: Locked in `begin`.
        unsafe { bindings::kfs_invalidate_unlock(self.0.as_raw()) };
    }
}
