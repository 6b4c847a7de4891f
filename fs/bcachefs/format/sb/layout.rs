// SPDX-License-Identifier: GPL-2.0
//! The layout: where on a device the copies of its superblock are.

use core::fmt;

use zerocopy::byteorder::little_endian::U64;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::Invalid;
use crate::magic::{is_sb_magic, Uuid, SB_MAGIC};

/// Largest `sb_max_size_bits`: 32 MiB.
pub const SB_MAX_SIZE_BITS_MAX: u8 = 16;
/// Most copies a layout can list.
pub const SB_COPIES_MAX: usize = 61;

/// The layout as stored, in sector 7 and in every superblock (512 bytes).
#[derive(
    Copy, Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct DiskLayout {
    /// As in the superblock.
    pub magic: Uuid,
    /// 0.
    pub layout_type: u8,
    /// Binary logarithm of the sectors each copy may take.
    pub sb_max_size_bits: u8,
    /// Number of copies.
    pub nr_superblocks: u8,
    /// Zero.
    pub pad: [u8; 5],
    /// First sector of each copy.
    pub sb_offset: [U64; SB_COPIES_MAX],
}

const _: () = {
    assert!(core::mem::size_of::<DiskLayout>() == 512);
    assert!(core::mem::offset_of!(DiskLayout, sb_offset) == 24);
};

impl DiskLayout {
    /// A layout with copies at the sectors `offsets`, at most [`SB_COPIES_MAX`] of them.
    pub fn new(sb_max_size_bits: u8, offsets: &[u64]) -> Self {
        let mut sb_offset = [U64::ZERO; SB_COPIES_MAX];
        for (to, from) in sb_offset.iter_mut().zip(offsets) {
            *to = U64::new(*from);
        }
        DiskLayout {
            magic: SB_MAGIC,
            layout_type: 0,
            sb_max_size_bits,
            nr_superblocks: offsets.len().min(SB_COPIES_MAX) as u8,
            pad: [0; 5],
            sb_offset,
        }
    }

    /// Sectors reserved for each copy.
    pub fn copy_sectors(&self) -> u64 {
        1 << self.sb_max_size_bits.min(SB_MAX_SIZE_BITS_MAX)
    }

    /// First sectors of the copies.
    pub fn copies(&self) -> impl Iterator<Item = u64> + '_ {
        self.sb_offset
            .iter()
            .take(self.nr_superblocks.into())
            .map(|o| o.get())
    }

    /// Checks the layout. Errors count bytes from its start.
    pub fn validate(&self) -> Result<(), Invalid> {
        if !is_sb_magic(&self.magic) {
            return Err(Invalid::plain(
                "layout: magic is wrong",
                0,
                self.magic.low_word(),
                SB_MAGIC.low_word(),
            ));
        }
        if self.layout_type != 0 {
            let got = self.layout_type.into();
            return Err(Invalid::plain("layout: unknown type", 16, got, 0));
        }
        if self.sb_max_size_bits > SB_MAX_SIZE_BITS_MAX {
            return Err(Invalid::plain(
                "layout: superblock size limit too large",
                17,
                self.sb_max_size_bits.into(),
                SB_MAX_SIZE_BITS_MAX.into(),
            ));
        }
        if self.nr_superblocks == 0 || usize::from(self.nr_superblocks) > SB_COPIES_MAX {
            return Err(Invalid::plain(
                "layout: bad number of superblocks",
                18,
                self.nr_superblocks.into(),
                SB_COPIES_MAX as u64,
            ));
        }
        let mut free: Option<u64> = None;
        for (i, sector) in self.copies().enumerate() {
            if free.is_some_and(|free| sector < free) {
                return Err(Invalid::plain(
                    "layout: superblocks overlap or are out of order",
                    24 + 8 * i,
                    sector,
                    free.unwrap_or(0),
                ));
            }
            free = Some(sector.saturating_add(self.copy_sectors()));
        }
        Ok(())
    }
}

impl fmt::Display for DiskLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sectors each at", self.copy_sectors())?;
        for sector in self.copies() {
            write!(f, " {sector}")?;
        }
        Ok(())
    }
}
