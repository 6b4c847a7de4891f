// SPDX-License-Identifier: GPL-2.0
//! Rules of buckets, stripes, quotas and counters.

use bcachefs_format::keys::{self, ValidateCtx};
use bcachefs_format::{Bpos, BtreeId, Bversion, ErrorId, KeyType};

use super::{accepted, read, refused};
use crate::keys::generate;
use crate::keys::owned::{build, words, Owned};
use crate::keys::rng::Rng;

#[test]
fn buckets() {
    use keys::alloc::Alloc;
    use keys::data_type::DataType;

    let key = |a: Alloc| {
        let value = build(|w| a.build(w));
        Owned::new(BtreeId::ALLOC, KeyType::ALLOC_V4, Bpos::new(0, 9), 0, value)
    };
    let user = Alloc {
        data_type: DataType::USER,
        dirty_sectors: 8,
        ..Alloc::default()
    };
    accepted(&key(user));
    accepted(&key(Alloc::default()));
    refused(
        &key(Alloc {
            data_type: DataType::FREE,
            ..user
        }),
        ErrorId::ALLOC_KEY_EMPTY_BUT_HAVE_DATA,
    );
    refused(
        &key(Alloc {
            dirty_sectors: 0,
            ..user
        }),
        ErrorId::ALLOC_KEY_DATA_TYPE_BAD,
    );
    refused(
        &key(Alloc {
            io_time: [0, 1 << 48],
            ..user
        }),
        ErrorId::ALLOC_KEY_IO_TIME_BAD,
    );
    let cached = Alloc {
        data_type: DataType::CACHED,
        cached_sectors: 8,
        io_time: [1, 0],
        ..Alloc::default()
    };
    accepted(&key(cached));
    refused(
        &key(Alloc {
            io_time: [0, 0],
            ..cached
        }),
        ErrorId::ALLOC_KEY_CACHED_BUT_READ_TIME_ZERO,
    );
    refused(
        &key(Alloc {
            dirty_sectors: 1,
            ..cached
        }),
        ErrorId::ALLOC_KEY_CACHED_INCONSISTENCY,
    );
    let parity = Alloc {
        data_type: DataType::PARITY,
        stripe: 1,
        ..Alloc::default()
    };
    refused(&key(parity), ErrorId::ALLOC_KEY_DIRTY_SECTORS_0);
    let mut k = key(user);
    // More backpointers than there are words, and some without their begin.
    k.value[1] |= 1 << 8;
    refused(&k, ErrorId::ALLOC_V4_VAL_SIZE_BAD);
    k.value.extend([0; 4]);
    k.key.u64s += 4;
    accepted(&k);
    k.value[1] &= !(63 << 2);
    refused(&k, ErrorId::ALLOC_V4_BACKPOINTERS_START_BAD);
    // Fields past the writer's fixed part are not there.
    let mut k = key(Alloc {
        stripe_sectors: 7,
        ..user
    });
    k.value[1] &= !(63 << 2);
    let parsed = Alloc::parse(k.as_ref()).unwrap();
    assert_eq!((parsed.stripe_sectors, parsed.dirty_sectors), (0, 8));
}

#[test]
fn old_buckets() {
    use keys::alloc::Alloc;
    use keys::data_type::DataType;

    let key =
        |t: KeyType, bytes: &[u8]| Owned::new(BtreeId::ALLOC, t, Bpos::new(0, 9), 0, words(bytes));
    let parse = |k: &Owned| Alloc::parse(k.as_ref()).unwrap();
    // Data type, dirty sectors, stripe.
    let v1 = key(
        KeyType::ALLOC,
        &[0b0100_1100, 7, 4, 0x10, 2, 1, 0, 0, 0, 9, 9, 9],
    );
    accepted(&v1);
    let a = parse(&v1);
    assert_eq!((a.generation, a.data_type), (7, DataType::USER));
    assert_eq!((a.dirty_sectors, a.stripe), (0x210, 1));
    let mut short = v1;
    short.value = vec![short.value[0] | 0xff];
    short.key.u64s = 6;
    refused(&short, ErrorId::ALLOC_V1_VAL_SIZE_BAD);

    let v2 = key(KeyType::ALLOC_V2, &[4, 7, 6, 4, 2, 4, 6, 8]);
    accepted(&v2);
    let a = parse(&v2);
    assert_eq!((a.generation, a.oldest_gen), (7, 6));
    assert_eq!(
        (a.io_time, a.dirty_sectors, a.cached_sectors),
        ([1, 2], 3, 4)
    );
    refused(
        &key(KeyType::ALLOC_V2, &[5, 7, 6, 4, 2, 4, 6, 8]),
        ErrorId::ALLOC_V2_UNPACK_ERROR,
    );
    let mut v3 = vec![9, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0];
    v3.extend([4, 7, 6, 4, 2, 4, 6, 8]);
    let v3 = key(KeyType::ALLOC_V3, &v3);
    accepted(&v3);
    let a = parse(&v3);
    assert_eq!(a.journal_seq, 9);
    assert!(a.need_discard && a.need_inc_gen);
    assert_eq!(a.cached_sectors, 4);
    let mut cut = v3;
    cut.value[2] |= 0xff;
    refused(&cut, ErrorId::ALLOC_V3_UNPACK_ERROR);
}

#[test]
fn the_rest() {
    let mut r = Rng::new(34);
    let mut k = generate::quota(&mut r);
    k.key.pos.inode = 3;
    refused(&k, ErrorId::QUOTA_TYPE_INVALID);

    let mut k = generate::bucket_gens(&mut r);
    k.value.push(0);
    k.key.u64s += 1;
    refused(&k, ErrorId::BUCKET_GENS_VAL_SIZE_BAD);

    let mut k = generate::lru(&mut r);
    k.key.pos.inode &= 0xffff << 48;
    assert_eq!(read(&k), Some(ErrorId::LRU_ENTRY_AT_TIME_0));

    let backpointer = |offset: u64, level: u8| {
        let v = keys::backpointer::Backpointer {
            level,
            bucket_offset: offset,
            ..Default::default()
        };
        let pos = keys::backpointer::Backpointer::key_pos(0, 300, 5);
        let value = build(|w| v.build(w));
        Owned::new(BtreeId::BACKPOINTERS, KeyType::BACKPOINTER, pos, 0, value)
    };
    accepted(&backpointer((300 - 256) << 10 | 5, 4));
    refused(
        &backpointer((300 - 256) << 10 | 5, 5),
        ErrorId::BACKPOINTER_LEVEL_BAD,
    );
    refused(
        &backpointer((300 - 256) << 10 | 6, 0),
        ErrorId::BACKPOINTER_BUCKET_OFFSET_WRONG,
    );

    let good = generate::stripe(&mut r);
    for offset in [0, 1 << 32] {
        let mut k = good.clone();
        k.key.pos.offset = offset;
        refused(&k, ErrorId::STRIPE_POS_BAD);
    }
    let mut k = good.clone();
    k.value[0] |= 64 << 40;
    refused(&k, ErrorId::STRIPE_CSUM_GRANULARITY_BAD);
    let mut k = good.clone();
    k.value.pop();
    k.key.u64s -= 1;
    refused(&k, ErrorId::STRIPE_VAL_SIZE_BAD);
    let mut k = good;
    k.value[2] = k.value[1];
    let res = keys::validate(k.as_ref(), k.btree, 0, &ValidateCtx::READ);
    assert_eq!(res.unwrap_err().id, ErrorId::PTR_TO_DUPLICATE_DEVICE);
}

#[test]
fn counters() {
    let key = |snapshot: u32, offset: u64, inode: u64| {
        let pos = Bpos::with_snapshot(inode, offset, snapshot);
        Owned::new(BtreeId::ACCOUNTING, KeyType::ACCOUNTING, pos, 0, vec![1])
    };
    accepted(&key(0, 0, 0));
    let mut k = key(0, 0, 0);
    k.key.version = Bversion::ZERO;
    refused(&k, ErrorId::ACCOUNTING_KEY_VERSION_0);
    refused(&key(0x100, 0, 0), ErrorId::ACCOUNTING_KEY_JUNK_AT_END);
    refused(&key(5, 1 << 8, 0), ErrorId::ACCOUNTING_KEY_JUNK_AT_END);
    refused(&key(3, 0, 1), ErrorId::ACCOUNTING_KEY_JUNK_AT_END);
    // Left alone by this version, and by us.
    accepted(&key(8, 0, 1));
    accepted(&key(200, 1, 1));
    // Replicas: type, number of devices, number needed, devices.
    let replicas = |nr: u8, required: u8, devs: [u8; 3]| {
        let [a, b, c] = devs;
        let offset = u64::from_le_bytes([a, b, c, 0, 0, 0, 0, 0]);
        key(u32::from_le_bytes([2, 4, nr, required]), offset, 0)
    };
    accepted(&replicas(3, 1, [0, 2, 4]));
    accepted(&replicas(3, 2, [0, 2, 4]));
    accepted(&replicas(1, 1, [9, 0, 0]));
    refused(
        &replicas(0, 0, [0; 3]),
        ErrorId::ACCOUNTING_KEY_REPLICAS_NR_DEVS_0,
    );
    refused(
        &replicas(17, 1, [1, 2, 3]),
        ErrorId::ACCOUNTING_KEY_REPLICAS_NR_DEVS_0,
    );
    for required in [3, 4] {
        refused(
            &replicas(3, required, [0, 2, 4]),
            ErrorId::ACCOUNTING_KEY_REPLICAS_NR_REQUIRED_BAD,
        );
    }
    for devs in [[0, 4, 2], [2, 2, 4]] {
        refused(
            &replicas(3, 1, devs),
            ErrorId::ACCOUNTING_KEY_REPLICAS_DEVS_UNSORTED,
        );
    }
    refused(
        &replicas(2, 1, [1, 2, 3]),
        ErrorId::ACCOUNTING_KEY_JUNK_AT_END,
    );
}
