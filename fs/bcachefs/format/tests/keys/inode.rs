// SPDX-License-Identifier: GPL-2.0
//! Older generations of the inode value, times and modes.

use bcachefs_format::keys::inode::time::UnixTime;
use bcachefs_format::keys::inode::{FileType, Inode, InodeFlags, Mode, TimeBase};
use bcachefs_format::keys::str_hash::StrHashType;
use bcachefs_format::keys::{self, varint, ValidateCtx};
use bcachefs_format::{Bpos, BtreeId, ErrorId, KeyType};

use super::generate;
use super::owned::{words, Owned};
use super::rng::Rng;

/// The fields of the older list.
fn old_fields(i: &Inode) -> Vec<(u64, bool)> {
    let o = &i.options;
    let mut f: Vec<(u64, bool)> = [i.atime, i.ctime, i.mtime, i.otime]
        .map(|t| (t as u64, true))
        .to_vec();
    let narrow = [
        i.size,
        i.sectors,
        i.uid.into(),
        i.gid.into(),
        i.nlink.into(),
        i.generation.into(),
        i.dev.into(),
        o.data_checksum.into(),
        o.compression.into(),
        o.project.into(),
        o.background_compression.into(),
        o.data_replicas.into(),
        o.promote_target.into(),
        o.foreground_target.into(),
        o.background_target.into(),
        o.erasure_code.into(),
        o.fields_set.into(),
        i.dir,
        i.dir_offset,
        i.subvol.into(),
        i.parent_subvol.into(),
    ];
    f.extend(narrow.map(|v| (v, false)));
    f
}

fn put_varint(out: &mut Vec<u8>, v: u64) {
    let (bytes, len) = varint::encode(v);
    out.extend(&bytes[..len]);
}

/// The oldest encoding: as many leading zero bits as the place in the table of lengths, a one bit,
/// and the number in what is left.
fn put_prefixed(out: &mut Vec<u8>, v: u64) {
    let bits = 64 - v.leading_zeros();
    let lengths = [1u32, 2, 3, 4, 6, 8, 10, 13];
    let (zeros, len) = lengths
        .iter()
        .enumerate()
        .find(|(z, len)| bits < **len * 8 - *z as u32)
        .unwrap();
    let marked = u128::from(v) | 1 << (len * 8 - 1 - zeros as u32);
    out.extend(&marked.to_be_bytes()[16 - *len as usize..]);
}

/// Without what the older generations do not have.
fn reduce(mut i: Inode, journal_seq: bool) -> Inode {
    i.version = 0;
    i.options.nocow = 0;
    if !journal_seq {
        i.journal_seq = 0;
    }
    i
}

fn encode_v2(i: &Inode) -> Vec<u8> {
    let f = old_fields(i);
    let flags = u64::from(i.flags.0) | u64::from(i.str_hash.0) << 20 | (f.len() as u64) << 24;
    let mut b = Vec::new();
    b.extend(i.journal_seq.to_le_bytes());
    b.extend(i.hash_seed.to_le_bytes());
    b.extend(flags.to_le_bytes());
    b.extend(i.mode.0.to_le_bytes());
    for (v, wide) in f {
        put_varint(&mut b, v);
        if wide {
            put_varint(&mut b, 0);
        }
    }
    b
}

fn encode_v1(i: &Inode, new_varint: bool) -> Vec<u8> {
    let f = old_fields(i);
    let flags = i.flags.0
        | u32::from(i.str_hash.0) << 20
        | (f.len() as u32) << 24
        | u32::from(new_varint) << 31;
    let mut b = Vec::new();
    b.extend(i.hash_seed.to_le_bytes());
    b.extend(flags.to_le_bytes());
    b.extend(i.mode.0.to_le_bytes());
    for (v, wide) in f {
        match (new_varint, wide) {
            (true, true) => {
                put_varint(&mut b, v);
                put_varint(&mut b, 0);
            }
            (true, false) => put_varint(&mut b, v),
            (false, _) => put_prefixed(&mut b, v),
        }
    }
    b
}

fn key(i: &Inode, key_type: KeyType, bytes: &[u8]) -> Owned {
    let pos = Bpos::with_snapshot(0, i.inum, i.snapshot);
    Owned::new(BtreeId::INODES, key_type, pos, 0, words(bytes))
}

#[test]
fn older_generations_decode_to_the_same() {
    let mut r = Rng::new(10);
    for _ in 0..5_000 {
        let i = generate::inode(&mut r);
        for (t, bytes, seq) in [
            (KeyType::INODE_V2, encode_v2(&i), true),
            (KeyType::INODE, encode_v1(&i, true), false),
            (KeyType::INODE, encode_v1(&i, false), false),
        ] {
            let k = key(&i, t, &bytes);
            assert_eq!(Inode::parse(k.as_ref()), Ok(reduce(i, seq)), "{t}");
            let res = keys::validate(k.as_ref(), BtreeId::INODES, 0, &ValidateCtx::COMMIT);
            assert_eq!(res, Ok(()));
        }
    }
}

#[test]
fn cut_off_fields_are_noticed() {
    let mut r = Rng::new(11);
    for _ in 0..1_000 {
        let i = generate::inode(&mut r);
        let (t, bytes) = match r.below(3) {
            0 => (KeyType::INODE_V2, encode_v2(&i)),
            1 => (KeyType::INODE, encode_v1(&i, true)),
            _ => (KeyType::INODE, encode_v1(&i, false)),
        };
        // Whole words are taken off, so at least the last field is lost: unless it is in padding.
        let mut k = key(&i, t, &bytes);
        k.value.truncate(k.value.len() - 2);
        k.key.u64s -= 2;
        let err = Inode::parse(k.as_ref()).unwrap_err();
        assert!(
            err.id == ErrorId::INODE_UNPACK_ERROR || err.id == ErrorId::BKEY_VAL_SIZE_TOO_SMALL,
            "{err}"
        );
    }
}

#[test]
fn fields_wider_than_they_may_be_are_refused() {
    // uid is the fifth field of the current list.
    let mut b = vec![0; 48];
    b[16..24].copy_from_slice(&(3u64 << 20 | 5 << 24 | 6 << 31).to_le_bytes());
    for _ in 0..8 {
        put_varint(&mut b, 0);
    }
    let good = b.len();
    put_varint(&mut b, u32::MAX.into());
    let i = Inode {
        inum: 4096,
        snapshot: 1,
        ..Inode::default()
    };
    let parsed = Inode::parse(key(&i, KeyType::INODE_V3, &b).as_ref()).unwrap();
    assert_eq!(parsed.uid, u32::MAX);
    b.truncate(good);
    put_varint(&mut b, 1 << 32);
    let err = Inode::parse(key(&i, KeyType::INODE_V3, &b).as_ref()).unwrap_err();
    assert_eq!(err.id, ErrorId::INODE_UNPACK_ERROR);
    assert_eq!(err.got, 1 << 32);

    // A time with something in its upper half.
    b.truncate(48);
    put_varint(&mut b, 0);
    put_varint(&mut b, 1);
    let err = Inode::parse(key(&i, KeyType::INODE_V3, &b).as_ref()).unwrap_err();
    assert_eq!(err.id, ErrorId::INODE_UNPACK_ERROR);
}

#[test]
fn numbers_of_every_length() {
    for (v, hex) in [
        (0, "00"),
        (1, "02"),
        (127, "fe"),
        (128, "0102"),
        (16383, "fdff"),
        (16384, "030002"),
        ((1 << 56) - 1, "7fffffffffffffff"),
        (1 << 56, "ff0000000000000001"),
        (u64::MAX, "ffffffffffffffffff"),
    ] {
        let want = super::owned::hex(hex);
        let (bytes, len) = varint::encode(v);
        assert_eq!(&bytes[..len], want, "{v}");
        assert_eq!(varint::decode(&want), Some((v, len)));
        // The quick way is taken when more bytes follow; what they are does not matter.
        let mut long = want.clone();
        long.extend([0xff; 9]);
        assert_eq!(varint::decode(&long), Some((v, len)));
        assert_eq!(varint::decode(&want[..len - 1]), None);
    }
    let mut r = Rng::new(12);
    for _ in 0..20_000 {
        let v = r.magnitude(64);
        let (bytes, len) = varint::encode(v);
        assert_eq!(varint::decode(&bytes[..len]), Some((v, len)));
    }
}

#[test]
fn times() {
    let t = TimeBase::new(1_700_000_000_123_456_789, 1);
    assert_eq!(
        t.to_unix(0),
        UnixTime {
            secs: 1_700_000_000,
            nanos: 123_456_789
        }
    );
    // Before the filesystem was made, and before 1970.
    assert_eq!(
        t.to_unix(-1_700_000_000_123_456_790),
        UnixTime {
            secs: -1,
            nanos: 999_999_999
        }
    );
    let coarse = TimeBase::new(1_500_000_000_999, 1_000_000);
    assert_eq!(coarse.granularity(), 1_000_000);
    assert_eq!(
        coarse.to_unix(1),
        UnixTime {
            secs: 1500,
            nanos: 1_000_000
        }
    );
    assert_eq!(TimeBase::new(7, 0), TimeBase::new(7, 1));
    let mut r = Rng::new(13);
    for base in [TimeBase::new(r.next(), 1), TimeBase::new(r.next(), 1000)] {
        for _ in 0..1_000 {
            let stored = r.magnitude(60) as i64 - r.magnitude(60) as i64;
            assert_eq!(base.from_unix(base.to_unix(stored)), stored);
        }
        let _ = (base.to_unix(i64::MIN), base.to_unix(i64::MAX));
    }
}

#[test]
fn modes_and_types() {
    for (mode, t) in [
        (0o010000, FileType::FIFO),
        (0o020000, FileType::CHR),
        (0o040000, FileType::DIR),
        (0o060000, FileType::BLK),
        (0o100000, FileType::REG),
        (0o120000, FileType::LNK),
        (0o140000, FileType::SOCK),
    ] {
        assert_eq!(Mode(mode | 0o755).file_type(), t);
        assert_eq!(t.to_mode(), Mode(mode));
        assert_eq!(Mode(mode | 0o4755).permissions(), 0o4755);
        assert!(t.is_inode_type());
    }
    assert_eq!(FileType::SUBVOL.to_mode(), Mode(0o040000));
    assert_eq!(FileType::SUBVOL.user_visible(), FileType::DIR);
    assert!(!FileType::SUBVOL.is_inode_type());
}

#[test]
fn link_counts() {
    let mut i = Inode {
        mode: Mode(0o040755),
        nlink: 3,
        str_hash: StrHashType::SIPHASH,
        ..Inode::default()
    };
    assert_eq!(i.nlink(), 5);
    i.mode = Mode(0o100644);
    assert_eq!(i.nlink(), 4);
    i.nlink = 0;
    i.flags = InodeFlags::UNLINKED;
    assert_eq!(i.nlink(), 0);
    i.dev = 8 << 20 | 17;
    assert_eq!(i.rdev(), (8, 17));
}
