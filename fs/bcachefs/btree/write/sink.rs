// SPDX-License-Identifier: GPL-2.0
//! Where the bytes of nodes go.

use super::op::WriteOp;
use crate::{
    btree::source::CopyError,
    sb::{device::IoErrorKind, Devices},
};
use bcachefs_format::{btree_node::SECTOR_BYTES, keys::extent::Ptr};
use kernel::{prelude::*, sync::Arc};
use kfs::block::{BioSet, SharedBuf, WriteFlags};

/// One copy of a write. Dropping it without [`WriteDone::end`] says that it failed.
pub struct WriteDone {
    op: Option<Arc<WriteOp>>,
    ptr: Ptr,
}

impl WriteDone {
    pub(super) fn new(op: Arc<WriteOp>, ptr: Ptr) -> Self {
        WriteDone { op: Some(op), ptr }
    }

    /// The copy is on the device, or is not. Process context.
    pub fn end(mut self, result: core::result::Result<(), CopyError>) {
        if let Some(op) = self.op.take() {
            op.copy_written(self.ptr, result);
        }
    }
}

impl Drop for WriteDone {
    fn drop(&mut self) {
        if let Some(op) = self.op.take() {
            op.copy_written(self.ptr, Err(CopyError::DeviceMissing));
        }
    }
}

/// Something that nodes can be written to.
pub trait NodeSink: Send + Sync {
    /// Writes the first `bytes` bytes of `buf` to sector `at` of the copy at `ptr`, and then ends `done`, possibly before it returns. May
    /// sleep for what other writes use.
    fn write(&self, ptr: Ptr, at: u32, buf: SharedBuf, bytes: usize, done: WriteDone);

    /// Waits until all writes have ended.
    fn wait_idle(&self);
}

/// Writes to the member devices.
pub struct DeviceSink {
    devices: Arc<Devices>,
    bios: Arc<BioSet>,
}

impl DeviceSink {
    /// To `devices`. May sleep.
    pub fn new(devices: Arc<Devices>) -> Result<Self> {
        Ok(DeviceSink {
            devices,
            bios: BioSet::new(1)?,
        })
    }
}

impl NodeSink for DeviceSink {
    fn write(&self, ptr: Ptr, at: u32, buf: SharedBuf, bytes: usize, done: WriteDone) {
        let Some(device) = self.devices.get(ptr.dev()) else {
            return done.end(Err(CopyError::DeviceMissing));
        };
        let counted = device.clone();
        let sector = ptr.offset() + u64::from(at);
        device
            .bdev
            .write(&self.bios, sector, buf, 0..bytes, WriteFlags::META, move |result, buf| {
                // Before what follows, which may need memory.
                drop(buf);
                if result.is_err() {
                    counted.count_error(IoErrorKind::Write);
                }
                done.end(result.map_err(CopyError::Io));
            });
    }

    fn wait_idle(&self) {
        self.bios.wait_idle();
    }
}

const _: () = assert!(SECTOR_BYTES == kfs::block::SECTOR_SIZE);
