// SPDX-License-Identifier: GPL-2.0
//! Directory entries: by name, and all of them in order.
//!
//! The order is that of the keys, so an entry's offset is a position that stays valid for as long as the
//! entry exists: a listing that goes on from a position neither repeats nor misses entries that
//! were there all along. Offsets beyond what a file position can hold are not listed; no hash
//! reaches there.

pub mod edit;

pub use edit::{is_empty, Directory, Target};

use core::ops::Range;

use bcachefs_format::{
    bkey::KeyType,
    btree_id::BtreeId,
    keys::{
        dirent::{Dirent, DirentTarget, NAME_MAX},
        inode::{FileType, Inode},
        str_hash::{StrHashInfo, DIRENT_OFFSET_MIN},
    },
    pos::Bpos,
};
use kernel::prelude::*;

use super::{
    str_hash::{self, KernelCrc, Slot},
    InodeId,
};
use crate::{
    btree::{Attempt, IterFlags, TransError},
    snapshots,
    util::error::Error,
};

/// Most entries of one batch.
const BATCH_ENTRIES: usize = 128;

/// Bytes of names after which a batch ends.
const BATCH_BYTES: usize = 4096;

/// The highest position of an entry that can be listed.
const OFFSET_MAX: u64 = i64::MAX as u64 - 1;

/// The inode that `name` in the directory `dir`, whose names are hashed by `hash`, leads to.
///
/// `None` if there is no such entry. That the inode exists is not checked.
pub fn lookup(
    t: &mut Attempt<'_>,
    dir: InodeId,
    hash: &StrHashInfo,
    name: &[u8],
) -> Result<Option<InodeId>, TransError> {
    if name.len() > NAME_MAX {
        return Err(Error::NameTooLong.into());
    }
    let snapshot = snapshots::subvolume(t, dir.subvol)?.snapshot;
    let start = hash.dirent(name, &KernelCrc);
    let found = str_hash::find(t, BtreeId::DIRENTS, dir.inum, snapshot, start, |key| {
        if key.key.key_type != KeyType::DIRENT {
            return Ok(Slot::Other);
        }
        let entry = Dirent::parse(key).map_err(Error::from)?;
        Ok(if !entry.is_visible_in(dir.subvol) {
            Slot::Empty
        } else if entry.name == name {
            Slot::Match(entry.target)
        } else {
            Slot::Other
        })
    })?;
    match found {
        None => Ok(None),
        Some(DirentTarget::Inode(inum)) => Ok(Some(InodeId {
            subvol: dir.subvol,
            inum,
        })),
        Some(DirentTarget::Subvol { child, .. }) => {
            let inum = snapshots::subvolume(t, child)?.root_inum;
            Ok(Some(InodeId {
                subvol: child,
                inum,
            }))
        }
    }
}

/// An entry of a listing.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its position.
    pub offset: u64,
    /// Number of the inode it leads to.
    pub inum: u64,
    /// Type of that inode; roots of subvolumes are directories.
    pub file_type: FileType,
    /// Where in the batch's names its name is.
    name: Range<usize>,
}

/// Some entries of a directory that follow each other.
#[derive(Default)]
pub struct Batch {
    entries: KVec<Entry>,
    names: KVec<u8>,
    /// Subvolumes among the entries, whose inode numbers are to be looked up: index and subvolume.
    subvols: KVec<(usize, u32)>,
    next: Option<u64>,
}

impl Batch {
    /// The entries, by position, with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&Entry, &[u8])> {
        self.entries.iter().map(|e| {
            let name = self.names.get(e.name.clone()).unwrap_or(&[]);
            (e, name)
        })
    }

    /// Where the next batch begins; `None` after the last entry.
    pub fn next(&self) -> Option<u64> {
        self.next
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.names.clear();
        self.subvols.clear();
        self.next = None;
    }

    fn push(&mut self, offset: u64, entry: &Dirent<'_>) -> Result<(), TransError> {
        let start = self.names.len();
        self.names.extend_from_slice(entry.name, GFP_KERNEL)?;
        let inum = match entry.target {
            DirentTarget::Inode(inum) => inum,
            DirentTarget::Subvol { child, .. } => {
                self.subvols.push((self.entries.len(), child), GFP_KERNEL)?;
                0
            }
        };
        self.entries.push(
            Entry {
                offset,
                inum,
                file_type: entry.d_type.user_visible(),
                name: start..self.names.len(),
            },
            GFP_KERNEL,
        )?;
        Ok(())
    }
}

/// Reads into `out` the next entries of the directory `dir` from position `from` on.
pub fn list(
    t: &mut Attempt<'_>,
    dir: InodeId,
    from: u64,
    out: &mut Batch,
) -> Result<(), TransError> {
    out.clear();
    let snapshot = snapshots::subvolume(t, dir.subvol)?.snapshot;
    let from = from.max(DIRENT_OFFSET_MIN);
    if from > OFFSET_MAX {
        return Ok(());
    }
    let start = Bpos::with_snapshot(dir.inum, from, snapshot);
    let end = Bpos::with_snapshot(dir.inum, OFFSET_MAX, snapshot);
    let mut iter = t.iter(BtreeId::DIRENTS, start, IterFlags::PREFETCH);
    while let Some(key) = iter.peek_upto(t, end)? {
        let offset = key.key.pos.offset;
        if out.entries.len() >= BATCH_ENTRIES || out.names.len() >= BATCH_BYTES {
            out.next = Some(offset);
            break;
        }
        if key.key.key_type == KeyType::DIRENT {
            let entry = Dirent::parse(key).map_err(Error::from)?;
            if entry.is_visible_in(dir.subvol) {
                out.push(offset, &entry)?;
            }
        }
        if !iter.advance() {
            break;
        }
    }
    drop(iter);
    resolve_subvols(t, out)
}

/// Puts in the inode numbers of subvolumes' roots. An entry that leads to no subvolume is left out,
/// as a lookup of it would fail.
fn resolve_subvols(t: &mut Attempt<'_>, out: &mut Batch) -> Result<(), TransError> {
    for &(index, subvol) in out.subvols.iter() {
        let inum = match snapshots::subvolume(t, subvol) {
            Ok(info) => info.root_inum,
            Err(TransError::Fs(Error::SubvolumeMissing)) => 0,
            Err(e) => return Err(e),
        };
        if let Some(entry) = out.entries.get_mut(index) {
            entry.inum = inum;
        }
    }
    if !out.subvols.is_empty() {
        out.entries.retain(|e| e.inum != 0);
    }
    Ok(())
}

/// The name in the directory `dir` of the inode `child`, whose key is `inode`.
///
/// Tried first is the entry that the inode itself names; then the directory is searched, for the inode may
/// have other links.
///
/// # Errors
///
/// [`Error::DirentMissing`] if the directory has no entry for it.
pub fn name_of(
    t: &mut Attempt<'_>,
    dir: InodeId,
    child: InodeId,
    inode: &Inode,
) -> Result<KVec<u8>, TransError> {
    let snapshot = snapshots::subvolume(t, dir.subvol)?.snapshot;
    let leads_to_child = |entry: &Dirent<'_>| {
        entry.is_visible_in(dir.subvol)
            && match entry.target {
                DirentTarget::Inode(inum) => inum == child.inum && dir.subvol == child.subvol,
                DirentTarget::Subvol { child: subvol, .. } => subvol == child.subvol,
            }
    };
    let mut name = KVec::new();
    if inode.dir == dir.inum {
        let pos = Bpos::with_snapshot(dir.inum, inode.dir_offset, snapshot);
        if let Some(key) = t.get(BtreeId::DIRENTS, pos)? {
            if key.key.key_type == KeyType::DIRENT {
                let entry = Dirent::parse(key).map_err(Error::from)?;
                if leads_to_child(&entry) {
                    name.extend_from_slice(entry.name, GFP_KERNEL)?;
                    return Ok(name);
                }
            }
        }
    }
    let start = Bpos::with_snapshot(dir.inum, 0, snapshot);
    let end = Bpos::with_snapshot(dir.inum, u64::MAX, snapshot);
    let mut iter = t.iter(BtreeId::DIRENTS, start, IterFlags::PREFETCH);
    while let Some(key) = iter.peek_upto(t, end)? {
        if key.key.key_type == KeyType::DIRENT {
            let entry = Dirent::parse(key).map_err(Error::from)?;
            if leads_to_child(&entry) {
                name.extend_from_slice(entry.name, GFP_KERNEL)?;
                return Ok(name);
            }
        }
        if !iter.advance() {
            break;
        }
    }
    Err(Error::DirentMissing.into())
}
