// SPDX-License-Identifier: GPL-2.0
//! Checksum types, stored checksums and nonces.
//!
//! The algorithms themselves are not here: whoever uses the crate supplies them through
//! [`Checksummer`] and [`Cipher`]. Writers map an option ([`CsumOpt`]) to a type; readers obey the
//! type stored with the object.

use core::fmt;
use core::ops::Range;

use zerocopy::byteorder::little_endian::U64;
use zerocopy::IntoBytes as _;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bkey::Bversion;
use crate::error::Invalid;
use crate::magic::Uuid;

/// Algorithm of a stored checksum. Open; numbers from 8 on must be rejected.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct CsumType(pub u8);

impl CsumType {
    /// No checksum, stored as zero.
    pub const NONE: CsumType = CsumType(0);
    /// CRC-32C with all-ones seed and final complement.
    pub const CRC32C_NONZERO: CsumType = CsumType(1);
    /// CRC-64 (MSB first, ECMA polynomial) with all-ones seed and final complement.
    pub const CRC64_NONZERO: CsumType = CsumType(2);
    /// Poly1305 tag cut to 80 bits; data is encrypted with ChaCha20.
    pub const CHACHA20_POLY1305_80: CsumType = CsumType(3);
    /// Whole Poly1305 tag; data is encrypted with ChaCha20.
    pub const CHACHA20_POLY1305_128: CsumType = CsumType(4);
    /// CRC-32C with seed 0 and no final complement.
    pub const CRC32C: CsumType = CsumType(5);
    /// CRC-64 (MSB first, ECMA polynomial) with seed 0 and no final complement.
    pub const CRC64: CsumType = CsumType(6);
    /// XXH64 with seed 0.
    pub const XXHASH: CsumType = CsumType(7);

    const TABLE: [(&'static str, u8); 8] = [
        ("none", 0),
        ("crc32c_nonzero", 4),
        ("crc64_nonzero", 8),
        ("chacha20_poly1305_80", 10),
        ("chacha20_poly1305_128", 16),
        ("crc32c", 4),
        ("crc64", 8),
        ("xxhash", 8),
    ];

    /// Whether the number is a known type.
    #[inline]
    pub const fn is_known(self) -> bool {
        (self.0 as usize) < Self::TABLE.len()
    }

    /// The name, if the type is known.
    pub fn name(self) -> Option<&'static str> {
        Self::TABLE.get(usize::from(self.0)).map(|e| e.0)
    }

    /// How many bytes of a [`Csum`] the type uses; `None` if unknown.
    pub fn bytes(self) -> Option<u8> {
        Self::TABLE.get(usize::from(self.0)).map(|e| e.1)
    }

    /// Whether the checksum is a MAC, which also means that the object is encrypted.
    #[inline]
    pub const fn is_mac(self) -> bool {
        matches!(self.0, 3 | 4)
    }

    /// Whether checksums of two adjacent pieces can be combined without reading the data.
    #[inline]
    pub const fn is_mergeable(self) -> bool {
        matches!(self.0, 0 | 5 | 6)
    }
}

impl fmt::Display for CsumType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "(unknown checksum type {})", self.0),
        }
    }
}

impl fmt::Debug for CsumType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The user's choice of checksum, as stored in superblock and inodes.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct CsumOpt(pub u8);

impl CsumOpt {
    /// No checksum.
    pub const NONE: CsumOpt = CsumOpt(0);
    /// CRC-32C.
    pub const CRC32C: CsumOpt = CsumOpt(1);
    /// CRC-64.
    pub const CRC64: CsumOpt = CsumOpt(2);
    /// XXH64.
    pub const XXHASH: CsumOpt = CsumOpt(3);

    const NAMES: [&'static str; 4] = ["none", "crc32c", "crc64", "xxhash"];

    /// Number of choices; valid options are below it.
    pub const COUNT: u8 = Self::NAMES.len() as u8;

    /// The name, if the option is valid.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.get(usize::from(self.0)).copied()
    }

    /// The type to write in superblocks, which never carry a MAC. `None` if the option is invalid.
    pub fn sb_type(self) -> Option<CsumType> {
        Some(match self {
            Self::NONE => CsumType::NONE,
            Self::CRC32C => CsumType::CRC32C_NONZERO,
            Self::CRC64 => CsumType::CRC64_NONZERO,
            Self::XXHASH => CsumType::XXHASH,
            _ => return None,
        })
    }

    /// The type to write in journal entries and btree nodes. `None` if the option is invalid.
    pub fn metadata_type(self, encryption: Encryption) -> Option<CsumType> {
        match encryption {
            Encryption::Off => self.sb_type(),
            _ => self.sb_type().map(|_| CsumType::CHACHA20_POLY1305_128),
        }
    }

    /// The type to write for file data. `None` if the option is invalid.
    pub fn data_type(self, encryption: Encryption) -> Option<CsumType> {
        let plain = match self {
            Self::NONE => CsumType::NONE,
            Self::CRC32C => CsumType::CRC32C,
            Self::CRC64 => CsumType::CRC64,
            Self::XXHASH => CsumType::XXHASH,
            _ => return None,
        };
        Some(match encryption {
            Encryption::Off => plain,
            Encryption::NarrowMacs => CsumType::CHACHA20_POLY1305_80,
            Encryption::WideMacs => CsumType::CHACHA20_POLY1305_128,
        })
    }
}

/// Whether the filesystem encrypts, and how long the tags of data extents are.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Encryption {
    /// Not encrypted.
    Off,
    /// Encrypted, 80-bit tags on data.
    NarrowMacs,
    /// Encrypted, 128-bit tags on data.
    WideMacs,
}

/// A stored checksum. Shorter ones fill `lo` from its low end; the rest is zero. All 16 bytes count
/// when comparing.
#[derive(
    Copy, Clone, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Csum {
    /// Low word.
    pub lo: U64,
    /// High word.
    pub hi: U64,
}

const _: () = assert!(core::mem::size_of::<Csum>() == 16);

impl Csum {
    /// Zero, the value of type none.
    pub const ZERO: Csum = Csum::new(0, 0);

    /// From native words.
    pub const fn new(lo: u64, hi: u64) -> Self {
        Csum {
            lo: U64::new(lo),
            hi: U64::new(hi),
        }
    }

    /// Cuts a full value (for instance a Poly1305 tag) to the bytes that `csum_type` stores.
    pub fn truncated(mut self, csum_type: CsumType) -> Self {
        let keep = usize::from(csum_type.bytes().unwrap_or(0));
        for b in self.as_mut_bytes().iter_mut().skip(keep) {
            *b = 0;
        }
        self
    }
}

impl fmt::Display for Csum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hi.get() == 0 {
            write!(f, "{:x}", self.lo.get())
        } else {
            write!(f, "{:x}:{:x}", self.hi.get(), self.lo.get())
        }
    }
}

impl fmt::Debug for Csum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Computes checksums. The kernel and the host tests each bring their own.
pub trait Checksummer {
    /// The checksum of `data`, cut to what the type stores ([`Csum::truncated`]). `None` if the type
    /// cannot be computed: an unknown number, or a MAC without a key. The nonce matters to MACs only.
    fn checksum(&self, csum_type: CsumType, nonce: Nonce, data: &[u8]) -> Option<Csum>;

    /// Compares the checksum of `data` with the stored one.
    fn verify(
        &self,
        csum_type: CsumType,
        nonce: Nonce,
        data: &[u8],
        stored: &Csum,
    ) -> Result<(), CsumError> {
        match self.checksum(csum_type, nonce, data) {
            None => Err(CsumError::Unsupported),
            Some(got) if got != *stored => Err(CsumError::Mismatch(got)),
            Some(_) => Ok(()),
        }
    }
}

/// Why a checksum was not accepted.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum CsumError {
    /// The type cannot be computed.
    Unsupported,
    /// The data has this checksum instead.
    Mismatch(Csum),
}

impl CsumError {
    /// Describes the failure for an object whose checksum is stored at its start.
    pub(crate) fn describe(
        self,
        csum_type: CsumType,
        stored: &Csum,
        unsupported: Invalid,
        mismatch: Invalid,
    ) -> Invalid {
        match self {
            CsumError::Unsupported => Invalid {
                got: csum_type.0.into(),
                want: CsumType::XXHASH.0.into(),
                ..unsupported
            },
            CsumError::Mismatch(got) => {
                // Show the half that differs.
                let half = |c: &Csum| if got.lo == stored.lo { c.hi } else { c.lo };
                Invalid {
                    got: half(&got).get(),
                    want: half(stored).get(),
                    ..mismatch
                }
            }
        }
    }
}

/// ChaCha20 with the filesystem's key; encryption and decryption are the same operation.
pub trait Cipher {
    /// XORs the keystream of `nonce` into `data`.
    fn crypt(&self, nonce: Nonce, data: &mut [u8]);
}

/// The four words ChaCha20 starts from: initial block counter, then the 96-bit nonce.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Nonce(pub [u32; 4]);

impl Nonce {
    const EXTENT: u32 = 1 << 28;
    const BTREE: u32 = 2 << 28;
    const JOURNAL: u32 = 3 << 28;
    const POLY: u32 = 1 << 31;
    /// Bytes of one ChaCha20 block.
    const BLOCK: usize = 64;

    /// Where no nonce is needed, as in superblocks.
    pub const NONE: Nonce = Nonce([0; 4]);

    /// For the journal entry with sequence number `seq`.
    pub const fn journal(seq: u64) -> Self {
        Nonce([0, seq as u32, (seq >> 32) as u32, Self::JOURNAL])
    }

    /// For the bset whose entry starts `offset` bytes into its node. The offset is used as block
    /// counter as it is, not divided by the block length.
    pub const fn bset(offset: u32, seq: u64, journal_seq: u64) -> Self {
        Nonce([
            offset,
            seq as u32,
            (seq >> 32) as u32,
            journal_seq as u32 ^ Self::BTREE,
        ])
    }

    /// For an extent. `compression` is the type in its crc entry (none and incompressible count as
    /// none), `uncompressed_sectors` and `nonce_sectors` are the decoded sizes of that entry.
    pub const fn extent(
        compression: u8,
        uncompressed_sectors: u32,
        nonce_sectors: u32,
        version: Bversion,
    ) -> Self {
        let compression = if compression == 5 { 0 } else { compression };
        let size = if compression != 0 {
            uncompressed_sectors.wrapping_shl(22)
        } else {
            0
        };
        Nonce([
            size.wrapping_add(nonce_sectors.wrapping_mul(8)),
            version.lo as u32,
            (version.lo >> 32) as u32,
            (version.hi | (compression as u32) << 24) ^ Self::EXTENT,
        ])
    }

    /// For the master key in the superblock, under the passphrase's key.
    pub const fn master_key(uuid: &Uuid) -> Self {
        let w = uuid.low_word();
        Nonce([0, 0, w as u32, (w >> 32) as u32])
    }

    /// The nonce for the data `bytes` further into the same message (rounded up to whole blocks).
    pub const fn advanced(self, bytes: usize) -> Self {
        let [counter, a, b, c] = self.0;
        let blocks = bytes.div_ceil(Self::BLOCK);
        Nonce([counter.wrapping_add(blocks as u32), a, b, c])
    }

    /// The nonce whose keystream begins with the one-time Poly1305 key.
    pub const fn poly_key(self) -> Self {
        let [counter, a, b, c] = self.0;
        Nonce([counter, a, b, c ^ Self::POLY])
    }
}

/// Which bytes of an object are encrypted, and with which nonce. At most two pieces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CryptPiece {
    /// Byte range inside the object.
    pub bytes: Range<usize>,
    /// Nonce for the start of the range.
    pub nonce: Nonce,
}
