// SPDX-License-Identifier: GPL-2.0
//! Keys taken from filesystems: what they decode to, and that rebuilding gives the same bytes.

use bcachefs_format::checksum::CsumType;
use bcachefs_format::keys::accounting::AccountingKey;
use bcachefs_format::keys::acl::{AclEntry, AclTag};
use bcachefs_format::keys::compression::{CompressionOpt, CompressionType};
use bcachefs_format::keys::data_type::DataType;
use bcachefs_format::keys::dirent::DirentTarget;
use bcachefs_format::keys::inode::{FileType, Mode};
use bcachefs_format::keys::lru::LruPos;
use bcachefs_format::keys::str_hash::StrHashInfo;
use bcachefs_format::keys::{self, KeyText, ValidateCtx, Value};
use bcachefs_format::{Bpos, BtreeId, Bversion, KeyType};

use super::crc::SlowCrc;
use super::owned::{hex, words, Owned};
use super::rebuild::rebuild;

const MAX: u32 = u32::MAX;

/// btree, type, inode, offset, snapshot, size, value in storage order.
type Vector = (BtreeId, KeyType, u64, u64, u32, u32, &'static str);

#[rustfmt::skip]
const VECTORS: &[Vector] = &[
    (BtreeId::INODES, KeyType::INODE_V3, 0, 4096, MAX, 0, "0100000000000000 acd5c9e0ec2685d0 00003016d31e0400 0000000000000000 0000000000000000 0000000000000000 0b004c000b004c00 0b004c000b004c00 0000020000000000 0000000000000000 0002000000000000"),
    (BtreeId::INODES, KeyType::INODE_V3, 0, 4097, MAX, 0, "0100000000000000 6ef519717c2451a9 00003015031c0400 0000000000000000 0000000000000000 0000000000000000 0b004c000b004c00 0b004c000b004c00 0000000000000000 0000000000000001 40ff98b6af353fcf c801000000000000"),
    (BtreeId::DIRENTS, KeyType::DIRENT, 4096, 128580459770656408, MAX, 0, "0110000000000000 046c6f73742b666f 756e640000000000"),
    (BtreeId::SNAPSHOTS, KeyType::SNAPSHOT, 0, 4294967295, 0, 0, "0200000000000000 0000000000000000 0100000001000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000"),
    (BtreeId::SUBVOLUMES, KeyType::SUBVOLUME, 0, 1, 0, 0, "00000000ffffffff 0010000000000000 0000000000000000 0000000000000000 0000000000000000"),
    (BtreeId::SNAPSHOT_TREES, KeyType::SNAPSHOT_TREE, 0, 1, 0, 0, "01000000ffffffff"),
    (BtreeId::ALLOC, KeyType::ALLOC_V4, 0, 0, 0, 0, "0100000000000000 2300000000000100 0001000000000000 0100000000000000 0100000000000000 0000000000000000 0000000000000000 0000000000000000"),
    (BtreeId::ALLOC, KeyType::ALLOC_V4, 0, 26, 0, 0, "0100000000000000 2300000000000300 0001000000000000 0100000000000000 0002000000000000 0000000000000000 0000000000000000 0000000000000000"),
    (BtreeId::FREESPACE, KeyType::SET, 0, 1016, 0, 971, ""),
    (BtreeId::BACKPOINTERS, KeyType::BACKPOINTER, 0, 6815744, 0, 0, "0401030000000000 00010000ffffffff ffffffffffffffff ffffffffffffffff"),
    (BtreeId::ACCOUNTING, KeyType::ACCOUNTING, 0, 0, 0, 0, "0200000000000000"),
    (BtreeId::ACCOUNTING, KeyType::ACCOUNTING, 0, 0, 3, 0, "d603000000000000 0000000000000000 0000000000000000"),
    (BtreeId::ACCOUNTING, KeyType::ACCOUNTING, 0, 0, 262, 0, "0001000000000000"),
    (BtreeId::ACCOUNTING, KeyType::ACCOUNTING, 0, 0, 65539, 0, "1900000000000000 0818000000000000 f800000000000000"),
    (BtreeId::ACCOUNTING, KeyType::ACCOUNTING, 0, 0, 196611, 0, "0900000000000000 0009000000000000 0000000000000000"),
    (BtreeId::ACCOUNTING, KeyType::ACCOUNTING, 0, 0, 16843522, 0, "0009000000000000"),
    (BtreeId::EXTENTS, KeyType::EXTENT, 4099, 128, MAX, 128, "feff0005bb95af90 0190010000000000"),
    (BtreeId::EXTENTS, KeyType::RESERVATION, 4100, 128, MAX, 128, "0000000001000000"),
    (BtreeId::EXTENTS, KeyType::REFLINK_P, 4098, 8, MAX, 8, "0001000000000000 0000000000000000"),
    (BtreeId::EXTENTS, KeyType::REFLINK_P, 4099, 384, MAX, 128, "8000000000000000 0000000000000000"),
    (BtreeId::REFLINK, KeyType::REFLINK_V, 0, 128, 0, 128, "0200000000000000 feff000564bc0869 0198010000000000"),
    (BtreeId::REFLINK, KeyType::INDIRECT_INLINE_DATA, 0, 264, 0, 8, "0200000000000000 74696e7900000000"),
    (BtreeId::EXTENTS, KeyType::WHITEOUT, 4107, 8, 4294967293, 0, ""),
    (BtreeId::EXTENTS, KeyType::INLINE_DATA, 4107, 8, 4294967292, 8, "696e0a6d6f72650a"),
    (BtreeId::INODES, KeyType::INODE_GENERATION, 0, 4107, 4294967293, 0, "0100000000000000"),
    (BtreeId::SNAPSHOTS, KeyType::SNAPSHOT, 0, 4294967290, 0, 0, "02000000fcffffff 0000000000000000 0200000002000000 02000000fcffffff fcfffffffcffffff 936dc46dae000000 0000000000000000"),
    (BtreeId::SNAPSHOTS, KeyType::SNAPSHOT, 0, 4294967292, 0, 0, "00000000feffffff fbfffffffaffffff 0000000002000000 01000000feffffff fefffffffeffffff 8f950b68ae000000 0000000000000000"),
    (BtreeId::SNAPSHOTS, KeyType::SNAPSHOT, 0, 4294967294, 0, 0, "0000000000000000 fdfffffffcffffff 0000000002000000 0000000000000000 0000000000000000 8aa29b61ae000000 0000000000000000"),
    (BtreeId::SUBVOLUMES, KeyType::SUBVOLUME, 0, 3, 0, 0, "02000000fdffffff 0a10000000000000 0200000001000000 8f950b68ae000000 0000000000000000"),
    (BtreeId::SUBVOLUMES, KeyType::SUBVOLUME, 0, 4, 0, 0, "03000000fbffffff 0a10000000000000 0200000001000000 936dc46dae000000 0000000000000000"),
    (BtreeId::SUBVOLUME_CHILDREN, KeyType::SET, 1, 2, 0, 0, ""),
    (BtreeId::DIRENTS, KeyType::DIRENT, 4096, 3931399815904797136, MAX, 0, "0300000001000000 10736e6170310000"),
    (BtreeId::DIRENTS, KeyType::DIRENT, 4096, 7438539407012221916, MAX, 0, "0200000001000000 1073760000000000"),
    (BtreeId::XATTRS, KeyType::XATTR, 4098, 866692418239528317, MAX, 0, "000c28006c6f6e67 617474726e616d65 7a7a7a7a7a7a7a7a 7a7a7a7a7a7a7a7a 7a7a7a7a7a7a7a7a 7a7a7a7a7a7a7a7a 7a7a7a7a7a7a7a7a"),
    (BtreeId::XATTRS, KeyType::XATTR, 4103, 7980768669456997727, MAX, 0, "02001c0001000000 0100070002000700 0700000004000500 1000070020000500"),
    (BtreeId::XATTRS, KeyType::XATTR, 4104, 1920540678110702525, MAX, 0, "0100240001000000 0100060002000600 e803000004000400 08000400d0070000 1000060020000400"),
    (BtreeId::QUOTAS, KeyType::QUOTA, 0, 1000, 0, 0, "d007000000000000 e803000000000000 4d00000000000000 4200000000000000"),
    (BtreeId::QUOTAS, KeyType::QUOTA, 2, 42, 0, 0, "0000000000000000 1000000000000000 0900000000000000 0000000000000000"),
    (BtreeId::EXTENTS, KeyType::EXTENT, 4099, 128, MAX, 128, "5efe0035650a454b 0140030000000100 0370020000000000"),
    (BtreeId::EXTENTS, KeyType::EXTENT, 4121, 128, MAX, 128, "feff00057ee6af4c 0180030000000000 2000000000030000"),
    (BtreeId::REBALANCE_WORK, KeyType::SET, 4121, 128, MAX, 0, ""),
    (BtreeId::EXTENTS, KeyType::EXTENT, 4118, 8, MAX, 8, "0920030000000000"),
    (BtreeId::LRU, KeyType::SET, 18446462598934167552, 43, 0, 0, ""),
    (BtreeId::ALLOC, KeyType::ALLOC_V4, 0, 33, 0, 0, "0b00000000000000 2300000000000500 0000000050000000 0031000000000000 500e000000000000 0000000000000000 0000000000000000 0000000000000000"),
    (BtreeId::DIRENTS, KeyType::HASH_WHITEOUT, 4098, 887906714, MAX, 0, ""),
    (BtreeId::ACCOUNTING, KeyType::ACCOUNTING, 0, 0, 772, 0, "0700000000000000 a006000000000000 f000000000000000"),
    (BtreeId::ACCOUNTING, KeyType::ACCOUNTING, 0, 0, 1049352, 0, "0700000000000000 5003000000000000 7800000000000000"),
    (BtreeId::ACCOUNTING, KeyType::ACCOUNTING, 0, 255, 4294967045, 0, "e006000000000000"),
    (BtreeId::ACCOUNTING, KeyType::ACCOUNTING, 0, 0, 7, 0, "1802000000000000"),
    (BtreeId::ACCOUNTING, KeyType::ACCOUNTING, 0, 0, 257, 0, "8000000000000000"),
    // A root from a clean section; mem_ptr is 0 there.
    (BtreeId::EXTENTS, KeyType::BTREE_PTR_V2, u64::MAX, u64::MAX, MAX, 0, "0000000000000000 c16673c3df849289 3000000000000000 0000000000000000 0000000000000000 0180050000000000"),
];

fn owned(v: &Vector) -> Owned {
    let (btree, key_type, inode, offset, snapshot, size, value) = *v;
    let pos = Bpos::with_snapshot(inode, offset, snapshot);
    Owned::new(btree, key_type, pos, size, words(&hex(value)))
}

/// The vector of the btree at a position.
fn find(btree: BtreeId, inode: u64, offset: u64, snapshot: u32) -> Owned {
    let mut found = VECTORS
        .iter()
        .filter(|v| (v.0, v.2, v.3, v.4) == (btree, inode, offset, snapshot));
    owned(found.next().expect("vector"))
}

macro_rules! value {
    ($key:expr, $kind:ident) => {
        match keys::parse($key.as_ref()) {
            Ok(Value::$kind(v)) => v,
            other => panic!("{other:?}"),
        }
    };
}

#[test]
fn all_are_valid_and_rebuild_to_the_same_bytes() {
    for v in VECTORS {
        let key = owned(v);
        let res = keys::validate(key.as_ref(), key.btree, key.level, &ValidateCtx::COMMIT);
        assert_eq!(res, Ok(()), "{}", KeyText(key.as_ref()));
        assert_eq!(rebuild(&key), key.value, "{}", KeyText(key.as_ref()));
        println!("{} {}", key.btree, KeyText(key.as_ref()));
    }
}

#[test]
fn inodes() {
    let key = find(BtreeId::INODES, 0, 4096, MAX);
    let root = value!(key, Inode);
    assert_eq!(root.mode, Mode(0o040755));
    assert_eq!((root.nlink, root.nlink()), (1, 3));
    assert_eq!((root.subvol, root.parent_subvol), (1, 0));
    assert_eq!((root.dir, root.dir_offset), (0, 0));
    assert_eq!(root.hash_seed.to_le_bytes()[..], hex("acd5c9e0ec2685d0"));

    let key = find(BtreeId::INODES, 0, 4097, MAX);
    let i = value!(key, Inode);
    assert_eq!(i.mode, Mode(0o040700));
    assert_eq!((i.inum, i.snapshot), (4097, MAX));
    // Directory and offset lead to the entry, and the entry is where its name hashes to.
    assert_eq!((i.dir, i.dir_offset), (4096, 128580459770656408));
    let key = find(BtreeId::DIRENTS, i.dir, i.dir_offset, MAX);
    let d = value!(key, Dirent);
    assert_eq!(d.name, b"lost+found");
    assert_eq!(d.target, DirentTarget::Inode(4097));
    assert_eq!(d.d_type, FileType::DIR);
    let hash = StrHashInfo::new(&root).unwrap();
    assert_eq!(hash.dirent(d.name, &SlowCrc), i.dir_offset);
}

#[test]
fn entries_of_subvolumes() {
    let key = find(BtreeId::DIRENTS, 4096, 3931399815904797136, MAX);
    let d = value!(key, Dirent);
    assert_eq!(d.name, b"snap1");
    assert_eq!(d.d_type, FileType::SUBVOL);
    assert_eq!(
        d.target,
        DirentTarget::Subvol {
            child: 3,
            parent: 1
        }
    );
    assert!(d.is_visible_in(1) && !d.is_visible_in(3));
}

#[test]
fn snapshots() {
    let key = find(BtreeId::SNAPSHOTS, 0, 4294967290, 0);
    let s = value!(key, Snapshot);
    assert!(s.is_subvol() && s.is_leaf() && !s.is_deleted());
    assert_eq!((s.parent, s.tree, s.depth, s.subvol), (4294967292, 2, 2, 2));
    assert_eq!(s.skip, [4294967292; 3]);
    let key = find(BtreeId::SNAPSHOTS, 0, 4294967292, 0);
    let parent = value!(key, Snapshot);
    assert_eq!(parent.children, [4294967291, 4294967290]);
    // From the leaf to the root, the entries lead upwards.
    assert_eq!(s.step_towards(4294967294), 4294967292);
    assert_eq!(parent.step_towards(4294967294), 4294967294);
    assert_eq!(s.step_towards(4294967291), 0);
    let key = find(BtreeId::SUBVOLUMES, 0, 4, 0);
    let v = value!(key, Subvolume);
    assert!(v.is_ro() && v.is_snap() && !v.is_unlinked());
    assert_eq!((v.snapshot, v.inode), (4294967291, 4106));
    assert_eq!((v.creation_parent, v.fs_path_parent), (2, 1));
}

#[test]
fn extents() {
    let key = owned(
        VECTORS
            .iter()
            .rfind(|v| v.1 == KeyType::EXTENT && v.2 == 4099)
            .unwrap(),
    );
    let e = value!(key, Extent);
    let ptrs: Vec<_> = e.ptrs().collect();
    let [dirty, cached] = ptrs[..] else {
        panic!("{ptrs:?}");
    };
    assert_eq!(
        (dirty.ptr.dev(), dirty.ptr.offset(), dirty.ptr.generation()),
        (1, 13312, 0)
    );
    assert!(dirty.is_dirty() && !cached.is_dirty());
    assert_eq!((cached.ptr.dev(), cached.ptr.offset()), (0, 9984));
    assert_eq!(dirty.crc, cached.crc);
    let crc = dirty.crc;
    assert_eq!((crc.compressed_size, crc.uncompressed_size), (24, 128));
    assert_eq!((crc.offset, crc.live_size, crc.nonce), (0, 128, 0));
    assert_eq!(crc.csum_type, CsumType::CRC32C);
    assert_eq!(crc.compression, CompressionType::LZ4);
    assert_eq!(crc.csum.lo.get(), 0x4b45_0a65);
    assert_eq!(crc.disk_sectors(), 24);

    let key = find(BtreeId::EXTENTS, 4121, 128, MAX);
    let wanted = value!(key, Extent).entries().rebalance().unwrap();
    assert_eq!(wanted.compression(), CompressionOpt(3));
    assert_eq!(wanted.target(), 0);

    let key = find(BtreeId::EXTENTS, 4118, 8, MAX);
    assert!(value!(key, Extent).is_unwritten());
}

#[test]
fn lists_of_access() {
    let key = find(BtreeId::XATTRS, 4104, 1920540678110702525, MAX);
    let acl = value!(key, Xattr).acl().unwrap().unwrap();
    let want = [
        (AclTag::UserObj, 6),
        (AclTag::User(1000), 6),
        (AclTag::GroupObj, 4),
        (AclTag::Group(2000), 4),
        (AclTag::Mask, 6),
        (AclTag::Other, 4),
    ]
    .map(|(tag, perm)| AclEntry { tag, perm });
    assert_eq!(acl.entries().collect::<Vec<_>>(), want);
}

#[test]
fn buckets() {
    let key = find(BtreeId::ALLOC, 0, 33, 0);
    let a = value!(key, Alloc);
    assert_eq!(a.data_type, DataType::CACHED);
    assert_eq!((a.cached_sectors, a.dirty_sectors), (80, 0));
    assert_eq!((a.used_sectors(), a.fragmented_sectors(256)), (80, 176));
    assert_eq!(a.io_time, [0x3100, 0xe50]);
    let key = find(BtreeId::LRU, 18446462598934167552, 43, 0);
    let p = LruPos::from_pos(key.key.pos);
    assert_eq!((p.list, p.time), (0xffff, 201326592));
    assert_eq!((p.dev, p.bucket), (0, 43));
}

#[test]
fn counters() {
    let what = |snapshot, offset| {
        AccountingKey::from_pos(Bpos::with_snapshot(0, offset, snapshot)).to_string()
    };
    assert_eq!(what(0, 0), "nr_inodes");
    assert_eq!(what(196611, 0), "dev_data_type dev=0 data_type=btree");
    assert_eq!(what(16843522, 0), "replicas btree: 1/1 [0]");
    assert_eq!(what(262, 0), "btree inodes");
    assert_eq!(what(1049352, 0), "inum 4099");
    assert_eq!(what(4294967045, 255), "snapshot id=4294967295");
    assert_eq!(what(772, 0), "compression lz4");
    let key = find(BtreeId::ACCOUNTING, 0, 0, 65539);
    let a = value!(key, Accounting);
    assert_eq!(a.counters().collect::<Vec<_>>(), [25, 6152, 248]);
    assert_eq!(key.key.version, Bversion { hi: 0, lo: 1 });
}
