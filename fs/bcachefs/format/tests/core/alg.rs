// SPDX-License-Identifier: GPL-2.0
//! The algorithms the crate leaves to its users, portable.

use bcachefs_format::checksum::{Checksummer, Cipher, Csum, CsumType, Nonce};
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use poly1305::universal_hash::KeyInit;

const CRC32C_NONZERO: crc::Algorithm<u32> = crc::CRC_32_ISCSI;
const CRC32C: crc::Algorithm<u32> = crc::Algorithm {
    init: 0,
    xorout: 0,
    ..CRC32C_NONZERO
};
static CRC32C_NONZERO_T: crc::Crc<u32> = crc::Crc::<u32>::new(&CRC32C_NONZERO);
static CRC32C_T: crc::Crc<u32> = crc::Crc::<u32>::new(&CRC32C);
static CRC64_NONZERO_T: crc::Crc<u64> = crc::Crc::<u64>::new(&crc::CRC_64_WE);
static CRC64_T: crc::Crc<u64> = crc::Crc::<u64>::new(&crc::CRC_64_ECMA_182);

/// All checksum types; MACs and encryption if there is a key.
#[derive(Clone, Copy, Default)]
pub struct Host {
    pub key: Option<[u8; 32]>,
}

impl Host {
    pub fn with_key(key: [u8; 32]) -> Self {
        Host { key: Some(key) }
    }
}

impl Checksummer for Host {
    fn checksum(&self, csum_type: CsumType, nonce: Nonce, data: &[u8]) -> Option<Csum> {
        let lo = match csum_type {
            CsumType::NONE => 0,
            CsumType::CRC32C_NONZERO => CRC32C_NONZERO_T.checksum(data).into(),
            CsumType::CRC32C => CRC32C_T.checksum(data).into(),
            CsumType::CRC64_NONZERO => CRC64_NONZERO_T.checksum(data),
            CsumType::CRC64 => CRC64_T.checksum(data),
            CsumType::XXHASH => twox_hash::XxHash64::oneshot(0, data),
            _ if csum_type.is_mac() => return self.mac(csum_type, nonce, data),
            _ => return None,
        };
        Some(Csum::new(lo, 0))
    }
}

impl Host {
    fn mac(&self, csum_type: CsumType, nonce: Nonce, data: &[u8]) -> Option<Csum> {
        self.key?;
        let mut key = [0; 32];
        self.crypt(nonce.poly_key(), &mut key);
        let tag: [u8; 16] = poly1305::Poly1305::new(&key.into())
            .compute_unpadded(data)
            .into();
        let half = |b: &[u8]| u64::from_le_bytes(b.try_into().unwrap());
        Some(Csum::new(half(&tag[..8]), half(&tag[8..])).truncated(csum_type))
    }
}

impl Cipher for Host {
    fn crypt(&self, nonce: Nonce, data: &mut [u8]) {
        let [counter, a, b, c] = nonce.0;
        let mut iv = [0; 12];
        for (to, word) in iv.chunks_exact_mut(4).zip([a, b, c]) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let key = self.key.expect("a key");
        let mut cipher = chacha20::ChaCha20::new(&key.into(), &iv.into());
        cipher.seek(u64::from(counter) * 64);
        cipher.apply_keystream(data);
    }
}
