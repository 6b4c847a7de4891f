// SPDX-License-Identifier: GPL-2.0
//! Making journal entries, and lists of records for the clean section.

use core::fmt;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::entry::{EntryType, RawEntry, UsageKind};
use super::{DiskJset, CSUM_BYTES, JSET_BYTES_MAX, JSET_HEADER_BYTES};
use crate::bkey::KeyRef;
use crate::btree_id::BtreeId;
use crate::checksum::{Checksummer, Cipher, Csum, CsumType};
use crate::version::Version;

/// Why an entry could not be made.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum JsetError {
    /// The buffer or the size limit of the format is exhausted.
    NoSpace,
    /// A key's header does not match its value.
    BadKey,
    /// The checksum type cannot be computed.
    Checksum(CsumType),
}

impl fmt::Display for JsetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsetError::NoSpace => f.write_str("no room in the journal entry"),
            JsetError::BadKey => f.write_str("key length does not match its value"),
            JsetError::Checksum(t) => write!(f, "cannot compute checksum type {t}"),
        }
    }
}

/// Appends records to a buffer. Used for journal entries and for the clean section.
#[derive(Debug)]
pub struct EntryWriter<'a> {
    words: &'a mut [u64],
    used: usize,
}

impl<'a> EntryWriter<'a> {
    /// Into `words`, from the start.
    pub fn new(words: &'a mut [u64]) -> Self {
        EntryWriter { words, used: 0 }
    }

    /// Words used so far.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Appends a record with the payload `parts`, one after the other. On failure nothing is
    /// changed.
    pub fn record(
        &mut self,
        entry_type: EntryType,
        btree: BtreeId,
        level: u8,
        parts: &[&[u64]],
    ) -> Result<(), JsetError> {
        let u64s = parts.iter().map(|p| p.len()).sum::<usize>();
        let len = u16::try_from(u64s).map_err(|_| JsetError::NoSpace)?;
        let end = self.used.saturating_add(1).saturating_add(u64s);
        let room = self
            .words
            .get_mut(self.used..end)
            .ok_or(JsetError::NoSpace)?;
        let (head, payload) = room.split_first_mut().ok_or(JsetError::NoSpace)?;
        *head = RawEntry::header_word(entry_type, btree, level, len);
        let source = parts.iter().copied().flatten();
        for (to, from) in payload.iter_mut().zip(source) {
            *to = *from;
        }
        self.used = end;
        Ok(())
    }

    /// Appends a record of type `entry_type` with one key.
    pub fn key(
        &mut self,
        entry_type: EntryType,
        btree: BtreeId,
        level: u8,
        key: &KeyRef<'_>,
    ) -> Result<(), JsetError> {
        if usize::from(key.key.value_u64s()) != key.value.len() {
            return Err(JsetError::BadKey);
        }
        let mut header = key.key;
        header.needs_whiteout = false;
        self.record(entry_type, btree, level, &[&header.to_words(), key.value])
    }

    /// Appends the root of a btree; `level` is that of the root node.
    pub fn root(&mut self, btree: BtreeId, level: u8, ptr: &KeyRef<'_>) -> Result<(), JsetError> {
        self.key(EntryType::BTREE_ROOT, btree, level, ptr)
    }

    /// Appends one of the filesystem's counters.
    pub fn usage(&mut self, kind: UsageKind, value: u64) -> Result<(), JsetError> {
        self.record(EntryType::USAGE, BtreeId(kind.0), 0, &[&[value]])
    }

    /// Appends an io clock: `rw` is 0 for read, 1 for write.
    pub fn clock(&mut self, rw: u8, time: u64) -> Result<(), JsetError> {
        let payload = [u64::from(rw), time];
        self.record(EntryType::CLOCK, BtreeId(0), 0, &[&payload])
    }

    /// Appends the time, in seconds since the epoch.
    pub fn datetime(&mut self, seconds: u64) -> Result<(), JsetError> {
        self.record(EntryType::DATETIME, BtreeId(0), 0, &[&[seconds]])
    }

    /// Appends text as a log message, cut to 248 bytes.
    pub fn log(&mut self, text: &[u8]) -> Result<(), JsetError> {
        let mut words = [0u64; 31];
        let bytes = words.as_mut_bytes();
        for (to, from) in bytes.iter_mut().zip(text) {
            *to = *from;
        }
        let len = text.len().div_ceil(8).min(words.len());
        let used = words.get(..len).unwrap_or(&[]);
        self.record(EntryType::LOG, BtreeId(0), 1, &[used])
    }
}

/// What a journal entry's header says.
#[derive(Copy, Clone, Debug)]
pub struct NewJset {
    /// Magic of this filesystem's journal.
    pub magic: u64,
    /// Sequence number.
    pub seq: u64,
    /// Oldest sequence number replay needs; `None` for an entry written without a flush.
    pub last_seq: Option<u64>,
    /// Version of the filesystem.
    pub version: Version,
    /// Checksum type; a MAC means that the entry is encrypted.
    pub csum_type: CsumType,
}

/// Makes a journal entry in a caller's buffer.
#[derive(Debug)]
pub struct JsetBuilder<'a> {
    words: &'a mut [u64],
    used: usize,
}

const HEADER_U64S: usize = JSET_HEADER_BYTES / 8;

impl<'a> JsetBuilder<'a> {
    /// Starts an entry at the start of `words`.
    pub fn new(words: &'a mut [u64]) -> Self {
        JsetBuilder { words, used: 0 }
    }

    /// Goes on with an entry of which `used` words of records are there already, behind the room for the header.
    pub fn resume(words: &'a mut [u64], used: usize) -> Self {
        JsetBuilder { words, used }
    }

    /// Adds records through `fill`. What it added stays only if it succeeds.
    pub fn records<R>(
        &mut self,
        fill: impl FnOnce(&mut EntryWriter<'_>) -> Result<R, JsetError>,
    ) -> Result<R, JsetError> {
        let start = HEADER_U64S + self.used;
        let limit = self.words.len().min(JSET_BYTES_MAX / 8);
        let room = self.words.get_mut(start..limit).ok_or(JsetError::NoSpace)?;
        let mut writer = EntryWriter::new(room);
        let result = fill(&mut writer)?;
        self.used += writer.used();
        Ok(result)
    }

    /// Writes the header, encrypts if the checksum type asks for it, stores the checksum, and zeroes
    /// the rest of the last block. Returns the bytes to write, whole blocks of `block_bytes`.
    pub fn finish<C: Checksummer + ?Sized>(
        self,
        jset: &NewJset,
        block_bytes: usize,
        csum: &C,
        cipher: Option<&dyn Cipher>,
    ) -> Result<usize, JsetError> {
        let header = DiskJset {
            csum: Csum::ZERO,
            magic: U64::new(jset.magic),
            seq: U64::new(jset.seq),
            version: U32::new(jset.version.0.into()),
            flags: U32::new(
                u32::from(jset.csum_type.0 & 0xf)
                    | if jset.last_seq.is_none() {
                        DiskJset::NO_FLUSH
                    } else {
                        0
                    },
            ),
            u64s: U32::new(u32::try_from(self.used).map_err(|_| JsetError::NoSpace)?),
            read_clock: U16::ZERO,
            write_clock: U16::ZERO,
            last_seq: U64::new(jset.last_seq.unwrap_or(0)),
        };
        let bytes = header.bytes();
        let total = bytes
            .checked_next_multiple_of(block_bytes)
            .ok_or(JsetError::NoSpace)?;
        let all = self
            .words
            .as_mut_bytes()
            .get_mut(..total)
            .ok_or(JsetError::NoSpace)?;
        let (data, pad) = all.split_at_mut_checked(bytes).ok_or(JsetError::NoSpace)?;
        pad.fill(0);
        let (on_disk, _) = DiskJset::mut_from_prefix(data).map_err(|_| JsetError::NoSpace)?;
        *on_disk = header;
        if let Some(piece) = header.crypt_piece() {
            let cipher = cipher.ok_or(JsetError::Checksum(jset.csum_type))?;
            if let Some(data) = data.get_mut(piece.bytes) {
                cipher.crypt(piece.nonce, data);
            }
        }
        let (stored, covered) = data
            .split_at_mut_checked(CSUM_BYTES)
            .ok_or(JsetError::NoSpace)?;
        let value = csum
            .checksum(jset.csum_type, header.nonce(), covered)
            .ok_or(JsetError::Checksum(jset.csum_type))?;
        stored.copy_from_slice(value.as_bytes());
        Ok(total)
    }
}
