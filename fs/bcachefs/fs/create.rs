// SPDX-License-Identifier: GPL-2.0
//! Making files: inode, name, attributes and target in one transaction.

use bcachefs_format::{
    bkey::{Bkey, KeyRef, KeyType, BKEY_U64S},
    keys::{
        inline_data::InlineData,
        inode::{Inode, InodeFlags, Mode},
        str_hash::{StrHashInfo, StrHashType},
    },
    pos::Bpos,
    BtreeId,
};
use kernel::prelude::*;

use super::{
    dirent::{Directory, Target},
    inode::{edit, number, Changed, Edit, State},
    xattr::edit::{Attributes, Prepared, SetMode},
    InodeId,
};
use crate::{
    btree::{trans::update::UpdateFlags, Attempt, TransError},
    util::error::{Error, Result as Done},
};

/// Longest target of a symbolic link that is stored within its key, in bytes.
pub const INLINE_MAX: usize = 1984;

/// A file that is to be made.
pub struct NewFile {
    /// Its number, which was free.
    pub inum: u64,
    /// Type and permissions.
    pub mode: Mode,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of a device node: its number.
    pub dev: u32,
    /// When it is made.
    pub now: i64,
    /// How names in it are hashed, by a seed of its own.
    pub str_hash: StrHashType,
    /// The seed.
    pub hash_seed: u64,
    /// Attributes it has from the beginning.
    pub attributes: KVec<Prepared>,
    /// Of a symbolic link: the target, as the words of a key's value, and its length in bytes.
    pub target: Option<(KVec<u64>, usize)>,
    /// Sectors of a block.
    pub block_sectors: u16,
}

/// A symbolic link's target, as it is written.
pub fn prepare_target(target: &[u8]) -> Done<(KVec<u64>, usize)> {
    if target.len() > INLINE_MAX {
        return Err(Error::LinkTooLong);
    }
    let mut words = KVec::from_elem(0, target.len().div_ceil(8), GFP_KERNEL)?;
    let inline = InlineData { bytes: target };
    inline.build(&mut words).map_err(|_| Error::NameTooLong)?;
    Ok((words, target.len()))
}

/// What a new file entails.
#[derive(Default)]
pub struct Created {
    /// The file's key.
    pub key: Option<Inode>,
    /// The directory.
    pub dir: Option<Changed>,
}

impl NewFile {
    /// Makes the file in the directory `dir`; with a name, or without one: then it has no links.
    pub fn create(
        &self,
        t: &mut Attempt<'_>,
        dir_id: InodeId,
        dir_state: &State,
        dir_hash: &StrHashInfo,
        name: Option<&[u8]>,
        out: &mut Created,
    ) -> Result<(), TransError> {
        let mut dir = edit(t, dir_id, Some(dir_state))?;
        let key = self.place(t, &dir)?;
        let directory = Directory { id: dir_id, hash: *dir_hash, snapshot: dir.snapshot };
        let Some(name) = name else {
            out.key = Some(self.unnamed(t, key)?);
            return Ok(());
        };
        let slot = directory.find_place(t, name)?;
        out.key = Some(self.named(t, key, &directory, slot, name)?);
        touch(&mut dir, self.now);
        if self.mode.is_dir() {
            dir.add_child()?;
        }
        out.dir = Some(dir.put(t)?);
        Ok(())
    }

    /// The inode without a name, in a place that is free.
    #[inline(never)]
    fn place(&self, t: &mut Attempt<'_>, dir: &Edit) -> Result<Inode, TransError> {
        if !dir.key.mode.is_dir() {
            return Err(Error::NotDirectory.into());
        }
        if dir.key.flags.contains(InodeFlags::UNLINKED) {
            return Err(Error::DirentMissing.into());
        }
        if !number::is_free(t, self.inum)? {
            return Err(Error::NumberTaken.into());
        }
        let mut key = Inode {
            inum: self.inum,
            snapshot: dir.snapshot,
            hash_seed: self.hash_seed,
            str_hash: self.str_hash,
            mode: self.mode,
            atime: self.now,
            ctime: self.now,
            mtime: self.now,
            otime: self.now,
            uid: self.uid,
            gid: self.gid,
            dev: self.dev,
            options: dir.key.options.inherited(),
            ..Inode::default()
        };
        if let Some((_, len)) = &self.target {
            key.size = *len as u64;
            key.sectors = self.target_sectors(*len).into();
        }
        Ok(key)
    }

    /// Writes the inode as the one that the entry in `slot` leads to, and the entry.
    #[inline(never)]
    pub(super) fn named(
        &self,
        t: &mut Attempt<'_>,
        mut key: Inode,
        dir: &Directory,
        slot: u64,
        name: &[u8],
    ) -> Result<Inode, TransError> {
        dir.put(t, slot, name, Target::of(&key))?;
        (key.dir, key.dir_offset) = (dir.id.inum, slot);
        self.write(t, &key)?;
        Ok(key)
    }

    #[inline(never)]
    fn unnamed(&self, t: &mut Attempt<'_>, mut key: Inode) -> Result<Inode, TransError> {
        key.flags = key.flags.with(InodeFlags::UNLINKED);
        self.write(t, &key)?;
        Ok(key)
    }

    /// The inode, to get a name that is put into `slot` of `dir` by the caller: for what takes the place of a name that moves.
    #[inline(never)]
    pub(super) fn replace(
        &self,
        t: &mut Attempt<'_>,
        edited: &Edit,
        dir: &Directory,
        slot: u64,
        name: &[u8],
    ) -> Result<Inode, TransError> {
        let key = self.place(t, edited)?;
        self.named(t, key, dir, slot, name)
    }

    /// The inode and what belongs to it.
    fn write(&self, t: &mut Attempt<'_>, key: &Inode) -> Result<(), TransError> {
        if let Some((words, len)) = &self.target {
            self.write_target(t, key, words, *len)?;
        }
        let hash = StrHashInfo::new(key).ok_or(Error::InodeInvalid)?;
        let attributes = Attributes { inum: key.inum, hash, snapshot: key.snapshot };
        for attr in self.attributes.iter() {
            attributes.set(t, attr, SetMode::Create)?;
        }
        edit::put_key(t, key)
    }

    fn target_sectors(&self, len: usize) -> u32 {
        let block = usize::from(self.block_sectors.max(1)) * 512;
        (len.next_multiple_of(block) / 512) as u32
    }

    fn write_target(
        &self,
        t: &mut Attempt<'_>,
        key: &Inode,
        words: &[u64],
        len: usize,
    ) -> Result<(), TransError> {
        let size = self.target_sectors(len);
        let header = Bkey {
            key_type: KeyType::INLINE_DATA,
            u64s: BKEY_U64S.saturating_add(words.len() as u8),
            size,
            ..Bkey::deleted(Bpos::with_snapshot(key.inum, size.into(), key.snapshot))
        };
        let extent = KeyRef { key: header, value: words };
        t.insert(BtreeId::EXTENTS, extent, UpdateFlags::default())
    }
}

/// A directory whose entries have changed.
pub(super) fn touch(dir: &mut Edit, now: i64) {
    (dir.key.mtime, dir.key.ctime) = (now, now);
}
