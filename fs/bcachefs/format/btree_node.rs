// SPDX-License-Identifier: GPL-2.0
//! Btree nodes on disk.
//!
//! A node is a region of fixed size holding a log of entries: a [`DiskBtreeNode`] first, then any
//! number of [`DiskBtreeNodeEntry`], each starting at the next block boundary. Every entry carries a
//! checksum and one bset. [`NodeEntry`] is the frame of one entry; [`NodeScan`] walks a whole node and
//! applies every rule of reading; [`NewEntry`] makes one entry, [`NodeWriter`] one after the other.

mod scan;
mod write;

use core::fmt;

use zerocopy::byteorder::little_endian::U64;
use zerocopy::{FromBytes as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bset::{DiskBset, Keys};
use crate::btree_id::BtreeId;
use crate::checksum::{Checksummer, CryptPiece, Csum, CsumType, Nonce};
use crate::error::{ErrorId, Invalid};
use crate::packed::DiskBkeyFormat;
use crate::pos::DiskBpos;

pub use scan::{decrypt_node, AlreadyVerified, NodeHeader, NodeScan, NodeWant, ScannedBset};
pub use write::{NewBset, NewEntry, NewNode, NodeWriter, WriteError};

/// Bytes of a sector.
pub const SECTOR_BYTES: usize = 512;
/// Words of a sector.
pub const SECTOR_U64S: usize = SECTOR_BYTES / 8;
/// Words of the header of a node's first entry.
pub const NODE_HEADER_U64S: usize = FIRST_BYTES / 8;
/// Words of the header of a later entry.
pub const ENTRY_HEADER_U64S: usize = LATER_BYTES / 8;
/// Most levels a btree can have.
pub const BTREE_MAX_DEPTH: u8 = 4;

/// The first entry of a node as stored, without its keys (160 bytes).
#[derive(Copy, Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DiskBtreeNode {
    /// Checksum of everything after it, to the end of the keys.
    pub csum: Csum,
    /// Made from the filesystem's UUID, see [`crate::magic::bset_magic`].
    pub magic: U64,
    /// See [`NodeFlags`]. Encryption starts here.
    pub flags: U64,
    /// Lowest position of the node's range.
    pub min_key: DiskBpos,
    /// Highest position of the node's range.
    pub max_key: DiskBpos,
    /// Zero; once a pointer.
    pub unused_ptr: U64,
    /// Format of the packed keys in all bsets of the node.
    pub format: DiskBkeyFormat,
    /// Header of the first bset. Never encrypted.
    pub keys: DiskBset,
}

/// A later entry of a node as stored, without its keys (40 bytes).
#[derive(Copy, Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DiskBtreeNodeEntry {
    /// Checksum of everything after it, to the end of the keys.
    pub csum: Csum,
    /// Header of the bset.
    pub keys: DiskBset,
}

const FLAGS_AT: usize = core::mem::offset_of!(DiskBtreeNode, flags);
const BSET_AT: usize = core::mem::offset_of!(DiskBtreeNode, keys);
const FIRST_BYTES: usize = core::mem::size_of::<DiskBtreeNode>();
const LATER_BYTES: usize = core::mem::size_of::<DiskBtreeNodeEntry>();
const CSUM_BYTES: usize = core::mem::size_of::<Csum>();

const _: () = {
    assert!(FIRST_BYTES == 160);
    assert!(LATER_BYTES == 40);
    assert!(FLAGS_AT == 24);
    assert!(core::mem::offset_of!(DiskBtreeNode, min_key) == 32);
    assert!(core::mem::offset_of!(DiskBtreeNode, max_key) == 52);
    assert!(core::mem::offset_of!(DiskBtreeNode, format) == 80);
    assert!(BSET_AT == 136);
    assert!(core::mem::offset_of!(DiskBtreeNodeEntry, keys) == 16);
};

/// The flags word of a node.
#[derive(Copy, Clone, PartialEq, Eq, Default)]
pub struct NodeFlags(pub u64);

impl NodeFlags {
    const NEW_EXTENT_OVERWRITE: u64 = 1 << 8;

    /// From its parts, with `new_extent_overwrite` set as it has to be.
    pub const fn new(btree: BtreeId, level: u8, generation: u32) -> Self {
        let id = btree.0 as u64;
        NodeFlags(
            id & 0xf
                | (level as u64 & 0xf) << 4
                | Self::NEW_EXTENT_OVERWRITE
                | (id >> 4) << 9
                | (generation as u64) << 32,
        )
    }

    /// Number of the btree; wider on disk than any valid id.
    pub const fn btree(self) -> u32 {
        (self.0 & 0xf | (self.0 >> 9 & 0xffff) << 4) as u32
    }

    /// Level of the node, 0 for leaves.
    pub const fn level(self) -> u8 {
        (self.0 >> 4 & 0xf) as u8
    }

    /// Whether extents are overwritten the only way that is supported.
    pub const fn new_extent_overwrite(self) -> bool {
        self.0 & Self::NEW_EXTENT_OVERWRITE != 0
    }

    /// How often the node's range was rewritten; tells repair which of two nodes is newer.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Display for NodeFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u8::try_from(self.btree()) {
            Ok(id) => write!(f, "{}", BtreeId(id))?,
            Err(_) => write!(f, "btree {}", self.btree())?,
        }
        write!(f, " level {} gen {}", self.level(), self.generation())
    }
}

/// Total sectors of an entry of `bytes` bytes, rounded up to whole blocks.
pub(crate) fn entry_sectors(bytes: usize, block_sectors: u16) -> Option<u32> {
    let block = usize::from(block_sectors).checked_mul(SECTOR_BYTES)?;
    if block == 0 {
        return None;
    }
    let blocks = bytes.div_ceil(block);
    u32::try_from(blocks.checked_mul(usize::from(block_sectors))?).ok()
}

/// The frame of one entry: its header, and keys within the bounds of the node. Content unchecked.
#[derive(Copy, Clone)]
pub struct NodeEntry<'a> {
    /// The header, if this is the node's first entry.
    pub first: Option<&'a DiskBtreeNode>,
    /// The header of the bset.
    pub bset: &'a DiskBset,
    /// The stored checksum.
    pub csum: &'a Csum,
    /// Header and keys.
    bytes: &'a [u8],
    /// The keys.
    keys: &'a [u64],
    /// Where the entry starts in the node.
    offset_sectors: u32,
    /// Sectors the entry takes.
    sectors: u32,
}

impl<'a> NodeEntry<'a> {
    /// The entry at `offset_sectors` of the node held in `words`. Errors count bytes from the start of
    /// the node.
    pub fn at(words: &'a [u64], offset_sectors: u32, block_sectors: u16) -> Result<Self, Invalid> {
        let base = (offset_sectors as usize).saturating_mul(SECTOR_BYTES);
        let tail = words
            .get((offset_sectors as usize).saturating_mul(SECTOR_U64S)..)
            .ok_or_else(|| {
                Invalid::new(
                    ErrorId::BSET_PAST_END_OF_BTREE_NODE,
                    "entry starts past the end of its node",
                    base,
                    base as u64,
                    words.len() as u64 * 8,
                )
            })?;
        Self::alone(tail, offset_sectors, block_sectors)
    }

    /// The entry that `tail` starts with, which belongs at `offset_sectors` of its node.
    pub fn alone(
        tail: &'a [u64],
        offset_sectors: u32,
        block_sectors: u16,
    ) -> Result<Self, Invalid> {
        let base = (offset_sectors as usize).saturating_mul(SECTOR_BYTES);
        let past_end = |what, got: usize| {
            Invalid::new(
                ErrorId::BSET_PAST_END_OF_BTREE_NODE,
                what,
                base,
                got as u64,
                base as u64 + tail.len() as u64 * 8,
            )
        };
        let short = || past_end("entry header extends past the end of its node", base);
        let bytes = tail.as_bytes();
        let (first, bset, csum, header) = if offset_sectors == 0 {
            let (h, _) = DiskBtreeNode::ref_from_prefix(bytes).map_err(|_| short())?;
            (Some(h), &h.keys, &h.csum, FIRST_BYTES)
        } else {
            let (h, _) = DiskBtreeNodeEntry::ref_from_prefix(bytes).map_err(|_| short())?;
            (None, &h.keys, &h.csum, LATER_BYTES)
        };
        let total = header + usize::from(bset.u64s.get()) * 8;
        let (Some(bytes), Some(keys)) = (bytes.get(..total), tail.get(header / 8..total / 8))
        else {
            return Err(past_end(
                "bset extends past the end of its node",
                base + total,
            ));
        };
        let sectors = entry_sectors(total, block_sectors)
            .ok_or_else(|| Invalid::plain("block size is 0", base, 0, 1))?;
        Ok(NodeEntry {
            first,
            bset,
            csum,
            bytes,
            keys,
            offset_sectors,
            sectors,
        })
    }

    /// Where the entry starts in the node.
    pub const fn offset_sectors(&self) -> u32 {
        self.offset_sectors
    }

    /// Sectors the entry takes, whole blocks.
    pub const fn sectors(&self) -> u32 {
        self.sectors
    }

    /// Bytes of header and keys.
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The keys.
    pub const fn keys(&self) -> Keys<'a> {
        Keys::new(self.keys)
    }

    /// What checksum and encryption of this entry start from.
    pub fn nonce(&self) -> Nonce {
        let offset = self.offset_sectors.wrapping_mul(SECTOR_BYTES as u32);
        Nonce::bset(offset, self.bset.seq.get(), self.bset.journal_seq.get())
    }

    /// The encrypted byte ranges, counted from the start of the entry, if its checksum type is a
    /// MAC; both empty otherwise.
    pub fn crypt_pieces(&self) -> [CryptPiece; 2] {
        crypt_pieces(
            self.bset.csum_type(),
            self.first.is_some(),
            self.bytes.len(),
            self.nonce(),
        )
    }

    /// Verifies the checksum. Errors count bytes from the start of the node.
    pub fn verify<C: Checksummer + ?Sized>(&self, csum: &C) -> Result<(), Invalid> {
        let base = self.offset_sectors as usize * SECTOR_BYTES;
        let csum_type = self.bset.csum_type();
        let covered = self.bytes.get(CSUM_BYTES..).unwrap_or(&[]);
        csum.verify(csum_type, self.nonce(), covered, self.csum)
            .map_err(|e| {
                let plain = |id, what| Invalid::new(id, what, base, 0, 0);
                e.describe(
                    csum_type,
                    self.csum,
                    plain(
                        ErrorId::BSET_UNKNOWN_CSUM,
                        "bset checksum type cannot be computed",
                    ),
                    plain(ErrorId::BSET_BAD_CSUM, "bset checksum is wrong"),
                )
            })
    }
}

fn crypt_pieces(csum_type: CsumType, first: bool, bytes: usize, nonce: Nonce) -> [CryptPiece; 2] {
    let piece = |start: usize, end: usize, nonce| CryptPiece {
        bytes: start..end.max(start),
        nonce,
    };
    if !csum_type.is_mac() {
        return [piece(0, 0, nonce), piece(0, 0, nonce)];
    }
    if first {
        // The header piece takes whole cipher blocks of keystream, the keys follow after them.
        let header = piece(FLAGS_AT, BSET_AT, nonce);
        let keys = nonce.advanced(BSET_AT - FLAGS_AT);
        [header, piece(FIRST_BYTES, bytes, keys)]
    } else {
        [piece(0, 0, nonce), piece(LATER_BYTES, bytes, nonce)]
    }
}
