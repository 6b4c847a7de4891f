// SPDX-License-Identifier: GPL-2.0
//! Changing directory entries inside a transaction, in which the directory's inode is being changed, too.

use bcachefs_format::{
    bkey::{Bkey, KeyRef, KeyType, BKEY_U64S},
    keys::{
        dirent::{Dirent, DirentTarget, NAME_MAX},
        inode::{FileType, Inode},
        str_hash::StrHashInfo,
    },
    pos::Bpos,
    BtreeId,
};

use super::super::{
    str_hash::{
        edit::{Found, Table},
        KernelCrc, Slot,
    },
    InodeId,
};
use crate::{
    btree::{trans::update::UpdateFlags, Attempt, IterFlags, TransError},
    util::error::Error,
};

/// Longest name that is given to anything. There may be longer ones, that others have made.
pub const NEW_NAME_MAX: usize = 255;

/// Words of the longest entry.
const ENTRY_WORDS: usize = (9 + NAME_MAX).div_ceil(8);

/// A directory whose entries are changed.
#[derive(Copy, Clone, Debug)]
pub struct Directory {
    /// Which one.
    pub id: InodeId,
    /// How its names are hashed.
    pub hash: StrHashInfo,
    /// The snapshot that is changed.
    pub snapshot: u32,
}

/// What an entry says.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// The inode it leads to.
    pub inum: u64,
    /// Its type.
    pub file_type: FileType,
}

impl Target {
    /// The inode `key`.
    pub fn of(key: &Inode) -> Self {
        Target { inum: key.inum, file_type: key.mode.file_type() }
    }
}

impl Directory {
    fn table(&self) -> Table {
        Table { btree: BtreeId::DIRENTS, inum: self.id.inum, snapshot: self.snapshot }
    }

    /// The first slot that `name` can have.
    pub fn hash(&self, name: &[u8]) -> u64 {
        self.hash.dirent(name, &KernelCrc)
    }

    /// Where `name` is, and what it leads to; or where it would go.
    ///
    /// # Errors
    ///
    /// [`Error::SubvolumeName`] if it leads to the root of a subvolume.
    pub fn find(
        &self,
        t: &mut Attempt<'_>,
        name: &[u8],
    ) -> Result<(Found, Option<Target>), TransError> {
        if name.len() > NAME_MAX {
            return Err(Error::NameTooLong.into());
        }
        let subvol = self.id.subvol;
        let mut target = None;
        let found = self.table().find(t, self.hash(name), |key| {
            if key.key.key_type != KeyType::DIRENT {
                return Ok(Slot::Other);
            }
            let entry = Dirent::parse(key).map_err(Error::from)?;
            if !entry.is_visible_in(subvol) {
                return Ok(Slot::Empty);
            }
            if entry.name != name {
                return Ok(Slot::Other);
            }
            match entry.target {
                DirentTarget::Inode(inum) => {
                    target = Some(Target { inum, file_type: entry.d_type });
                    Ok(Slot::Match(()))
                }
                DirentTarget::Subvol { .. } => Err(Error::SubvolumeName.into()),
            }
        })?;
        Ok((found, target))
    }

    /// The slot of `name`, which leads to the inode with number `inum`.
    ///
    /// # Errors
    ///
    /// [`Error::DirentMissing`] if it does not.
    pub fn find_existing(&self, t: &mut Attempt<'_>, name: &[u8], inum: u64) -> Result<u64, TransError> {
        match self.find(t, name)? {
            (Found::At(slot), Some(target)) if target.inum == inum => Ok(slot),
            _ => Err(Error::DirentMissing.into()),
        }
    }

    /// The slot for a new entry `name`.
    ///
    /// # Errors
    ///
    /// [`Error::NameExists`], [`Error::NameTooLong`].
    pub fn find_place(&self, t: &mut Attempt<'_>, name: &[u8]) -> Result<u64, TransError> {
        if name.len() > NEW_NAME_MAX {
            return Err(Error::NameTooLong.into());
        }
        match self.find(t, name)? {
            (Found::Free(slot), _) => Ok(slot),
            _ => Err(Error::NameExists.into()),
        }
    }

    /// Puts an entry into `slot`.
    #[inline(never)]
    pub fn put(
        &self,
        t: &mut Attempt<'_>,
        slot: u64,
        name: &[u8],
        target: Target,
    ) -> Result<(), TransError> {
        let entry = Dirent {
            target: DirentTarget::Inode(target.inum),
            d_type: target.file_type,
            name,
        };
        let mut words = [0; ENTRY_WORDS];
        let n = entry.build(&mut words).map_err(|_| Error::MetadataInvalid)?;
        let value = words.get(..n).ok_or(Error::MetadataInvalid)?;
        let key = Bkey {
            key_type: KeyType::DIRENT,
            u64s: BKEY_U64S.saturating_add(n as u8),
            ..Bkey::deleted(Bpos::with_snapshot(self.id.inum, slot, self.snapshot))
        };
        t.insert(BtreeId::DIRENTS, KeyRef { key, value }, UpdateFlags::default())
    }

    /// Removes the entry in `slot`.
    pub fn remove(&self, t: &mut Attempt<'_>, slot: u64) -> Result<(), TransError> {
        let (hash, subvol) = (self.hash, self.id.subvol);
        self.table().remove(t, slot, |key| {
            if key.key.key_type != KeyType::DIRENT {
                return Ok(None);
            }
            let entry = Dirent::parse(key).map_err(Error::from)?;
            let seen = entry.is_visible_in(subvol);
            Ok(seen.then(|| hash.dirent(entry.name, &KernelCrc)))
        })
    }
}

/// Whether the directory `inum` has no entries that `snapshot` sees; with `subvol`, that this subvolume shows. Stays true until
/// the commit if the directory's own inode is being changed, as whoever adds an entry changes that, too.
pub fn is_empty(
    t: &mut Attempt<'_>,
    inum: u64,
    snapshot: u32,
    subvol: Option<u32>,
) -> Result<bool, TransError> {
    let start = Bpos::with_snapshot(inum, 0, snapshot);
    let end = Bpos::with_snapshot(inum, u64::MAX, snapshot);
    let mut iter = t.iter(BtreeId::DIRENTS, start, IterFlags::PREFETCH);
    while let Some(key) = iter.peek_upto(t, end)? {
        if key.key.key_type == KeyType::DIRENT {
            let entry = Dirent::parse(key).map_err(Error::from)?;
            if subvol.is_none_or(|s| entry.is_visible_in(s)) {
                return Ok(false);
            }
        }
        if !iter.advance() {
            break;
        }
    }
    Ok(true)
}
