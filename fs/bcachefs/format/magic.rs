// SPDX-License-Identifier: GPL-2.0
//! UUIDs and the magic numbers made from them.

use core::fmt;

use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A UUID as stored: 16 bytes in the order of its text form.
#[derive(
    Copy,
    Clone,
    PartialEq,
    Eq,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(transparent)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// All bytes zero: no device, or not set.
    pub const NIL: Uuid = Uuid([0; 16]);

    /// Whether all bytes are zero.
    pub fn is_nil(&self) -> bool {
        *self == Self::NIL
    }

    /// The first eight bytes as a little-endian number.
    pub const fn low_word(&self) -> u64 {
        let b = &self.0;
        u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, b) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{b:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Magic of superblocks and layouts; written always.
pub const SB_MAGIC: Uuid = Uuid([
    0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d, 0xf7, 0xef,
]);

/// Older magic, from before the filesystem had its own; accepted on read, never written.
pub const SB_MAGIC_OLD: Uuid = Uuid([
    0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81,
]);

/// Whether `magic` marks a superblock or layout.
pub fn is_sb_magic(magic: &Uuid) -> bool {
    *magic == SB_MAGIC || *magic == SB_MAGIC_OLD
}

/// Magic of the journal entries of the filesystem with internal UUID `uuid`.
pub const fn jset_magic(uuid: &Uuid) -> u64 {
    uuid.low_word() ^ 0x2452_35c1_a362_5032
}

/// Magic of the btree nodes of the filesystem with internal UUID `uuid`.
pub const fn bset_magic(uuid: &Uuid) -> u64 {
    uuid.low_word() ^ 0x9013_5c78_b99e_07f5
}
