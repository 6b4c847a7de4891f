// SPDX-License-Identifier: GPL-2.0

//! An open block device.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use super::{stats, DeviceName, DeviceNumber, IoError, IoStats, Op, Status, SECTOR_SHIFT, SECTOR_SIZE};
use crate::bindings;
use core::{ops::Range, ptr::NonNull};
use kernel::{
    error::{from_err_ptr, to_result},
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};

/// What a device is opened for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only: [`BlockDevice`] then refuses to write.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

/// Who holds the device, in the eyes of the block layer: identified by its address.
struct Holder {
    dead: Atomic<bool>,
}

/// A block device that is open, and held exclusively, as long as this value lives.
///
/// Dropping it closes the device, which may sleep.
///
/// # Invariants
///
/// `file` is an open file of a block device, claimed for `holder`; `bdev` is that device.
pub struct BlockDevice {
    file: NonNull<bindings::file>,
    bdev: NonNull<bindings::block_device>,
    holder: KBox<Holder>,
    name: DeviceName,
    writable: Atomic<bool>,
    pub(super) counters: stats::Counters,
}

// SAFETY: Block devices are used from any thread; what else is in here is plain data and atomics.
unsafe impl Send for BlockDevice {}
// SAFETY: As above.
unsafe impl Sync for BlockDevice {}

impl BlockDevice {
    /// Opens the device at `path` exclusively.
    ///
    /// While it is open nobody else may open it for writing, where the kernel is configured to enforce that.
    ///
    /// # Errors
    ///
    /// `EBUSY` if somebody holds it already, be it the caller; `ENOTBLK` if it is not a block device; `EACCES` or `EROFS` for a
    /// device that cannot be written, with [`Access::ReadWrite`]; those of looking up a path.
    pub fn open(path: &CStr, access: Access) -> Result<Arc<Self>> {
        static HOLDER_OPS: bindings::blk_holder_ops = bindings::blk_holder_ops {
            mark_dead: Some(mark_dead),
            sync: None,
            freeze: None,
            thaw: None,
        };

        let holder = KBox::new(
            Holder {
                dead: Atomic::new(false),
            },
            GFP_KERNEL,
        )?;
        let identity: *const Holder = &*holder;
        // SAFETY: `path` is a string. The holder lives in its box until after the device is closed in `drop()`.
        let file = from_err_ptr(unsafe {
            bindings::kfs_bdev_open(
                path.as_char_ptr(),
                access == Access::ReadWrite,
                identity.cast_mut().cast(),
                &HOLDER_OPS,
            )
        })?;
        // SAFETY: The file was opened just now, and is a block device's.
        let bdev = unsafe { bindings::file_bdev(file) };
        let (Some(file), Some(bdev)) = (NonNull::new(file), NonNull::new(bdev)) else {
            return Err(ENODEV);
        };
        // SAFETY: Open, hence valid. What others wrote through the page cache has to reach the device before it is
        // read past that cache. If writing it fails, that is reported to those who wrote.
        unsafe { bindings::sync_blockdev(bdev.as_ptr()) };
        // INVARIANT: As checked and opened above. From here on, dropping the value closes the file.
        let device = Self {
            file,
            bdev,
            holder,
            // SAFETY: Open, hence valid.
            name: unsafe { DeviceName::of(bdev.as_ptr()) },
            writable: Atomic::new(false),
            counters: stats::Counters::new(),
        };
        device.set_access(access)?;
        Ok(Arc::new(device, GFP_KERNEL)?)
    }

    /// Changes what the device may be used for from now on: what was opened for reading may be written, or no longer. Any
    /// context. That the device is held exclusively does not change.
    ///
    /// # Errors
    ///
    /// `EROFS` if the device cannot be written.
    pub fn set_access(&self, access: Access) -> Result {
        let writable = access == Access::ReadWrite;
        // SAFETY: By the type invariant, the device is open.
        if writable && unsafe { bindings::kfs_bdev_read_only(self.bdev.as_ptr()) } {
            return Err(EROFS);
        }
        self.writable.store(writable, Relaxed);
        Ok(())
    }

    /// The kernel's name for the device.
    pub fn name(&self) -> DeviceName {
        self.name
    }

    /// The number that identifies the device.
    pub fn number(&self) -> DeviceNumber {
        // SAFETY: By the type invariant, the device is open.
        unsafe { DeviceNumber::of(self.bdev.as_ptr()) }
    }

    /// The size in sectors of 512 bytes, now: devices may be resized.
    pub fn size_sectors(&self) -> u64 {
        // SAFETY: By the type invariant, the device is open.
        unsafe { bindings::kfs_bdev_nr_sectors(self.bdev.as_ptr()) }
    }

    /// The size of the smallest unit that can be transferred, in bytes: a power of two, at least 512.
    pub fn logical_block_bytes(&self) -> u32 {
        // SAFETY: By the type invariant, the device is open.
        unsafe { bindings::kfs_bdev_logical_block_size(self.bdev.as_ptr()) }
    }

    /// What the device may be used for.
    pub fn access(&self) -> Access {
        if self.writable.load(Relaxed) {
            Access::ReadWrite
        } else {
            Access::ReadOnly
        }
    }

    /// Whether the device has been removed; transfers fail from then on.
    pub fn is_dead(&self) -> bool {
        self.holder.dead.load(Relaxed)
    }

    /// How much has been transferred, and how long it took.
    pub fn stats(&self) -> IoStats {
        self.counters.read_all()
    }

    /// Whether the device has a use for [`discard`](Self::discard).
    pub fn can_discard(&self) -> bool {
        // SAFETY: By the type invariant, the device is open.
        unsafe { bindings::kfs_bdev_can_discard(self.bdev.as_ptr()) }
    }

    /// Tells the device that what is in `sectors` sectors from `sector` on is not needed any more. What is read
    /// there afterwards is unspecified. Sleeps until that is done; allocates without entering file systems.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` for a device that has no use for it, `EROFS` for one that was opened for reading only, `ERANGE` beyond its end; those
    /// of the device.
    pub fn discard(&self, sector: u64, sectors: u64) -> Result {
        if self.access() == Access::ReadOnly {
            return Err(EROFS);
        }
        if self.is_dead() {
            return Err(ENODEV);
        }
        match sector.checked_add(sectors) {
            Some(end) if end <= self.size_sectors() => {}
            _ => return Err(ERANGE),
        }
        // SAFETY: By the type invariant, the device is open.
        to_result(unsafe { bindings::kfs_bdev_discard(self.bdev.as_ptr(), sector, sectors) })
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::block_device {
        self.bdev.as_ptr()
    }

    /// What a multiple of the logical block size has no bit in common with.
    pub(super) fn block_mask(&self) -> usize {
        (self.logical_block_bytes().max(SECTOR_SIZE as u32) - 1) as usize
    }

    /// The error for a failed transfer; counts it.
    pub(super) fn error(&self, op: Op, sector: u64, status: Status) -> IoError {
        self.counters.failed();
        IoError {
            device: self.name,
            op,
            sector,
            status,
        }
    }

    /// Whether the bytes `range` of a span of `len` bytes can be transferred to or from `sector`.
    pub(super) fn check(
        &self,
        op: Op,
        sector: u64,
        range: &Range<usize>,
        len: usize,
    ) -> Result<(), Status> {
        if op != Op::Read && self.access() == Access::ReadOnly {
            return Err(Status::ReadOnly);
        }
        if self.is_dead() {
            return Err(Status::Dead);
        }
        if op == Op::Flush {
            return Ok(());
        }
        if range.start > range.end || range.end > len {
            return Err(Status::OutOfRange);
        }
        let mask = self.block_mask();
        let bytes = (range.end - range.start) as u64;
        // A position that overflows here is beyond the end of every device. With the start and the length, the end is aligned.
        let positions = bytes | range.start as u64 | sector << SECTOR_SHIFT;
        if bytes == 0 || positions & mask as u64 != 0 {
            return Err(Status::Misaligned);
        }
        match sector.checked_add(bytes >> SECTOR_SHIFT) {
            Some(end) if end <= self.size_sectors() => Ok(()),
            _ => Err(Status::OutOfRange),
        }
    }
}

impl Drop for BlockDevice {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it is open, and not used after this. The claim is given up in here, so that the block layer does
        // not look at the holder, which is freed next.
        unsafe { bindings::bdev_fput(self.file.as_ptr()) };
    }
}

/// The device is going away.
///
/// # Safety
///
/// Called by the block layer with a device that is claimed for a [`Holder`], with `bd_holder_lock` held, which is to be
/// released.
unsafe extern "C" fn mark_dead(bdev: *mut bindings::block_device, _surprise: bool) {
    // SAFETY: Under the lock the claim stands, so that the holder is alive.
    let holder = unsafe { &*(*bdev).bd_holder.cast::<Holder>() };
    holder.dead.store(true, Relaxed);
    // SAFETY: Held by the caller, who expects it to be released.
    unsafe { bindings::mutex_unlock(&raw mut (*bdev).bd_holder_lock) };
}
