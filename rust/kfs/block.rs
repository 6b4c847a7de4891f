// SPDX-License-Identifier: GPL-2.0

//! Block devices, from the side of their user.
//!
//! A [`BlockDevice`] is opened exclusively by path. [`read_sync`](BlockDevice::read_sync) and its
//! siblings transfer an [`IoBuf`] and wait; [`read`](BlockDevice::read) starts a transfer into anything that has pages
//! ([`PageSpan`]: an [`IoBuf`], or pages of somebody else's) and runs a closure when it is complete.
//!
//! Memory: an asynchronous transfer takes what it needs from the reserves of a [`BioSet`] and from nowhere else, so
//! that it makes progress when memory is short. Buffers come from an [`IoBufPool`] for the same reason.
//!
//! Context: everything may sleep. Closures run on a work queue, in process context; no code of this module's users runs
//! in interrupts.

mod bio_set;
mod device;
mod error;
mod io_buf;
mod number;
mod plug;
mod request;
mod shared_buf;
mod span;
mod stats;
mod sync;

pub use self::bio_set::BioSet;
pub use self::device::{Access, BlockDevice};
pub use self::error::{DeviceName, IoError, Op, Status};
pub use self::io_buf::{IoBuf, IoBufPool};
pub use self::number::{lookup, DeviceNumber};
pub use self::plug::plugged;
pub use self::request::WriteFlags;
pub use self::shared_buf::SharedBuf;
pub use self::span::{PageSpan, Segment};
pub use self::stats::IoStats;

/// Bytes of a sector, the unit of positions on all devices whatever their block size.
pub const SECTOR_SIZE: usize = 1 << SECTOR_SHIFT;

/// Binary logarithm of [`SECTOR_SIZE`].
pub const SECTOR_SHIFT: u32 = 9;

/// The most segments one bio takes (`BIO_MAX_VECS`).
const BIO_MAX_SEGMENTS: usize = 256;
