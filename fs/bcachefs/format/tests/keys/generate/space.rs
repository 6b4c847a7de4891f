// SPDX-License-Identifier: GPL-2.0
//! Keys about devices and what is used of them.

use bcachefs_format::checksum::CsumType;
use bcachefs_format::keys::accounting::{Accounting, AccountingKey, Replicas};
use bcachefs_format::keys::alloc::Alloc;
use bcachefs_format::keys::backpointer::Backpointer;
use bcachefs_format::keys::bucket_gens::BucketGens;
use bcachefs_format::keys::compression::CompressionType;
use bcachefs_format::keys::data_type::DataType;
use bcachefs_format::keys::lru::{Lru, LruPos};
use bcachefs_format::keys::quota::{Quota, QuotaLimit};
use bcachefs_format::keys::stripe::Stripe;
use bcachefs_format::{Bpos, BtreeId, KeyType};
use zerocopy::byteorder::little_endian::{U16, U64};

use super::data::ptr;
use crate::keys::owned::{build, Owned};
use crate::keys::rng::Rng;

pub fn alloc(r: &mut Rng) -> Owned {
    let sectors = r.range(1, u32::MAX.into()) as u32;
    let (dirty, cached, stripe_sectors, stripe) = *r.pick(&[
        (sectors, 0, 0, 0),
        (sectors, 7, 0, 0),
        (0, sectors, 0, 0),
        (3, 0, sectors, 9),
        (0, 0, 0, 0),
    ]);
    let mut v = Alloc {
        journal_seq: r.next(),
        need_discard: r.flip(),
        need_inc_gen: r.flip(),
        generation: r.next() as u8,
        oldest_gen: r.next() as u8,
        data_type: DataType(r.range(1, 4) as u8),
        stripe_redundancy: r.below(4) as u8,
        dirty_sectors: dirty,
        cached_sectors: cached,
        stripe_sectors,
        io_time: [r.range(1, (1 << 48) - 1), r.magnitude(48)],
        stripe,
        nr_external_backpointers: r.next() as u32,
        fragmentation_lru: r.next(),
    };
    v.data_type = v.data_type_if(v.data_type);
    let pos = Bpos::new(r.below(64), r.magnitude(40));
    let value = build(|w| v.build(w));
    Owned::new(BtreeId::ALLOC, KeyType::ALLOC_V4, pos, 0, value)
}

pub fn quota(r: &mut Rng) -> Owned {
    let mut limit = || QuotaLimit {
        hard: r.magnitude(64),
        soft: r.magnitude(64),
    };
    let v = Quota {
        space: limit(),
        inodes: limit(),
    };
    let pos = Bpos::new(r.below(3), r.magnitude(32));
    let value = build(|w| v.build(w));
    Owned::new(BtreeId::QUOTAS, KeyType::QUOTA, pos, 0, value)
}

pub fn stripe(r: &mut Rng) -> Owned {
    let nr = r.range(2, 8) as usize;
    let sectors = r.range(1, 2048) as u16;
    let csum_type = CsumType(r.below(8) as u8);
    let bits = r.range(7, 63) as u8;
    let pieces = if bits > 16 {
        1
    } else {
        usize::from(sectors).div_ceil(1 << bits)
    };
    let csums = r.bytes(nr * pieces * usize::from(csum_type.bytes().unwrap()));
    let ptrs: Vec<U64> = (0..nr).map(|d| U64::new(ptr(r, d as u8).word())).collect();
    let live: Vec<U16> = (0..nr).map(|_| U16::new(r.next() as u16)).collect();
    let v = Stripe::new(sectors, 1, bits, csum_type, 3, &ptrs, &csums, &live).unwrap();
    let pos = Bpos::new(0, r.range(1, u32::MAX.into()));
    let value = build(|w| v.build(w));
    Owned::new(BtreeId::STRIPES, KeyType::STRIPE, pos, 0, value)
}

pub fn lru(r: &mut Rng) -> Owned {
    let pos = LruPos {
        list: r.next() as u16,
        time: r.range(1, (1 << 48) - 1),
        dev: r.below(64) as u16,
        bucket: r.magnitude(48),
    };
    assert_eq!(LruPos::from_pos(pos.to_pos()), pos);
    let v = Lru { idx: r.next() };
    let value = build(|w| v.build(w));
    Owned::new(BtreeId::LRU, KeyType::LRU, pos.to_pos(), 0, value)
}

pub fn backpointer(r: &mut Rng) -> Owned {
    let sector = r.magnitude(44);
    let v = Backpointer {
        btree: BtreeId(r.below(21) as u8),
        level: r.below(5) as u8,
        data_type: DataType(r.below(11) as u8),
        bucket_offset: r.magnitude(40),
        bucket_len: r.next() as u32,
        pos: Bpos::with_snapshot(r.next(), r.next(), r.next() as u32),
    };
    let pos = Backpointer::key_pos(r.below(64) as u8, sector, r.below(1024) as u32);
    let value = build(|w| v.build(w));
    Owned::new(BtreeId::BACKPOINTERS, KeyType::BACKPOINTER, pos, 0, value)
}

pub fn bucket_gens(r: &mut Rng) -> Owned {
    let gens: [u8; 256] = core::array::from_fn(|_| r.next() as u8);
    let value = build(|w| BucketGens { gens: &gens }.build(w));
    let pos = Bpos::new(r.below(64), r.magnitude(30));
    Owned::new(BtreeId::BUCKET_GENS, KeyType::BUCKET_GENS, pos, 0, value)
}

/// What may be counted, with devices in order.
pub fn accounting_key(r: &mut Rng) -> AccountingKey {
    match r.below(9) {
        0 => AccountingKey::NrInodes,
        1 => AccountingKey::PersistentReserved {
            nr_replicas: r.next() as u8,
        },
        2 => {
            let nr = r.range(1, 16) as u8;
            let devs: Vec<u8> = (0..nr).map(|i| i * 4 + r.below(4) as u8).collect();
            AccountingKey::Replicas(Replicas::new(DataType::USER, 1, &devs).unwrap())
        }
        3 => AccountingKey::DevDataType {
            dev: r.next() as u8,
            data_type: DataType(r.below(11) as u8),
        },
        4 => AccountingKey::Compression {
            compression: CompressionType(r.range(1, 5) as u8),
        },
        5 => AccountingKey::Snapshot {
            id: r.next() as u32,
        },
        6 => AccountingKey::Btree {
            id: r.next() as u32,
        },
        7 => AccountingKey::RebalanceWork,
        _ => AccountingKey::Inum { inum: r.next() },
    }
}

pub fn accounting(r: &mut Rng) -> Owned {
    let what = loop {
        let what = accounting_key(r);
        // A single device needs no more than itself.
        if !matches!(what, AccountingKey::Replicas(x) if x.nr_devs == 0) {
            break what;
        }
    };
    let counters: Vec<i64> = (0..what.nr_counters().unwrap())
        .map(|_| r.next() as i64)
        .collect();
    let value = build(|w| Accounting::build(&counters, w));
    let pos = what.to_pos().unwrap();
    Owned::new(BtreeId::ACCOUNTING, KeyType::ACCOUNTING, pos, 0, value)
}
