// SPDX-License-Identifier: GPL-2.0
//! The first generation of the inode value; only read.
//!
//! Bit 31 of its flags says which of two encodings its fields have.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::Invalid;
use crate::keys::inode::fields::{self, Encoding, List};
use crate::keys::inode::{Inode, InodeFlags, Mode};
use crate::keys::layout::{assert_layout, bits, read_fixed};
use crate::keys::str_hash::StrHashType;

/// Shortest value of the type.
const SIZE_MIN: usize = 16;
/// Bit of the flags: the fields are varints.
const NEW_VARINT: u32 = 1 << 31;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskInode {
    hash_seed: U64,
    flags: U32,
    mode: U16,
}

assert_layout!(DiskInode, 14, { hash_seed: 0, flags: 8, mode: 12 });

pub(super) fn parse(bytes: &[u8]) -> Result<Inode, Invalid> {
    let raw: DiskInode = read_fixed(bytes, SIZE_MIN)?;
    let flags = raw.flags.get();
    let mut inode = Inode {
        hash_seed: raw.hash_seed.get(),
        flags: InodeFlags(flags & InodeFlags::MASK),
        str_hash: StrHashType(bits(flags.into(), 20, 24) as u8),
        mode: Mode(raw.mode.get()),
        ..Inode::default()
    };
    let encoding = if flags & NEW_VARINT != 0 {
        Encoding::Varint
    } else {
        Encoding::Prefixed
    };
    let nr = bits(flags.into(), 24, 31) as u32;
    fields::decode(
        &mut inode,
        bytes,
        size_of::<DiskInode>(),
        nr,
        List::V2,
        encoding,
    )?;
    Ok(inode)
}
