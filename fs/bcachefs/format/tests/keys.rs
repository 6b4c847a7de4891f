// SPDX-License-Identifier: GPL-2.0
//! Tests of key values: vectors, round trips, rules, mutations, cutting, hashing.

/// The parts, in a folder of their own.
mod keys {
    mod crc;
    mod cut;
    mod generate;
    mod hash;
    mod inode;
    mod mutate;
    mod owned;
    mod rebuild;
    mod rng;
    mod round_trip;
    mod rules;
    mod vectors;
}
