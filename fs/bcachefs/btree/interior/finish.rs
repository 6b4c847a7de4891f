// SPDX-License-Identifier: GPL-2.0
//! Finishing updates: from new nodes that are durable to a btree that is.
//!
//! One work item finishes updates, in the order in which they became visible. Its commits may go where nobody else's may any more:
//! without them nothing can be written.
//!
//! | step | why then |
//! |---|---|
//! | devices are done with the old nodes | their space may be reused when the next step is durable |
//! | commit: pointers, root, and what they entail | the new nodes are durable; the old ones are intact |
//! | the node above takes note of the journal entry, and may be written | what it says of them is in the journal, so it will be ignored if that is lost |
//! | the pin of the update is let go | the old nodes' changes are in the new ones, which can be found now |
//! | new nodes may be written again, open buckets are released | |
//!
//! If the journal has failed nothing of this happens: the node above is never written, and on disk there is the old btree.

use super::{
    list::{Above, Written},
    update::{New, Old, Update},
};
use crate::{
    btree::{
        node::{head::PTR_U64S_MAX, Flag, Node, PtrKey},
        space::DiskReservation,
        trans::{update::CommitFlags, Attempt, TransError},
        triggers::{KeyMut, Place},
        write::WriteWhy,
        Btree,
    },
    util::{
        error::{Error, Result},
        watermark::Watermark,
    },
};
use bcachefs_format::{bkey::BKEY_U64S, Bkey, KeyRef};
use kernel::sync::Arc;
use kfs::sync::six::Mode;

/// Words of the value of a pointer.
const VALUE_U64S: usize = PTR_U64S_MAX - BKEY_U64S as usize;

/// How everything that finishes updates is committed.
pub(super) const FLAGS: CommitFlags = CommitFlags {
    watermark: Watermark::InteriorUpdates,
    no_enospc: true,
    no_check_rw: true,
    journal_reclaim: true,
    no_journal_res: None,
    skip_accounting: false,
    no_triggers: false,
};

/// An update that is in the journal, or never will be.
struct Journalled {
    written: Written,
    /// The entry; `None` if the journal has failed.
    seq: Option<u64>,
}

/// Finishes all updates that can be. Runs on a work queue.
pub(super) fn run(btree: &Arc<Btree>) {
    let _nofs = kfs::mem::NofsScope::enter();
    while let Some(written) = btree.interior.updates.next_written() {
        let journalled = btree.journal_update(written);
        btree.let_go(journalled);
    }
}

impl Btree {
    /// Makes the new nodes reachable for those who read the btree after a crash. Sleeps.
    fn journal_update(&self, written: Written) -> Journalled {
        let result = self.try_journal(written.update());
        if let (Err(e), Ok(engine)) = (&result, self.engine()) {
            if !engine.journal.failed() {
                self.fill
                    .report(format_args!("update of a btree failed: {}: {e}", &**written.update()));
                engine.journal.halt(*e);
            }
        }
        Journalled {
            written,
            seq: result.ok(),
        }
    }

    fn try_journal(&self, update: &Update) -> Result<u64> {
        let journal = &self.engine()?.journal;
        if journal.failed() {
            return Err(Error::JournalFailed);
        }
        if update.has_failed() {
            return Err(Error::BtreeNodeWrite);
        }
        for old in update.old.iter() {
            self.wait_node_io(&old.node);
        }
        let mut disk = self
            .interior
            .updates
            .take_disk(update.id)
            .unwrap_or_else(DiskReservation::none);
        let ((), committed) = self.commit(Some(&mut disk), FLAGS, |t| {
            t.push_records(&update.records)?;
            // Until the pin of the update is moved to the node above, it keeps the entry.
            t.pin_at_commit(&update.pin)?;
            for old in update.old.iter() {
                self.pointer_gone(t, old)?;
            }
            for new in update.new.iter() {
                self.pointer_came(t, new)?;
            }
            Ok(())
        })?;
        for level in 0..8u8 {
            if update.levels & (1 << level) != 0 {
                self.roots.note_change(update.btree, level, committed.seq);
            }
        }
        Ok(committed.seq)
    }

    /// What it entails that nothing points to an old node any more.
    fn pointer_gone(&self, t: &mut Attempt<'_>, old: &Old) -> core::result::Result<(), TransError> {
        let k = old.ptr.get();
        let mut nothing = Bkey::deleted(k.key.pos);
        let new = KeyMut {
            key: &mut nothing,
            value: &mut [],
        };
        self.pointer_trigger(t, &old.node, k.key, false, k, new)
    }

    /// What it entails that something points to a new node.
    fn pointer_came(&self, t: &mut Attempt<'_>, new: &New) -> core::result::Result<(), TransError> {
        let k = new.ptr.get();
        let nothing = KeyRef {
            key: Bkey::deleted(k.key.pos),
            value: &[],
        };
        let (mut key, mut words) = (k.key, [0u64; VALUE_U64S]);
        let value = words.get_mut(..k.value.len()).ok_or(Error::BtreeTopology)?;
        value.copy_from_slice(k.value);
        let to = KeyMut {
            key: &mut key,
            value,
        };
        self.pointer_trigger(t, &new.node, k.key, true, nothing, to)
    }

    fn pointer_trigger(
        &self,
        t: &mut Attempt<'_>,
        node: &Node,
        key: Bkey,
        insert: bool,
        old: KeyRef<'_>,
        new: KeyMut<'_>,
    ) -> core::result::Result<(), TransError> {
        let head = node.shared();
        let place = Place {
            btree: head.btree,
            level: head.level + 1,
            insert,
            overwrite: !insert,
            invalidate: false,
            watermark: FLAGS.watermark,
        };
        let triggers = &self.engine()?.triggers;
        if !triggers.has_transactional(place.btree, place.level, &key) {
            return Ok(());
        }
        triggers.transactional(t, place, old, new)
    }

    /// Lets go of everything that an update held back. Sleeps.
    fn let_go(&self, journalled: Journalled) {
        let Journalled { written, seq } = journalled;
        let update = written.update();
        self.let_go_above(update, seq);
        if let Ok(engine) = self.engine() {
            engine.journal.unpin(&update.pin);
        }
        for new in update.new.iter() {
            let head = new.node.shared();
            if seq.is_none() {
                head.set(Flag::NEVER_WRITE);
            }
            head.clear(Flag::WILL_MAKE_REACHABLE);
            self.write_if_needed(&new.node);
            if seq.is_some() && new.failed_devices().next().is_some() {
                self.drop_failed_copies(new);
            }
        }
        self.interior.updates.remove(written);
    }

    /// Tells what is above the new nodes that its pointers to them are in journal entry `seq`; or that they never will be.
    fn let_go_above(&self, update: &Update, seq: Option<u64>) {
        loop {
            match self.interior.updates.above(update.id) {
                Above::Nothing => return,
                Above::Heir(heir) => {
                    // What it has copied from that node reaches the journal with it.
                    if let (Some(seq), Ok(engine)) = (seq, self.engine()) {
                        engine.journal.pin(&heir.pin, seq);
                    }
                    return;
                }
                Above::Parent(parent) => match self.unblock(update, &parent, seq) {
                    Ok(true) => return,
                    // It has been replaced meanwhile.
                    Ok(false) => {}
                    Err(e) => {
                        parent.shared().set(Flag::NEVER_WRITE);
                        if let Ok(engine) = self.engine() {
                            engine.journal.halt(e);
                        }
                        return;
                    }
                },
            }
        }
    }

    /// Whether `parent` still was what is above the new nodes, and has been told.
    fn unblock(&self, update: &Update, parent: &Arc<Node>, seq: Option<u64>) -> Result<bool> {
        let head = parent.shared();
        self.run(|t| {
            let slot = t.locks.reference(parent)?;
            t.locks.lock(slot, Mode::Write)?;
            // Under this lock nobody can replace it.
            let still = matches!(
                self.interior.updates.above(update.id),
                Above::Parent(p) if Arc::ptr_eq(&p, parent)
            );
            if !still {
                return Ok(false);
            }
            match seq {
                Some(seq) => {
                    if let Some(data) = t.locks.get_mut(slot) {
                        data.note_seq(seq);
                    }
                    self.dirtied(head, Some(seq));
                }
                None => {
                    head.set(Flag::NEVER_WRITE);
                }
            }
            if self.interior.updates.unblock(update.id) {
                head.clear(Flag::WRITE_BLOCKED);
            }
            t.locks.downgrade(slot, Mode::Read);
            if let Some(data) = t.locks.get(slot) {
                // If it cannot be started now, because one is in flight for example, it is when that has ended.
                let _ = self.write_node(parent, data, WriteWhy::Needed, None);
            }
            t.forget_all();
            Ok(true)
        })
    }

    /// Some copies of a new node could not be written: takes them out of the pointer to it.
    fn drop_failed_copies(&self, new: &New) {
        let mut devices = [0; 64];
        let mut n = 0;
        for (to, dev) in devices.iter_mut().zip(new.failed_devices()) {
            *to = dev;
            n += 1;
        }
        let failed = devices.get(..n).unwrap_or(&[]);
        let sectors = sectors_written(&new.ptr);
        if let Err(e) = self.node_written(&new.node, sectors, failed) {
            self.fill.report(format_args!(
                "{}: cannot drop copies that were not written: {e}",
                new.node.shared()
            ));
        }
    }
}

/// How much of a node is written, by the pointer to it.
fn sectors_written(ptr: &PtrKey) -> u32 {
    bcachefs_format::keys::btree_ptr::BtreePtr::parse(ptr.get())
        .map_or(0, |p| p.sectors_written.into())
}
