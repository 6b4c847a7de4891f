// SPDX-License-Identifier: GPL-2.0
//! Space for a range of a file without data: `fallocate`.

use core::ops::Range;

use bcachefs_format::{keys::{inode::Inode, reservation::Reservation}, Bpos, BtreeId, KeyType};
use super::{
    index::{self, is_allocated, Draft},
    options::DataOptions,
    source::Owner,
    write::Writer,
};
use crate::{
    btree::{space::Shortage, IterFlags},
    fs::inode::edit,
    util::error::Result,
};

/// Sectors that are reserved at a time at most: what is set aside for a transaction under way nobody else can use.
const STEP: u64 = 1 << 21;

/// Puts space without data into the holes of `range`, sectors of the file of `owner`. `f` changes what else of the inode has to be, knowing up to which
/// sector there is space. Sleeps.
///
/// # Errors
///
/// [`Error::NoSpace`](crate::util::error::Error::NoSpace): then the front part of the range may have some.
pub fn fill_holes<O: Owner>(
    writer: &Writer,
    owner: &O,
    options: &DataOptions,
    range: Range<u64>,
    f: &mut dyn FnMut(&mut Inode, u64),
) -> Result {
    let mut at = range.start;
    while at < range.end {
        let hole = next_hole(writer, owner, at..range.end)?;
        if hole.start >= hole.end {
            return Ok(());
        }
        let end = hole.end.min(hole.start + STEP);
        let sectors = options.promised(end - hole.start);
        let mut reservation = writer.reserve(sectors, options, Shortage::Fail)?;
        let value = Reservation { generation: 0, nr_replicas: options.replicas };
        let draft = Draft::new(KeyType::RESERVATION, owner.id().inum, hole.start..end, 1, |words| {
            value.build(words).ok()
        })?;
        index::replace_all(writer.btree(), owner, draft, &mut reservation, f)?;
        at = end;
    }
    Ok(())
}

/// The first part of `range` in which nothing is allocated; empty at its end if there is none.
fn next_hole<O: Owner>(writer: &Writer, owner: &O, range: Range<u64>) -> Result<Range<u64>> {
    writer.btree().run(|t| {
        let snapshot = edit(t, owner.id(), None)?.snapshot;
        let inum = owner.id().inum;
        let end = Bpos::with_snapshot(inum, range.end, snapshot);
        let start = Bpos::with_snapshot(inum, range.start, snapshot);
        let mut iter = t.iter(BtreeId::EXTENTS, start, IterFlags::NONE);
        let mut at = range.start;
        while let Some(k) = iter.peek_upto(t, end)? {
            if k.key.start_offset() > at {
                return Ok(at..k.key.start_offset().min(range.end));
            }
            if is_allocated(k.key.key_type) {
                at = k.key.pos.offset;
            } else if k.key.pos.offset > at {
                // A key that stands for nothing is a hole as well.
                return Ok(at..k.key.pos.offset.min(range.end));
            }
            if at >= range.end || !iter.advance() {
                return Ok(range.end..range.end);
            }
        }
        Ok(at..range.end)
    })
}

/// How much of `range` the file of `owner` has reserved, with at least `replicas` copies, from the start of the range on: sectors. May sleep.
pub fn reserved<O: Owner>(writer: &Writer, owner: &O, replicas: u8, range: Range<u64>) -> Result<u64> {
    writer.btree().run(|t| {
        let snapshot = edit(t, owner.id(), None)?.snapshot;
        let inum = owner.id().inum;
        let end = Bpos::with_snapshot(inum, range.end, snapshot);
        let start = Bpos::with_snapshot(inum, range.start, snapshot);
        let mut iter = t.iter(BtreeId::EXTENTS, start, IterFlags::NONE);
        let mut at = range.start;
        while let Some(k) = iter.peek_upto(t, end)? {
            let enough = k.key.key_type == KeyType::RESERVATION
                && k.key.pos.snapshot == snapshot
                && Reservation::parse(k)?.nr_replicas >= replicas;
            if k.key.start_offset() > at || !enough {
                break;
            }
            at = k.key.pos.offset.min(range.end);
            if at >= range.end || !iter.advance() {
                break;
            }
        }
        Ok(at - range.start)
    })
}
