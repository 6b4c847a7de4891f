// SPDX-License-Identifier: GPL-2.0
//! Where the bytes of nodes come from.

use super::fill::ReadOp;
use crate::sb::{device::IoErrorKind, Devices};
use bcachefs_format::{
    keys::{self, extent::Ptr, DeviceGeometry},
    Invalid,
};
use core::fmt;
use kernel::{prelude::*, sync::Arc};
use kfs::block::{BioSet, IoBuf, IoBufPool};

/// Why a copy of a node was not read.
#[derive(Copy, Clone)]
pub enum CopyError {
    /// There is no such device, or it is not present.
    DeviceMissing,
    /// The device says no.
    Io(kfs::block::IoError),
    /// It was read, but is not the node.
    Invalid(Invalid),
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CopyError::DeviceMissing => f.write_str("device not present"),
            CopyError::Io(e) => e.fmt(f),
            CopyError::Invalid(e) => e.fmt(f),
        }
    }
}

/// Something that nodes can be read from.
pub trait NodeSource: Send + Sync {
    /// A buffer of the size of a node. May wait for memory that is in use by other reads.
    fn buffer(&self) -> Option<IoBuf>;

    /// A buffer, if there is memory right now. Does not sleep.
    fn try_buffer(&self) -> Option<IoBuf>;

    /// Reads the copy at `ptr` into `buf` and hands both to [`ReadOp::copy_read`], in process context, possibly before
    /// it returns.
    fn read(&self, ptr: Ptr, buf: IoBuf, op: KBox<ReadOp>);

    /// Takes note of a copy that turned out to be bad.
    fn count_error(&self, ptr: Ptr, error: &CopyError);

    /// What pointers in keys are checked against.
    fn geometry(&self) -> Option<&dyn keys::Devices>;

    /// Prints the device of `ptr`.
    fn describe(&self, ptr: Ptr, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Waits until all reads have ended.
    fn wait_idle(&self);
}

/// Reads from the member devices.
pub struct DeviceSource {
    devices: Arc<Devices>,
    bios: Arc<BioSet>,
    buffers: Arc<IoBufPool>,
    node_bytes: usize,
}

impl DeviceSource {
    /// Over `devices`, for nodes of `node_bytes` bytes. May sleep.
    pub fn new(devices: Arc<Devices>, node_bytes: usize) -> Result<Self> {
        Ok(DeviceSource {
            devices,
            bios: BioSet::new(2)?,
            // One for a read somebody waits for, one for a read ahead of it.
            buffers: IoBufPool::new(2, node_bytes)?,
            node_bytes,
        })
    }
}

impl NodeSource for DeviceSource {
    fn buffer(&self) -> Option<IoBuf> {
        Some(IoBufPool::get(&self.buffers))
    }

    fn try_buffer(&self) -> Option<IoBuf> {
        IoBufPool::try_get(&self.buffers)
    }

    fn read(&self, ptr: Ptr, buf: IoBuf, op: KBox<ReadOp>) {
        let Some(device) = self.devices.get(ptr.dev()) else {
            return op.copy_read(ptr, Err(CopyError::DeviceMissing), buf);
        };
        device.bdev.read(
            &self.bios,
            ptr.offset(),
            buf,
            0..self.node_bytes,
            move |result, buf| op.copy_read(ptr, result.map_err(CopyError::Io), buf),
        );
    }

    fn count_error(&self, ptr: Ptr, error: &CopyError) {
        if let Some(device) = self.devices.get(ptr.dev()) {
            match error {
                CopyError::DeviceMissing => {}
                CopyError::Io(_) => device.count_error(IoErrorKind::Read),
                CopyError::Invalid(_) => device.count_error(IoErrorKind::Checksum),
            }
        }
    }

    fn geometry(&self) -> Option<&dyn keys::Devices> {
        Some(self)
    }

    fn describe(&self, ptr: Ptr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.devices.get(ptr.dev()) {
            Some(device) => write!(f, "{} sector {}", **device, ptr.offset()),
            None => write!(f, "device {} sector {}", ptr.dev(), ptr.offset()),
        }
    }

    fn wait_idle(&self) {
        self.bios.wait_idle();
    }
}

impl keys::Devices for DeviceSource {
    fn geometry(&self, dev: u8) -> Option<DeviceGeometry> {
        let device = self.devices.get(dev)?;
        Some(DeviceGeometry {
            first_bucket: device.first_bucket,
            nbuckets: device.nbuckets,
            bucket_size: device.bucket_sectors.into(),
        })
    }
}
