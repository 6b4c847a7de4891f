// SPDX-License-Identifier: GPL-2.0
//! Inodes by number.

pub mod delete;
pub mod edit;
pub mod number;
pub mod state;

pub use edit::{edit, Edit};
pub use number::Numbers;
pub use state::{Changed, State};

use bcachefs_format::{
    bkey::{KeyRef, KeyType},
    btree_id::BtreeId,
    keys::inode::{Inode, InodeFlags},
    pos::Bpos,
};

use super::InodeId;
use crate::{
    btree::{Attempt, TransError},
    snapshots,
    util::error::Error,
};

/// The inode `id`.
///
/// # Errors
///
/// [`Error::InodeMissing`] if there is none in the subvolume's snapshot, [`Error::InodeInvalid`] if
/// it cannot be made sense of, [`Error::SubvolumeMissing`].
pub fn find(t: &mut Attempt<'_>, id: InodeId) -> Result<Inode, TransError> {
    let snapshot = snapshots::subvolume(t, id.subvol)?.snapshot;
    let pos = Bpos::with_snapshot(0, id.inum, snapshot);
    let Some(key) = t.get(BtreeId::INODES, pos)? else {
        return Err(Error::InodeMissing.into());
    };
    Ok(parse(key)?)
}

/// The inode that `key` is.
fn parse(key: KeyRef<'_>) -> Result<Inode, Error> {
    match key.key.key_type {
        KeyType::INODE | KeyType::INODE_V2 | KeyType::INODE_V3 => {}
        // Nodes have it in the place of an inode that breaks a rule.
        KeyType::ERROR => return Err(Error::InodeInvalid),
        // What is left of a deleted inode.
        _ => return Err(Error::InodeMissing),
    }
    let inode = Inode::parse(key).map_err(|_| Error::InodeInvalid)?;
    if !inode.mode.file_type().is_inode_type() {
        return Err(Error::InodeInvalid);
    }
    Ok(inode)
}

/// The directory that holds the entry of `inode`, which was reached as `id`.
///
/// The filesystem's root is its own parent. For a file with several links it is the directory of
/// one of them.
///
/// # Errors
///
/// [`Error::InodeMissing`] if the inode does not say.
pub fn parent(id: InodeId, inode: &Inode) -> Result<InodeId, Error> {
    if id == InodeId::ROOT {
        return Ok(id);
    }
    let subvol = if inode.is_subvol_root() {
        inode.parent_subvol
    } else {
        id.subvol
    };
    if inode.dir == 0 || subvol == 0 {
        return Err(Error::InodeMissing);
    }
    Ok(InodeId {
        subvol,
        inum: inode.dir,
    })
}

/// Whether no name leads to `inode` any more.
pub fn is_unlinked(inode: &Inode) -> bool {
    inode.flags.contains(InodeFlags::UNLINKED)
}
