// SPDX-License-Identifier: GPL-2.0
//! Operations on ranges. The model knows sectors: a range is right when each of its sectors has its value, and when what is not in a range has
//! none.

use super::{ahead, Model, View, CHANGE};
use crate::{
    btree::{
        trans::update::CommitFlags,
        Btree, IterFlags,
    },
    tests::{
        check,
        keys::{commit, value_of, Cookie, RANGES},
    },
    util::error::Result,
};
use bcachefs_format::{Bpos, KeyRef};

/// Sectors of a thread.
pub(super) const SECTORS: u64 = 16000;

/// A range as it was found: start, end, value.
type Found = (u64, u64, Option<u64>);

fn found(k: KeyRef<'_>) -> Found {
    (k.key.start_offset(), k.key.pos.offset, value_of(k))
}

impl Model {
    fn sector(&self, view: View, sector: u64) -> Bpos {
        Bpos::with_snapshot(self.inode, sector, view.snapshot)
    }

    /// Somewhere, of any length up to a limit.
    fn stretch(&mut self, max: u64) -> (u64, u64) {
        let start = self.random.below(SECTORS);
        let max = if self.random.one_in(3) {
            1 + max / 16
        } else {
            max
        };
        (start, SECTORS.min(start + 1 + self.random.below(max)))
    }

    pub(super) fn some_range(&mut self, view: View) -> Cookie {
        let (start, end) = self.stretch(ahead::RANGE_MAX);
        let value = self.value();
        Cookie::range(self.sector(view, start), (end - start) as u32, value)
    }

    /// `range` has been committed; a hole has no value.
    pub(super) fn note_range(&mut self, view: View, range: Cookie) -> Result {
        let (start, end, value) = found(range.as_ref());
        for sector in start..end {
            self.ranges.set(view.node, sector, value);
        }
        Ok(())
    }

    pub(super) fn put_range(&mut self, b: &Btree, view: View) -> Result {
        let range = self.some_range(view);
        commit(b, |t| {
            t.insert(RANGES, range.as_ref(), CHANGE)
        })?;
        self.note_range(view, range)
    }

    pub(super) fn cut_hole(&mut self, b: &Btree, view: View) -> Result {
        let (start, end) = self.stretch(ahead::RANGE_MAX / 2);
        let hole = Cookie::hole(self.sector(view, start), (end - start) as u32);
        commit(b, |t| {
            t.insert(RANGES, hole.as_ref(), CHANGE)
        })?;
        self.note_range(view, hole)
    }

    pub(super) fn delete_ranges(&mut self, b: &Btree, view: View) -> Result {
        let (from, to) = self.stretch(ahead::DELETE_MAX * 4);
        let (start, end) = (self.sector(view, from), self.sector(view, to));
        b.delete_range(RANGES, start, end, CHANGE, CommitFlags::default())?;
        for sector in from..to {
            self.ranges.set(view.node, sector, None);
        }
        Ok(())
    }

    pub(super) fn look_up_sector(&mut self, b: &Btree, view: View) -> Result {
        let sector = self.random.below(SECTORS);
        let at = self.sector(view, sector);
        let got = b.run(|t| Ok(t.get(RANGES, at)?.map(found)))?;
        match got {
            Some(range) => {
                check!(
                    range.0 <= sector && sector < range.1,
                    "sector {sector}: {range:?}"
                );
                self.holds(view, range)
            }
            None => self.none(view, sector, sector + 1),
        }
    }

    /// Every sector of a range has its value.
    fn holds(&self, view: View, range: Found) -> Result {
        let (start, end, value) = range;
        check!(
            start < end && end <= SECTORS && value.is_some(),
            "range {range:?}"
        );
        for sector in start..end {
            let want = self.ranges.get(view.node, sector);
            check!(
                value == want,
                "range {range:?}: sector {sector} has {want:?}"
            );
        }
        Ok(())
    }

    /// No sector of `from..to` has a value.
    fn none(&self, view: View, from: u64, to: u64) -> Result {
        let some = self.ranges.next(view.node, from, to);
        check!(
            some.is_none(),
            "sectors {from}..{to}: nothing is seen, and not {some:?}"
        );
        Ok(())
    }

    pub(super) fn walk_ranges(&mut self, b: &Btree, view: View) -> Result {
        let from = self.random.below(SECTORS);
        let to = SECTORS.min(from + 1 + self.random.below(ahead::WALK_MAX * 4));
        self.see_ranges(b, view, from, to)
    }

    pub(super) fn walk_ranges_back(&mut self, b: &Btree, view: View) -> Result {
        let to = 1 + self.random.below(SECTORS);
        let from = to.saturating_sub(1 + self.random.below(ahead::WALK_MAX * 4));
        self.see_ranges_back(b, view, from, to)
    }

    pub(super) fn verify_ranges(&mut self, b: &Btree, view: View) -> Result {
        self.see_ranges(b, view, 0, SECTORS)?;
        self.see_ranges_back(b, view, 0, SECTORS)
    }

    /// Forwards over `from..to`.
    fn see_ranges(&self, b: &Btree, view: View, from: u64, to: u64) -> Result {
        let mut at = from;
        b.run(|t| {
            let end = self.sector(view, to);
            let mut iter = t.iter(RANGES, self.sector(view, at), IterFlags::PREFETCH);
            while at < to {
                match iter.peek_upto(t, end)?.map(found) {
                    Some(range) => {
                        check!(
                            range.1 > at && range.0 < to,
                            "range {range:?} from {at} to {to}"
                        );
                        self.none(view, at, range.0)?;
                        self.holds(view, range)?;
                        at = range.1;
                    }
                    None => {
                        self.none(view, at, to)?;
                        at = to;
                    }
                }
                if !iter.advance() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Backwards over `from..to`.
    fn see_ranges_back(&self, b: &Btree, view: View, from: u64, to: u64) -> Result {
        let mut before = to;
        b.run(|t| {
            let mut iter = t.iter(RANGES, self.sector(view, before), IterFlags::NONE);
            while before > from {
                match iter.peek_prev(t)? {
                    Some(k) if k.key.pos.inode == self.inode => {
                        let range = found(k);
                        check!(range.0 < before, "range {range:?} before {before}");
                        self.none(view, range.1, before)?;
                        self.holds(view, range)?;
                        before = range.0;
                    }
                    _ => {
                        self.none(view, 0, before)?;
                        before = from;
                    }
                }
                if !iter.rewind() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Ranges and the holes between them, which have to follow one another.
    pub(super) fn walk_range_slots(&mut self, b: &Btree, view: View) -> Result {
        let from = self.random.below(SECTORS);
        let to = SECTORS.min(from + 1 + self.random.below(ahead::WALK_MAX * 2));
        let mut at = from;
        b.run(|t| {
            let mut iter = t.iter(RANGES, self.sector(view, at), IterFlags::SLOTS);
            while at < to {
                let Some(slot) = iter.peek(t)?.map(found) else {
                    check!(false, "no slot at {at}");
                    break;
                };
                check!(slot.0 <= at && at < slot.1, "slot {slot:?} at {at}");
                match slot.2 {
                    Some(_) => self.holds(view, slot)?,
                    None => self.none(view, at, slot.1)?,
                }
                at = slot.1;
                if !iter.advance() {
                    break;
                }
            }
            Ok(())
        })
    }
}
