// SPDX-License-Identifier: GPL-2.0
//! Key headers and references to whole keys.
//!
//! A key is a header (what, where, how long) followed by a value made of 8-byte words. In journals
//! and in memory headers are unpacked, 40 bytes; nodes also hold packed ones (see the `packed`
//! module), which are unpacked into the same [`Bkey`].

mod validate;

use core::fmt;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::IntoBytes as _;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::pos::{Bpos, DiskBpos};

pub use validate::KeyContext;

/// Words of an unpacked key header.
pub const BKEY_U64S: u8 = 5;
/// Words of the largest possible value.
pub const BKEY_VAL_U64S_MAX: u8 = u8::MAX - BKEY_U64S;
/// Format number of keys packed with the format of their node.
pub const KEY_FORMAT_LOCAL_BTREE: u8 = 0;
/// Format number of unpacked keys.
pub const KEY_FORMAT_CURRENT: u8 = 1;

/// The 96-bit version of a key: an extent's encryption nonce, or the order of accounting deltas.
/// Ordered by `hi`, then `lo`. Zero in all other keys.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bversion {
    /// Most significant 32 bits.
    pub hi: u32,
    /// Least significant 64 bits.
    pub lo: u64,
}

impl Bversion {
    /// No version.
    pub const ZERO: Bversion = Bversion { hi: 0, lo: 0 };
    /// The highest version; a test value.
    pub const MAX: Bversion = Bversion {
        hi: u32::MAX,
        lo: u64::MAX,
    };
}

impl fmt::Display for Bversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.hi, self.lo)
    }
}

impl fmt::Debug for Bversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a key means. Open: unknown numbers are kept.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct KeyType(pub u8);

macro_rules! key_types {
    ($($(#[$doc:meta])* $nr:literal $konst:ident $name:literal;)*) => {
        impl KeyType {
            $($(#[$doc])* pub const $konst: KeyType = KeyType($nr);)*

            const NAMES: &'static [&'static str] = &[$($name),*];
        }
    };
}

key_types! {
    /// No key at this position; cancels older bsets, never visible.
    0 DELETED "deleted";
    /// Hides the key of an ancestor snapshot.
    1 WHITEOUT "whiteout";
    /// Data that is known to be lost.
    2 ERROR "error";
    /// A 64-bit marker.
    3 COOKIE "cookie";
    /// Keeps a hash probe chain intact.
    4 HASH_WHITEOUT "hash_whiteout";
    /// Pointer to a child node, old form.
    5 BTREE_PTR "btree_ptr";
    /// Pointers to data.
    6 EXTENT "extent";
    /// Space reserved for a range, no data yet.
    7 RESERVATION "reservation";
    /// Inode, first form.
    8 INODE "inode";
    /// Generation of a deleted inode number.
    9 INODE_GENERATION "inode_generation";
    /// Directory entry.
    10 DIRENT "dirent";
    /// Extended attribute.
    11 XATTR "xattr";
    /// Bucket state, first form.
    12 ALLOC "alloc";
    /// Quota limits and usage.
    13 QUOTA "quota";
    /// Erasure-coding stripe.
    14 STRIPE "stripe";
    /// Reference to an indirect extent.
    15 REFLINK_P "reflink_p";
    /// Indirect (shared) extent.
    16 REFLINK_V "reflink_v";
    /// File data held in the key.
    17 INLINE_DATA "inline_data";
    /// Pointer to a child node.
    18 BTREE_PTR_V2 "btree_ptr_v2";
    /// Shared inline data.
    19 INDIRECT_INLINE_DATA "indirect_inline_data";
    /// Bucket state, second form.
    20 ALLOC_V2 "alloc_v2";
    /// Subvolume.
    21 SUBVOLUME "subvolume";
    /// Snapshot tree node.
    22 SNAPSHOT "snapshot";
    /// Inode, second form.
    23 INODE_V2 "inode_v2";
    /// Bucket state, third form.
    24 ALLOC_V3 "alloc_v3";
    /// Presence of the position, no value.
    25 SET "set";
    /// LRU entry, old form.
    26 LRU "lru";
    /// Bucket state.
    27 ALLOC_V4 "alloc_v4";
    /// From a bucket to the key that uses it.
    28 BACKPOINTER "backpointer";
    /// Inode.
    29 INODE_V3 "inode_v3";
    /// Generations of 256 buckets.
    30 BUCKET_GENS "bucket_gens";
    /// A tree of snapshots.
    31 SNAPSHOT_TREE "snapshot_tree";
    /// A truncate to be finished after a crash.
    32 LOGGED_OP_TRUNCATE "logged_op_truncate";
    /// A range insert or collapse to be finished after a crash.
    33 LOGGED_OP_FINSERT "logged_op_finsert";
    /// Counters; journalled as deltas.
    34 ACCOUNTING "accounting";
}

impl KeyType {
    /// Number of types known to metadata version 1.13.
    pub const COUNT: u8 = Self::NAMES.len() as u8;

    /// The name, if the type is a known one.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.get(usize::from(self.0)).copied()
    }

    /// Whether this is a pointer to a btree node, of either form.
    #[inline]
    pub const fn is_btree_ptr(self) -> bool {
        self.0 == Self::BTREE_PTR.0 || self.0 == Self::BTREE_PTR_V2.0
    }

    /// Whether a key of this type stands for absence: deleted or whiteout.
    #[inline]
    pub const fn is_whiteout(self) -> bool {
        self.0 == Self::DELETED.0 || self.0 == Self::WHITEOUT.0
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "(unknown type {})", self.0),
        }
    }
}

impl fmt::Debug for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An unpacked key header, in memory.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Bkey {
    /// Words of header and value when the key is unpacked: 5 + value words.
    pub u64s: u8,
    /// Type of the value.
    pub key_type: KeyType,
    /// Hint in memory that an older, written bset holds a key at this position. 0 on disk.
    pub needs_whiteout: bool,
    /// Position; the *end* of the range in trees of extents.
    pub pos: Bpos,
    /// Length of the range in sectors; 0 where keys are points.
    pub size: u32,
    /// Version.
    pub version: Bversion,
}

impl Bkey {
    /// A header of an empty key of type `deleted` at `pos`.
    pub const fn deleted(pos: Bpos) -> Self {
        Bkey {
            u64s: BKEY_U64S,
            key_type: KeyType::DELETED,
            needs_whiteout: false,
            pos,
            size: 0,
            version: Bversion::ZERO,
        }
    }

    /// First offset of the range; 0 if a damaged key claims to start before that.
    #[inline]
    pub const fn start_offset(&self) -> u64 {
        self.pos.offset.saturating_sub(self.size as u64)
    }

    /// First position of the range, in the key's own snapshot.
    #[inline]
    pub const fn start_pos(&self) -> Bpos {
        Bpos::with_snapshot(self.pos.inode, self.start_offset(), self.pos.snapshot)
    }

    /// Words of the value.
    #[inline]
    pub const fn value_u64s(&self) -> u8 {
        self.u64s.saturating_sub(BKEY_U64S)
    }

    /// Decodes an unpacked header from its five words. The format byte is not looked at.
    #[inline]
    pub const fn from_words(w: &[u64; BKEY_U64S as usize]) -> Self {
        Bkey {
            u64s: w[0] as u8,
            key_type: KeyType((w[0] >> 16) as u8),
            needs_whiteout: w[0] & (1 << 15) != 0,
            pos: Bpos::with_snapshot(w[4], w[3], (w[2] >> 32) as u32),
            size: w[2] as u32,
            version: Bversion {
                hi: (w[1] >> 32) as u32,
                lo: (w[0] >> 32) | (w[1] << 32),
            },
        }
    }

    /// Encodes the header as five words, with format number 1.
    #[inline]
    pub const fn to_words(&self) -> [u64; BKEY_U64S as usize] {
        [
            self.u64s as u64
                | (KEY_FORMAT_CURRENT as u64) << 8
                | (self.needs_whiteout as u64) << 15
                | (self.key_type.0 as u64) << 16
                | self.version.lo << 32,
            self.version.lo >> 32 | (self.version.hi as u64) << 32,
            self.size as u64 | (self.pos.snapshot as u64) << 32,
            self.pos.offset,
            self.pos.inode,
        ]
    }
}

impl fmt::Display for Bkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "u64s {} type {} {} len {} ver {}",
            self.u64s, self.key_type, self.pos, self.size, self.version
        )
    }
}

/// An unpacked key header as stored (40 bytes, no alignment).
#[derive(
    Copy, Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct DiskBkey {
    /// Words of header and value.
    pub u64s: u8,
    /// Bits 0..7: format, 1; bit 7: needs_whiteout.
    pub format: u8,
    /// Type of the value.
    pub key_type: u8,
    /// Zero.
    pub pad: u8,
    /// Low 64 bits of the version.
    pub version_lo: U64,
    /// High 32 bits of the version.
    pub version_hi: U32,
    /// Length of the range.
    pub size: U32,
    /// Position.
    pub pos: DiskBpos,
}

const _: () = {
    assert!(core::mem::size_of::<DiskBkey>() == 40);
    assert!(core::mem::offset_of!(DiskBkey, version_lo) == 4);
    assert!(core::mem::offset_of!(DiskBkey, size) == 16);
    assert!(core::mem::offset_of!(DiskBkey, pos) == 20);
};

impl From<&DiskBkey> for Bkey {
    fn from(k: &DiskBkey) -> Bkey {
        Bkey {
            u64s: k.u64s,
            key_type: KeyType(k.key_type),
            needs_whiteout: k.format & 0x80 != 0,
            pos: k.pos.get(),
            size: k.size.get(),
            version: Bversion {
                hi: k.version_hi.get(),
                lo: k.version_lo.get(),
            },
        }
    }
}

impl From<&Bkey> for DiskBkey {
    fn from(k: &Bkey) -> DiskBkey {
        DiskBkey {
            u64s: k.u64s,
            format: KEY_FORMAT_CURRENT | u8::from(k.needs_whiteout) << 7,
            key_type: k.key_type.0,
            pad: 0,
            version_lo: U64::new(k.version.lo),
            version_hi: U32::new(k.version.hi),
            size: U32::new(k.size),
            pos: k.pos.into(),
        }
    }
}

/// A key whose header has been unpacked and whose value is still where it was read.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct KeyRef<'a> {
    /// The header.
    pub key: Bkey,
    /// The value, in words.
    pub value: &'a [u64],
}

impl<'a> KeyRef<'a> {
    /// The value as bytes, in disk order.
    #[inline]
    pub fn value_bytes(&self) -> &'a [u8] {
        self.value.as_bytes()
    }
}
