// SPDX-License-Identifier: GPL-2.0
//! Devices and image files: opened so that nobody else can use them, measured.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

use crate::plan::DeviceSize;
use crate::size::SECTOR;
use crate::Result;

/// A device that nobody else uses, for as long as this lives.
#[derive(Debug)]
pub struct Device {
    /// Open for reading and writing.
    pub file: File,
    /// Its size.
    pub size: DeviceSize,
}

impl Device {
    /// Opens a block device exclusively, or a file that no loop device is made of.
    pub fn open(path: &Path) -> Result<Device> {
        let of = |e: std::io::Error| match rustix::io::Errno::from_io_error(&e) {
            Some(rustix::io::Errno::BUSY) => {
                format!("{}: in use (mounted, or part of something)", path.display())
            }
            _ => format!("{}: {e}", path.display()),
        };
        let kind = std::fs::metadata(path).map_err(of)?.file_type();
        let is_block = kind.is_block_device();
        if !is_block && !kind.is_file() {
            return Err(format!(
                "{}: neither a block device nor a file",
                path.display()
            ));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if is_block {
            options.custom_flags(OFlags::EXCL.bits() as i32);
        }
        let mut file = options.open(path).map_err(of)?;
        let meta = file.metadata().map_err(of)?;
        if !is_block {
            if let Some(user) = loop_device_of(&meta) {
                return Err(format!("{}: in use by {user}", path.display()));
            }
        }
        let bytes = file.seek(SeekFrom::End(0)).map_err(of)?;
        let (physical_block, logical_block) = match is_block {
            true => {
                let failed = |e: rustix::io::Errno| of(e.into());
                let physical = rustix::fs::ioctl_blkpbszget(&file).map_err(failed)?;
                let logical = rustix::fs::ioctl_blksszget(&file).map_err(failed)?;
                (physical.into(), logical.into())
            }
            false => (meta.blksize(), SECTOR),
        };
        let size = DeviceSize {
            bytes,
            physical_block,
            logical_block,
            grows: !is_block,
        };
        Ok(Device { file, size })
    }
}

/// The loop device whose file this is.
fn loop_device_of(meta: &std::fs::Metadata) -> Option<String> {
    for entry in std::fs::read_dir("/sys/block").ok()?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("loop") {
            continue;
        }
        let Ok(backing) = std::fs::read_to_string(entry.path().join("loop/backing_file")) else {
            continue;
        };
        let other = std::fs::metadata(backing.trim_end_matches('\n'));
        if other.is_ok_and(|o| o.dev() == meta.dev() && o.ino() == meta.ino()) {
            return Some(format!("/dev/{name}"));
        }
    }
    None
}
