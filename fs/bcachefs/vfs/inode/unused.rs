// SPDX-License-Identifier: GPL-2.0
//! Inodes that nobody uses any more.

pub(in crate::vfs) use super::attributes::write_all_times as write_times;
use super::{mount, Inode};
use crate::{
    fs::inode::{delete, edit::writable_snapshot},
    fs_warn,
    util::error::{Error, Result},
};

/// Deletes an inode that has no names, when its last user is gone. If that cannot be done now, the next mount does it. Sleeps.
pub(in crate::vfs) fn delete(inode: &Inode) {
    let (mount, id) = (mount(inode), inode.data().id);
    match try_delete(inode) {
        Ok(()) | Err(Error::ReadOnly | Error::JournalFailed | Error::InodeMissing) => {}
        Err(e) => fs_warn!(*mount.fs.sup, "{id}: cannot be deleted: {e}; left to the next mount"),
    }
}

fn try_delete(inode: &Inode) -> Result {
    let (mount, id) = (mount(inode), inode.data().id);
    if inode.super_block().is_read_only() {
        return Err(Error::ReadOnly);
    }
    let snapshot = mount.fs.btree.run(|t| writable_snapshot(t, id.subvol))?;
    delete::delete_unused(&mount.fs.btree, id.inum, snapshot)
}
