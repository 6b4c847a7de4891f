// SPDX-License-Identifier: GPL-2.0
//! Sizes: of buckets and btree nodes, and where the superblocks go.
//!
//! What is chosen when nothing is asked for is what Debian's tool chooses, so that two filesystems made alike are alike.

use bcachefs_format::sb::layout::{DiskLayout, SB_MAX_SIZE_BITS_MAX};
use bcachefs_format::sb::members::{BUCKETS_MAX, BUCKETS_MIN};
use bcachefs_format::super_block::SB_SECTOR;

use crate::size::{self, SECTOR};
use crate::Result;

/// A bucket's size is stored as a 16-bit number of sectors.
const BUCKET_MAX: u64 = u16::MAX as u64 * SECTOR;
/// The smallest bucket that is chosen while a device is large enough.
const BUCKET_WANTED: u64 = 128 << 10;
/// The largest bucket that is chosen for being on a large device.
const BUCKET_LARGE: u64 = 1 << 20;
/// Bytes of a btree node unless something else is asked for or buckets are smaller.
const NODE_WANTED: u64 = 256 << 10;

/// Bytes of a bucket for a device of `device_bytes`, where buckets have to hold `least` bytes (a btree node or a block).
///
/// Buckets start at 128 KiB. They are halved as often as it takes to have 64 of them, and grow with the device: with 2^8
/// times the smallest size twofold, with 2^16 times that fourfold, up to 1 MiB.
pub fn pick_bucket_size(device_bytes: u64, least: u64) -> Result<u64> {
    let mut bucket = least.max(BUCKET_WANTED);
    if device_bytes < bucket * BUCKETS_MIN {
        while bucket > least && device_bytes < bucket * BUCKETS_MIN {
            bucket /= 2;
        }
        if device_bytes < bucket * BUCKETS_MIN {
            let (have, least) = (size::show(device_bytes), size::show(bucket * BUCKETS_MIN));
            return Err(format!("too small: {have}, and {least} are needed"));
        }
        return Ok(bucket);
    }
    let magnitude = (device_bytes / (bucket * BUCKETS_MIN)).ilog2();
    let scale = 1u64 << (magnitude / 4).max(1).ilog2();
    let mut bucket = (bucket * scale).min(BUCKET_LARGE.max(bucket));
    // Beyond what anyone has, but then as large as the number of buckets demands.
    while device_bytes / bucket > BUCKETS_MAX {
        bucket *= 2;
    }
    Ok(bucket)
}

/// Bytes of a btree node when nothing was asked for and the smallest bucket has `bucket` bytes.
pub fn pick_node_size(bucket: u64) -> u64 {
    let fits = 1 << bucket.ilog2();
    NODE_WANTED.min(fits)
}

/// Checks a bucket size and returns it in sectors, with the number of buckets on a device of `device_bytes`.
pub fn buckets(device_bytes: u64, bucket: u64, block: u64, node: u64) -> Result<(u16, u64)> {
    let shown = size::show(bucket);
    if bucket < node {
        let node = size::show(node);
        return Err(format!(
            "bucket size {shown} is below the btree node size {node}"
        ));
    }
    if bucket % block != 0 {
        let block = size::show(block);
        return Err(format!(
            "bucket size {shown} is not a multiple of the block size {block}"
        ));
    }
    if bucket > BUCKET_MAX {
        return Err(format!("bucket size {shown} is too large"));
    }
    let nr = device_bytes / bucket;
    if nr < BUCKETS_MIN {
        return Err(format!(
            "too few buckets: {nr} of {shown}, and {BUCKETS_MIN} are needed"
        ));
    }
    if nr > BUCKETS_MAX {
        return Err(format!(
            "too many buckets: {nr} of {shown}, at most {BUCKETS_MAX} are possible"
        ));
    }
    Ok(((bucket / SECTOR) as u16, nr))
}

/// Where the superblock's copies go on a device of `nbuckets` buckets: at the beginning two, one behind the other, and one
/// in the last bucket that has all of it before the end.
pub fn layout(
    copy_bytes: u64,
    block: u64,
    bucket_sectors: u16,
    nbuckets: u64,
) -> Result<DiskLayout> {
    let shown = size::show(copy_bytes);
    if !copy_bytes.is_power_of_two() || copy_bytes < block {
        return Err(format!(
            "superblock size {shown} is not a power of two, or below the block size"
        ));
    }
    let copy = copy_bytes / SECTOR;
    if copy > 1 << SB_MAX_SIZE_BITS_MAX {
        let most = size::show(SECTOR << SB_MAX_SIZE_BITS_MAX);
        return Err(format!("superblock size {shown} is above {most}"));
    }
    let bucket = u64::from(bucket_sectors);
    let second = (SB_SECTOR + copy).next_multiple_of(block / SECTOR);
    let last = (nbuckets * bucket).saturating_sub(copy) / bucket * bucket;
    if last < second + copy {
        return Err(format!("too small for three superblocks of {shown}"));
    }
    let layout = DiskLayout::new(copy.ilog2() as u8, &[SB_SECTOR, second, last]);
    layout.validate().map_err(|e| e.to_string())?;
    Ok(layout)
}

#[cfg(test)]
mod tests {
    use super::*;

    const K: u64 = 1 << 10;
    const M: u64 = 1 << 20;
    const G: u64 = 1 << 30;
    const T: u64 = 1 << 40;

    /// What Debian's tool chose; `scripts/selftests/60-mkfs` asks it for many more.
    #[test]
    fn bucket_sizes() {
        for (device, least, bucket) in [
            (4 * M, 4 * K, 64 * K),
            (5 * M, 4 * K, 64 * K),
            (8 * M, 4 * K, 128 * K),
            (2047 * M, 4 * K, 128 * K),
            (2 * G, 4 * K, 256 * K),
            (511 * G, 4 * K, 256 * K),
            (512 * G, 4 * K, 512 * K),
            (15 * T, 4 * K, 512 * K),
            (100 * M, 512 * K, 512 * K),
            (100 * M, 256 * K, 256 * K),
        ] {
            assert_eq!(
                pick_bucket_size(device, least),
                Ok(bucket),
                "{device} {least}"
            );
        }
        assert!(pick_bucket_size(255 * K, 4 * K).is_err());
        assert!(pick_bucket_size(16 * M, 512 * K).is_err());
    }

    #[test]
    fn buckets_fit_the_format() {
        for bits in 22..64 {
            for bytes in [
                1u64 << bits,
                (1 << bits) + (1 << (bits - 1)),
                u64::MAX >> (63 - bits),
            ] {
                let Ok(bucket) = pick_bucket_size(bytes, 4 * K) else {
                    continue;
                };
                if bucket <= BUCKET_MAX {
                    assert!(
                        buckets(bytes, bucket, 4 * K, pick_node_size(bucket)).is_ok(),
                        "{bytes}"
                    );
                }
            }
        }
    }

    #[test]
    fn node_sizes() {
        assert_eq!(pick_node_size(64 * K), 64 * K);
        assert_eq!(pick_node_size(300 * K), 256 * K);
        assert_eq!(pick_node_size(100 * K), 64 * K);
        assert_eq!(pick_node_size(2 * M), 256 * K);
    }

    #[test]
    fn bucket_limits() {
        assert_eq!(buckets(G, 128 * K, 4 * K, 128 * K), Ok((256, 8192)));
        assert_eq!(buckets(G + 5, 300 * K, 4 * K, 256 * K), Ok((600, 3495)));
        for (bytes, bucket, node) in [
            (G, 64 * K, 128 * K),
            (G, 32 * M, 4 * K),
            (T, 32 * M, 4 * K),
            (G, 257 * K, 256 * K),
            (1 << 50, 64 * K, 4 * K),
        ] {
            assert!(
                buckets(bytes, bucket, 4 * K, node).is_err(),
                "{bytes} {bucket}"
            );
        }
    }

    #[test]
    fn layouts() {
        let at = |copy, block, bucket, nr| -> Vec<u64> {
            layout(copy, block, bucket, nr).unwrap().copies().collect()
        };
        assert_eq!(at(M, 4 * K, 256, 2048), [8, 2056, 522240]);
        assert_eq!(at(M, 4 * K, 128, 64), [8, 2056, 6144]);
        assert_eq!(at(64 * K, 4 * K, 256, 64), [8, 136, 16128]);
        assert_eq!(at(4 * K, 4 * K, 256, 8192), [8, 16, 2096896]);
        assert_eq!(at(512, 512, 256, 8192), [8, 9, 2096896]);
        // Never past the last bucket, however much of the device lies behind it.
        assert_eq!(at(M, 4 * K, 4096, 511), [8, 2056, 510 * 4096]);
        assert!(layout(M, 4 * K, 64, 96).is_err());
        assert!(layout(64 * M, 4 * K, 256, 1 << 20).is_err());
        assert!(layout(100 * K, 4 * K, 256, 1 << 20).is_err());
        assert!(layout(512, 4 * K, 256, 1 << 20).is_err());
    }
}
