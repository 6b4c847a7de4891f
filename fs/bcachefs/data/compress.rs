// SPDX-License-Identifier: GPL-2.0
//! Compression of extents that are about to be written.
//!
//! What each format looks like on disk is in [`super::decompress`].

use bcachefs_format::keys::compression::{CompressionOpt, CompressionType};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex},
};
use kfs::compress::{lz4, zlib, zstd};

/// Work spaces that are kept of each kind, so that data is compressed when memory is short.
const WORKSPACES: u32 = 1;
/// Level of gzip if none is given.
const GZIP_LEVEL: u8 = 6;
/// Level of zstd if none is given.
const ZSTD_LEVEL: u8 = 3;

/// The compressors, each with its work spaces from the first use on.
#[pin_data]
pub struct Compressor {
    /// Bytes of the largest source.
    source_max: usize,
    #[pin]
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lz4: Option<Arc<lz4::Compress>>,
    deflate: Option<Arc<zlib::Deflate>>,
    /// One for each level in use.
    zstd: [Option<Arc<zstd::Compress>>; 16],
}

impl Compressor {
    /// For sources of up to `source_max` bytes.
    pub fn new(source_max: usize) -> impl PinInit<Self> {
        pin_init!(Self {
            source_max,
            state <- new_mutex!(State::default(), "bcachefs_compressor"),
        })
    }

    /// Compresses `src` to the beginning of `dst`; returns the type of the result and its length. `None` if it does not fit there, or there
    /// is no memory to work with. May sleep; `dst` is not meant to be longer than what is worth it.
    pub fn run(
        &self,
        option: CompressionOpt,
        src: &[u8],
        dst: &mut [u8],
    ) -> Option<(CompressionType, usize)> {
        let kind = option.to_type()?;
        let level = option.level();
        let len = match kind {
            CompressionType::LZ4 => self.lz4()?.compress(src, dst)?,
            CompressionType::GZIP => {
                let level = if level == 0 { GZIP_LEVEL } else { level };
                self.deflate()?.compress(src, dst, level)?
            }
            CompressionType::ZSTD => {
                let level = if level == 0 { ZSTD_LEVEL } else { level };
                let (head, frame) = dst.split_first_chunk_mut::<4>()?;
                let len = self.zstd(level)?.compress(src, frame)?;
                *head = u32::try_from(len).ok()?.to_le_bytes();
                len.checked_add(head.len())?
            }
            _ => return None,
        };
        Some((kind, len))
    }

    fn lz4(&self) -> Option<Arc<lz4::Compress>> {
        let make = || lz4::Compress::new(WORKSPACES);
        get(&mut self.state.lock().lz4, make)
    }

    fn deflate(&self) -> Option<Arc<zlib::Deflate>> {
        let make = || zlib::Deflate::new(WORKSPACES);
        get(&mut self.state.lock().deflate, make)
    }

    fn zstd(&self, level: u8) -> Option<Arc<zstd::Compress>> {
        let make = || zstd::Compress::new(WORKSPACES, self.source_max, level);
        get(self.state.lock().zstd.get_mut(usize::from(level))?, make)
    }
}

/// What is in `slot`; if nothing is, something new.
fn get<T>(slot: &mut Option<Arc<T>>, make: impl FnOnce() -> kernel::error::Result<T>) -> Option<Arc<T>> {
    if slot.is_none() {
        *slot = Arc::new(make().ok()?, GFP_KERNEL).ok();
    }
    slot.clone()
}

#[kernel::macros::kunit_tests(bcachefs_compress)]
mod tests {
    use super::*;
    use crate::data::decompress::Decompressor;

    #[test]
    fn what_is_compressed_can_be_decompressed() -> kernel::error::Result {
        let decompressor = Decompressor::new().map_err(|e| e.errno())?;
        let c = KBox::pin_init(Compressor::new(65536), GFP_KERNEL)?;
        let mut src = KVec::from_elem(0u8, 65536, GFP_KERNEL)?;
        for (i, b) in src.iter_mut().enumerate() {
            *b = (i * i / 977 % 61) as u8;
        }
        let mut out = KVec::from_elem(0u8, 65536, GFP_KERNEL)?;
        let mut back = KVec::from_elem(0u8, 65536, GFP_KERNEL)?;
        for algorithm in 1..=3u8 {
            for level in 0..16u8 {
                let option = CompressionOpt(algorithm | level << 4);
                let (kind, len) = c.run(option, &src, &mut out).ok_or(EINVAL)?;
                assert_eq!(Some(kind), option.to_type());
                let stored = len.next_multiple_of(512);
                out[len..stored].fill(0);
                back.fill(0xa5);
                decompressor.run(kind, &out[..stored], &mut back).map_err(|e| e.errno())?;
                assert!(back[..] == src[..]);
            }
        }
        assert!(c.run(CompressionOpt::NONE, &src, &mut out).is_none());
        Ok(())
    }
}
