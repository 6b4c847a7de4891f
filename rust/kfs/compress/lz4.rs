// SPDX-License-Identifier: GPL-2.0

//! LZ4 blocks (not frames).
//!
//! Decompression neither sleeps nor allocates.
//!
//! C header: [`include/linux/lz4.h`](srctree/include/linux/lz4.h)

use crate::{bindings, mem::BufferPool};
use kernel::{prelude::*, sync::Arc};

/// Work spaces for compression.
pub struct Compress {
    workspaces: Arc<BufferPool>,
}

impl Compress {
    /// Puts aside `reserve` work spaces (at least one), of some 16 KiB each. May sleep; fails with `ENOMEM`.
    pub fn new(reserve: u32) -> Result<Self> {
        // SAFETY: No requirements.
        let bytes = unsafe { bindings::kfs_lz4_compress_workspace() };
        Ok(Self {
            workspaces: BufferPool::new(reserve, bytes)?,
        })
    }

    /// Compresses `src` and returns the length of the block, which is at the beginning of `dst`; `None` if it does not fit.
    ///
    /// May sleep for a work space; does not enter file systems.
    pub fn compress(&self, src: &[u8], dst: &mut [u8]) -> Option<usize> {
        let (src_len, dst_len) = (length(src).ok()?, length(dst).ok()?);
        let mut workspace = BufferPool::get(&self.workspaces);
        // SAFETY: The work space is as large as lz4 asks for, and aligned. It reads and writes within the other lengths.
        let ret = unsafe {
            bindings::LZ4_compress_default(
                src.as_ptr().cast(),
                dst.as_mut_ptr().cast(),
                src_len,
                dst_len,
                workspace.as_mut_ptr().cast(),
            )
        };
        usize::try_from(ret).ok().filter(|len| *len != 0)
    }
}

/// Decompresses the block `src` and returns the length of the result, which is at the beginning of `dst`.
///
/// `src` has to be exactly one block.
pub fn decompress(src: &[u8], dst: &mut [u8]) -> Result<usize> {
    let (src_len, dst_len) = (length(src)?, length(dst)?);
    // SAFETY: Reads and writes within these lengths, whatever the source is.
    let ret = unsafe {
        let (from, to) = (src.as_ptr().cast(), dst.as_mut_ptr().cast());
        bindings::LZ4_decompress_safe(from, to, src_len, dst_len)
    };
    usize::try_from(ret).map_err(|_| EINVAL)
}

/// Decompresses the block at the beginning of `src` until `dst` is full, or the block at its end.
///
/// The rest of `src`, such as padding, is ignored if `dst` is full before; so `dst` should be as long as the result is
/// known to be, and the returned length be compared with that.
pub fn decompress_prefix(src: &[u8], dst: &mut [u8]) -> Result<usize> {
    let (src_len, dst_len) = (length(src)?, length(dst)?);
    // SAFETY: Reads and writes within these lengths, whatever the source is.
    let ret = unsafe {
        let (from, to) = (src.as_ptr().cast(), dst.as_mut_ptr().cast());
        bindings::LZ4_decompress_safe_partial(from, to, src_len, dst_len, dst_len)
    };
    usize::try_from(ret).map_err(|_| EINVAL)
}

fn length(bytes: &[u8]) -> Result<c_int> {
    c_int::try_from(bytes.len()).map_err(|_| EINVAL)
}

#[kernel::macros::kunit_tests(kfs_lz4)]
mod tests {
    use super::*;
    use crate::compress::sample;

    const LZ4: [u8; 77] = [
        0xff, 0x04, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e,
        0x6f, 0x70, 0x71, 0x72, 0x73, 0x13, 0x00, 0xac, 0xff, 0x03, 0x63, 0x65, 0x67, 0x69, 0x6b, 0x6d,
        0x6f, 0x71, 0x73, 0x75, 0x77, 0x62, 0x64, 0x66, 0x68, 0x6a, 0x6c, 0x6e, 0x13, 0x00, 0xad, 0xff,
        0x04, 0x67, 0x6a, 0x6d, 0x70, 0x73, 0x76, 0x62, 0x65, 0x68, 0x6b, 0x6e, 0x71, 0x74, 0x77, 0x63,
        0x66, 0x69, 0x61, 0x64, 0x13, 0x00, 0x89, 0x50, 0x73, 0x76, 0x62, 0x65, 0x68,
    ];

    #[test]
    fn exact_and_prefix() -> Result {
        let mut dst = [0u8; 600];
        assert_eq!(decompress(&LZ4, &mut dst)?, 600);
        assert_eq!(dst, sample());

        // Padding is damage to one and nothing to the other.
        let mut padded = [0u8; 512];
        padded[..LZ4.len()].copy_from_slice(&LZ4);
        assert!(decompress(&padded, &mut dst).is_err());
        let mut dst = [0u8; 600];
        assert_eq!(decompress_prefix(&padded, &mut dst)?, 600);
        assert_eq!(dst, sample());
        let mut some = [0u8; 333];
        assert_eq!(decompress_prefix(&padded, &mut some)?, 333);
        assert_eq!(some[..], sample()[..333]);
        Ok(())
    }

    #[test]
    fn there_and_back() -> Result {
        let lz4 = Compress::new(1)?;
        let mut block = [0u8; 600];
        let len = lz4.compress(&sample(), &mut block).ok_or(EINVAL)?;
        assert!(len < 300);
        let mut dst = [0u8; 600];
        assert_eq!(decompress(&block[..len], &mut dst)?, 600);
        assert_eq!(dst, sample());
        // One byte too few.
        assert_eq!(lz4.compress(&sample(), &mut block[..len - 1]), None);
        assert_eq!(lz4.compress(&sample(), &mut []), None);
        Ok(())
    }

    #[test]
    fn damage_stays_inside() -> Result {
        // Too small a destination.
        assert!(decompress(&LZ4, &mut [0u8; 599]).is_err());
        assert!(decompress(&LZ4[..30], &mut [0u8; 600]).is_err());
        for at in 0..LZ4.len() {
            let mut damaged = LZ4;
            damaged[at] ^= 0xff;
            // The last bytes are not the decompressor's.
            let mut dst = [0x5au8; 664];
            for prefix in [false, true] {
                let (dst, _) = dst.split_at_mut(600);
                let len = match prefix {
                    false => decompress(&damaged, dst),
                    true => decompress_prefix(&damaged, dst),
                };
                assert!(len.map_or(true, |len| len <= 600));
            }
            assert!(dst[600..].iter().all(|&byte| byte == 0x5a));
        }
        Ok(())
    }
}
