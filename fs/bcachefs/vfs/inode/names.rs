// SPDX-License-Identifier: GPL-2.0
//! Adding, removing and moving names of files that exist.

use kernel::prelude::*;
use kfs::vfs::inode::{Creation, Name, RenameMode};

use super::{
    create::{self, Making},
    mount,
    update::{committed, settle, Fields, COMMIT, COMMIT_ALWAYS},
    Inode,
};
use crate::{
    fs::{
        link::{self, Both},
        rename::{Place, Rename, Renamed},
    },
    util::error::{Error, Result},
    vfs::mount::Bcachefs,
};

/// What a change of its names changes of an inode.
const NAMED: Fields = Fields::LINKS.and(Fields::CTIME);

/// Gives `inode` another name. Sleeps.
pub(super) fn link(inode: &Inode, dir: &Inode, name: &[u8]) -> Result {
    let mount = mount(dir);
    let now = mount.now(dir.super_block());
    let mut both = Both::new()?;
    let ((), done) = mount.fs.btree.commit(None, COMMIT, |t| {
        link::link(t, dir.data().used(), name, inode.data().used(), now, &mut both)
    })?;
    changed(dir, inode, &both, done.seq);
    settle(dir, done.seq)
}

/// Removes a name of `inode`. Sleeps.
pub(super) fn unlink(dir: &Inode, name: &[u8], inode: &Inode) -> Result {
    let mount = mount(dir);
    let now = mount.now(dir.super_block());
    let mut both = Both::new()?;
    let ((), done) = mount.fs.btree.commit(None, COMMIT_ALWAYS, |t| {
        link::unlink(t, dir.data().used(), name, inode.data().used(), now, &mut both)
    })?;
    changed(dir, inode, &both, done.seq);
    settle(dir, done.seq)
}

/// After a commit that changed a name.
fn changed(dir: &Inode, inode: &Inode, both: &Both, seq: u64) {
    if let Some(key) = &both.dir {
        committed(dir, key, seq, Fields::ENTRIES);
    }
    if let Some(key) = &both.inode {
        committed(inode, key, seq, NAMED);
    }
}

/// Moves a name. Sleeps.
pub(super) fn rename(
    from: Name<'_, Bcachefs>,
    to: Name<'_, Bcachefs>,
    mode: RenameMode,
    whiteout: Option<&Creation<'_>>,
) -> Result {
    let mount = mount(from.dir);
    let inode = from.inode.ok_or(Error::DirentMissing)?;
    if mode == RenameMode::Replace && inode.is_regular() {
        // Whoever replaces a file with a new one expects to find one or the other whole.
        inode.write_data()?;
    }
    let mut out = Renamed::new()?;
    let making: Option<KBox<Making<'_>>> = match whiteout {
        Some(creation) => Some(create::prepare(from.dir, Some(from.name), creation)?),
        None => None,
    };
    let wanted = Rename {
        from: Place { dir: from.dir.data().used(), name: from.name },
        inode: inode.data().used(),
        to: Place { dir: to.dir.data().used(), name: to.name },
        target: to.inode.map(|i| i.data().used()),
        exchange: mode == RenameMode::Exchange,
        whiteout: making.as_ref().map(|m| &m.file),
        now: mount.now(from.dir.super_block()),
    };
    let ((), done) = mount.fs.btree.commit(None, COMMIT, |t| wanted.run(t, &mut out))?;
    let changed = [
        (Some(from.dir), &out.from_dir_key, Fields::ENTRIES),
        (Some(to.dir), &out.to_dir_key, Fields::ENTRIES),
        (Some(inode), &out.inode_key, NAMED),
        (to.inode, &out.target_key, NAMED),
    ];
    for (inode, key, fields) in changed {
        if let (Some(inode), Some(key)) = (inode, key) {
            committed(inode, key, done.seq, fields);
        }
    }
    // The whiteout's inode is found by its name when somebody asks for it.
    drop(making);
    settle(from.dir, done.seq)?;
    settle(to.dir, done.seq)
}
