// SPDX-License-Identifier: GPL-2.0
//! The CRCs that hashes of names are made of, slow and plain.

use bcachefs_format::keys::str_hash::NameCrc;

/// The CRCs, bit by bit.
pub struct SlowCrc;

impl NameCrc for SlowCrc {
    fn crc32c(&self, state: u32, data: &[u8]) -> u32 {
        data.iter().fold(state, |s, b| {
            (0..8).fold(s ^ u32::from(*b), |s, _| {
                (s >> 1) ^ if s & 1 != 0 { 0x82f6_3b78 } else { 0 }
            })
        })
    }

    fn crc64(&self, state: u64, data: &[u8]) -> u64 {
        data.iter().fold(state, |s, b| {
            (0..8).fold(s ^ (u64::from(*b) << 56), |s, _| {
                (s << 1)
                    ^ if s >> 63 != 0 {
                        0x42f0_e1eb_a9ea_3693
                    } else {
                        0
                    }
            })
        })
    }
}
