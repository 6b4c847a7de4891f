// SPDX-License-Identifier: GPL-2.0
//! Making the entries of a node: one in a buffer of its own, or all in one as long as the node.

use core::fmt;

use zerocopy::byteorder::little_endian::{U16, U64};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{
    crypt_pieces, entry_sectors, DiskBtreeNode, DiskBtreeNodeEntry, NodeEntry, NodeFlags,
    CSUM_BYTES, FIRST_BYTES, LATER_BYTES, SECTOR_BYTES, SECTOR_U64S,
};
use crate::bkey::KeyRef;
use crate::bset::{BsetBuilder, DiskBset, PushError};
use crate::btree_id::BtreeId;
use crate::checksum::{Checksummer, Cipher, Csum, CsumType};
use crate::packed::BkeyFormat;
use crate::pos::Bpos;
use crate::version::Version;

/// Why an entry could not be made.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum WriteError {
    /// A key could not be added.
    Key(PushError),
    /// The entry does not fit the rest of the node.
    NoSpace,
    /// The checksum type cannot be computed.
    Checksum(CsumType),
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Key(e) => fmt::Display::fmt(e, f),
            WriteError::NoSpace => f.write_str("no room in the node"),
            WriteError::Checksum(t) => write!(f, "cannot compute checksum type {t}"),
        }
    }
}

/// What is fixed when a node is created.
#[derive(Copy, Clone, Debug)]
pub struct NewNode {
    /// Magic of this filesystem's nodes.
    pub magic: u64,
    /// The btree.
    pub btree: BtreeId,
    /// Level, 0 for leaves.
    pub level: u8,
    /// 0 for a new range, one more than the old node's when one is rewritten.
    pub generation: u32,
    /// Lowest position of the range.
    pub min_key: Bpos,
    /// Highest position of the range.
    pub max_key: Bpos,
    /// Format of the keys packed into the node.
    pub format: BkeyFormat,
}

/// What differs from bset to bset.
#[derive(Copy, Clone, Debug)]
pub struct NewBset {
    /// Random number of the node, not zero.
    pub seq: u64,
    /// Highest journal sequence number of the updates contained.
    pub journal_seq: u64,
    /// Checksum type; a MAC means that the entry is encrypted.
    pub csum_type: CsumType,
    /// Version of the filesystem.
    pub version: Version,
}

/// One entry in the making: its keys are in place, and can be looked at before it is sealed.
pub struct NewEntry<'a> {
    /// The entry, to the end of its last block.
    words: &'a mut [u64],
    /// Bytes of header and keys.
    bytes: usize,
    at: u32,
    block_sectors: u16,
    csum_type: CsumType,
}

impl<'a> NewEntry<'a> {
    /// The first entry of a node, at the start of `words`. `fill` adds the keys, in ascending order.
    pub fn first(
        words: &'a mut [u64],
        block_sectors: u16,
        node: &NewNode,
        bset: &NewBset,
        fill: impl FnOnce(&mut BsetBuilder<'_>) -> Result<(), PushError>,
    ) -> Result<Self, WriteError> {
        let flags = NodeFlags::new(node.btree, node.level, node.generation);
        let header = DiskBtreeNode {
            csum: Csum::ZERO,
            magic: U64::new(node.magic),
            flags: U64::new(flags.0),
            min_key: node.min_key.into(),
            max_key: node.max_key.into(),
            unused_ptr: U64::ZERO,
            format: node.format.to_disk(),
            keys: bset_header(bset, 0),
        };
        Self::make(words, block_sectors, 0, header.as_bytes(), &node.format, bset, fill)
    }

    /// An entry, at the start of `words`, that belongs at sector `at` of its node. Its keys are packed with the node's `format`.
    pub fn later(
        words: &'a mut [u64],
        block_sectors: u16,
        at: u32,
        format: &BkeyFormat,
        bset: &NewBset,
        fill: impl FnOnce(&mut BsetBuilder<'_>) -> Result<(), PushError>,
    ) -> Result<Self, WriteError> {
        let header = DiskBtreeNodeEntry {
            csum: Csum::ZERO,
            keys: bset_header(bset, at),
        };
        Self::make(words, block_sectors, at, header.as_bytes(), format, bset, fill)
    }

    fn make(
        words: &'a mut [u64],
        block_sectors: u16,
        at: u32,
        header: &[u8],
        format: &BkeyFormat,
        bset: &NewBset,
        fill: impl FnOnce(&mut BsetBuilder<'_>) -> Result<(), PushError>,
    ) -> Result<Self, WriteError> {
        let (head, tail) = words
            .split_at_mut_checked(header.len() / 8)
            .ok_or(WriteError::NoSpace)?;
        head.as_mut_bytes().copy_from_slice(header);
        let mut builder = BsetBuilder::new(tail, *format);
        fill(&mut builder).map_err(WriteError::Key)?;
        let u64s = builder.finish();
        let bytes = header.len() + usize::from(u64s) * 8;
        let sectors = entry_sectors(bytes, block_sectors).ok_or(WriteError::NoSpace)?;
        let words = words
            .get_mut(..sectors as usize * SECTOR_U64S)
            .ok_or(WriteError::NoSpace)?;
        words.get_mut(bytes / 8..).unwrap_or_default().fill(0);
        set_u64s(words, at, u64s)?;
        Ok(NewEntry {
            words,
            bytes,
            at,
            block_sectors,
            csum_type: bset.csum_type,
        })
    }

    /// What has been made, to be checked. Its checksum is not there yet.
    pub fn entry(&self) -> Result<NodeEntry<'_>, WriteError> {
        NodeEntry::alone(self.words, self.at, self.block_sectors).map_err(|_| WriteError::NoSpace)
    }

    /// Words of keys.
    pub fn u64s(&self) -> usize {
        let header = match self.at {
            0 => FIRST_BYTES,
            _ => LATER_BYTES,
        };
        (self.bytes - header) / 8
    }

    /// Encrypts if the type asks for it, then stores the checksum. Returns the entry's length in sectors.
    pub fn seal<C: Checksummer + ?Sized>(
        self,
        csum: &C,
        cipher: Option<&dyn Cipher>,
    ) -> Result<u32, WriteError> {
        let nonce = self.entry()?.nonce();
        let csum_type = self.csum_type;
        let sectors = (self.words.len() / SECTOR_U64S) as u32;
        let data = self
            .words
            .as_mut_bytes()
            .get_mut(..self.bytes)
            .ok_or(WriteError::NoSpace)?;
        if csum_type.is_mac() {
            let cipher = cipher.ok_or(WriteError::Checksum(csum_type))?;
            for piece in crypt_pieces(csum_type, self.at == 0, self.bytes, nonce) {
                if let Some(data) = data.get_mut(piece.bytes) {
                    cipher.crypt(piece.nonce, data);
                }
            }
        }
        let (stored, covered) = data
            .split_at_mut_checked(CSUM_BYTES)
            .ok_or(WriteError::NoSpace)?;
        let value = csum
            .checksum(csum_type, nonce, covered)
            .ok_or(WriteError::Checksum(csum_type))?;
        stored.copy_from_slice(value.as_bytes());
        Ok(sectors)
    }
}

fn bset_header(bset: &NewBset, at: u32) -> DiskBset {
    DiskBset {
        seq: U64::new(bset.seq),
        journal_seq: U64::new(bset.journal_seq),
        // A node has less than 2^16 sectors.
        flags: DiskBset::make_flags(bset.csum_type, at as u16),
        version: U16::new(bset.version.0),
        u64s: U16::ZERO,
    }
}

fn set_u64s(words: &mut [u64], at: u32, u64s: u16) -> Result<(), WriteError> {
    let bytes = words.as_mut_bytes();
    let bset = if at == 0 {
        DiskBtreeNode::mut_from_prefix(bytes)
            .ok()
            .map(|(h, _)| &mut h.keys)
    } else {
        DiskBtreeNodeEntry::mut_from_prefix(bytes)
            .ok()
            .map(|(h, _)| &mut h.keys)
    };
    bset.ok_or(WriteError::NoSpace)?.u64s = U16::new(u64s);
    Ok(())
}

/// Appends entries to a node's buffer.
pub struct NodeWriter<'a> {
    words: &'a mut [u64],
    block_sectors: u16,
    at: u32,
}

impl<'a> NodeWriter<'a> {
    /// On the buffer `words`, as long as the node, with `sectors_written` sectors in use already.
    pub fn new(words: &'a mut [u64], block_sectors: u16, sectors_written: u32) -> Self {
        NodeWriter {
            words,
            block_sectors,
            at: sectors_written,
        }
    }

    /// Sectors in use.
    pub fn sectors_written(&self) -> u32 {
        self.at
    }

    /// Makes the first entry. Returns its length in sectors.
    pub fn write_first<'k, C: Checksummer + ?Sized>(
        &mut self,
        node: &NewNode,
        bset: &NewBset,
        keys: impl IntoIterator<Item = KeyRef<'k>>,
        csum: &C,
        cipher: Option<&dyn Cipher>,
    ) -> Result<u32, WriteError> {
        self.at = 0;
        let block = self.block_sectors;
        let room = self.words.len().saturating_sub(1);
        let entry = NewEntry::first(self.words, block, node, bset, |b| push_all(b, keys))?;
        self.at = seal_within(entry, room, csum, cipher)?;
        Ok(self.at)
    }

    /// Appends an entry with the keys that changed, packed with the node's `format`. Returns its
    /// length in sectors.
    pub fn append<'k, C: Checksummer + ?Sized>(
        &mut self,
        format: &BkeyFormat,
        bset: &NewBset,
        keys: impl IntoIterator<Item = KeyRef<'k>>,
        csum: &C,
        cipher: Option<&dyn Cipher>,
    ) -> Result<u32, WriteError> {
        let start = (self.at as usize).saturating_mul(SECTOR_U64S);
        let words = self.words.get_mut(start..).ok_or(WriteError::NoSpace)?;
        let room = words.len().saturating_sub(1);
        let (at, block) = (self.at, self.block_sectors);
        let entry = NewEntry::later(words, block, at, format, bset, |b| push_all(b, keys))?;
        let sectors = seal_within(entry, room, csum, cipher)?;
        self.at += sectors;
        Ok(sectors)
    }
}

fn push_all<'k>(
    builder: &mut BsetBuilder<'_>,
    keys: impl IntoIterator<Item = KeyRef<'k>>,
) -> Result<(), PushError> {
    keys.into_iter().try_for_each(|key| builder.push(&key))
}

/// Seals an entry of at most `room` words: readers of variable-length integers may look a word past the last key.
fn seal_within<C: Checksummer + ?Sized>(
    entry: NewEntry<'_>,
    room: usize,
    csum: &C,
    cipher: Option<&dyn Cipher>,
) -> Result<u32, WriteError> {
    if entry.bytes / 8 > room {
        return Err(WriteError::NoSpace);
    }
    entry.seal(csum, cipher)
}

const _: () = {
    assert!(FIRST_BYTES % 8 == 0 && LATER_BYTES % 8 == 0);
    assert!(SECTOR_BYTES % 8 == 0);
};
