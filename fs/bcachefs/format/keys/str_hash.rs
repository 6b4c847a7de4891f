// SPDX-License-Identifier: GPL-2.0
//! Where names are placed: the hash of directory entries and extended attributes.
//!
//! Type and seed come from the inode that owns the names. SipHash is computed here; the CRCs come
//! from whoever calls, who has fast ones ([`NameCrc`]).
//!
//! Probing: a name is stored at the first free offset at or after its hash; a chain ends at an
//! offset that holds neither a name nor a tombstone.

use core::fmt;

use crate::keys::inode::Inode;
use crate::sb::options::StrHashOpt;

mod sha256;
mod siphash;

/// The hash of names. Open: unknown numbers are kept, and refused by the validators.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct StrHashType(pub u8);

impl StrHashType {
    /// CRC-32C of seed and name.
    pub const CRC32C: Self = Self(0);
    /// CRC-64 of seed and name.
    pub const CRC64: Self = Self(1);
    /// SipHash-2-4, its key the SHA-256 of the seed.
    pub const SIPHASH_OLD: Self = Self(2);
    /// SipHash-2-4, its key the seed.
    pub const SIPHASH: Self = Self(3);

    /// What is written where the filesystem's option is `option`.
    pub const fn for_new(option: StrHashOpt) -> Self {
        match option {
            StrHashOpt::CRC32C => Self::CRC32C,
            StrHashOpt::CRC64 => Self::CRC64,
            _ => Self::SIPHASH,
        }
    }

    /// Whether the number is defined.
    pub const fn is_known(self) -> bool {
        self.0 <= Self::SIPHASH.0
    }
}

impl fmt::Display for StrHashType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CRC32C => f.write_str("crc32c"),
            Self::CRC64 => f.write_str("crc64"),
            Self::SIPHASH_OLD => f.write_str("siphash_old"),
            Self::SIPHASH => f.write_str("siphash"),
            Self(n) => write!(f, "unknown({n})"),
        }
    }
}

/// The two CRCs, continued over more bytes. Neither inverts the state, before or after.
pub trait NameCrc {
    /// CRC-32C (Castagnoli, reflected) of `data`, continued from `state`.
    fn crc32c(&self, state: u32, data: &[u8]) -> u32;
    /// CRC-64 (ECMA-182 polynomial, most significant bit first) of `data`, continued from `state`.
    fn crc64(&self, state: u64, data: &[u8]) -> u64;
}

/// Lowest offset of a directory entry: 0 and 1 are the positions of `.` and `..` in a listing.
pub const DIRENT_OFFSET_MIN: u64 = 2;

/// How the names of one inode are hashed. Cheap to keep with the inode in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StrHashInfo {
    hash: StrHashType,
    /// The two halves of the SipHash key; for the CRCs the first half is the seed.
    k0: u64,
    k1: u64,
}

impl StrHashInfo {
    /// For the names that `inode` owns. `None` if the type of its hash is not known.
    pub fn new(inode: &Inode) -> Option<Self> {
        Self::from_parts(inode.str_hash, inode.hash_seed)
    }

    /// For names under type `hash` with `seed`. `None` if the type is not known.
    pub fn from_parts(hash: StrHashType, seed: u64) -> Option<Self> {
        let (k0, k1) = match hash {
            StrHashType::CRC32C | StrHashType::CRC64 | StrHashType::SIPHASH => (seed, 0),
            StrHashType::SIPHASH_OLD => {
                let [a, b] = sha256::first_words(seed.to_le_bytes());
                (a, b)
            }
            _ => return None,
        };
        Some(Self { hash, k0, k1 })
    }

    /// The hash of a directory entry: the first offset at which it may be.
    pub fn dirent(&self, name: &[u8], crc: &impl NameCrc) -> u64 {
        let h = match self.hash {
            StrHashType::CRC32C => self.crc32c(&[name], crc),
            StrHashType::CRC64 => self.crc64(&[name], crc),
            _ => siphash::hash(self.k0, self.k1, name) >> 1,
        };
        h.max(DIRENT_OFFSET_MIN)
    }

    /// The hash of an extended attribute, from its stored type and its name without prefix.
    pub fn xattr(&self, xattr_type: u8, name: &[u8], crc: &impl NameCrc) -> u64 {
        let parts = [&[xattr_type] as &[u8], name];
        match self.hash {
            StrHashType::CRC32C => self.crc32c(&parts, crc),
            StrHashType::CRC64 => self.crc64(&parts, crc),
            _ => siphash::hash_xattr(self.k0, self.k1, xattr_type, name) >> 1,
        }
    }

    fn crc32c(&self, parts: &[&[u8]], crc: &impl NameCrc) -> u64 {
        let seeded = crc.crc32c(u32::MAX, &self.k0.to_le_bytes());
        parts
            .iter()
            .fold(seeded, |state, part| crc.crc32c(state, part))
            .into()
    }

    fn crc64(&self, parts: &[&[u8]], crc: &impl NameCrc) -> u64 {
        let seeded = crc.crc64(u64::MAX, &self.k0.to_le_bytes());
        parts
            .iter()
            .fold(seeded, |state, part| crc.crc64(state, part))
            >> 1
    }
}
