// SPDX-License-Identifier: GPL-2.0
//! Where the btrees begin.
//!
//! A root is read when its btree is first used and stays in memory from then on. A btree that has no root is represented by
//! an empty leaf for the whole key space that is not on disk; the first key that is put into it makes it a real one.

use super::node::{Flag, Node, NodeData, NodeHead, PtrKey};
use crate::{
    journal::{RootState, StartState},
    util::error::{Error, Result},
};
use bcachefs_format::{
    bkey::BKEY_U64S,
    btree_node::BTREE_MAX_DEPTH,
    jset::{
        build::{EntryWriter, JsetError},
        EntryType,
    },
    Bkey, Bpos, BtreeId, KeyRef,
};
use core::fmt;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, SpinLock,
    },
};
use kfs::sync::{six::SixLock, InlineAtomic};

/// The state of one root.
#[derive(Clone)]
pub(super) enum Root {
    /// In memory.
    Node(Arc<Node>),
    /// On disk: pointer and level.
    OnDisk(PtrKey, u8),
    /// Recorded as lost, or not a valid pointer.
    Lost,
}

#[pin_data]
struct Place {
    #[pin]
    root: SpinLock<Root>,
    /// For each level the newest entry of the journal that may have keys of nodes at it.
    changed: [Atomic<u64>; LEVELS],
    /// Whether the root may have one child only.
    lone: Atomic<u32>,
}

const LEVELS: usize = BTREE_MAX_DEPTH as usize;

/// The roots of all btrees.
pub(super) struct Roots {
    places: KVec<Pin<KBox<Place>>>,
}

/// The stand-in for the root of an empty btree.
fn fake(btree: BtreeId) -> Result<Arc<Node>> {
    let key = KeyRef {
        key: Bkey::deleted(Bpos::SPOS_MAX),
        value: &[],
    };
    let ptr = PtrKey::new(key).ok_or(Error::BtreeRootMissing)?;
    let flags = [Flag::READ_DONE, Flag::FAKE, Flag::NOEVICT];
    let head = NodeHead::new(btree, 0, u64::MAX - u64::from(btree.0), &ptr, &flags);
    Ok(Arc::pin_init(
        SixLock::new(NodeData::empty(), head),
        GFP_KERNEL,
    )?)
}

/// The pointer in `words`, an unpacked key.
fn pointer(words: &[u64]) -> Option<PtrKey> {
    let (header, value) = words.split_first_chunk::<{ BKEY_U64S as usize }>()?;
    let key = Bkey::from_words(header);
    let value = value.get(..usize::from(key.value_u64s()))?;
    if !key.key_type.is_btree_ptr() || key.pos != Bpos::SPOS_MAX {
        return None;
    }
    PtrKey::new(KeyRef { key, value })
}

impl Roots {
    /// From what the journal or the clean section says. May sleep.
    pub(super) fn new(start: &StartState) -> Result<Self> {
        let mut places = KVec::new();
        for id in 0..=BtreeId::MAX.0 {
            let id = BtreeId(id);
            let root = match start.root(id) {
                RootState::Absent => Root::Node(fake(id)?),
                RootState::Lost => Root::Lost,
                RootState::At(root) => match pointer(&root.key) {
                    Some(ptr) => Root::OnDisk(ptr, root.level),
                    None => Root::Lost,
                },
            };
            let place = KBox::pin_init(
                pin_init!(Place {
                    root <- new_spinlock!(root, "btree_root"),
                    changed: [const { Atomic::new(0) }; LEVELS],
                    lone: Atomic::new(0),
                }),
                GFP_KERNEL,
            )?;
            // The old journal may have keys for any level.
            for seq in &place.changed {
                seq.store(start.next_seq.saturating_sub(1), Relaxed);
            }
            places.push(place, GFP_KERNEL)?;
        }
        Ok(Roots { places })
    }

    #[inline]
    fn place(&self, btree: BtreeId) -> Option<&Place> {
        self.places.get(usize::from(btree.0)).map(|p| &**p)
    }

    /// The root of `btree`.
    #[inline]
    pub(super) fn get(&self, btree: BtreeId) -> Root {
        match self.places.get(usize::from(btree.0)) {
            Some(place) => place.root.lock().clone(),
            None => Root::Lost,
        }
    }

    /// Whether the root of `btree` is lost.
    pub(super) fn is_lost(&self, btree: BtreeId) -> bool {
        matches!(self.get(btree), Root::Lost)
    }

    /// The level of the root of `btree`; 0 if there is none.
    pub(super) fn level(&self, btree: BtreeId) -> u8 {
        match self.get(btree) {
            Root::Node(node) => node.shared().level,
            Root::OnDisk(_, level) => level,
            Root::Lost => 0,
        }
    }

    /// Notes that the root is in memory. Its lock must be held, so that it is not being evicted.
    pub(super) fn install(&self, btree: BtreeId, node: &Arc<Node>) {
        if let Some(place) = self.places.get(usize::from(btree.0)) {
            *place.root.lock() = Root::Node(node.clone());
        }
    }

    /// Makes `node` the root in the place of the one before, which must be held for write: whoever waits for that finds that it is
    /// not the root any more.
    pub(super) fn replace(&self, btree: BtreeId, node: &Arc<Node>) {
        let Some(place) = self.place(btree) else {
            return;
        };
        // Roots stay in memory.
        node.shared().set(Flag::NOEVICT);
        let old = core::mem::replace(&mut *place.root.lock(), Root::Node(node.clone()));
        if let Root::Node(old) = &old {
            old.shared().clear(Flag::NOEVICT);
        }
        // Nobody has looked yet.
        place.lone.store(u32::from(node.shared().level > 0), Relaxed);
    }

    /// What the root of `btree` is cached under, if it is in memory.
    pub(super) fn hash(&self, btree: BtreeId) -> Option<u64> {
        match self.get(btree) {
            Root::Node(node) => Some(node.shared().hash),
            _ => None,
        }
    }

    /// Notes that entry `seq` of the journal has keys of nodes of `btree` at `level`. Any context.
    pub(super) fn note_change(&self, btree: BtreeId, level: u8, seq: u64) {
        let newest = self
            .place(btree)
            .and_then(|p| p.changed.get(usize::from(level)));
        let Some(newest) = newest else {
            return;
        };
        let mut old = newest.load(Relaxed);
        while old < seq {
            match newest.cmpxchg(old, seq, Relaxed) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }

    /// The newest entry of the journal that may have keys of nodes of `btree` at `level`.
    pub(super) fn last_change(&self, btree: BtreeId, level: u8) -> u64 {
        self.place(btree)
            .and_then(|p| p.changed.get(usize::from(level)))
            .map_or(0, |seq| seq.load(Relaxed))
    }

    /// Notes whether the root of `btree` may have one child only.
    pub(super) fn set_lone(&self, btree: BtreeId, lone: bool) {
        if let Some(place) = self.place(btree) {
            place.lone.store(u32::from(lone), Relaxed);
        }
    }

    /// Whether the root of `btree` may have one child only.
    pub(super) fn is_lone(&self, btree: BtreeId) -> bool {
        self.place(btree).is_some_and(|p| p.lone.read() != 0)
    }

    /// Writes a record for each root there is. Sleeps for nothing.
    pub(super) fn records(&self, out: &mut EntryWriter<'_>) -> core::result::Result<(), JsetError> {
        for (id, _) in self.places.iter().enumerate() {
            let id = BtreeId(id as u8);
            match self.get(id) {
                Root::Node(node) if node.shared().has(Flag::FAKE) => {}
                Root::Node(node) => {
                    let head = node.shared();
                    out.root(id, head.level, &head.ptr().get())?;
                }
                Root::OnDisk(ptr, level) => out.root(id, level, &ptr.get())?,
                Root::Lost => out.record(EntryType::BTREE_ROOT, id, 0, &[])?,
            }
        }
        Ok(())
    }

    /// Whether `node` is the root of `btree`.
    #[inline]
    pub(super) fn is_root(&self, btree: BtreeId, node: &Arc<Node>) -> bool {
        match self.places.get(usize::from(btree.0)) {
            Some(place) => match &*place.root.lock() {
                Root::Node(root) => Arc::ptr_eq(root, node),
                _ => false,
            },
            None => false,
        }
    }

    /// Lets go of all nodes. Nothing can be found any more.
    pub(super) fn clear(&self) {
        for place in self.places.iter() {
            let old = core::mem::replace(&mut *place.root.lock(), Root::Lost);
            drop(old);
        }
    }

    /// Nodes to keep in memory for every transaction to be able to go on.
    pub(super) fn reserve(&self) -> usize {
        let deep = self.places.iter().filter(|p| match &*p.root.lock() {
            Root::Node(node) => node.shared().level > 0,
            Root::OnDisk(_, level) => *level > 0,
            Root::Lost => false,
        });
        16 + 8 * deep.count()
    }
}

impl fmt::Display for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, _) in self.places.iter().enumerate() {
            let id = BtreeId(id as u8);
            match self.get(id) {
                Root::Node(node) if node.shared().has(Flag::FAKE) => {}
                Root::Node(node) => writeln!(f, "{id}: {}", node.shared())?,
                Root::OnDisk(ptr, level) => {
                    writeln!(f, "{id}: level {level} {}, not read", ptr.get().key)?
                }
                Root::Lost => writeln!(f, "{id}: lost")?,
            }
        }
        Ok(())
    }
}
