// SPDX-License-Identifier: GPL-2.0
//! The checksums a superblock may have.

use bcachefs_format::checksum::{Checksummer, Csum, CsumType, Nonce};

static CRC32C: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
static CRC64: crc::Crc<u64> = crc::Crc::<u64>::new(&crc::CRC_64_WE);

/// Computes every type that superblocks use.
#[derive(Copy, Clone, Debug, Default)]
pub struct SbChecksummer;

impl Checksummer for SbChecksummer {
    fn checksum(&self, csum_type: CsumType, _nonce: Nonce, data: &[u8]) -> Option<Csum> {
        let lo = match csum_type {
            CsumType::NONE => 0,
            CsumType::CRC32C_NONZERO => CRC32C.checksum(data).into(),
            CsumType::CRC64_NONZERO => CRC64.checksum(data),
            CsumType::XXHASH => twox_hash::XxHash64::oneshot(0, data),
            _ => return None,
        };
        Some(Csum::new(lo, 0))
    }
}
