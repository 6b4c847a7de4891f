// SPDX-License-Identifier: GPL-2.0

//! Checksums, in whatever way the processor computes them fastest.
//!
//! The functions neither sleep nor allocate.
//!
//! C headers: [`include/linux/crc32.h`](srctree/include/linux/crc32.h),
//! [`include/linux/crc64.h`](srctree/include/linux/crc64.h),
//! [`include/linux/xxhash.h`](srctree/include/linux/xxhash.h)

use crate::bindings;

/// Continues the CRC-32C (Castagnoli, reflected polynomial `0x82f63b78`) `crc` over `data`.
///
/// Start value and result are the bare register: the usual CRC-32C starts with all ones and inverts the result.
#[cfg(CONFIG_CRC32_ARCH)]
pub fn crc32c(crc: u32, data: &[u8]) -> u32 {
    // SAFETY: Reads that many bytes.
    unsafe { bindings::crc32c(crc, data.as_ptr().cast(), data.len()) }
}

/// The same where the kernel has nothing for the architecture: it would look at single bytes, this looks at eight at once.
#[cfg(not(CONFIG_CRC32_ARCH))]
pub fn crc32c(crc: u32, data: &[u8]) -> u32 {
    crc32c_slices(crc, data)
}

/// What a byte does to the register with `i` more bytes after it, in `CRC32C_TABLES[i]`.
#[cfg(any(not(CONFIG_CRC32_ARCH), CONFIG_KUNIT))]
static CRC32C_TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut table = 0;
        while table < 8 {
            let mut bit = 0;
            while bit < 8 {
                crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
                bit += 1;
            }
            tables[table][byte] = crc;
            table += 1;
        }
        byte += 1;
    }
    tables
};

#[cfg(any(not(CONFIG_CRC32_ARCH), CONFIG_KUNIT))]
fn crc32c_slices(crc: u32, data: &[u8]) -> u32 {
    let at = |table: usize, word: u64, byte: u32| CRC32C_TABLES[table][(word >> (8 * byte)) as usize & 0xff];
    let mut crc = crc;
    let mut chunks = data.chunks_exact(8);
    for chunk in &mut chunks {
        let word = chunk.first_chunk().map_or(0, |c| u64::from_le_bytes(*c)) ^ u64::from(crc);
        crc = at(7, word, 0)
            ^ at(6, word, 1)
            ^ at(5, word, 2)
            ^ at(4, word, 3)
            ^ at(3, word, 4)
            ^ at(2, word, 5)
            ^ at(1, word, 6)
            ^ at(0, word, 7);
    }
    for byte in chunks.remainder() {
        crc = crc >> 8 ^ at(0, u64::from(crc) ^ u64::from(*byte), 0);
    }
    crc
}

/// Continues the CRC-64 `crc` over `data`: most significant bit first, polynomial `0x42f0e1eba9ea3693`.
///
/// Start value and result are the bare register. With zero it is CRC-64/ECMA-182; CRC-64/WE starts with all ones and inverts
/// the result.
pub fn crc64_be(crc: u64, data: &[u8]) -> u64 {
    // SAFETY: Reads that many bytes.
    unsafe { bindings::crc64_be(crc, data.as_ptr().cast(), data.len()) }
}

/// The XXH64 hash of `data`.
pub fn xxh64(seed: u64, data: &[u8]) -> u64 {
    // SAFETY: Reads that many bytes.
    unsafe { bindings::xxh64(data.as_ptr().cast(), data.len(), seed) }
}

/// The XXH64 hash of data that comes in pieces.
pub struct Xxh64(bindings::xxh64_state);

impl Xxh64 {
    /// Begins a hash.
    pub fn new(seed: u64) -> Self {
        let mut state = bindings::xxh64_state::default();
        // SAFETY: Overwrites the state.
        unsafe { bindings::xxh64_reset(&mut state, seed) };
        Self(state)
    }

    /// Continues it over `data`.
    pub fn update(&mut self, data: &[u8]) {
        // SAFETY: The state was initialised in `new()`; reads that many bytes. Fails for a null pointer only.
        unsafe { bindings::xxh64_update(&mut self.0, data.as_ptr().cast(), data.len()) };
    }

    /// The hash of everything so far.
    pub fn digest(&self) -> u64 {
        // SAFETY: The state was initialised in `new()`.
        unsafe { bindings::xxh64_digest(&self.0) }
    }
}

#[kernel::macros::kunit_tests(kfs_checksum)]
mod tests {
    use super::*;

    const CHECK: &[u8] = b"123456789";

    #[test]
    fn crc32c_vectors() {
        assert_eq!(!crc32c(!0, CHECK), 0xe306_9283);
        assert_eq!(crc32c(0, CHECK), 0x58e3_fa20);
        assert_eq!(crc32c(0, &[]), 0);
        let (a, b) = CHECK.split_at(4);
        assert_eq!(crc32c(crc32c(!0, a), b), crc32c(!0, CHECK));
    }

    #[test]
    fn crc32c_of_slices_is_that_of_bytes() {
        let mut data = [0u8; 67];
        let mut x = 1u32;
        for byte in data.iter_mut() {
            x = x.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
            *byte = (x >> 24) as u8;
        }
        for start in 0..9 {
            for end in start..data.len() {
                let mut bitwise = !0u32;
                for byte in &data[start..end] {
                    bitwise ^= u32::from(*byte);
                    for _ in 0..8 {
                        bitwise = bitwise >> 1 ^ if bitwise & 1 != 0 { 0x82f6_3b78 } else { 0 };
                    }
                }
                assert_eq!(crc32c_slices(!0, &data[start..end]), bitwise);
                assert_eq!(crc32c(!0, &data[start..end]), bitwise);
            }
        }
    }

    #[test]
    fn crc64_vectors() {
        assert_eq!(!crc64_be(!0, CHECK), 0x62ec_59e3_f1a4_f00a);
        assert_eq!(crc64_be(0, CHECK), 0x6c40_df5f_0b49_7347);
        assert_eq!(crc64_be(5, &[]), 5);
        let (a, b) = CHECK.split_at(4);
        assert_eq!(crc64_be(crc64_be(0, a), b), crc64_be(0, CHECK));
    }

    #[test]
    fn xxh64_vectors() {
        assert_eq!(xxh64(0, CHECK), 0x8cb8_41db_40e6_ae83);
        assert_eq!(xxh64(0, &[]), 0xef46_db37_51d8_e999);
        let long = [0xa5u8; 1000];
        let mut pieces = Xxh64::new(3);
        for piece in long.chunks(37) {
            pieces.update(piece);
        }
        assert_eq!(pieces.digest(), xxh64(3, &long));
        assert_eq!(Xxh64::new(0).digest(), xxh64(0, &[]));
    }
}
