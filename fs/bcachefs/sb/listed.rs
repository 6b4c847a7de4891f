// SPDX-License-Identifier: GPL-2.0
//! What of the superblock has to be known where nobody may sleep: replicas that are listed, and where btree nodes may be.

use bcachefs_format::{
    keys::data_type::DataType,
    sb::{Member, ReplicasEntry},
    super_block::SuperBlock,
};
use kernel::prelude::*;

use crate::util::{error::Result, sort::sort_by_key};

/// One combination of devices that holds data. Devices ascend.
struct Entry {
    data_type: DataType,
    nr_required: u8,
    devs: KVec<u8>,
}

impl Entry {
    fn new(entry: &ReplicasEntry<'_>) -> Result<Self> {
        let mut devs = KVec::new();
        devs.extend_from_slice(entry.devs, GFP_KERNEL)?;
        sort_by_key(&mut devs, |d| *d);
        Ok(Entry {
            data_type: entry.data_type,
            nr_required: entry.nr_required,
            devs,
        })
    }

    fn get(&self) -> ReplicasEntry<'_> {
        ReplicasEntry {
            data_type: self.data_type,
            nr_required: self.nr_required,
            devs: &self.devs,
        }
    }
}

/// A set of combinations.
pub(super) struct Replicas {
    entries: KVec<Entry>,
}

impl Replicas {
    /// Without any.
    pub(super) const fn new() -> Self {
        Replicas { entries: KVec::new() }
    }

    /// Those that `sb` lists. May sleep.
    pub(super) fn of(sb: &SuperBlock<'_>) -> Result<Self> {
        let mut all = Self::new();
        for entry in sb.replicas().iter() {
            all.add(&entry)?;
        }
        Ok(all)
    }

    /// Whether the combination is there. Devices of `entry` ascend.
    fn has(&self, entry: &ReplicasEntry<'_>) -> bool {
        self.iter().any(|e| e == *entry)
    }

    /// Adds the combination; `false` if it was there. May sleep.
    pub(super) fn add(&mut self, entry: &ReplicasEntry<'_>) -> Result<bool> {
        let new = Entry::new(entry)?;
        if self.has(&new.get()) {
            return Ok(false);
        }
        self.entries.push(new, GFP_KERNEL)?;
        Ok(true)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = ReplicasEntry<'_>> {
        self.entries.iter().map(Entry::get)
    }

    /// All of them, as a list. May sleep.
    pub(super) fn entries(&self) -> Result<KVec<ReplicasEntry<'_>>> {
        let mut all = KVec::with_capacity(self.entries.len(), GFP_KERNEL)?;
        for e in self.iter() {
            all.push(e, GFP_KERNEL)?;
        }
        Ok(all)
    }
}

/// A copy of what the superblock on disk says.
pub(super) struct Listed {
    replicas: Replicas,
    members: KVec<Option<Member>>,
}

impl Listed {
    /// Of `sb`. May sleep.
    pub(super) fn new(sb: &SuperBlock<'_>) -> Result<Self> {
        let mut members = KVec::new();
        for dev in 0..sb.members().nr() {
            members.push(sb.members().device(dev), GFP_KERNEL)?;
        }
        Ok(Listed {
            replicas: Replicas::of(sb)?,
            members,
        })
    }

    /// Whether the combination is listed. Devices of `entry` ascend.
    pub(super) fn has(&self, entry: &ReplicasEntry<'_>) -> bool {
        self.replicas.has(entry)
    }

    /// Member `dev`, if it exists.
    pub(super) fn member(&self, dev: u8) -> Option<&Member> {
        self.members.get(usize::from(dev))?.as_ref()
    }
}
