// SPDX-License-Identifier: GPL-2.0
//! Changing extended attributes inside a transaction, in which the inode they belong to is being changed, too.

use bcachefs_format::{
    bkey::{Bkey, KeyRef, KeyType, BKEY_U64S},
    keys::{
        str_hash::StrHashInfo,
        xattr::{Xattr, XattrType, XATTR_SPACE_MAX},
    },
    pos::Bpos,
    BtreeId,
};
use kernel::prelude::*;

use super::super::str_hash::{
    edit::{Found, Table},
    KernelCrc, Slot,
};
use crate::{
    btree::{trans::update::UpdateFlags, Attempt, TransError},
    util::error::{Error, Result as Done},
};

/// Most words of a value.
const VALUE_U64S: usize = 250;

/// What is to be done about an attribute that exists, or does not.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum SetMode {
    /// Create or replace.
    Either,
    /// [`Error::XattrExists`] if it exists.
    Create,
    /// [`Error::XattrMissing`] if it does not exist.
    Replace,
}

/// The attributes of an inode that are being changed.
#[derive(Copy, Clone, Debug)]
pub struct Attributes {
    /// The inode.
    pub inum: u64,
    /// How its names are hashed.
    pub hash: StrHashInfo,
    /// The snapshot that is changed.
    pub snapshot: u32,
}

/// An attribute as it is written, made before the transaction that writes it.
pub struct Prepared {
    xattr_type: XattrType,
    name: KVec<u8>,
    words: KVec<u64>,
}

impl Prepared {
    /// Attribute `name` (without prefix) with `value`. Allocates memory.
    ///
    /// # Errors
    ///
    /// [`Error::XattrTooBig`].
    pub fn new(xattr_type: XattrType, name: &[u8], value: &[u8]) -> Done<Self> {
        if name.len() > usize::from(u8::MAX) || name.len() + value.len() > XATTR_SPACE_MAX {
            return Err(Error::XattrTooBig);
        }
        let mut words = KVec::from_elem(0, VALUE_U64S, GFP_KERNEL)?;
        let attr = Xattr { xattr_type, name, value };
        let n = attr.build(&mut words).map_err(|_| Error::XattrTooBig)?;
        words.truncate(n);
        let mut copy = KVec::new();
        copy.extend_from_slice(name, GFP_KERNEL)?;
        Ok(Prepared { xattr_type, name: copy, words })
    }
}

impl Attributes {
    fn table(&self) -> Table {
        Table { btree: BtreeId::XATTRS, inum: self.inum, snapshot: self.snapshot }
    }

    fn find(&self, t: &mut Attempt<'_>, xattr_type: XattrType, name: &[u8]) -> Result<Found, TransError> {
        let start = self.hash.xattr(xattr_type.0, name, &KernelCrc);
        self.table().find(t, start, |key| {
            if key.key.key_type != KeyType::XATTR {
                return Ok(Slot::Other);
            }
            let attr = Xattr::parse(key).map_err(|_| Error::XattrInvalid)?;
            Ok(match attr.xattr_type == xattr_type && attr.name == name {
                true => Slot::Match(()),
                false => Slot::Other,
            })
        })
    }

    /// Sets an attribute.
    pub fn set(&self, t: &mut Attempt<'_>, attr: &Prepared, mode: SetMode) -> Result<(), TransError> {
        let slot = match (self.find(t, attr.xattr_type, &attr.name)?, mode) {
            (Found::At(_), SetMode::Create) => return Err(Error::XattrExists.into()),
            (Found::Free(_), SetMode::Replace) => return Err(Error::XattrMissing.into()),
            (Found::At(slot) | Found::Free(slot), _) => slot,
        };
        let key = Bkey {
            key_type: KeyType::XATTR,
            u64s: BKEY_U64S.saturating_add(attr.words.len() as u8),
            ..Bkey::deleted(Bpos::with_snapshot(self.inum, slot, self.snapshot))
        };
        let value = &attr.words;
        t.insert(BtreeId::XATTRS, KeyRef { key, value }, UpdateFlags::default())
    }

    /// Removes the attribute `name`.
    ///
    /// # Errors
    ///
    /// [`Error::XattrMissing`] if there is none.
    pub fn remove(&self, t: &mut Attempt<'_>, xattr_type: XattrType, name: &[u8]) -> Result<(), TransError> {
        let Found::At(slot) = self.find(t, xattr_type, name)? else {
            return Err(Error::XattrMissing.into());
        };
        let hash = self.hash;
        self.table().remove(t, slot, |key| {
            if key.key.key_type != KeyType::XATTR {
                return Ok(None);
            }
            let attr = Xattr::parse(key).map_err(|_| Error::XattrInvalid)?;
            Ok(Some(hash.xattr(attr.xattr_type.0, attr.name, &KernelCrc)))
        })
    }
}
