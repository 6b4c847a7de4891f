// SPDX-License-Identifier: GPL-2.0
//! Making new nodes, and putting them in the place of old ones.
//!
//! Until [`Draft::publish`] nothing has happened: new nodes are in the cache, locked, and nobody knows of them. Publishing first
//! takes the locks that it needs, which may fail; from then on it neither waits nor fails. When it is done lookups find
//! the new nodes, while on disk and in the journal there are still the old ones:
//!
//! - the first writes of the new nodes are on their way, and further ones are not allowed yet;
//! - the node above them has their pointers, and must not be written until these are in the journal;
//! - the old nodes are dead, and what they had not written stays in the journal by the pin of the update.

use super::{
    list::{Entry, Ticket},
    plan::{Goal, Plan, RootChange, Step},
    reserve::{NodeReserve, Spare},
    update::{New, Old, Update, What, EDITS_MAX, NEW_MAX},
    way::{Held, Tried},
};
use crate::{
    btree::{
        cache::Inserted,
        node::{
            shape::{self, Half},
            Flag, NodeData, NodeExclusive, NodeHead, PtrKey, Shape, Sibling,
        },
        space::NodePlace,
        trans::Attempt,
        write::WriteWhy,
        Btree,
    },
    journal::engine::Journal,
    util::{
        counters::Counter,
        error::{Error, Result},
    },
};
use bcachefs_format::{
    bkey::BKEY_U64S,
    jset::{build::EntryWriter, EntryType},
    keys::btree_ptr::BtreePtr,
    Bkey, Bpos, BtreeId, KeyRef, KeyType,
};
use kernel::{
    prelude::*,
    sync::{Arc, UniqueArc},
};

/// Words of the value of a pointer.
const VALUE_U64S: usize = crate::btree::node::head::PTR_U64S_MAX - BKEY_U64S as usize;

/// A pointer that is put into a node, or deleted from it.
#[derive(Copy, Clone)]
struct Edit {
    /// Level of the node.
    level: u8,
    /// The pointer, or a key of type `deleted`.
    key: PtrKey,
}

impl Edit {
    fn pos(&self) -> Bpos {
        self.key.get().key.pos
    }

    fn deletes(&self) -> bool {
        self.key.get().key.key_type == KeyType::DELETED
    }
}

/// A new node that nobody knows of.
struct Fresh {
    node: NodeExclusive,
    ptr: PtrKey,
    /// Has its place until the update is published, and what its first write needs until that is started.
    spare: KBox<Spare>,
}

/// A pointer of type `btree_ptr_v2` to a node with these keys and the number `seq`.
#[inline(never)]
fn pointer(seq: u64, data: &NodeData, place: &NodePlace) -> Result<PtrKey> {
    let sectors = u16::try_from(data.first_write_sectors()).map_err(|_| Error::BtreeNodeInvalid)?;
    let ptrs = place.ptrs.get(..usize::from(place.nr)).unwrap_or(&[]);
    let mut value = [0u64; VALUE_U64S];
    let n = BtreePtr::new(seq, sectors, data.min(), data.max())
        .build(ptrs, &mut value)
        .map_err(|_| Error::BtreeKeyInvalid)?;
    let key = Bkey {
        u64s: BKEY_U64S + n as u8,
        key_type: KeyType::BTREE_PTR_V2,
        ..Bkey::deleted(data.max())
    };
    let value = value.get(..n).unwrap_or(&[]);
    PtrKey::new(KeyRef { key, value }).ok_or(Error::BtreeKeyInvalid)
}

/// The same keys. False: they do not fit.
fn rewrite(old: &NodeData, spare: &mut Spare) -> bool {
    shape::compact(old, &mut spare.mem, &mut spare.data)
}

/// The keys of both. False: they do not fit.
fn unite(left: &NodeData, right: &NodeData, spare: &mut Spare) -> bool {
    shape::merge(left, right, &mut spare.mem, &mut spare.data)
}

/// The keys, divided. False: there is nothing to divide.
#[inline(never)]
fn divide(
    old: &NodeData,
    left: &mut Spare,
    right: &mut Spare,
    may_not_end: &dyn Fn(Bpos) -> bool,
) -> bool {
    let Some(cut) = shape::cut(old, may_not_end) else {
        return false;
    };
    shape::half(old, &cut, Half::Left, &mut left.mem, &mut left.data)
        && shape::half(old, &cut, Half::Right, &mut right.mem, &mut right.data)
}

/// No keys, for everything.
fn blank(shape: Shape, spare: &mut Spare) -> bool {
    shape::blank(Bpos::POS_MIN, Bpos::SPOS_MAX, shape, &mut spare.mem, &mut spare.data)
}

/// A key that deletes what is at `pos`.
#[inline(never)]
fn deletion(pos: Bpos) -> Result<PtrKey> {
    let key = Bkey::deleted(pos);
    PtrKey::new(KeyRef { key, value: &[] }).ok_or(Error::BtreeKeyInvalid)
}

/// A number for a node: random, not that of nothing, nor that of a stand-in for a root.
fn new_seq() -> u64 {
    loop {
        let seq = kfs::random::u64();
        if seq != 0 && seq < u64::MAX - 64 {
            return seq;
        }
    }
}

/// See the module's description.
pub(super) struct Draft<'b> {
    btree: &'b Btree,
    ticket: Option<Ticket<'b>>,
    update: Option<UniqueArc<Update>>,
    /// The lowest first.
    fresh: KVec<Fresh>,
    edits: KVec<Edit>,
    /// The node that becomes the root is the last one made.
    new_root: Option<u8>,
}

impl<'b> Draft<'b> {
    /// Announces an update. May sleep: no lock of a node may be held.
    pub(super) fn begin(btree: &'b Btree, goal: &Goal) -> Result<Self> {
        let ticket = btree.interior.updates.begin()?;
        let what = What::Compact;
        let update = Update::new(ticket.id(), goal.btree, goal.level, what)?;
        Ok(Draft {
            btree,
            ticket: Some(ticket),
            update: Some(update),
            fresh: KVec::with_capacity(NEW_MAX, GFP_KERNEL)?,
            edits: KVec::with_capacity(EDITS_MAX, GFP_KERNEL)?,
            new_root: None,
        })
    }

    /// Makes the new nodes of `plan`, whose old ones are held for intent, from `reserve`.
    pub(super) fn fill(
        &mut self,
        t: &Attempt<'_>,
        goal: &Goal,
        plan: &Plan,
        reserve: &mut NodeReserve<'_>,
    ) -> Tried {
        for level in plan.lowest..=plan.highest {
            let step = plan
                .steps
                .get(usize::from(level))
                .ok_or(Error::BtreeTopology)?;
            let top = level == plan.highest;
            // Nobody above is told of a node that becomes the root.
            let tells = plan.what != What::Shrink && !(top && plan.root != RootChange::Keep);
            self.fill_level(t, goal, level, step, tells, reserve)?;
        }
        let root = match plan.root {
            RootChange::Keep => None,
            RootChange::Replace => self.fresh.last().map(|f| f.node.lock().shared().level),
            RootChange::Grow => Some(self.fill_root(goal, plan.highest + 1, reserve)?),
        };
        self.new_root = root;
        Ok(self.write_records(plan)?)
    }

    #[inline(never)]
    fn fill_level(
        &mut self,
        t: &Attempt<'_>,
        goal: &Goal,
        level: u8,
        step: &Step,
        tells: bool,
        reserve: &mut NodeReserve<'_>,
    ) -> Tried {
        let [first, second] = &step.old;
        let Some(first) = first.as_ref().filter(|_| step.makes != 0) else {
            return Ok(());
        };
        let old = t.keys_of(first)?;
        let mut generation = old.generation() + 1;
        let mut spare = reserve.take()?;
        let mut more = None;
        let made = match (second, step.makes) {
            (Some(second), _) => {
                let right = t.keys_of(second)?;
                generation = generation.max(right.generation() + 1);
                if tells {
                    self.edit(level + 1, deletion(old.max())?)?;
                }
                unite(old, right, &mut spare)
            }
            (None, 1) if first.node.shared().has(Flag::FAKE) => {
                blank(self.btree.shape(), &mut spare)
            }
            (None, 1) => rewrite(old, &mut spare),
            _ => {
                let right = more.insert(reserve.take()?);
                let ends = |pos| self.may_not_end(goal, level, pos);
                divide(old, &mut spare, right, &ends)
            }
        };
        if !made {
            // The keys are not what they were found to be.
            self.btree.fill.report(format_args!(
                "btree {} level {level} node up to {}: cannot be divided or merged",
                goal.btree,
                old.max()
            ));
            return Err(Error::BtreeTopology.into());
        }
        for spare in [Some(spare), more].into_iter().flatten() {
            self.make(goal, level, generation, spare)?;
            self.put_edits(level)?;
            self.enter()?;
            if let Some(ptr) = self.fresh.last().map(|f| f.ptr).filter(|_| tells) {
                self.edit(level + 1, ptr)?;
            }
        }
        Ok(())
    }

    /// Puts the edits of nodes at `level` into the node made last, as far as they are in its range.
    #[inline(never)]
    fn put_edits(&mut self, level: u8) -> Result {
        let Some(fresh) = self.fresh.last_mut() else {
            return Ok(());
        };
        for edit in self.edits.iter().filter(|e| e.level == level) {
            if fresh.node.covers(edit.pos()) {
                let done = fresh.node.insert(edit.key.get(), 0);
                done.map_err(|_| Error::BtreeTopology)?;
            }
        }
        Ok(())
    }

    /// A root at `level` above the two nodes made last.
    #[inline(never)]
    fn fill_root(
        &mut self,
        goal: &Goal,
        level: u8,
        reserve: &mut NodeReserve<'_>,
    ) -> Tried<u8> {
        let mut spare = reserve.take()?;
        blank(self.btree.shape(), &mut spare);
        self.make(goal, level, 0, spare)?;
        if let Some((root, below)) = self.fresh.split_last_mut() {
            for child in below.iter().rev().take(2).rev() {
                let done = root.node.insert(child.ptr.get(), 0);
                done.map_err(|_| Error::BtreeTopology)?;
            }
        }
        self.enter()?;
        Ok(level)
    }

    /// Whether the left one of two halves of a node must not end at `pos`, because no child ends there, or will.
    fn may_not_end(&self, goal: &Goal, level: u8, pos: Bpos) -> bool {
        if level == 0 {
            return false;
        }
        let here = |e: &&Edit| e.level == level && e.pos() == pos;
        match self.edits.iter().rev().find(here) {
            Some(edit) => edit.deletes(),
            None => self.btree.deleted_in_journal(goal.btree, level, pos),
        }
    }

    fn edit(&mut self, level: u8, key: PtrKey) -> Result<()> {
        self.edits
            .push_within_capacity(Edit { level, key })
            .map_err(|_| Error::BtreeTopology)
    }

    /// Makes a node of what has been put together in `spare`.
    #[inline(never)]
    fn make(&mut self, goal: &Goal, level: u8, generation: u32, mut spare: KBox<Spare>) -> Tried {
        let seq = new_seq();
        let (Some(seat), Some(place)) = (spare.seat.take(), spare.place.as_ref()) else {
            return Err(Error::BtreeTopology.into());
        };
        let ptr = pointer(seq, &spare.data, place)?;
        let flags = [
            Flag::READ_DONE,
            Flag::ACCESSED,
            Flag::NEED_WRITE,
            Flag::WILL_MAKE_REACHABLE,
        ];
        let head = NodeHead::new(goal.btree, level, seq, &ptr, &flags);
        let mut node = match seat.occupy(NodeData::empty(), head) {
            Ok(node) => node,
            Err(never) => match never {},
        };
        core::mem::swap(&mut *node, &mut spare.data);
        node.set_identity(seq, generation, 0);
        let fresh = Fresh { node, ptr, spare };
        match self.fresh.push_within_capacity(fresh) {
            Ok(()) => Ok(()),
            Err(_) => Err(Error::BtreeTopology.into()),
        }
    }

    /// Enters the node made last, which has all its keys, into the cache.
    #[inline(never)]
    fn enter(&mut self) -> Result {
        let Some(fresh) = self.fresh.last_mut() else {
            return Ok(());
        };
        let node = fresh.node.lock();
        let head = node.shared();
        if let Some(place) = fresh.spare.place.as_ref() {
            fresh.ptr = pointer(head.hash, &fresh.node, place)?;
            head.set_ptr(fresh.ptr);
        }
        // What it has for itself is the least that it can have together with a neighbour.
        let live = Some(fresh.node.live_u64s() as u32);
        head.set_sibling(Sibling::Prev, live);
        head.set_sibling(Sibling::Next, live);
        let cache = &self.btree.fill.cache;
        if let Inserted::Lost(_) = cache.insert(node)? {
            // Random numbers do not repeat.
            return Err(Error::BtreeTopology);
        }
        cache.account(node, fresh.node.bytes());
        Ok(())
    }

    /// Puts what the journal will say into the update.
    #[inline(never)]
    fn write_records(&mut self, plan: &Plan) -> Result<()> {
        let Some(update) = self.update.as_mut() else {
            return Err(Error::BtreeTopology);
        };
        let btree = update.btree;
        let mut levels = 0;
        let mut records = EntryWriter::new(&mut update.records);
        for edit in self.edits.iter() {
            records
                .key(EntryType::BTREE_KEYS, btree, edit.level, &edit.key.get())
                .map_err(|_| Error::BtreeTopology)?;
            levels |= 1 << edit.level;
        }
        if let Some((level, root)) = self.new_root.zip(self.fresh.last()) {
            records
                .root(btree, level, &root.ptr.get())
                .map_err(|_| Error::BtreeTopology)?;
        }
        let used = records.used();
        update.records.truncate(used);
        update.levels = levels;
        update.level = plan.lowest;
        update.what = plan.what;
        Ok(())
    }

    /// Puts the new nodes in the place of the old ones, in memory, and starts to write them. Sleeps for locks; gives up all locks
    /// and paths of `t` when it succeeds.
    pub(super) fn publish(
        mut self,
        t: &mut Attempt<'_>,
        plan: &Plan,
        reserve: &mut NodeReserve<'_>,
    ) -> Tried {
        let btree = self.btree;
        let journal = &btree.engine()?.journal;
        btree.lock_planned(t, plan)?;
        let (Some(mut update), Some(ticket)) = (self.update.take(), self.ticket.take()) else {
            return Err(Error::BtreeTopology.into());
        };

        // From here on nothing fails.
        self.name_nodes(plan, &mut update);
        let update: Arc<Update> = update.into();
        // The place in the list first, so that those who end a write find it.
        self.announce(plan, &update, ticket, reserve);
        self.write_new();
        for held in plan.old() {
            btree.bury(t, held, &update, journal);
        }
        self.tell_parent(t, plan);
        self.set_root();
        self.count(plan);
        // The old ones are dead, so that nobody finds them once somebody may change the new ones.
        self.fresh.clear();
        t.forget_all();
        if update.ended() {
            btree.interior.kick();
        }
        Ok(())
    }

    /// Has the update name the nodes that come and go. There is room in all lists for as many as an update can have.
    #[inline(never)]
    fn name_nodes(&mut self, plan: &Plan, update: &mut Update) {
        for held in plan.old().filter(|h| !h.node.shared().has(Flag::FAKE)) {
            let _ = update.old.push_within_capacity(Old {
                node: held.node.clone(),
                ptr: held.node.shared().ptr(),
            });
        }
        for fresh in self.fresh.iter_mut() {
            let Some(NodePlace { open, .. }) = fresh.spare.place.take() else {
                continue;
            };
            update.expect_write();
            let new = New::about_to_be_written(fresh.node.lock().clone(), fresh.ptr, open);
            let _ = update.new.push_within_capacity(new);
        }
    }

    #[inline(never)]
    fn announce(
        &self,
        plan: &Plan,
        update: &Arc<Update>,
        ticket: Ticket<'b>,
        reserve: &mut NodeReserve<'_>,
    ) {
        let entry = Entry {
            update: update.clone(),
            parent: plan.parent.as_ref().map(|p| p.node.clone()),
            heir: None,
            disk: Some(reserve.take_disk()),
        };
        self.btree.interior.updates.publish(ticket, entry);
    }

    /// Starts the first writes. Their content is copied while nobody else can change it.
    #[inline(never)]
    fn write_new(&mut self) {
        for fresh in self.fresh.iter_mut() {
            let node = fresh.node.lock();
            self.btree.dirtied(node.shared(), None);
            let mem = fresh.spare.write.take();
            let started = self.btree.write_node(node, &fresh.node, WriteWhy::Needed, mem);
            if started.is_err() {
                // As when the journal has failed: the update will not be finished.
                self.btree.interior.updates.node_written(node, &[], true);
            }
        }
    }

    /// Puts the pointers into the node above the topmost new ones, which is held for write.
    #[inline(never)]
    fn tell_parent(&self, t: &mut Attempt<'_>, plan: &Plan) {
        let btree = self.btree;
        if let Some(id) = self.fresh.first().map(|f| f.node.lock().shared().btree) {
            for edit in self.edits.iter() {
                btree.keys.overwritten(id, edit.level, edit.pos());
            }
        }
        let Some(parent) = plan.parent.as_ref() else {
            return;
        };
        let head = parent.node.shared();
        let Some(data) = t.locks.get_mut(parent.slot) else {
            return;
        };
        for edit in self.edits.iter().filter(|e| e.level == head.level) {
            // There is room: it was made ready under this lock.
            let change = data.insert(edit.key.get(), 0).unwrap_or_default();
            if change.live_u64s < 0 {
                head.shrunk(change.live_u64s.unsigned_abs());
            }
        }
        head.set(Flag::WRITE_BLOCKED);
        head.set(Flag::NEED_WRITE);
        btree.dirtied(head, None);
    }

    fn set_root(&self) {
        let (Some(_), Some(root)) = (self.new_root, self.fresh.last()) else {
            return;
        };
        let btree = self.btree;
        let node = root.node.lock();
        btree.roots.replace(node.shared().btree, node);
        btree.fill.cache.set_reserve(btree.roots.reserve());
        btree.counters.inc(Counter::BTREE_NODE_SET_ROOT);
    }

    fn count(&self, plan: &Plan) {
        let counters = &self.btree.counters;
        counters.inc(match plan.what {
            What::Split => Counter::BTREE_NODE_SPLIT,
            What::Compact => Counter::BTREE_NODE_COMPACT,
            What::Merge => Counter::BTREE_NODE_MERGE,
            What::Rewrite | What::Shrink => Counter::BTREE_NODE_REWRITE,
        });
        for _ in self.fresh.iter() {
            counters.inc(Counter::BTREE_NODE_ALLOC);
        }
        for _ in plan.old() {
            counters.inc(Counter::BTREE_NODE_FREE);
        }
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // What was not published: nobody has heard of these nodes.
        for fresh in self.fresh.iter_mut() {
            if let Some(place) = fresh.spare.place.take() {
                let node = fresh.node.lock();
                self.btree.fill.cache.forget(node);
                node.shared().set(Flag::DEAD);
                self.btree.interior.places.put(place);
            }
        }
    }
}

impl Btree {
    /// Lets go of a node that has been replaced by `update`. The node is held for write. Does not sleep.
    #[inline(never)]
    fn bury(&self, t: &mut Attempt<'_>, held: &Held, update: &Arc<Update>, journal: &Journal) {
        let node = &held.node;
        let head = node.shared();
        head.set(Flag::DYING);
        self.undirtied(head);
        head.clear(Flag::WRITE_BLOCKED);
        self.interior.updates.inherit(node, update, journal);
        for pin in head.pins().into_iter().flatten() {
            journal.pin_copy(&update.pin, pin);
            journal.unpin(pin);
        }
        self.fill.cache.forget(node);
        // A stand-in for a root was not in the cache.
        head.set(Flag::DEAD);
        if let Some(data) = t.locks.get_mut(held.slot) {
            data.reset();
        }
    }

    /// Whether the journal says that the pointer at `pos` of nodes at `level` is deleted, and that has not reached the node yet.
    fn deleted_in_journal(&self, btree: BtreeId, level: u8, pos: Bpos) -> bool {
        let Some(keys) = self.overlay(btree, level) else {
            return false;
        };
        keys.get(keys.lower_bound(pos))
            .is_some_and(|k| k.key.pos == pos && k.key.key_type == KeyType::DELETED)
    }
}
