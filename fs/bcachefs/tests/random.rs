// SPDX-License-Identifier: GPL-2.0
//! Random numbers that can be had again: the same seed gives the same ones.

/// A generator (splitmix64).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// Numbers for `seed`, other ones for every `stream`.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut r = Random(seed);
        let base = r.next();
        Random(base ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03))
    }

    /// Any number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `n`, which is not 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        // The high half of a product: every number as often as any other, nearly.
        (u128::from(self.next()) * u128::from(n) >> 64) as u64
    }

    /// Whether something with a chance of one in `n` happens.
    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
