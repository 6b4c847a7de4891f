// SPDX-License-Identifier: GPL-2.0
//! Each rule, broken: the key is refused under the right error id.

use bcachefs_format::keys::{self, DeviceGeometry, Devices, ValidateCtx};
use bcachefs_format::{Bpos, BtreeId, ErrorId, KeyType};

use super::generate;
use super::owned::Owned;
use super::rng::Rng;

mod files;
mod pointers;
mod space;

/// Two devices of 100 buckets of 256 sectors, the second with its first four buckets out of use.
struct Two;

impl Devices for Two {
    fn geometry(&self, dev: u8) -> Option<DeviceGeometry> {
        (dev < 2).then(|| DeviceGeometry {
            first_bucket: u64::from(dev) * 4,
            nbuckets: 100,
            bucket_size: 256,
        })
    }
}

fn ctx(base: ValidateCtx<'static>) -> ValidateCtx<'static> {
    ValidateCtx {
        devices: Some(&Two),
        btree_node_sectors: 256,
        encoded_extent_max: 128,
        ..base
    }
}

fn read(key: &Owned) -> Option<ErrorId> {
    keys::validate(key.as_ref(), key.btree, key.level, &ctx(ValidateCtx::READ))
        .err()
        .map(|e| e.id)
}

fn commit(key: &Owned) -> Option<ErrorId> {
    keys::validate(
        key.as_ref(),
        key.btree,
        key.level,
        &ctx(ValidateCtx::COMMIT),
    )
    .err()
    .map(|e| e.id)
}

/// Refused by readers and by writers.
#[track_caller]
fn refused(key: &Owned, id: ErrorId) {
    assert_eq!(read(key), Some(id));
    assert_eq!(commit(key), Some(id));
}

#[track_caller]
fn accepted(key: &Owned) {
    assert_eq!(commit(key), None);
    assert_eq!(read(key), None);
}

#[test]
fn any_key() {
    let good = Owned::new(
        BtreeId::DELETED_INODES,
        KeyType::SET,
        Bpos::new(0, 4096),
        0,
        vec![],
    );
    accepted(&good);
    let mut k = good.clone();
    k.key.u64s = 4;
    refused(&k, ErrorId::BKEY_U64S_TOO_SMALL);
    let mut k = good.clone();
    k.key.size = 1;
    refused(&k, ErrorId::BKEY_SIZE_NONZERO);
    let mut k = good.clone();
    k.key.pos = Bpos::POS_MAX;
    refused(&k, ErrorId::BKEY_AT_POS_MAX);
    let mut k = good.clone();
    k.btree = BtreeId::NEED_DISCARD;
    k.key.pos.snapshot = 1;
    refused(&k, ErrorId::BKEY_SNAPSHOT_NONZERO);
    let mut k = good.clone();
    k.key.key_type = KeyType::WHITEOUT;
    k.btree = BtreeId::DIRENTS;
    refused(&k, ErrorId::BKEY_SNAPSHOT_ZERO);
    let mut k = good.clone();
    k.value.push(0);
    k.key.u64s += 1;
    refused(&k, ErrorId::BKEY_VAL_SIZE_NONZERO);
    let mut k = good.clone();
    k.level = 1;
    refused(&k, ErrorId::BKEY_INVALID_TYPE_FOR_BTREE);
    // In a leaf the wrong type is a reader's to bear.
    let mut k = good.clone();
    k.btree = BtreeId::ALLOC;
    assert_eq!(read(&k), None);
    assert_eq!(commit(&k), Some(ErrorId::BKEY_INVALID_TYPE_FOR_BTREE));
    let mut k = good.clone();
    k.key.key_type = KeyType::ERROR;
    k.btree = BtreeId::EXTENTS;
    k.key.pos.snapshot = 1;
    refused(&k, ErrorId::BKEY_EXTENT_SIZE_ZERO);
    k.key.size = 4097;
    refused(&k, ErrorId::BKEY_EXTENT_SIZE_GREATER_THAN_OFFSET);
    k.key.size = 4096;
    accepted(&k);
    k.key.key_type = KeyType::WHITEOUT;
    refused(&k, ErrorId::BKEY_SIZE_NONZERO);
    // What a later version wrote is kept.
    let mut k = good.clone();
    k.key.key_type = KeyType(77);
    k.value = vec![1, 2, 3];
    k.key.u64s = 8;
    accepted(&k);
    k.btree = BtreeId(40);
    k.key.size = 9;
    accepted(&k);
}

#[test]
fn shortest_values() {
    let mut r = Rng::new(30);
    for _ in 0..5_000 {
        let mut k = generate::any(&mut r);
        if let keys::types::ValueSize::AtLeast(min) = keys::types::value_size(k.key.key_type) {
            k.value.truncate(min / 8 - 1);
            k.key.u64s = 5 + k.value.len() as u8;
            assert_eq!(read(&k), Some(ErrorId::BKEY_VAL_SIZE_TOO_SMALL));
        }
    }
}
