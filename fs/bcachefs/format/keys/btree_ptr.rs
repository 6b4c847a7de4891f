// SPDX-License-Identifier: GPL-2.0
//! Pointers to btree nodes: the keys of interior nodes, and roots.
//!
//! The key's position is the node's highest key. The value is a header and plain pointers; the old
//! form has pointers only.

use core::fmt;

use zerocopy::byteorder::little_endian::{U16, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bkey::{Bkey, KeyRef, KeyType};
use crate::error::{ErrorId, Invalid};
use crate::keys::ctx::ValidateCtx;
use crate::keys::extent::validate::{validate_entries, PtrsIn};
use crate::keys::extent::{Entries, Ptr};
use crate::keys::layout::{assert_layout, read_padded, too_small, BuildError, ValueWriter};
use crate::pos::{Bpos, DiskBpos};

/// Most pointers to one node.
pub const BTREE_PTRS_MAX: usize = 4;
/// Words of the header before the pointers in `btree_ptr_v2`.
const HEADER_WORDS: usize = 5;

/// The fixed part of a `btree_ptr_v2` value.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskBtreePtrV2 {
    mem_ptr: U64,
    seq: U64,
    sectors_written: U16,
    flags: U16,
    min_key: DiskBpos,
}

assert_layout!(DiskBtreePtrV2, 40, {
    mem_ptr: 0, seq: 8, sectors_written: 16, flags: 18, min_key: 20,
});

/// Flag: the node's range was changed without writing the node; this key has the right one.
const RANGE_UPDATED: u16 = 1;

/// A pointer to a node, of either form.
#[derive(Clone, Copy, Debug)]
pub struct BtreePtr<'a> {
    /// Random number that the node's first set of keys repeats; `None` in the old form.
    pub seq: Option<u64>,
    /// Sectors of the node that have been written; 0 if unknown.
    pub sectors_written: u16,
    /// The range in the node's header may be wider than what this key says.
    pub range_updated: bool,
    /// Lowest key of the node; `None` in the old form, where the node's header has it.
    pub min_key: Option<Bpos>,
    /// Highest key of the node.
    pub max_key: Bpos,
    entries: Entries<'a>,
}

impl<'a> BtreePtr<'a> {
    /// Reads the value of a key of type `btree_ptr` or `btree_ptr_v2`.
    pub fn parse(key: KeyRef<'a>) -> Result<Self, Invalid> {
        if key.key.key_type == KeyType::BTREE_PTR {
            return Ok(Self {
                seq: None,
                sectors_written: 0,
                range_updated: false,
                min_key: None,
                max_key: key.key.pos,
                entries: Entries::new(key.value, 0),
            });
        }
        let bytes = key.value_bytes();
        let ptrs = key
            .value
            .get(HEADER_WORDS..)
            .ok_or_else(|| too_small(bytes.len(), 8 * HEADER_WORDS))?;
        let raw: DiskBtreePtrV2 = read_padded(bytes);
        Ok(Self {
            seq: Some(raw.seq.get()),
            sectors_written: raw.sectors_written.get(),
            range_updated: raw.flags.get() & RANGE_UPDATED != 0,
            min_key: Some(raw.min_key.get()),
            max_key: key.key.pos,
            entries: Entries::new(ptrs, 0),
        })
    }

    /// The copies of the node.
    pub fn ptrs(&self) -> impl Iterator<Item = Ptr> + 'a {
        self.entries.ptrs()
    }

    /// Writes a `btree_ptr_v2` value with these pointers; returns the words used.
    pub fn build(&self, ptrs: &[Ptr], out: &mut [u64]) -> Result<usize, BuildError> {
        let (Some(seq), Some(min_key)) = (self.seq, self.min_key) else {
            return Err(BuildError::Unrepresentable("old form of btree pointer"));
        };
        if ptrs.is_empty() || ptrs.len() > BTREE_PTRS_MAX {
            return Err(BuildError::Unrepresentable("number of btree pointers"));
        }
        let mut w = ValueWriter::new(out);
        w.put(&DiskBtreePtrV2 {
            mem_ptr: U64::new(0),
            seq: U64::new(seq),
            sectors_written: U16::new(self.sectors_written),
            flags: U16::new(if self.range_updated { RANGE_UPDATED } else { 0 }),
            min_key: min_key.into(),
        })?;
        for ptr in ptrs {
            w.word(ptr.word())?;
        }
        w.finish()
    }

    /// A description to build a new key from; its pointers are given to [`Self::build`].
    pub const fn new(seq: u64, sectors_written: u16, min_key: Bpos, max_key: Bpos) -> Self {
        Self {
            seq: Some(seq),
            sectors_written,
            range_updated: false,
            min_key: Some(min_key),
            max_key,
            entries: Entries::new(&[], 0),
        }
    }
}

impl fmt::Display for BtreePtr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(seq), Some(min_key)) = (self.seq, self.min_key) {
            write!(
                f,
                "seq {:x} written {} min_key {}{} ",
                seq,
                self.sectors_written,
                min_key,
                if self.range_updated {
                    " range_updated"
                } else {
                    ""
                }
            )?;
        }
        self.entries.fmt(f)
    }
}

/// Checks the value of a key of type `btree_ptr` or `btree_ptr_v2`.
pub(crate) fn validate_value(key: KeyRef<'_>, ctx: &ValidateCtx<'_>) -> Result<(), Invalid> {
    let v2 = key.key.key_type == KeyType::BTREE_PTR_V2;
    let (header, id) = if v2 {
        (HEADER_WORDS, ErrorId::BTREE_PTR_V2_VAL_TOO_BIG)
    } else {
        (0, ErrorId::BTREE_PTR_VAL_TOO_BIG)
    };
    if key.value.len() > header + BTREE_PTRS_MAX {
        return Err(Invalid::new(
            id,
            "btree pointer value too big",
            0,
            key.value.len() as u64,
            (header + BTREE_PTRS_MAX) as u64,
        ));
    }
    let ptr = BtreePtr::parse(key)?;
    validate_min_key(&key.key, &ptr)?;
    if v2 && ctx.is_commit() && ptr.sectors_written == 0 {
        return Err(Invalid::new(
            ErrorId::BTREE_PTR_V2_WRITTEN_0,
            "pointer to a node that has not been written",
            16,
            0,
            1,
        ));
    }
    validate_entries(&key.key, ptr.entries, 8 * header, PtrsIn::BtreePtr, ctx)
}

fn validate_min_key(key: &Bkey, ptr: &BtreePtr<'_>) -> Result<(), Invalid> {
    match ptr.min_key {
        Some(min) if min >= key.pos => Err(Invalid::new(
            ErrorId::BTREE_PTR_V2_MIN_KEY_BAD,
            "lowest key of a node not below its highest",
            20,
            min.offset,
            key.pos.offset,
        )),
        _ => Ok(()),
    }
}
