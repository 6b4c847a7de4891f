// SPDX-License-Identifier: GPL-2.0
//! The superblocks of a plan, as bytes.

use bcachefs_format::checksum::{Csum, CsumType};
use bcachefs_format::features::Features;
use bcachefs_format::magic::SB_MAGIC;
use bcachefs_format::sb::members::{self, Member};
use bcachefs_format::sb::{Ext, FieldType, MemberState, SbBuilder, SbFull};
use bcachefs_format::super_block::{DiskSb, SbLimits, SuperBlock, SB_HEADER_BYTES};
use bcachefs_format::version::Version;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::IntoBytes as _;

use crate::checksum::SbChecksummer;
use crate::plan::{DevicePlan, Plan};
use crate::size::SECTOR;
use crate::Result;

/// The copies of one device's superblock.
#[derive(Clone, Debug)]
pub struct DeviceImage {
    /// First sector of each copy, and its bytes as words.
    pub copies: Vec<(u64, Vec<u64>)>,
}

/// Makes the superblocks of device number `dev`, and has the format's own validator check each.
pub fn make(plan: &Plan, dev: usize) -> Result<DeviceImage> {
    let device = plan.devices.get(dev).ok_or("no such device")?;
    let csum_type = plan.metadata_checksum.sb_type().ok_or("unknown checksum")?;
    let mut copies = Vec::new();
    for sector in device.layout.copies() {
        let words =
            superblock(plan, device, dev as u8, sector, csum_type).map_err(|e| e.to_string())?;
        let limits = SbLimits {
            logical_block_bytes: device.logical_block as u32,
            block_bytes_max: plan.block_size as u32,
        };
        SuperBlock::open(&words, &SbChecksummer)
            .and_then(|sb| sb.validate(&limits))
            .map_err(|e| format!("the superblock made is not valid, which is a bug: {e}"))?;
        copies.push((sector, words));
    }
    Ok(DeviceImage { copies })
}

fn superblock(
    plan: &Plan,
    device: &DevicePlan,
    dev: u8,
    sector: u64,
    csum_type: CsumType,
) -> core::result::Result<Vec<u64>, SbFull> {
    let nr = plan.devices.len();
    let ext_u64s = core::mem::size_of::<Ext>() / 8;
    let v1_u64s = members::payload_bytes(FieldType::MEMBERS_V1, nr) / 8;
    let v2_u64s = members::payload_bytes(FieldType::MEMBERS_V2, nr) / 8;
    let groups_u64s = plan.groups.as_bytes().len() / 8;
    let all = SB_HEADER_BYTES / 8 + 4 + ext_u64s + v1_u64s + v2_u64s + groups_u64s;

    let mut words = vec![0; all];
    let mut sb = SbBuilder::new(&mut words, &header(plan, device, dev))?;
    let members: Vec<Member> = plan.devices.iter().map(member).collect();
    let room = sb.field(FieldType::MEMBERS_V2, v2_u64s)?;
    members::encode(FieldType::MEMBERS_V2, &members, room.as_mut_bytes());
    if !plan.groups.is_empty() {
        let room = sb.field(FieldType::DISK_GROUPS, groups_u64s)?;
        room.as_mut_bytes().copy_from_slice(plan.groups.as_bytes());
    }
    let room = sb.field(FieldType::MEMBERS_V1, v1_u64s)?;
    members::encode(FieldType::MEMBERS_V1, &members, room.as_mut_bytes());
    // Nothing required, nothing silent.
    sb.field(FieldType::EXT, ext_u64s)?;
    let bytes = sb.finish(sector, csum_type, &SbChecksummer)?;
    words.truncate(bytes / 8);
    Ok(words)
}

fn header(plan: &Plan, device: &DevicePlan, dev: u8) -> DiskSb {
    DiskSb {
        csum: Csum::default(),
        version: U16::new(Version::CURRENT.0),
        version_min: U16::new(Version::CURRENT.0),
        pad: [U16::ZERO; 2],
        magic: SB_MAGIC,
        uuid: plan.uuid,
        user_uuid: plan.user_uuid,
        label: plan.label,
        offset: U64::ZERO,
        seq: U64::ZERO,
        block_size: U16::new((plan.block_size / SECTOR) as u16),
        dev_idx: dev,
        // MEMBERS_MAX at most.
        nr_devices: plan.devices.len() as u8,
        u64s: U32::ZERO,
        time_base_lo: U64::new(plan.time),
        time_base_hi: U32::ZERO,
        time_precision: U32::new(1),
        flags: plan.flags.0.map(U64::new),
        write_time: U64::ZERO,
        features: [U64::new(Features::ON_CREATE.0), U64::ZERO],
        // What is known to be compatible is known once the kernel has made the btrees.
        compat: [U64::ZERO; 2],
        layout: device.layout,
    }
}

fn member(device: &DevicePlan) -> Member {
    let mut member = Member::empty();
    member.uuid = device.uuid;
    member.nbuckets = U64::new(device.nbuckets);
    member.bucket_size = U16::new(device.bucket_size);
    member.flags = Member::make_flags(
        MemberState::RW,
        device.discard,
        device.data_allowed,
        device.group,
        device.durability,
        false,
    );
    member
}
