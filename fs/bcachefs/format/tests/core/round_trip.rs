// SPDX-License-Identifier: GPL-2.0
//! What is built is read back the same, for random content.

use bcachefs_format::bkey::{Bversion, KeyType};
use bcachefs_format::bset::{BsetBuilder, Keys, PushError};
use bcachefs_format::btree_node::{
    decrypt_node, AlreadyVerified, NewBset, NewEntry, NewNode, NodeScan, NodeWant, NodeWriter,
    WriteError,
};
use bcachefs_format::checksum::{Checksummer, Cipher, CsumType};
use bcachefs_format::features::Features;
use bcachefs_format::jset::entry::UsageKind;
use bcachefs_format::jset::{Entry, JsetBuilder, JsetError, JsetPeek, NewJset};
use bcachefs_format::packed::FormatCalc;
use bcachefs_format::sb::field::FieldType;
use bcachefs_format::sb::members::{self, Member, MemberState};
use bcachefs_format::sb::{
    downgrade, replicas, DiskGroup, DiskLayout, ErrorCount, Ext, ReplicasEntry, SbBuilder, SbFlags,
};
use bcachefs_format::super_block::DiskSb;
use bcachefs_format::{
    Bkey, Bpos, BtreeId, DiskBkey, ErrorId, Jset, KeyRef, SuperBlock, Uuid, Version,
};
use zerocopy::{FromZeros, IntoBytes};

use super::alg::Host;
use super::random::Random;
use super::walk::{OwnedKey, LIMITS};

const CSUM_TYPES: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

fn random_keys(r: &mut Random, n: usize) -> Vec<OwnedKey> {
    let mut keys: Vec<OwnedKey> = (0..n)
        .map(|_| {
            let value: Vec<u64> = (0..r.below(6)).map(|_| r.next()).collect();
            let key = Bkey {
                u64s: 5 + value.len() as u8,
                key_type: KeyType(r.below(3) as u8 * 10),
                needs_whiteout: false,
                pos: Bpos::with_snapshot(
                    4096 + r.number(12),
                    r.number(40),
                    u32::MAX - r.below(3) as u32,
                ),
                size: 0,
                version: Bversion {
                    hi: r.below(2) as u32,
                    lo: r.number(20),
                },
            };
            OwnedKey { key, value }
        })
        .collect();
    keys.sort_by_key(|k| k.key.pos);
    keys.dedup_by_key(|k| k.key.pos);
    keys
}

#[test]
fn key_headers() {
    let mut r = Random::new(10);
    for _ in 0..2000 {
        let k = Bkey {
            u64s: 5 + r.below(251) as u8,
            key_type: KeyType(r.next() as u8),
            needs_whiteout: r.below(2) == 1,
            pos: Bpos::with_snapshot(r.number(64), r.number(64), r.number(32) as u32),
            size: r.number(32) as u32,
            version: Bversion {
                hi: r.number(32) as u32,
                lo: r.number(64),
            },
        };
        assert_eq!(Bkey::from_words(&k.to_words()), k);
        let disk = DiskBkey::from(&k);
        assert_eq!(disk.as_bytes(), k.to_words().as_bytes());
        assert_eq!(Bkey::from(&disk), k);
    }
}

#[test]
fn nodes() {
    let mut r = Random::new(11);
    let host = Host::with_key([9; 32]);
    for round in 0..300 {
        let csum_type = CsumType(CSUM_TYPES[round % 8]);
        let node_sectors = 64;
        let (min_key, max_key) = (Bpos::new(4096, 0), Bpos::SPOS_MAX);
        let mut calc = FormatCalc::new();
        let n = 1 + r.below(60);
        let first = random_keys(&mut r, n);
        calc.add_pos(min_key);
        first.iter().for_each(|k| calc.add_key(&k.key));
        let format = calc.finish();
        let node = NewNode {
            magic: 0x1234,
            btree: BtreeId(2),
            level: 0,
            generation: r.number(32) as u32,
            min_key,
            max_key,
            format,
        };
        let bset = |journal_seq| NewBset {
            seq: 77,
            journal_seq,
            csum_type,
            version: Version::CURRENT,
        };
        let mut words = vec![0xdead_u64; node_sectors * 64];
        let mut w = NodeWriter::new(&mut words, 8, 0);
        let refs = |keys: &[OwnedKey]| -> Vec<OwnedKey> { keys.to_vec() };
        w.write_first(
            &node,
            &bset(0),
            first.iter().map(OwnedKey::as_ref),
            &host,
            Some(&host),
        )
        .unwrap();
        let mut sets = vec![refs(&first)];
        for i in 0..6 {
            let n = 1 + r.below(20);
            let more = random_keys(&mut r, n);
            let keys = more.iter().map(OwnedKey::as_ref);
            match w.append(&format, &bset(i), keys, &host, Some(&host)) {
                Ok(_) => sets.push(more),
                Err(e) => assert_eq!(e, WriteError::NoSpace),
            }
        }
        let sectors_written = w.sectors_written() as u16;
        let mut want = NodeWant {
            magic: 0x1234,
            btree: BtreeId(2),
            level: 0,
            min_key: Some(min_key),
            max_key,
            seq: Some(77),
            sectors_written,
            range_updated: false,
            sb_version: Version::CURRENT,
            version_min: Version::CURRENT,
            block_sectors: 8,
        };
        decrypt_node(&mut words, &want, &host).unwrap();
        let csum: &dyn Checksummer = if csum_type.is_mac() {
            &AlreadyVerified
        } else {
            &host
        };
        let read = |want: NodeWant| {
            let mut scan = NodeScan::new(&words, want).unwrap();
            let mut back = Vec::new();
            while let Some(b) = scan.next_bset(csum, |_| false).unwrap() {
                assert!(b.used && b.issue.is_none());
                let format = scan.header().unwrap().format;
                let keys = b.keys.iter(&format);
                let keys: Vec<_> = keys
                    .map(|(_, k)| OwnedKey::of(&k.unpack(&format)))
                    .collect();
                back.push(keys);
            }
            back
        };
        assert_eq!(read(want), sets);
        // A pointer that does not know the length finds the same.
        want.sectors_written = 0;
        assert_eq!(read(want), sets);
    }
}

/// An entry made in a buffer of its own, from packed keys with hints, is what the same keys become in the node.
#[test]
fn entries_alone() {
    let mut r = Random::new(17);
    let host = Host::with_key([9; 32]);
    for round in 0..200 {
        let csum_type = CsumType(CSUM_TYPES[round % 8]);
        let n = 1 + r.below(60);
        let keys = random_keys(&mut r, n);
        let mut calc = FormatCalc::new();
        // Some stay unpacked.
        keys.iter().take(n / 2).for_each(|k| calc.add_key(&k.key));
        let format = calc.finish();
        let node = NewNode {
            magic: 0x1234,
            btree: BtreeId(2),
            level: 0,
            generation: 7,
            min_key: Bpos::POS_MIN,
            max_key: Bpos::SPOS_MAX,
            format,
        };
        let bset = NewBset {
            seq: 77,
            journal_seq: 5,
            csum_type,
            version: Version::CURRENT,
        };
        let mut words = vec![0xdead_u64; 64 * 64];
        let mut writer = NodeWriter::new(&mut words, 4, 0);
        let refs = || keys.iter().map(OwnedKey::as_ref);
        let first = writer
            .write_first(&node, &bset, refs(), &host, Some(&host))
            .unwrap() as usize;
        let later = writer
            .append(&format, &bset, refs(), &host, Some(&host))
            .unwrap() as usize;

        let mut hinted = Vec::new();
        for k in refs() {
            let header = Bkey {
                needs_whiteout: r.below(2) == 0,
                ..k.key
            };
            match format.pack(&header) {
                Some(p) => hinted.extend_from_slice(p.words()),
                None => hinted.extend_from_slice(&header.to_words()),
            }
            hinted.extend_from_slice(k.value);
        }
        let set = Keys::new(&hinted);
        let fill = |b: &mut BsetBuilder<'_>| {
            set.iter(&format).try_for_each(|(_, key)| b.push_packed(key))
        };
        let mut alone = vec![0xbeef_u64; 64 * 64];
        let entry = NewEntry::first(&mut alone, 4, &node, &bset, fill).unwrap();
        assert_eq!(entry.u64s(), hinted.len());
        assert_eq!(entry.seal(&host, Some(&host)).unwrap() as usize, first);
        assert_eq!(alone[..first * 64], words[..first * 64]);
        let entry =
            NewEntry::later(&mut alone, 4, first as u32, &format, &bset, fill).unwrap();
        entry.entry().unwrap().keys().validate_order(&format).unwrap();
        assert_eq!(entry.seal(&host, Some(&host)).unwrap() as usize, later);
        assert_eq!(alone[..later * 64], words[first * 64..(first + later) * 64]);
        // A buffer that is too short.
        let mut short = vec![0; hinted.len() + 4];
        let refused = NewEntry::later(&mut short, 4, 4, &format, &bset, fill);
        assert!(refused.is_err());
    }
}

#[test]
fn bset_builder_refuses() {
    let mut buf = [0u64; 64];
    let format = FormatCalc::new().finish();
    let mut b = bcachefs_format::bset::BsetBuilder::new(&mut buf, format);
    let key = |offset, value: &'static [u64]| KeyRef {
        key: Bkey {
            u64s: 6,
            pos: Bpos::new(1, offset),
            ..Bkey::default()
        },
        value,
    };
    b.push(&key(5, &[1])).unwrap();
    assert_eq!(b.push(&key(5, &[1])), Err(PushError::OutOfOrder));
    assert_eq!(b.push(&key(6, &[])), Err(PushError::BadLength));
    for i in 0..9 {
        b.push(&key(10 + i, &[1])).unwrap();
    }
    assert_eq!(b.used(), 60);
    assert_eq!(b.push(&key(100, &[1])), Err(PushError::Full));
    assert_eq!(b.finish(), 60);
}

#[test]
fn jsets() {
    let mut r = Random::new(12);
    let host = Host::with_key([3; 32]);
    for round in 0..400 {
        let new = NewJset {
            magic: r.next(),
            seq: r.number(48) + 1,
            last_seq: (r.below(2) == 0).then_some(1),
            version: Version::CURRENT,
            csum_type: CsumType(CSUM_TYPES[round % 8]),
        };
        let n = r.below(20);
        let keys = random_keys(&mut r, n);
        let mut words = vec![0xdead_u64; 4096];
        let mut b = JsetBuilder::new(&mut words);
        b.records(|w| {
            for k in &keys {
                w.key(
                    bcachefs_format::EntryType::BTREE_KEYS,
                    BtreeId(3),
                    1,
                    &k.as_ref(),
                )?;
            }
            w.usage(UsageKind::KEY_VERSION, 99)?;
            w.clock(1, 17)?;
            w.datetime(1234)?;
            w.log(b"hello, world")
        })
        .unwrap();
        // What does not fit leaves no trace.
        let big = vec![0u64; 5000];
        let too_big = b.records(|w| {
            w.clock(0, 1)?;
            w.record(bcachefs_format::EntryType::LOG, BtreeId(0), 0, &[&big])
        });
        assert_eq!(too_big, Err(JsetError::NoSpace));
        let bytes = b.finish(&new, 4096, &host, Some(&host)).unwrap();
        assert_eq!(bytes % 4096, 0);
        let peek = JsetPeek::new(&words, new.magic, bytes).unwrap();
        let jset = Jset::new(&words).unwrap();
        let len = jset.peek().bytes();
        assert_eq!(
            peek,
            JsetPeek::Entry {
                seq: new.seq,
                bytes: len
            }
        );
        assert!(words[len / 8..bytes / 8].iter().all(|w| *w == 0));
        jset.verify(&host).unwrap();
        if let Some(piece) = jset.peek().header().crypt_piece() {
            host.crypt(piece.nonce, &mut words.as_mut_bytes()[piece.bytes]);
        }
        let jset = Jset::new(&words).unwrap().validate(new.magic).unwrap();
        assert_eq!(jset.last_seq(), new.last_seq.map(|s| s.min(new.seq)));
        let mut back = Vec::new();
        let mut rest = Vec::new();
        for e in jset.entries() {
            match e.unwrap().parse().unwrap() {
                Entry::BtreeKeys(k) => back.extend(k.map(|k| OwnedKey::of(&k.unwrap()))),
                other => rest.push(other.to_string()),
            }
        }
        assert_eq!(back, keys);
        assert_eq!(
            rest,
            [" key_version 99", " write 17", " 1234", " hello, world"]
        );
    }
}

/// A superblock of a filesystem on `nr` devices, with every kind of field.
pub fn sample_sb(r: &mut Random, nr: u8) -> Vec<u64> {
    let mut flags = SbFlags::default();
    flags.set_initialized(1);
    flags.set_btree_node_size(256);
    flags.set_gc_reserve(8);
    flags.set_meta_csum_type(1);
    flags.set_data_csum_type(1);
    flags.set_meta_replicas_want(1);
    flags.set_data_replicas_want(2);
    flags.set_meta_replicas_req(1);
    flags.set_data_replicas_req(1);
    flags.set_encoded_extent_max_bits(7);
    flags.set_journal_flush_delay(1000);
    let mut h = DiskSb::new_zeroed();
    h.version.set(Version::CURRENT.0);
    h.version_min.set(Version::CURRENT.0);
    h.magic = bcachefs_format::magic::SB_MAGIC;
    h.uuid = Uuid([1; 16]);
    h.user_uuid = Uuid([2; 16]);
    h.seq.set(r.number(40));
    h.block_size.set(8);
    h.nr_devices = nr;
    h.time_precision.set(1);
    h.flags = flags.0.map(Into::into);
    h.features[0].set(Features::ON_CREATE.0);
    h.layout = DiskLayout::new(11, &[8, 2056, 400_000]);

    let mut words = vec![0u64; 8192];
    let mut b = SbBuilder::new(&mut words, &h).unwrap();
    let members = random_members(r, nr);
    for t in [FieldType::MEMBERS_V1, FieldType::MEMBERS_V2] {
        let bytes = members::payload_bytes(t, nr.into());
        let payload = b.field(t, bytes / 8).unwrap();
        members::encode(t, &members, payload.as_mut_bytes());
    }
    b.field(FieldType::JOURNAL_V2, 4)
        .unwrap()
        .copy_from_slice(&[70, 8, 100, 4]);
    let entries = [
        ReplicasEntry {
            data_type: bcachefs_format::keys::data_type::DataType::BTREE,
            nr_required: 1,
            devs: &[0],
        },
        ReplicasEntry {
            data_type: bcachefs_format::keys::data_type::DataType::USER,
            nr_required: 1,
            devs: &[0, nr - 1],
        },
    ];
    let payload = b.field(FieldType::REPLICAS, 2).unwrap();
    assert_eq!(
        replicas::encode(&entries, true, payload.as_mut_bytes()),
        Some(9)
    );
    let groups = [
        DiskGroup::new(b"ssd", None, 28),
        DiskGroup::new(b"one", Some(0), 28),
    ];
    let payload = b.field(FieldType::DISK_GROUPS, 12).unwrap();
    payload.as_mut_bytes().copy_from_slice(groups.as_bytes());
    b.field(FieldType::JOURNAL_SEQ_BLACKLIST, 4)
        .unwrap()
        .copy_from_slice(&[10, 20, 20, 30]);
    let payload = b.field(FieldType::ERRORS, 4).unwrap();
    let errors = [
        ErrorCount::new(ErrorId(3), 7, 100),
        ErrorCount::new(ErrorId(9), u64::MAX, 200),
    ];
    payload.as_mut_bytes().copy_from_slice(errors.as_bytes());
    let mut ext = Ext::default();
    ext.set_silent(ErrorId(77));
    ext.require_pass(5);
    b.field(FieldType::EXT, 11)
        .unwrap()
        .as_mut_bytes()
        .copy_from_slice(ext.as_bytes());
    let payload = b.field(FieldType::DOWNGRADE, 7).unwrap().as_mut_bytes();
    let ids = [ErrorId(76), ErrorId(77)];
    let at = downgrade::encode(payload, 0, Version::new(1, 9), [32, 0], &ids).unwrap();
    assert_eq!(
        downgrade::encode(payload, at, Version::new(1, 12), [32, 0], &ids[..1]),
        Some(46)
    );
    let payload = b.field(FieldType::CLEAN, 20).unwrap();
    let room = bcachefs_format::sb::clean::encode(5, payload).unwrap();
    let mut w = bcachefs_format::jset::build::EntryWriter::new(room);
    w.usage(UsageKind::KEY_VERSION, 3).unwrap();
    b.field(FieldType::COUNTERS, 79).unwrap()[2] = 5;
    b.field(FieldType::QUOTA, 9).unwrap();
    b.field(FieldType::CRYPT, 7).unwrap();
    let bytes = b
        .finish(8, CsumType::CRC32C_NONZERO, &Host::default())
        .unwrap();
    words.truncate(bytes / 8);
    words
}

fn random_members(r: &mut Random, nr: u8) -> Vec<Member> {
    (0..nr)
        .map(|i| {
            let mut m = Member::empty();
            m.uuid = Uuid([i + 3; 16]);
            m.nbuckets.set(128 + r.number(20));
            m.bucket_size.set(512);
            m.seq.set(r.number(40));
            let state = MemberState(r.below(4) as u8);
            let group = (r.below(2) == 1).then_some(1);
            m.flags = Member::make_flags(state, i & 1 == 0, 28, group, 1, true);
            assert_eq!((m.state(), m.group(), m.durability()), (state, group, 1));
            assert_eq!((m.discard(), m.data_allowed()), (i & 1 == 0, 28));
            m
        })
        .collect()
}

#[test]
fn superblocks() {
    let mut r = Random::new(13);
    for nr in [1, 2, 5, 64] {
        let words = sample_sb(&mut r, nr);
        let sb = SuperBlock::open(&words, &Host::default()).unwrap();
        let sb = sb.validate(&LIMITS).unwrap();
        assert_eq!(sb.members().iter().count(), usize::from(nr));
        assert!(sb.members().is_v2());
        let buckets: Vec<u64> = sb.journal_buckets().iter().collect();
        assert_eq!(
            buckets,
            [70, 71, 72, 73, 74, 75, 76, 77, 100, 101, 102, 103]
        );
        for (i, b) in buckets.iter().enumerate() {
            assert_eq!(sb.journal_buckets().get(i as u64), Some(*b));
        }
        assert_eq!(sb.journal_buckets().get(12), None);
        let devs: Vec<_> = sb.replicas().iter().map(|e| e.devs.to_vec()).collect();
        assert_eq!(devs, [vec![0], vec![0, nr - 1]]);
        assert_eq!(sb.disk_groups().path(1).to_string(), "ssd.one");
        assert_eq!(sb.clean().unwrap().journal_seq(), 5);
        let bl = sb.blacklist();
        let listed: Vec<u64> = (0..40).filter(|s| bl.contains(*s)).collect();
        assert_eq!(listed, (10..30).collect::<Vec<_>>());
        assert_eq!(sb.errors().entries()[0].id(), ErrorId(3));
        assert_eq!(sb.errors().entries()[1].count(), (1 << 48) - 1);
        let ext = sb.ext().unwrap();
        assert!(ext.is_silent(ErrorId(77)) && !ext.is_silent(ErrorId(78)));
        assert!(ext.pass_required(5) && !ext.pass_required(6));
        let d: Vec<_> = sb.downgrades().iter().collect();
        assert_eq!(d.len(), 2);
        assert_eq!(
            d[0].errors().collect::<Vec<_>>(),
            [ErrorId(76), ErrorId(77)]
        );
        assert_eq!(d[1].version, Version::new(1, 12));
        assert_eq!((sb.counters().get(2), sb.counters().get(1000)), (5, 0));
        assert!(sb.quota().is_some() && sb.crypt().is_some());
        assert_eq!(sb.header().layout.copies().count(), 3);
    }
}

#[test]
fn flags_do_not_overlap() {
    let mut seen = [0u64; 7];
    for &(name, word, lo, hi) in SbFlags::RANGES {
        let mask = (u64::MAX >> (64 - (hi - lo))) << lo;
        assert_eq!(seen[word] & mask, 0, "{name}");
        seen[word] |= mask;
    }
    // The first five words are used up, except for one bit.
    assert_eq!(seen[..5], [!0, !0, !0, !(1 << 63), !0]);
    // A freshly made filesystem with default options.
    let f = SbFlags([
        0x8111110080100107,
        0x000000000111c102,
        0,
        0x000000fa30000000,
        0x0000000100000064,
        0x00000000001e040d,
        0,
    ]);
    assert_eq!(f.btree_node_size(), 256);
    assert_eq!((f.gc_reserve(), f.csum_type(), f.error_action()), (8, 1, 1));
    assert_eq!((f.str_hash_type(), f.encoded_extent_max_bits()), (2, 7));
    assert_eq!(
        (f.journal_flush_delay(), f.journal_reclaim_delay()),
        (1000, 100)
    );
    assert_eq!(f.version_upgrade_complete(), Version::CURRENT.0.into());
    let mut g = SbFlags::default();
    g.set_csum_type(0x1ff);
    assert_eq!(g.0[0], 0x3f << 2);
}
