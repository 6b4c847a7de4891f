// SPDX-License-Identifier: GPL-2.0
//! Going a path.

use super::{child::AHEAD_MAX, table::mode};
use crate::{
    btree::{
        fill::{Buffer, Filling, ReadOp},
        node::{hash_key, Flag, Node, NodeData, NodeLocks, PtrKey},
        roots::Root,
        trans::{Attempt, Reason, TransError},
    },
    util::error::Error,
};
use bcachefs_format::{btree_node::BTREE_MAX_DEPTH, keys::btree_ptr::BtreePtr, Bpos};
use kernel::{prelude::*, sync::Arc};
use kfs::sync::six::{LockError, Mode, Slot};

/// Keys a cursor is moved over before the node is searched anew.
const STEPS_MAX: usize = 8;
/// How often a path is gone before it is left to a restart. Each time some other transaction got on.
const TRIES_MAX: usize = 64;

/// How far one try got.
enum Step {
    /// To the node; `None` if the tree is not that high.
    There(Option<Slot>),
    /// Locks were given up to wait for something: once more.
    Again,
}

/// The keys of a locked node, unless it has been replaced: it may have been locked since, by another path that found it dead.
#[inline]
fn alive(locks: &NodeLocks, slot: Slot) -> Option<&NodeData> {
    let dead = locks.lock_ref(slot)?.shared().has(Flag::DEAD);
    locks.get(slot).filter(|_| !dead)
}

impl<'t> Attempt<'t> {
    /// Makes the path lead to `pos`, with its node locked (for intent, if the path wants that) and its cursor before the first
    /// key that is not below `pos`. Reads `ahead` more nodes if the way to them is gone anyway. `None`: the tree has no node at the
    /// path's level.
    pub(in crate::btree) fn traverse(
        &mut self,
        index: u8,
        pos: Bpos,
        ahead: usize,
    ) -> Result<Option<Slot>, TransError> {
        self.check()?;
        for _ in 0..TRIES_MAX {
            if let Some(slot) = self.stay(index, pos)? {
                return Ok(Some(slot));
            }
            match self.descend(index, pos, ahead)? {
                Step::There(slot) => return Ok(slot),
                Step::Again => {}
            }
        }
        Err(self.restart(Reason::NodeReused))
    }

    /// Brings the root of the path's tree into memory.
    pub(in crate::btree) fn traverse_root(&mut self, index: u8) -> Result<(), TransError> {
        self.check()?;
        for _ in 0..TRIES_MAX {
            if let Some((slot, _)) = self.lock_root(index)? {
                self.unlock_unless_needed(index, slot);
                return Ok(());
            }
        }
        Err(self.restart(Reason::NodeReused))
    }

    /// Moves within the node the path leads to, if it is or can be locked and covers `pos`.
    #[inline]
    fn stay(&mut self, index: u8, pos: Bpos) -> Result<Option<Slot>, TransError> {
        let path = self.path(index)?;
        let (level, hold, mut ready, old, seq) =
            (path.level, path.hold, path.ready, path.pos, path.seq);
        let kept = path.kept;
        let Some(slot) = path.slot(level) else {
            return Ok(None);
        };
        let want = self.paths.want(path);
        let locked = self.locks.relock(slot, mode(want, level));
        // Another path may have locked the node when it had changed already.
        let now = self.locks.seq(slot).unwrap_or(seq);
        ready &= now == seq;
        if !locked || (hold && now != seq) {
            if kept || hold && pos == old {
                return Err(self.relock_failed(index, slot));
            }
            return Ok(None);
        }
        if want > level + 1 && !self.relock_above(index)? {
            return match kept {
                true => Err(self.relock_failed(index, slot)),
                false => Ok(None),
            };
        }
        let Some(node) = alive(self.locks, slot) else {
            return match kept {
                true => Err(self.relock_failed(index, slot)),
                false => Ok(None),
            };
        };
        if !node.covers(pos) {
            return Ok(None);
        }
        let Some(path) = self.paths.get_mut(index) else {
            return Ok(None);
        };
        debug_assert!(!ready || path.cursor == node.seek(old));
        if ready && pos == old {
            return Ok(Some(slot));
        }
        path.hold = kept;
        path.pos = pos;
        path.ready = true;
        path.seq = now;
        if ready && pos > old {
            // Usually it is the next key, or one not far behind it.
            for _ in 0..STEPS_MAX {
                match path.cursor.next(node).filter(|f| f.key.pos(node.format()) < pos) {
                    Some(below) => path.cursor.step(&below),
                    None => return Ok(Some(slot)),
                }
            }
        }
        path.cursor = node.seek(pos);
        Ok(Some(slot))
    }

    /// Goes from the nearest node that covers `pos` down to the path's level.
    fn descend(&mut self, index: u8, pos: Bpos, ahead: usize) -> Result<Step, TransError> {
        if self.path(index)?.kept {
            self.hand_over(index)?;
        }
        let path = self.path(index)?;
        let target = path.level;
        let want = self.paths.want(path);
        // From the highest one that is to stay locked, so that all are.
        let mut level = target.max(want.saturating_sub(1)).min(BTREE_MAX_DEPTH - 1);
        for l in target..level {
            self.leave(index, l);
        }
        let mut at = None;
        while level < BTREE_MAX_DEPTH {
            if let Some(slot) = self.path(index)?.slot(level) {
                if self.locks.relock(slot, mode(want, level))
                    && alive(self.locks, slot).is_some_and(|n| n.covers(pos))
                {
                    at = Some(slot);
                    break;
                }
                self.leave(index, level);
            }
            level += 1;
        }
        if let Some(path) = self.paths.get_mut(index) {
            path.hold = false;
            path.ready = false;
        }
        let mut slot = match at {
            Some(slot) => slot,
            None => match self.lock_root(index)? {
                Some((slot, root_level)) => {
                    level = root_level;
                    slot
                }
                None => return Ok(Step::Again),
            },
        };
        if level < target {
            self.unlock_unless_needed(index, slot);
            return Ok(Step::There(None));
        }
        // Holds for a node reached from its parent; a root that does not cover everything would have a search go round in
        // circles at its edge.
        if !self.locks.get(slot).is_some_and(|n| n.covers(pos)) {
            let id = self.path(index)?.btree;
            self.btree.fill.report(format_args!(
                "btree {id} level {level}: the root does not cover {pos}"
            ));
            return Err(Error::BtreeTopology.into());
        }
        while level > target {
            let n = if level == target + 1 { ahead } else { 0 };
            match self.step_down(index, slot, level, pos, n)? {
                Some(child) => slot = child,
                None => return Ok(Step::Again),
            }
            level -= 1;
        }
        let Some(node) = self.locks.get(slot) else {
            return Ok(Step::Again);
        };
        let cursor = node.seek(pos);
        let seq = self.locks.seq(slot).unwrap_or(0);
        if let Some(path) = self.paths.get_mut(index) {
            path.cursor = cursor;
            path.pos = pos;
            path.ready = true;
            path.seq = seq;
        }
        Ok(Step::There(Some(slot)))
    }

    /// Gives up the node at `level` of a path, but not its lock if another path needs it.
    fn leave(&mut self, index: u8, level: u8) {
        if let Some(path) = self.paths.get_mut(index) {
            path.drop_level(level, self.locks);
        }
    }

    pub(in crate::btree) fn unlock_unless_needed(&mut self, index: u8, slot: Slot) {
        if !self.paths.needs(self.live, index, slot) {
            self.locks.unlock(slot);
        }
    }

    /// Locks the root. `None`: had to wait, try again.
    #[inline(never)]
    fn lock_root(&mut self, index: u8) -> Result<Option<(Slot, u8)>, TransError> {
        let btree = self.path(index)?.btree;
        let (node, install) = match self.btree.roots.get(btree) {
            Root::Node(node) => (node, false),
            Root::Lost => return Err(Error::BtreeRootMissing.into()),
            Root::OnDisk(ptr, level) => {
                let hash = hash_key(&ptr)?;
                let Some(node) = self.btree.fill.cache.get(hash) else {
                    self.read_node(index, btree, level, &ptr)?;
                    return Ok(None);
                };
                if !self.usable(index, &node, btree, level, &ptr)? {
                    return Ok(None);
                }
                (node, true)
            }
        };
        let head = node.shared();
        let mode = mode(self.paths.want(self.path(index)?), head.level);
        let Some(slot) = self.lock_node(index, &node, None, mode)? else {
            return Ok(None);
        };
        if install {
            // It is locked, so it is not being evicted.
            head.set(Flag::NOEVICT);
            self.btree.roots.install(btree, &node);
        } else if !self.btree.roots.is_root(btree, &node) {
            self.locks.put(slot);
            return Ok(None);
        }
        let level = head.level;
        if let Some(path) = self.paths.get_mut(index) {
            path.set_slot(level, Some(slot));
        }
        Ok(Some((slot, level)))
    }

    /// From the locked node in `slot` to its child; the lock of `slot` is given up, unless it is wanted for intent. `None`: had to
    /// wait, try again.
    fn step_down(
        &mut self,
        index: u8,
        slot: Slot,
        level: u8,
        pos: Bpos,
        ahead: usize,
    ) -> Result<Option<Slot>, TransError> {
        let path = self.path(index)?;
        let id = path.btree;
        let want = self.paths.want(path);
        let keep = level < want;
        let btree = self.btree;
        let Some(parent) = self.locks.get(slot) else {
            return Ok(None);
        };
        let Some(ptr) = btree.child_at(parent, id, level, pos) else {
            btree.fill.report(format_args!(
                "btree {id} level {level} node up to {}: no child for {pos}",
                parent.max()
            ));
            return Err(Error::BtreeTopology.into());
        };
        let below = level - 1;
        let hash = hash_key(&ptr)?;
        let Some(child) = btree.fill.cache.get(hash) else {
            self.read_nodes(index, slot, level, &ptr, ahead)?;
            return Ok(None);
        };
        if ahead != 0 && self.read_ahead(index, slot, level, ptr.get().key.pos, ahead)? {
            return Ok(None);
        }
        if !self.usable(index, &child, id, below, &ptr)? {
            return Ok(None);
        }
        let parent = (!keep).then_some(slot);
        let Some(child_slot) = self.lock_node(index, &child, parent, mode(want, below))? else {
            return Ok(None);
        };
        if !keep {
            self.unlock_unless_needed(index, slot);
        }
        if let Some(path) = self.paths.get_mut(index) {
            path.set_slot(below, Some(child_slot));
        }
        let in_range = self.locks.get(child_slot).is_some_and(|n| n.covers(pos));
        if !in_range {
            btree.fill.report(format_args!(
                "btree {id} level {below} node up to {}: does not reach down to {pos}",
                ptr.get().key.pos
            ));
            return Err(Error::BtreeTopology.into());
        }
        Ok(Some(child_slot))
    }

    /// Locks `node`. If that means waiting, the lock of `parent` is given up first. `None`: it is not in the cache any more.
    fn lock_node(
        &mut self,
        index: u8,
        node: &Arc<Node>,
        parent: Option<Slot>,
        mode: Mode,
    ) -> Result<Option<Slot>, TransError> {
        let slot = match self.locks.reference(node) {
            Ok(slot) => slot,
            Err(e) => return Err(self.restart(e.into())),
        };
        let mut locked = self.locks.try_lock(slot, mode);
        if locked == Ok(false) {
            if let Some(parent) = parent {
                self.unlock_unless_needed(index, parent);
            }
            let beside = &self.keys.locks;
            locked = self.locks.lock_beside(slot, mode, beside).map(|()| true);
        }
        if let Err(e) = locked {
            if e == LockError::Upgrade {
                self.upgrade_failed(node.shared().btree, node.shared().level);
            }
            self.locks.put(slot);
            return Err(self.restart(e.into()));
        }
        let head = node.shared();
        if head.has(Flag::DEAD) {
            self.locks.put(slot);
            return Ok(None);
        }
        head.touch();
        Ok(Some(slot))
    }

    /// Checks that `node` is read and is what `ptr` means. False: had to wait.
    fn usable(
        &mut self,
        index: u8,
        node: &Arc<Node>,
        btree: bcachefs_format::BtreeId,
        level: u8,
        ptr: &PtrKey,
    ) -> Result<bool, TransError> {
        let head = node.shared();
        if !head.has(Flag::READ_DONE) {
            self.wait_for(index, node)?;
            return Ok(false);
        }
        if let Some(e) = head.error() {
            return Err(self.read_failed(e));
        }
        let should = ptr.get();
        let mut same = head.btree == btree && head.level == level && head.max() == should.key.pos;
        if let Ok(p) = BtreePtr::parse(should) {
            same &= head.min() == p.min_key;
        }
        if !same {
            self.btree.fill.report(format_args!(
                "btree {btree} level {level} node up to {}: the same node is also {head}",
                should.key.pos
            ));
            return Err(Error::BtreeTopology.into());
        }
        Ok(true)
    }

    fn read_failed(&mut self, e: Error) -> TransError {
        if e == Error::NoMem {
            self.restart(Reason::FillMemory)
        } else {
            e.into()
        }
    }

    /// Gives up all locks and waits for a read.
    fn wait_for(&mut self, index: u8, node: &Arc<Node>) -> Result<(), TransError> {
        self.unlock();
        node.shared().wait_read();
        self.relock_held(Some(index), Reason::RelockAfterFill)?;
        match node.shared().error() {
            Some(e) => Err(self.read_failed(e)),
            None => Ok(()),
        }
    }

    fn prepare(
        &self,
        btree: bcachefs_format::BtreeId,
        level: u8,
        ptr: &PtrKey,
        buffer: Buffer,
    ) -> Result<Filling, Error> {
        let flags = match buffer {
            Buffer::Wait => self.gfp(),
            Buffer::Now => GFP_NOWAIT | __GFP_NOWARN,
        };
        self.btree.fill.prepare(btree, level, ptr, buffer, flags)
    }

    /// Reads a node that is not in the cache and waits for it.
    #[inline(never)]
    fn read_node(
        &mut self,
        index: u8,
        btree: bcachefs_format::BtreeId,
        level: u8,
        ptr: &PtrKey,
    ) -> Result<(), TransError> {
        match self.prepare(btree, level, ptr, Buffer::Wait) {
            Ok(Filling::Present(node)) => self.wait_for(index, &node),
            Ok(Filling::Start(op)) => {
                let Some(node) = op.node().cloned() else {
                    return Ok(());
                };
                self.unlock();
                op.start();
                self.wait_for(index, &node)
            }
            Err(e) => Err(self.read_failed(e)),
        }
    }

    /// Reads the child at `ptr` of the node in `slot` at `level`, and the ones after it, and waits for the first.
    #[inline(never)]
    fn read_nodes(
        &mut self,
        index: u8,
        slot: Slot,
        level: u8,
        ptr: &PtrKey,
        ahead: usize,
    ) -> Result<(), TransError> {
        let btree = self.path(index)?.btree;
        let first = match self.prepare(btree, level - 1, ptr, Buffer::Wait) {
            Ok(filling) => filling,
            Err(e) => return Err(self.read_failed(e)),
        };
        let more = self.prepare_ahead(btree, slot, level, ptr.get().key.pos, ahead);
        self.unlock();
        // Those ahead have their buffers. They go first, for the other one may have to wait until they give them back.
        more.into_iter().flatten().for_each(ReadOp::start);
        let node = match first {
            Filling::Present(node) => Some(node),
            Filling::Start(op) => {
                let node = op.node().cloned();
                op.start();
                node
            }
        };
        match node {
            Some(node) => self.wait_for(index, &node),
            None => Ok(()),
        }
    }

    /// Starts reading the children after the one that ends at `end` of the node in `slot`. True if there were any: locks have been
    /// given up then.
    #[inline(never)]
    fn read_ahead(
        &mut self,
        index: u8,
        slot: Slot,
        level: u8,
        end: Bpos,
        ahead: usize,
    ) -> Result<bool, TransError> {
        let btree = self.path(index)?.btree;
        let more = self.prepare_ahead(btree, slot, level, end, ahead);
        if more.iter().all(|op| op.is_none()) {
            return Ok(false);
        }
        // Submitting may wait for the block layer.
        self.unlock();
        more.into_iter().flatten().for_each(ReadOp::start);
        self.relock_held(Some(index), Reason::RelockAfterFill)?;
        Ok(true)
    }

    /// Puts those of the nodes into the cache that are not in it and that there is memory for.
    fn prepare_ahead(
        &self,
        btree: bcachefs_format::BtreeId,
        slot: Slot,
        level: u8,
        mut end: Bpos,
        ahead: usize,
    ) -> [Option<KBox<ReadOp>>; AHEAD_MAX] {
        let mut ops = [const { None }; AHEAD_MAX];
        for op in ops.iter_mut().take(ahead) {
            let next = |parent| self.btree.child_after(parent, btree, level, end);
            let Some(ptr) = self.locks.get(slot).and_then(next) else {
                break;
            };
            end = ptr.get().key.pos;
            let present = hash_key(&ptr).is_ok_and(|h| self.btree.fill.cache.get(h).is_some());
            if present {
                continue;
            }
            if let Ok(Filling::Start(start)) = self.prepare(btree, level - 1, &ptr, Buffer::Now) {
                *op = Some(start);
            }
        }
        ops
    }
}
