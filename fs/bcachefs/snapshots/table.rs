// SPDX-License-Identifier: GPL-2.0
//! The trees of snapshots, in memory.
//!
//! Whether one snapshot is above another is asked for nearly every key, so the answer must not need the btree, nor a lock. The
//! table is an array sorted by number. Every node knows the interval that a walk of its tree in depth-first order gives
//! its subtree; one snapshot is an ancestor of another exactly if its interval holds the other's. That takes two
//! look-ups and two comparisons, whatever the depth.
//!
//! Snapshots come and go while it is used. Numbers are handed out downwards, so in an array in descending order new ones
//! come last, and hardly anything moves: only several of one commit may come in another order. One that goes leaves its place.
//! Intervals are computed anew, and readers that notice the change ([`Generation`]) look again.
//!
//! # Invariants
//!
//! - Between changes numbers are unique and descending.
//! - Parents have higher numbers than their children, so no chain of parents is a cycle; a key that says otherwise has been
//!   refused.
//! - Intervals of nodes that are not related do not overlap. That of a place whose snapshot is gone is empty.

use crate::{
    btree::{Ancestry, Btree, IterFlags},
    util::error::{Error, Result},
};
use bcachefs_format::{
    keys::snapshot::{Snapshot, SnapshotFlags},
    Bpos, BtreeId, KeyRef, KeyType,
};
use core::{fmt, ops::ControlFlow};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed, Release},
        Arc, SetOnce, SpinLock,
    },
};
use kfs::sync::InlineAtomic;

/// Entries of the first part of the table; each part is twice as long as the one before.
const FIRST: usize = 64;
/// Most parts: enough for all numbers.
const PARTS: usize = 26;
/// Looks without the lock, before one waits for those who change something.
const TRIES: usize = 100;

/// One snapshot.
struct Entry {
    id: Atomic<u32>,
    /// Interval of the subtree in the order of the walk, half open; empty if there is no such snapshot.
    enter: Atomic<u32>,
    leave: Atomic<u32>,
    /// Used by `number` only: nodes of the subtree, and where the next child begins.
    size: Atomic<u32>,
    next: Atomic<u32>,
    /// The snapshot.
    fields: [Atomic<u32>; 10],
    btime: Atomic<u64>,
}

fn get(a: &Atomic<u32>) -> u32 {
    a.read_acquire()
}

fn set(a: &Atomic<u32>, v: u32) {
    a.store(v, Release);
}

impl Entry {
    /// A place that is not in use.
    const fn new() -> Self {
        Entry {
            id: Atomic::new(0),
            enter: Atomic::new(0),
            leave: Atomic::new(0),
            size: Atomic::new(0),
            next: Atomic::new(0),
            fields: [const { Atomic::new(0) }; 10],
            btime: Atomic::new(0),
        }
    }

    fn interval(&self) -> (u32, u32) {
        (get(&self.enter), get(&self.leave))
    }

    fn is_there(&self) -> bool {
        let (enter, leave) = self.interval();
        enter != leave
    }

    /// Whether it has no children.
    fn is_leaf(&self) -> bool {
        let [_, _, a, b, ..] = &self.fields;
        (get(a), get(b)) == (0, 0)
    }

    fn snapshot(&self) -> Snapshot {
        let [flags, parent, a, b, subvol, tree, depth, x, y, z] = self.fields.each_ref().map(get);
        Snapshot {
            flags: SnapshotFlags(flags),
            parent,
            children: [a, b],
            subvol,
            tree,
            depth,
            skip: [x, y, z],
            btime: self.btime.read_acquire() as i64,
        }
    }

    /// Becomes what `other` is.
    fn copy(&self, other: &Entry) {
        set(&self.id, get(&other.id));
        let (enter, leave) = other.interval();
        set(&self.enter, enter);
        set(&self.leave, leave);
        self.store(&other.snapshot());
    }

    fn store(&self, s: &Snapshot) {
        let [a, b] = s.children;
        let [x, y, z] = s.skip;
        let fields = [s.flags.0, s.parent, a, b, s.subvol, s.tree, s.depth, x, y, z];
        for (to, from) in self.fields.iter().zip(fields) {
            set(to, from);
        }
        self.btime.store(s.btime as u64, Release);
    }
}

/// Numbers states of something that is read without a lock: odd while it is being changed.
struct Generation(Atomic<u32>);

impl Generation {
    /// Runs `f`, whose loads are all `Acquire`, on a state that does not change meanwhile. `None`: one that did.
    #[inline(never)]
    fn read<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        let before = self.0.read_acquire();
        let r = f();
        // Not moved up before the loads, since those are `Acquire`.
        (before & 1 == 0 && self.0.read() == before).then_some(r)
    }

    /// Runs `f`, whose stores are all `Release`, as one change. One at a time.
    fn change(&self, f: impl FnOnce()) {
        let before = self.0.read();
        // Not moved down behind the stores, since those are `Release`.
        self.0.store(before.wrapping_add(1), Relaxed);
        f();
        self.0.store(before.wrapping_add(2), Release);
    }
}

/// All snapshots of a filesystem. May be used in any context.
#[pin_data]
pub struct SnapshotTable {
    parts: [SetOnce<KVVec<Entry>>; PARTS],
    len: Atomic<u32>,
    generation: Generation,
    #[pin]
    changing: SpinLock<()>,
}

/// The snapshot that a key describes, if it is in order.
fn parse(k: KeyRef<'_>) -> Option<(u32, Snapshot)> {
    let id = u32::try_from(k.key.pos.offset).ok()?;
    if k.key.key_type != KeyType::SNAPSHOT || k.key.pos.inode != 0 || id == 0 {
        return None;
    }
    Some((id, Snapshot::parse(k).ok()?))
}

/// The part that entry `index` is in, and its place there.
fn part_of(index: usize) -> (usize, usize) {
    let blocks = index / FIRST + 1;
    let part = blocks.ilog2() as usize;
    (part, index - FIRST * ((1 << part) - 1))
}

impl SnapshotTable {
    /// Reads the btree of snapshots. Keys that break a rule are left out: nothing is seen through them. May sleep.
    pub fn read(btree: &Btree) -> Result<Arc<Self>> {
        let mut nodes: KVVec<(u32, Snapshot)> = KVVec::new();
        let mut from = Some(Bpos::POS_MIN);
        while let Some(start) = from {
            // Memory is got between the walks: nodes are locked during them.
            nodes.reserve(256, GFP_KERNEL)?;
            from = btree.walk(
                BtreeId::SNAPSHOTS,
                start,
                Bpos::POS_MAX,
                IterFlags::NONE,
                |k| {
                    if let Some((id, s)) = parse(k) {
                        if nodes.push_within_capacity((id, s)).is_err() {
                            return Ok(ControlFlow::Break(k.key.pos));
                        }
                    }
                    Ok(ControlFlow::Continue(()))
                },
            )?;
        }
        Self::build(nodes)
    }

    /// A table of the given snapshots, in ascending order of their numbers. May sleep.
    pub fn build(nodes: KVVec<(u32, Snapshot)>) -> Result<Arc<Self>> {
        let table = Arc::pin_init(
            pin_init!(SnapshotTable {
                parts: [const { SetOnce::new() }; PARTS],
                len: Atomic::new(0),
                generation: Generation(Atomic::new(0)),
                changing <- new_spinlock!((), "snapshot_table"),
            }),
            GFP_KERNEL,
        )?;
        table.reserve(nodes.len())?;
        let changing = table.changing.lock();
        for (id, snapshot) in nodes.iter().rev() {
            table.add(*id, snapshot)?;
        }
        table.generation.change(|| table.number());
        drop(changing);
        Ok(table)
    }

    #[inline]
    fn at(&self, index: usize) -> Option<&Entry> {
        let (part, place) = part_of(index);
        self.parts.get(part)?.as_ref()?.get(place)
    }

    fn count(&self) -> usize {
        get(&self.len) as usize
    }

    /// The place of `id`, whether its snapshot is there or gone; or the place it would have.
    #[inline]
    fn index(&self, id: u32) -> core::result::Result<usize, usize> {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let mid = low + (high - low) / 2;
            match self.at(mid).map_or(0, |e| get(&e.id)) {
                found if found == id => return Ok(mid),
                found if found > id => low = mid + 1,
                _ => high = mid,
            }
        }
        Err(low)
    }

    #[inline]
    fn entry(&self, id: u32) -> Option<&Entry> {
        self.at(self.index(id).ok()?)
    }

    /// Makes room for `extra` more snapshots. May sleep.
    pub fn reserve(&self, extra: usize) -> Result {
        let Some(last) = (self.count() + extra).checked_sub(1) else {
            return Ok(());
        };
        let (last, _) = part_of(last);
        for (i, part) in self.parts.iter().enumerate().take(last + 1) {
            if part.as_ref().is_some() {
                continue;
            }
            let mut entries = KVVec::with_capacity(FIRST << i, GFP_KERNEL)?;
            for _ in 0..FIRST << i {
                entries.push(Entry::new(), GFP_KERNEL)?;
            }
            // If somebody else was faster, theirs will do.
            part.populate(entries);
        }
        Ok(())
    }

    /// Whether `extra` more snapshots fit without memory being allocated.
    pub fn has_room(&self, extra: usize) -> bool {
        self.at((self.count() + extra).saturating_sub(1)).is_some()
    }

    /// Adds a place for `id`, which has none. As a change, with `changing` held.
    fn add(&self, id: u32, snapshot: &Snapshot) -> Result {
        let n = self.count();
        let place = self.index(id).unwrap_or_else(|place| place);
        self.at(n).ok_or(Error::NoMem)?;
        for i in (place..n).rev() {
            if let (Some(from), Some(to)) = (self.at(i), self.at(i + 1)) {
                to.copy(from);
            }
        }
        let e = self.at(place).ok_or(Error::NoMem)?;
        set(&e.id, id);
        e.store(snapshot);
        set(&e.enter, 0);
        set(&e.leave, 1);
        set(&self.len, n as u32 + 1);
        Ok(())
    }

    /// Takes over that `id` is now `snapshot`, or is gone. Does not sleep, and allocates nothing: see [`SnapshotTable::reserve`].
    pub fn update(&self, id: u32, snapshot: Option<Snapshot>) -> Result {
        let _changing = self.changing.lock();
        let mut result = Ok(());
        self.generation.change(|| {
            match (self.entry(id), snapshot) {
                (Some(e), Some(s)) => {
                    e.store(&s);
                    set(&e.enter, 0);
                    set(&e.leave, 1);
                }
                (Some(e), None) => {
                    set(&e.enter, 0);
                    set(&e.leave, 0);
                }
                (None, Some(s)) => result = self.add(id, &s),
                (None, None) => {}
            }
            self.number();
        });
        result
    }

    /// Takes over a change of a key of the snapshots btree. The same rules as for [`SnapshotTable::update`].
    pub fn changed(&self, key: KeyRef<'_>) -> Result {
        let id = u32::try_from(key.key.pos.offset).map_err(|_| Error::SnapshotMissing)?;
        self.update(id, parse(key).map(|(_, s)| s))
    }

    /// The entry of a node's parent, if it names one that exists and comes before it.
    fn parent_of(&self, e: &Entry) -> Option<&Entry> {
        let [_, parent, ..] = &e.fields;
        let parent = get(parent);
        if parent <= get(&e.id) {
            return None;
        }
        self.entry(parent).filter(|p| p.is_there())
    }

    /// Gives every node its interval, without recursion: parents come before their children. As a change, with `changing` held.
    fn number(&self) {
        let n = self.count();
        let there = |i: &usize| self.at(*i).is_some_and(Entry::is_there);
        for e in (0..n).filter_map(|i| self.at(i)) {
            set(&e.size, 1);
        }
        for e in (0..n).rev().filter(there).filter_map(|i| self.at(i)) {
            if let Some(p) = self.parent_of(e) {
                set(&p.size, get(&p.size).saturating_add(get(&e.size)));
            }
        }
        let mut next_root = 0u32;
        for e in (0..n).filter(there).filter_map(|i| self.at(i)) {
            let size = get(&e.size);
            let enter = match self.parent_of(e) {
                Some(p) => {
                    let enter = get(&p.next);
                    set(&p.next, enter.saturating_add(size));
                    enter
                }
                None => {
                    let enter = next_root;
                    next_root = next_root.saturating_add(size);
                    enter
                }
            };
            set(&e.next, enter.saturating_add(1));
            set(&e.enter, enter);
            set(&e.leave, enter.saturating_add(size));
        }
    }

    /// Runs `f`, whose loads are all `Acquire`, on a state of the table.
    #[inline]
    fn look<R>(&self, f: impl Fn() -> R) -> R {
        for _ in 0..TRIES {
            if let Some(r) = self.generation.read(&f) {
                return r;
            }
            core::hint::spin_loop();
        }
        let _changing = self.changing.lock();
        f()
    }

    /// The snapshot with number `id`.
    pub fn get(&self, id: u32) -> Option<Snapshot> {
        self.look(|| {
            let e = self.entry(id).filter(|e| e.is_there())?;
            Some(e.snapshot())
        })
    }

    /// Whether `id` has children, if it exists.
    fn has_children(&self, id: u32) -> Option<bool> {
        self.look(|| {
            let e = self.entry(id).filter(|e| e.is_there())?;
            Some(!e.is_leaf())
        })
    }

    /// Whether `id` exists and has no children: only in such snapshots files are changed.
    pub fn is_leaf(&self, id: u32) -> bool {
        self.has_children(id) == Some(false)
    }

    /// Whether `id` exists and has children.
    pub fn is_internal(&self, id: u32) -> bool {
        self.has_children(id) == Some(true)
    }

    /// The lowest number in use; a new snapshot gets the one below.
    pub fn lowest(&self) -> Option<u32> {
        self.look(|| {
            let entries = (0..self.count()).rev().filter_map(|i| self.at(i));
            entries.filter(|e| e.is_there()).map(|e| get(&e.id)).next()
        })
    }

    /// Calls `f` with every snapshot, in ascending order, while it wants more.
    pub fn for_each(&self, mut f: impl FnMut(u32, Snapshot) -> ControlFlow<()>) {
        let mut from = 0;
        // Places may move, numbers do not.
        while let Some((id, snapshot)) = self.look(|| self.first_from(from)) {
            if snapshot.is_some_and(|s| f(id, s).is_break()) {
                break;
            }
            from = match id.checked_add(1) {
                Some(next) => next,
                None => break,
            };
        }
    }

    /// The lowest number from `id` on that has a place, and its snapshot if that is not gone.
    fn first_from(&self, id: u32) -> Option<(u32, Option<Snapshot>)> {
        let place = match self.index(id) {
            Ok(place) => place,
            Err(place) => place.checked_sub(1)?,
        };
        let e = self.at(place)?;
        Some((get(&e.id), e.is_there().then(|| e.snapshot())))
    }

    /// Number of snapshots.
    pub fn len(&self) -> usize {
        (0..self.count()).filter(|i| self.at(*i).is_some_and(Entry::is_there)).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Ancestry for SnapshotTable {
    #[inline]
    fn is_ancestor(&self, id: u32, ancestor: u32) -> bool {
        if id == ancestor {
            return true;
        }
        if ancestor < id {
            return false;
        }
        self.look(|| match (self.entry(id), self.entry(ancestor)) {
            (Some(i), Some(a)) => {
                let ((a_enter, a_leave), (enter, leave)) = (a.interval(), i.interval());
                enter != leave && a_enter <= enter && leave <= a_leave
            }
            _ => false,
        })
    }

    fn is_internal(&self, id: u32) -> bool {
        self.has_children(id) == Some(true)
    }
}

impl fmt::Display for SnapshotTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut result = Ok(());
        self.for_each(|id, s| {
            result = writeln!(f, "{id}: {s}");
            match result {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        result
    }
}

#[kernel::macros::kunit_tests(bcachefs_snapshot_table)]
mod tests {
    use super::*;

    fn node(parent: u32, children: [u32; 2]) -> Snapshot {
        Snapshot { parent, children, ..Snapshot::default() }
    }

    #[test]
    fn parts_follow_each_other() {
        let mut expected = (0, 0);
        for index in 0..FIRST * 15 {
            assert_eq!(part_of(index), expected);
            let (part, place) = expected;
            expected = if place + 1 == FIRST << part { (part + 1, 0) } else { (part, place + 1) };
        }
    }

    #[test]
    fn snapshots_come_and_go() -> Result {
        let table = SnapshotTable::build(KVVec::new())?;
        assert_eq!((table.lowest(), table.is_empty()), (None, true));
        let top = u32::MAX;
        table.reserve(8)?;
        assert!(table.has_room(8));
        table.update(top, Some(node(0, [0, 0])))?;
        assert!(table.is_leaf(top));
        // A snapshot is taken: two below.
        table.update(top - 1, Some(node(top, [0, 0])))?;
        table.update(top - 2, Some(node(top, [0, 0])))?;
        table.update(top, Some(node(0, [top - 1, top - 2])))?;
        assert!(table.is_internal(top) && table.is_leaf(top - 2));
        assert!(table.is_ancestor(top - 1, top) && table.is_ancestor(top - 2, top));
        assert!(!table.is_ancestor(top - 2, top - 1) && !table.is_ancestor(top, top - 1));
        // Another one, of the second.
        table.update(top - 3, Some(node(top - 2, [0, 0])))?;
        table.update(top - 4, Some(node(top - 2, [0, 0])))?;
        assert!(table.is_ancestor(top - 4, top) && table.is_ancestor(top - 4, top - 2));
        assert!(!table.is_ancestor(top - 4, top - 1) && !table.is_ancestor(top - 4, top - 3));
        assert_eq!((table.len(), table.lowest()), (5, Some(top - 4)));
        // They go again; a number is used once more.
        table.update(top - 4, None)?;
        table.update(top - 3, None)?;
        assert_eq!((table.len(), table.lowest()), (3, Some(top - 2)));
        assert!(!table.is_ancestor(top - 4, top) && table.get(top - 4).is_none());
        table.update(top - 3, Some(node(top - 1, [0, 0])))?;
        assert!(table.is_ancestor(top - 3, top - 1) && !table.is_ancestor(top - 3, top - 2));
        // Another tree; two of one commit come in ascending order.
        table.update(top - 7, Some(node(0, [0, 0])))?;
        assert!(!table.is_ancestor(top - 7, top) && table.is_ancestor(top - 3, top));
        table.update(top - 6, Some(node(top - 1, [0, 0])))?;
        table.update(top - 5, Some(node(top - 3, [0, 0])))?;
        assert!(table.is_ancestor(top - 5, top - 3) && table.is_ancestor(top - 5, top));
        assert!(table.is_ancestor(top - 6, top - 1) && !table.is_ancestor(top - 6, top - 3));
        assert!(!table.is_ancestor(top - 7, top) && !table.is_ancestor(top - 5, top - 7));
        assert_eq!((table.len(), table.lowest()), (7, Some(top - 7)));
        let mut last = 0;
        table.for_each(|id, s| {
            assert!(id > last && (s.parent > id || s.parent == 0));
            last = id;
            ControlFlow::Continue(())
        });
        assert_eq!(last, top);
        Ok(())
    }

    #[test]
    fn a_table_grows() -> Result {
        let table = SnapshotTable::build(KVVec::new())?;
        let n = 1000;
        for i in 0..n {
            if !table.has_room(1) {
                table.reserve(1)?;
            }
            let parent = if i == 0 { 0 } else { u32::MAX - (i - 1) / 2 };
            table.update(u32::MAX - i, Some(node(parent, [0, 0])))?;
        }
        assert_eq!(table.len(), n as usize);
        for i in (0..n).step_by(37) {
            // The node's ancestors are its chain of halves.
            for j in 0..n {
                let mut above = i;
                while above > j {
                    above = (above - 1) / 2;
                }
                let want = above == j;
                assert_eq!(table.is_ancestor(u32::MAX - i, u32::MAX - j), want);
            }
        }
        Ok(())
    }
}
