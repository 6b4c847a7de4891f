// SPDX-License-Identifier: GPL-2.0
//! Packed keys: the format of a node, packing, unpacking, comparing.
//!
//! Seen as one little-endian integer of `key_u64s` words, a packed key header holds its fields from
//! the top down, position first, each with as many bits as the node's format gives it and counted
//! from the format's offset. The order of two packed positions is therefore the order of the top
//! bits of these integers, which is how they are compared, without unpacking.
//!
//! The functions here work on words and do not look at single bytes. They accept slices shorter
//! than a whole key (missing words read as zero) so that none of them can panic; callers that walk
//! a validated bset never pass one.

mod calc;
mod search;

use core::cmp::Ordering;
use core::fmt;

use zerocopy::byteorder::little_endian::U64;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bkey::{Bkey, Bversion, KeyType, BKEY_U64S, KEY_FORMAT_LOCAL_BTREE};
use crate::error::{ErrorId, Invalid};
use crate::pos::Bpos;

pub use calc::FormatCalc;
pub use search::SearchPos;

/// Number of fields in a key header.
pub const NR_FIELDS: usize = 6;
/// Bits of header before the fields: length, format, type.
const HEADER_BITS: u32 = 24;
/// Width of each field when unpacked: inode, offset, snapshot, size, version high, version low.
pub(crate) const FIELD_BITS: [u8; NR_FIELDS] = [64, 64, 32, 32, 32, 64];
/// Index of the size field.
pub(crate) const FIELD_SIZE: usize = 3;
/// Number of leading fields that make up the position.
const NR_POS_FIELDS: usize = 3;

/// A key format as stored in a node's header (56 bytes).
#[derive(
    Copy, Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct DiskBkeyFormat {
    /// Words of a packed key header.
    pub key_u64s: u8,
    /// Number of fields, 6.
    pub nr_fields: u8,
    /// Bits of each field.
    pub bits_per_field: [u8; NR_FIELDS],
    /// What is subtracted from each field before it is stored.
    pub field_offset: [U64; NR_FIELDS],
}

const _: () = assert!(core::mem::size_of::<DiskBkeyFormat>() == 56);

/// Where a field lies in the words of a packed key.
#[derive(Copy, Clone, PartialEq, Eq, Default)]
struct Place {
    word: u8,
    shift: u8,
    mask: u64,
}

impl Place {
    /// Puts a field into a header; `None` if it does not fit.
    #[inline(always)]
    fn put(&self, words: &mut [u64; BKEY_U64S as usize], stored: u64) -> Option<()> {
        if stored & !self.mask != 0 {
            return None;
        }
        if self.mask == 0 {
            return Some(());
        }
        let (word, shift) = (usize::from(self.word), u32::from(self.shift) & 63);
        if let Some(w) = words.get_mut(word) {
            *w |= stored << shift;
        }
        if let Some(w) = words.get_mut(word + 1) {
            // Nothing is left of it without a shift.
            *w |= stored >> 1 >> (63 - shift);
        }
        Some(())
    }
}

/// A valid key format, prepared for use.
///
/// # Invariants
///
/// Every value of every field that can be stored is representable when unpacked, and header and
/// fields fit `key_u64s` words, which is 1 to 5.
#[derive(Copy, Clone, PartialEq, Eq)]
pub struct BkeyFormat {
    key_u64s: u8,
    bits: [u8; NR_FIELDS],
    offset: [u64; NR_FIELDS],
    place: [Place; NR_FIELDS],
    /// Which bits of the highest, second and third highest word belong to the position.
    pos_mask: [u64; 3],
}

/// All ones in the low `bits` bits, for 0 to 64.
#[inline]
pub(crate) const fn low_mask(bits: u32) -> u64 {
    if bits >= 64 {
        u64::MAX
    } else {
        (1 << bits) - 1
    }
}

impl BkeyFormat {
    /// Makes a format from the bits and offset of each field; the number of words follows.
    pub fn new(bits: [u8; NR_FIELDS], offset: [u64; NR_FIELDS]) -> Result<Self, Invalid> {
        let bad = |what, at: usize, got: u64, want: u64| {
            Err(Invalid::new(
                ErrorId::BTREE_NODE_BAD_FORMAT,
                what,
                at,
                got,
                want,
            ))
        };
        let fields = bits.iter().zip(offset).zip(FIELD_BITS).enumerate();
        for (i, ((&b, o), width)) in fields {
            let max = low_mask(u32::from(width));
            if b > width {
                return bad(
                    "key format: field wider than when unpacked",
                    2 + i,
                    b.into(),
                    width.into(),
                );
            }
            if b == width && o != 0 {
                return bad(
                    "key format: full-width field has an offset",
                    8 + 8 * i,
                    o,
                    0,
                );
            }
            if o > max - low_mask(u32::from(b)).min(max) {
                return bad(
                    "key format: field offset too large",
                    8 + 8 * i,
                    o,
                    max - low_mask(b.into()),
                );
            }
        }
        let total = HEADER_BITS + bits.iter().map(|&b| u32::from(b)).sum::<u32>();
        let key_u64s = total.div_ceil(64);
        // At most 24 + 288 bits, since every field is within its unpacked width.
        Ok(Self::prepare(key_u64s as u8, bits, offset))
    }

    fn prepare(key_u64s: u8, bits: [u8; NR_FIELDS], offset: [u64; NR_FIELDS]) -> Self {
        let top = u32::from(key_u64s) * 64;
        let mut place = [Place::default(); NR_FIELDS];
        let mut at = top;
        for (p, &b) in place.iter_mut().zip(&bits) {
            at -= u32::from(b);
            *p = Place {
                word: (at / 64) as u8,
                shift: (at % 64) as u8,
                mask: low_mask(b.into()),
            };
        }
        let pos_bits: u32 = bits.iter().take(NR_POS_FIELDS).map(|&b| u32::from(b)).sum();
        let mut pos_mask = [0; 3];
        for (i, m) in pos_mask.iter_mut().enumerate() {
            let in_word = pos_bits.saturating_sub(64 * i as u32).min(64);
            *m = !low_mask(64 - in_word);
        }
        BkeyFormat {
            key_u64s,
            bits,
            offset,
            place,
            pos_mask,
        }
    }

    /// Validates a format from disk. Offsets in the error count from its start.
    pub fn from_disk(disk: &DiskBkeyFormat) -> Result<Self, Invalid> {
        if usize::from(disk.nr_fields) != NR_FIELDS {
            return Err(Invalid::new(
                ErrorId::BTREE_NODE_BAD_FORMAT,
                "key format: wrong number of fields",
                1,
                disk.nr_fields.into(),
                NR_FIELDS as u64,
            ));
        }
        let format = Self::new(disk.bits_per_field, disk.field_offset.map(|o| o.get()))?;
        if disk.key_u64s != format.key_u64s {
            return Err(Invalid::new(
                ErrorId::BTREE_NODE_BAD_FORMAT,
                "key format: length does not match its fields",
                0,
                disk.key_u64s.into(),
                format.key_u64s.into(),
            ));
        }
        Ok(format)
    }

    /// The format as stored.
    pub fn to_disk(&self) -> DiskBkeyFormat {
        DiskBkeyFormat {
            key_u64s: self.key_u64s,
            nr_fields: NR_FIELDS as u8,
            bits_per_field: self.bits,
            field_offset: self.offset.map(U64::new),
        }
    }

    /// Words of a packed header, 1 to 5.
    #[inline]
    pub const fn key_u64s(&self) -> u8 {
        self.key_u64s
    }

    /// Which bits of the highest word of a packed header belong to the position.
    #[inline]
    pub(crate) const fn top_mask(&self) -> u64 {
        let [top, ..] = self.pos_mask;
        top
    }

    /// Bits of each field.
    pub const fn bits(&self) -> [u8; NR_FIELDS] {
        self.bits
    }

    /// Offset of each field.
    pub const fn offsets(&self) -> [u64; NR_FIELDS] {
        self.offset
    }

    /// Field `i` of a packed key, with its offset added.
    #[inline(always)]
    fn field(&self, key: &[u64], i: usize) -> u64 {
        let p = &self.place[i];
        // Fields without bits are frequent, and all keys of a node have the same.
        if p.mask == 0 {
            return self.offset[i];
        }
        let word = usize::from(p.word);
        let low = key.get(word).copied().unwrap_or(0);
        // What follows the header may be read here, but no bit of it is within the mask.
        let high = key.get(word + 1).copied().unwrap_or(0);
        let shift = u32::from(p.shift) & 63;
        let v = low >> shift | high << 1 << (63 - shift);
        (v & p.mask).wrapping_add(self.offset[i])
    }

    /// The position of a packed key.
    #[inline]
    pub fn unpack_pos(&self, key: &[u64]) -> Bpos {
        Bpos::with_snapshot(
            self.field(key, 0),
            self.field(key, 1),
            self.field(key, 2) as u32,
        )
    }

    /// The whole header of a packed key. `u64s` of the result counts an unpacked header.
    #[inline]
    pub fn unpack(&self, key: &[u64]) -> Bkey {
        let w0 = key.first().copied().unwrap_or(0);
        let value_u64s = (w0 as u8).saturating_sub(self.key_u64s);
        Bkey {
            u64s: value_u64s.saturating_add(BKEY_U64S),
            key_type: KeyType((w0 >> 16) as u8),
            needs_whiteout: w0 & (1 << 15) != 0,
            pos: Bpos::with_snapshot(
                self.field(key, 0),
                self.field(key, 1),
                self.field(key, 2) as u32,
            ),
            size: self.field(key, 3) as u32,
            version: Bversion {
                hi: self.field(key, 4) as u32,
                lo: self.field(key, 5),
            },
        }
    }

    /// Packs a header. `None` if a field does not fit, or if the value is longer than a key of this
    /// format may have; the key is then stored unpacked.
    pub fn pack(&self, key: &Bkey) -> Option<PackedHeader> {
        let u64s = key.value_u64s().checked_add(self.key_u64s)?;
        let mut words = [0u64; BKEY_U64S as usize];
        words[0] = u64::from(u64s)
            | u64::from(KEY_FORMAT_LOCAL_BTREE) << 8
            | u64::from(key.needs_whiteout) << 15
            | u64::from(key.key_type.0) << 16;
        // One by one, for the compiler to keep all of it in registers.
        self.put::<0>(&mut words, key.pos.inode)?;
        self.put::<1>(&mut words, key.pos.offset)?;
        self.put::<2>(&mut words, key.pos.snapshot.into())?;
        self.put::<3>(&mut words, key.size.into())?;
        self.put::<4>(&mut words, key.version.hi.into())?;
        self.put::<5>(&mut words, key.version.lo)?;
        Some(PackedHeader {
            words,
            len: self.key_u64s,
        })
    }

    /// Puts field `I` into a header; `None` if it does not fit.
    #[inline(always)]
    fn put<const I: usize>(&self, words: &mut [u64; BKEY_U64S as usize], v: u64) -> Option<()> {
        let (place, offset) = (&self.place[I], self.offset[I]);
        place.put(words, v.checked_sub(offset)?)
    }

    /// The header of `key`, which is packed with `from`, packed with this format; `None` if it cannot be. Hints for memory are left
    /// out.
    pub fn repack(&self, key: &[u64], from: &BkeyFormat) -> Option<PackedHeader> {
        let w0 = key.first().copied().unwrap_or(0);
        let value_u64s = (w0 as u8).checked_sub(from.key_u64s)?;
        let u64s = value_u64s.checked_add(self.key_u64s)?;
        let mut words = [0u64; BKEY_U64S as usize];
        words[0] = u64::from(u64s) | u64::from(KEY_FORMAT_LOCAL_BTREE) << 8 | w0 & 0xff_0000;
        self.put::<0>(&mut words, from.field(key, 0))?;
        self.put::<1>(&mut words, from.field(key, 1))?;
        self.put::<2>(&mut words, from.field(key, 2))?;
        self.put::<3>(&mut words, from.field(key, 3))?;
        self.put::<4>(&mut words, from.field(key, 4))?;
        self.put::<5>(&mut words, from.field(key, 5))?;
        Some(PackedHeader {
            words,
            len: self.key_u64s,
        })
    }

    /// The position bits of a packed key, most significant word first, other bits zero. Arrays of
    /// keys of one format order as their positions do.
    #[inline]
    pub fn pos_words(&self, key: &[u64]) -> [u64; 3] {
        let mut out = [0; 3];
        let n = usize::from(self.key_u64s);
        for (i, (o, m)) in out.iter_mut().zip(self.pos_mask).enumerate() {
            if m == 0 || i >= n {
                break;
            }
            *o = key.get(n - 1 - i).copied().unwrap_or(0) & m;
        }
        out
    }

    /// Compares the positions of two keys packed with this format.
    #[inline]
    pub fn cmp_packed(&self, a: &[u64], b: &[u64]) -> Ordering {
        let n = usize::from(self.key_u64s);
        for (i, m) in self.pos_mask.into_iter().enumerate() {
            if m == 0 || i >= n {
                break;
            }
            let (x, y) = match (a.get(n - 1 - i), b.get(n - 1 - i)) {
                (Some(x), Some(y)) => (x & m, y & m),
                _ => break,
            };
            if x != y {
                return x.cmp(&y);
            }
        }
        Ordering::Equal
    }

    /// Compares the position of a packed key with `pos`, without packing `pos`. For many comparisons
    /// with one position, [`SearchPos`] is quicker.
    #[inline]
    pub fn cmp_pos(&self, key: &[u64], pos: Bpos) -> Ordering {
        self.unpack_pos(key).cmp(&pos)
    }
}

impl fmt::Display for BkeyFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "u64s {} fields", self.key_u64s)?;
        for (b, o) in self.bits.iter().zip(self.offset) {
            write!(f, " {b}:{o}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for BkeyFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The header of a packed key, made by [`BkeyFormat::pack`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct PackedHeader {
    words: [u64; BKEY_U64S as usize],
    len: u8,
}

impl PackedHeader {
    /// The words to store before the value.
    #[inline]
    pub fn words(&self) -> &[u64] {
        self.words.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

/// The fields of a header in packing order.
#[inline]
pub(crate) fn fields_of(key: &Bkey) -> [u64; NR_FIELDS] {
    [
        key.pos.inode,
        key.pos.offset,
        key.pos.snapshot.into(),
        key.size.into(),
        key.version.hi.into(),
        key.version.lo,
    ]
}

/// ORs `v` into the little-endian bit string `words` at bit `at`; bits beyond its end are lost.
#[inline]
fn put_bits(words: &mut [u64], at: u32, v: u64) {
    let (word, shift) = ((at / 64) as usize, at % 64);
    if let Some(w) = words.get_mut(word) {
        *w |= v << shift;
    }
    if shift != 0 {
        if let Some(w) = words.get_mut(word + 1) {
            *w |= v >> (64 - shift);
        }
    }
}
