// SPDX-License-Identifier: GPL-2.0
//! Small checks of what the btree is there for, each by itself: iterating both ways, slots, deletion, ranges that are overwritten in every
//! way there is. They leave nothing behind when they succeed.

use super::{
    check,
    keys::{clear_inodes, commit, is_empty, pos, value_of, Cookie, POINTS, RANGES},
    random::Random,
};
use crate::{
    btree::{
        trans::update::{CommitFlags, UpdateFlags},
        Btree, IterFlags,
    },
    util::error::{Error, Result},
};
use bcachefs_format::BtreeId;
use kernel::{prelude::*, sync::Arc};

type Check = fn(&Btree, count: u64) -> Result;

const CHECKS: &[(&str, Check)] = &[
    ("test_delete", delete),
    ("test_delete_written", delete_written),
    ("test_iterate", iterate),
    ("test_iterate_extents", iterate_extents),
    ("test_iterate_slots", iterate_slots),
    ("test_iterate_slots_extents", iterate_slots_extents),
    ("test_peek_end", peek_end),
    ("test_peek_end_extents", peek_end_extents),
    ("test_insert_delete", insert_delete),
    ("test_delete_range", delete_range),
    ("test_extent_overwrite_front", overwrite_front),
    ("test_extent_overwrite_back", overwrite_back),
    ("test_extent_overwrite_middle", overwrite_middle),
    ("test_extent_overwrite_all", overwrite_all),
    ("test_extent_overwrite_several", overwrite_several),
    ("test_extent_create_overlapping", create_overlapping),
];

/// All of them, one after the other.
const ALL: &str = "test_all";
/// Sectors of a range.
const SIZE: u32 = 8;

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    Iterator::chain(CHECKS.iter().map(|c| c.0), [ALL])
}

/// Runs the check called `name`. Sleeps.
pub(super) fn run(btree: &Arc<Btree>, name: &str, count: u64) -> Result {
    let mut known = false;
    for (this, check) in CHECKS.iter().filter(|c| name == ALL || name == c.0) {
        known = true;
        for id in [POINTS, RANGES] {
            clear_inodes(btree, id, 0, 1)?;
        }
        if let Err(e) = check(btree, count) {
            pr_err!("test: {this}: failed\n");
            return Err(e);
        }
        for id in [POINTS, RANGES] {
            clear_inodes(btree, id, 0, 1)?;
            check!(is_empty(btree, id, 0, 1)?);
        }
        pr_info!("test: {this}: ok\n");
    }
    match known {
        true => Ok(()),
        false => Err(Error::TestUnknown),
    }
}

fn insert(b: &Btree, id: BtreeId, key: Cookie) -> Result {
    commit(b, |t| t.insert(id, key.as_ref(), UpdateFlags::default()))?;
    Ok(())
}

fn put(b: &Btree, offset: u64, value: u64) -> Result {
    insert(b, POINTS, Cookie::point(pos(0, offset), value))
}

fn put_range(b: &Btree, start: u64, end: u64, value: u64) -> Result {
    let size = end.saturating_sub(start) as u32;
    insert(b, RANGES, Cookie::range(pos(0, start), size, value))
}

fn points(b: &Btree, count: u64) -> Result {
    for i in 0..count {
        put(b, i, i + 7)?;
    }
    Ok(())
}

fn ranges(b: &Btree, count: u64) -> Result {
    for i in 0..count {
        let start = i * u64::from(SIZE);
        put_range(b, start, start + u64::from(SIZE), i)?;
    }
    Ok(())
}

/// Start, end and value of the ranges of inode 0 have to be these. Walked both ways.
fn expect_ranges(b: &Btree, expected: &[(u64, u64, u64)]) -> Result {
    let mut n = 0;
    b.walk(RANGES, pos(0, 0), pos(0, u64::MAX), IterFlags::NONE, |k| {
        let found = (k.key.start_offset(), k.key.pos.offset, value_of(k));
        let wanted = expected.get(n).map(|w| (w.0, w.1, Some(w.2)));
        check!(
            Some(found) == wanted,
            "range {n}: {found:?}, and not {wanted:?}"
        );
        n += 1;
        Ok(core::ops::ControlFlow::<()>::Continue(()))
    })?;
    check!(
        n == expected.len(),
        "{n} ranges, and not {}",
        expected.len()
    );
    let mut left = expected.len();
    let mut from = pos(0, u64::MAX);
    b.run(|t| {
        let mut iter = t.iter(RANGES, from, IterFlags::NONE);
        while let Some(k) = iter.peek_prev(t)? {
            if k.key.pos.inode != 0 {
                break;
            }
            let found = (k.key.start_offset(), k.key.pos.offset, value_of(k));
            let wanted = left
                .checked_sub(1)
                .and_then(|i| expected.get(i))
                .map(|w| (w.0, w.1, Some(w.2)));
            check!(
                Some(found) == wanted,
                "backwards: {found:?}, and not {wanted:?}"
            );
            left -= 1;
            if !iter.rewind() {
                break;
            }
            from = iter.pos();
        }
        Ok(())
    })?;
    check!(left == 0, "{left} ranges are not seen backwards");
    Ok(())
}

fn lookup(b: &Btree, offset: u64) -> Result<Option<u64>> {
    b.run(|t| Ok(t.get(POINTS, pos(0, offset))?.and_then(value_of)))
}

/// Twice in one place: the second time there is nothing, which is no error.
fn delete(b: &Btree, _count: u64) -> Result {
    put(b, 5, 55)?;
    check!(lookup(b, 5)? == Some(55));
    for _ in 0..2 {
        commit(b, |t| t.delete(POINTS, pos(0, 5), UpdateFlags::default()))?;
        check!(lookup(b, 5)?.is_none());
    }
    Ok(())
}

/// What is deleted is in a node that has been written.
fn delete_written(b: &Btree, count: u64) -> Result {
    let count = count.min(1000);
    points(b, count)?;
    let journal = b.engine()?.journal.clone();
    journal.flush_pins(journal.cur_seq())?;
    for i in (0..count).step_by(2) {
        commit(b, |t| t.delete(POINTS, pos(0, i), UpdateFlags::default()))?;
    }
    for i in 0..count {
        check!(lookup(b, i)? == (i % 2 == 1).then_some(i + 7));
    }
    journal.flush_pins(journal.cur_seq())?;
    for i in 0..count {
        check!(lookup(b, i)? == (i % 2 == 1).then_some(i + 7));
    }
    Ok(())
}

fn iterate(b: &Btree, count: u64) -> Result {
    points(b, count)?;
    let mut i = 0;
    b.walk(
        POINTS,
        pos(0, 0),
        pos(0, u64::MAX),
        IterFlags::PREFETCH,
        |k| {
            check!((k.key.pos.offset, value_of(k)) == (i, Some(i + 7)));
            i += 1;
            Ok(core::ops::ControlFlow::<()>::Continue(()))
        },
    )?;
    check!(i == count);
    let mut from = pos(0, u64::MAX);
    b.run(|t| {
        let mut iter = t.iter(POINTS, from, IterFlags::NONE);
        while let Some(k) = iter.peek_prev(t)? {
            if k.key.pos.inode != 0 || i == 0 {
                break;
            }
            i -= 1;
            check!((k.key.pos.offset, value_of(k)) == (i, Some(i + 7)));
            if !iter.rewind() {
                break;
            }
            from = iter.pos();
        }
        Ok(())
    })?;
    check!(i == 0);
    Ok(())
}

fn iterate_extents(b: &Btree, count: u64) -> Result {
    let count = count.min(4096);
    ranges(b, count)?;
    let mut expected = KVVec::with_capacity(count as usize, GFP_KERNEL)?;
    for i in 0..count {
        let start = i * u64::from(SIZE);
        expected.push((start, start + u64::from(SIZE), i), GFP_KERNEL)?;
    }
    expect_ranges(b, &expected)
}

/// Every other place is taken; the slots between are there, too.
fn iterate_slots(b: &Btree, count: u64) -> Result {
    for i in 0..count {
        put(b, i * 2, i)?;
    }
    let mut at = 0;
    b.run(|t| {
        let mut iter = t.iter(POINTS, pos(0, at), IterFlags::SLOTS);
        while at < count * 2 {
            iter.set_pos(pos(0, at));
            let Some(k) = iter.peek(t)? else {
                break;
            };
            check!(k.key.pos.offset == at);
            check!(value_of(k) == (at % 2 == 0).then_some(at / 2));
            at += 1;
        }
        Ok(())
    })?;
    check!(at == count * 2);
    Ok(())
}

fn iterate_slots_extents(b: &Btree, count: u64) -> Result {
    let size = u64::from(SIZE);
    for i in 0..count {
        let start = i * 2 * size + size;
        put_range(b, start, start + size, i)?;
    }
    let mut at = 0;
    b.run(|t| {
        let mut iter = t.iter(RANGES, pos(0, at), IterFlags::SLOTS);
        while at < count * 2 * size {
            let Some(k) = iter.peek(t)? else {
                break;
            };
            check!((k.key.start_offset(), k.key.size) == (at, SIZE));
            let wanted = (at / size % 2 == 1).then_some(at / size / 2);
            check!(value_of(k) == wanted);
            if !iter.advance() {
                break;
            }
            at += size;
        }
        Ok(())
    })?;
    check!(at == count * 2 * size);
    Ok(())
}

/// An iterator of an empty inode comes to its end, and stays there.
fn at_end(b: &Btree, id: BtreeId) -> Result {
    b.run(|t| {
        let end = pos(0, u64::MAX);
        let mut iter = t.iter(id, pos(0, 0), IterFlags::NONE);
        for _ in 0..2 {
            check!(iter.peek_upto(t, end)?.is_none());
            check!(iter.pos() == end);
        }
        Ok(())
    })
}

fn peek_end(b: &Btree, _count: u64) -> Result {
    at_end(b, POINTS)
}

fn peek_end_extents(b: &Btree, _count: u64) -> Result {
    at_end(b, RANGES)
}

/// Random places, each inserted and deleted in another order.
fn insert_delete(b: &Btree, count: u64) -> Result {
    let mut random = Random::new(1, 0);
    for i in 0..count {
        put(b, random.below(count), i)?;
        let gone = random.below(count);
        commit(b, |t| {
            t.delete(POINTS, pos(0, gone), UpdateFlags::default())
        })?;
        check!(lookup(b, gone)?.is_none());
    }
    b.delete_range(POINTS, pos(0, 0), pos(0, count), UpdateFlags::default(), CommitFlags::default())?;
    check!(is_empty(b, POINTS, 0, 1)?);
    Ok(())
}

fn delete_range(b: &Btree, count: u64) -> Result {
    points(b, count)?;
    let (from, to) = (count / 4, count / 2);
    b.delete_range(POINTS, pos(0, from), pos(0, to), UpdateFlags::default(), CommitFlags::default())?;
    for i in 0..count {
        check!(
            lookup(b, i)?.is_some() == !(from..to).contains(&i),
            "point {i}"
        );
    }
    put_range(b, 0, 100, 1)?;
    put_range(b, 100, 200, 2)?;
    put_range(b, 200, 300, 3)?;
    b.delete_range(RANGES, pos(0, 50), pos(0, 250), UpdateFlags::default(), CommitFlags::default())?;
    expect_ranges(b, &[(0, 50, 1), (250, 300, 3)])
}

fn overwrite_front(b: &Btree, _count: u64) -> Result {
    put_range(b, 0, 64, 1)?;
    put_range(b, 0, 32, 2)?;
    expect_ranges(b, &[(0, 32, 2), (32, 64, 1)])?;
    put_range(b, 8, 64, 3)?;
    put_range(b, 0, 32, 4)?;
    expect_ranges(b, &[(0, 32, 4), (32, 64, 3)])
}

fn overwrite_back(b: &Btree, _count: u64) -> Result {
    put_range(b, 0, 64, 1)?;
    put_range(b, 32, 64, 2)?;
    expect_ranges(b, &[(0, 32, 1), (32, 64, 2)])?;
    put_range(b, 0, 64, 3)?;
    put_range(b, 32, 72, 4)?;
    expect_ranges(b, &[(0, 32, 3), (32, 72, 4)])
}

fn overwrite_middle(b: &Btree, _count: u64) -> Result {
    put_range(b, 0, 64, 1)?;
    put_range(b, 32, 40, 2)?;
    expect_ranges(b, &[(0, 32, 1), (32, 40, 2), (40, 64, 1)])
}

fn overwrite_all(b: &Btree, _count: u64) -> Result {
    for (value, (start, end)) in [(32, 64), (24, 64), (32, 72), (24, 72)]
        .into_iter()
        .enumerate()
    {
        clear_inodes(b, RANGES, 0, 1)?;
        put_range(b, 32, 64, 99)?;
        put_range(b, start, end, value as u64)?;
        expect_ranges(b, &[(start, end, value as u64)])?;
    }
    Ok(())
}

/// One range over the end of one, all of others, and the beginning of another.
fn overwrite_several(b: &Btree, _count: u64) -> Result {
    ranges(b, 16)?;
    put_range(b, 12, 92, 100)?;
    let mut expected = KVec::new();
    for i in 0..16 {
        let start = i * u64::from(SIZE);
        match i {
            1 => {
                expected.push((8, 12, 1), GFP_KERNEL)?;
                expected.push((12, 92, 100), GFP_KERNEL)?;
            }
            2..=10 => {}
            11 => expected.push((92, 96, 11), GFP_KERNEL)?,
            _ => expected.push((start, start + u64::from(SIZE), i), GFP_KERNEL)?,
        }
    }
    expect_ranges(b, &expected)?;
    insert(b, RANGES, Cookie::hole(pos(0, 4), 120))?;
    expect_ranges(b, &[(0, 4, 0), (124, 128, 15)])
}

/// Each overlaps what was there in another way.
fn create_overlapping(b: &Btree, _count: u64) -> Result {
    let steps: &[(u64, u64, &[(u64, u64, u64)])] = &[
        (0, 16, &[(0, 16, 0)]),
        (8, 24, &[(0, 8, 0), (8, 24, 1)]),
        (4, 12, &[(0, 4, 0), (4, 12, 2), (12, 24, 1)]),
        (0, 20, &[(0, 20, 3), (20, 24, 1)]),
        (24, 32, &[(0, 20, 3), (20, 24, 1), (24, 32, 4)]),
        (19, 25, &[(0, 19, 3), (19, 25, 5), (25, 32, 4)]),
    ];
    for (value, (start, end, expected)) in steps.iter().enumerate() {
        put_range(b, *start, *end, value as u64)?;
        expect_ranges(b, expected)?;
    }
    Ok(())
}
