// SPDX-License-Identifier: GPL-2.0
//! The second generation of the inode value; only read.

use zerocopy::byteorder::little_endian::{U16, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::Invalid;
use crate::keys::inode::fields::{self, Encoding, List};
use crate::keys::inode::{Inode, InodeFlags, Mode};
use crate::keys::layout::{assert_layout, bits, read_fixed};
use crate::keys::str_hash::StrHashType;

/// Shortest value of the type.
const SIZE_MIN: usize = 32;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskInodeV2 {
    journal_seq: U64,
    hash_seed: U64,
    flags: U64,
    mode: U16,
}

assert_layout!(DiskInodeV2, 26, { journal_seq: 0, hash_seed: 8, flags: 16, mode: 24 });

pub(super) fn parse(bytes: &[u8]) -> Result<Inode, Invalid> {
    let raw: DiskInodeV2 = read_fixed(bytes, SIZE_MIN)?;
    let flags = raw.flags.get();
    let mut inode = Inode {
        journal_seq: raw.journal_seq.get(),
        hash_seed: raw.hash_seed.get(),
        flags: InodeFlags(flags as u32 & InodeFlags::MASK),
        str_hash: StrHashType(bits(flags, 20, 24) as u8),
        mode: Mode(raw.mode.get()),
        ..Inode::default()
    };
    let nr = bits(flags, 24, 31) as u32;
    fields::decode(
        &mut inode,
        bytes,
        size_of::<DiskInodeV2>(),
        nr,
        List::V2,
        Encoding::Varint,
    )?;
    Ok(inode)
}
