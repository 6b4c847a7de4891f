// SPDX-License-Identifier: GPL-2.0
//! Rules for values with pointers, shared by extents, indirect extents and btree pointers.

use crate::bkey::Bkey;
use crate::error::{ErrorId, Invalid};
use crate::keys::ctx::ValidateCtx;
use crate::keys::extent::crc::Crc;
use crate::keys::extent::entry::{Entries, Entry, PTRS_MAX};
use crate::keys::extent::ptr::{Ptr, DEV_INVALID};

/// What kind of key the entries belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PtrsIn {
    /// Type `extent`: everything is allowed.
    Extent,
    /// Type `reflink_v`: no unwritten pointers.
    ReflinkV,
    /// Type `stripe`: only plain pointers, each to a block.
    Stripe,
    /// A btree pointer: only plain pointers, each to a whole node.
    BtreePtr,
}

/// What has been seen of a value so far.
struct State {
    crc: Crc,
    /// A crc entry has not had a pointer yet.
    crc_open: bool,
    /// A stripe entry has not had its pointer yet.
    stripe_open: bool,
    devs: [u64; 4],
    nr_ptrs: usize,
    unwritten: Option<bool>,
    nonce: Option<u32>,
    rebalance: bool,
}

/// Checks a sequence of entries; `base` is the byte of the value at which it begins.
pub(crate) fn validate_entries(
    key: &Bkey,
    entries: Entries<'_>,
    base: usize,
    kind: PtrsIn,
    ctx: &ValidateCtx<'_>,
) -> Result<(), Invalid> {
    let size = match kind {
        PtrsIn::BtreePtr => ctx.btree_node_sectors,
        _ => key.size,
    };
    let mut s = State {
        crc: Crc::none(size),
        crc_open: false,
        stripe_open: false,
        devs: [0; 4],
        nr_ptrs: 0,
        unwritten: None,
        nonce: None,
        rebalance: false,
    };
    let end = base + 8 * entries.words().len();
    for (at, entry) in entries {
        let offset = base + 8 * at;
        let plain = match kind {
            PtrsIn::Extent | PtrsIn::ReflinkV => None,
            PtrsIn::Stripe => Some(ErrorId::EXTENT_PTRS_INVALID_ENTRY),
            PtrsIn::BtreePtr => Some(ErrorId::BTREE_PTR_HAS_NON_PTR),
        };
        if let (Some(id), false) = (plain, matches!(entry, Entry::Ptr(_))) {
            let word = entries.words().get(at).copied().map_or(0, u64::from_le);
            return Err(Invalid::new(
                id,
                "entry that is not a pointer among pointers",
                offset,
                u64::from(word.trailing_zeros()),
                0,
            ));
        }
        match entry {
            Entry::Ptr(ptr) => s.ptr(ptr, kind, ctx, offset)?,
            Entry::Crc(_, crc) => s.crc(crc, key, ctx, offset)?,
            Entry::StripePtr(_) => {
                if s.stripe_open {
                    return Err(Invalid::new(
                        ErrorId::PTR_STRIPE_REDUNDANT,
                        "two stripe entries with no pointer between",
                        offset,
                        2,
                        1,
                    ));
                }
                s.stripe_open = true;
            }
            Entry::Rebalance(_) => {
                if s.rebalance && ctx.is_commit() {
                    return Err(Invalid::new(
                        ErrorId::EXTENT_PTRS_INVALID_ENTRY,
                        "more than one rebalance entry",
                        offset,
                        2,
                        1,
                    ));
                }
                s.rebalance = true;
            }
            Entry::Bad(k) => {
                return Err(Invalid::new(
                    ErrorId::EXTENT_PTRS_INVALID_ENTRY,
                    "entry of unknown kind, or cut off by the end of the value",
                    offset,
                    u64::from(k),
                    5,
                ))
            }
        }
    }
    s.end(end)
}

impl State {
    fn ptr(
        &mut self,
        ptr: Ptr,
        kind: PtrsIn,
        ctx: &ValidateCtx<'_>,
        offset: usize,
    ) -> Result<(), Invalid> {
        self.nr_ptrs += 1;
        if self.nr_ptrs > PTRS_MAX {
            return Err(Invalid::new(
                ErrorId::EXTENT_PTRS_TOO_MANY_PTRS,
                "too many pointers",
                offset,
                self.nr_ptrs as u64,
                PTRS_MAX as u64,
            ));
        }
        let bit = 1u64 << (ptr.dev() % 64);
        if let Some(set) = self.devs.get_mut(usize::from(ptr.dev() / 64)) {
            if ptr.dev() != DEV_INVALID && *set & bit != 0 {
                return Err(Invalid::new(
                    ErrorId::PTR_TO_DUPLICATE_DEVICE,
                    "two pointers to one device",
                    offset,
                    u64::from(ptr.dev()),
                    0,
                ));
            }
            *set |= bit;
        }
        if ptr.cached() && self.stripe_open {
            return Err(Invalid::new(
                ErrorId::PTR_CACHED_AND_ERASURE_CODED,
                "cached pointer in a stripe",
                offset,
                1,
                0,
            ));
        }
        if ptr.unwritten() && kind != PtrsIn::Extent {
            return Err(Invalid::new(
                ErrorId::EXTENT_PTRS_UNWRITTEN,
                "unwritten pointer outside an extent",
                offset,
                1,
                0,
            ));
        }
        if *self.unwritten.get_or_insert(ptr.unwritten()) != ptr.unwritten() {
            return Err(Invalid::new(
                ErrorId::EXTENT_PTRS_WRITTEN_AND_UNWRITTEN,
                "written and unwritten pointers mixed",
                offset,
                u64::from(ptr.unwritten()),
                u64::from(!ptr.unwritten()),
            ));
        }
        self.crc_open = false;
        self.stripe_open = false;
        self.bounds(ptr, ctx, offset)
    }

    /// The sectors on disk lie in one bucket of the device, one that may hold data.
    fn bounds(&self, ptr: Ptr, ctx: &ValidateCtx<'_>, offset: usize) -> Result<(), Invalid> {
        let Some(dev) = ctx.geometry(ptr.dev()) else {
            return Ok(());
        };
        let bucket_size = u64::from(dev.bucket_size);
        let (Some(bucket), Some(sector)) = (
            ptr.offset().checked_div(bucket_size),
            ptr.offset().checked_rem(bucket_size),
        ) else {
            return Ok(());
        };
        if bucket < dev.first_bucket {
            return Err(Invalid::new(
                ErrorId::PTR_BEFORE_FIRST_BUCKET,
                "pointer before the first bucket of its device",
                offset,
                bucket,
                dev.first_bucket,
            ));
        }
        if bucket >= dev.nbuckets {
            return Err(Invalid::new(
                ErrorId::PTR_AFTER_LAST_BUCKET,
                "pointer past the last bucket of its device",
                offset,
                bucket,
                dev.nbuckets,
            ));
        }
        let end = sector + u64::from(self.crc.compressed_size);
        if end > bucket_size {
            return Err(Invalid::new(
                ErrorId::PTR_SPANS_MULTIPLE_BUCKETS,
                "data crosses the end of its bucket",
                offset,
                end,
                bucket_size,
            ));
        }
        Ok(())
    }

    fn crc(
        &mut self,
        crc: Crc,
        key: &Bkey,
        ctx: &ValidateCtx<'_>,
        offset: usize,
    ) -> Result<(), Invalid> {
        if u64::from(crc.offset) + u64::from(key.size) > u64::from(crc.uncompressed_size) {
            return Err(Invalid::new(
                ErrorId::PTR_CRC_UNCOMPRESSED_SIZE_TOO_SMALL,
                "live data exceeds the uncompressed size",
                offset,
                u64::from(crc.offset) + u64::from(key.size),
                u64::from(crc.uncompressed_size),
            ));
        }
        if !crc.csum_type.is_known() {
            return Err(Invalid::new(
                ErrorId::PTR_CRC_CSUM_TYPE_UNKNOWN,
                "unknown checksum type",
                offset,
                u64::from(crc.csum_type.0),
                7,
            ));
        }
        if !crc.compression.is_known() {
            return Err(Invalid::new(
                ErrorId::PTR_CRC_COMPRESSION_TYPE_UNKNOWN,
                "unknown compression type",
                offset,
                u64::from(crc.compression.0),
                5,
            ));
        }
        if crc.is_encrypted() {
            let nonce = crc.nonce.wrapping_add(crc.offset);
            let want = *self.nonce.get_or_insert(nonce);
            if nonce != want {
                return Err(Invalid::new(
                    ErrorId::PTR_CRC_NONCE_MISMATCH,
                    "encrypted copies disagree on nonce + offset",
                    offset,
                    u64::from(nonce),
                    u64::from(want),
                ));
            }
        }
        if self.crc_open {
            return Err(Invalid::new(
                ErrorId::PTR_CRC_REDUNDANT,
                "two checksum entries with no pointer between",
                offset,
                2,
                1,
            ));
        }
        if ctx.is_commit()
            && ctx.encoded_extent_max != 0
            && crc.is_encoded()
            && crc.uncompressed_size > ctx.encoded_extent_max
        {
            return Err(Invalid::new(
                ErrorId::PTR_CRC_UNCOMPRESSED_SIZE_TOO_BIG,
                "encoded extent too large",
                offset,
                u64::from(crc.uncompressed_size),
                u64::from(ctx.encoded_extent_max),
            ));
        }
        self.crc = crc;
        self.crc_open = true;
        Ok(())
    }

    fn end(&self, end: usize) -> Result<(), Invalid> {
        if self.nr_ptrs == 0 {
            return Err(Invalid::new(
                ErrorId::EXTENT_PTRS_NO_PTRS,
                "no pointers",
                end,
                0,
                1,
            ));
        }
        if self.crc_open {
            return Err(Invalid::new(
                ErrorId::EXTENT_PTRS_REDUNDANT_CRC,
                "checksum entry with no pointer after it",
                end,
                1,
                0,
            ));
        }
        if self.stripe_open {
            return Err(Invalid::new(
                ErrorId::EXTENT_PTRS_REDUNDANT_STRIPE,
                "stripe entry with no pointer after it",
                end,
                1,
                0,
            ));
        }
        Ok(())
    }
}
