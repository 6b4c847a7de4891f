// SPDX-License-Identifier: GPL-2.0

//! Deflate streams, bare or in zlib's wrapping.
//!
//! C header: [`include/linux/zlib.h`](srctree/include/linux/zlib.h)

use crate::{bindings, mem::BufferPool};
use kernel::{prelude::*, sync::Arc};

/// What is around the deflate stream. The window is of 2 to the power of `window_bits` bytes, 8 to 15; a larger one
/// than the stream was made with does no harm.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Nothing.
    Raw {
        /// Logarithm of the window's size.
        window_bits: u8,
    },
    /// zlib's header and checksum.
    Zlib {
        /// Logarithm of the window's size.
        window_bits: u8,
    },
}

impl Framing {
    /// The largest window.
    pub const MAX_WINDOW_BITS: u8 = 15;

    /// As the C functions want it: negative means bare.
    fn argument(self) -> Result<c_int> {
        let (window_bits, sign) = match self {
            Self::Raw { window_bits } => (window_bits, -1),
            Self::Zlib { window_bits } => (window_bits, 1),
        };
        match window_bits {
            8..=Self::MAX_WINDOW_BITS => Ok(c_int::from(window_bits) * sign),
            _ => Err(EINVAL),
        }
    }
}

/// Work spaces for decompression.
pub struct Inflate {
    workspaces: Arc<BufferPool>,
}

impl Inflate {
    /// Puts aside `reserve` work spaces (at least one), of some 40 KiB each. May sleep; fails with `ENOMEM`.
    pub fn new(reserve: u32) -> Result<Self> {
        // SAFETY: No requirements.
        let bytes = unsafe { bindings::kfs_zlib_inflate_workspace() };
        Ok(Self {
            workspaces: BufferPool::new(reserve, bytes)?,
        })
    }

    /// Decompresses the stream at the beginning of `src` and returns the length of the result, which is at the beginning of
    /// `dst`. What follows the stream is ignored.
    ///
    /// May sleep for a work space; does not enter file systems. Fails with `EINVAL` if the stream is damaged or its
    /// result does not fit.
    pub fn decompress(&self, src: &[u8], dst: &mut [u8], framing: Framing) -> Result<usize> {
        let window_bits = framing.argument()?;
        let mut workspace = BufferPool::get(&self.workspaces);
        // SAFETY: The work space is as large as zlib asked for. It reads and writes within the other lengths, whatever the source
        // is.
        let ret = unsafe {
            bindings::kfs_zlib_inflate(
                workspace.as_mut_ptr().cast(),
                src.as_ptr().cast(),
                src.len(),
                dst.as_mut_ptr().cast(),
                dst.len(),
                window_bits,
            )
        };
        usize::try_from(ret).map_err(|_| EINVAL)
    }
}

/// Work spaces for compression.
pub struct Deflate {
    workspaces: Arc<BufferPool>,
}

impl Deflate {
    /// Puts aside `reserve` work spaces (at least one), of some 270 KiB each. May sleep; fails with `ENOMEM`.
    pub fn new(reserve: u32) -> Result<Self> {
        // SAFETY: No requirements.
        let bytes = unsafe { bindings::kfs_zlib_deflate_workspace(WINDOW_BITS) };
        Ok(Self {
            workspaces: BufferPool::new(reserve, bytes)?,
        })
    }

    /// Compresses `src`, with `level` from 1 (fast) to 9 (small), into a bare stream with the largest window and returns its length; it is at the
    /// beginning of `dst`. `None` if it does not fit.
    ///
    /// May sleep for a work space; does not enter file systems.
    pub fn compress(&self, src: &[u8], dst: &mut [u8], level: u8) -> Option<usize> {
        let mut workspace = BufferPool::get(&self.workspaces);
        // SAFETY: The work space is as large as zlib asks for with this window. It reads and writes within the other lengths.
        let ret = unsafe {
            bindings::kfs_zlib_deflate(
                workspace.as_mut_ptr().cast(),
                c_int::from(level.clamp(1, 9)),
                src.as_ptr().cast(),
                src.len(),
                dst.as_mut_ptr().cast(),
                dst.len(),
                WINDOW_BITS,
            )
        };
        usize::try_from(ret).ok()
    }
}

/// The window of what is compressed here.
const WINDOW_BITS: c_int = Framing::MAX_WINDOW_BITS as c_int;

#[kernel::macros::kunit_tests(kfs_zlib)]
mod tests {
    use super::*;
    use crate::compress::sample;

    const RAW: [u8; 60] = [
        0xd5, 0xc8, 0xc1, 0x01, 0x80, 0x20, 0x08, 0x00, 0xc0, 0x59, 0x15, 0x44, 0x05, 0x41, 0x89, 0xca,
        0xf5, 0x5b, 0x23, 0xef, 0x79, 0x29, 0x03, 0x16, 0xaa, 0xad, 0xb3, 0x0c, 0xb5, 0xb9, 0xfc, 0x8a,
        0x74, 0x76, 0x41, 0xa9, 0x5d, 0x74, 0x7a, 0x3c, 0x3b, 0x23, 0x35, 0x1e, 0x76, 0x7a, 0x55, 0xd6,
        0x15, 0x6f, 0x2e, 0x4d, 0xcc, 0xef, 0x0d, 0xd4, 0x13, 0xfe, 0xbe, 0x3e,
    ];

    const ZLIB: [u8; 66] = [
        0x48, 0xc7, 0xd5, 0xc8, 0xc1, 0x01, 0x80, 0x20, 0x08, 0x00, 0xc0, 0x59, 0x15, 0x44, 0x05, 0x41,
        0x89, 0xca, 0xf5, 0x5b, 0x23, 0xef, 0x79, 0x29, 0x03, 0x16, 0xaa, 0xad, 0xb3, 0x0c, 0xb5, 0xb9,
        0xfc, 0x8a, 0x74, 0x76, 0x41, 0xa9, 0x5d, 0x74, 0x7a, 0x3c, 0x3b, 0x23, 0x35, 0x1e, 0x76, 0x7a,
        0x55, 0xd6, 0x15, 0x6f, 0x2e, 0x4d, 0xcc, 0xef, 0x0d, 0xd4, 0x13, 0xfe, 0xbe, 0x3e, 0x4c, 0x5b,
        0xf9, 0x8f,
    ];

    #[test]
    fn framings() -> Result {
        let inflate = Inflate::new(1)?;
        let mut dst = [0u8; 610];
        let raw = Framing::Raw { window_bits: 15 };
        assert_eq!(inflate.decompress(&RAW, &mut dst, raw)?, 600);
        assert_eq!(dst[..600], sample());
        let mut dst = [0u8; 600];
        let zlib = Framing::Zlib { window_bits: 15 };
        assert_eq!(inflate.decompress(&ZLIB, &mut dst, zlib)?, 600);
        assert_eq!(dst, sample());

        // Something may follow.
        let mut padded = [0u8; 512];
        padded[..RAW.len()].copy_from_slice(&RAW);
        assert_eq!(inflate.decompress(&padded, &mut dst, raw)?, 600);

        assert!(inflate.decompress(&RAW, &mut dst, zlib).is_err());
        assert!(inflate.decompress(&RAW, &mut dst, Framing::Raw { window_bits: 16 }).is_err());
        Ok(())
    }

    #[test]
    fn there_and_back() -> Result {
        let (deflate, inflate) = (Deflate::new(1)?, Inflate::new(1)?);
        for level in 0..=15 {
            let mut stream = [0u8; 600];
            let len = deflate.compress(&sample(), &mut stream, level).ok_or(EINVAL)?;
            assert!(len < 300);
            let mut dst = [0u8; 600];
            let raw = Framing::Raw { window_bits: 15 };
            assert_eq!(inflate.decompress(&stream[..len], &mut dst, raw)?, 600);
            assert_eq!(dst, sample());
            assert_eq!(deflate.compress(&sample(), &mut stream[..len - 1], level), None);
        }
        Ok(())
    }

    #[test]
    fn damage_is_refused() -> Result {
        let inflate = Inflate::new(1)?;
        let raw = Framing::Raw { window_bits: 15 };
        assert!(inflate.decompress(&RAW, &mut [0u8; 599], raw).is_err());
        assert!(inflate.decompress(&RAW[..RAW.len() - 1], &mut [0u8; 600], raw).is_err());
        assert!(inflate.decompress(&[], &mut [0u8; 600], raw).is_err());
        // zlib's framing has a checksum.
        let mut dst = [0u8; 600];
        for at in 2..ZLIB.len() {
            let mut damaged = ZLIB;
            damaged[at] ^= 0x10;
            let framing = Framing::Zlib { window_bits: 15 };
            assert!(inflate.decompress(&damaged, &mut dst, framing).is_err());
        }
        Ok(())
    }
}
