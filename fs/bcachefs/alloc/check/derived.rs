// SPDX-License-Identifier: GPL-2.0
//! The btrees that list buckets: every entry has to be right, and there have to be as many as there should be.

use super::{Check, ALL};
use crate::{
    alloc::bucket::{self, Listed},
    util::error::Result,
};
use bcachefs_format::{
    keys::{
        alloc::Alloc,
        bucket_gens::{BucketGens, BUCKETS_PER_KEY},
        lru::LruPos,
    },
    Bpos, BtreeId, KeyRef, KeyType,
};
use core::ops::ControlFlow;

/// Bits of an offset in the freespace btree that are the bucket's number.
const FREESPACE_BUCKET: u64 = (1 << 56) - 1;

/// Entries found, and entries that there should be.
#[derive(Default)]
struct Tally {
    freespace: [u64; 2],
    need_discard: [u64; 2],
    lru: [u64; 2],
    generations: [u64; 2],
    backpointers: u64,
    rebalance: u64,
}

/// Checks all of them.
pub(super) fn check(c: &mut Check<'_>) -> Result {
    let mut tally = Tally::default();
    for (buckets, nr, b) in c.table.iter() {
        let a = b.recorded();
        if c.listed >> (buckets.dev & 63) & 1 != 0 {
            match bucket::listed(&a, nr) {
                Listed::Not => {}
                Listed::Free(_) => tally.freespace[1] += 1,
                Listed::NeedDiscard => tally.need_discard[1] += 1,
            }
        }
        let entries = bucket::lru_entries(&a, buckets.pos(nr), buckets.sectors);
        tally.lru[1] += entries.iter().flatten().count() as u64;
        tally.generations[1] += u64::from(a.generation != 0);
    }
    walk(c, BtreeId::FREESPACE, |c, key| freespace(c, key, &mut tally.freespace[0]))?;
    walk(c, BtreeId::NEED_DISCARD, |c, key| {
        tally.need_discard[0] += 1;
        let is = recorded(c, key.key.pos).map(|a| bucket::listed(&a, key.key.pos.offset));
        is == Some(Listed::NeedDiscard)
    })?;
    walk(c, BtreeId::LRU, |c, key| {
        tally.lru[0] += 1;
        let entry = LruPos::from_pos(key.key.pos);
        let Some((buckets, b)) = c.table.get(entry.dev.into(), entry.bucket) else {
            return false;
        };
        bucket::lru_entries(&b.recorded(), buckets.pos(entry.bucket), buckets.sectors)
            .contains(&Some(key.key.pos))
    })?;
    walk(c, BtreeId::BUCKET_GENS, |c, key| generations(c, key, &mut tally.generations[0]))?;
    walk(c, BtreeId::BACKPOINTERS, |_, _| {
        tally.backpointers += 1;
        true
    })?;
    walk(c, BtreeId::REBALANCE_WORK, |_, key| {
        tally.rebalance += u64::from(key.key.key_type == KeyType::SET);
        true
    })?;
    let all = [
        ("free buckets", tally.freespace),
        ("buckets to discard", tally.need_discard),
        ("entries of lists of buckets", tally.lru),
        ("generations", tally.generations),
        ("backpointers", [tally.backpointers, c.report.backpointers]),
        ("entries of work", [tally.rebalance, c.rebalance_bits]),
    ];
    for (what, [is, want]) in all.into_iter().filter(|(_, [is, want])| is != want) {
        c.report.differs(format_args!("{is} {what}, should be {want}"));
    }
    Ok(())
}

/// Calls `f` with every key of a btree; those that are not right are reported.
fn walk(
    c: &mut Check<'_>,
    btree: BtreeId,
    mut f: impl FnMut(&Check<'_>, KeyRef<'_>) -> bool,
) -> Result {
    c.btree.walk(btree, Bpos::POS_MIN, Bpos::SPOS_MAX, ALL, |key| {
        if !f(c, key) {
            c.report.differs(format_args!("{btree}: {}: not as its bucket", key.key));
        }
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(())
}

/// What the key of the bucket at `pos` says.
fn recorded(c: &Check<'_>, pos: Bpos) -> Option<Alloc> {
    Some(c.table.get(pos.inode, pos.offset)?.1.recorded())
}

/// A range of free buckets.
fn freespace(c: &Check<'_>, key: KeyRef<'_>, found: &mut u64) -> bool {
    let dev = key.key.pos.inode;
    for offset in key.key.start_offset()..key.key.pos.offset {
        let nr = offset & FREESPACE_BUCKET;
        let is = recorded(c, Bpos::new(dev, nr)).map(|a| bucket::listed(&a, nr));
        if is != Some(Listed::Free(offset)) {
            return false;
        }
        *found += 1;
    }
    true
}

/// The generations of 256 buckets.
fn generations(c: &Check<'_>, key: KeyRef<'_>, found: &mut u64) -> bool {
    let Ok(gens) = BucketGens::parse(key) else {
        return false;
    };
    let dev = key.key.pos.inode;
    let first = key.key.pos.offset.saturating_mul(BUCKETS_PER_KEY as u64);
    let mut right = true;
    for (nr, is) in (first..).zip(gens.gens) {
        right &= recorded(c, Bpos::new(dev, nr)).map_or(0, |a| a.generation) == *is;
        *found += u64::from(*is != 0);
    }
    right
}
