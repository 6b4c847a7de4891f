// SPDX-License-Identifier: GPL-2.0

//! Zstandard frames.
//!
//! C header: [`include/linux/zstd.h`](srctree/include/linux/zstd.h)

use crate::{bindings, mem::BufferPool};
use kernel::{prelude::*, sync::Arc};

/// Work spaces for decompression.
pub struct Decompress {
    workspaces: Arc<BufferPool>,
}

impl Decompress {
    /// Puts aside `reserve` work spaces (at least one), of some 160 KiB each. May sleep; fails with `ENOMEM`.
    pub fn new(reserve: u32) -> Result<Self> {
        // SAFETY: No requirements.
        let bytes = unsafe { bindings::kfs_zstd_decompress_workspace() };
        Ok(Self {
            workspaces: BufferPool::new(reserve, bytes)?,
        })
    }

    /// Decompresses `src`, one or several whole frames, and returns the length of the result, which is at the beginning of
    /// `dst`.
    ///
    /// May sleep for a work space; does not enter file systems. Fails with `EINVAL` if a frame is damaged, if
    /// something else follows the last, or if the result does not fit.
    pub fn decompress(&self, src: &[u8], dst: &mut [u8]) -> Result<usize> {
        let mut workspace = BufferPool::get(&self.workspaces);
        // SAFETY: The work space is as large as zstd asked for, and aligned. It reads and writes within the other lengths,
        // whatever the source is.
        let ret = unsafe {
            bindings::kfs_zstd_decompress(
                workspace.as_mut_ptr().cast(),
                workspace.len(),
                src.as_ptr().cast(),
                src.len(),
                dst.as_mut_ptr().cast(),
                dst.len(),
            )
        };
        usize::try_from(ret).map_err(|_| EINVAL)
    }
}

/// Work spaces for compression.
pub struct Compress {
    workspaces: Arc<BufferPool>,
    level: u8,
    source_max: usize,
}

impl Compress {
    /// For sources of up to `source_max` bytes, at `level` from 1 (fast) on; one that is too high counts as the highest. Puts aside
    /// `reserve` work spaces (at least one), whose size depends on both. May sleep; fails with `ENOMEM`.
    pub fn new(reserve: u32, source_max: usize, level: u8) -> Result<Self> {
        // SAFETY: No requirements.
        let highest = unsafe { bindings::kfs_zstd_max_level() };
        let level = level.clamp(1, u8::try_from(highest).unwrap_or(1).max(1));
        // SAFETY: No requirements.
        let bytes =
            unsafe { bindings::kfs_zstd_compress_workspace(c_int::from(level), source_max) };
        Ok(Self {
            workspaces: BufferPool::new(reserve, bytes)?,
            level,
            source_max,
        })
    }

    /// Compresses `src` into one frame and returns its length; it is at the beginning of `dst`. `None` if it does not
    /// fit, or `src` is longer than promised.
    ///
    /// May sleep for a work space; does not enter file systems.
    pub fn compress(&self, src: &[u8], dst: &mut [u8]) -> Option<usize> {
        if src.len() > self.source_max {
            return None;
        }
        let mut workspace = BufferPool::get(&self.workspaces);
        // SAFETY: The work space is as large as zstd asks for with this level and length of the source, and aligned. It reads and
        // writes within the other lengths.
        let ret = unsafe {
            bindings::kfs_zstd_compress(
                workspace.as_mut_ptr().cast(),
                workspace.len(),
                c_int::from(self.level),
                self.source_max,
                src.as_ptr().cast(),
                src.len(),
                dst.as_mut_ptr().cast(),
                dst.len(),
            )
        };
        usize::try_from(ret).ok()
    }
}

#[kernel::macros::kunit_tests(kfs_zstd)]
mod tests {
    use super::*;
    use crate::compress::sample;

    const ZSTD: [u8; 78] = [
        0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x58, 0x01, 0x25, 0x02, 0x00, 0x84, 0x03, 0x61, 0x62, 0x63, 0x64,
        0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f, 0x70, 0x71, 0x72, 0x73, 0x63,
        0x65, 0x67, 0x69, 0x6b, 0x6d, 0x6f, 0x71, 0x73, 0x75, 0x77, 0x62, 0x64, 0x66, 0x68, 0x6a, 0x6c,
        0x6e, 0x67, 0x6a, 0x6d, 0x70, 0x73, 0x76, 0x62, 0x65, 0x68, 0x6b, 0x6e, 0x71, 0x74, 0x77, 0x63,
        0x66, 0x69, 0x61, 0x64, 0x03, 0x44, 0x11, 0x2b, 0x3d, 0x40, 0x0f, 0xe4, 0xd9, 0x0c,
    ];

    #[test]
    fn frames() -> Result {
        let zstd = Decompress::new(1)?;
        let mut dst = [0u8; 610];
        assert_eq!(zstd.decompress(&ZSTD, &mut dst)?, 600);
        assert_eq!(dst[..600], sample());
        // The work space is used anew.
        let mut dst = [0u8; 600];
        assert_eq!(zstd.decompress(&ZSTD, &mut dst)?, 600);
        assert_eq!(dst, sample());
        Ok(())
    }

    #[test]
    fn there_and_back() -> Result {
        let zstd = Decompress::new(1)?;
        for level in [0, 1, 3, 15, 255] {
            let compress = Compress::new(1, 600, level)?;
            let mut frame = [0u8; 600];
            let len = compress.compress(&sample(), &mut frame).ok_or(EINVAL)?;
            assert!(len < 300);
            let mut dst = [0u8; 600];
            assert_eq!(zstd.decompress(&frame[..len], &mut dst)?, 600);
            assert_eq!(dst, sample());
            assert_eq!(compress.compress(&sample(), &mut frame[..len - 1]), None);
            assert_eq!(compress.compress(&[0; 601], &mut frame), None);
        }
        Ok(())
    }

    #[test]
    fn damage_is_refused() -> Result {
        let zstd = Decompress::new(1)?;
        let mut dst = [0u8; 600];
        assert!(zstd.decompress(&ZSTD, &mut [0u8; 599]).is_err());
        assert!(zstd.decompress(&ZSTD[..ZSTD.len() - 1], &mut dst).is_err());
        let mut padded = [0u8; 512];
        padded[..ZSTD.len()].copy_from_slice(&ZSTD);
        assert!(zstd.decompress(&padded, &mut dst).is_err());
        let mut damaged = ZSTD;
        damaged[0] ^= 1;
        assert!(zstd.decompress(&damaged, &mut dst).is_err());
        Ok(())
    }
}
