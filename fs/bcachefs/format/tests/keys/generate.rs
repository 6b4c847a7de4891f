// SPDX-License-Identifier: GPL-2.0
//! Valid keys of every type, from a seed.

use bcachefs_format::keys::acl::{Acl, AclEntry, AclTag};
use bcachefs_format::keys::cookie::Cookie;
use bcachefs_format::keys::dirent::{Dirent, DirentTarget};
use bcachefs_format::keys::inode::{
    FileType, Inode, InodeFlags, InodeGeneration, InodeOpt, InodeOptions, Mode,
};
use bcachefs_format::keys::logged_op::{FinsertState, LoggedOpFinsert, LoggedOpTruncate};
use bcachefs_format::keys::snapshot::{Snapshot, SnapshotFlags};
use bcachefs_format::keys::snapshot_tree::SnapshotTree;
use bcachefs_format::keys::str_hash::StrHashType;
use bcachefs_format::keys::subvolume::{Subvolume, SubvolumeFlags};
use bcachefs_format::keys::xattr::{Xattr, XattrType};
use bcachefs_format::{Bpos, BtreeId, KeyType};

use super::owned::{build, Owned};
use super::rng::Rng;

mod data;
mod space;

pub use data::*;
pub use space::*;

/// A valid key of a random type that is written today.
pub fn any(r: &mut Rng) -> Owned {
    const MAKERS: &[fn(&mut Rng) -> Owned] = &[
        empty,
        cookie,
        btree_ptr_v2,
        extent,
        extent,
        extent,
        reservation,
        inode_v3,
        inode_v3,
        inode_generation,
        dirent,
        dirent,
        xattr,
        xattr_acl,
        alloc,
        quota,
        stripe,
        reflink_p,
        reflink_v,
        inline_data,
        indirect_inline_data,
        subvolume,
        snapshot,
        lru,
        backpointer,
        bucket_gens,
        snapshot_tree,
        truncate,
        finsert,
        accounting,
    ];
    r.pick(MAKERS)(r)
}

fn snap_id(r: &mut Rng) -> u32 {
    r.range(1, u32::MAX.into()) as u32
}

/// The end position of a file's range of `size` sectors.
fn file_pos(r: &mut Rng, size: u32) -> Bpos {
    let offset = u64::from(size) + r.magnitude(50);
    Bpos::with_snapshot(4096 + r.magnitude(60), offset, snap_id(r))
}

pub fn empty(r: &mut Rng) -> Owned {
    let (btree, key_type, size) = *r.pick(&[
        (BtreeId::EXTENTS, KeyType::DELETED, 0),
        (BtreeId::EXTENTS, KeyType::WHITEOUT, 0),
        (BtreeId::EXTENTS, KeyType::ERROR, 8),
        (BtreeId::DIRENTS, KeyType::HASH_WHITEOUT, 0),
        (BtreeId::DELETED_INODES, KeyType::SET, 0),
    ]);
    let pos = file_pos(r, size);
    Owned::new(btree, key_type, pos, size, vec![])
}

pub fn cookie(r: &mut Rng) -> Owned {
    let v = Cookie { cookie: r.next() };
    let pos = Bpos::with_snapshot(r.next(), u64::MAX - 1, u32::MAX);
    Owned::new(
        BtreeId::REBALANCE_WORK,
        KeyType::COOKIE,
        pos,
        0,
        build(|w| v.build(w)),
    )
}

/// An inode with fields of all magnitudes.
pub fn inode(r: &mut Rng) -> Inode {
    let file_type = *r.pick(&[
        FileType::FIFO,
        FileType::CHR,
        FileType::DIR,
        FileType::BLK,
        FileType::REG,
        FileType::LNK,
        FileType::SOCK,
    ]);
    let unlinked = r.below(4) == 0;
    let mut flags = InodeFlags(r.below(1 << 10) as u32).without(InodeFlags::UNLINKED);
    if unlinked {
        flags = flags | InodeFlags::UNLINKED;
    }
    let mut options = InodeOptions::default();
    for opt in InodeOpt::ALL {
        let max = match opt {
            InodeOpt::DataChecksum | InodeOpt::Compression => 3,
            InodeOpt::Project => u32::MAX - 1,
            InodeOpt::BackgroundCompression | InodeOpt::DataReplicas | InodeOpt::Nocow => 254,
            _ => 65534,
        };
        if r.flip() {
            assert!(options.set(opt, Some(r.below(u64::from(max) + 1) as u32)));
        }
    }
    options.fields_set = r.magnitude(16) as u16;
    let subvol = if file_type == FileType::DIR {
        r.magnitude(31) as u32
    } else {
        0
    };
    Inode {
        inum: 4096 + r.magnitude(60),
        snapshot: snap_id(r),
        journal_seq: r.magnitude(64),
        hash_seed: r.next(),
        flags,
        str_hash: StrHashType(r.below(4) as u8),
        mode: Mode(file_type.to_mode().0 | r.below(0o10000) as u16),
        size: r.magnitude(64),
        sectors: r.magnitude(64),
        version: r.magnitude(64),
        atime: r.magnitude(64) as i64,
        ctime: -(r.magnitude(62) as i64),
        mtime: r.magnitude(63) as i64,
        otime: r.magnitude(62) as i64,
        uid: r.magnitude(32) as u32,
        gid: r.magnitude(32) as u32,
        nlink: if unlinked { 0 } else { r.magnitude(32) as u32 },
        generation: r.magnitude(32) as u32,
        dev: r.magnitude(32) as u32,
        options,
        dir: r.magnitude(64),
        dir_offset: r.magnitude(64),
        subvol,
        parent_subvol: r.magnitude(32) as u32,
    }
}

pub fn inode_v3(r: &mut Rng) -> Owned {
    let v = inode(r);
    let pos = Bpos::with_snapshot(0, v.inum, v.snapshot);
    let value = build(|w| v.build(w));
    Owned::new(BtreeId::INODES, KeyType::INODE_V3, pos, 0, value)
}

pub fn inode_generation(r: &mut Rng) -> Owned {
    let v = InodeGeneration {
        generation: r.next() as u32,
    };
    let pos = Bpos::with_snapshot(0, 4096 + r.magnitude(60), snap_id(r));
    let value = build(|w| v.build(w));
    Owned::new(BtreeId::INODES, KeyType::INODE_GENERATION, pos, 0, value)
}

pub fn dirent(r: &mut Rng) -> Owned {
    let subvol = r.below(4) == 0;
    let most = *r.pick(&[24, 512]);
    let len = r.range(1, most) as usize;
    let mut name = r.name(len);
    if name == b"." || name == b".." {
        name = b"dots".to_vec();
    }
    let v = Dirent {
        target: if subvol {
            DirentTarget::Subvol {
                child: r.next() as u32,
                parent: r.next() as u32,
            }
        } else {
            DirentTarget::Inode(r.next() | 1)
        },
        d_type: if subvol {
            FileType::SUBVOL
        } else {
            *r.pick(&[FileType::REG, FileType::DIR, FileType::LNK, FileType::FIFO])
        },
        name: &name,
    };
    // Even, so that no entry leads to its own directory.
    let pos = Bpos::with_snapshot(r.next() & !1, r.next() >> 1, snap_id(r));
    let value = build(|w| v.build(w));
    Owned::new(BtreeId::DIRENTS, KeyType::DIRENT, pos, 0, value)
}

pub fn xattr(r: &mut Rng) -> Owned {
    let len = r.range(1, 255) as usize;
    let name = r.name(len);
    let len = r.magnitude(10) as usize;
    let content = r.bytes(len);
    let v = Xattr {
        xattr_type: *r.pick(&[XattrType::USER, XattrType::TRUSTED, XattrType::SECURITY]),
        name: &name,
        value: &content,
    };
    let pos = Bpos::with_snapshot(r.next(), r.next() >> 1, snap_id(r));
    let value = build(|w| v.build(w));
    Owned::new(BtreeId::XATTRS, KeyType::XATTR, pos, 0, value)
}

/// A list with every kind of entry.
pub fn acl_entries(r: &mut Rng) -> Vec<AclEntry> {
    let id = |r: &mut Rng| r.next() as u32;
    let tags = [
        AclTag::UserObj,
        AclTag::User(id(r)),
        AclTag::User(id(r)),
        AclTag::GroupObj,
        AclTag::Group(id(r)),
        AclTag::Mask,
        AclTag::Other,
    ];
    tags.into_iter()
        .filter(|_| r.flip())
        .collect::<Vec<_>>()
        .into_iter()
        .map(|tag| AclEntry {
            tag,
            perm: r.below(8) as u16,
        })
        .collect()
}

pub fn xattr_acl(r: &mut Rng) -> Owned {
    let mut content = [0; 64];
    let n = Acl::build(acl_entries(r), &mut content).unwrap();
    let v = Xattr {
        xattr_type: *r.pick(&[XattrType::POSIX_ACL_ACCESS, XattrType::POSIX_ACL_DEFAULT]),
        name: b"",
        value: &content[..n],
    };
    let pos = Bpos::with_snapshot(r.next(), r.next() >> 1, snap_id(r));
    let value = build(|w| v.build(w));
    Owned::new(BtreeId::XATTRS, KeyType::XATTR, pos, 0, value)
}

pub fn subvolume(r: &mut Rng) -> Owned {
    let v = Subvolume {
        flags: SubvolumeFlags(r.below(8) as u32),
        snapshot: snap_id(r),
        inode: r.range(1, u64::MAX),
        creation_parent: r.next() as u32,
        fs_path_parent: r.next() as u32,
        otime: r.next() as i64,
    };
    let pos = Bpos::new(0, r.range(1, i32::MAX as u64));
    let value = build(|w| v.build(w));
    Owned::new(BtreeId::SUBVOLUMES, KeyType::SUBVOLUME, pos, 0, value)
}

pub fn snapshot(r: &mut Rng) -> Owned {
    let id = r.range(1000, u64::from(u32::MAX) - 1000) as u32;
    let parent = id + r.range(1, 100) as u32;
    let mut skip = [0; 3];
    if r.flip() {
        skip = [parent, parent + r.below(9) as u32, parent + 10];
    }
    let mut children = [0, 0];
    if r.flip() {
        children = [id - r.range(1, 9) as u32, id - r.range(10, 20) as u32];
    }
    let v = Snapshot {
        flags: SnapshotFlags(r.below(4) as u32),
        parent,
        children,
        subvol: r.next() as u32,
        tree: r.next() as u32,
        depth: r.next() as u32,
        skip,
        btime: r.next() as i64,
    };
    let pos = Bpos::new(0, id.into());
    let value = build(|w| v.build(w));
    Owned::new(BtreeId::SNAPSHOTS, KeyType::SNAPSHOT, pos, 0, value)
}

pub fn snapshot_tree(r: &mut Rng) -> Owned {
    let v = SnapshotTree {
        master_subvol: r.next() as u32,
        root_snapshot: r.next() as u32,
    };
    let pos = Bpos::new(0, r.range(1, u32::MAX.into()));
    let value = build(|w| v.build(w));
    Owned::new(
        BtreeId::SNAPSHOT_TREES,
        KeyType::SNAPSHOT_TREE,
        pos,
        0,
        value,
    )
}

pub fn truncate(r: &mut Rng) -> Owned {
    let v = LoggedOpTruncate {
        subvol: r.next() as u32,
        inum: r.next(),
        new_i_size: r.next(),
    };
    let pos = Bpos::new(0, r.range(1, 9));
    let value = build(|w| v.build(w));
    Owned::new(
        BtreeId::LOGGED_OPS,
        KeyType::LOGGED_OP_TRUNCATE,
        pos,
        0,
        value,
    )
}

pub fn finsert(r: &mut Rng) -> Owned {
    let v = LoggedOpFinsert {
        state: FinsertState(r.below(3) as u8),
        subvol: r.next() as u32,
        inum: r.next(),
        dst_offset: r.next(),
        src_offset: r.next(),
        pos: r.next(),
    };
    let pos = Bpos::new(0, r.range(1, 9));
    let value = build(|w| v.build(w));
    Owned::new(
        BtreeId::LOGGED_OPS,
        KeyType::LOGGED_OP_FINSERT,
        pos,
        0,
        value,
    )
}
