// SPDX-License-Identifier: GPL-2.0
//! Checksums of data that lies in several pieces.
//!
//! Context: any; nothing here sleeps or allocates.

use bcachefs_format::checksum::{Csum, CsumType};
use kfs::checksum::{crc32c, crc64_be, Xxh64};

/// A checksum being computed.
pub struct Hasher {
    csum_type: CsumType,
    state: State,
}

enum State {
    None,
    Crc32c(u32),
    Crc64(u64),
    Xxh64(Xxh64),
}

impl Hasher {
    /// Starts a checksum of type `csum_type`; `None` if it cannot be computed without a key or is
    /// of no known type.
    pub fn new(csum_type: CsumType) -> Option<Self> {
        let state = match csum_type {
            CsumType::NONE => State::None,
            CsumType::CRC32C => State::Crc32c(0),
            CsumType::CRC32C_NONZERO => State::Crc32c(u32::MAX),
            CsumType::CRC64 => State::Crc64(0),
            CsumType::CRC64_NONZERO => State::Crc64(u64::MAX),
            CsumType::XXHASH => State::Xxh64(Xxh64::new(0)),
            _ => return None,
        };
        Some(Self { csum_type, state })
    }

    /// Adds the next piece.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.state {
            State::None => {}
            State::Crc32c(c) => *c = crc32c(*c, data),
            State::Crc64(c) => *c = crc64_be(*c, data),
            State::Xxh64(h) => h.update(data),
        }
    }

    /// The checksum of all pieces, as it is stored.
    pub fn finish(self) -> Csum {
        let lo = match self.state {
            State::None => 0,
            State::Crc32c(c) if self.csum_type == CsumType::CRC32C_NONZERO => u64::from(!c),
            State::Crc32c(c) => u64::from(c),
            State::Crc64(c) if self.csum_type == CsumType::CRC64_NONZERO => !c,
            State::Crc64(c) => c,
            State::Xxh64(h) => h.digest(),
        };
        Csum::new(lo, 0)
    }
}
