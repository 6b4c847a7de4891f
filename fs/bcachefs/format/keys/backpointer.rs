// SPDX-License-Identifier: GPL-2.0
//! Backpointers: from a place on a device to the key that uses it.
//!
//! The key is `device : place : 0`, where place is the sector shifted up by 10 with the begin of
//! the live data in the uncompressed extent below, so that several keys can share one extent.

use core::fmt;

use zerocopy::byteorder::little_endian::U32;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bkey::KeyRef;
use crate::btree_id::BtreeId;
use crate::error::{ErrorId, Invalid};
use crate::keys::ctx::ValidateCtx;
use crate::keys::data_type::DataType;
use crate::keys::layout::{assert_layout, build_struct, read_fixed, BuildError};
use crate::pos::{Bpos, DiskBpos};

/// How far the sector is shifted up in a position.
pub const BACKPOINTER_SHIFT: u32 = 10;
/// Highest level of a backpointer: one above that of the highest root.
const LEVEL_MAX: u8 = 4;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskBackpointer {
    btree_id: u8,
    level: u8,
    data_type: u8,
    bucket_offset: [u8; 5],
    bucket_len: U32,
    pos: DiskBpos,
}

assert_layout!(DiskBackpointer, 32, {
    btree_id: 0, level: 1, data_type: 2, bucket_offset: 3, bucket_len: 8, pos: 12,
});

/// A backpointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backpointer {
    /// The btree of the key that uses the place.
    pub btree: BtreeId,
    /// 0 for leaf keys; else the level of the node that the pointer is stored in, one above the
    /// root's for pointers to roots.
    pub level: u8,
    /// What is stored there.
    pub data_type: DataType,
    /// The place counted from the begin of the bucket; 40 bits.
    pub bucket_offset: u64,
    /// Sectors on disk.
    pub bucket_len: u32,
    /// Position of the key that uses the place.
    pub pos: Bpos,
}

impl Backpointer {
    /// The position of the backpointer for `sector` of `dev`, live data `offset` sectors into the
    /// uncompressed extent.
    pub const fn key_pos(dev: u8, sector: u64, offset: u32) -> Bpos {
        Bpos::new(
            dev as u64,
            (sector << BACKPOINTER_SHIFT).wrapping_add(offset as u64),
        )
    }

    /// Reads the value of a key of type `backpointer`.
    pub fn parse(key: KeyRef<'_>) -> Result<Self, Invalid> {
        let raw: DiskBackpointer = read_fixed(key.value_bytes(), size_of::<DiskBackpointer>())?;
        let [a, b, c, d, e] = raw.bucket_offset;
        Ok(Self {
            btree: BtreeId(raw.btree_id),
            level: raw.level,
            data_type: DataType(raw.data_type),
            bucket_offset: u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]),
            bucket_len: raw.bucket_len.get(),
            pos: raw.pos.get(),
        })
    }

    /// Writes the value; returns the words used.
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        let [a, b, c, d, e, 0, 0, 0] = self.bucket_offset.to_le_bytes() else {
            return Err(BuildError::Unrepresentable("offset in the bucket"));
        };
        build_struct(
            &DiskBackpointer {
                btree_id: self.btree.0,
                level: self.level,
                data_type: self.data_type.0,
                bucket_offset: [a, b, c, d, e],
                bucket_len: U32::new(self.bucket_len),
                pos: self.pos.into(),
            },
            out,
        )
    }

    /// Checks a key of type `backpointer`.
    pub(crate) fn validate(key: KeyRef<'_>, ctx: &ValidateCtx<'_>) -> Result<(), Invalid> {
        let bp = Self::parse(key)?;
        if bp.level > LEVEL_MAX {
            return Err(Invalid::new(
                ErrorId::BACKPOINTER_LEVEL_BAD,
                "level of a backpointer too high",
                1,
                bp.level.into(),
                LEVEL_MAX.into(),
            ));
        }
        let geometry = u8::try_from(key.key.pos.inode)
            .ok()
            .and_then(|dev| ctx.geometry(dev));
        let Some(bucket_size) = geometry.map(|g| u64::from(g.bucket_size)) else {
            return Ok(());
        };
        let sector = key.key.pos.offset >> BACKPOINTER_SHIFT;
        let Some(in_bucket) = sector.checked_rem(bucket_size) else {
            return Ok(());
        };
        let start = (sector - in_bucket) << BACKPOINTER_SHIFT;
        if bp.bucket_offset >> BACKPOINTER_SHIFT >= bucket_size
            || key.key.pos.offset != start.wrapping_add(bp.bucket_offset)
        {
            return Err(Invalid::new(
                ErrorId::BACKPOINTER_BUCKET_OFFSET_WRONG,
                "offset in the bucket disagrees with the backpointer's position",
                3,
                bp.bucket_offset,
                key.key.pos.offset.wrapping_sub(start),
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Backpointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "bucket_offset {} len {} data_type {} btree {} level {} pos {}",
            self.bucket_offset, self.bucket_len, self.data_type, self.btree, self.level, self.pos
        )
    }
}
