// SPDX-License-Identifier: GPL-2.0
//! Rules of inodes, names, subvolumes and snapshots.

use bcachefs_format::keys;
use bcachefs_format::{Bpos, BtreeId, ErrorId, KeyType};

use super::{accepted, commit, read, refused};
use crate::keys::generate;
use crate::keys::owned::{build, words, Owned};
use crate::keys::rng::Rng;

fn inode(bytes: &[u8]) -> Owned {
    let pos = Bpos::with_snapshot(0, 4096, 1);
    Owned::new(BtreeId::INODES, KeyType::INODE_V3, pos, 0, words(bytes))
}

#[test]
fn inodes() {
    let flags = |hash: u64, nr: u64, start: u64, mode: u64, bits: u64| {
        let mut b = vec![0; 48];
        let word = bits | hash << 20 | nr << 24 | start << 31 | mode << 36;
        b[16..24].copy_from_slice(&word.to_le_bytes());
        b
    };
    accepted(&inode(&flags(3, 0, 6, 0o100644, 0)));
    refused(
        &inode(&flags(4, 0, 6, 0o100644, 0)),
        ErrorId::INODE_STR_HASH_INVALID,
    );
    for start in [5, 7] {
        refused(
            &inode(&flags(3, 0, start, 0o100644, 0)),
            ErrorId::INODE_V3_FIELDS_START_BAD,
        );
    }
    refused(
        &inode(&flags(3, 1, 6, 0o100644, 0)),
        ErrorId::INODE_UNPACK_ERROR,
    );
    let mut k = inode(&flags(3, 0, 6, 0o100644, 0));
    k.key.pos.offset = 4095;
    refused(&k, ErrorId::INODE_POS_BLOCKDEV_RANGE);
    k.key.pos = Bpos::with_snapshot(1, 4096, 1);
    refused(&k, ErrorId::INODE_POS_INODE_NONZERO);
    k.key.key_type = KeyType::INODE_GENERATION;
    refused(&k, ErrorId::INODE_POS_INODE_NONZERO);

    let mut r = Rng::new(32);
    let mut good = generate::inode(&mut r);
    good.nlink = 0;
    good.mode.0 = 0o040755;
    good.subvol = 2;
    let key = |i: &keys::inode::Inode| {
        let pos = Bpos::with_snapshot(0, i.inum, i.snapshot);
        let value = build(|w| i.build(w));
        Owned::new(BtreeId::INODES, KeyType::INODE_V3, pos, 0, value)
    };
    accepted(&key(&good));
    let mut i = good;
    i.flags = keys::inode::InodeFlags::UNLINKED;
    accepted(&key(&i));
    i.nlink = 1;
    refused(&key(&i), ErrorId::INODE_UNLINKED_BUT_NLINK_NONZERO);
    let mut i = good;
    i.mode.0 = 0o100755;
    refused(&key(&i), ErrorId::INODE_SUBVOL_ROOT_BUT_NOT_DIR);
    let mut i = good;
    i.options.data_checksum = 5;
    refused(&key(&i), ErrorId::INODE_CHECKSUM_TYPE_INVALID);
    let mut i = good;
    for bad in [4, 0x10] {
        i.options.compression = bad + 1;
        refused(&key(&i), ErrorId::INODE_COMPRESSION_TYPE_INVALID);
    }
    i.options.compression = 0xf3 + 1;
    accepted(&key(&i));
}

#[test]
fn directory_entries() {
    let key = |bytes: &[u8]| {
        let pos = Bpos::with_snapshot(4096, 7, 1);
        Owned::new(BtreeId::DIRENTS, KeyType::DIRENT, pos, 0, words(bytes))
    };
    let named = |target: u64, name: &[u8]| {
        let mut b = target.to_le_bytes().to_vec();
        b.push(8);
        b.extend(name);
        key(&b)
    };
    accepted(&named(5000, b"a"));
    refused(&named(5000, b""), ErrorId::DIRENT_EMPTY_NAME);
    refused(&named(5000, b"."), ErrorId::DIRENT_NAME_DOT_OR_DOTDOT);
    refused(&named(5000, b".."), ErrorId::DIRENT_NAME_DOT_OR_DOTDOT);
    accepted(&named(5000, b"..."));
    refused(&named(5000, b"a/b"), ErrorId::DIRENT_NAME_HAS_SLASH);
    refused(&named(5000, b"a\0b"), ErrorId::DIRENT_NAME_EMBEDDED_NUL);
    refused(&named(4096, b"a"), ErrorId::DIRENT_TO_ITSELF);
    accepted(&named(5000, &[b'x'; 512]));
    let long = named(5000, &[b'x'; 513]);
    assert_eq!(read(&long), None);
    assert_eq!(commit(&long), Some(ErrorId::DIRENT_NAME_TOO_LONG));
    // Zeros before the last word are part of the name, and the name cannot have them.
    let mut k = named(5000, b"a");
    k.value.push(0);
    k.key.u64s += 1;
    let id = read(&k);
    assert!(
        id == Some(ErrorId::DIRENT_VAL_TOO_BIG) || id == Some(ErrorId::DIRENT_NAME_EMBEDDED_NUL)
    );
}

#[test]
fn attributes() {
    let key = |bytes: &[u8]| {
        let pos = Bpos::with_snapshot(4096, 7, 1);
        Owned::new(BtreeId::XATTRS, KeyType::XATTR, pos, 0, words(bytes))
    };
    accepted(&key(b"\0\x01\x03\0nabc"));
    refused(&key(b"\0\x01\x04\0nabc"), ErrorId::XATTR_VAL_SIZE_TOO_SMALL);
    refused(&key(b"\0\xff\x00\0nabc"), ErrorId::XATTR_VAL_SIZE_TOO_SMALL);
    refused(&key(b"\x05\x01\x03\0nabc"), ErrorId::XATTR_INVALID_TYPE);
    refused(
        &key(b"\0\x02\x02\0n\0bc"),
        ErrorId::XATTR_NAME_INVALID_CHARS,
    );
    let mut long = b"\0\x01\x03\0nabc".to_vec();
    long.extend([0; 8]);
    accepted(&key(&long));
    long.extend([0; 8]);
    refused(&key(&long), ErrorId::XATTR_VAL_SIZE_TOO_BIG);
}

#[test]
fn subvolumes_and_snapshots() {
    let mut r = Rng::new(33);
    let good = generate::subvolume(&mut r);
    accepted(&good);
    for offset in [0, 1 << 31] {
        let mut k = good.clone();
        k.key.pos.offset = offset;
        refused(&k, ErrorId::SUBVOL_POS_BAD);
    }
    let mut k = good.clone();
    k.value[0] &= 0xffff_ffff;
    refused(&k, ErrorId::SUBVOL_SNAPSHOT_BAD);
    let mut k = good.clone();
    k.value[1] = 0;
    refused(&k, ErrorId::SUBVOL_INODE_BAD);
    // Short forms are fine, down to a point.
    let mut k = good;
    k.value.truncate(2);
    k.key.u64s = 7;
    accepted(&k);

    let snapshot = |parent: u32, children: [u32; 2], skip: [u32; 3]| {
        let s = keys::snapshot::Snapshot {
            parent,
            children,
            skip,
            ..Default::default()
        };
        let value = build(|w| s.build(w));
        let pos = Bpos::new(0, 1000);
        Owned::new(BtreeId::SNAPSHOTS, KeyType::SNAPSHOT, pos, 0, value)
    };
    accepted(&snapshot(2000, [900, 800], [2000, 2000, 2001]));
    accepted(&snapshot(2000, [900, 0], [0, 0, 2000]));
    let good = snapshot(0, [0, 0], [0, 0, 0]);
    accepted(&good);
    for offset in [0, 1 << 32] {
        let mut k = good.clone();
        k.key.pos.offset = offset;
        refused(&k, ErrorId::SNAPSHOT_POS_BAD);
    }
    refused(
        &snapshot(1000, [0, 0], [0; 3]),
        ErrorId::SNAPSHOT_PARENT_BAD,
    );
    refused(
        &snapshot(2000, [800, 900], [0; 3]),
        ErrorId::SNAPSHOT_CHILDREN_NOT_NORMALIZED,
    );
    refused(
        &snapshot(2000, [900, 900], [0; 3]),
        ErrorId::SNAPSHOT_CHILD_DUPLICATE,
    );
    refused(
        &snapshot(2000, [1000, 900], [0; 3]),
        ErrorId::SNAPSHOT_CHILD_BAD,
    );
    refused(
        &snapshot(2000, [0, 0], [2001, 2000, 2002]),
        ErrorId::SNAPSHOT_SKIPLIST_NOT_NORMALIZED,
    );
    refused(
        &snapshot(2000, [0, 0], [0, 1999, 2000]),
        ErrorId::SNAPSHOT_SKIPLIST_BAD,
    );
    let mut k = generate::snapshot_tree(&mut r);
    k.key.pos.offset = 0;
    refused(&k, ErrorId::SNAPSHOT_TREE_POS_BAD);
}
