// SPDX-License-Identifier: GPL-2.0
//! Changes that depend on there being nothing: who puts something there meanwhile makes them start again.

use super::{btrees, journal_is_right};
use crate::{
    btree::{
        tests::{check, image::Key},
        trans::update::{CommitFlags, UpdateFlags},
        Btree, IterFlags,
    },
    util::error::Result,
};
use bcachefs_format::{Bkey, Bpos, BtreeId, KeyRef, KeyType};
use kernel::prelude::*;

const POINTS: BtreeId = BtreeId::XATTRS;
const RANGES: BtreeId = BtreeId::EXTENTS;
const SNAPSHOT: u32 = 60;
/// Keys of a tree, which are several leaves.
const KEYS: u64 = 60;
/// Of these the twelfth is the last of the first leaf.
const LEAF: u64 = 12;

fn pos(offset: u64) -> Bpos {
    Bpos::with_snapshot(1, offset, SNAPSHOT)
}

/// The range that ends at `end`, a reservation.
fn range(end: u64, size: u32) -> Key {
    Key {
        pos: pos(end),
        size,
        key_type: KeyType::RESERVATION,
        value: 1 << 32,
    }
}

/// The same as nothing.
fn nothing(end: u64, size: u32) -> KeyRef<'static> {
    let key = Bkey { size, ..Bkey::deleted(pos(end)) };
    KeyRef { key, value: &[] }
}

fn put(b: &Btree, btree: BtreeId, key: KeyRef<'_>) -> Result {
    b.commit(None, CommitFlags::default(), |t| t.insert(btree, key, UpdateFlags::default()))
        .map(drop)
}

/// How many ranges there are between two sectors.
fn count(b: &Btree, start: u64, end: u64) -> Result<u32> {
    b.run(|t| {
        let (mut iter, mut n) = (t.iter(RANGES, pos(start), IterFlags::NONE), 0);
        while iter.peek_upto(t, pos(end))?.is_some() {
            n += 1;
            if !iter.advance() {
                break;
            }
        }
        Ok(n)
    })
}

/// A transaction found nothing between two keys, and changes something in another leaf.
fn nothing_was_shown(b: &Btree) -> Result {
    let at = |i: u64| pos(i * 10);
    for backwards in [false, true] {
        // Before the first key of all, if the look goes there.
        let (from, to, new) = match backwards {
            false => (pos(101), pos(108), pos(105)),
            true => (Bpos::with_snapshot(1, 3, SNAPSHOT), pos(0), Bpos::with_snapshot(0, 9, SNAPSHOT)),
        };
        let mut tries = 0;
        let (found, _) = b.commit(None, CommitFlags::default(), |t| {
            tries += 1;
            let found = {
                let mut iter = t.iter(POINTS, from, IterFlags::NONE);
                match backwards {
                    false => iter.peek_upto(t, to)?.is_some(),
                    true => iter.peek_prev(t)?.is_some(),
                }
            };
            let marker = Key::new(at(KEYS - 2), tries);
            t.insert(POINTS, marker.as_ref(), UpdateFlags::default())?;
            if tries == 1 {
                t.unlocked(|| put(b, POINTS, Key::new(new, 1).as_ref()))??;
            }
            Ok(found)
        })?;
        check!(found && tries > 1);
    }
    Ok(())
}

/// A transaction takes a range away where there is none, as far as the end of a leaf, and changes something in another leaf.
fn nothing_to_take_away(b: &Btree) -> Result {
    let end = LEAF * 10;
    put(b, RANGES, nothing(end, 4))?;
    check!(count(b, end - 4, end)? == 0);
    let mut tries = 0;
    b.commit(None, CommitFlags::default(), |t| {
        tries += 1;
        t.insert(RANGES, nothing(end, 4), UpdateFlags::default())?;
        t.insert(RANGES, range(KEYS * 10 - 2, 1).as_ref(), UpdateFlags::default())?;
        if tries == 1 {
            t.unlocked(|| put(b, RANGES, range(end - 1, 2).as_ref()))??;
        }
        Ok(())
    })?;
    check!(tries > 1);
    check!(count(b, end - 4, end)? == 0);
    Ok(())
}

pub(in crate::btree::tests) fn holes() -> Result {
    let (mut points, mut ranges) = (KVec::new(), KVec::new());
    for i in 1..=KEYS {
        points.push(Key::new(pos(i * 10), i), GFP_KERNEL)?;
        ranges.push(range(i * 10, 4), GFP_KERNEL)?;
    }
    let b = btrees(&[(POINTS, &points), (RANGES, &ranges)], 1000, None)?;
    nothing_was_shown(&b)?;
    nothing_to_take_away(&b)?;
    check!(journal_is_right(&b));
    Ok(())
}
