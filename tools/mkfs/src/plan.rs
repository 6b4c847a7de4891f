// SPDX-License-Identifier: GPL-2.0
//! What the filesystem is going to be: the request, and what follows from the devices.

use bcachefs_format::checksum::CsumOpt;
use bcachefs_format::magic::Uuid;
use bcachefs_format::sb::disk_groups::DiskGroup;
use bcachefs_format::sb::layout::DiskLayout;
use bcachefs_format::sb::SbFlags;
use bcachefs_format::super_block::MEMBERS_MAX;

use crate::flags::{self, Resolved};
use crate::geometry;
use crate::labels::Groups;
use crate::request::{DeviceRequest, Request};
use crate::size::{self, SECTOR};
use crate::Result;

/// The largest block that every kernel can mount, and the default where a device has a larger one.
const BLOCK_MAX: u64 = 4096;
/// Bytes of the filesystem's label.
const FS_LABEL_MAX: usize = 32;

/// What is known of a device before anything is decided.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct DeviceSize {
    /// All of it, in bytes.
    pub bytes: u64,
    /// The smallest write that does not cost a read, in bytes.
    pub physical_block: u64,
    /// The smallest I/O possible, in bytes.
    pub logical_block: u64,
    /// Whether it grows when written behind its end.
    pub grows: bool,
}

/// Where UUIDs and the time come from.
pub trait Environment {
    /// A new random UUID.
    fn uuid(&mut self) -> Result<Uuid>;
    /// Nanoseconds since 1970.
    fn now(&self) -> u64;
}

/// One device of the filesystem.
#[derive(Clone, Debug)]
pub struct DevicePlan {
    /// Its own UUID.
    pub uuid: Uuid,
    /// Sectors of a bucket.
    pub bucket_size: u16,
    /// Number of buckets.
    pub nbuckets: u64,
    /// Where its superblocks are.
    pub layout: DiskLayout,
    /// Whether freed buckets are discarded.
    pub discard: bool,
    /// How many replicas a copy on it counts for.
    pub durability: u8,
    /// Bit k: data of type k may be put there.
    pub data_allowed: u8,
    /// Index of its disk group.
    pub group: Option<u8>,
    /// Bytes that its I/O has to be a multiple of.
    pub logical_block: u64,
}

/// The filesystem.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Identifies the filesystem.
    pub uuid: Uuid,
    /// Identifies it to users.
    pub user_uuid: Uuid,
    /// Its label, padded with zeros.
    pub label: [u8; FS_LABEL_MAX],
    /// Bytes of a block.
    pub block_size: u64,
    /// Options.
    pub flags: SbFlags,
    /// How metadata is checksummed, the superblocks among it.
    pub metadata_checksum: CsumOpt,
    /// When it was made, in nanoseconds.
    pub time: u64,
    /// Labels of the devices.
    pub groups: Vec<DiskGroup>,
    /// The members.
    pub devices: Vec<DevicePlan>,
}

impl Plan {
    /// Decides everything, for devices of these sizes.
    pub fn make(
        request: &Request,
        sizes: &[DeviceSize],
        env: &mut dyn Environment,
    ) -> Result<Plan> {
        if request.devices.is_empty() || request.devices.len() > usize::from(MEMBERS_MAX) {
            return Err(format!("a filesystem has 1 to {MEMBERS_MAX} devices"));
        }
        let options = &request.options;
        let of = |d: &DeviceRequest, e: String| format!("{}: {e}", d.path.display());
        let block_size = block_size(request, sizes)?;
        let devices = || request.devices.iter().zip(sizes);

        // One bucket size for all devices about which nothing was said: the smallest that one of them asks for.
        let least = options.btree_node_size.unwrap_or(0).max(block_size);
        let mut bytes = Vec::new();
        let mut picked: Option<u64> = None;
        let mut smallest_bucket = u64::MAX;
        for (device, size) in devices() {
            let usable = usable_bytes(device, size).map_err(|e| of(device, e))?;
            bytes.push(usable);
            let bucket = match device.bucket_size {
                Some(asked) => asked.max(block_size),
                None => {
                    let own =
                        geometry::pick_bucket_size(usable, least).map_err(|e| of(device, e))?;
                    picked = Some(picked.map_or(own, |p| p.min(own)));
                    own
                }
            };
            smallest_bucket = smallest_bucket.min(bucket);
        }
        let node_size = options
            .btree_node_size
            .unwrap_or_else(|| geometry::pick_node_size(smallest_bucket));
        if node_size < block_size {
            return Err("btree node size is below the block size".into());
        }

        let mut groups = Groups::default();
        let mut plans = Vec::new();
        for ((device, size), usable) in devices().zip(bytes) {
            let bucket = device.bucket_size.or(picked).unwrap_or(smallest_bucket);
            let plan = || -> Result<DevicePlan> {
                let (bucket_size, nbuckets) =
                    geometry::buckets(usable, bucket, block_size, node_size)?;
                let copy = request.superblock_size;
                Ok(DevicePlan {
                    uuid: env.uuid()?,
                    bucket_size,
                    nbuckets,
                    layout: geometry::layout(copy, block_size, bucket_size, nbuckets)?,
                    discard: device.discard,
                    durability: device.durability,
                    data_allowed: device.data_allowed,
                    group: device
                        .label
                        .as_deref()
                        .map(|l| groups.find_or_add(l))
                        .transpose()?,
                    logical_block: size.logical_block,
                })
            };
            let mut plan = plan;
            plans.push(plan().map_err(|e| of(device, e))?);
        }

        let names: Vec<_> = request
            .devices
            .iter()
            .map(|d| d.path.to_string_lossy())
            .collect();
        let names: Vec<&str> = names.iter().map(|n| n.as_ref()).collect();
        let target = |name: &Option<String>| match name {
            Some(name) => groups.target(name, &names),
            None => Ok(Default::default()),
        };
        let resolved = Resolved {
            node_size,
            metadata_target: target(&options.metadata_target)?,
            foreground_target: target(&options.foreground_target)?,
            background_target: target(&options.background_target)?,
            promote_target: target(&options.promote_target)?,
        };
        Ok(Plan {
            uuid: env.uuid()?,
            user_uuid: match request.uuid {
                Some(uuid) => uuid,
                None => env.uuid()?,
            },
            label: fs_label(&request.fs_label)?,
            block_size,
            flags: flags::make(options, &resolved),
            metadata_checksum: options.metadata_checksum,
            time: env.now(),
            groups: groups.entries().to_vec(),
            devices: plans,
        })
    }
}

/// The block size asked for, or the largest physical block; not below a device's logical block.
fn block_size(request: &Request, sizes: &[DeviceSize]) -> Result<u64> {
    let largest = |f: fn(&DeviceSize) -> u64| sizes.iter().map(f).max().unwrap_or(SECTOR);
    let least = largest(|s| s.logical_block);
    let block = match request.options.block_size {
        Some(asked) => asked,
        None => largest(|s| s.physical_block)
            .clamp(SECTOR, BLOCK_MAX)
            .max(least),
    };
    if block < least {
        let (block, least) = (size::show(block), size::show(least));
        return Err(format!(
            "block size {block} is below a device's, which is {least}"
        ));
    }
    Ok(block)
}

/// How much of a device is used.
fn usable_bytes(device: &DeviceRequest, size: &DeviceSize) -> Result<u64> {
    match device.fs_size {
        Some(asked) if asked > size.bytes && !size.grows => {
            let (asked, have) = (size::show(asked), size::show(size.bytes));
            Err(format!("has {have}, and {asked} were asked for"))
        }
        Some(asked) => Ok(asked),
        None => Ok(size.bytes),
    }
}

fn fs_label(text: &str) -> Result<[u8; FS_LABEL_MAX]> {
    let mut label = [0; FS_LABEL_MAX];
    match label.get_mut(..text.len()) {
        Some(room) => room.copy_from_slice(text.as_bytes()),
        None => {
            return Err(format!(
                "the label has {} bytes, at most {FS_LABEL_MAX} fit",
                text.len()
            ))
        }
    }
    Ok(label)
}
