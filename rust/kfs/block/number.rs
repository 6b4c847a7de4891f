// SPDX-License-Identifier: GPL-2.0

//! Which device is which.
//!
//! C header: [`include/linux/kdev_t.h`](srctree/include/linux/kdev_t.h)

use crate::bindings;
use core::fmt;
use kernel::{error::to_result, prelude::*};

/// The number that identifies a block device, shown as `MAJOR:MINOR`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceNumber(bindings::dev_t);

impl DeviceNumber {
    const MINOR_BITS: u32 = 20;

    /// # Safety
    ///
    /// `bdev` is a valid block device.
    pub(super) unsafe fn of(bdev: *mut bindings::block_device) -> Self {
        // SAFETY: By the caller's promise; the number does not change.
        Self(unsafe { (*bdev).bd_dev })
    }

    /// The number of the driver.
    pub fn major(self) -> u32 {
        self.0 >> Self::MINOR_BITS
    }

    /// The number of the device at its driver.
    pub fn minor(self) -> u32 {
        self.0 & ((1 << Self::MINOR_BITS) - 1)
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major(), self.minor())
    }
}

impl kernel::fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number of the block device at `path`, which is not opened. May sleep.
///
/// # Errors
///
/// `ENOTBLK` if it is not a block device, `EACCES` if it is on a file system without devices; those of looking up a path.
pub fn lookup(path: &CStr) -> Result<DeviceNumber> {
    let mut number = 0;
    // SAFETY: `path` is a string.
    to_result(unsafe { bindings::lookup_bdev(path.as_char_ptr(), &mut number) })?;
    Ok(DeviceNumber(number))
}
