// SPDX-License-Identifier: GPL-2.0
//! Broken rules are found and named.

use bcachefs_format::bkey::{KeyContext, KeyType};
use bcachefs_format::btree_node::{NewBset, NewNode, NodeScan, NodeWant, NodeWriter};
use bcachefs_format::features::Features;
use bcachefs_format::packed::FormatCalc;
use bcachefs_format::version::Access;
use bcachefs_format::{Bkey, Bpos, BtreeId, CsumType, ErrorId, KeyRef, Version};

use super::alg::Host;

#[test]
fn key_headers() {
    let ok = |k: &Bkey, btree, level| k.validate(KeyContext { btree, level });
    let id = |k: &Bkey, btree, level| ok(k, btree, level).unwrap_err().id;
    let key = Bkey {
        key_type: KeyType::EXTENT,
        pos: Bpos::with_snapshot(4096, 8, 1),
        size: 8,
        ..Bkey::deleted(Bpos::POS_MIN)
    };
    let ext = BtreeId::EXTENTS;
    assert_eq!(ok(&key, ext, 0), Ok(()));
    assert_eq!(id(&key, ext, 1), ErrorId::BKEY_INVALID_TYPE_FOR_BTREE);
    assert_eq!(
        id(&Bkey { size: 0, ..key }, ext, 0),
        ErrorId::BKEY_EXTENT_SIZE_ZERO
    );
    assert_eq!(
        id(&Bkey { size: 9, ..key }, ext, 0),
        ErrorId::BKEY_EXTENT_SIZE_GREATER_THAN_OFFSET
    );
    assert_eq!(id(&key, BtreeId::INODES, 0), ErrorId::BKEY_SIZE_NONZERO);
    assert_eq!(
        id(&Bkey { u64s: 4, ..key }, ext, 0),
        ErrorId::BKEY_U64S_TOO_SMALL
    );
    let no_snap = Bkey {
        pos: Bpos::new(4096, 8),
        ..key
    };
    assert_eq!(id(&no_snap, ext, 0), ErrorId::BKEY_SNAPSHOT_ZERO);
    let set = Bkey {
        key_type: KeyType::SET,
        size: 0,
        ..key
    };
    assert_eq!(id(&set, BtreeId::LRU, 0), ErrorId::BKEY_SNAPSHOT_NONZERO);
    assert_eq!(ok(&set, BtreeId::DELETED_INODES, 0), Ok(()));
    let top = Bkey {
        pos: Bpos::POS_MAX,
        ..set
    };
    assert_eq!(id(&top, BtreeId::LRU, 0), ErrorId::BKEY_AT_POS_MAX);
    // Whiteouts have no size, in trees of extents neither.
    let whiteout = Bkey {
        key_type: KeyType::WHITEOUT,
        ..key
    };
    assert_eq!(id(&whiteout, ext, 0), ErrorId::BKEY_SIZE_NONZERO);
    let range = |min, max| key.validate_range(min, max).map_err(|e| e.id);
    assert_eq!(range(key.pos, key.pos), Ok(()));
    assert_eq!(
        range(Bpos::POS_MAX, Bpos::SPOS_MAX),
        Err(ErrorId::BKEY_BEFORE_START_OF_BTREE_NODE)
    );
    assert_eq!(
        range(Bpos::POS_MIN, Bpos::POS_MIN),
        Err(ErrorId::BKEY_AFTER_END_OF_BTREE_NODE)
    );
}

const WANT: NodeWant = NodeWant {
    magic: 1,
    btree: BtreeId::LRU,
    level: 0,
    min_key: Some(Bpos::POS_MIN),
    max_key: Bpos::SPOS_MAX,
    seq: Some(5),
    sectors_written: 24,
    range_updated: false,
    sb_version: Version::CURRENT,
    version_min: Version::CURRENT,
    block_sectors: 8,
};

/// A node of three bsets, of journal sequence numbers 10, 11, 12, with keys at 1, 2, 3.
fn node() -> Vec<u64> {
    let mut words = vec![0u64; 64 * 64];
    let mut w = NodeWriter::new(&mut words, 8, 0);
    let format = FormatCalc::new().finish();
    let new = NewNode {
        magic: 1,
        btree: BtreeId::LRU,
        level: 0,
        generation: 0,
        min_key: Bpos::POS_MIN,
        max_key: Bpos::SPOS_MAX,
        format,
    };
    for i in 0..3u64 {
        let bset = NewBset {
            seq: 5,
            journal_seq: 10 + i,
            csum_type: CsumType::CRC32C_NONZERO,
            version: Version::CURRENT,
        };
        let key = KeyRef {
            key: Bkey {
                u64s: 5,
                key_type: KeyType::SET,
                pos: Bpos::new(1, 1 + i),
                ..Bkey::default()
            },
            value: &[],
        };
        let host = Host::default();
        match i {
            0 => w.write_first(&new, &bset, [key], &host, None),
            _ => w.append(&format, &bset, [key], &host, None),
        }
        .unwrap();
    }
    words
}

/// Offsets of the keys that count, or the error; and the issues that were reported.
fn scan(
    words: &[u64],
    want: NodeWant,
    blacklisted: &[u64],
) -> (Result<Vec<u64>, ErrorId>, Vec<ErrorId>) {
    let mut issues = Vec::new();
    let mut keys = Vec::new();
    let mut scan = match NodeScan::new(words, want) {
        Ok(s) => s,
        Err(e) => return (Err(e.id), issues),
    };
    loop {
        match scan.next_bset(&Host::default(), |s| blacklisted.contains(&s)) {
            Ok(Some(b)) => {
                issues.extend(b.issue.map(|i| i.id));
                let format = scan.header().unwrap().format;
                if b.used {
                    keys.extend(b.keys.iter(&format).map(|(_, k)| k.pos(&format).offset));
                }
            }
            Ok(None) => return (Ok(keys), issues),
            Err(e) => return (Err(e.id), issues),
        }
    }
}

#[test]
fn nodes() {
    let words = node();
    let good = |n: Vec<u64>| (Ok(n), vec![]);
    let bad = |id| (Err(id), vec![]);
    assert_eq!(scan(&words, WANT, &[]), good(vec![1, 2, 3]));
    // What the pointer does not know of is ignored.
    let short = NodeWant {
        sectors_written: 16,
        ..WANT
    };
    assert_eq!(scan(&words, short, &[]), good(vec![1, 2]));
    let unknown = NodeWant {
        sectors_written: 0,
        ..WANT
    };
    assert_eq!(scan(&words, unknown, &[]), good(vec![1, 2, 3]));
    let long = NodeWant {
        sectors_written: 32,
        ..WANT
    };
    assert_eq!(
        scan(&words, long, &[]),
        bad(ErrorId::BTREE_NODE_DATA_MISSING)
    );
    let huge = NodeWant {
        sectors_written: 65,
        ..WANT
    };
    assert_eq!(
        scan(&words, huge, &[]),
        bad(ErrorId::BTREE_NODE_DATA_MISSING)
    );
    let past = NodeWant {
        sectors_written: 20,
        ..WANT
    };
    assert_eq!(
        scan(&words, past, &[]),
        bad(ErrorId::BSET_PAST_END_OF_BTREE_NODE)
    );

    // Blacklisted bsets.
    assert_eq!(
        scan(&words, WANT, &[11]),
        (Ok(vec![1, 3]), vec![ErrorId::BSET_BLACKLISTED_JOURNAL_SEQ])
    );
    assert_eq!(scan(&words, unknown, &[11]), good(vec![1, 3]));
    assert_eq!(
        scan(&words, WANT, &[10]),
        (
            Ok(vec![1, 2, 3]),
            vec![ErrorId::FIRST_BSET_BLACKLISTED_JOURNAL_SEQ]
        )
    );

    // Another node than the one wanted.
    let cases: &[(NodeWant, ErrorId)] = &[
        (NodeWant { magic: 2, ..WANT }, ErrorId::BTREE_NODE_BAD_MAGIC),
        (
            NodeWant {
                seq: Some(6),
                ..WANT
            },
            ErrorId::BTREE_NODE_BAD_SEQ,
        ),
        (
            NodeWant {
                btree: BtreeId::NEED_DISCARD,
                ..WANT
            },
            ErrorId::BTREE_NODE_BAD_BTREE,
        ),
        (NodeWant { level: 1, ..WANT }, ErrorId::BTREE_NODE_BAD_LEVEL),
        (
            NodeWant {
                min_key: Some(Bpos::new(0, 1)),
                ..WANT
            },
            ErrorId::BTREE_NODE_BAD_MIN_KEY,
        ),
        (
            NodeWant {
                max_key: Bpos::POS_MAX,
                ..WANT
            },
            ErrorId::BTREE_NODE_BAD_MAX_KEY,
        ),
    ];
    for (want, id) in cases {
        assert_eq!(scan(&words, *want, &[]), bad(*id));
    }
    let old = NodeWant {
        version_min: Version::new(1, 14),
        ..WANT
    };
    let issues = vec![ErrorId::BTREE_NODE_BSET_OLDER_THAN_SB_MIN; 3];
    assert_eq!(scan(&words, old, &[]), (Ok(vec![1, 2, 3]), issues));
    // The pointer's range counts if it says so.
    let updated = NodeWant {
        range_updated: true,
        min_key: Some(Bpos::new(1, 2)),
        ..WANT
    };
    assert_eq!(scan(&words, updated, &[]), good(vec![1, 2, 3]));
}

#[test]
fn damaged_nodes() {
    let change = |at: usize, f: &dyn Fn(&mut u64)| {
        let mut words = node();
        f(&mut words[at]);
        scan(&words, WANT, &[]).0
    };
    assert_eq!(change(24, &|w| *w ^= 1), Err(ErrorId::BSET_BAD_CSUM));
    assert_eq!(change(8 * 64, &|w| *w ^= 1), Err(ErrorId::BSET_BAD_CSUM));
    // Unknown checksum type; a MAC without key.
    for t in [4, 8, 15] {
        let e = change(19, &|w| *w = *w & !0xf | t);
        assert_eq!(e, Err(ErrorId::BSET_UNKNOWN_CSUM));
    }
    // A later bset that is not of this node ends it before its time.
    let e = change(8 * 64 + 2, &|w| *w = 6);
    assert_eq!(e, Err(ErrorId::BTREE_NODE_DATA_MISSING));
    // Without checksum the content itself is checked.
    let plain = |at: usize, f: &dyn Fn(&mut u64)| {
        let mut words = node();
        for start in [0, 8 * 64, 16 * 64] {
            words[start] = 0;
            words[start + if start == 0 { 19 } else { 4 }] &= !0xf;
        }
        f(&mut words[at]);
        scan(&words, WANT, &[]).0
    };
    assert_eq!(plain(0, &|_| ()), Ok(vec![1, 2, 3]));
    let second = 8 * 64;
    let cases: &[(usize, fn(&mut u64), ErrorId)] = &[
        (
            20,
            |w| *w = *w & !0xff | 4,
            ErrorId::BTREE_NODE_BKEY_BAD_U64S,
        ),
        (20, |w| *w |= 0xff, ErrorId::BTREE_NODE_BKEY_PAST_BSET_END),
        (20, |w| *w |= 0x7f00, ErrorId::BTREE_NODE_BKEY_BAD_FORMAT),
        (22, |w| *w |= 1, ErrorId::BKEY_SIZE_NONZERO),
        (10, |w| *w |= 0xff, ErrorId::BTREE_NODE_BAD_FORMAT),
        (
            second + 4,
            |w| *w |= 1 << 16,
            ErrorId::BSET_WRONG_SECTOR_OFFSET,
        ),
        (
            second + 4,
            |w| *w |= 1 << 5,
            ErrorId::BTREE_NODE_UNSUPPORTED_VERSION,
        ),
        (second + 4, |w| *w &= !(0xffff << 48), ErrorId::BSET_EMPTY),
        (
            second + 4,
            |w| *w |= 0xffff << 48,
            ErrorId::BSET_PAST_END_OF_BTREE_NODE,
        ),
        (
            second + 4,
            |w| *w |= 0xf000 << 32,
            ErrorId::BTREE_NODE_UNSUPPORTED_VERSION,
        ),
    ];
    for (i, (at, f, id)) in cases.iter().enumerate() {
        assert_eq!(plain(*at, f), Err(*id), "case {i}");
    }
    // Offset 0 means that it was not recorded.
    let second_offset = |w: &mut u64| *w &= !(0xffff << 16);
    assert_eq!(plain(second + 4, &second_offset), Ok(vec![1, 2, 3]));
}

#[test]
fn versions_and_features() {
    let v = Version::new;
    let access = |a: Version, b: Version| a.access(b);
    assert_eq!(access(v(1, 13), v(1, 13)), Access::ReadWrite);
    assert!(matches!(access(v(1, 14), v(1, 0)), Access::ReadOnly(_)));
    assert!(matches!(access(v(1, 12), v(1, 0)), Access::ReadOnly(_)));
    assert!(matches!(access(v(1, 13), v(0, 11)), Access::Refused(_)));
    assert!(matches!(access(v(2, 0), v(1, 13)), Access::Refused(_)));
    assert!(matches!(access(v(0, 8), v(0, 8)), Access::Refused(_)));
    let dirty = Features(0x7ba80);
    assert_eq!(dirty, Features(Features::ON_CREATE.0 | 1 << 11));
    assert_eq!(dirty.access(false), Access::ReadWrite);
    let clean = Features(0x78a80);
    assert_eq!(clean.0, dirty.0 & !Features::CLEARED_WHEN_CLEAN.0);
    assert_eq!(clean.access(true), Access::ReadWrite);
    assert!(matches!(clean.access(false), Access::Refused(_)));
    let unknown = Features(dirty.0 | 1 << 19);
    assert!(matches!(unknown.access(true), Access::Refused(_)));
    assert_eq!(unknown.unknown(), Features(1 << 19));
    let (ro, no) = (Access::ReadOnly("a"), Access::Refused("b"));
    assert_eq!(Access::ReadWrite.and(ro), ro);
    assert_eq!(ro.and(no), no);
    assert_eq!(no.and(ro), no);
}
