// SPDX-License-Identifier: GPL-2.0
//! Keys that lead to data.

use bcachefs_format::checksum::{Csum, CsumType};
use bcachefs_format::keys::btree_ptr::BtreePtr;
use bcachefs_format::keys::compression::{CompressionOpt, CompressionType};
use bcachefs_format::keys::extent::{Crc, CrcKind, EntryWriter, Ptr, Rebalance, StripePtr};
use bcachefs_format::keys::inline_data::InlineData;
use bcachefs_format::keys::reflink::{IndirectInlineData, ReflinkP};
use bcachefs_format::keys::reservation::Reservation;
use bcachefs_format::{Bpos, BtreeId, KeyType};

use super::file_pos;
use crate::keys::owned::{build, Owned};
use crate::keys::rng::Rng;

/// A pointer to one of devices `dev..dev + 4`, so that callers can keep devices apart.
pub fn ptr(r: &mut Rng, dev: u8) -> Ptr {
    Ptr::new(dev, r.magnitude(44), r.next() as u8)
}

pub fn btree_ptr_v2(r: &mut Rng) -> Owned {
    let max = Bpos::with_snapshot(r.range(1, u64::MAX), r.next(), r.next() as u32);
    let min = Bpos::new(r.below(max.inode), r.next());
    let ptrs: Vec<Ptr> = (0..r.range(1, 4)).map(|dev| ptr(r, dev as u8)).collect();
    let v = BtreePtr::new(r.next(), r.range(1, 512) as u16, min, max);
    let value = build(|w| v.build(&ptrs, w));
    Owned::new(BtreeId::EXTENTS, KeyType::BTREE_PTR_V2, max, 0, value)
}

/// A crc that holds `live` sectors and fits some encoding.
pub fn crc(r: &mut Rng, live: u32) -> Crc {
    let kind = *r.pick(&[CrcKind::Crc32, CrcKind::Crc64, CrcKind::Crc128]);
    let kind = if live > kind.size_max() {
        CrcKind::Crc128
    } else {
        kind
    };
    let csum_type = loop {
        // Encrypted ones have to agree among themselves, so they are tested apart.
        let t = CsumType(*r.pick(&[0, 1, 2, 5, 6, 7]));
        if usize::from(t.bytes().unwrap()) <= kind.csum_bytes() {
            break t;
        }
    };
    let uncompressed_size = r.range(live.into(), kind.size_max().into()) as u32;
    let offset = r.range(0, u64::from(uncompressed_size - live)) as u32;
    let compression = CompressionType(r.below(6) as u8);
    let compressed_size = if compression.is_compressed() {
        r.range(1, uncompressed_size.into()) as u32
    } else {
        uncompressed_size
    };
    Crc {
        csum_type,
        compression,
        compressed_size,
        uncompressed_size,
        live_size: live,
        offset,
        nonce: r.range(0, kind.nonce_max().into()) as u32,
        csum: Csum::new(r.next(), r.next()).truncated(csum_type),
    }
}

/// Entries for a key of `live` sectors, of every kind in every order that is valid.
pub fn entries(r: &mut Rng, live: u32, unwritten: bool, w: &mut EntryWriter<'_>) {
    let nr = r.range(1, 4);
    let rebalance_at = r.below(8);
    for dev in 0..nr {
        if dev == rebalance_at {
            w.rebalance(Rebalance::new(
                CompressionOpt(r.below(4) as u8),
                r.next() as u16,
            ))
            .unwrap();
        }
        if !unwritten && r.flip() {
            w.crc(&crc(r, live)).unwrap();
        }
        let p = ptr(r, dev as u8).with_unwritten(unwritten);
        if !unwritten && r.below(4) == 0 {
            w.stripe_ptr(StripePtr::new(r.magnitude(47), r.next() as u8, 2))
                .unwrap();
            w.ptr(p).unwrap();
        } else {
            w.ptr(p.with_cached(r.below(4) == 0)).unwrap();
        }
    }
}

pub fn extent(r: &mut Rng) -> Owned {
    let most = *r.pick(&[128, 8192]);
    let size = r.range(1, most) as u32;
    let unwritten = r.below(8) == 0;
    let value = build(|words| {
        let mut w = EntryWriter::new(words);
        entries(r, size, unwritten, &mut w);
        w.finish()
    });
    let pos = file_pos(r, size);
    Owned::new(BtreeId::EXTENTS, KeyType::EXTENT, pos, size, value)
}

pub fn reservation(r: &mut Rng) -> Owned {
    let v = Reservation {
        generation: r.next() as u32,
        nr_replicas: r.range(1, 4) as u8,
    };
    let size = r.range(1, u32::MAX.into()) as u32;
    let pos = file_pos(r, size);
    let value = build(|w| v.build(w));
    Owned::new(BtreeId::EXTENTS, KeyType::RESERVATION, pos, size, value)
}

pub fn reflink_p(r: &mut Rng) -> Owned {
    let front_pad = r.magnitude(32) as u32;
    let v = ReflinkP {
        idx: u64::from(front_pad) + r.magnitude(56),
        front_pad,
        back_pad: r.magnitude(32) as u32,
    };
    let size = r.range(1, u32::MAX.into()) as u32;
    let pos = file_pos(r, size);
    let value = build(|w| v.build(w));
    Owned::new(BtreeId::EXTENTS, KeyType::REFLINK_P, pos, size, value)
}

pub fn reflink_v(r: &mut Rng) -> Owned {
    let size = r.range(1, 128) as u32;
    let refcount = r.next();
    let value = build(|words| {
        let mut w = EntryWriter::reflink_v(words, refcount)?;
        entries(r, size, false, &mut w);
        w.finish()
    });
    let pos = Bpos::new(0, u64::from(size) + r.magnitude(50));
    Owned::new(BtreeId::REFLINK, KeyType::REFLINK_V, pos, size, value)
}

pub fn inline_data(r: &mut Rng) -> Owned {
    let len = 8 * r.range(0, 128) as usize;
    let bytes = r.bytes(len);
    let size = r.range(1, 8) as u32;
    let pos = file_pos(r, size);
    let value = build(|w| InlineData { bytes: &bytes }.build(w));
    Owned::new(BtreeId::EXTENTS, KeyType::INLINE_DATA, pos, size, value)
}

pub fn indirect_inline_data(r: &mut Rng) -> Owned {
    let len = 8 * r.range(0, 128) as usize;
    let bytes = r.bytes(len);
    let v = IndirectInlineData {
        refcount: r.next(),
        data: InlineData { bytes: &bytes },
    };
    let size = r.range(1, 8) as u32;
    let pos = Bpos::new(0, u64::from(size) + r.magnitude(50));
    let value = build(|w| v.build(w));
    Owned::new(
        BtreeId::REFLINK,
        KeyType::INDIRECT_INLINE_DATA,
        pos,
        size,
        value,
    )
}
