// SPDX-License-Identifier: GPL-2.0
//! SipHash-2-4, and the variant of it that the format has for extended attributes.

/// The four words of state, and how far the message has been taken in.
struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    fn new(k0: u64, k1: u64) -> Self {
        Self {
            v0: k0 ^ u64::from_be_bytes(*b"somepseu"),
            v1: k1 ^ u64::from_be_bytes(*b"dorandom"),
            v2: k0 ^ u64::from_be_bytes(*b"lygenera"),
            v3: k1 ^ u64::from_be_bytes(*b"tedbytes"),
        }
    }

    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }

    fn block(&mut self, m: u64) {
        self.v3 ^= m;
        self.round();
        self.round();
        self.v0 ^= m;
    }

    fn finish(mut self) -> u64 {
        self.v2 ^= 0xff;
        for _ in 0..4 {
            self.round();
        }
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }
}

/// Up to seven bytes as the low bytes of a word.
fn tail_word(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, b| (word << 8) | u64::from(*b))
}

/// The last block: the bytes left over and, on top, the length modulo 256.
fn last_block(tail: u64, len: usize) -> u64 {
    tail | ((len as u64 & 0xff) << 56)
}

/// SipHash-2-4 of `data` under the key `k0`, `k1`.
pub(super) fn hash(k0: u64, k1: u64, data: &[u8]) -> u64 {
    let mut s = State::new(k0, k1);
    let mut rest = data;
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        s.block(u64::from_le_bytes(*word));
        rest = after;
    }
    s.block(last_block(tail_word(rest), data.len()));
    s.finish()
}

/// The hash of an attribute's type byte and name.
///
/// That is SipHash-2-4 of the two in a row, but for the last block when the name fills the first
/// block and bytes are left over after whole blocks: the format then has the type byte again in
/// front of the bytes left over, and drops the last of those to make room. What was an accident of
/// the first implementation fixed the place of every such attribute.
pub(super) fn hash_xattr(k0: u64, k1: u64, xattr_type: u8, name: &[u8]) -> u64 {
    let len = name.len() + 1;
    let mut s = State::new(k0, k1);
    let head = u64::from(xattr_type);
    let Some((first, mut rest)) = name.split_first_chunk::<7>() else {
        s.block(last_block(head | (tail_word(name) << 8), len));
        return s.finish();
    };
    s.block(head | (tail_word(first) << 8));
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        s.block(u64::from_le_bytes(*word));
        rest = after;
    }
    let tail = match rest.split_last() {
        Some((_, kept)) => head | (tail_word(kept) << 8),
        None => 0,
    };
    s.block(last_block(tail, len));
    s.finish()
}
