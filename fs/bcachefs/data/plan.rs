// SPDX-License-Identifier: GPL-2.0
//! What to read from a device to get a part of an extent.
//!
//! Plain data is read as wanted. Data with a checksum can only be verified as a whole, and
//! compressed data only be decompressed as a whole: for those the whole stored extent is read,
//! and the wanted part taken from it. When all of a checksummed extent is wanted no copy is
//! needed, and the plan says so.
//!
//! Context: pure functions, callable anywhere. All sizes are in sectors.

use core::fmt;

use bcachefs_format::keys::compression::CompressionType;
use bcachefs_format::keys::extent::Crc;

/// The wanted part of an extent's live range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Sectors from the start of the key's range.
    pub from: u32,
    /// Length; not zero.
    pub sectors: u32,
}

/// How the sectors read become the data wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// They are the data wanted; there is nothing to verify them with.
    Plain,
    /// They are the data wanted and the checksum covers exactly them.
    Whole,
    /// They are more than is wanted: verify them if there is a checksum, then take the part that
    /// begins `skip` sectors in.
    Part {
        /// Sectors before the wanted part.
        skip: u32,
    },
    /// Verify, decompress to `uncompressed` sectors, take the part that begins `skip` sectors in.
    Compressed {
        /// Length of the data once decompressed.
        uncompressed: u32,
        /// Sectors of it before the wanted part.
        skip: u32,
    },
}

/// One read from one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// First sector on the device.
    pub sector: u64,
    /// Number of sectors.
    pub sectors: u32,
    /// What to do with them.
    pub how: How,
}

/// Why a copy cannot be used although its device is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// The wanted part lies outside of what the checksum entry describes.
    Range,
    /// The data is encrypted and there is no key.
    Encrypted,
    /// The checksum is of a type that is not known.
    Checksum,
    /// The compression is of a type that is not known.
    Compression,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Range => "extent refers to data outside of its checksum entry",
            Self::Encrypted => "extent is encrypted",
            Self::Checksum => "unknown checksum type",
            Self::Compression => "unknown compression type",
        })
    }
}

impl Plan {
    /// Plans the read of `want` from the copy that begins at device sector `sector` and is
    /// described by `crc`.
    ///
    /// `align` is the device's block size in sectors, a power of two: plain reads are widened to
    /// it. Stored extents with a checksum are blocks already.
    pub fn new(sector: u64, crc: &Crc, want: Wanted, align: u32) -> Result<Plan, Unusable> {
        if crc.is_encrypted() {
            return Err(Unusable::Encrypted);
        }
        if !crc.csum_type.is_known() {
            return Err(Unusable::Checksum);
        }
        if crc.compression > CompressionType::INCOMPRESSIBLE {
            return Err(Unusable::Compression);
        }
        let skip = crc
            .offset
            .checked_add(want.from)
            .ok_or(Unusable::Range)?;
        let end = skip.checked_add(want.sectors).ok_or(Unusable::Range)?;
        let live_end = want.from.checked_add(want.sectors);
        if want.sectors == 0 || live_end.is_none_or(|e| e > crc.live_size) {
            return Err(Unusable::Range);
        }

        if crc.is_compressed() {
            if end > crc.uncompressed_size {
                return Err(Unusable::Range);
            }
            return Ok(Plan {
                sector,
                sectors: crc.compressed_size,
                how: How::Compressed {
                    uncompressed: crc.uncompressed_size,
                    skip,
                },
            });
        }
        if end > crc.compressed_size {
            return Err(Unusable::Range);
        }
        if crc.is_encoded() {
            let whole = want.sectors == crc.compressed_size;
            return Ok(Plan {
                sector,
                sectors: crc.compressed_size,
                how: if whole { How::Whole } else { How::Part { skip } },
            });
        }

        let first = sector
            .checked_add(u64::from(skip))
            .ok_or(Unusable::Range)?;
        Self::plain(first, want.sectors, align)
    }

    /// Plain data, widened to blocks of the device.
    fn plain(first: u64, sectors: u32, align: u32) -> Result<Plan, Unusable> {
        let align = u64::from(align.max(1));
        let last = first
            .checked_add(u64::from(sectors))
            .ok_or(Unusable::Range)?;
        let start = first - first % align;
        let end = last
            .checked_next_multiple_of(align)
            .ok_or(Unusable::Range)?;
        if start == first && end == last {
            return Ok(Plan {
                sector: first,
                sectors,
                how: How::Plain,
            });
        }
        Ok(Plan {
            sector: start,
            sectors: u32::try_from(end - start).map_err(|_| Unusable::Range)?,
            how: How::Part {
                // Less than `align`, which came from 32 bits.
                skip: (first - start) as u32,
            },
        })
    }
}

#[kernel::macros::kunit_tests(bcachefs_data_plan)]
mod tests {
    use super::*;
    use bcachefs_format::checksum::{Csum, CsumType};

    /// Which sector of the uncompressed data a plan delivers as the `i`th wanted one; `None` if
    /// what is read does not include it.
    fn delivered(plan: &Plan, sector: u64, crc: &Crc, i: u32) -> Option<u64> {
        let inside = |at: u64| {
            (at >= plan.sector && at < plan.sector + u64::from(plan.sectors)).then_some(at)
        };
        match plan.how {
            How::Plain | How::Whole => inside(plan.sector + u64::from(i)).map(|at| at - sector),
            How::Part { skip } => {
                inside(plan.sector + u64::from(skip) + u64::from(i)).map(|at| at - sector)
            }
            How::Compressed { uncompressed, skip } => {
                // Decompression needs all of it, exactly.
                let all = plan.sector == sector && plan.sectors == crc.compressed_size;
                let at = skip + i;
                (all && at < uncompressed).then_some(u64::from(at))
            }
        }
    }

    fn crc(csum: CsumType, compression: CompressionType, sizes: [u32; 4]) -> Crc {
        let [compressed_size, uncompressed_size, offset, live_size] = sizes;
        Crc {
            csum_type: csum,
            compression,
            compressed_size,
            uncompressed_size,
            live_size,
            offset,
            nonce: 0,
            csum: Csum::new(0, 0),
        }
    }

    /// Every wanted range of every live range of every small extent, on devices of several block
    /// sizes: the plan delivers exactly the wanted sectors, and reads all that verification needs.
    #[test]
    fn exhaustive() {
        const SIZE: u32 = 6;
        let kinds = [
            (CsumType::NONE, CompressionType::NONE, SIZE),
            (CsumType::NONE, CompressionType::INCOMPRESSIBLE, SIZE),
            (CsumType::CRC32C, CompressionType::NONE, SIZE),
            (CsumType::CRC32C, CompressionType::LZ4, 2),
            (CsumType::NONE, CompressionType::ZSTD, 3),
        ];
        for (csum, compression, stored) in kinds {
            for offset in 0..SIZE {
                for live in 1..=SIZE - offset {
                    for from in 0..live {
                        for sectors in 1..=live - from {
                            for align in [1, 2, 8] {
                                let crc = crc(csum, compression, [stored, SIZE, offset, live]);
                                check(1001, &crc, Wanted { from, sectors }, align);
                            }
                        }
                    }
                }
            }
        }
    }

    fn check(sector: u64, crc: &Crc, want: Wanted, align: u32) {
        let plan = Plan::new(sector, crc, want, align);
        assert!(plan.is_ok());
        let Ok(plan) = plan else { return };
        for i in 0..want.sectors {
            let expected = u64::from(crc.offset + want.from + i);
            assert_eq!(delivered(&plan, sector, crc, i), Some(expected));
        }
        if crc.is_encoded() {
            assert_eq!((plan.sector, plan.sectors), (sector, crc.compressed_size));
            assert!(plan.how != How::Plain);
        } else {
            assert_eq!(plan.sector % u64::from(align), 0);
            assert_eq!(plan.sectors % align, 0);
            // No more than the blocks that hold something wanted.
            assert!(plan.sectors < want.sectors + 2 * align);
        }
        let exact = want.sectors == crc.compressed_size && !crc.is_compressed();
        let whole = plan.how == How::Whole;
        assert_eq!(whole, crc.is_encoded() && exact);
    }

    /// Entries that contradict themselves are refused, whatever their numbers.
    #[test]
    fn refused() {
        let plain = (CsumType::CRC32C, CompressionType::NONE);
        let lz4 = (CsumType::CRC32C, CompressionType::LZ4);
        let cases = [
            (plain, [4, 4, 1, 4], 0, 4, Unusable::Range),
            (plain, [4, 4, 0, 4], 3, 2, Unusable::Range),
            (plain, [4, 4, 0, 4], 0, 0, Unusable::Range),
            (plain, [4, 8, 4, 4], 0, 1, Unusable::Range),
            (plain, [4, 4, u32::MAX, 4], 1, 1, Unusable::Range),
            (plain, [4, 4, 0, u32::MAX], u32::MAX, 1, Unusable::Range),
            (lz4, [1, 4, 1, 4], 0, 4, Unusable::Range),
            (
                (CsumType::CHACHA20_POLY1305_80, CompressionType::NONE),
                [4, 4, 0, 4],
                0,
                4,
                Unusable::Encrypted,
            ),
            ((CsumType(9), CompressionType::NONE), [4, 4, 0, 4], 0, 4, Unusable::Checksum),
            ((CsumType::NONE, CompressionType(6)), [4, 4, 0, 4], 0, 4, Unusable::Compression),
        ];
        for ((csum, compression), sizes, from, sectors, why) in cases {
            let crc = crc(csum, compression, sizes);
            let want = Wanted { from, sectors };
            assert_eq!(Plan::new(100, &crc, want, 1), Err(why));
        }
    }
}
