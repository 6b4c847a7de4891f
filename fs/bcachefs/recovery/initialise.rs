// SPDX-License-Identifier: GPL-2.0
//! Making a formatted device a filesystem: the first mount writes what every filesystem has.
//!
//! All of it is lost if the machine stops in the middle: superblocks are not written before it is done, and the next mount starts
//! over.

use bcachefs_format::{
    bkey::BKEY_U64S,
    features::{Compat, Features},
    keys::{
        dirent::{Dirent, DirentTarget},
        inode::{FileType, Inode, Mode, INODE_WORDS_MAX, ROOT_INUM},
        snapshot::{Snapshot, SnapshotFlags},
        snapshot_tree::SnapshotTree,
        str_hash::{StrHashInfo, StrHashType},
        subvolume::{Subvolume, ROOT_SUBVOL},
        BuildError,
    },
    sb::MemberState,
    Bkey, Bpos, BtreeId, KeyRef, KeyType,
};

use super::passes;
use crate::{
    alloc::mark,
    btree::{
        trans::update::{CommitFlags, UpdateFlags},
        Attempt, Btree, TransError,
    },
    fs::str_hash::KernelCrc,
    fs_info,
    journal::engine::Journal,
    sb::{Devices, LiveSuper, Super},
    util::error::{Error, Result},
};

/// The snapshot that the files of a new filesystem are in.
const ROOT_SNAPSHOT: u32 = u32::MAX;
/// The number of the only tree of snapshots.
const ROOT_TREE: u32 = 1;
/// The directory where files go that have lost their names.
const LOST_FOUND: &[u8] = b"lost+found";
const LOST_FOUND_INUM: u64 = ROOT_INUM + 1;

/// Most words of a value written here.
const VALUE_U64S: usize = INODE_WORDS_MAX;

const FLAGS: CommitFlags = CommitFlags::INITIALISING;

/// Initialises the filesystem: the journal runs, btrees are empty, changes are possible. At the end superblocks are written and it
/// is a filesystem. Sleeps.
pub fn initialise(
    sup: &Super,
    live: &LiveSuper,
    devices: &Devices,
    btree: &Btree,
    journal: &Journal,
) -> Result {
    fs_info!(sup, "initialising a new filesystem");
    for device in devices.iter() {
        if device.member.state() == MemberState::RW {
            mark::init_device_usage(btree, device)?;
        }
    }
    passes::run(live, devices, btree)?;
    btree.commit(None, FLAGS, records)?;
    let root = Directories::new(sup)?;
    btree.commit(None, FLAGS, |t| root.create(t))?;
    journal.flush(journal.cur_seq())?;
    live.change(|image| {
        image.edit_flags(|flags| {
            flags.set_initialized(1);
            flags.set_clean(0);
            flags.set_version_upgrade_complete(sup.version.0.into());
        })?;
        image.edit_features(Features::ON_CREATE, Features(0))?;
        image.set_compat(Compat::ON_CREATE)
    })
}

/// Makes `key` what is at its position.
#[inline(never)]
fn put(
    t: &mut Attempt<'_>,
    btree: BtreeId,
    key_type: KeyType,
    pos: Bpos,
    build: impl FnOnce(&mut [u64]) -> core::result::Result<usize, BuildError>,
) -> core::result::Result<(), TransError> {
    let mut words = [0; VALUE_U64S];
    let n = build(&mut words).map_err(|_| Error::BtreeKeyInvalid)?;
    let value = words.get(..n).ok_or(Error::BtreeKeyInvalid)?;
    let u64s = u8::try_from(usize::from(BKEY_U64S) + n).map_err(|_| Error::BtreeKeyInvalid)?;
    let key = Bkey {
        key_type,
        u64s,
        ..Bkey::deleted(pos)
    };
    t.insert(btree, KeyRef { key, value }, UpdateFlags::default())
}

/// The root subvolume, the snapshot it is, and the tree of that.
#[inline(never)]
fn records(t: &mut Attempt<'_>) -> core::result::Result<(), TransError> {
    let tree = SnapshotTree {
        master_subvol: ROOT_SUBVOL,
        root_snapshot: ROOT_SNAPSHOT,
    };
    let snapshot = Snapshot {
        flags: SnapshotFlags::SUBVOL,
        subvol: ROOT_SUBVOL,
        tree: ROOT_TREE,
        ..Snapshot::default()
    };
    let subvolume = Subvolume {
        snapshot: ROOT_SNAPSHOT,
        inode: ROOT_INUM,
        ..Subvolume::default()
    };
    let at = |id: u32| Bpos::new(0, id.into());
    put(t, BtreeId::SNAPSHOT_TREES, KeyType::SNAPSHOT_TREE, at(ROOT_TREE), |w| tree.build(w))?;
    put(t, BtreeId::SNAPSHOTS, KeyType::SNAPSHOT, at(ROOT_SNAPSHOT), |w| snapshot.build(w))?;
    put(t, BtreeId::SUBVOLUMES, KeyType::SUBVOLUME, at(ROOT_SUBVOL), |w| subvolume.build(w))
}

/// The root directory and what is in it.
struct Directories {
    root: Inode,
    lost_found: Inode,
    entry: Bpos,
}

impl Directories {
    fn new(sup: &Super) -> Result<Self> {
        let options = sup.raw()?.options()?;
        let now = sup.now();
        let new = |inum, permissions: u16| Inode {
            inum,
            snapshot: ROOT_SNAPSHOT,
            hash_seed: kfs::random::u64(),
            str_hash: StrHashType::for_new(options.str_hash),
            mode: Mode(u16::from(FileType::DIR.0) << 12 | permissions),
            atime: now,
            ctime: now,
            mtime: now,
            otime: now,
            ..Inode::default()
        };
        let mut root = new(ROOT_INUM, 0o755);
        root.subvol = ROOT_SUBVOL;
        // Directories in it; what every directory has does not count.
        root.nlink = 1;
        let mut lost_found = new(LOST_FOUND_INUM, 0o700);
        let hash = StrHashInfo::new(&root).ok_or(Error::InodeInvalid)?;
        let offset = hash.dirent(LOST_FOUND, &KernelCrc);
        lost_found.dir = ROOT_INUM;
        lost_found.dir_offset = offset;
        Ok(Directories {
            root,
            lost_found,
            entry: Bpos::with_snapshot(ROOT_INUM, offset, ROOT_SNAPSHOT),
        })
    }

    #[inline(never)]
    fn create(&self, t: &mut Attempt<'_>) -> core::result::Result<(), TransError> {
        for inode in [&self.root, &self.lost_found] {
            let pos = Bpos::with_snapshot(0, inode.inum, ROOT_SNAPSHOT);
            put(t, BtreeId::INODES, KeyType::INODE_V3, pos, |w| inode.build(w))?;
        }
        let entry = Dirent {
            target: DirentTarget::Inode(LOST_FOUND_INUM),
            d_type: FileType::DIR,
            name: LOST_FOUND,
        };
        put(t, BtreeId::DIRENTS, KeyType::DIRENT, self.entry, |w| entry.build(w))
    }
}
