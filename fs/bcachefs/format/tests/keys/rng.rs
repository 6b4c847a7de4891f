// SPDX-License-Identifier: GPL-2.0
//! Numbers from a seed: the same on every run.

/// A small generator (a counter run through a mixing function).
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A number in `lo..=hi`.
    pub fn range(&mut self, lo: u64, hi: u64) -> u64 {
        lo + self.below(hi - lo + 1)
    }

    pub fn flip(&mut self) -> bool {
        self.next() & 1 != 0
    }

    /// A number of any magnitude up to `bits` bits, small ones as likely as large ones.
    pub fn magnitude(&mut self, bits: u32) -> u64 {
        let shift = 64 - self.range(0, bits.into()) as u32;
        self.next().checked_shr(shift).unwrap_or(0)
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// A name: bytes without zero and slash.
    pub fn name(&mut self, len: usize) -> Vec<u8> {
        (0..len)
            .map(|_| match self.range(1, 255) as u8 {
                b'/' => b'_',
                b => b,
            })
            .collect()
    }
}
