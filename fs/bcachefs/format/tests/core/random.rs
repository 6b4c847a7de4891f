// SPDX-License-Identifier: GPL-2.0
//! A small seeded generator, so that failures can be repeated.

/// xorshift64*.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    /// A number of up to `bits` bits, with small, large and round ones about equally often.
    pub fn number(&mut self, bits: u32) -> u64 {
        let max = u64::MAX >> (64 - bits);
        let v = match self.below(4) {
            0 => self.next() & 3,
            1 => !(self.next() & 3),
            2 => self.next() >> self.below(64),
            _ => 1u64 << self.below(64),
        };
        v & max
    }
}

/// How many inputs the mutation tests try: `BCACHEFS_FORMAT_MUTATIONS`, 20000 by default.
pub fn mutations() -> usize {
    std::env::var("BCACHEFS_FORMAT_MUTATIONS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(20_000)
}
