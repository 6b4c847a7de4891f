// SPDX-License-Identifier: GPL-2.0
//! What the btrees start from.

use bcachefs_format::{BtreeId, KeyRef, KeyType};
use kernel::prelude::*;

use super::{Blacklist, JournalKeys};
use crate::util::error::Result;

/// Number of btree ids a root can have.
pub const BTREE_ROOTS_MAX: usize = 63;

/// Most levels of a btree.
pub const BTREE_DEPTH_MAX: u8 = 4;

/// Where a btree starts.
pub struct Root {
    /// Level of the root node; 0 if the root is a leaf.
    pub level: u8,
    /// The pointer to the root node, header and value, as unpacked words. Its type is a btree pointer;
    /// the hint in memory that it has room for is zero.
    pub key: KVec<u64>,
}

impl Root {
    /// A copy of the pointer `key` to a node at `level`. May sleep.
    pub fn new(level: u8, key: &KeyRef<'_>) -> Result<Self> {
        let header = key.key.to_words();
        let mut words = KVec::with_capacity(header.len() + key.value.len(), GFP_KERNEL)?;
        words.extend_from_slice(&header, GFP_KERNEL)?;
        words.extend_from_slice(key.value, GFP_KERNEL)?;
        if key.key.key_type == KeyType::BTREE_PTR_V2 {
            if let Some(hint) = words.get_mut(header.len()) {
                *hint = 0;
            }
        }
        Ok(Root { level, key: words })
    }
}

/// A btree's root as recorded.
pub enum RootState {
    /// No record: the btree is empty.
    Absent,
    /// The record says that the root has been lost.
    Lost,
    /// The root.
    At(Root),
}

/// Where the journal of a device goes on.
pub struct RingStart {
    /// The device.
    pub device: u8,
    /// Index of the newest bucket in the ring.
    pub bucket: u32,
    /// Sectors used in it.
    pub used: u32,
    /// For each bucket of the ring, a number that none of its entries is above; those beyond the end hold none that count.
    pub seqs: KVVec<u64>,
}

impl RingStart {
    /// At the start of the ring, in which nothing counts.
    pub fn new(device: u8) -> Self {
        RingStart {
            device,
            bucket: 0,
            used: 0,
            seqs: KVVec::new(),
        }
    }
}

/// State of the filesystem at the moment it was stopped, ahead of what is in the nodes.
pub struct StartState {
    /// Roots by btree id, [`BTREE_ROOTS_MAX`] of them.
    pub roots: KVec<RootState>,
    /// Keys in the journal that nodes may not have yet. Empty after a clean shutdown.
    pub keys: JournalKeys,
    /// Sequence numbers that do not count.
    pub blacklist: Blacklist,
    /// The counter that key versions of extents are taken from.
    pub key_version: u64,
    /// Sectors read and written over the filesystem's life.
    pub clocks: [u64; 2],
    /// The sequence number a journal would go on with.
    pub next_seq: u64,
    /// Range that was replayed: first and last sequence number; `None` after a clean shutdown.
    pub replayed: Option<(u64, u64)>,
    /// Where the journals of the devices go on. Those that are not listed begin at the start.
    pub rings: KVec<RingStart>,
}

impl StartState {
    /// Splits off what the journal goes on from; roots and keys stay here, for the btrees. May sleep.
    #[inline(never)]
    pub fn split_off(&mut self) -> Result<KBox<StartState>> {
        let mut ranges = KVVec::new();
        ranges.extend_from_slice(self.blacklist.ranges(), GFP_KERNEL)?;
        let for_journal = init!(StartState {
            roots: KVec::new(),
            keys: JournalKeys::empty(),
            blacklist: Blacklist::new(ranges),
            key_version: self.key_version,
            clocks: self.clocks,
            next_seq: self.next_seq,
            replayed: self.replayed,
            rings: core::mem::take(&mut self.rings),
        });
        Ok(KBox::init(for_journal, GFP_KERNEL)?)
    }

    /// Takes the keys that are laid over the btrees.
    pub fn take_keys(&mut self) -> JournalKeys {
        core::mem::replace(&mut self.keys, JournalKeys::empty())
    }

    /// Takes the list of sequence numbers that do not count.
    pub fn take_blacklist(&mut self) -> Blacklist {
        core::mem::replace(&mut self.blacklist, Blacklist::new(KVVec::new()))
    }

    /// That of a filesystem that has just been formatted: nothing at all. May sleep.
    pub fn new() -> Result<StartState> {
        let mut roots = KVec::with_capacity(BTREE_ROOTS_MAX, GFP_KERNEL)?;
        for _ in 0..BTREE_ROOTS_MAX {
            roots.push(RootState::Absent, GFP_KERNEL)?;
        }
        Ok(StartState {
            roots,
            keys: JournalKeys::empty(),
            blacklist: Blacklist::new(KVVec::new()),
            key_version: 0,
            clocks: [0; 2],
            next_seq: 1,
            replayed: None,
            rings: KVec::new(),
        })
    }

    /// The root of `btree`.
    pub fn root(&self, btree: BtreeId) -> &RootState {
        self.roots
            .get(usize::from(btree.0))
            .unwrap_or(&RootState::Absent)
    }
}
