// SPDX-License-Identifier: GPL-2.0
//! Finding a valid superblock on one device.
//!
//! The first copy whose identity and checksum are right is used: the one at the usual sector, else those that
//! the layout sector lists, in order. It must then also be valid in every other respect.

use bcachefs_format::{
    sb::DiskLayout,
    super_block::{probe, SbLimits, SuperBlock, SB_HEADER_BYTES, SB_LAYOUT_SECTOR, SB_SECTOR},
    Invalid,
};
use kernel::{page::PAGE_SIZE, prelude::*, sync::Arc};
use kfs::block::{self, BlockDevice, IoBuf};

use crate::util::{
    checksum::Checksums,
    error::{Error, Result},
    log::Log,
};

/// Bytes read at first; most superblocks are not much longer.
const FIRST_BYTES: usize = 16 << 10;

/// A device, and its superblock: framed, checksummed and valid.
pub(super) struct Found {
    pub(super) bdev: Arc<BlockDevice>,
    /// The superblock's words, no more.
    pub(super) words: KVVec<u64>,
}

impl Found {
    /// The superblock. It was validated when this value was made.
    pub(super) fn sb(&self) -> Result<SuperBlock<'_>> {
        view(&self.words)
    }
}

/// A superblock that has been checked before, from its words.
pub(super) fn view(words: &[u64]) -> Result<SuperBlock<'_>> {
    Ok(SuperBlock::frame(words)?.into_inner())
}

/// Opens the device at `path` and reads its superblock, from `sector` only if that is given. May sleep.
pub(super) fn read(
    path: &CStr,
    access: block::Access,
    sector: Option<u64>,
    log: &dyn Log,
) -> Result<Found> {
    let bdev = BlockDevice::open(path, access).map_err(|e| {
        log.error(format_args!("{path:?}: cannot be opened: {e:?}"));
        Error::from(e)
    })?;
    let words = find(&bdev, sector, log)?;
    let limits = SbLimits {
        logical_block_bytes: bdev.logical_block_bytes(),
        block_bytes_max: PAGE_SIZE as u32,
    };
    let checked = SuperBlock::frame(&words).and_then(|sb| sb.validate(&limits));
    if let Err(e) = checked {
        let name = bdev.name();
        log.error(format_args!("{name}: {e}"));
        return Err(classify(&words));
    }
    Ok(Found { bdev, words })
}

/// What kind of error a superblock that was not accepted stands for.
#[inline(never)]
fn classify(words: &[u64]) -> Error {
    match SuperBlock::frame(words) {
        Ok(sb) if sb.peek().features().unknown().0 != 0 => Error::SuperFeature,
        Ok(sb) if sb.peek().flags().big_endian() != 0 => Error::SuperBigEndian,
        _ => Error::SuperInvalid,
    }
}

#[inline(never)]
fn find(bdev: &BlockDevice, sector: Option<u64>, log: &dyn Log) -> Result<KVVec<u64>> {
    let name = bdev.name();
    let mut reader = Reader::new(bdev)?;
    let first = sector.unwrap_or(SB_SECTOR);
    let at_first = match reader.copy(first) {
        Ok(words) => return Ok(words),
        Err(e) => e,
    };
    if sector.is_some() {
        log.error(format_args!("{name}: superblock at sector {first}: {at_first}"));
        return Err(at_first.class());
    }
    let layout = match reader.layout() {
        Ok(layout) => layout,
        Err(e) => {
            // Without a layout there is most likely no filesystem at all: the first error says more.
            log.error(format_args!("{name}: superblock at sector {first}: {at_first}"));
            log.error(format_args!("{name}: layout at sector {SB_LAYOUT_SECTOR}: {e}"));
            return Err(at_first.class());
        }
    };
    log.warn(format_args!(
        "{name}: superblock at sector {first}: {at_first}; trying the other copies"
    ));
    for sector in layout.copies().filter(|s| *s != first) {
        match reader.copy(sector) {
            Ok(words) => {
                log.warn(format_args!("{name}: using the superblock at sector {sector}"));
                return Ok(words);
            }
            Err(e) => log.error(format_args!("{name}: superblock at sector {sector}: {e}")),
        }
    }
    Err(at_first.class())
}

/// Why a copy is no good.
enum Bad {
    Io(block::IoError),
    Kernel(Error),
    /// Not of this filesystem type, or damaged.
    Invalid(Invalid),
    /// Of a version that is not supported.
    Version(Invalid),
}

impl Bad {
    fn class(&self) -> Error {
        match self {
            Bad::Io(_) => Error::DeviceRead,
            Bad::Kernel(e) => *e,
            Bad::Invalid(_) => Error::SuperNotFound,
            Bad::Version(_) => Error::SuperVersion,
        }
    }
}

impl core::fmt::Display for Bad {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Bad::Io(e) => e.fmt(f),
            Bad::Kernel(e) => e.fmt(f),
            Bad::Invalid(e) | Bad::Version(e) => e.fmt(f),
        }
    }
}

/// Reads byte ranges that need not be aligned to the device's blocks.
struct Reader<'a> {
    bdev: &'a BlockDevice,
    buf: IoBuf,
}

impl<'a> Reader<'a> {
    fn new(bdev: &'a BlockDevice) -> Result<Self> {
        Ok(Reader {
            bdev,
            buf: IoBuf::new(FIRST_BYTES, GFP_KERNEL)?,
        })
    }

    /// `bytes` bytes from `sector` on, as words; fewer where the device ends.
    fn words(&mut self, sector: u64, bytes: usize) -> core::result::Result<&[u64], Bad> {
        let block_sectors = u64::from(self.bdev.logical_block_bytes().max(512) >> 9);
        let start = sector - sector % block_sectors;
        let skip = (sector - start) as usize * 512;
        let whole = self.bdev.size_sectors() / block_sectors * block_sectors;
        let wanted = (skip + bytes).div_ceil(512) as u64;
        let sectors = wanted
            .next_multiple_of(block_sectors)
            .min(whole.saturating_sub(start));
        // A superblock is at most 32 MiB long.
        let len = sectors as usize * 512;
        if len > self.buf.len() {
            self.buf = IoBuf::new(len, GFP_KERNEL).map_err(|_| Bad::Kernel(Error::NoMem))?;
        }
        if len > 0 {
            self.bdev
                .read_sync(start, &mut self.buf, 0..len)
                .map_err(Bad::Io)?;
        }
        let end = (skip + bytes).min(len) / 8;
        Ok(self.buf.as_words().get(skip / 8..end).unwrap_or(&[]))
    }

    /// The copy at `sector`, identity and checksum checked.
    #[inline(never)]
    fn copy(&mut self, sector: u64) -> core::result::Result<KVVec<u64>, Bad> {
        let words = self.words(sector, FIRST_BYTES)?;
        let bytes = probe(words).map_err(|e| match e.offset {
            16..20 => Bad::Version(e),
            _ => Bad::Invalid(e),
        })?;
        let words = self.words(sector, bytes)?;
        let sb = SuperBlock::open(words, &Checksums).map_err(Bad::Invalid)?;
        let mut copy = KVVec::new();
        copy.extend_from_slice(sb.peek().words(), GFP_KERNEL)
            .map_err(|_| Bad::Kernel(Error::NoMem))?;
        Ok(copy)
    }

    #[inline(never)]
    fn layout(&mut self) -> core::result::Result<KBox<DiskLayout>, Bad> {
        let words = self.words(SB_LAYOUT_SECTOR, 512)?;
        let layout = DiskLayout::ref_from_bytes(zerocopy::IntoBytes::as_bytes(words))
            .map_err(|_| Bad::Invalid(Invalid::plain("layout is cut off", 0, 0, 512)))?;
        layout.validate().map_err(Bad::Invalid)?;
        KBox::new(*layout, GFP_KERNEL).map_err(|_| Bad::Kernel(Error::NoMem))
    }
}

const _: () = assert!(SB_HEADER_BYTES <= FIRST_BYTES);
