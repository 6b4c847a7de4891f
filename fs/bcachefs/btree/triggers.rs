// SPDX-License-Identifier: GPL-2.0
//! What a change of a key entails.
//!
//! An extent that appears uses sectors of a bucket, needs a backpointer and is accounted for. The btrees know none of that: they
//! call triggers, which the allocator implements.

use super::trans::{Attempt, TransError};
use crate::util::{error::Result, watermark::Watermark};
use bcachefs_format::{Bkey, Bversion, BtreeId, KeyRef};

/// A key and its value, to be changed in place. The words are those of the transaction's buffer.
pub struct KeyMut<'a> {
    /// The header.
    pub key: &'a mut Bkey,
    /// The value, as long as the header says.
    pub value: &'a mut [u64],
}

impl KeyMut<'_> {
    /// The same for reading.
    pub fn get(&self) -> KeyRef<'_> {
        KeyRef {
            key: *self.key,
            value: self.value,
        }
    }
}

/// Where a change takes place.
#[derive(Copy, Clone, Debug)]
pub struct Place {
    /// The btree.
    pub btree: BtreeId,
    /// Level of the node that holds the key: 0 for keys of leaves, above that pointers to nodes.
    pub level: u8,
    /// Run for a key that appears or stays.
    pub insert: bool,
    /// Run for a key that goes.
    pub overwrite: bool,
    /// Cached pointers go because their bucket is invalidated.
    pub invalidate: bool,
    /// Watermark of the commit.
    pub watermark: Watermark,
}

/// A replicas entry that the superblock does not list yet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct MissingReplicas;

/// The triggers.
///
/// For a change of one key `old` is what is there and `new` what will be; one of them may be of type `deleted`. When both have
/// triggers of the same kind one call has both `insert` and `overwrite` set.
pub trait Triggers: Send + Sync {
    /// Whether any changes of keys at this level of this btree have triggers: asked before anything else is looked at.
    fn concerns(&self, _btree: BtreeId, _level: u8) -> bool {
        true
    }

    /// Whether changes of keys of this type in this btree have transactional triggers at all.
    fn has_transactional(&self, btree: BtreeId, level: u8, key: &Bkey) -> bool;

    /// Before locks for writing are taken: may read, and add updates and accounting to the transaction; may replace words of
    /// `new` (a copy of the pending update, which is stored back if it was changed and there is still an update of this
    /// position). May sleep and restart.
    fn transactional(
        &self,
        t: &mut Attempt<'_>,
        place: Place,
        old: KeyRef<'_>,
        new: KeyMut<'_>,
    ) -> core::result::Result<(), TransError>;

    /// Whether changes of keys of this type have atomic triggers.
    fn has_atomic(&self, btree: BtreeId, level: u8, key: &Bkey) -> bool;

    /// Under write locks, when the entry `seq` for the commit is known: takes effect in memory, and may fill in `new`. Does not
    /// sleep. An error is fatal.
    fn atomic(&self, place: Place, seq: u64, old: KeyRef<'_>, new: KeyMut<'_>) -> Result;

    /// Adds the deltas of an accounting key to what is kept in memory. Under write locks; does not sleep.
    fn account(&self, delta: KeyRef<'_>, version: Bversion) -> core::result::Result<(), MissingReplicas>;

    /// Takes back [`Triggers::account`] of the same key, when the commit does not take place. Does not sleep.
    fn unaccount(&self, delta: KeyRef<'_>);

    /// After [`MissingReplicas`]: makes the superblock list what the accounting keys in `deltas` refer to. No locks held; sleeps.
    fn mark_replicas(&self, deltas: &mut dyn Iterator<Item = KeyRef<'_>>) -> Result;

    /// Sectors of space by which the accounting key changes what is in use; taken from the commit's reservation.
    fn used_sectors(&self, delta: KeyRef<'_>) -> i64;
}
