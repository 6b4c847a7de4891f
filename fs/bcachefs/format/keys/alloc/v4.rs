// SPDX-License-Identifier: GPL-2.0
//! The current generation of the alloc value.
//!
//! Bits 2..8 of the flags say where a list of backpointers, no longer used, would begin, in words:
//! so they also give the length of the fixed part as its writer knew it. 0 stands for 6.

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{ErrorId, Invalid};
use crate::keys::alloc::Alloc;
use crate::keys::data_type::DataType;
use crate::keys::layout::{assert_layout, bits, build_struct, read_fixed, read_padded, BuildError};

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskAllocV4 {
    journal_seq: U64,
    flags: U32,
    generation: u8,
    oldest_gen: u8,
    data_type: u8,
    stripe_redundancy: u8,
    dirty_sectors: U32,
    cached_sectors: U32,
    io_time: [U64; 2],
    stripe: U32,
    nr_external_backpointers: U32,
    fragmentation_lru: U64,
    stripe_sectors: U32,
    pad: U32,
}

assert_layout!(DiskAllocV4, 64, {
    journal_seq: 0, flags: 8, generation: 12, oldest_gen: 13, data_type: 14, stripe_redundancy: 15,
    dirty_sectors: 16, cached_sectors: 20, io_time: 24, stripe: 40, nr_external_backpointers: 44,
    fragmentation_lru: 48, stripe_sectors: 56, pad: 60,
});

/// Shortest value of the type.
const SIZE_MIN: usize = 48;
/// The fixed part as written, in words.
const WORDS: u32 = (size_of::<DiskAllocV4>() / 8) as u32;
/// The fixed part that 0 stands for, in words.
const WORDS_V0: u64 = 6;
/// Words of one of the old backpointers.
const BACKPOINTER_WORDS: u64 = 4;

const NEED_DISCARD: u32 = 1 << 0;
const NEED_INC_GEN: u32 = 1 << 1;

/// Length of the fixed part in words, and the number of backpointers after it.
fn layout(flags: u32) -> (u64, u64) {
    let start = match bits(flags.into(), 2, 8) {
        0 => WORDS_V0,
        n => n,
    };
    (start, bits(flags.into(), 8, 14))
}

pub(super) fn parse(bytes: &[u8]) -> Result<Alloc, Invalid> {
    let head: DiskAllocV4 = read_fixed(bytes, SIZE_MIN)?;
    let (start, _) = layout(head.flags.get());
    // What lies behind the writer's fixed part is not ours to interpret.
    let fixed = bytes.get(..8 * start as usize).unwrap_or(bytes);
    let raw: DiskAllocV4 = read_padded(fixed);
    let flags = raw.flags.get();
    Ok(Alloc {
        journal_seq: raw.journal_seq.get(),
        need_discard: flags & NEED_DISCARD != 0,
        need_inc_gen: flags & NEED_INC_GEN != 0,
        generation: raw.generation,
        oldest_gen: raw.oldest_gen,
        data_type: DataType(raw.data_type),
        stripe_redundancy: raw.stripe_redundancy,
        dirty_sectors: raw.dirty_sectors.get(),
        cached_sectors: raw.cached_sectors.get(),
        stripe_sectors: raw.stripe_sectors.get(),
        io_time: raw.io_time.map(U64::get),
        stripe: raw.stripe.get(),
        nr_external_backpointers: raw.nr_external_backpointers.get(),
        fragmentation_lru: raw.fragmentation_lru.get(),
    })
}

/// Checks the lengths that the value states about itself.
pub(super) fn validate_layout(bytes: &[u8]) -> Result<(), Invalid> {
    let head: DiskAllocV4 = read_fixed(bytes, SIZE_MIN)?;
    let flags = head.flags.get();
    let (start, nr) = layout(flags);
    let words = (bytes.len() / 8) as u64;
    let need = start + BACKPOINTER_WORDS * nr;
    if words < need {
        return Err(Invalid::new(
            ErrorId::ALLOC_V4_VAL_SIZE_BAD,
            "alloc value shorter than it says",
            8,
            words,
            need,
        ));
    }
    if bits(flags.into(), 2, 8) == 0 && nr != 0 {
        return Err(Invalid::new(
            ErrorId::ALLOC_V4_BACKPOINTERS_START_BAD,
            "backpointers in an alloc value without their begin",
            8,
            nr,
            0,
        ));
    }
    Ok(())
}

pub(super) fn build(a: &Alloc, out: &mut [u64]) -> Result<usize, BuildError> {
    let mut flags = WORDS << 2;
    if a.need_discard {
        flags |= NEED_DISCARD;
    }
    if a.need_inc_gen {
        flags |= NEED_INC_GEN;
    }
    build_struct(
        &DiskAllocV4 {
            journal_seq: U64::new(a.journal_seq),
            flags: U32::new(flags),
            generation: a.generation,
            oldest_gen: a.oldest_gen,
            data_type: a.data_type.0,
            stripe_redundancy: a.stripe_redundancy,
            dirty_sectors: U32::new(a.dirty_sectors),
            cached_sectors: U32::new(a.cached_sectors),
            io_time: a.io_time.map(U64::new),
            stripe: U32::new(a.stripe),
            nr_external_backpointers: U32::new(a.nr_external_backpointers),
            fragmentation_lru: U64::new(a.fragmentation_lru),
            stripe_sectors: U32::new(a.stripe_sectors),
            pad: U32::new(0),
        },
        out,
    )
}
