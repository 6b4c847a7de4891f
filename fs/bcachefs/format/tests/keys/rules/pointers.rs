// SPDX-License-Identifier: GPL-2.0
//! Rules of keys with pointers.

use bcachefs_format::checksum::{Csum, CsumType};
use bcachefs_format::keys::compression::{CompressionOpt, CompressionType};
use bcachefs_format::keys::extent::{
    Crc, CrcKind, EntryWriter, Ptr, Rebalance, StripePtr, DEV_INVALID, PTRS_MAX,
};
use bcachefs_format::keys::{self, BuildError, ValidateCtx};
use bcachefs_format::{Bpos, BtreeId, ErrorId, KeyType};

use super::{accepted, commit, read, refused};
use crate::keys::generate;
use crate::keys::owned::{build, hex, words, Owned};
use crate::keys::rng::Rng;

/// A key of 8 sectors with the entries that `f` writes.
fn extent(f: impl FnOnce(&mut EntryWriter<'_>) -> Result<(), BuildError>) -> Owned {
    let value = build(|w| {
        let mut w = EntryWriter::new(w);
        f(&mut w)?;
        w.finish()
    });
    let pos = Bpos::with_snapshot(4096, 8, 1);
    Owned::new(BtreeId::EXTENTS, KeyType::EXTENT, pos, 8, value)
}

fn ptr(dev: u8) -> Ptr {
    Ptr::new(dev, 4 * 256, 0)
}

/// A crc that covers more than the key.
fn crc() -> Crc {
    Crc {
        csum_type: CsumType::CRC32C,
        compression: CompressionType::NONE,
        compressed_size: 16,
        uncompressed_size: 16,
        live_size: 8,
        offset: 4,
        nonce: 0,
        csum: Csum::new(1, 0),
    }
}

#[test]
fn pointers() {
    accepted(&extent(|w| {
        w.crc(&crc())?.ptr(ptr(0))?.ptr(ptr(1)).map(drop)
    }));
    refused(&extent(|_| Ok(())), ErrorId::BKEY_VAL_SIZE_TOO_SMALL);
    refused(
        &extent(|w| w.rebalance(Rebalance::new(CompressionOpt(1), 0)).map(drop)),
        ErrorId::EXTENT_PTRS_NO_PTRS,
    );
    refused(
        &extent(|w| w.ptr(ptr(0))?.ptr(ptr(0)).map(drop)),
        ErrorId::PTR_TO_DUPLICATE_DEVICE,
    );
    accepted(&extent(|w| {
        w.ptr(ptr(DEV_INVALID))?.ptr(ptr(DEV_INVALID)).map(drop)
    }));
    let many = |n: usize| {
        extent(|w| {
            for dev in 0..n {
                w.ptr(ptr(dev as u8))?;
            }
            Ok(())
        })
    };
    accepted(&many(PTRS_MAX));
    refused(&many(PTRS_MAX + 1), ErrorId::EXTENT_PTRS_TOO_MANY_PTRS);
    refused(
        &extent(|w| w.ptr(ptr(1).with_offset(4 * 256 - 8)).map(drop)),
        ErrorId::PTR_BEFORE_FIRST_BUCKET,
    );
    refused(
        &extent(|w| w.ptr(ptr(1).with_offset(100 * 256)).map(drop)),
        ErrorId::PTR_AFTER_LAST_BUCKET,
    );
    accepted(&extent(|w| {
        w.ptr(ptr(1).with_offset(100 * 256 - 8)).map(drop)
    }));
    refused(
        &extent(|w| w.ptr(ptr(1).with_offset(100 * 256 - 7)).map(drop)),
        ErrorId::PTR_SPANS_MULTIPLE_BUCKETS,
    );
    // What is on disk counts, not what is live.
    refused(
        &extent(|w| {
            let p = ptr(1).with_offset(100 * 256 - 15);
            w.crc(&crc())?.ptr(p).map(drop)
        }),
        ErrorId::PTR_SPANS_MULTIPLE_BUCKETS,
    );
    refused(
        &extent(|w| {
            w.ptr(ptr(0))?;
            w.ptr(ptr(1).with_unwritten(true)).map(drop)
        }),
        ErrorId::EXTENT_PTRS_WRITTEN_AND_UNWRITTEN,
    );
    refused(
        &extent(|w| {
            w.stripe_ptr(StripePtr::new(1, 0, 1))?;
            w.ptr(ptr(0).with_cached(true)).map(drop)
        }),
        ErrorId::PTR_CACHED_AND_ERASURE_CODED,
    );
    let mut k = extent(|w| w.ptr(ptr(0)).map(drop));
    for word in [0, 1 << 6, 1 << 63] {
        k.value.push(word);
        k.key.u64s += 1;
        refused(&k, ErrorId::EXTENT_PTRS_INVALID_ENTRY);
        k.value.pop();
        k.key.u64s -= 1;
    }
    // A long entry of which only the first word is there.
    let mut k = extent(|w| w.ptr(ptr(0))?.crc_as(CrcKind::Crc128, &crc()).map(drop));
    k.value.truncate(2);
    k.key.u64s = 7;
    refused(&k, ErrorId::EXTENT_PTRS_INVALID_ENTRY);
    let twice = extent(|w| {
        let r = Rebalance::new(CompressionOpt(1), 0);
        w.rebalance(r)?.ptr(ptr(0))?.rebalance(r).map(drop)
    });
    assert_eq!(commit(&twice), Some(ErrorId::EXTENT_PTRS_INVALID_ENTRY));
    assert_eq!(read(&twice), None);
}

#[test]
fn checksum_entries() {
    let with = |c: Crc| extent(|w| w.crc(&c)?.ptr(ptr(0)).map(drop));
    accepted(&with(crc()));
    refused(
        &with(Crc { offset: 9, ..crc() }),
        ErrorId::PTR_CRC_UNCOMPRESSED_SIZE_TOO_SMALL,
    );
    let mut k = with(crc());
    k.value[0] |= 0xf << 24;
    refused(&k, ErrorId::PTR_CRC_CSUM_TYPE_UNKNOWN);
    let mut k = with(crc());
    k.value[0] |= 6 << 28;
    refused(&k, ErrorId::PTR_CRC_COMPRESSION_TYPE_UNKNOWN);
    let big = with(Crc {
        uncompressed_size: 129,
        compressed_size: 129,
        ..crc()
    });
    assert_eq!(read(&big), None);
    assert_eq!(
        commit(&big),
        Some(ErrorId::PTR_CRC_UNCOMPRESSED_SIZE_TOO_BIG)
    );
    refused(
        &extent(|w| w.crc(&crc())?.crc(&crc())?.ptr(ptr(0)).map(drop)),
        ErrorId::PTR_CRC_REDUNDANT,
    );
    refused(
        &extent(|w| w.ptr(ptr(0))?.crc(&crc()).map(drop)),
        ErrorId::EXTENT_PTRS_REDUNDANT_CRC,
    );
    let s = StripePtr::new(1, 0, 1);
    refused(
        &extent(|w| w.stripe_ptr(s)?.stripe_ptr(s)?.ptr(ptr(0)).map(drop)),
        ErrorId::PTR_STRIPE_REDUNDANT,
    );
    refused(
        &extent(|w| w.ptr(ptr(0))?.stripe_ptr(s).map(drop)),
        ErrorId::EXTENT_PTRS_REDUNDANT_STRIPE,
    );
    let mac = Crc {
        csum_type: CsumType::CHACHA20_POLY1305_80,
        ..crc()
    };
    let two = |second: Crc| {
        extent(|w| {
            w.crc(&mac)?.ptr(ptr(0))?;
            w.crc(&second)?.ptr(ptr(1)).map(drop)
        })
    };
    // The sum is what has to agree.
    accepted(&two(Crc {
        offset: 1,
        nonce: 3,
        ..mac
    }));
    refused(
        &two(Crc { offset: 1, ..mac }),
        ErrorId::PTR_CRC_NONCE_MISMATCH,
    );
}

#[test]
fn indirect_extents() {
    let mut r = Rng::new(31);
    let good = loop {
        let k = generate::reflink_v(&mut r);
        let free = keys::validate(k.as_ref(), k.btree, 0, &ValidateCtx::COMMIT);
        if free.is_ok() && k.value.len() == 2 {
            break k;
        }
    };
    let mut k = good.clone();
    k.value[1] |= 1 << 3;
    let res = keys::validate(k.as_ref(), k.btree, 0, &ValidateCtx::READ);
    assert_eq!(res.unwrap_err().id, ErrorId::EXTENT_PTRS_UNWRITTEN);
    let mut k = good;
    k.value.truncate(1);
    k.key.u64s = 6;
    refused(&k, ErrorId::EXTENT_PTRS_NO_PTRS);
    let mut k = generate::reflink_p(&mut r);
    k.value = vec![4, 5];
    refused(&k, ErrorId::REFLINK_P_FRONT_PAD_BAD);
    let mut k = generate::reservation(&mut r);
    for n in [0, 5] {
        k.value = vec![n << 32];
        refused(&k, ErrorId::RESERVATION_KEY_NR_REPLICAS_INVALID);
    }
}

#[test]
fn btree_pointers() {
    let good = words(&hex(
        "0000000000000000 c16673c3df849289 3000000000000000 0000000000000000 0000000000000000",
    ));
    let key = |value: &[u64]| {
        Owned::new(
            BtreeId::EXTENTS,
            KeyType::BTREE_PTR_V2,
            Bpos::SPOS_MAX,
            0,
            value.to_vec(),
        )
    };
    let with = |ptrs: &[u64]| [&good, ptrs].concat();
    let p: Vec<u64> = (0..5).map(|d| ptr(d).word()).collect();
    accepted(&key(&with(&p[..4])));
    refused(&key(&with(&p)), ErrorId::BTREE_PTR_V2_VAL_TOO_BIG);
    refused(&key(&with(&[])), ErrorId::EXTENT_PTRS_NO_PTRS);
    refused(&key(&with(&[1 << 5])), ErrorId::BTREE_PTR_HAS_NON_PTR);
    refused(
        &key(&with(&[ptr(0).with_unwritten(true).word()])),
        ErrorId::EXTENT_PTRS_UNWRITTEN,
    );
    refused(
        &key(&with(&[ptr(0).with_offset(1025).word()])),
        ErrorId::PTR_SPANS_MULTIPLE_BUCKETS,
    );
    let mut v = with(&p[..1]);
    v[2] = 0;
    assert_eq!(read(&key(&v)), None);
    assert_eq!(commit(&key(&v)), Some(ErrorId::BTREE_PTR_V2_WRITTEN_0));
    let mut k = key(&with(&p[..1]));
    k.key.pos = Bpos::POS_MIN;
    refused(&k, ErrorId::BTREE_PTR_V2_MIN_KEY_BAD);
    let mut k = key(&p);
    k.key.key_type = KeyType::BTREE_PTR;
    refused(&k, ErrorId::BTREE_PTR_VAL_TOO_BIG);
    k.value.truncate(2);
    k.key.u64s = 7;
    accepted(&k);
}
