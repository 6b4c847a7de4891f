// SPDX-License-Identifier: GPL-2.0
//! SHA-256 of eight bytes: all that one old hash of names needs of it.
//!
//! Such a message fits in one block, so there is no streaming here. The constants are derived as
//! the standard defines them, from the roots of the first primes, at compile time.

/// The first 64 primes.
const PRIMES: [u64; 64] = {
    let mut out = [0; 64];
    let mut n = 2;
    let mut found = 0;
    while found < 64 {
        let mut d = 2;
        while d * d <= n && n % d != 0 {
            d += 1;
        }
        if d * d > n {
            out[found] = n;
            found += 1;
        }
        n += 1;
    }
    out
};

/// The first 32 bits of the fractional part of the square or cube root of `p`.
const fn root_fraction(p: u64, cube: bool) -> u32 {
    // The largest x with x^k <= p * 2^(32 k), by bisection: x is the root times 2^32.
    let (mut lo, mut hi) = (0u128, 1u128 << 37);
    while hi - lo > 1 {
        let mid = (lo + hi) / 2;
        let fits = if cube {
            mid * mid * mid <= (p as u128) << 96
        } else {
            mid * mid <= (p as u128) << 64
        };
        if fits {
            lo = mid;
        } else {
            hi = mid;
        }
    }
    lo as u32
}

/// The state before the first block.
const INIT: [u32; 8] = {
    let mut out = [0; 8];
    let mut i = 0;
    while i < 8 {
        out[i] = root_fraction(PRIMES[i], false);
        i += 1;
    }
    out
};

/// One constant per round.
const ROUNDS: [u32; 64] = {
    let mut out = [0; 64];
    let mut i = 0;
    while i < 64 {
        out[i] = root_fraction(PRIMES[i], true);
        i += 1;
    }
    out
};

/// The first 16 bytes of the SHA-256 of `message`, as two little-endian words.
pub(super) fn first_words(message: [u8; 8]) -> [u64; 2] {
    let m = u64::from_be_bytes(message);
    // The message, a one bit, zeros, and the length of the message in bits.
    let mut w = [0u32; 16];
    w[0] = (m >> 32) as u32;
    w[1] = m as u32;
    w[2] = 1 << 31;
    w[15] = 64;

    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = INIT;
    for k in ROUNDS {
        let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choice = (e & f) ^ (!e & g);
        let t1 = h
            .wrapping_add(s1)
            .wrapping_add(choice)
            .wrapping_add(k)
            .wrapping_add(w[0]);
        let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        let t2 = s0.wrapping_add(majority);
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));

        // The schedule only ever looks 16 words back, so 16 words are kept and shifted along.
        let x = w[1].rotate_right(7) ^ w[1].rotate_right(18) ^ (w[1] >> 3);
        let y = w[14].rotate_right(17) ^ w[14].rotate_right(19) ^ (w[14] >> 10);
        let next = w[0].wrapping_add(x).wrapping_add(w[9]).wrapping_add(y);
        w.rotate_left(1);
        w[15] = next;
    }
    let [a0, b0, c0, d0, ..] = INIT;
    let pair = |x: u32, y: u32| u64::from(x.swap_bytes()) | (u64::from(y.swap_bytes()) << 32);
    [
        pair(a0.wrapping_add(a), b0.wrapping_add(b)),
        pair(c0.wrapping_add(c), d0.wrapping_add(d)),
    ]
}
