// SPDX-License-Identifier: GPL-2.0
//! Changing the pointer to a node that stays where it is: how far it is written, and which copies there are.

use super::finish::FLAGS;
use crate::{
    btree::{
        node::{head::PTR_U64S_MAX, Flag, Node, PtrKey},
        trans::{update::UpdateFlags, Attempt, TransError},
        triggers::{KeyMut, Place},
        Btree,
    },
    util::error::{Error, Result},
};
use bcachefs_format::{
    bkey::BKEY_U64S,
    jset::{build::EntryWriter, EntryType},
    keys::{
        btree_ptr::{BtreePtr, BTREE_PTRS_MAX},
        extent::Ptr,
    },
    Bkey, KeyRef, KeyType,
};
use kernel::sync::Arc;

/// Words of the value of a pointer.
const VALUE_U64S: usize = PTR_U64S_MAX - BKEY_U64S as usize;

/// The pointer `old` with other sectors, and without copies on `failed` devices. `None`: no copy is left.
#[inline(never)]
fn changed(old: &PtrKey, sectors: u32, failed: &[u8]) -> Result<Option<PtrKey>> {
    let mut p = BtreePtr::parse(old.get())?;
    p.sectors_written = u16::try_from(sectors).map_err(|_| Error::BtreeNodeInvalid)?;
    let mut ptrs = [Ptr::new(0, 0, 0); BTREE_PTRS_MAX];
    let mut n = 0;
    let left = p.ptrs().filter(|ptr| !failed.contains(&ptr.dev()));
    for (to, ptr) in ptrs.iter_mut().zip(left) {
        *to = ptr;
        n += 1;
    }
    if n == 0 {
        return Ok(None);
    }
    let mut value = [0u64; VALUE_U64S];
    let words = p
        .build(ptrs.get(..n).unwrap_or(&[]), &mut value)
        .map_err(|_| Error::BtreeKeyInvalid)?;
    let key = Bkey {
        u64s: BKEY_U64S + words as u8,
        key_type: KeyType::BTREE_PTR_V2,
        ..Bkey::deleted(old.get().key.pos)
    };
    let value = value.get(..words).unwrap_or(&[]);
    Ok(PtrKey::new(KeyRef { key, value }))
}

impl Btree {
    /// A write of `node` other than its first has ended: records how far it is written, and that copies on `failed` devices are
    /// gone, in the pointer to it. Sleeps; no locks held.
    pub fn node_written(
        &self,
        node: &Arc<Node>,
        sectors_written: u32,
        failed: &[u8],
    ) -> Result {
        let head = node.shared();
        if head.has(Flag::DEAD) {
            return Ok(());
        }
        let old = head.ptr();
        // Old pointers do not say how far a node is written.
        if old.get().key.key_type != KeyType::BTREE_PTR_V2 && failed.is_empty() {
            return Ok(());
        }
        let Some(new) = changed(&old, sectors_written, failed)? else {
            return Err(Error::BtreeNodeWrite);
        };
        let (set, committed) = self.commit(None, FLAGS, |t| {
            self.set_pointer(t, node, &old, &new, failed.is_empty())
        })?;
        if set {
            head.set_ptr(new);
            self.roots
                .note_change(head.btree, head.level + 1, committed.seq);
        }
        Ok(())
    }

    /// Changes the pointer to `node` in the transaction. False: the node is not in the btree any more.
    #[inline(never)]
    fn set_pointer(
        &self,
        t: &mut Attempt<'_>,
        node: &Arc<Node>,
        old: &PtrKey,
        new: &PtrKey,
        same_copies: bool,
    ) -> core::result::Result<bool, TransError> {
        let head = node.shared();
        if self.roots.is_root(head.btree, node) {
            // Whoever replaces a root holds it for intent; so do we, until the commit.
            let index = t.keeper(head.btree, head.level, head.max(), None)?;
            let slot = t.path(index)?.slot(head.level);
            let kept = slot.and_then(|s| t.locks.lock_ref(s));
            let same = kept.is_some_and(|n| Arc::ptr_eq(n, node));
            if same && self.roots.is_root(head.btree, node) {
                return self.set_root_pointer(t, node, old, new, same_copies);
            }
        }
        if head.has(Flag::DEAD) {
            return Ok(false);
        }
        // Whoever replaces a node holds the one above it for intent.
        let above = head.level + 1;
        if self.roots.level(head.btree) < above {
            return Ok(false);
        }
        let index = t.keeper(head.btree, above, head.max(), None)?;
        let parent = t.path(index)?.slot(above).and_then(|s| t.node(s));
        let seq = |p: &PtrKey| BtreePtr::parse(p.get()).ok().and_then(|p| p.seq);
        let same = parent
            .and_then(|p| self.child_at(p, head.btree, above, head.max()))
            .is_some_and(|c| c.get().key.pos == head.max() && seq(&c) == seq(old));
        if !same || head.has(Flag::DEAD) {
            return Ok(false);
        }
        let flags = UpdateFlags {
            no_triggers: same_copies,
            ..UpdateFlags::default()
        };
        t.update_node_key(head.btree, above, new.get(), flags)?;
        Ok(true)
    }

    /// The same for a root, which is held for intent.
    #[inline(never)]
    fn set_root_pointer(
        &self,
        t: &mut Attempt<'_>,
        node: &Arc<Node>,
        old: &PtrKey,
        new: &PtrKey,
        same_copies: bool,
    ) -> core::result::Result<bool, TransError> {
        let head = node.shared();
        let mut words = [0u64; 1 + PTR_U64S_MAX];
        let mut records = EntryWriter::new(&mut words);
        records
            .key(EntryType::BTREE_ROOT, head.btree, head.level, &new.get())
            .map_err(|_| Error::BtreeKeyInvalid)?;
        let used = records.used();
        t.push_records(words.get(..used).unwrap_or(&[]))?;
        if same_copies {
            return Ok(true);
        }
        let k = new.get();
        let (mut key, mut words) = (k.key, [0u64; VALUE_U64S]);
        let value = words.get_mut(..k.value.len()).ok_or(Error::BtreeTopology)?;
        value.copy_from_slice(k.value);
        let place = Place {
            btree: head.btree,
            level: head.level + 1,
            insert: true,
            overwrite: true,
            invalidate: false,
            watermark: FLAGS.watermark,
        };
        let to = KeyMut {
            key: &mut key,
            value,
        };
        self.engine()?.triggers.transactional(t, place, old.get(), to)?;
        Ok(true)
    }
}
