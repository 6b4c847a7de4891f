// SPDX-License-Identifier: GPL-2.0
//! Shared data: pointers in the extents btree to indirect keys in the reflink btree.
//!
//! A `reflink_p` maps its sectors to `[idx, idx + size)` of the reflink btree and holds one
//! reference on every indirect key that touches `[idx - front_pad, idx + size + back_pad)`.

use core::fmt;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::IntoBytes as _;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bkey::KeyRef;
use crate::error::{ErrorId, Invalid};
use crate::keys::ctx::ValidateCtx;
use crate::keys::extent::validate::{validate_entries, PtrsIn};
use crate::keys::extent::{DecodedPtrs, Entries};
use crate::keys::inline_data::InlineData;
use crate::keys::layout::{
    assert_layout, build_struct, read_fixed, too_small, BuildError, ValueWriter,
};

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskReflinkP {
    idx: U64,
    front_pad: U32,
    back_pad: U32,
}

assert_layout!(DiskReflinkP, 16, { idx: 0, front_pad: 8, back_pad: 12 });

/// A reference to a range of the reflink btree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReflinkP {
    /// Where in the reflink btree the range begins, in sectors.
    pub idx: u64,
    /// Sectors before the range that are also referenced.
    pub front_pad: u32,
    /// Sectors after the range that are also referenced.
    pub back_pad: u32,
}

impl ReflinkP {
    /// Reads the value of a key of type `reflink_p`.
    pub fn parse(key: KeyRef<'_>) -> Result<Self, Invalid> {
        let raw: DiskReflinkP = read_fixed(key.value_bytes(), size_of::<DiskReflinkP>())?;
        Ok(Self {
            idx: raw.idx.get(),
            front_pad: raw.front_pad.get(),
            back_pad: raw.back_pad.get(),
        })
    }

    /// Writes the value; returns the words used.
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        build_struct(
            &DiskReflinkP {
                idx: U64::new(self.idx),
                front_pad: U32::new(self.front_pad),
                back_pad: U32::new(self.back_pad),
            },
            out,
        )
    }

    /// Checks the value of a key of type `reflink_p`.
    pub(crate) fn validate(key: KeyRef<'_>) -> Result<(), Invalid> {
        let p = Self::parse(key)?;
        if p.idx < u64::from(p.front_pad) {
            return Err(Invalid::new(
                ErrorId::REFLINK_P_FRONT_PAD_BAD,
                "front pad reaches below offset 0 of the reflink btree",
                8,
                u64::from(p.front_pad),
                p.idx,
            ));
        }
        Ok(())
    }
}

impl fmt::Display for ReflinkP {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "idx {} front_pad {} back_pad {}",
            self.idx, self.front_pad, self.back_pad
        )
    }
}

/// An indirect extent: a reference count and entries.
#[derive(Clone, Copy, Debug)]
pub struct ReflinkV<'a> {
    /// Number of references from `reflink_p` keys.
    pub refcount: u64,
    entries: Entries<'a>,
}

impl<'a> ReflinkV<'a> {
    /// Reads the value of a key of type `reflink_v`.
    pub fn parse(key: KeyRef<'a>) -> Result<Self, Invalid> {
        let (refcount, entries) = key.value.split_first().ok_or_else(|| too_small(0, 8))?;
        Ok(Self {
            refcount: u64::from_le(*refcount),
            entries: Entries::new(entries, key.key.size),
        })
    }

    /// The entries as stored.
    pub const fn entries(&self) -> Entries<'a> {
        self.entries
    }

    /// The pointers, each with what applies to it.
    pub const fn ptrs(&self) -> DecodedPtrs<'a> {
        self.entries.decoded()
    }

    /// Checks the value of a key of type `reflink_v`.
    pub(crate) fn validate(key: KeyRef<'_>, ctx: &ValidateCtx<'_>) -> Result<(), Invalid> {
        let v = ReflinkV::parse(key)?;
        validate_entries(&key.key, v.entries, 8, PtrsIn::ReflinkV, ctx)
    }
}

impl fmt::Display for ReflinkV<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refcount {} {}", self.refcount, self.entries)
    }
}

/// Indirect inline data: a reference count and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndirectInlineData<'a> {
    /// Number of references from `reflink_p` keys.
    pub refcount: u64,
    /// The data.
    pub data: InlineData<'a>,
}

impl<'a> IndirectInlineData<'a> {
    /// Reads the value of a key of type `indirect_inline_data`.
    pub fn parse(key: KeyRef<'a>) -> Result<Self, Invalid> {
        let (refcount, data) = key.value.split_first().ok_or_else(|| too_small(0, 8))?;
        Ok(Self {
            refcount: u64::from_le(*refcount),
            data: InlineData {
                bytes: data.as_bytes(),
            },
        })
    }

    /// Writes the value; returns the words used. The data is padded with zeros to whole words.
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        let mut w = ValueWriter::new(out);
        w.word(self.refcount)?;
        w.bytes(self.data.bytes)?;
        w.finish()
    }
}

impl fmt::Display for IndirectInlineData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refcount {} {}", self.refcount, self.data)
    }
}
