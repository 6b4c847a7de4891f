// SPDX-License-Identifier: GPL-2.0
//! Decompression of stored extents.
//!
//! What is stored is padded with zeros to whole sectors, so each format says in its own way where
//! it ends: lz4 when the output is full, gzip (raw deflate) by its end mark, zstd by a length word
//! in front of the frame.

use bcachefs_format::keys::compression::CompressionType;
use kernel::prelude::*;
use kfs::compress::{lz4, zlib, zstd};

use crate::util::error::{Error, Result};

/// Base-2 logarithm of the largest window deflate has.
const DEFLATE_WINDOW_BITS: u8 = 15;

/// How many inflate and zstd workspaces are kept, so that reads go on when memory is short.
const WORKSPACES: u32 = 1;

/// The decompressors with their workspaces.
pub struct Decompressor {
    inflate: zlib::Inflate,
    zstd: zstd::Decompress,
}

impl Decompressor {
    /// Allocates the reserve of workspaces. May sleep.
    pub fn new() -> Result<Self> {
        Ok(Self {
            inflate: zlib::Inflate::new(WORKSPACES)?,
            zstd: zstd::Decompress::new(WORKSPACES)?,
        })
    }

    /// Decompresses `src`, whole sectors as stored, and fills `dst`. May sleep.
    ///
    /// # Errors
    ///
    /// [`Error::DataDecompress`] if the data is damaged or is not exactly as long as `dst`.
    pub fn run(&self, compression: CompressionType, src: &[u8], dst: &mut [u8]) -> Result {
        let want = dst.len();
        let got = match compression {
            CompressionType::LZ4 | CompressionType::LZ4_OLD => lz4::decompress_prefix(src, dst),
            CompressionType::GZIP => {
                let framing = zlib::Framing::Raw {
                    window_bits: DEFLATE_WINDOW_BITS,
                };
                self.inflate.decompress(src, dst, framing)
            }
            CompressionType::ZSTD => {
                let frame = zstd_frame(src).ok_or(Error::DataDecompress)?;
                self.zstd.decompress(frame, dst)
            }
            _ => return Err(Error::DataDecompress),
        };
        match got {
            Ok(n) if n == want => Ok(()),
            Err(ENOMEM) => Err(Error::NoMem),
            _ => Err(Error::DataDecompress),
        }
    }
}

/// The zstd frame inside `src`: a 32-bit length, then that many bytes.
fn zstd_frame(src: &[u8]) -> Option<&[u8]> {
    let (len, rest) = src.split_first_chunk::<4>()?;
    rest.get(..usize::try_from(u32::from_le_bytes(*len)).ok()?)
}
