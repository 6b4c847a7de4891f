// SPDX-License-Identifier: GPL-2.0
//! What the superblock of one device has that the others' have not.

use bcachefs_format::{
    sb::{build::SbBuilder, field::Fields, DiskLayout, FieldType, SbFull},
    super_block::SuperBlock,
    checksum::CsumOpt,
    CsumType,
};
use kernel::prelude::*;

use super::Device;
use crate::util::{
    checksum::Checksums,
    error::{Error, Result},
};

/// Whether every device has the same content in fields of this type. Fields that this version does not know may mean
/// anything and stay where they are.
pub(super) fn is_shared(field_type: FieldType) -> bool {
    !field_type.is_per_device() && field_type.name().is_some()
}

/// The parts of a superblock that belong to one device.
pub(super) struct OwnParts {
    /// Member index.
    pub(super) index: u8,
    /// Sequence number of what is on the device.
    pub(super) seq: u64,
    /// Where its copies are.
    pub(super) layout: KBox<DiskLayout>,
    /// Fields that are not shared, one after the other.
    fields: KVVec<u64>,
}

impl OwnParts {
    /// Of `sb`, as read from the device. `journal` replaces the list of its journal's buckets. May sleep.
    #[inline(never)]
    pub(super) fn new(sb: &SuperBlock<'_>, journal: &[(u64, u64)]) -> Result<Self> {
        let mut fields = KVVec::new();
        for field in sb.fields() {
            let field = field?;
            if !is_shared(field.field_type) && !field.field_type.is_per_device() {
                fields.extend_from_slice(field.words, GFP_KERNEL)?;
            }
        }
        if !journal.is_empty() || sb.journal_buckets().nr() != 0 {
            let u64s = u32::try_from(1 + 2 * journal.len()).map_err(|_| Error::SuperFull)?;
            let head = bcachefs_format::sb::Field::header_word(FieldType::JOURNAL_V2, u64s);
            fields.push(head, GFP_KERNEL)?;
            for (start, nr) in journal {
                fields.push(*start, GFP_KERNEL)?;
                fields.push(*nr, GFP_KERNEL)?;
            }
        }
        Ok(OwnParts {
            index: sb.header().dev_idx,
            seq: sb.header().seq.get(),
            layout: KBox::new(sb.header().layout, GFP_KERNEL)?,
            fields,
        })
    }

    /// Words that [`OwnParts::compose`] makes of `shared`.
    pub(super) fn composed_u64s(&self, shared: &SuperBlock<'_>) -> usize {
        shared.words().len() + self.fields.len()
    }

    /// Makes the copy at sector `offset` of this device's superblock in `words`; returns its bytes.
    #[inline(never)]
    pub(super) fn compose(
        &self,
        shared: &SuperBlock<'_>,
        offset: u64,
        words: &mut [u64],
    ) -> core::result::Result<usize, SbFull> {
        let mut header = *shared.header();
        header.dev_idx = self.index;
        header.layout.clone_from(&self.layout);
        let mut builder = SbBuilder::new(words, &header)?;
        for field in shared.fields().map_while(core::result::Result::ok) {
            builder.copy_field(&field)?;
        }
        for field in Fields::new(&self.fields).map_while(core::result::Result::ok) {
            builder.copy_field(&field)?;
        }
        let opt = CsumOpt(shared.flags().meta_csum_type() as u8);
        let csum_type = opt.sb_type().unwrap_or(CsumType::CRC32C_NONZERO);
        builder.finish(offset, csum_type, &Checksums)
    }
}

/// The buckets that a journal for `device` is to get: as many as the device's size asks for, from the first usable one on, except
/// where superblocks are. May sleep.
#[inline(never)]
pub(super) fn plan_journal(device: &Device, layout: &DiskLayout) -> Result<KVVec<(u64, u64)>> {
    const BUCKETS_MAX: u64 = 8192;
    const SECTORS_MAX: u64 = 1 << 24;
    let bucket_sectors = u64::from(device.bucket_sectors.max(1));
    let most = BUCKETS_MAX.min(SECTORS_MAX / bucket_sectors).max(JOURNAL_BUCKETS_MIN);
    let mut left = (device.nbuckets / 128).clamp(JOURNAL_BUCKETS_MIN, most);
    let mut ranges: KVVec<(u64, u64)> = KVVec::new();
    let mut bucket = device.first_bucket.max(1);
    while left > 0 && bucket < device.nbuckets {
        if !holds_superblock(device, layout, bucket) {
            match ranges.last_mut() {
                Some(last) if last.0 + last.1 == bucket => last.1 += 1,
                _ => ranges.push((bucket, 1), GFP_KERNEL)?,
            }
            left -= 1;
        }
        bucket += 1;
    }
    if left > 0 {
        return Err(Error::JournalTooSmall);
    }
    Ok(ranges)
}

/// Fewest buckets of a journal.
const JOURNAL_BUCKETS_MIN: u64 = bcachefs_format::sb::journal::JOURNAL_BUCKETS_MIN;

/// Sectors of `bucket` that superblocks, or what is before the first of them, take.
pub fn superblock_sectors(device: &Device, layout: &DiskLayout, bucket: u64) -> u64 {
    let start = device.bucket_start(bucket);
    let end = device.bucket_start(bucket.saturating_add(1));
    let overlap = |from: u64, to: u64| to.min(end).saturating_sub(from.max(start));
    let copies = layout
        .copies()
        .map(|at| overlap(at, at.saturating_add(layout.copy_sectors())));
    // Before the first copy there is the layout, and room for a boot sector.
    copies.fold(overlap(0, bcachefs_format::super_block::SB_SECTOR), u64::saturating_add)
}

fn holds_superblock(device: &Device, layout: &DiskLayout, bucket: u64) -> bool {
    superblock_sectors(device, layout, bucket) != 0
}
