// SPDX-License-Identifier: GPL-2.0
//! Operations on points.

use super::{ahead, Model, View, CHANGE};
use crate::{
    btree::{
        trans::update::CommitFlags,
        Btree, IterFlags,
    },
    tests::{
        check,
        keys::{commit, value_of, Cookie, POINTS},
    },
    util::error::{Error, Result},
};
use bcachefs_format::Bpos;

/// Places of a thread. With several threads and snapshots enough for a btree of many nodes.
pub(super) const PLACES: u64 = 6000;

impl Model {
    fn point(&self, view: View, place: u64) -> Bpos {
        Bpos::with_snapshot(self.inode, place, view.snapshot)
    }

    /// Keys for one to eight points that differ, mostly one; they are in `self.keys`.
    pub(super) fn some_points(&mut self, view: View) -> Result<usize> {
        let several = self.random.one_in(4);
        let n = if several {
            1 + self.random.below(ahead::POINTS_MAX)
        } else {
            1
        };
        // Neighbours now and then, so that they are in one node.
        let near = self.random.one_in(2);
        let first = self.random.below(PLACES);
        self.keys.clear();
        for i in 0..n {
            let place = if near {
                (first + i) % PLACES
            } else {
                self.random.below(PLACES)
            };
            let value = self.value();
            let key = Cookie::point(self.point(view, place), value);
            self.keys
                .push_within_capacity(key)
                .map_err(|_| Error::NoMem)?;
        }
        Ok(n as usize)
    }

    /// The first `n` of `self.keys` have been committed. Of several for one place the last one counts.
    pub(super) fn note_points(&mut self, view: View, n: usize) -> Result {
        for key in self.keys.iter().take(n) {
            let k = key.as_ref();
            self.points.set(view.node, k.key.pos.offset, value_of(k));
        }
        Ok(())
    }

    pub(super) fn put_points(&mut self, b: &Btree, view: View) -> Result {
        let n = self.some_points(view)?;
        let keys = &self.keys;
        commit(b, |t| {
            for key in keys.iter().take(n) {
                t.insert(POINTS, key.as_ref(), CHANGE)?;
            }
            Ok(())
        })?;
        self.note_points(view, n)
    }

    /// Half of the time with an iterator, which says what was there.
    pub(super) fn delete_point(&mut self, b: &Btree, view: View) -> Result {
        let place = self.random.below(PLACES);
        let at = self.point(view, place);
        if self.random.one_in(2) {
            commit(b, |t| t.delete(POINTS, at, CHANGE))?;
        } else {
            let want = self.points.get(view.node, place);
            commit(b, |t| {
                let mut iter = t.iter(POINTS, at, IterFlags::SLOTS | IterFlags::INTENT);
                let found = iter.peek(t)?.and_then(value_of);
                check!(found == want, "point {place}: {found:?}, and not {want:?}");
                t.delete(POINTS, at, CHANGE)
            })?;
        }
        self.points.set(view.node, place, None);
        Ok(())
    }

    pub(super) fn delete_points(&mut self, b: &Btree, view: View) -> Result {
        let from = self.random.below(PLACES);
        let to = PLACES.min(from + 1 + self.random.below(ahead::DELETE_MAX));
        let (start, end) = (self.point(view, from), self.point(view, to));
        b.delete_range(POINTS, start, end, CHANGE, CommitFlags::default())?;
        for place in from..to {
            self.points.set(view.node, place, None);
        }
        Ok(())
    }

    pub(super) fn look_up_point(&mut self, b: &Btree, view: View) -> Result {
        let place = self.random.below(PLACES);
        let at = self.point(view, place);
        let found = b.run(|t| Ok(t.get(POINTS, at)?.and_then(value_of)))?;
        let want = self.points.get(view.node, place);
        check!(found == want, "point {place}: {found:?}, and not {want:?}");
        Ok(())
    }

    pub(super) fn walk_points(&mut self, b: &Btree, view: View) -> Result {
        let from = self.random.below(PLACES);
        let to = PLACES.min(from + 1 + self.random.below(ahead::WALK_MAX));
        self.see_points(b, view, from, to)
    }

    pub(super) fn walk_points_back(&mut self, b: &Btree, view: View) -> Result {
        let to = 1 + self.random.below(PLACES);
        let from = to.saturating_sub(1 + self.random.below(ahead::WALK_MAX));
        self.see_points_back(b, view, from, to)
    }

    pub(super) fn verify_points(&mut self, b: &Btree, view: View) -> Result {
        self.see_points(b, view, 0, PLACES)?;
        self.see_points_back(b, view, 0, PLACES)
    }

    /// Forwards over `from..to`.
    fn see_points(&self, b: &Btree, view: View, from: u64, to: u64) -> Result {
        let mut at = from;
        let last = self.point(view, to - 1);
        b.run(|t| {
            let mut iter = t.iter(POINTS, self.point(view, at), IterFlags::PREFETCH);
            loop {
                let found = iter
                    .peek_upto(t, last)?
                    .map(|k| (k.key.pos.offset, value_of(k)));
                let want = self
                    .points
                    .next(view.node, at, to)
                    .map(|(p, v)| (p, Some(v)));
                check!(
                    found == want,
                    "points from {at} on: {found:?}, and not {want:?}"
                );
                let Some((place, _)) = found else {
                    return Ok(());
                };
                at = place + 1;
                if at >= to || !iter.advance() {
                    return Ok(());
                }
            }
        })
    }

    /// Backwards over `from..to`.
    fn see_points_back(&self, b: &Btree, view: View, from: u64, to: u64) -> Result {
        let mut before = to;
        b.run(|t| {
            if before <= from {
                return Ok(());
            }
            let mut iter = t.iter(POINTS, self.point(view, before - 1), IterFlags::NONE);
            loop {
                let found = match iter.peek_prev(t)? {
                    Some(k) if k.key.pos.inode == self.inode => {
                        Some((k.key.pos.offset, value_of(k)))
                    }
                    _ => None,
                };
                let want = self
                    .points
                    .prev(view.node, before)
                    .map(|(p, v)| (p, Some(v)));
                check!(
                    found == want,
                    "points before {before}: {found:?}, and not {want:?}"
                );
                match found {
                    Some((place, _)) if place > from => before = place,
                    _ => return Ok(()),
                }
                if !iter.rewind() {
                    return Ok(());
                }
            }
        })
    }

    /// Every place by itself, whether there is something or not.
    pub(super) fn walk_point_slots(&mut self, b: &Btree, view: View) -> Result {
        let from = self.random.below(PLACES);
        let to = PLACES.min(from + 1 + self.random.below(ahead::WALK_MAX / 4));
        let mut at = from;
        b.run(|t| {
            let mut iter = t.iter(POINTS, self.point(view, at), IterFlags::SLOTS);
            while at < to {
                let found = iter.peek(t)?.map(|k| (k.key.pos.offset, value_of(k)));
                let want = Some((at, self.points.get(view.node, at)));
                check!(found == want, "slot: {found:?}, and not {want:?}");
                at += 1;
                if !iter.advance() {
                    break;
                }
            }
            Ok(())
        })
    }
}
