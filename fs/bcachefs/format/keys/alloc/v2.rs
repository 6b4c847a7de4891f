// SPDX-License-Identifier: GPL-2.0
//! The second and third generation of the alloc value; only read. They differ in what comes first.

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{ErrorId, Invalid};
use crate::keys::alloc::Alloc;
use crate::keys::data_type::DataType;
use crate::keys::layout::{assert_layout, too_small, view};
use crate::keys::varint;

/// What both have before the varints.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskAllocV2 {
    nr_fields: u8,
    generation: u8,
    oldest_gen: u8,
    data_type: u8,
}

assert_layout!(DiskAllocV2, 4, { nr_fields: 0, generation: 1, oldest_gen: 2, data_type: 3 });

/// What only the third has before that.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskAllocV3 {
    journal_seq: U64,
    flags: U32,
    rest: DiskAllocV2,
}

assert_layout!(DiskAllocV3, 16, { journal_seq: 0, flags: 8, rest: 12 });

const NEED_DISCARD: u32 = 1 << 0;
const NEED_INC_GEN: u32 = 1 << 1;

pub(super) fn parse_v2(bytes: &[u8]) -> Result<Alloc, Invalid> {
    let (head, fields) = view::<DiskAllocV2>(bytes).ok_or_else(|| too_small(bytes.len(), 8))?;
    let mut a = Alloc::default();
    decode(&mut a, head, fields, ErrorId::ALLOC_V2_UNPACK_ERROR)?;
    Ok(a)
}

pub(super) fn parse_v3(bytes: &[u8]) -> Result<Alloc, Invalid> {
    let (head, fields) = view::<DiskAllocV3>(bytes).ok_or_else(|| too_small(bytes.len(), 16))?;
    let flags = head.flags.get();
    let mut a = Alloc {
        journal_seq: head.journal_seq.get(),
        need_discard: flags & NEED_DISCARD != 0,
        need_inc_gen: flags & NEED_INC_GEN != 0,
        ..Alloc::default()
    };
    decode(&mut a, &head.rest, fields, ErrorId::ALLOC_V3_UNPACK_ERROR)?;
    Ok(a)
}

fn decode(a: &mut Alloc, head: &DiskAllocV2, fields: &[u8], id: ErrorId) -> Result<(), Invalid> {
    a.generation = head.generation;
    a.oldest_gen = head.oldest_gen;
    a.data_type = DataType(head.data_type);
    let mut rest = fields;
    let mut left = head.nr_fields;
    let mut next = |max: u64| {
        let Some(l) = left.checked_sub(1) else {
            return Ok(0);
        };
        left = l;
        let at = fields.len() - rest.len();
        let (v, len) = varint::decode(rest)
            .ok_or_else(|| Invalid::new(id, "field of an alloc value cut off", at, 0, 1))?;
        rest = rest.get(len..).unwrap_or(&[]);
        if v > max {
            return Err(Invalid::new(
                id,
                "field of an alloc value out of range",
                at,
                v,
                max,
            ));
        }
        Ok(v)
    };
    let u32_max = u64::from(u32::MAX);
    a.io_time = [next(u64::MAX)?, next(u64::MAX)?];
    a.dirty_sectors = next(u32_max)? as u32;
    a.cached_sectors = next(u32_max)? as u32;
    a.stripe = next(u32_max)? as u32;
    a.stripe_redundancy = next(u8::MAX.into())? as u8;
    Ok(())
}
