// SPDX-License-Identifier: GPL-2.0
//! Reading and writing the bytes of a value.
//!
//! Every accessor here tolerates a value of any length: what is missing reads as zero or as `None`,
//! and a write that does not fit is an error. That is what keeps the per-type files free of
//! indexing and of panics on damaged keys.
//!
//! Context: pure functions, no allocation, callable anywhere.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bkey::BKEY_VAL_U64S_MAX;
use crate::error::{ErrorId, Invalid};

/// The complaint about a value shorter than its type's fixed part.
pub(crate) fn too_small(got: usize, want: usize) -> Invalid {
    Invalid::new(
        ErrorId::BKEY_VAL_SIZE_TOO_SMALL,
        "value too small for its type",
        0,
        got as u64,
        want as u64,
    )
}

/// The bits `lo..hi` of `word`, shifted down.
pub(crate) const fn bits(word: u64, lo: u32, hi: u32) -> u64 {
    (word >> lo) & mask(hi - lo)
}

/// `word` with its bits `lo..hi` replaced by the low bits of `value`.
pub(crate) const fn with_bits(word: u64, lo: u32, hi: u32, value: u64) -> u64 {
    let m = mask(hi - lo);
    (word & !(m << lo)) | ((value & m) << lo)
}

const fn mask(width: u32) -> u64 {
    if width >= 64 {
        u64::MAX
    } else {
        (1 << width) - 1
    }
}

/// The front of `bytes` as a `T`, with fields beyond the end of `bytes` read as zero.
///
/// Old writers stored shorter forms of some values; the format defines their missing tail as zero.
pub(crate) fn read_padded<T: FromBytes + IntoBytes>(bytes: &[u8]) -> T {
    let mut out = T::new_zeroed();
    for (to, from) in out.as_mut_bytes().iter_mut().zip(bytes) {
        *to = *from;
    }
    out
}

/// The front of `bytes` as a `T`; bytes beyond the end read as zero, but `min` there have to be.
pub(crate) fn read_fixed<T: FromBytes + IntoBytes>(bytes: &[u8], min: usize) -> Result<T, Invalid> {
    if bytes.len() < min {
        return Err(too_small(bytes.len(), min));
    }
    Ok(read_padded(bytes))
}

/// Views the front of `bytes` as a `T` without copying; `None` if it is too short.
pub(crate) fn view<T>(bytes: &[u8]) -> Option<(&T, &[u8])>
where
    T: FromBytes + KnownLayout + Immutable + Unaligned,
{
    T::ref_from_prefix(bytes).ok()
}

/// The bytes `from..from + N` of `bytes`, if they exist.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], from: usize) -> Option<[u8; N]> {
    bytes.get(from..)?.first_chunk::<N>().copied()
}

/// Why a value could not be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BuildError {
    /// The caller's buffer holds fewer words than the value has.
    NoRoom,
    /// The content has no on-disk form; the text names the field.
    Unrepresentable(&'static str),
}

/// Fills a caller's words with the bytes of a value.
///
/// # Invariants
///
/// `len <= 8 * words.len()`; all bytes of the words touched so far beyond `len` are zero.
pub(crate) struct ValueWriter<'a> {
    words: &'a mut [u64],
    len: usize,
}

impl<'a> ValueWriter<'a> {
    /// Starts an empty value in `words`.
    pub(crate) fn new(words: &'a mut [u64]) -> Self {
        Self { words, len: 0 }
    }

    /// Appends `bytes`.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), BuildError> {
        let end = self
            .len
            .checked_add(bytes.len())
            .ok_or(BuildError::NoRoom)?;
        // Words are cleared as the value grows into them, so the padding of the last is zero.
        let fresh = self.len.div_ceil(8)..end.div_ceil(8);
        self.words.get_mut(fresh).ok_or(BuildError::NoRoom)?.fill(0);
        self.words
            .as_mut_bytes()
            .get_mut(self.len..end)
            .ok_or(BuildError::NoRoom)?
            .copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    /// Appends a disk structure.
    pub(crate) fn put<T: IntoBytes + Immutable>(&mut self, value: &T) -> Result<(), BuildError> {
        self.bytes(value.as_bytes())
    }

    /// Appends one 8-byte word.
    pub(crate) fn word(&mut self, word: u64) -> Result<(), BuildError> {
        self.bytes(&word.to_le_bytes())
    }

    /// Ends the value; its length in words, the last one zero padded.
    pub(crate) fn finish(self) -> Result<usize, BuildError> {
        let words = self.len.div_ceil(8);
        if words > usize::from(BKEY_VAL_U64S_MAX) {
            return Err(BuildError::Unrepresentable(
                "value longer than a key allows",
            ));
        }
        Ok(words)
    }
}

/// Writes one disk structure as a whole value; returns the words used.
pub(crate) fn build_struct<T: IntoBytes + Immutable>(
    value: &T,
    out: &mut [u64],
) -> Result<usize, BuildError> {
    let mut w = ValueWriter::new(out);
    w.put(value)?;
    w.finish()
}

/// Asserts the size of a disk structure and the offset of each of its fields at compile time.
macro_rules! assert_layout {
    ($ty:ty, $size:literal, { $($field:ident: $offset:literal),+ $(,)? }) => {
        const _: () = {
            assert!(core::mem::size_of::<$ty>() == $size);
            assert!(core::mem::align_of::<$ty>() == 1);
            $(assert!(core::mem::offset_of!($ty, $field) == $offset);)+
        };
    };
}
pub(crate) use assert_layout;
