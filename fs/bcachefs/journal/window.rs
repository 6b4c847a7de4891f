// SPDX-License-Identifier: GPL-2.0
//! Looking into journal buckets through one buffer of bounded size.

use core::ops::Range;

use kernel::prelude::*;
use kfs::block::IoBuf;

use crate::{
    sb::{device::IoErrorKind, Device},
    util::error::{Error, Result},
};

/// Most bytes of a journal entry.
pub(super) const ENTRY_BYTES_MAX: usize = 4 << 20;
/// Bytes read at a time where entries are smaller.
const READ_BYTES: usize = 1 << 20;

/// A buffer, and which part of which bucket is in it.
pub(super) struct Window {
    buf: IoBuf,
    /// Of which device.
    device: u8,
    bucket_sector: u64,
    /// Byte range within the bucket.
    filled: Range<usize>,
}

impl Window {
    pub(super) fn new() -> Result<Self> {
        Ok(Window {
            buf: IoBuf::new(READ_BYTES, GFP_KERNEL)?,
            device: 0,
            bucket_sector: u64::MAX,
            filled: 0..0,
        })
    }

    /// Bytes `at..at + len` of the bucket that starts at `sector` and is `bucket_bytes` long, as words.
    /// Reads ahead where that costs nothing. `at` and `bucket_bytes` are multiples of the device's block;
    /// `len` is at most [`ENTRY_BYTES_MAX`]. May sleep.
    ///
    /// # Errors
    ///
    /// [`Error::JournalRead`], also if the range leaves the bucket. I/O errors are counted.
    pub(super) fn get(
        &mut self,
        device: &Device,
        sector: u64,
        bucket_bytes: usize,
        at: usize,
        len: usize,
        ahead: ReadAhead,
    ) -> Result<&[u64]> {
        let end = at
            .checked_add(len)
            .filter(|end| *end <= bucket_bytes && len <= ENTRY_BYTES_MAX)
            .ok_or(Error::JournalRead)?;
        let same = self.device == device.index && self.bucket_sector == sector;
        let have = same && self.filled.start <= at && end <= self.filled.end;
        if !have {
            let block = device.bdev.logical_block_bytes() as usize;
            let least = len.next_multiple_of(block);
            let most = match ahead {
                ReadAhead::Yes => least.max(READ_BYTES).min(bucket_bytes - at),
                ReadAhead::No => least,
            };
            self.fill(device, sector, at, most).or_else(|_| {
                // One bad block further on must not cost what is before it.
                self.fill(device, sector, at, least)
            })?;
        }
        let from = (at - self.filled.start) / 8;
        self.buf
            .as_words()
            .get(from..from + len / 8)
            .ok_or(Error::JournalRead)
    }

    fn fill(&mut self, device: &Device, sector: u64, at: usize, bytes: usize) -> Result {
        self.filled = 0..0;
        if self.buf.len() < bytes {
            self.buf = IoBuf::new(bytes.next_power_of_two(), GFP_KERNEL)?;
        }
        let from = sector.saturating_add(at as u64 / 512);
        if let Err(e) = device.bdev.read_sync(from, &mut self.buf, 0..bytes) {
            device.count_error(IoErrorKind::Read);
            crate::fs_err!(device, "reading the journal: {e}");
            return Err(Error::JournalRead);
        }
        self.device = device.index;
        self.bucket_sector = sector;
        self.filled = at..at + bytes;
        Ok(())
    }
}

/// Whether what follows will be wanted, too.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(super) enum ReadAhead {
    /// Probably.
    Yes,
    /// Probably not.
    No,
}
