// SPDX-License-Identifier: GPL-2.0
//! Reading a node: every rule between the bytes of a device and keys that may be used.
//!
//! Errors mean that this copy of the node is bad and another replica should be tried. What a reader
//! can live with is reported beside the bset, in [`ScannedBset::issue`].

use zerocopy::IntoBytes as _;

use super::{NodeEntry, SECTOR_BYTES, SECTOR_U64S};
use crate::bkey::KeyContext;
use crate::bset::{DiskBset, Keys};
use crate::btree_id::BtreeId;
use crate::checksum::{Checksummer, Cipher, Csum, CsumError, CsumType, Nonce};
use crate::error::{ErrorId, Invalid};
use crate::packed::BkeyFormat;
use crate::pos::Bpos;
use crate::version::Version;

/// What the pointer to a node and the filesystem say it must be.
#[derive(Copy, Clone, Debug)]
pub struct NodeWant {
    /// Magic of this filesystem's nodes.
    pub magic: u64,
    /// The btree it belongs to.
    pub btree: BtreeId,
    /// Its level, 0 for leaves.
    pub level: u8,
    /// Lowest position, if the pointer records it (btree_ptr_v2).
    pub min_key: Option<Bpos>,
    /// Highest position: the pointer's own position.
    pub max_key: Bpos,
    /// The node's random number, if the pointer records it.
    pub seq: Option<u64>,
    /// Sectors in use, 0 if the pointer does not know.
    pub sectors_written: u16,
    /// The pointer's range counts, not the node's.
    pub range_updated: bool,
    /// Version of the filesystem.
    pub sb_version: Version,
    /// Oldest version the superblock admits.
    pub version_min: Version,
    /// Block size of the filesystem in sectors.
    pub block_sectors: u16,
}

/// The part of a node's header that matters after it was checked.
#[derive(Copy, Clone, Debug)]
pub struct NodeHeader {
    /// Lowest position of the range.
    pub min_key: Bpos,
    /// Highest position of the range.
    pub max_key: Bpos,
    /// Format of the packed keys.
    pub format: BkeyFormat,
    /// Random number of the node.
    pub seq: u64,
    /// How often the range was rewritten.
    pub generation: u32,
}

/// One checked bset of a node.
#[derive(Copy, Clone, Debug)]
pub struct ScannedBset<'a> {
    /// Where its entry starts in the node.
    pub offset_sectors: u32,
    /// Sectors its entry takes.
    pub sectors: u32,
    /// Its header.
    pub bset: &'a DiskBset,
    /// Its keys: well formed, in order, and obeying the rules of the node.
    pub keys: Keys<'a>,
    /// Whether the keys count. False if the journal entry they belong to never became durable.
    pub used: bool,
    /// Corruption that was found but does not keep the node from being used.
    pub issue: Option<Invalid>,
}

/// Walks the bsets of a node. Call [`NodeScan::next_bset`] until it returns `None`.
#[derive(Debug)]
pub struct NodeScan<'a> {
    words: &'a [u64],
    want: NodeWant,
    header: Option<NodeHeader>,
    at: u32,
    limit: u32,
    done: bool,
}

impl<'a> NodeScan<'a> {
    /// Starts on the node in `words`, as long as the filesystem's nodes are. Checks that this is the
    /// wanted node at all.
    pub fn new(words: &'a [u64], want: NodeWant) -> Result<Self, Invalid> {
        let entry = NodeEntry::at(words, 0, want.block_sectors)?;
        let magic = entry.first.map_or(0, |h| h.magic.get());
        if magic != want.magic {
            return Err(Invalid::new(
                ErrorId::BTREE_NODE_BAD_MAGIC,
                "node magic is wrong",
                16,
                magic,
                want.magic,
            ));
        }
        let seq = entry.bset.seq.get();
        let seq_ok = want.seq.map_or(seq != 0, |s| s == seq);
        if !seq_ok {
            return Err(Invalid::new(
                ErrorId::BTREE_NODE_BAD_SEQ,
                "node is not the one its pointer means",
                super::BSET_AT,
                seq,
                want.seq.unwrap_or(1),
            ));
        }
        let node_sectors = (words.len() / SECTOR_U64S) as u32;
        let limit = match u32::from(want.sectors_written) {
            0 => node_sectors,
            written if written <= node_sectors => written,
            written => {
                return Err(Invalid::new(
                    ErrorId::BTREE_NODE_DATA_MISSING,
                    "pointer says more sectors are written than a node has",
                    0,
                    written.into(),
                    node_sectors.into(),
                ))
            }
        };
        Ok(NodeScan {
            words,
            want,
            header: None,
            at: 0,
            limit,
            done: false,
        })
    }

    /// The node's header; known after the first bset was returned.
    pub fn header(&self) -> Option<&NodeHeader> {
        self.header.as_ref()
    }

    /// Sectors of all bsets returned so far; once done, where the next write would go.
    pub fn sectors(&self) -> u32 {
        self.at
    }

    /// Verifies and returns the next bset; `None` once all are done and nothing is missing.
    /// `blacklisted` says whether a journal sequence number is blacklisted.
    // Not inline: the stack of who reads nodes is small.
    #[inline(never)]
    pub fn next_bset<C, B>(
        &mut self,
        csum: &C,
        blacklisted: B,
    ) -> Result<Option<ScannedBset<'a>>, Invalid>
    where
        C: Checksummer + ?Sized,
        B: Fn(u64) -> bool,
    {
        if self.done {
            return Ok(None);
        }
        if self.at >= self.limit {
            return self.end(blacklisted);
        }
        let entry = match NodeEntry::at(self.words, self.at, self.want.block_sectors) {
            Ok(entry) => entry,
            // Garbage after the last bset need not even be framed.
            Err(_) if self.at > 0 && self.foreign_seq_at(self.at) => return self.end(blacklisted),
            Err(e) => return Err(e),
        };
        if self.at > 0 && Some(entry.bset.seq.get()) != self.header.as_ref().map(|h| h.seq) {
            return self.end(blacklisted);
        }
        let base = self.at as usize * SECTOR_BYTES;
        entry.verify(csum)?;
        let mut issue = self.check_bset(&entry).map_err(|e| e.within(base))?;
        if self.header.is_none() {
            self.header = Some(self.check_header(&entry)?);
        }
        let keys_at = base + entry.bytes() - entry.keys().words().len() * 8;
        if let Some(header) = &self.header {
            self.check_keys(&entry.keys(), header)
                .map_err(|e| e.within(keys_at))?;
        }

        let mut used = true;
        if blacklisted(entry.bset.journal_seq.get()) {
            let id = if self.at == 0 {
                ErrorId::FIRST_BSET_BLACKLISTED_JOURNAL_SEQ
            } else {
                used = false;
                ErrorId::BSET_BLACKLISTED_JOURNAL_SEQ
            };
            // Without a recorded length a bset that never became durable is nothing unusual.
            if self.at == 0 || self.want.sectors_written != 0 {
                let seq = entry.bset.journal_seq.get();
                let what = "bset's journal sequence number is blacklisted";
                issue = issue.or(Some(Invalid::new(id, what, base, seq, 0)));
            }
        }
        self.at += entry.sectors();
        Ok(Some(ScannedBset {
            offset_sectors: entry.offset_sectors(),
            sectors: entry.sectors(),
            bset: entry.bset,
            keys: entry.keys(),
            used,
            issue,
        }))
    }

    fn seq_at(&self, sector: u32) -> Option<u64> {
        // The bset header follows the checksum in every entry but the first.
        let word = sector as usize * SECTOR_U64S + super::CSUM_BYTES / 8;
        self.words.get(word).copied()
    }

    fn foreign_seq_at(&self, sector: u32) -> bool {
        self.seq_at(sector) != self.header.as_ref().map(|h| h.seq)
    }

    fn end<B: Fn(u64) -> bool>(
        &mut self,
        blacklisted: B,
    ) -> Result<Option<ScannedBset<'a>>, Invalid> {
        self.done = true;
        let base = self.at as usize * SECTOR_BYTES;
        if self.want.sectors_written != 0 {
            if self.at != self.limit {
                return Err(Invalid::new(
                    ErrorId::BTREE_NODE_DATA_MISSING,
                    "node ends before what its pointer says is written",
                    base,
                    self.at.into(),
                    self.limit.into(),
                ));
            }
            return Ok(None);
        }
        let block = u32::from(self.want.block_sectors).max(1);
        let mut sector = self.at;
        while sector < self.limit {
            let journal_seq = self
                .words
                .get(sector as usize * SECTOR_U64S + super::CSUM_BYTES / 8 + 1)
                .copied()
                .unwrap_or(0);
            if !self.foreign_seq_at(sector) && !blacklisted(journal_seq) {
                return Err(Invalid::new(
                    ErrorId::BTREE_NODE_BSET_AFTER_END,
                    "bset of this node found after its end",
                    sector as usize * SECTOR_BYTES,
                    sector.into(),
                    self.at.into(),
                ));
            }
            sector += block;
        }
        Ok(None)
    }

    /// Rules of every entry. Offsets count from the entry.
    #[inline(never)]
    fn check_bset(&self, entry: &NodeEntry<'_>) -> Result<Option<Invalid>, Invalid> {
        let bset = entry.bset;
        let bad = |id, what, got: u64, want: u64| Err(Invalid::new(id, what, 0, got, want));
        let version = bset.version();
        if !version.is_compatible() {
            return bad(
                ErrorId::BTREE_NODE_UNSUPPORTED_VERSION,
                "bset has an unsupported version",
                version.0.into(),
                Version::CURRENT.0.into(),
            );
        }
        if version.needs_key_compat() {
            return bad(
                ErrorId::BTREE_NODE_UNSUPPORTED_VERSION,
                "bset is from before version 0.12, whose keys are not understood",
                version.0.into(),
                Version::SNAPSHOT.0.into(),
            );
        }
        if version.major() > self.want.sb_version.major() {
            return bad(
                ErrorId::BTREE_NODE_BSET_NEWER_THAN_SB,
                "bset is of a newer major version than the superblock",
                version.0.into(),
                self.want.sb_version.0.into(),
            );
        }
        if bset.is_big_endian() {
            let id = ErrorId::BTREE_NODE_UNSUPPORTED_VERSION;
            return bad(id, "bset is big-endian", 1, 0);
        }
        if bset.has_separate_whiteouts() {
            let id = ErrorId::BTREE_NODE_UNSUPPORTED_VERSION;
            return bad(
                id,
                "bset keeps whiteouts apart, which is not supported",
                1,
                0,
            );
        }
        if self.at + entry.sectors() > self.limit {
            return bad(
                ErrorId::BSET_PAST_END_OF_BTREE_NODE,
                "bset extends past the written part of its node",
                (self.at + entry.sectors()).into(),
                self.limit.into(),
            );
        }
        if self.at > 0 && bset.u64s.get() == 0 {
            return bad(ErrorId::BSET_EMPTY, "bset is empty", 0, 1);
        }
        let offset = u32::from(bset.offset_sectors());
        if offset != 0 && offset != self.at {
            return bad(
                ErrorId::BSET_WRONG_SECTOR_OFFSET,
                "bset says it is elsewhere in the node",
                offset.into(),
                self.at.into(),
            );
        }
        if version < self.want.version_min {
            return Ok(Some(Invalid::new(
                ErrorId::BTREE_NODE_BSET_OLDER_THAN_SB_MIN,
                "bset is older than the oldest version the superblock admits",
                0,
                version.0.into(),
                self.want.version_min.0.into(),
            )));
        }
        Ok(None)
    }

    /// Rules of the node's header, which has been verified and decrypted.
    #[inline(never)]
    fn check_header(&self, entry: &NodeEntry<'_>) -> Result<NodeHeader, Invalid> {
        let bad = |id, what, at, got: u64, want: u64| Err(Invalid::new(id, what, at, got, want));
        let Some(disk) = entry.first else {
            return bad(ErrorId::BTREE_NODE_BAD_MAGIC, "node has no header", 0, 0, 0);
        };
        let want = &self.want;
        let flags = super::NodeFlags(disk.flags.get());
        if flags.btree() != u32::from(want.btree.0) {
            return bad(
                ErrorId::BTREE_NODE_BAD_BTREE,
                "node belongs to another btree",
                super::FLAGS_AT,
                flags.btree().into(),
                want.btree.0.into(),
            );
        }
        if flags.level() != want.level {
            return bad(
                ErrorId::BTREE_NODE_BAD_LEVEL,
                "node is of another level",
                super::FLAGS_AT,
                flags.level().into(),
                want.level.into(),
            );
        }
        if want.btree.is_extents() && want.level == 0 && !flags.new_extent_overwrite() {
            return bad(
                ErrorId::BTREE_NODE_UNSUPPORTED_VERSION,
                "node of extents in an old form that is not supported",
                super::FLAGS_AT,
                0,
                1,
            );
        }
        let (mut min_key, mut max_key) = (disk.min_key.get(), disk.max_key.get());
        if want.range_updated {
            min_key = want.min_key.unwrap_or(min_key);
            max_key = want.max_key;
        }
        if let Some(ptr_min) = want.min_key.filter(|p| *p != min_key) {
            return bad(
                ErrorId::BTREE_NODE_BAD_MIN_KEY,
                "node's lowest key is not what its pointer says",
                32,
                min_key.offset,
                ptr_min.offset,
            );
        }
        if max_key != want.max_key {
            return bad(
                ErrorId::BTREE_NODE_BAD_MAX_KEY,
                "node's highest key is not what its pointer says",
                52,
                max_key.offset,
                want.max_key.offset,
            );
        }
        let format = BkeyFormat::from_disk(&disk.format).map_err(|e| e.within(80))?;
        Ok(NodeHeader {
            min_key,
            max_key,
            format,
            seq: entry.bset.seq.get(),
            generation: flags.generation(),
        })
    }

    #[inline(never)]
    fn check_keys(&self, keys: &Keys<'_>, header: &NodeHeader) -> Result<(), Invalid> {
        keys.validate_order(&header.format)?;
        let ctx = KeyContext {
            btree: self.want.btree,
            level: self.want.level,
        };
        for (at, packed) in keys.iter(&header.format) {
            let key = packed.header(&header.format);
            key.validate(ctx).map_err(|e| e.within(at * 8))?;
            if !self.want.range_updated {
                key.validate_range(header.min_key, header.max_key)
                    .map_err(|e| e.within(at * 8))?;
            }
        }
        Ok(())
    }
}

/// Verifies and decrypts all entries of an encrypted node in place, up to `sectors_written` (0: as
/// far as bsets of the node go). Afterwards scan it with [`AlreadyVerified`].
pub fn decrypt_node<K>(words: &mut [u64], want: &NodeWant, key: &K) -> Result<(), Invalid>
where
    K: Checksummer + Cipher + ?Sized,
{
    let limit = NodeScan::new(words, *want)?.limit;
    let mut at = 0;
    let mut seq = None;
    while at < limit {
        let entry = match NodeEntry::at(words, at, want.block_sectors) {
            Ok(entry) => entry,
            Err(e) if at == 0 => return Err(e),
            Err(_) => break,
        };
        if *seq.get_or_insert(entry.bset.seq.get()) != entry.bset.seq.get() {
            break;
        }
        entry.verify(key)?;
        let pieces = entry.crypt_pieces();
        let base = at as usize * SECTOR_BYTES;
        at += entry.sectors();
        let bytes = words.as_mut_bytes();
        for piece in pieces {
            let range = base + piece.bytes.start..base + piece.bytes.end;
            if let Some(data) = bytes.get_mut(range) {
                key.crypt(piece.nonce, data);
            }
        }
    }
    Ok(())
}

/// For scanning a node that [`decrypt_node`] has verified: decryption changes what the checksum
/// covers, so it cannot be verified again.
#[derive(Copy, Clone, Debug)]
pub struct AlreadyVerified;

impl Checksummer for AlreadyVerified {
    fn checksum(&self, _: CsumType, _: Nonce, _: &[u8]) -> Option<Csum> {
        None
    }

    fn verify(&self, _: CsumType, _: Nonce, _: &[u8], _: &Csum) -> Result<(), CsumError> {
        Ok(())
    }
}
