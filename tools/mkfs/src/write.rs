// SPDX-License-Identifier: GPL-2.0
//! Putting superblocks where they belong.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use bcachefs_format::super_block::{SB_LAYOUT_SECTOR, SB_SECTOR};
use zerocopy::IntoBytes as _;

use crate::image::DeviceImage;
use crate::plan::DevicePlan;
use crate::size::SECTOR;

/// Writes one device's superblocks and layout. The first copy comes last, and everything before it is on the device by
/// then: what was interrupted is not taken for a filesystem.
pub fn superblocks(file: &File, device: &DevicePlan, image: &DeviceImage) -> std::io::Result<()> {
    let end = u64::from(device.bucket_size) * device.nbuckets * SECTOR;
    if file.metadata()?.is_file() && file.metadata()?.len() < end {
        file.set_len(end)?;
    }
    // Boot sector, old superblocks: everything before the first copy but the layout.
    let mut start = vec![0; (SB_SECTOR * SECTOR) as usize];
    let layout = (SB_LAYOUT_SECTOR * SECTOR) as usize;
    start[layout..].copy_from_slice(device.layout.as_bytes());
    let first = device.layout.copies().next();
    for (sector, words) in image.copies.iter().filter(|c| Some(c.0) != first) {
        write_copy(file, device, *sector, words)?;
    }
    file.write_all_at(&vec![0; SECTOR as usize], SB_SECTOR * SECTOR)?;
    file.write_all_at(&start, 0)?;
    file.sync_all()?;
    for (sector, words) in image.copies.iter().filter(|c| Some(c.0) == first) {
        write_copy(file, device, *sector, words)?;
    }
    file.sync_all()
}

/// Writes whole blocks: zeros follow.
fn write_copy(file: &File, device: &DevicePlan, sector: u64, words: &[u64]) -> std::io::Result<()> {
    let mut bytes = words.as_bytes().to_vec();
    bytes.resize(
        bytes.len().next_multiple_of(device.logical_block as usize),
        0,
    );
    file.write_all_at(&bytes, sector * SECTOR)
}
