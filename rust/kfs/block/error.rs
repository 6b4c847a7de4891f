// SPDX-License-Identifier: GPL-2.0

//! What can go wrong with a transfer.

use crate::bindings;
use core::fmt;
use kernel::{error::to_result, prelude::*};

/// The name of a block device, such as `vda` or `nvme0n1p2`.
#[derive(Copy, Clone, PartialEq, Eq)]
pub struct DeviceName {
    bytes: [u8; Self::BYTES],
}

impl DeviceName {
    /// Room for a name and its NUL: `BDEVNAME_SIZE`.
    const BYTES: usize = 32;

    /// # Safety
    ///
    /// `bdev` is a valid block device.
    pub(super) unsafe fn of(bdev: *mut bindings::block_device) -> Self {
        let mut bytes = [0u8; Self::BYTES];
        // SAFETY: The device is valid by the caller's promise; at most that many bytes are written.
        unsafe { bindings::kfs_bdev_name(bdev, bytes.as_mut_ptr().cast(), bytes.len()) };
        Self { bytes }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let end = self.bytes.iter().position(|&byte| byte == 0);
        let name = self.bytes.get(..end.unwrap_or(0)).unwrap_or_default();
        core::str::from_utf8(name).unwrap_or("?")
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What was to be done to the device.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Device to memory.
    Read,
    /// Memory to device.
    Write,
    /// Empty the device's write cache.
    Flush,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
        }
    }
}

/// Why a transfer failed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The block layer or the device said so: a `blk_status_t`, never zero.
    Device(u8),
    /// It goes beyond the end of the device or of the buffer.
    OutOfRange,
    /// Position, length or memory are not multiples of the logical block size.
    Misaligned,
    /// The device was opened for reading only.
    ReadOnly,
    /// The device has been removed.
    Dead,
}

impl Status {
    /// The text in messages.
    fn text(self) -> &'static str {
        match self {
            Self::Device(1) => "operation not supported",
            Self::Device(2) => "timeout",
            Self::Device(3) => "no space on device",
            Self::Device(4) => "transport error",
            Self::Device(5) => "target error",
            Self::Device(6) => "reservation conflict",
            Self::Device(7) => "medium error",
            Self::Device(8) => "protection error",
            Self::Device(9) => "out of resources",
            Self::Device(10) => "I/O error",
            Self::Device(12) => "would block",
            Self::Device(16) => "device offline",
            Self::Device(19) => "invalid request",
            Self::Device(_) => "device error",
            Self::OutOfRange => "out of range",
            Self::Misaligned => "not aligned to the device's blocks",
            Self::ReadOnly => "device is open for reading only",
            Self::Dead => "device is gone",
        }
    }
}

/// A failed transfer: where it was, and why.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct IoError {
    /// The device.
    pub device: DeviceName,
    /// What was to be done.
    pub op: Op,
    /// The first sector of the transfer. A part of the transfer further on may be what failed.
    pub sector: u64,
    /// The reason.
    pub status: Status,
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = self.op.name();
        write!(f, "{}: {op} at sector {}: {}", self.device, self.sector, self.status.text())?;
        match self.status {
            Status::Device(code) => write!(f, " (status {code})"),
            _ => Ok(()),
        }
    }
}

// What the kernel's `pr_info!` and its siblings print.
impl kernel::fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl kernel::fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<IoError> for Error {
    fn from(error: IoError) -> Self {
        match error.status {
            // SAFETY: Any status may be asked for.
            Status::Device(code) => match to_result(unsafe { bindings::blk_status_to_errno(code) }) {
                Err(errno) => errno,
                Ok(()) => EIO,
            },
            Status::OutOfRange | Status::Dead => EIO,
            Status::Misaligned => EINVAL,
            Status::ReadOnly => EROFS,
        }
    }
}
