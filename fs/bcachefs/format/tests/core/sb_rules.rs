// SPDX-License-Identifier: GPL-2.0
//! Broken superblocks are refused with the reason; choosing among good ones.

use bcachefs_format::sb::choose::{best, copies_to_try, Choice, Identity, Rejected};
use bcachefs_format::sb::replicas::Availability;
use bcachefs_format::sb::DiskLayout;
use bcachefs_format::super_block::DiskSb;
use bcachefs_format::{ErrorId, Invalid, SuperBlock, Uuid, Version};
use zerocopy::byteorder::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

use super::alg::Host;
use super::random::Random;
use super::round_trip::sample_sb;
use super::walk::LIMITS;

fn validate(words: &[u64]) -> Result<(), Invalid> {
    SuperBlock::frame(words)?.validate(&LIMITS).map(drop)
}

/// What is wrong with a good superblock after `change`.
fn broken(change: impl Fn(&mut DiskSb)) -> Invalid {
    let mut words = sample_sb(&mut Random::new(20), 2);
    validate(&words).unwrap();
    let (header, _) = DiskSb::mut_from_prefix(words.as_mut_bytes()).unwrap();
    change(header);
    validate(&words).unwrap_err()
}

#[test]
fn superblock_header() {
    fn flags(h: &mut DiskSb, f: impl Fn(&mut bcachefs_format::sb::SbFlags)) {
        let mut v = h.flags();
        f(&mut v);
        h.flags = v.0.map(U64::new);
    }
    type Change = (&'static str, usize, fn(&mut DiskSb));
    let cases: &[Change] = &[
        ("not a bcachefs superblock", 24, |h| h.magic = Uuid::NIL),
        ("unsupported metadata version", 16, |h| h.version.set(0x80d)),
        ("unsupported metadata version", 16, |h| h.version.set(8)),
        ("unsupported oldest", 18, |h| h.version_min.set(8)),
        ("above the current", 18, |h| h.version_min.set(1038)),
        ("longer than its layout", 124, |h| h.u64s.set(1 << 20)),
        ("cut off", 124, |h| h.u64s.set(1 << 14)),
        ("unknown incompatible features", 208, |h| {
            h.features[0].set(1 << 19);
        }),
        ("unknown incompatible features", 208, |h| {
            h.features[1].set(1)
        }),
        ("power of two", 120, |h| h.block_size.set(7)),
        ("larger than a page", 120, |h| h.block_size.set(16)),
        ("below the device's", 120, |h| h.block_size.set(0)),
        ("user UUID", 56, |h| h.user_uuid = Uuid::NIL),
        ("internal UUID", 40, |h| h.uuid = Uuid::NIL),
        ("number of devices", 123, |h| h.nr_devices = 0),
        ("number of devices", 123, |h| h.nr_devices = 65),
        ("device index", 122, |h| h.dev_idx = 2),
        ("time precision", 140, |h| h.time_precision.set(0)),
        ("time precision", 140, |h| {
            h.time_precision.set(1_000_000_001)
        }),
        ("big-endian", 144, |h| flags(h, |f| f.set_big_endian(1))),
        ("btree node size", 144, |h| {
            flags(h, |f| f.set_btree_node_size(2048));
        }),
        ("btree node size", 144, |h| {
            flags(h, |f| f.set_btree_node_size(3));
        }),
        ("metadata replicas", 144, |h| {
            flags(h, |f| f.set_meta_replicas_want(4));
        }),
        ("required data replicas", 152, |h| {
            flags(h, |f| f.set_data_replicas_req(0));
        }),
        ("gc reserve", 144, |h| flags(h, |f| f.set_gc_reserve(21))),
        ("root reserve", 144, |h| {
            flags(h, |f| f.set_root_reserve(100))
        }),
        ("encoded extent", 152, |h| {
            flags(h, |f| f.set_encoded_extent_max_bits(12));
        }),
        ("compression", 152, |h| {
            flags(h, |f| f.set_compression_type_lo(4))
        }),
        ("compression", 152, |h| {
            flags(h, |f| f.set_compression_type_hi(1))
        }),
        ("string hash", 152, |h| flags(h, |f| f.set_str_hash_type(3))),
        ("data checksum", 144, |h| {
            flags(h, |f| f.set_data_csum_type(4));
        }),
        ("erasure code", 168, |h| flags(h, |f| f.set_erasure_code(2))),
        ("version upgrade", 176, |h| {
            flags(h, |f| f.set_version_upgrade(3));
        }),
        ("layout: magic", 240, |h| h.layout.magic = Uuid::NIL),
        ("layout: unknown type", 256, |h| h.layout.layout_type = 1),
        ("layout: superblock size", 257, |h| {
            h.layout.sb_max_size_bits = 17
        }),
        ("number of superblocks", 258, |h| {
            h.layout.nr_superblocks = 0
        }),
        ("number of superblocks", 258, |h| {
            h.layout.nr_superblocks = 62
        }),
        ("overlap", 272, |h| h.layout.sb_offset[1].set(9)),
        // Members of one device less than the replicas name.
        ("does not exist", 0, |h| {
            h.nr_devices = 1;
        }),
    ];
    for (what, offset, change) in cases {
        let e = broken(change);
        assert!(e.what.contains(what), "{what}: {e}");
        if *offset != 0 {
            assert_eq!(e.offset, *offset, "{e}");
        }
    }
}

#[test]
fn superblock_checksum() {
    let mut words = sample_sb(&mut Random::new(21), 1);
    let open = |w: &[u64]| SuperBlock::open(w, &Host::default()).map(drop);
    open(&words).unwrap();
    let last = words.len() - 1;
    words[last] ^= 1 << 40;
    assert!(open(&words).unwrap_err().what.contains("checksum is wrong"));
    words[last] ^= 1 << 40;
    let set_type = |words: &mut [u64], t| {
        let (h, _) = DiskSb::mut_from_prefix(words.as_mut_bytes()).unwrap();
        let mut f = h.flags();
        f.set_csum_type(t);
        h.flags = f.0.map(U64::new);
    };
    for t in [3, 4, 8, 63] {
        set_type(&mut words, t);
        assert!(open(&words).unwrap_err().what.contains("checksum type"));
    }
}

/// Applies `change` to the payload words of the first field of a type.
fn broken_field(
    field_type: bcachefs_format::sb::FieldType,
    change: impl Fn(&mut [u64]),
) -> Invalid {
    let mut words = sample_sb(&mut Random::new(22), 2);
    let (start, len) = {
        let sb = SuperBlock::frame(&words).unwrap().into_inner();
        let f = sb.field(field_type).unwrap();
        (94 + f.offset / 8 + 1, f.payload().len())
    };
    change(&mut words[start..start + len]);
    let e = validate(&words).unwrap_err();
    assert!(
        e.offset >= (start - 1) * 8 && e.offset < (start + len) * 8,
        "{e}"
    );
    e
}

#[test]
fn superblock_fields() {
    use bcachefs_format::sb::FieldType as T;
    let says = |e: Invalid, what: &str| assert!(e.what.contains(what), "{what}: {e}");
    says(
        broken_field(T::MEMBERS_V1, |w| w[2] = 1 << 40),
        "too many buckets",
    );
    says(
        broken_field(T::MEMBERS_V2, |w| w[3] = 63),
        "too few buckets",
    );
    says(
        broken_field(T::MEMBERS_V2, |w| w[4] = 0),
        "smaller than a block",
    );
    says(
        broken_field(T::MEMBERS_V2, |w| w[4] = 128 << 16),
        "smaller than a btree node",
    );
    says(
        broken_field(T::MEMBERS_V2, |w| w[4] |= 58 << 32),
        "bitmap shift",
    );
    says(broken_field(T::MEMBERS_V2, |w| w[0] = 0xffff), "too short");
    says(broken_field(T::JOURNAL_V2, |w| w[0] = 0), "bucket 0");
    says(broken_field(T::JOURNAL_V2, |w| w[1] = 0), "empty");
    says(
        broken_field(T::JOURNAL_V2, |w| w[1] = u64::MAX),
        "overflows",
    );
    says(broken_field(T::JOURNAL_V2, |w| w[2] = 77), "listed twice");
    says(
        broken_field(T::JOURNAL_V2, |w| w[2] = 1 << 40),
        "past the end",
    );
    says(
        broken_field(T::REPLICAS, |w| w[0] &= !0xff00),
        "without devices",
    );
    says(
        broken_field(T::REPLICAS, |w| w[0] |= 9 << 24),
        "does not exist",
    );
    says(broken_field(T::DISK_GROUPS, |w| w[0] = 0), "empty label");
    says(
        broken_field(T::DISK_GROUPS, |w| {
            let (a, b) = w.split_at_mut(6);
            a.copy_from_slice(b);
        }),
        "same path",
    );
    says(
        broken_field(T::JOURNAL_SEQ_BLACKLIST, |w| w[1] = 10),
        "empty range",
    );
    says(
        broken_field(T::JOURNAL_SEQ_BLACKLIST, |w| w[1] = 21),
        "overlap",
    );
    says(broken_field(T::ERRORS, |w| w[0] = 3), "count of 0");
    says(
        broken_field(T::ERRORS, |w| w[0] = 9 | 1 << 16),
        "out of order",
    );
    says(broken_field(T::DOWNGRADE, |w| w[0] = 1), "another major");
    says(broken_field(T::CRYPT, |w| w[0] = 1), "passphrase");
    let e = broken_field(T::CLEAN, |w| w[2] |= 0xffff);
    assert_eq!(e.id, ErrorId::SB_CLEAN_ENTRY_OVERRUN);
}

#[test]
fn choosing() {
    let id = |seq, write_time, dev_idx| Identity {
        uuid: Uuid([1; 16]),
        block_size: 8,
        version: Version::CURRENT,
        seq,
        write_time,
        dev_idx,
    };
    assert_eq!(best([]), None);
    assert_eq!(best([id(1, 9, 0), id(2, 1, 1), id(2, 1, 2)]), Some(1));
    assert_eq!(best([id(2, 1, 0), id(2, 2, 1)]), Some(1));

    let mut words = sample_sb(&mut Random::new(23), 3);
    let seq = {
        let (h, _) = DiskSb::mut_from_prefix(words.as_mut_bytes()).unwrap();
        h.seq.set(100);
        h.write_time.set(50);
        100
    };
    // Member sequence numbers: 0 for the first, 90 for the second; the third slot is empty.
    let v2 = {
        let sb = SuperBlock::frame(&words).unwrap().into_inner();
        94 + sb
            .field(bcachefs_format::sb::FieldType::MEMBERS_V2)
            .unwrap()
            .offset
            / 8
            + 2
    };
    words[v2 + 15] = 0;
    words[v2 + 18 + 15] = 90;
    words[v2 + 36..v2 + 38].fill(0);
    let sb = SuperBlock::frame(&words).unwrap().into_inner();
    let choice = Choice::new(&sb);
    let accepts = |i: Identity| choice.accepts(&i).map(drop);
    assert_eq!(accepts(id(seq, 50, 0)), Ok(()));
    assert_eq!(accepts(id(90, 1, 1)), Ok(()));
    assert_eq!(accepts(id(80, 1, 1)), Ok(()));
    assert_eq!(
        accepts(id(91, 1, 1)),
        Err(Rejected::SplitBrainAhead { got: 91, want: 90 })
    );
    assert_eq!(accepts(id(seq, 51, 0)), Err(Rejected::SplitBrainSameSeq));
    assert_eq!(accepts(id(90, 1, 2)), Err(Rejected::Removed));
    assert_eq!(accepts(id(90, 1, 3)), Err(Rejected::Removed));
    let other = Identity {
        uuid: Uuid([9; 16]),
        ..id(90, 1, 1)
    };
    assert_eq!(accepts(other), Err(Rejected::OtherFilesystem));
    let blocks = Identity {
        block_size: 1,
        ..id(90, 1, 1)
    };
    assert_eq!(
        accepts(blocks),
        Err(Rejected::BlockSize { got: 1, want: 8 })
    );
    let old = Identity {
        version: Version::new(1, 3),
        ..id(95, 1, 1)
    };
    assert_eq!(accepts(old), Ok(()));

    let layout = DiskLayout::new(11, &[8, 2056, 9000]);
    let left: Vec<u64> = copies_to_try(&layout, 8).collect();
    assert_eq!(left, [2056, 9000]);
}

#[test]
fn availability() {
    use bcachefs_format::keys::data_type::DataType;
    let entry = |data_type, nr_required, devs| bcachefs_format::sb::ReplicasEntry {
        data_type,
        nr_required,
        devs,
    };
    let check = |e: &bcachefs_format::sb::ReplicasEntry<'_>, online: &[u8], failed: &[u8]| {
        e.availability(|d| online.contains(&d), |d| failed.contains(&d))
    };
    let user = entry(DataType::USER, 1, &[0, 1]);
    assert_eq!(check(&user, &[0, 1], &[]), Availability::Complete);
    assert_eq!(check(&user, &[1], &[]), Availability::Degraded);
    assert_eq!(check(&user, &[], &[]), Availability::Lost);
    assert_eq!(check(&user, &[], &[0]), Availability::Lost);
    // All that is missing is known to be lost.
    assert_eq!(check(&user, &[1], &[0]), Availability::Complete);
    assert_eq!(check(&user, &[], &[0, 1]), Availability::Complete);
    let cached = entry(DataType::CACHED, 1, &[0, 1]);
    assert_eq!(check(&cached, &[], &[]), Availability::Complete);
    let two = entry(DataType::BTREE, 2, &[0, 1, 2]);
    assert_eq!(check(&two, &[0, 1], &[]), Availability::Degraded);
    assert_eq!(check(&two, &[0], &[]), Availability::Lost);
}
