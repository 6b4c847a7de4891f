// SPDX-License-Identifier: GPL-2.0
//! Looking up subvolumes.

use crate::{
    btree::{Attempt, TransError},
    util::error::Error,
};
use bcachefs_format::{
    keys::subvolume::{Subvolume, SubvolumeFlags},
    Bpos, BtreeId, KeyType,
};

/// What is known of a subvolume.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct SubvolumeInfo {
    /// Its number.
    pub id: u32,
    /// The snapshot its files are in now.
    pub snapshot: u32,
    /// Inode number of its root directory.
    pub root_inum: u64,
    /// Flags: read-only, is a snapshot, is being deleted.
    pub flags: SubvolumeFlags,
    /// The subvolume it is a snapshot of, or 0.
    pub creation_parent: u32,
    /// The subvolume its directory entry is in; 0 for the root subvolume.
    pub fs_path_parent: u32,
}

/// The subvolume with number `id`. May sleep.
///
/// # Errors
///
/// [`Error::SubvolumeMissing`] if there is none, [`Error::MetadataInvalid`] if its key is damaged.
pub fn subvolume(t: &mut Attempt<'_>, id: u32) -> Result<SubvolumeInfo, TransError> {
    let key = t.get(BtreeId::SUBVOLUMES, Bpos::new(0, id.into()))?;
    let key = key
        .filter(|k| k.key.key_type == KeyType::SUBVOLUME)
        .ok_or(Error::SubvolumeMissing)?;
    let s = Subvolume::parse(key)?;
    Ok(SubvolumeInfo {
        id,
        snapshot: s.snapshot,
        root_inum: s.inode,
        flags: s.flags,
        creation_parent: s.creation_parent,
        fs_path_parent: s.fs_path_parent,
    })
}
