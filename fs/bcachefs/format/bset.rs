// SPDX-License-Identifier: GPL-2.0
//! Bsets: sorted runs of keys, and walking over their keys.
//!
//! A bset is what one write to a node adds: a 24-byte header and keys in strictly ascending order,
//! packed ones and unpacked ones mixed. Nothing here copies a key; a [`PackedRef`] is a slice of the
//! bset's words and unpacks on demand.

mod build;

use core::cmp::Ordering;
use core::fmt;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bkey::{Bkey, KeyRef, KeyType, BKEY_U64S, KEY_FORMAT_CURRENT, KEY_FORMAT_LOCAL_BTREE};
use crate::checksum::CsumType;
use crate::error::{ErrorId, Invalid};
use crate::packed::{BkeyFormat, SearchPos};
use crate::pos::Bpos;
use crate::version::Version;

pub use build::{BsetBuilder, PushError};

/// The header of a bset as stored (24 bytes). Never encrypted.
#[derive(
    Copy,
    Clone,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(C)]
pub struct DiskBset {
    /// Random number of the node, the same in each of its bsets.
    pub seq: U64,
    /// Highest journal sequence number whose updates are in the bset.
    pub journal_seq: U64,
    /// Bits 0..4 checksum type, 4 big endian, 5 separate whiteouts, 16..32 sector offset.
    pub flags: U32,
    /// Metadata version when it was written.
    pub version: U16,
    /// Words of keys.
    pub u64s: U16,
}

const _: () = assert!(core::mem::size_of::<DiskBset>() == 24);

impl DiskBset {
    /// The flags word from its parts.
    pub fn make_flags(csum_type: CsumType, offset_sectors: u16) -> U32 {
        U32::new(u32::from(csum_type.0 & 0xf) | u32::from(offset_sectors) << 16)
    }

    /// Type of the checksum.
    pub fn csum_type(&self) -> CsumType {
        CsumType((self.flags.get() & 0xf) as u8)
    }

    /// Whether the keys are big-endian; never on a filesystem we read.
    pub fn is_big_endian(&self) -> bool {
        self.flags.get() & 1 << 4 != 0
    }

    /// Whether whiteouts are kept apart; not supported.
    pub fn has_separate_whiteouts(&self) -> bool {
        self.flags.get() & 1 << 5 != 0
    }

    /// Offset of the entry in its node, in sectors; 0 where it was not recorded.
    pub fn offset_sectors(&self) -> u16 {
        (self.flags.get() >> 16) as u16
    }

    /// Metadata version when it was written.
    pub fn version(&self) -> Version {
        Version(self.version.get())
    }
}

impl fmt::Display for DiskBset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seq {:x} journal_seq {} offset {} u64s {} version {:?} csum {}",
            self.seq.get(),
            self.journal_seq.get(),
            self.offset_sectors(),
            self.u64s.get(),
            self.version(),
            self.csum_type()
        )
    }
}

/// One key inside a bset, packed or not: exactly its words, header and value.
///
/// # Invariants
///
/// `words` is as long as its first byte says, at least as long as the header, and its format is one
/// of the two known ones.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct PackedRef<'a> {
    words: &'a [u64],
}

impl<'a> PackedRef<'a> {
    /// The key that starts at word `at` of `words`, in a node with format `format`. Errors count
    /// bytes from the start of `words`.
    #[inline]
    pub fn at(words: &'a [u64], at: usize, format: &BkeyFormat) -> Result<Self, Invalid> {
        let Some(&w0) = words.get(at) else {
            return Err(Invalid::new(
                ErrorId::BTREE_NODE_BKEY_PAST_BSET_END,
                "key starts past the end of its bset",
                at.saturating_mul(8),
                at as u64,
                words.len() as u64,
            ));
        };
        let u64s = (w0 & 0xff) as usize;
        let header = match (w0 >> 8 & 0x7f) as u8 {
            KEY_FORMAT_LOCAL_BTREE => format.key_u64s(),
            KEY_FORMAT_CURRENT => BKEY_U64S,
            other => {
                return Err(Invalid::new(
                    ErrorId::BTREE_NODE_BKEY_BAD_FORMAT,
                    "key has an unknown format number",
                    at.saturating_mul(8).saturating_add(1),
                    other.into(),
                    KEY_FORMAT_CURRENT.into(),
                ))
            }
        };
        if u64s < usize::from(header) {
            return Err(Invalid::new(
                ErrorId::BTREE_NODE_BKEY_BAD_U64S,
                "key is shorter than its header",
                at.saturating_mul(8),
                u64s as u64,
                header.into(),
            ));
        }
        match at.checked_add(u64s).and_then(|end| words.get(at..end)) {
            Some(words) => Ok(PackedRef { words }),
            None => Err(Invalid::new(
                ErrorId::BTREE_NODE_BKEY_PAST_BSET_END,
                "key extends past the end of its bset",
                at.saturating_mul(8),
                at.saturating_add(u64s) as u64,
                words.len() as u64,
            )),
        }
    }

    #[inline]
    fn word0(&self) -> u64 {
        self.words.first().copied().unwrap_or(0)
    }

    /// All words: header and value.
    #[inline]
    pub const fn words(&self) -> &'a [u64] {
        self.words
    }

    /// Words of header and value.
    #[inline]
    pub const fn u64s(&self) -> usize {
        self.words.len()
    }

    /// Whether the header is packed with the node's format.
    #[inline]
    pub fn is_packed(&self) -> bool {
        self.word0() >> 8 & 0x7f == KEY_FORMAT_LOCAL_BTREE.into()
    }

    /// Type of the value.
    #[inline]
    pub fn key_type(&self) -> KeyType {
        KeyType((self.word0() >> 16) as u8)
    }

    /// Whether the key only says that nothing is at its position.
    #[inline]
    pub fn is_deleted(&self) -> bool {
        self.key_type() == KeyType::DELETED
    }

    #[inline]
    fn unpacked_header(&self) -> Option<&'a [u64; BKEY_U64S as usize]> {
        self.words.first_chunk()
    }

    /// The position, without unpacking the rest.
    #[inline]
    pub fn pos(&self, format: &BkeyFormat) -> Bpos {
        if self.is_packed() {
            return format.unpack_pos(self.words);
        }
        match self.unpacked_header() {
            Some(w) => Bpos::with_snapshot(w[4], w[3], (w[2] >> 32) as u32),
            None => Bpos::POS_MIN,
        }
    }

    /// The unpacked header.
    #[inline]
    pub fn header(&self, format: &BkeyFormat) -> Bkey {
        if self.is_packed() {
            return format.unpack(self.words);
        }
        match self.unpacked_header() {
            Some(w) => Bkey::from_words(w),
            None => Bkey::deleted(Bpos::POS_MIN),
        }
    }

    /// The value.
    #[inline]
    pub fn value(&self, format: &BkeyFormat) -> &'a [u64] {
        let header = if self.is_packed() {
            format.key_u64s()
        } else {
            BKEY_U64S
        };
        self.words.get(usize::from(header)..).unwrap_or(&[])
    }

    /// Header and value.
    #[inline]
    pub fn unpack(&self, format: &BkeyFormat) -> KeyRef<'a> {
        KeyRef {
            key: self.header(format),
            value: self.value(format),
        }
    }

    /// Compares positions with another key of the same node.
    #[inline]
    pub fn cmp(&self, other: &PackedRef<'_>, format: &BkeyFormat) -> Ordering {
        if self.is_packed() && other.is_packed() {
            format.cmp_packed(self.words, other.words)
        } else {
            self.pos(format).cmp(&other.pos(format))
        }
    }

    /// Compares the position with one prepared with the same format: `Less` if the key is below.
    #[inline]
    pub fn cmp_search(&self, search: &SearchPos, format: &BkeyFormat) -> Ordering {
        if self.is_packed() {
            search.cmp_key(format, self.words)
        } else {
            self.pos(format).cmp(&search.pos())
        }
    }
}

/// The keys of one bset.
#[derive(Copy, Clone, Debug)]
pub struct Keys<'a> {
    words: &'a [u64],
}

impl<'a> Keys<'a> {
    /// Over the words after a bset's header.
    #[inline]
    pub const fn new(words: &'a [u64]) -> Self {
        Keys { words }
    }

    /// The words of all keys.
    #[inline]
    pub const fn words(&self) -> &'a [u64] {
        self.words
    }

    /// The key at word `at`; `None` at or past the end, and where no well-formed key starts.
    #[inline]
    pub fn get(&self, at: usize, format: &BkeyFormat) -> Option<PackedRef<'a>> {
        PackedRef::at(self.words, at, format).ok()
    }

    /// The word of the first key from word `at` on that is not below the searched position; the end, if all are.
    #[inline]
    pub fn first_from(&self, at: usize, format: &BkeyFormat, search: &SearchPos) -> usize {
        let mut at = at;
        let last = usize::from(format.key_u64s()).saturating_sub(1);
        let mask = format.top_mask();
        loop {
            // Mostly the highest word decides.
            let head = self.words.get(at).copied().unwrap_or(0);
            if head >> 8 & 0x7f == KEY_FORMAT_LOCAL_BTREE.into() {
                if let (Some(top), Some(want)) = (self.words.get(at + last), search.top()) {
                    let top = top & mask;
                    if top < want {
                        at += (head as u8).max(1) as usize;
                        continue;
                    }
                    if top > want {
                        return at;
                    }
                }
            }
            match self.get(at, format) {
                Some(key) if key.cmp_search(search, format) == Ordering::Less => at += key.u64s(),
                _ => return at,
            }
        }
    }

    /// All keys in order, each with the word it starts at. Ends at the first malformed key, of which
    /// a validated bset has none.
    #[inline]
    pub fn iter<'f>(&self, format: &'f BkeyFormat) -> KeyIter<'a, 'f> {
        KeyIter {
            words: self.words,
            at: 0,
            format,
        }
    }

    /// Checks that the keys fill the bset exactly and ascend. Readers accept a repeated position only
    /// where the first is a deletion or neither is.
    pub fn validate_order(&self, format: &BkeyFormat) -> Result<(), Invalid> {
        let mut at = 0;
        let mut prev: Option<PackedRef<'_>> = None;
        while at < self.words.len() {
            let key = PackedRef::at(self.words, at, format)?;
            let in_order = prev.is_none_or(|p| match p.cmp(&key, format) {
                Ordering::Less => true,
                Ordering::Equal => !key.is_deleted(),
                Ordering::Greater => false,
            });
            if !in_order {
                let (got, want) = (key.pos(format), prev.map(|p| p.pos(format)));
                return Err(Invalid::new(
                    ErrorId::BTREE_NODE_BKEY_OUT_OF_ORDER,
                    "key is not above the one before it",
                    at * 8,
                    got.offset,
                    want.map_or(0, |p| p.offset),
                ));
            }
            prev = Some(key);
            at += key.u64s();
        }
        Ok(())
    }
}

/// Iterator over the keys of a bset.
#[derive(Clone, Debug)]
pub struct KeyIter<'a, 'f> {
    words: &'a [u64],
    at: usize,
    format: &'f BkeyFormat,
}

impl<'a> Iterator for KeyIter<'a, '_> {
    /// Word at which the key starts, and the key.
    type Item = (usize, PackedRef<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.words.len() {
            return None;
        }
        match PackedRef::at(self.words, self.at, self.format) {
            Ok(key) => {
                let at = self.at;
                // At least 1: no header is shorter.
                self.at += key.u64s();
                Some((at, key))
            }
            Err(_) => {
                self.at = self.words.len();
                None
            }
        }
    }
}
