// SPDX-License-Identifier: GPL-2.0
//! Changing an inode's key inside a transaction.

use bcachefs_format::{
    bkey::{Bkey, BKEY_U64S},
    keys::{
        inode::{Inode, InodeFlags, INODE_WORDS_MAX},
        subvolume::SubvolumeFlags,
    },
    pos::Bpos,
    BtreeId, KeyRef, KeyType,
};

use super::{
    super::InodeId,
    state::{Changed, State},
};
use crate::{
    btree::{trans::update::UpdateFlags, Attempt, IterFlags, TransError},
    snapshots,
    util::error::Error,
};

/// An inode that a transaction is changing: its key is locked until the commit.
#[derive(Copy, Clone, Debug)]
pub struct Edit {
    /// The key, to be changed.
    pub key: Inode,
    /// The snapshot that the changed key goes to.
    pub snapshot: u32,
    number: u64,
}

/// The snapshot in which files of `subvol` are changed.
///
/// # Errors
///
/// [`Error::ReadOnly`] if the subvolume is read-only.
pub fn writable_snapshot(t: &mut Attempt<'_>, subvol: u32) -> Result<u32, TransError> {
    let info = snapshots::subvolume(t, subvol)?;
    if info.flags.contains(SubvolumeFlags::RO) {
        return Err(Error::ReadOnly.into());
    }
    Ok(info.snapshot)
}

/// The inode `id`, to be changed; `state` if it is in use. May sleep.
///
/// # Errors
///
/// As [`super::find`]; [`Error::ReadOnly`] in a read-only subvolume.
#[inline(never)]
pub fn edit(t: &mut Attempt<'_>, id: InodeId, state: Option<&State>) -> Result<Edit, TransError> {
    let snapshot = writable_snapshot(t, id.subvol)?;
    edit_in(t, id.inum, snapshot, state)
}

/// The inode with number `inum`, as `snapshot` sees it.
#[inline(never)]
pub fn edit_in(
    t: &mut Attempt<'_>,
    inum: u64,
    snapshot: u32,
    state: Option<&State>,
) -> Result<Edit, TransError> {
    let pos = Bpos::with_snapshot(0, inum, snapshot);
    let mut iter = t.iter(BtreeId::INODES, pos, IterFlags::INTENT | IterFlags::SLOTS);
    let key = iter.peek_slot(t)?.ok_or(Error::InodeMissing)?;
    let key = super::parse(key)?;
    let number = state.map_or(0, State::draw);
    Ok(Edit { key, snapshot, number })
}

impl Edit {
    /// Has the changed key put in place at the commit. To be handed to [`State::committed`] after it.
    #[inline(never)]
    pub fn put(&self, t: &mut Attempt<'_>) -> Result<Changed, TransError> {
        let mut key = self.key;
        key.snapshot = self.snapshot;
        put_key(t, &key)?;
        Ok(Changed { key, number: self.number })
    }

    /// One link more.
    pub fn add_link(&mut self) -> Result<(), Error> {
        let key = &mut self.key;
        if key.flags.contains(InodeFlags::UNLINKED) {
            key.flags = key.flags.without(InodeFlags::UNLINKED);
            return Ok(());
        }
        // What the VFS is told is biased, and must fit, too.
        let most = u32::MAX - key.nlink_bias();
        key.nlink = key.nlink.checked_add(1).filter(|n| *n <= most).ok_or(Error::TooManyLinks)?;
        Ok(())
    }

    /// One link less; without the last one it is to be deleted when nobody uses it any more.
    pub fn drop_link(&mut self) {
        let key = &mut self.key;
        match key.nlink.checked_sub(1) {
            Some(less) => key.nlink = less,
            None => key.flags = key.flags.with(InodeFlags::UNLINKED),
        }
    }

    /// A directory gets one directory more in it.
    pub fn add_child(&mut self) -> Result<(), Error> {
        let more = self.key.nlink.checked_add(1).filter(|n| *n <= u32::MAX - 2);
        self.key.nlink = more.ok_or(Error::TooManyLinks)?;
        Ok(())
    }

    /// A directory loses one of the directories in it.
    pub fn drop_child(&mut self) {
        self.key.nlink = self.key.nlink.saturating_sub(1);
    }

    /// Forgets the entry at `offset` of directory `dir`, if that is the one it knows.
    pub fn forget_entry(&mut self, dir: u64, offset: u64) {
        if self.key.dir == dir && self.key.dir_offset == offset {
            (self.key.dir, self.key.dir_offset) = (0, 0);
        }
    }
}

/// Has `key` put where its number and its snapshot say.
#[inline(never)]
pub fn put_key(t: &mut Attempt<'_>, key: &Inode) -> Result<(), TransError> {
    let mut words = [0; INODE_WORDS_MAX];
    let n = key.build(&mut words).map_err(|_| Error::InodeInvalid)?;
    let value = words.get(..n).ok_or(Error::InodeInvalid)?;
    let pos = Bpos::with_snapshot(0, key.inum, key.snapshot);
    let header = Bkey {
        key_type: KeyType::INODE_V3,
        u64s: u8::try_from(usize::from(BKEY_U64S) + n).map_err(|_| Error::InodeInvalid)?,
        ..Bkey::deleted(pos)
    };
    t.insert(BtreeId::INODES, KeyRef { key: header, value }, UpdateFlags::default())
}
