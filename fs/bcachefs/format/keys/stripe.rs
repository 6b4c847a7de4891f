// SPDX-License-Identifier: GPL-2.0
//! Stripes of erasure-coded blocks. The key is `0 : index : 0`.
//!
//! After the fixed part come three arrays without padding between them: a pointer per block, the
//! last ones parity; checksums, all of the first block, then of the second, and so on; and the
//! number of live sectors of each block.

use core::fmt;

use zerocopy::byteorder::little_endian::{U16, U64};
use zerocopy::{FromBytes as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bkey::KeyRef;
use crate::checksum::CsumType;
use crate::error::{ErrorId, Invalid};
use crate::keys::ctx::ValidateCtx;
use crate::keys::extent::validate::{validate_entries, PtrsIn};
use crate::keys::extent::{Entries, Ptr};
use crate::keys::layout::{assert_layout, too_small, view, BuildError, ValueWriter};

/// Most blocks of a stripe, data and parity.
pub const STRIPE_BLOCKS_MAX: usize = 16;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskStripe {
    sectors: U16,
    algorithm: u8,
    nr_blocks: u8,
    nr_redundant: u8,
    csum_granularity_bits: u8,
    csum_type: u8,
    disk_label: u8,
}

assert_layout!(DiskStripe, 8, {
    sectors: 0, algorithm: 2, nr_blocks: 3, nr_redundant: 4, csum_granularity_bits: 5,
    csum_type: 6, disk_label: 7,
});

/// A view of a stripe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stripe<'a> {
    /// Sectors per block.
    pub sectors: u16,
    /// How parity is computed; 0 is the only way.
    pub algorithm: u8,
    /// How many of the blocks are parity; the last ones.
    pub nr_redundant: u8,
    /// Power of two of the number of sectors that a checksum covers; below 64.
    pub csum_granularity_bits: u8,
    /// Type of the checksums.
    pub csum_type: CsumType,
    /// Disk group the stripe was made in, plus one; 0 for none.
    pub disk_label: u8,
    ptrs: &'a [U64],
    csums: &'a [u8],
    block_sectors: &'a [U16],
}

/// Checksums of one block.
fn csums_per_block(sectors: u16, granularity_bits: u8) -> usize {
    // A piece of 2^16 sectors or more holds any block.
    match 1usize.checked_shl(u32::from(granularity_bits)) {
        Some(piece) => usize::from(sectors).div_ceil(piece),
        None => usize::from(sectors != 0),
    }
}

impl<'a> Stripe<'a> {
    /// A stripe to be written. The slices have one element per block, but for `csums`, which has
    /// all the bytes of all checksums. `None` if their lengths do not go together.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        sectors: u16,
        nr_redundant: u8,
        csum_granularity_bits: u8,
        csum_type: CsumType,
        disk_label: u8,
        ptrs: &'a [U64],
        csums: &'a [u8],
        block_sectors: &'a [U16],
    ) -> Option<Self> {
        let per_block = csums_per_block(sectors, csum_granularity_bits)
            .checked_mul(usize::from(csum_type.bytes()?))?;
        let fits = ptrs.len() == block_sectors.len()
            && ptrs.len().checked_mul(per_block) == Some(csums.len())
            && u8::try_from(ptrs.len()).is_ok()
            && csum_granularity_bits < 64;
        fits.then_some(Self {
            sectors,
            algorithm: 0,
            nr_redundant,
            csum_granularity_bits,
            csum_type,
            disk_label,
            ptrs,
            csums,
            block_sectors,
        })
    }

    /// Reads the value of a key of type `stripe`.
    pub fn parse(key: KeyRef<'a>) -> Result<Self, Invalid> {
        let bytes = key.value_bytes();
        let (raw, rest) = view::<DiskStripe>(bytes).ok_or_else(|| too_small(bytes.len(), 8))?;
        let size_bad = || {
            Invalid::new(
                ErrorId::STRIPE_VAL_SIZE_BAD,
                "stripe value shorter than its blocks",
                3,
                bytes.len() as u64,
                raw.nr_blocks.into(),
            )
        };
        if raw.csum_granularity_bits >= 64 {
            return Err(Invalid::new(
                ErrorId::STRIPE_CSUM_GRANULARITY_BAD,
                "checksum granularity of a stripe out of range",
                5,
                raw.csum_granularity_bits.into(),
                63,
            ));
        }
        let csum_type = CsumType(raw.csum_type);
        let Some(csum_bytes) = csum_type.bytes() else {
            return Err(Invalid::new(
                ErrorId::STRIPE_VAL_SIZE_BAD,
                "unknown checksum type of a stripe",
                6,
                raw.csum_type.into(),
                7,
            ));
        };
        let nr = usize::from(raw.nr_blocks);
        // At most 255 * 65535 * 16.
        let csums = nr
            * csums_per_block(raw.sectors.get(), raw.csum_granularity_bits)
            * usize::from(csum_bytes);
        let (ptrs, rest) = <[U64]>::ref_from_prefix_with_elems(rest, nr).map_err(|_| size_bad())?;
        let (csums, rest) = rest.split_at_checked(csums).ok_or_else(size_bad)?;
        let (block_sectors, _) =
            <[U16]>::ref_from_prefix_with_elems(rest, nr).map_err(|_| size_bad())?;
        Ok(Self {
            sectors: raw.sectors.get(),
            algorithm: raw.algorithm,
            nr_redundant: raw.nr_redundant,
            csum_granularity_bits: raw.csum_granularity_bits,
            csum_type,
            disk_label: raw.disk_label,
            ptrs,
            csums,
            block_sectors,
        })
    }

    /// Number of blocks, data and parity.
    pub const fn nr_blocks(&self) -> usize {
        self.ptrs.len()
    }

    /// Number of blocks of data.
    pub const fn nr_data(&self) -> usize {
        self.ptrs.len().saturating_sub(self.nr_redundant as usize)
    }

    /// Where the blocks are; data first.
    pub fn ptrs(&self) -> impl Iterator<Item = Ptr> + 'a {
        self.ptrs.iter().map(|p| Ptr::from_word(p.get()))
    }

    /// Live sectors of each block.
    pub fn block_sectors(&self) -> impl Iterator<Item = u16> + 'a {
        self.block_sectors.iter().map(|n| n.get())
    }

    /// The bytes of the checksum of piece `piece` of block `block`, as stored.
    pub fn csum(&self, block: usize, piece: usize) -> Option<&'a [u8]> {
        let len = usize::from(self.csum_type.bytes()?);
        let per_block = csums_per_block(self.sectors, self.csum_granularity_bits);
        if block >= self.nr_blocks() || piece >= per_block {
            return None;
        }
        let at = block.checked_mul(per_block)?.checked_add(piece)?;
        let at = at.checked_mul(len)?;
        self.csums.get(at..)?.get(..len)
    }

    /// Writes the value; returns the words used.
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        let nr_blocks = u8::try_from(self.nr_blocks())
            .map_err(|_| BuildError::Unrepresentable("number of blocks"))?;
        let mut w = ValueWriter::new(out);
        w.put(&DiskStripe {
            sectors: U16::new(self.sectors),
            algorithm: self.algorithm,
            nr_blocks,
            nr_redundant: self.nr_redundant,
            csum_granularity_bits: self.csum_granularity_bits,
            csum_type: self.csum_type.0,
            disk_label: self.disk_label,
        })?;
        w.bytes(self.ptrs.as_bytes())?;
        w.bytes(self.csums)?;
        w.bytes(self.block_sectors.as_bytes())?;
        w.finish()
    }

    /// Checks a key of type `stripe`.
    pub(crate) fn validate(key: KeyRef<'_>, ctx: &ValidateCtx<'_>) -> Result<(), Invalid> {
        let pos = key.key.pos;
        if pos.inode != 0 || !(1..=u64::from(u32::MAX)).contains(&pos.offset) {
            return Err(Invalid::new(
                ErrorId::STRIPE_POS_BAD,
                "index of a stripe out of range",
                0,
                pos.offset,
                u32::MAX.into(),
            ));
        }
        let s = Stripe::parse(key)?;
        if s.nr_redundant as usize > s.nr_blocks() {
            return Err(Invalid::new(
                ErrorId::STRIPE_VAL_SIZE_BAD,
                "more parity than blocks in a stripe",
                4,
                s.nr_redundant.into(),
                s.nr_blocks() as u64,
            ));
        }
        // The pointers are bounded by the words they occupy, right after the fixed part.
        let ptrs = key.value.get(1..=s.nr_blocks()).unwrap_or(&[]);
        let entries = Entries::new(ptrs, s.sectors.into());
        let block = crate::bkey::Bkey {
            size: s.sectors.into(),
            ..key.key
        };
        validate_entries(&block, entries, 8, PtrsIn::Stripe, ctx)
    }
}

impl fmt::Display for Stripe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "algo {} sectors {} blocks {}:{} csum {} gran {} label {}",
            self.algorithm,
            self.sectors,
            self.nr_data(),
            self.nr_redundant,
            self.csum_type,
            self.csum_granularity_bits,
            self.disk_label
        )?;
        for (ptr, live) in self.ptrs().zip(self.block_sectors()) {
            write!(f, ", {ptr} live {live}")?;
        }
        Ok(())
    }
}
