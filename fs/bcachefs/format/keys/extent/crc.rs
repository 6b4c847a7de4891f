// SPDX-License-Identifier: GPL-2.0
//! The checksum entries and what they decode to.
//!
//! Three encodings of one thing, from small to large. All sizes are in sectors; sizes are stored
//! less one. The bits of the first word:
//!
//! | entry | tag | compressed | uncompressed | offset | nonce | checksum type | compression |
//! |---|---|---|---|---|---|---|---|
//! | crc32 | 0..2 | 2..9 | 9..16 | 16..23 | - | 24..28 | 28..32 |
//! | crc64 | 0..3 | 3..12 | 12..21 | 21..30 | 30..40 | 40..44 | 44..48 |
//! | crc128 | 0..4 | 4..17 | 17..30 | 30..43 | 43..56 | 56..60 | 60..64 |
//!
//! crc32 has its checksum in bits 32..64; crc64 has the high 16 bits in 48..64 and the low word
//! after it; crc128 has two words after it.

use core::fmt;

use crate::checksum::{Csum, CsumType};
use crate::keys::compression::CompressionType;
use crate::keys::layout::{bits, with_bits};

/// The on-disk encoding of a checksum entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum CrcKind {
    /// One word, checksums to 4 bytes, no nonce.
    Crc32,
    /// Two words, checksums to 10 bytes.
    Crc64,
    /// Three words, checksums to 16 bytes.
    Crc128,
}

impl CrcKind {
    /// Length of the entry in words.
    pub const fn words(self) -> usize {
        match self {
            Self::Crc32 => 1,
            Self::Crc64 => 2,
            Self::Crc128 => 3,
        }
    }

    /// Largest uncompressed size, in sectors.
    pub const fn size_max(self) -> u32 {
        match self {
            Self::Crc32 => 128,
            Self::Crc64 => 512,
            Self::Crc128 => 8192,
        }
    }

    /// Largest nonce.
    pub const fn nonce_max(self) -> u32 {
        match self {
            Self::Crc32 => 0,
            Self::Crc64 => 1023,
            Self::Crc128 => 8191,
        }
    }

    /// Bytes of checksum the entry holds.
    pub const fn csum_bytes(self) -> usize {
        match self {
            Self::Crc32 => 4,
            Self::Crc64 => 10,
            Self::Crc128 => 16,
        }
    }

    /// The entry's tag bit, and so the number of bits of its tag less one.
    const fn tag(self) -> u32 {
        match self {
            Self::Crc32 => 1,
            Self::Crc64 => 2,
            Self::Crc128 => 3,
        }
    }

    /// Width of the size and offset fields.
    const fn size_bits(self) -> u32 {
        match self {
            Self::Crc32 => 7,
            Self::Crc64 => 9,
            Self::Crc128 => 13,
        }
    }

    /// First bit of the nonce and its width.
    const fn nonce_bits(self) -> (u32, u32) {
        match self {
            Self::Crc32 => (23, 0),
            Self::Crc64 => (30, 10),
            Self::Crc128 => (43, 13),
        }
    }

    /// First bit of the checksum type.
    const fn type_bit(self) -> u32 {
        match self {
            Self::Crc32 => 24,
            Self::Crc64 => 40,
            Self::Crc128 => 56,
        }
    }
}

/// How the bytes behind a pointer relate to the data of its key. Sizes in sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crc {
    /// Type of the checksum over the bytes on disk.
    pub csum_type: CsumType,
    /// Compression of the bytes on disk.
    pub compression: CompressionType,
    /// Length on disk, from the pointer's sector; also what the checksum covers.
    pub compressed_size: u32,
    /// Length of the data once decompressed.
    pub uncompressed_size: u32,
    /// Length of the part the key still refers to: the key's size.
    pub live_size: u32,
    /// Where in the uncompressed data that part begins.
    pub offset: u32,
    /// Sectors cut off the front before the data was last encrypted in place.
    pub nonce: u32,
    /// The checksum.
    pub csum: Csum,
}

impl Crc {
    /// What holds for pointers with no checksum entry before them.
    pub const fn none(size: u32) -> Self {
        Self {
            csum_type: CsumType::NONE,
            compression: CompressionType::NONE,
            compressed_size: size,
            uncompressed_size: size,
            live_size: size,
            offset: 0,
            nonce: 0,
            csum: Csum::ZERO,
        }
    }

    /// Whether the bytes on disk are compressed.
    pub fn is_compressed(&self) -> bool {
        self.compression.is_compressed()
    }

    /// Whether the bytes have to be read as a whole to be checked or decoded.
    pub fn is_encoded(&self) -> bool {
        self.csum_type != CsumType::NONE || self.is_compressed()
    }

    /// Whether the bytes on disk are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.csum_type.is_mac()
    }

    /// Disk sectors the live part accounts for: its share of a compressed extent, rounded up.
    pub fn disk_sectors(&self) -> u64 {
        let live = u64::from(self.live_size);
        if self.is_compressed() && self.uncompressed_size != 0 {
            (live * u64::from(self.compressed_size)).div_ceil(u64::from(self.uncompressed_size))
        } else {
            live
        }
    }

    /// The smallest encoding that holds this; `None` if there is none.
    pub fn smallest_kind(&self) -> Option<CrcKind> {
        [CrcKind::Crc32, CrcKind::Crc64, CrcKind::Crc128]
            .into_iter()
            .find(|k| self.fits(*k))
    }

    /// Whether `kind` can hold this.
    pub fn fits(&self, kind: CrcKind) -> bool {
        let sizes = 1..=kind.size_max();
        sizes.contains(&self.compressed_size)
            && sizes.contains(&self.uncompressed_size)
            && self.offset < kind.size_max()
            && self.nonce <= kind.nonce_max()
            && self
                .csum_type
                .bytes()
                .is_some_and(|n| usize::from(n) <= kind.csum_bytes())
            && self.compression.0 < 16
    }

    /// Decodes an entry of `kind` from its words (as many as [`CrcKind::words`] says).
    pub(crate) fn decode(kind: CrcKind, words: [u64; 3], live_size: u32) -> Self {
        let [word, w1, w2] = words;
        let (first, width) = (kind.tag() + 1, kind.size_bits());
        let field = |n: u32| bits(word, first + n * width, first + (n + 1) * width) as u32;
        let (nonce, nonce_width) = kind.nonce_bits();
        let ty = kind.type_bit();
        let (lo, hi) = match kind {
            CrcKind::Crc32 => (bits(word, 32, 64), 0),
            CrcKind::Crc64 => (w1, bits(word, 48, 64)),
            CrcKind::Crc128 => (w1, w2),
        };
        Self {
            csum_type: CsumType(bits(word, ty, ty + 4) as u8),
            compression: CompressionType(bits(word, ty + 4, ty + 8) as u8),
            compressed_size: field(0) + 1,
            uncompressed_size: field(1) + 1,
            live_size,
            offset: field(2),
            nonce: bits(word, nonce, nonce + nonce_width) as u32,
            csum: Csum::new(lo, hi),
        }
    }

    /// Encodes as `kind`; the words beyond [`CrcKind::words`] are zero. `None` if it does not fit.
    pub fn encode(&self, kind: CrcKind) -> Option<[u64; 3]> {
        if !self.fits(kind) {
            return None;
        }
        let tag = kind.tag();
        let width = kind.size_bits();
        let mut word = 1u64 << tag;
        let mut at = tag + 1;
        for v in [
            self.compressed_size - 1,
            self.uncompressed_size - 1,
            self.offset,
        ] {
            word = with_bits(word, at, at + width, u64::from(v));
            at += width;
        }
        let (nonce, nonce_width) = kind.nonce_bits();
        word = with_bits(word, nonce, nonce + nonce_width, u64::from(self.nonce));
        let ty = kind.type_bit();
        word = with_bits(word, ty, ty + 4, u64::from(self.csum_type.0));
        word = with_bits(word, ty + 4, ty + 8, u64::from(self.compression.0));
        let (lo, hi) = (self.csum.lo.get(), self.csum.hi.get());
        Some(match kind {
            CrcKind::Crc32 => [with_bits(word, 32, 64, lo), 0, 0],
            CrcKind::Crc64 => [with_bits(word, 48, 64, hi), lo, 0],
            CrcKind::Crc128 => [word, lo, hi],
        })
    }

    /// The first word of an entry of `kind` with its offset moved on by `sectors`; `None` if the
    /// field cannot hold that. All other bits stay as they are.
    pub(crate) fn advance_offset(kind: CrcKind, word: u64, sectors: u64) -> Option<u64> {
        let width = kind.size_bits();
        let at = kind.tag() + 1 + 2 * width;
        let offset = bits(word, at, at + width).checked_add(sectors)?;
        (offset < u64::from(kind.size_max())).then(|| with_bits(word, at, at + width, offset))
    }
}

impl fmt::Display for Crc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "crc size {} of {} at {} nonce {} csum {} {} compression {}",
            self.compressed_size,
            self.uncompressed_size,
            self.offset,
            self.nonce,
            self.csum_type,
            self.csum,
            self.compression
        )
    }
}
