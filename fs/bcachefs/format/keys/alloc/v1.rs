// SPDX-License-Identifier: GPL-2.0
//! The first generation of the alloc value; only read.
//!
//! A bitmap of the fields that are present, the generation, then those fields in order.

use crate::error::{ErrorId, Invalid};
use crate::keys::alloc::Alloc;
use crate::keys::data_type::DataType;
use crate::keys::layout::too_small;

/// Length of each field in bytes: times of read and write, data type, dirty and cached sectors,
/// oldest generation, stripe, its redundancy.
const LENGTHS: [usize; 8] = [2, 2, 1, 2, 2, 1, 4, 1];
/// Length of bitmap and generation.
const HEADER: usize = 2;

/// Length in bytes that a value with this bitmap needs.
fn size(present: u8) -> usize {
    let fields: usize = LENGTHS
        .iter()
        .enumerate()
        .filter(|(i, _)| present & (1 << i) != 0)
        .map(|(_, len)| len)
        .sum();
    HEADER + fields
}

pub(super) fn parse(bytes: &[u8]) -> Result<Alloc, Invalid> {
    let Some(([present, generation], mut rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(too_small(bytes.len(), 8));
    };
    let mut values = [0u32; LENGTHS.len()];
    for (i, (v, len)) in values.iter_mut().zip(LENGTHS).enumerate() {
        if present & (1 << i) == 0 {
            continue;
        }
        let Some((field, after)) = rest.split_at_checked(len) else {
            return Err(size_bad(bytes.len(), *present));
        };
        *v = field.iter().rev().fold(0, |v, b| (v << 8) | u32::from(*b));
        rest = after;
    }
    // Each value is no wider than its length above, so the narrowing loses nothing.
    let [read, write, data_type, dirty, cached, oldest_gen, stripe, redundancy] = values;
    Ok(Alloc {
        generation: *generation,
        oldest_gen: oldest_gen as u8,
        data_type: DataType(data_type as u8),
        stripe_redundancy: redundancy as u8,
        dirty_sectors: dirty,
        cached_sectors: cached,
        io_time: [read.into(), write.into()],
        stripe,
        ..Alloc::default()
    })
}

/// Checks the length that the value states about itself.
pub(super) fn validate(bytes: &[u8]) -> Result<(), Invalid> {
    let present = bytes.first().copied().unwrap_or(0);
    if bytes.len() < size(present).next_multiple_of(8) {
        return Err(size_bad(bytes.len(), present));
    }
    Ok(())
}

fn size_bad(len: usize, present: u8) -> Invalid {
    Invalid::new(
        ErrorId::ALLOC_V1_VAL_SIZE_BAD,
        "alloc value shorter than its fields",
        0,
        len as u64,
        size(present) as u64,
    )
}
