// SPDX-License-Identifier: GPL-2.0
//! Known bytes and their meaning.

use bcachefs_format::bkey::KeyType;
use bcachefs_format::bset::PackedRef;
use bcachefs_format::checksum::{Checksummer, Csum, CsumType, Nonce};
use bcachefs_format::jset::{Entries, Entry, EntryType};
use bcachefs_format::magic::{bset_magic, jset_magic, Uuid};
use bcachefs_format::packed::BkeyFormat;
use bcachefs_format::{Bkey, BtreeId};
use bcachefs_format::{Bpos, KeyRef};

use super::alg::Host;

fn hex(s: &str) -> Vec<u8> {
    let digits: Vec<u32> = s.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|d| (d[0] << 4 | d[1]) as u8).collect()
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let word = |b: &[u8]| u64::from_le_bytes(b.try_into().unwrap());
    bytes.chunks_exact(8).map(word).collect()
}

#[test]
fn checksums() {
    let cases = [
        (1, 0xe306_9283, 0),
        (5, 0x58e3_fa20, 0),
        (2, 0x62ec_59e3_f1a4_f00a, 0),
        (6, 0x6c40_df5f_0b49_7347, 0),
        (7, 0x8cb8_41db_40e6_ae83, 0xef46_db37_51d8_e999),
    ];
    for (t, digits, empty) in cases {
        let sum = |data: &[u8]| Host::default().checksum(CsumType(t), Nonce::NONE, data);
        assert_eq!(sum(b"123456789"), Some(Csum::new(digits, 0)), "type {t}");
        assert_eq!(sum(b""), Some(Csum::new(empty, 0)), "type {t}");
    }
    let none = |t| Host::default().checksum(CsumType(t), Nonce::NONE, b"");
    assert_eq!(none(8), None);
    assert_eq!(none(4), None);
}

#[test]
fn magics() {
    let uuid = Uuid(hex("b5b908fb66e544689f07e23fda7df1b9").try_into().unwrap());
    assert_eq!(uuid.to_string(), "b5b908fb-66e5-4468-9f07-e23fda7df1b9");
    let bytes = |v: u64| v.to_le_bytes().to_vec();
    assert_eq!(bytes(jset_magic(&uuid)), hex("87e96a58a7d0164c"));
    assert_eq!(bytes(bset_magic(&uuid)), hex("40be96421eb957f8"));
}

#[test]
fn root_record() {
    let record = words(&hex(
        "0b00000101000000 0b01120000000000 0000000000000000 00000000ffffffff
         ffffffffffffffff ffffffffffffffff 0000000000000000 c16673c3df849289
         3000000000000000 0000000000000000 0000000000000000 0180050000000000",
    ));
    let entries: Vec<_> = Entries::new(&record).map(Result::unwrap).collect();
    assert_eq!(entries.len(), 1);
    let e = entries[0];
    assert_eq!(
        (e.entry_type, e.btree, e.level),
        (EntryType::BTREE_ROOT, BtreeId::EXTENTS, 1)
    );
    let Entry::BtreeRoot(Some(key)) = e.parse().unwrap() else {
        panic!("not a root");
    };
    let want = Bkey {
        u64s: 11,
        key_type: KeyType::BTREE_PTR_V2,
        pos: Bpos::SPOS_MAX,
        ..Bkey::default()
    };
    assert_eq!(key.key, want);
    let ptr = bcachefs_format::keys::btree_ptr::BtreePtr::parse(key).unwrap();
    assert_eq!(ptr.seq, Some(0x8992_84df_c373_66c1));
    assert_eq!(ptr.sectors_written, 48);
    assert_eq!(ptr.min_key, Some(Bpos::POS_MIN));
    assert_eq!(ptr.ptrs().next().unwrap().offset(), 22528);
}

#[test]
fn packed_keys() {
    let cases: &[([u8; 6], [u64; 6], &str, (u64, u64, u32, u32), u8, u8)] = &[
        (
            [16, 8, 32, 16, 0, 0],
            [0; 6],
            "04 00 06 00 00 00 00 08 00 ff ff ff ff 08 03 10",
            (4099, 8, u32::MAX, 8),
            6,
            4,
        ),
        (
            [9, 63, 32, 0, 0, 0],
            [4349, 4572608700578880, 0, 0, 0, 0],
            "08 00 0a ff ff ff ff 57 24 50 10 df f7 33 45 fb",
            (4851, 4991174358553305239, u32::MAX, 0),
            10,
            8,
        ),
        (
            [64, 64, 32, 0, 0, 0],
            [0; 6],
            "0b 00 1b 00 00 00 00 00 05 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
            (0, 5, 0, 0),
            27,
            11,
        ),
        (
            [16, 64, 32, 0, 0, 0],
            [0; 6],
            "09 00 0a 00 00 00 00 00 00 00 ff ff ff ff 2e 94 65 70 64 6e 86 52 fd 10",
            (4349, 5946561735650808878, u32::MAX, 0),
            10,
            9,
        ),
    ];
    for &(bits, offset, bytes, (inode, off, snap, size), key_type, u64s) in cases {
        let format = BkeyFormat::new(bits, offset).unwrap();
        let header = words(&hex(bytes));
        assert_eq!(usize::from(format.key_u64s()), header.len());
        // The vectors have the header only; give it a value.
        let mut key = header.clone();
        key.resize(u64s.into(), 0x5555);
        let packed = PackedRef::at(&key, 0, &format).unwrap();
        assert!(packed.is_packed());
        let KeyRef { key: k, value } = packed.unpack(&format);
        assert_eq!(k.pos, Bpos::with_snapshot(inode, off, snap));
        assert_eq!((k.size, k.key_type), (size, KeyType(key_type)));
        assert_eq!(value.len(), usize::from(u64s) - header.len());
        assert_eq!(k.value_u64s() as usize, value.len());
        assert_eq!(format.pack(&k).unwrap().words(), header);
        assert_eq!(packed.pos(&format), k.pos);
    }
}

#[test]
fn names() {
    use bcachefs_format::{ErrorId, Version};
    assert_eq!(ErrorId::COUNT, 295);
    assert_eq!(ErrorId::BSET_BAD_CSUM, ErrorId(42));
    assert_eq!(ErrorId(294).name(), Some("backpointer_level_bad"));
    assert!(ErrorId::FS_USAGE_HIDDEN_WRONG.autofix());
    assert!(!ErrorId::BSET_BAD_CSUM.autofix());
    assert_eq!(ErrorId::NONE.name(), None);
    for id in 0..ErrorId::COUNT {
        assert!(ErrorId(id).name().is_some());
    }
    assert_eq!(KeyType::COUNT, 35);
    assert_eq!(KeyType::ACCOUNTING, KeyType(34));
    assert_eq!(BtreeId::COUNT, 21);
    assert_eq!(BtreeId::ACCOUNTING, BtreeId(20));
    assert_eq!(
        Version::CURRENT.to_string(),
        "1.13: inode_has_child_snapshots"
    );
    assert_eq!(Version::CURRENT.0, 1037);
}
