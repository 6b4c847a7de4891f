// SPDX-License-Identifier: GPL-2.0
//! Memory of the overlay: keys one after another in chunks, addressed by small handles.

use bcachefs_format::{bkey::BKEY_U64S, Bkey, Bpos, BtreeId, KeyRef, KeyType};
use kernel::prelude::*;

use crate::util::error::{Error, Result};

const CHUNK_BITS: u32 = 17;
/// Words of a chunk: 1 MiB.
const CHUNK_WORDS: usize = 1 << CHUNK_BITS;
const ADDRESS_BITS: u32 = 48;

/// Where a key is, and which btree and level it belongs to.
///
/// Bits 0..17: word within the chunk, 17..48: chunk, 48..56: level, 56..64: btree. Later keys have
/// higher addresses, so comparing handles of one tree compares age.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Handle(u64);

impl Handle {
    /// Bits that say which btree and level.
    pub(super) const fn tree(btree: BtreeId, level: u8) -> u64 {
        (btree.0 as u64) << 8 | level as u64
    }

    fn new(btree: BtreeId, level: u8, at: Address) -> Self {
        Handle(Self::tree(btree, level) << ADDRESS_BITS | at.0)
    }

    pub(super) fn tree_bits(self) -> u64 {
        self.0 >> ADDRESS_BITS
    }

    pub(super) fn btree(self) -> BtreeId {
        BtreeId((self.0 >> 56) as u8)
    }

    pub(super) fn level(self) -> u8 {
        (self.0 >> ADDRESS_BITS) as u8
    }

    pub(super) fn address(self) -> Address {
        Address(self.0 & ((1 << ADDRESS_BITS) - 1))
    }

    fn moved(self, at: Address) -> Self {
        Handle(self.tree_bits() << ADDRESS_BITS | at.0)
    }
}

/// Chunk and word.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address(u64);

impl Address {
    fn new(chunk: usize, word: usize) -> Self {
        Address((chunk as u64) << CHUNK_BITS | word as u64)
    }

    fn chunk(self) -> usize {
        (self.0 >> CHUNK_BITS) as usize
    }

    fn word(self) -> usize {
        (self.0 as usize) & (CHUNK_WORDS - 1)
    }
}

/// The chunks. A record is the sequence number, then the key's words.
///
/// # Invariants
///
/// Records do not cross chunks; every chunk but the last is full except for the words the record
/// after it did not fit into.
pub(super) struct Store {
    chunks: KVec<KVVec<u64>>,
}

impl Store {
    pub(super) const fn new() -> Self {
        Store { chunks: KVec::new() }
    }

    /// Words in use, the unused ends of chunks included.
    pub(super) fn words(&self) -> usize {
        match self.chunks.last() {
            Some(last) => (self.chunks.len() - 1) * CHUNK_WORDS + last.len(),
            None => 0,
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.chunks.iter().map(|c| c.capacity() * 8).sum()
    }

    /// Adds a key. The room a node pointer has for a hint in memory, garbage on disk, is cleared.
    pub(super) fn push(
        &mut self,
        seq: u64,
        btree: BtreeId,
        level: u8,
        key: &KeyRef<'_>,
    ) -> Result<Handle> {
        if key.value.len() != usize::from(key.key.value_u64s()) {
            return Err(Error::MetadataInvalid);
        }
        let words = 1 + usize::from(BKEY_U64S) + key.value.len();
        let fits = |c: &KVVec<u64>| c.len() + words <= CHUNK_WORDS;
        if !self.chunks.last().is_some_and(fits) {
            if self.chunks.len() >= 1 << (ADDRESS_BITS - CHUNK_BITS) {
                return Err(Error::JournalTooBig);
            }
            let chunk = KVVec::with_capacity(CHUNK_WORDS, GFP_KERNEL | __GFP_NOWARN)?;
            self.chunks.push(chunk, GFP_KERNEL)?;
        }
        let nr = self.chunks.len();
        let Some(chunk) = self.chunks.last_mut() else {
            return Err(Error::NoMem);
        };
        let at = chunk.len();
        chunk.push(seq, GFP_KERNEL)?;
        chunk.extend_from_slice(&key.key.to_words(), GFP_KERNEL)?;
        chunk.extend_from_slice(key.value, GFP_KERNEL)?;
        if key.key.key_type == KeyType::BTREE_PTR_V2 {
            if let Some(hint) = chunk.get_mut(at + 1 + usize::from(BKEY_U64S)) {
                *hint = 0;
            }
        }
        Ok(Handle::new(btree, level, Address::new(nr - 1, at)))
    }

    /// The record at `h`: sequence number and what follows it in the chunk.
    fn record(&self, h: Handle) -> Option<(u64, &[u64])> {
        let at = h.address();
        let (seq, rest) = self
            .chunks
            .get(at.chunk())?
            .get(at.word()..)?
            .split_first()?;
        Some((*seq, rest))
    }

    pub(super) fn seq(&self, h: Handle) -> Option<u64> {
        Some(self.record(h)?.0)
    }

    pub(super) fn key(&self, h: Handle) -> Option<KeyRef<'_>> {
        let (header, rest) = self.record(h)?.1.split_first_chunk::<{ BKEY_U64S as usize }>()?;
        let key = Bkey::from_words(header);
        Some(KeyRef {
            key,
            value: rest.get(..usize::from(key.value_u64s()))?,
        })
    }

    /// Position of the key at `h`. Handles are made by [`Self::push`], so there always is one.
    pub(super) fn pos(&self, h: Handle) -> Bpos {
        self.record(h)
            .and_then(|r| r.1.first_chunk::<{ BKEY_U64S as usize }>())
            .map_or(Bpos::SPOS_MAX, |w| Bkey::from_words(w).pos)
    }

    /// Words of the record at `h`.
    pub(super) fn record_words(&self, h: Handle) -> usize {
        self.key(h)
            .map_or(0, |k| 1 + usize::from(BKEY_U64S) + k.value.len())
    }

    /// Throws away all records but those in `live`, which is sorted by address, and updates `live`.
    ///
    /// Records move to lower addresses only and keep their order, so nothing is allocated.
    pub(super) fn compact(&mut self, live: &mut [Handle]) {
        let (mut chunk, mut word) = (0, 0);
        for h in live.iter_mut() {
            let n = self.record_words(*h);
            let from = h.address();
            if word + n > CHUNK_WORDS {
                self.cut(chunk, word);
                chunk += 1;
                word = 0;
            }
            self.copy_down(from, chunk, word, n);
            *h = h.moved(Address::new(chunk, word));
            word += n;
        }
        self.cut(chunk, word);
        let keep = if word == 0 { chunk } else { chunk + 1 };
        self.chunks.truncate(keep);
    }

    fn cut(&mut self, chunk: usize, words: usize) {
        if let Some(c) = self.chunks.get_mut(chunk) {
            c.truncate(words);
        }
    }

    /// Copies `n` words from `from` to the same or a lower address.
    fn copy_down(&mut self, from: Address, chunk: usize, word: usize, n: usize) {
        if from.chunk() == chunk {
            if let Some(c) = self.chunks.get_mut(chunk) {
                if from.word().saturating_add(n) <= c.len() && word <= from.word() {
                    c.copy_within(from.word()..from.word() + n, word);
                }
            }
            return;
        }
        let Some((low, high)) = self.chunks.split_at_mut_checked(from.chunk()) else {
            return;
        };
        let (Some(to), Some(from)) = (
            low.get_mut(chunk),
            high.first()
                .and_then(|c| c.get(from.word()..from.word() + n)),
        ) else {
            return;
        };
        // Chunks have room for all their words from the start: this does not allocate, so it does not
        // fail either.
        to.truncate(word);
        let _ = to.extend_from_slice(from, GFP_KERNEL);
    }
}
