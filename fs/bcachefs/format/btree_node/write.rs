// SPDX-License-Identifier: GPL-2.0
//! Making the entries of a node, in a buffer as long as the node.

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
        let flags = NodeFlags::new(node.btree, node.level, node.generation);
        let header = DiskBtreeNode {
            csum: Csum::ZERO,
            magic: U64::new(node.magic),
            flags: U64::new(flags.0),
            min_key: node.min_key.into(),
            max_key: node.max_key.into(),
            unused_ptr: U64::ZERO,
            format: node.format.to_disk(),
            keys: self.bset_header(bset),
        };
        self.write(header.as_bytes(), &node.format, bset, keys, csum, cipher)
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
        let header = DiskBtreeNodeEntry {
            csum: Csum::ZERO,
            keys: self.bset_header(bset),
        };
        self.write(header.as_bytes(), format, bset, keys, csum, cipher)
    }

    fn bset_header(&self, bset: &NewBset) -> DiskBset {
        DiskBset {
            seq: U64::new(bset.seq),
            journal_seq: U64::new(bset.journal_seq),
            // A node has less than 2^16 sectors, or `write` finds no space.
            flags: DiskBset::make_flags(bset.csum_type, self.at as u16),
            version: U16::new(bset.version.0),
            u64s: U16::ZERO,
        }
    }

    fn write<'k, C: Checksummer + ?Sized>(
        &mut self,
        header: &[u8],
        format: &BkeyFormat,
        bset: &NewBset,
        keys: impl IntoIterator<Item = KeyRef<'k>>,
        csum: &C,
        cipher: Option<&dyn Cipher>,
    ) -> Result<u32, WriteError> {
        let start = (self.at as usize).saturating_mul(SECTOR_U64S);
        // Readers of variable-length integers may look a word past the last key.
        let end = self.words.len().saturating_sub(1);
        let entry = self.words.get_mut(start..end).ok_or(WriteError::NoSpace)?;
        let header_u64s = header.len() / 8;
        let (head, tail) = entry
            .split_at_mut_checked(header_u64s)
            .ok_or(WriteError::NoSpace)?;
        head.as_mut_bytes().copy_from_slice(header);
        let mut builder = BsetBuilder::new(tail, *format);
        for key in keys {
            builder.push(&key).map_err(WriteError::Key)?;
        }
        let u64s = builder.finish();
        self.set_u64s(start, u64s)?;

        let bytes = header.len() + usize::from(u64s) * 8;
        let sectors = entry_sectors(bytes, self.block_sectors).ok_or(WriteError::NoSpace)?;
        let pad_start = start + bytes / 8;
        let pad_end = start + sectors as usize * SECTOR_U64S;
        let pad = self.words.get_mut(pad_start..pad_end);
        pad.ok_or(WriteError::NoSpace)?.fill(0);
        self.seal(start, bytes, bset.csum_type, csum, cipher)?;
        self.at += sectors;
        Ok(sectors)
    }

    fn set_u64s(&mut self, start: usize, u64s: u16) -> Result<(), WriteError> {
        let bytes = self
            .words
            .get_mut(start..)
            .unwrap_or_default()
            .as_mut_bytes();
        let bset = if self.at == 0 {
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

    /// Encrypts if the type asks for it, then stores the checksum.
    fn seal<C: Checksummer + ?Sized>(
        &mut self,
        start: usize,
        bytes: usize,
        csum_type: CsumType,
        csum: &C,
        cipher: Option<&dyn Cipher>,
    ) -> Result<(), WriteError> {
        let entry = NodeEntry::at(self.words, self.at, self.block_sectors)
            .map_err(|_| WriteError::NoSpace)?;
        let nonce = entry.nonce();
        let all = self.words.as_mut_bytes();
        let data = all
            .get_mut(start * 8..start * 8 + bytes)
            .ok_or(WriteError::NoSpace)?;
        if csum_type.is_mac() {
            let cipher = cipher.ok_or(WriteError::Checksum(csum_type))?;
            for piece in crypt_pieces(csum_type, self.at == 0, bytes, nonce) {
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
        Ok(())
    }
}

const _: () = {
    assert!(FIRST_BYTES % 8 == 0 && LATER_BYTES % 8 == 0);
    assert!(SECTOR_BYTES % 8 == 0);
};
