// SPDX-License-Identifier: GPL-2.0
//! Triggers: what a change of a key entails.
//!
//! | file | keys |
//! |---|---|
//! | `extent` | with pointers, and reservations |
//! | `alloc` | of buckets |
//! | `inode` | inodes |
//! | `reflink` | references to shared extents |
//! | `tree` | subvolumes and snapshots |
//!
//! Triggers of a transaction run before its locks for writing are taken, and see each other's updates; what they add
//! is part of the commit. Keys of stripes, and pointers into stripes, cannot be changed: [`Error::Unsupported`].

mod alloc;
mod extent;
mod inode;
pub(super) mod keys;
mod reflink;
mod tree;

use super::{
    counters::{self, Accounting},
    geometry::Geometries,
    rebalance::Targets,
    trigger_client::TriggerClient,
};
use crate::{
    btree::{
        triggers::{KeyMut, MissingReplicas, Place, Triggers},
        Attempt, TransError,
    },
    journal::engine::Journal,
    sb::Super,
    snapshots::SnapshotTable,
    util::error::{Error, Result},
};
use bcachefs_format::{keys::types, Bkey, Bversion, BtreeId, KeyRef, KeyType};
use core::fmt;
use kernel::{
    prelude::*,
    str::CString,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};

/// Messages about keys that do not go together, after which there are no more.
const COMPLAINTS_MAX: u32 = 50;

type Trans<T = ()> = core::result::Result<T, TransError>;

/// The triggers of a filesystem.
pub struct AllocTriggers {
    geometries: Geometries,
    targets: Targets,
    node_sectors: u32,
    accounting: Arc<Accounting>,
    snapshots: Arc<SnapshotTable>,
    /// Without one (in tests) nothing is known of which entries will be durable.
    journal: Option<Arc<Journal>>,
    client: Arc<dyn TriggerClient>,
    name: CString,
    complaints: Atomic<u32>,
    /// See [`concerned`].
    concerned: u64,
}

/// Kinds of keys that have triggers.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Kind {
    Pointers,
    Reservation,
    Alloc,
    Inode,
    ReflinkP,
    IndirectInline,
    Stripe,
    Subvolume,
    Snapshot,
}

impl Kind {
    fn of(level: u8, key_type: KeyType) -> Option<Self> {
        Some(match key_type {
            KeyType::BTREE_PTR | KeyType::BTREE_PTR_V2 if level > 0 => Kind::Pointers,
            _ if level > 0 => return None,
            KeyType::EXTENT | KeyType::REFLINK_V => Kind::Pointers,
            KeyType::RESERVATION => Kind::Reservation,
            t if keys::is_alloc(t) => Kind::Alloc,
            t if inode::is_inode(t) => Kind::Inode,
            KeyType::REFLINK_P => Kind::ReflinkP,
            KeyType::INDIRECT_INLINE_DATA => Kind::IndirectInline,
            KeyType::STRIPE => Kind::Stripe,
            KeyType::SUBVOLUME => Kind::Subvolume,
            KeyType::SNAPSHOT => Kind::Snapshot,
            _ => return None,
        })
    }

    fn has_atomic(self) -> bool {
        matches!(self, Kind::Alloc | Kind::Inode | Kind::Snapshot)
    }
}

impl AllocTriggers {
    /// For a filesystem that is going to be written. May sleep.
    pub fn new(
        sup: &Super,
        accounting: Arc<Accounting>,
        snapshots: Arc<SnapshotTable>,
        journal: Arc<Journal>,
        client: Arc<dyn TriggerClient>,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(
            AllocTriggers {
                geometries: Geometries::new(sup)?,
                targets: Targets::new(sup)?,
                node_sectors: sup.btree_node_sectors.into(),
                accounting,
                snapshots,
                journal: Some(journal),
                client,
                name: CString::try_from_fmt(core::format_args!("{sup}"))?,
                complaints: Atomic::new(0),
                concerned: concerned(),
            },
            GFP_KERNEL,
        )?)
    }

    /// Without a superblock or a journal.
    #[cfg(bcachefs_kunit)]
    pub(super) fn for_tests(
        geometries: Geometries,
        targets: Targets,
        accounting: Arc<Accounting>,
        snapshots: Arc<SnapshotTable>,
        client: Arc<dyn TriggerClient>,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(
            AllocTriggers {
                geometries,
                targets,
                node_sectors: 8,
                accounting,
                snapshots,
                journal: None,
                client,
                name: CString::try_from_fmt(core::format_args!("test"))?,
                complaints: Atomic::new(0),
                concerned: concerned(),
            },
            GFP_KERNEL,
        )?)
    }

    /// How much did not go together so far.
    #[cfg(bcachefs_kunit)]
    pub(super) fn complaints(&self) -> u32 {
        self.complaints.load(Relaxed)
    }

    /// Says that something on disk does not go together; not without end.
    #[cold]
    fn complain(&self, text: fmt::Arguments<'_>) {
        if self.complaints.fetch_add(1, Relaxed) < COMPLAINTS_MAX {
            let name = self.name.to_str().unwrap_or("?");
            pr_err!("{name}: {text}\n");
        }
    }
}

/// The btrees in whose leaves keys with triggers may be, as a mask.
fn concerned() -> u64 {
    let types = || (0..=u8::MAX).map(KeyType).filter(|t| Kind::of(0, *t).is_some());
    let concerned = |btree: &u8| types().any(|t| types::allowed_in(BtreeId(*btree), t));
    (0..64).filter(concerned).fold(0, |mask, btree| mask | 1 << btree)
}

impl Triggers for AllocTriggers {
    fn concerns(&self, btree: BtreeId, level: u8) -> bool {
        level > 0 || self.concerned >> (btree.0 & 63) & 1 != 0
    }

    fn has_transactional(&self, _: BtreeId, level: u8, key: &Bkey) -> bool {
        Kind::of(level, key.key_type).is_some()
    }

    fn transactional(
        &self,
        t: &mut Attempt<'_>,
        place: Place,
        old: KeyRef<'_>,
        mut new: KeyMut<'_>,
    ) -> Trans {
        reflink::drop_unused(place, &mut new);
        let kind = |key_type| Kind::of(place.level, key_type);
        let (old_kind, new_kind) = (kind(old.key.key_type), kind(new.key.key_type));
        self.shared_work(t, place, old, &new)?;
        if let (true, Some(kind)) = (place.overwrite, old_kind) {
            match kind {
                Kind::Pointers if !extent::unchanged(place, old, &new) => {
                    self.pointers(t, place, old, false)?
                }
                Kind::Reservation => self.reservation(t, old, false)?,
                Kind::ReflinkP => self.unreference(t, old)?,
                Kind::Stripe => return Err(Error::Unsupported.into()),
                // What goes is dealt with together with what comes, if that is of the same kind.
                Kind::Alloc if new_kind != Some(kind) => self.alloc(t, place, old, &mut new)?,
                Kind::Inode if new_kind != Some(kind) => self.inode(t, old, &mut new)?,
                Kind::Subvolume if new_kind != Some(kind) => self.subvolume(t, old, new.get())?,
                _ => {}
            }
        }
        if let (true, Some(kind)) = (place.insert, new_kind) {
            match kind {
                Kind::Pointers if !extent::unchanged(place, old, &new) => {
                    self.pointers(t, place, new.get(), true)?
                }
                Kind::Reservation => self.reservation(t, new.get(), true)?,
                Kind::ReflinkP => self.reference(t, &mut new)?,
                Kind::Stripe => return Err(Error::Unsupported.into()),
                Kind::Alloc => self.alloc(t, place, old, &mut new)?,
                Kind::Inode => self.inode(t, old, &mut new)?,
                Kind::Subvolume => self.subvolume(t, old, new.get())?,
                Kind::Snapshot => self.prepare_snapshot(t)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn has_atomic(&self, _: BtreeId, level: u8, key: &Bkey) -> bool {
        Kind::of(level, key.key_type).is_some_and(Kind::has_atomic)
    }

    fn atomic(&self, place: Place, seq: u64, old: KeyRef<'_>, mut new: KeyMut<'_>) -> Result {
        let kind = |key_type| Kind::of(place.level, key_type);
        let (old_kind, new_kind) = (kind(old.key.key_type), kind(new.key.key_type));
        if !place.insert && old_kind == new_kind {
            // The call for what comes does it.
            return Ok(());
        }
        match new_kind.or(old_kind) {
            Some(Kind::Alloc) => self.alloc_committed(seq, old, &mut new),
            Some(Kind::Inode) => {
                inode::set_journal_seq(&mut new, seq);
                Ok(())
            }
            Some(Kind::Snapshot) => self.snapshots.changed(new.get()),
            _ => Ok(()),
        }
    }

    fn account(&self, delta: KeyRef<'_>, _: Bversion) -> core::result::Result<(), MissingReplicas> {
        self.accounting.add(delta)
    }

    fn unaccount(&self, delta: KeyRef<'_>) {
        self.accounting.subtract(delta)
    }

    fn mark_replicas(&self, deltas: &mut dyn Iterator<Item = KeyRef<'_>>) -> Result {
        self.accounting.mark_replicas(deltas)
    }

    fn used_sectors(&self, delta: KeyRef<'_>) -> i64 {
        counters::used_sectors(delta)
    }
}
