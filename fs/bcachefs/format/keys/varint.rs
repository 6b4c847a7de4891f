// SPDX-License-Identifier: GPL-2.0
//! Variable-length integers, as used by inodes and by old allocation keys.
//!
//! A number of `b` bits takes `n = max(1, ceil(b / 7))` bytes. Up to eight bytes are the
//! little-endian number `(v << n) | (2^(n-1) - 1)`, so the length is one more than the trailing one
//! bits of the first byte; nine bytes are `0xff` and the plain number.

/// Longest encoding in bytes.
pub const VARINT_MAX: usize = 9;

/// Decodes the number at the front of `bytes`; returns it and its length. `None` if it is cut off.
#[inline]
pub fn decode(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let len = first.trailing_ones() as usize + 1;
    if len == VARINT_MAX {
        let word = bytes.get(1..)?.first_chunk::<8>()?;
        return Some((u64::from_le_bytes(*word), len));
    }
    // Reading a whole word is much quicker than gathering bytes; only the last few numbers of a
    // value have less than a word after them.
    let word = match bytes.first_chunk::<8>() {
        Some(word) => u64::from_le_bytes(*word),
        None => {
            let mut word = 0;
            for (i, b) in bytes.get(..len)?.iter().enumerate() {
                word |= u64::from(*b) << (8 * i);
            }
            word
        }
    };
    // `len` is 1..=8, so this drops the bytes after the number and then the length bits.
    Some(((word << (64 - 8 * len)) >> (64 - 8 * len) >> len, len))
}

/// Encodes `v` in its shortest form; returns the bytes and how many of them count.
#[inline]
pub fn encode(v: u64) -> ([u8; VARINT_MAX], usize) {
    let bits = 64 - v.leading_zeros();
    let len = (bits.div_ceil(7) as usize).max(1);
    let mut out = [0xff; VARINT_MAX];
    if len >= VARINT_MAX {
        for (to, from) in out.iter_mut().skip(1).zip(v.to_le_bytes()) {
            *to = from;
        }
        return (out, VARINT_MAX);
    }
    let word = (v << len) | ((1 << (len - 1)) - 1);
    for (to, from) in out.iter_mut().zip(word.to_le_bytes()) {
        *to = from;
    }
    (out, len)
}
