// SPDX-License-Identifier: GPL-2.0
//! Trimming a key to a part of its range.
//!
//! Done on a copy of the key, header and value. What is cut off an encoded extent stays on disk:
//! the checksum entry keeps its sizes and only its offset moves, because the bytes can be checked
//! and decoded only as a whole. Pointers to plain data move instead.
//!
//! Cutting never lengthens a value. A key with nothing left becomes type `deleted`, empty.

use zerocopy::IntoBytes;

use crate::bkey::{Bkey, KeyType, BKEY_U64S};
use crate::error::{ErrorId, Invalid};
use crate::keys::extent::crc::{Crc, CrcKind};
use crate::keys::extent::ptr::{Ptr, PTR_OFFSET_MAX};
use crate::keys::layout::too_small;

/// Cuts `key` so that it begins at offset `start`, the value in `value` with it.
///
/// Nothing happens if the key begins there or later; a key that ends at or before `start` becomes
/// deleted, at the position where it ended. `value` holds the value and may be longer; what
/// `key.u64s` says is the length on entry and on return.
///
/// # Errors
///
/// A value that breaks its type's rules (its offsets cannot be moved as far as asked); key and
/// value are then of no further use.
pub fn cut_front(key: &mut Bkey, value: &mut [u64], start: u64) -> Result<(), Invalid> {
    let begin = key.start_offset();
    if start <= begin {
        return Ok(());
    }
    let sectors = (start - begin).min(u64::from(key.size));
    if sectors == u64::from(key.size) {
        resize(key, 0, None);
        return Ok(());
    }
    let words = value_of(key, value)?;
    let keep = match key.key_type {
        KeyType::EXTENT => {
            cut_front_entries(words, 0, sectors)?;
            None
        }
        KeyType::REFLINK_V => {
            let entries = words.get_mut(1..).ok_or_else(|| too_small(0, 8))?;
            cut_front_entries(entries, 8, sectors)?;
            None
        }
        KeyType::REFLINK_P => {
            let idx = words.first_mut().ok_or_else(|| too_small(0, 16))?;
            *idx = u64::from_le(*idx).wrapping_add(sectors).to_le();
            None
        }
        KeyType::INLINE_DATA => Some(drop_front_bytes(words, 0, sectors)),
        KeyType::INDIRECT_INLINE_DATA => Some(drop_front_bytes(words, 1, sectors)),
        _ => None,
    };
    // Not more than the size, so it fits.
    resize(key, key.size - sectors as u32, keep);
    Ok(())
}

/// Cuts `key` so that it ends at offset `end`, the value in `value` with it.
///
/// Nothing happens if the key ends there or earlier; a key that begins at or after `end` becomes
/// deleted, at `end` or at its begin if that is later. Lengths are as for [`cut_front`].
///
/// # Errors
///
/// The header's length disagrees with `value`.
pub fn cut_back(key: &mut Bkey, value: &mut [u64], end: u64) -> Result<(), Invalid> {
    if end >= key.pos.offset {
        return Ok(());
    }
    let end = end.max(key.start_offset());
    let size = end - key.start_offset();
    let words = value_of(key, value)?;
    let bytes = usize::try_from(size.saturating_mul(512)).unwrap_or(usize::MAX);
    let keep = match key.key_type {
        KeyType::INLINE_DATA => Some(words.len().min(bytes / 8)),
        KeyType::INDIRECT_INLINE_DATA => Some(words.len().min((bytes / 8).saturating_add(1))),
        _ => None,
    };
    key.pos.offset = end;
    resize(key, u32::try_from(size).unwrap_or(key.size), keep);
    Ok(())
}

fn value_of<'v>(key: &Bkey, value: &'v mut [u64]) -> Result<&'v mut [u64], Invalid> {
    let have = value.len();
    let words = usize::from(key.value_u64s());
    value
        .get_mut(..words)
        .ok_or_else(|| too_small(have * 8, words * 8))
}

/// Sets the new size; `keep` is the new length of a value that changed length.
fn resize(key: &mut Bkey, size: u32, keep: Option<usize>) {
    key.size = size;
    if let Some(words) = keep.and_then(|w| u8::try_from(w).ok()) {
        // The value only ever shrinks, so the sum stays what a key can have.
        key.u64s = BKEY_U64S.saturating_add(words);
    }
    if size == 0 {
        key.key_type = KeyType::DELETED;
        key.u64s = BKEY_U64S;
    }
}

/// Drops the bytes of the first `sectors` of inline data that begins at word `header`; returns the
/// words left.
fn drop_front_bytes(words: &mut [u64], header: usize, sectors: u64) -> usize {
    let data = words.get_mut(header..).unwrap_or_default();
    let len = data.len();
    let gone = usize::try_from(sectors.saturating_mul(512 / 8))
        .unwrap_or(usize::MAX)
        .min(len);
    data.rotate_left(gone);
    if let Some(tail) = data.get_mut(len - gone..) {
        tail.as_mut_bytes().fill(0);
    }
    words.len() - gone
}

/// Moves the begin of the live data in a sequence of entries `sectors` on. `base` is the byte of
/// the value at which the entries begin.
fn cut_front_entries(words: &mut [u64], base: usize, sectors: u64) -> Result<(), Invalid> {
    let mut rest = words;
    let mut seen_crc = false;
    let mut offset = base;
    while let Some(first) = rest.first_mut() {
        let word = u64::from_le(*first);
        let (new, len) = match word.trailing_zeros() {
            0 if !seen_crc => {
                let ptr = Ptr::from_word(word);
                let to = ptr.offset() + sectors;
                if to > PTR_OFFSET_MAX {
                    return Err(Invalid::new(
                        ErrorId::EXTENT_PTRS_INVALID_ENTRY,
                        "pointer cut past the end of its device",
                        offset,
                        to,
                        PTR_OFFSET_MAX,
                    ));
                }
                (ptr.with_offset(to).word(), 1)
            }
            0 | 4 | 5 => (word, 1),
            1 => (advance(CrcKind::Crc32, word, sectors, offset)?, 1),
            2 => (advance(CrcKind::Crc64, word, sectors, offset)?, 2),
            3 => (advance(CrcKind::Crc128, word, sectors, offset)?, 3),
            kind => {
                return Err(Invalid::new(
                    ErrorId::EXTENT_PTRS_INVALID_ENTRY,
                    "entry of unknown kind",
                    offset,
                    u64::from(kind),
                    5,
                ))
            }
        };
        seen_crc |= matches!(word.trailing_zeros(), 1..=3);
        *first = new.to_le();
        offset += 8 * len;
        rest = rest.get_mut(len..).unwrap_or_default();
    }
    Ok(())
}

fn advance(kind: CrcKind, word: u64, sectors: u64, offset: usize) -> Result<u64, Invalid> {
    Crc::advance_offset(kind, word, sectors).ok_or_else(|| {
        Invalid::new(
            ErrorId::PTR_CRC_UNCOMPRESSED_SIZE_TOO_SMALL,
            "cut past the uncompressed size",
            offset,
            sectors,
            u64::from(kind.size_max()),
        )
    })
}
