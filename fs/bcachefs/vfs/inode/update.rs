// SPDX-License-Identifier: GPL-2.0
//! Changing the key of an inode in use: on disk, in memory, and what the VFS knows of it.

use bcachefs_format::keys::inode::Inode as Key;

use super::{flags, mount, timestamp, Inode};
use crate::{
    btree::{trans::update::CommitFlags, Attempt, TransError},
    fs::inode::{edit, Changed, Edit},
    util::{error, watermark::Watermark},
};

/// How changes are committed that may need space.
pub(in crate::vfs) const COMMIT: CommitFlags = CommitFlags {
    watermark: Watermark::Normal,
    no_enospc: false,
    no_check_rw: false,
    journal_reclaim: false,
    no_journal_res: None,
    skip_accounting: false,
    no_triggers: false,
};

/// How changes are committed that give space back, or change what is there: never refused for want of space.
pub(in crate::vfs) const COMMIT_ALWAYS: CommitFlags = CommitFlags {
    no_enospc: true,
    ..COMMIT
};

/// Fields of an inode that the VFS has, too.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(in crate::vfs) struct Fields(u16);

impl Fields {
    /// None of them.
    pub(in crate::vfs) const NONE: Fields = Fields(0);
    /// Time of the last access.
    pub(in crate::vfs) const ATIME: Fields = Fields(1 << 0);
    /// Time of the last modification.
    pub(in crate::vfs) const MTIME: Fields = Fields(1 << 1);
    /// Time of the last change.
    pub(in crate::vfs) const CTIME: Fields = Fields(1 << 2);
    /// Links. The inode is locked for change.
    pub(in crate::vfs) const LINKS: Fields = Fields(1 << 3);
    /// Permissions. The inode is locked for change.
    pub(in crate::vfs) const MODE: Fields = Fields(1 << 4);
    /// Owner and group. The inode is locked for change.
    pub(in crate::vfs) const OWNER: Fields = Fields(1 << 5);
    /// Sectors.
    pub(in crate::vfs) const BLOCKS: Fields = Fields(1 << 6);
    /// What the VFS enforces. The inode is locked for change.
    pub(in crate::vfs) const FLAGS: Fields = Fields(1 << 7);
    /// What a change of its entries changes of a directory.
    pub(in crate::vfs) const ENTRIES: Fields = Fields::MTIME.and(Fields::CTIME).and(Fields::LINKS);

    /// Both sets.
    #[must_use]
    pub(in crate::vfs) const fn and(self, other: Fields) -> Fields {
        Fields(self.0 | other.0)
    }

    const fn has(self, other: Fields) -> bool {
        self.0 & other.0 == other.0
    }
}

/// After a commit as journal entry `seq` that changed `inode`: the newest key is known, and `fields` are what it says. The size is
/// not among them: that belongs to those who write data, under the inode's lock.
pub(in crate::vfs) fn committed(inode: &Inode, changed: &Changed, seq: u64, fields: Fields) {
    let state = &inode.data().state;
    state.committed(changed, seq, |key| apply(inode, key, fields));
}

fn apply(inode: &Inode, key: &Key, fields: Fields) {
    let times = mount(inode).times;
    let time = |stored| timestamp(times.to_unix(stored));
    if fields.has(Fields::ATIME) {
        inode.set_atime(time(key.atime));
    }
    if fields.has(Fields::MTIME) {
        inode.set_mtime(time(key.mtime));
    }
    if fields.has(Fields::CTIME) {
        inode.set_ctime(time(key.ctime));
    }
    if fields.has(Fields::LINKS) {
        inode.set_links(key.nlink());
    }
    if fields.has(Fields::MODE) {
        inode.set_permissions(key.mode.permissions());
    }
    if fields.has(Fields::OWNER) {
        inode.set_owner(key.uid, key.gid);
    }
    if fields.has(Fields::BLOCKS) {
        inode.set_blocks(key.sectors);
    }
    if fields.has(Fields::FLAGS) {
        inode.set_flags(flags(key));
    }
}

/// What [`transact`] runs: with locks held, perhaps more than once, from the key on disk each time.
pub(in crate::vfs) type Step<'a> = dyn FnMut(&mut Attempt<'_>, &mut Edit) -> Result<(), TransError> + 'a;

/// Changes the key of `inode` by `f` in a transaction of its own, and `fields` of the VFS with it. Sleeps. Returns the journal entry:
/// flush that to make the change durable.
pub(in crate::vfs) fn change(
    inode: &Inode,
    fields: Fields,
    mut f: impl FnMut(&mut Key),
) -> error::Result<u64> {
    transact(inode, COMMIT_ALWAYS, fields, &mut |_, edited| {
        f(&mut edited.key);
        Ok(())
    })
}

/// Changes the key of `inode`, and whatever else `f` changes with it, in one transaction; and `fields` of the VFS with it. Sleeps.
/// Returns the journal entry.
pub(in crate::vfs) fn transact(
    inode: &Inode,
    how: CommitFlags,
    fields: Fields,
    f: &mut Step<'_>,
) -> error::Result<u64> {
    let mut changed = None;
    let seq = commit(inode, how, f, &mut changed)?;
    if let Some(changed) = &changed {
        committed(inode, changed, seq, fields);
    }
    settle(inode, seq)?;
    Ok(seq)
}

/// Makes journal entry `seq` durable, if changes of `inode` (of entries, if it is a directory) are to be durable at once. Sleeps.
pub(in crate::vfs) fn settle(inode: &Inode, seq: u64) -> error::Result {
    match mount(inode).fs.writing.journal() {
        Some(journal) if inode.is_sync() => journal.flush(seq),
        _ => Ok(()),
    }
}

/// Apart from what is done with the result: keys are large, and so is what a transaction needs of the stack.
#[inline(never)]
fn commit(
    inode: &Inode,
    how: CommitFlags,
    f: &mut Step<'_>,
    out: &mut Option<Changed>,
) -> error::Result<u64> {
    let ((), done) = mount(inode).fs.btree.commit(None, how, |t| attempt(t, inode, f, out))?;
    Ok(done.seq)
}

#[inline(never)]
fn attempt(
    t: &mut Attempt<'_>,
    inode: &Inode,
    f: &mut Step<'_>,
    out: &mut Option<Changed>,
) -> Result<(), TransError> {
    let info = inode.data();
    let mut edited = edit(t, info.id, Some(&info.state))?;
    f(t, &mut edited)?;
    *out = Some(edited.put(t)?);
    Ok(())
}

/// Makes durable what has been changed of the inode's key and of what changed with it. Sleeps.
pub(in crate::vfs) fn make_durable(inode: &Inode) -> error::Result {
    match mount(inode).fs.writing.journal() {
        Some(journal) => journal.flush(inode.data().journal_seq()),
        None => Ok(()),
    }
}
