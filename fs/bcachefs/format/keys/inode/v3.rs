// SPDX-License-Identifier: GPL-2.0
//! The current generation of the inode value.
//!
//! The flags word: bits 0..20 flags; 20..24 hash of names; 24..31 number of fields; 31..36 where
//! the fields begin, in words; 36..52 mode.

use zerocopy::byteorder::little_endian::U64;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{ErrorId, Invalid};
use crate::keys::inode::fields::{self, Encoding, List};
use crate::keys::inode::{Inode, InodeFlags, Mode};
use crate::keys::layout::{assert_layout, bits, read_fixed, with_bits, BuildError, ValueWriter};
use crate::keys::str_hash::StrHashType;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskInodeV3 {
    journal_seq: U64,
    hash_seed: U64,
    flags: U64,
    sectors: U64,
    size: U64,
    version: U64,
}

assert_layout!(DiskInodeV3, 48, {
    journal_seq: 0, hash_seed: 8, flags: 16, sectors: 24, size: 32, version: 40,
});

/// Where the fields begin in what is written, in words.
const FIELDS_START: u64 = 6;

pub(super) fn parse(bytes: &[u8]) -> Result<Inode, Invalid> {
    let raw: DiskInodeV3 = read_fixed(bytes, size_of::<DiskInodeV3>())?;
    let flags = raw.flags.get();
    let start = bits(flags, 31, 36);
    let words = (bytes.len() / 8) as u64;
    if !(FIELDS_START..=words).contains(&start) {
        return Err(Invalid::new(
            ErrorId::INODE_V3_FIELDS_START_BAD,
            "begin of the inode's fields outside the value",
            16,
            start,
            words,
        ));
    }
    let mut inode = Inode {
        journal_seq: raw.journal_seq.get(),
        hash_seed: raw.hash_seed.get(),
        flags: InodeFlags(flags as u32 & InodeFlags::MASK),
        str_hash: StrHashType(bits(flags, 20, 24) as u8),
        mode: Mode(bits(flags, 36, 52) as u16),
        size: raw.size.get(),
        sectors: raw.sectors.get(),
        version: raw.version.get(),
        ..Inode::default()
    };
    let nr = bits(flags, 24, 31) as u32;
    fields::decode(
        &mut inode,
        bytes,
        8 * start as usize,
        nr,
        List::V3,
        Encoding::Varint,
    )?;
    Ok(inode)
}

pub(super) fn build(inode: &Inode, out: &mut [u64]) -> Result<usize, BuildError> {
    if inode.flags.0 & !InodeFlags::MASK != 0 {
        return Err(BuildError::Unrepresentable("inode flags"));
    }
    if inode.str_hash.0 > 15 {
        return Err(BuildError::Unrepresentable("hash of names"));
    }
    let nr = fields::count(inode);
    let mut flags = u64::from(inode.flags.0);
    flags = with_bits(flags, 20, 24, inode.str_hash.0.into());
    flags = with_bits(flags, 24, 31, nr.into());
    flags = with_bits(flags, 31, 36, FIELDS_START);
    flags = with_bits(flags, 36, 52, inode.mode.0.into());
    let mut w = ValueWriter::new(out);
    w.put(&DiskInodeV3 {
        journal_seq: U64::new(inode.journal_seq),
        hash_seed: U64::new(inode.hash_seed),
        flags: U64::new(flags),
        sectors: U64::new(inode.sectors),
        size: U64::new(inode.size),
        version: U64::new(inode.version),
    })?;
    fields::encode(inode, nr, &mut w)?;
    w.finish()
}
