// SPDX-License-Identifier: GPL-2.0
//! Checksums by the type number stored with an object, computed by the kernel's own routines.

use bcachefs_format::checksum::{Checksummer, Csum, CsumType, Nonce};
use kfs::checksum::{crc32c, crc64_be, xxh64};

/// Computes every checksum that needs no key. Any context.
#[derive(Copy, Clone, Default)]
pub struct Checksums;

impl Checksummer for Checksums {
    fn checksum(&self, csum_type: CsumType, _nonce: Nonce, data: &[u8]) -> Option<Csum> {
        let lo = match csum_type {
            CsumType::NONE => 0,
            CsumType::CRC32C_NONZERO => u64::from(!crc32c(!0, data)),
            CsumType::CRC32C => u64::from(crc32c(0, data)),
            CsumType::CRC64_NONZERO => !crc64_be(!0, data),
            CsumType::CRC64 => crc64_be(0, data),
            CsumType::XXHASH => xxh64(0, data),
            _ => return None,
        };
        Some(Csum::new(lo, 0))
    }
}
