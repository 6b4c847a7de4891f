// SPDX-License-Identifier: GPL-2.0
//! Tests of the core structures: superblock, journal, nodes, packed keys, checksums.

/// The parts, in a folder of their own.
mod core {
    mod alg;
    mod fixtures;
    mod image;
    mod mutate;
    mod packing;
    mod random;
    mod round_trip;
    mod rules;
    mod sb_rules;
    mod vectors;
    mod walk;
}
