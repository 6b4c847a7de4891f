// SPDX-License-Identifier: GPL-2.0
//! The devices, as the journal sees them.

use kernel::sync::Arc;
use kfs::block::{Access, BioSet, IoBuf, WriteFlags};

use super::{ring::Spot, state::Core};
use crate::{
    fs_err,
    sb::{device::IoErrorKind, Device, Devices},
    util::error::Result,
};

/// Devices that can be written. For tests there are others than [`Members`].
pub(super) trait Disk: Send + Sync {
    /// Starts writing the first `bytes` bytes of `buf`; `ticket` is told when that is done. May sleep for memory.
    fn write(&self, spot: Spot, buf: IoBuf, bytes: usize, flags: WriteFlags, ticket: Ticket);

    /// Starts flushing the cache of a device; `ticket` is told when that is done. May sleep for memory.
    fn flush(&self, device: u8, ticket: Ticket);

    /// The devices that have to be flushed for everything written to be durable, as a mask.
    fn caches(&self) -> u64;

    /// Tells the device that what is in these sectors is not needed any more. Sleeps.
    fn discard(&self, spot: Spot, sectors: u32);

    /// Waits until all tickets have been told. Sleeps.
    fn wait_idle(&self);
}

/// A transfer under way, on behalf of an entry. It is told how that ended, in process context.
pub(super) struct Ticket {
    pub(super) core: Arc<Core>,
    pub(super) seq: u64,
    pub(super) device: u8,
}

impl Ticket {
    /// A write has ended.
    pub(super) fn written(self, ok: bool, buf: IoBuf) {
        self.core.give_back(buf);
        self.core.wrote(self.seq, self.device, ok);
    }

    /// A flush has ended.
    pub(super) fn flushed(self, ok: bool) {
        self.core.flushed_cache(self.seq, self.device, ok);
    }
}

/// The filesystem's members.
pub(super) struct Members {
    devices: Arc<Devices>,
    bios: Arc<BioSet>,
}

impl Members {
    /// Transfers in flight: entries, copies and the flushes before them.
    const RESERVE: u32 = 16;

    /// May sleep.
    pub(super) fn new(devices: Arc<Devices>) -> Result<Self> {
        let bios = BioSet::new(Self::RESERVE)?;
        Ok(Members { devices, bios })
    }
}

fn report(device: &Device, error: &kfs::block::IoError) {
    device.count_error(IoErrorKind::Write);
    fs_err!(device, "journal: {error}");
}

impl Disk for Members {
    fn write(&self, spot: Spot, buf: IoBuf, bytes: usize, flags: WriteFlags, ticket: Ticket) {
        let Some(device) = self.devices.get(spot.device).cloned() else {
            return ticket.written(false, buf);
        };
        let bdev = device.bdev.clone();
        let flags = flags | WriteFlags::META;
        bdev.write(&self.bios, spot.sector, buf, 0..bytes, flags, move |result, buf| {
            if let Err(e) = &result {
                report(&device, e);
            }
            ticket.written(result.is_ok(), buf)
        });
    }

    fn flush(&self, device: u8, ticket: Ticket) {
        let Some(device) = self.devices.get(device).cloned() else {
            return ticket.flushed(false);
        };
        let bdev = device.bdev.clone();
        bdev.start_flush(&self.bios, move |result| {
            if let Err(e) = &result {
                report(&device, e);
            }
            ticket.flushed(result.is_ok())
        });
    }

    fn caches(&self) -> u64 {
        let written = |d: &&Arc<Device>| d.bdev.access() == Access::ReadWrite;
        let devices = self.devices.iter().filter(written);
        devices.fold(0, |mask, device| mask | 1 << (device.index & 63))
    }

    fn discard(&self, spot: Spot, sectors: u32) {
        let Some(device) = self.devices.get(spot.device) else {
            return;
        };
        let device: &Device = device;
        if let Err(e) = device.bdev.discard(spot.sector, sectors.into()) {
            // It was for the device's own good.
            fs_err!(device, "journal: discard at sector {}: {e:?}", spot.sector);
        }
    }

    fn wait_idle(&self) {
        self.bios.wait_idle();
    }
}
