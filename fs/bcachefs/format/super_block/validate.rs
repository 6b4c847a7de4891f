// SPDX-License-Identifier: GPL-2.0
//! Validation of a superblock as a whole.

use super::{DiskSb, SbLimits, SuperBlock, MEMBERS_MAX, SB_HEADER_BYTES};
use crate::check::{Checked, Unchecked};
use crate::error::Invalid;
use crate::features::Features;
use crate::sb::field::{Field, FieldType};

/// Byte offset of a field of [`DiskSb`].
macro_rules! at {
    ($f:ident) => {
        core::mem::offset_of!(DiskSb, $f)
    };
}

impl<'a> Unchecked<SuperBlock<'a>> {
    /// Checks everything a superblock has to obey beyond what [`SuperBlock::open`] checked. Errors
    /// count bytes from its start.
    pub fn validate(self, limits: &SbLimits) -> Result<Checked<SuperBlock<'a>>, Invalid> {
        let sb = self.into_inner();
        check_header(&sb, limits)?;
        sb.options()?;
        sb.header
            .layout
            .validate()
            .map_err(|e| e.within(at!(layout)))?;
        check_fields(&sb)?;
        Ok(Checked::new(sb))
    }
}

fn check_header(sb: &SuperBlock<'_>, limits: &SbLimits) -> Result<(), Invalid> {
    let h = sb.header;
    let block_size = h.block_size.get();
    let block_bytes = u64::from(block_size) * 512;
    if block_bytes < limits.logical_block_bytes.into() {
        return Err(Invalid::plain(
            "superblock: block size is below the device's",
            at!(block_size),
            block_bytes,
            limits.logical_block_bytes.into(),
        ));
    }
    if sb.flags().big_endian() != 0 {
        let what = "superblock: big-endian filesystems are not supported";
        return Err(Invalid::plain(what, at!(flags), 1, 0));
    }
    let unknown = sb.features().unknown().0;
    if unknown != 0 || h.features[1].get() != 0 {
        let got = if unknown != 0 {
            sb.features().0
        } else {
            h.features[1].get()
        };
        let what = "superblock: filesystem has unknown incompatible features";
        return Err(Invalid::plain(what, at!(features), got, Features::KNOWN.0));
    }
    if !block_size.is_power_of_two() || block_bytes > limits.block_bytes_max.into() {
        return Err(Invalid::plain(
            "superblock: block size is no power of two or larger than a page",
            at!(block_size),
            block_bytes,
            limits.block_bytes_max.into(),
        ));
    }
    if h.user_uuid.is_nil() {
        return Err(Invalid::plain(
            "superblock: no user UUID",
            at!(user_uuid),
            0,
            1,
        ));
    }
    if h.uuid.is_nil() {
        return Err(Invalid::plain(
            "superblock: no internal UUID",
            at!(uuid),
            0,
            1,
        ));
    }
    if h.nr_devices == 0 || h.nr_devices > MEMBERS_MAX {
        return Err(Invalid::plain(
            "superblock: bad number of devices",
            at!(nr_devices),
            h.nr_devices.into(),
            MEMBERS_MAX.into(),
        ));
    }
    if h.dev_idx >= h.nr_devices {
        return Err(Invalid::plain(
            "superblock: bad device index",
            at!(dev_idx),
            h.dev_idx.into(),
            h.nr_devices.into(),
        ));
    }
    let precision = h.time_precision.get();
    if precision == 0 || precision > 1_000_000_000 {
        return Err(Invalid::plain(
            "superblock: bad time precision",
            at!(time_precision),
            precision.into(),
            1_000_000_000,
        ));
    }
    Ok(())
}

fn check_fields(sb: &SuperBlock<'_>) -> Result<(), Invalid> {
    let mut members_at = None;
    for field in sb.fields() {
        let field = field.map_err(|e| e.within(SB_HEADER_BYTES))?;
        if field.field_type == FieldType::MEMBERS_V1 && members_at.is_none() {
            members_at = Some(field);
        }
    }
    let Some(members) = members_at else {
        let what = "superblock: no members field";
        return Err(Invalid::plain(what, SB_HEADER_BYTES, 0, 1));
    };
    let at = |f: &Field<'_>| SB_HEADER_BYTES + f.offset;
    members.validate(sb).map_err(|e| e.within(at(&members)))?;
    for field in sb.fields().map_while(Result::ok) {
        field.validate(sb).map_err(|e| e.within(at(&field)))?;
    }
    Ok(())
}
