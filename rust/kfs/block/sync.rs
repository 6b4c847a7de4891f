// SPDX-License-Identifier: GPL-2.0

//! Transfers that the caller waits for.

use super::{
    request::{fill, opf_bits, pages_upper_bound},
    stats::now_ns,
    BlockDevice, IoBuf, IoError, Op, Status, WriteFlags, SECTOR_SHIFT,
};
use crate::bindings;
use core::ops::Range;

impl BlockDevice {
    /// Reads into the bytes `range` of `buf`, from `sector` on. Sleeps until that is done.
    ///
    /// `sector` and both ends of `range` have to be multiples of the device's logical block size.
    pub fn read_sync(
        &self,
        sector: u64,
        buf: &mut IoBuf,
        range: Range<usize>,
    ) -> Result<(), IoError> {
        self.transfer(Op::Read, sector, buf, range, WriteFlags::NONE)
    }

    /// Writes the bytes `range` of `buf` to `sector` and what follows. Sleeps until that is done; in the device's
    /// cache, unless `flags` say more.
    pub fn write_sync(
        &self,
        sector: u64,
        buf: &IoBuf,
        range: Range<usize>,
        flags: WriteFlags,
    ) -> Result<(), IoError> {
        self.transfer(Op::Write, sector, buf, range, flags)
    }

    /// Makes everything written before durable. Sleeps until that is done.
    pub fn flush(&self) -> Result<(), IoError> {
        if self.access() == super::Access::ReadOnly {
            return Err(self.error(Op::Flush, 0, Status::ReadOnly));
        }
        let start = now_ns();
        // SAFETY: The device is open. With no data and one flag, a bio of no segments is a flush.
        let status = unsafe {
            let bits = opf_bits(Op::Flush, WriteFlags::PREFLUSH);
            let bio = bindings::kfs_bio_alloc(core::ptr::null_mut(), self.as_raw(), 0, true, bits);
            bindings::submit_bio_wait(bio);
            let status = (*bio).bi_status;
            bindings::bio_put(bio);
            status
        };
        if status != 0 {
            return Err(self.error(Op::Flush, 0, Status::Device(status)));
        }
        self.counters.completed(Op::Flush, 0, now_ns().wrapping_sub(start));
        Ok(())
    }

    /// Transfers in bios of as many segments as one takes, one after the other.
    fn transfer(
        &self,
        op: Op,
        sector: u64,
        buf: &IoBuf,
        range: Range<usize>,
        flags: WriteFlags,
    ) -> Result<(), IoError> {
        self.check(op, sector, &range, buf.len())
            .map_err(|status| self.error(op, sector, status))?;
        let start = now_ns();
        let mask = self.block_mask();
        let mut at = range.start;
        let mut position = sector;
        while at < range.end {
            let vecs = pages_upper_bound(buf, at, range.end);
            // SAFETY: The device is open; each bio is waited for and given back before the next. `buf`
            // is borrowed all the while, exclusively when it is read into (see the two callers).
            let (bytes, status) = unsafe {
                let bio = bindings::kfs_bio_alloc(
                    core::ptr::null_mut(),
                    self.as_raw(),
                    vecs,
                    op != Op::Read,
                    opf_bits(op, flags),
                );
                (*bio).bi_iter.bi_sector = position;
                let filled = fill(bio, buf, at, range.end, mask);
                let status = match filled {
                    Ok(_) => {
                        bindings::submit_bio_wait(bio);
                        (*bio).bi_status
                    }
                    Err(_) => 0,
                };
                bindings::bio_put(bio);
                (filled.map_err(|status| self.error(op, sector, status))?, status)
            };
            if status != 0 {
                return Err(self.error(op, position, Status::Device(status)));
            }
            at += bytes;
            position += (bytes >> SECTOR_SHIFT) as u64;
        }
        self.counters.completed(op, range.end - range.start, now_ns().wrapping_sub(start));
        Ok(())
    }
}
