// SPDX-License-Identifier: GPL-2.0

//! Compression and decompression.
//!
//! Compressors say `None` where the result would not be shorter than the memory for it, which is not an error.
//!
//! All of decompression is safe with damaged input: the functions then fail with `EINVAL`, or give back a wrong result inside the
//! destination; a checksum has to tell. Decompressors that need a work space take it from a pool with a reserve, so that
//! reading data goes on when memory is short.

pub mod lz4;
pub mod zlib;
pub mod zstd;

/// What the fixed inputs of the test suites decompress to.
#[cfg(bcachefs_kunit)]
fn sample() -> [u8; 600] {
    core::array::from_fn(|i| b'a' + (((i % 19) * (1 + i / 210)) % 23) as u8)
}
