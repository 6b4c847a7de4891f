// SPDX-License-Identifier: GPL-2.0
//! Changing the size of files, and how ranges of them are laid out.
//!
//! For all of this the inode is locked for change. First the page cache is brought to where it does not contradict, with faults kept out; then
//! come the btrees. Nothing of a file may come to light on disk that was not there in memory: what lies behind the size on disk is written
//! back before that size is raised past it.

use kfs::vfs::iomap::{
    cache::{self, NoFaults},
    Allocate,
};

use super::{
    write::{block_bytes, blocks, give_back, writer_of, File},
    Data, SECTOR,
};
use crate::{
    data::{index, punch, reserve, share, shift},
    util::error::{Error, Result},
    vfs::inode::{mount, Inode},
};

/// Behind the last byte of any file.
const END: u64 = kfs::vfs::MAX_FILE_POSITION;

/// Changes the size of a file. Sleeps.
pub(in crate::vfs) fn set_size(inode: &Inode, size: u64) -> Result {
    let old = inode.size();
    if size == old {
        return Ok(());
    }
    cache::wait_direct(inode);
    let _faults = NoFaults::begin(inode);
    match size > old {
        true => grow(inode, size),
        false => shrink(inode, size),
    }
}

/// Makes the file end at `size`, further than it does. No faults.
fn grow(inode: &Inode, size: u64) -> Result {
    let (old, on_disk) = (inode.size(), inode.data().key().size);
    cache::write_back(inode, on_disk.min(old), old)?;
    cache::zero_behind_end(inode);
    index::change_inode(&mount(inode).fs.btree, &File(inode), &mut |_, key| {
        key.size = size;
        Ok(())
    })?;
    inode.set_size(size);
    cache::extended(inode, old, size);
    Ok(())
}

/// Makes the file end at `size`, before it does. No faults.
fn shrink(inode: &Inode, size: u64) -> Result {
    let block = block_bytes(inode);
    let on_disk = inode.data().key().size;
    let next = size.next_multiple_of(block);
    // The rest of the last block, and what is before it that the size on disk has not reached.
    cache::zero_range::<Data>(inode, size, next.min(inode.size()))?;
    let first = (size - size % block).min(on_disk);
    cache::write_back(inode, first, next)?;
    inode.set_size(size);
    cache::drop_behind(inode, size);
    give_back(inode, next, END - next);
    punch::truncate(&mount(inode).fs.btree, &File(inode), size, block)
}

/// See [`Write::allocate`](kfs::vfs::iomap::Write::allocate).
pub(super) fn allocate(inode: &Inode, how: Allocate, position: u64, length: u64) -> Result {
    match how {
        Allocate::Space { keep_size } => space(inode, position, length, keep_size),
        Allocate::Hole => hole(inode, position, length),
        Allocate::Zeros { keep_size } => {
            hole(inode, position, length)?;
            space(inode, position, length, keep_size)
        }
        Allocate::Collapse => shift_down(inode, position, length),
        Allocate::Insert => shift_up(inode, position, length),
    }
}

/// Space for a range, without data.
fn space(inode: &Inode, position: u64, length: u64, keep_size: bool) -> Result {
    let end = position.checked_add(length).ok_or(Error::ExtentInvalid)?;
    // What is dirty gets space of its own when it is written back.
    cache::write_back(inode, position, end)?;
    let (writer, options) = writer_of(inode)?;
    let range = blocks(inode, position, length);
    let sectors = block_bytes(inode) / SECTOR;
    let range = range.start * sectors..range.end * sectors;
    reserve::fill_holes(writer, &File(inode), &options, range, &mut |_, _| ())?;
    match !keep_size && end > inode.size() {
        true => grow(inode, end),
        false => Ok(()),
    }
}

/// A hole.
fn hole(inode: &Inode, position: u64, length: u64) -> Result {
    let (block, size) = (block_bytes(inode), inode.size());
    let end = position.checked_add(length).ok_or(Error::ExtentInvalid)?;
    // Behind the end of the file there is nothing to keep.
    let first = position.next_multiple_of(block);
    let last = if end >= size { end.next_multiple_of(block) } else { end - end % block };
    if first > last {
        // Within one block.
        return Ok(cache::zero_range::<Data>(inode, position, end.min(size))?);
    }
    cache::zero_range::<Data>(inode, position, first.min(size).min(end))?;
    cache::zero_range::<Data>(inode, last.max(position), end.min(size))?;
    cache::drop_range(inode, first, last);
    give_back(inode, first, last - first);
    let (btree, range) = (&mount(inode).fs.btree, first / SECTOR..last / SECTOR);
    punch::punch(btree, &File(inode), range, &mut |_| ())?;
    Ok(())
}

/// Writes all from `position` on back and drops it from memory.
fn settle(inode: &Inode, position: u64) -> Result {
    let page = kernel::page::PAGE_SIZE as u64;
    let on_disk = inode.data().key().size;
    let first = position - position % page;
    cache::write_back(inode, first.min(on_disk), END)?;
    cache::drop_range(inode, first, END);
    Ok(())
}

/// After extents have been moved, as far as that went: the size is what the inode says.
fn resized(inode: &Inode, done: Result) -> Result {
    inode.set_size(inode.data().key().size);
    done
}

fn shift_down(inode: &Inode, position: u64, length: u64) -> Result {
    settle(inode, position)?;
    let btree = &mount(inode).fs.btree;
    let done = shift::collapse(btree, &File(inode), position / SECTOR, length / SECTOR);
    resized(inode, done)
}

fn shift_up(inode: &Inode, position: u64, length: u64) -> Result {
    settle(inode, position)?;
    let btree = &mount(inode).fs.btree;
    let done = shift::insert(btree, &File(inode), position / SECTOR, length / SECTOR);
    resized(inode, done)
}

/// See [`Write::share`](kfs::vfs::iomap::Write::share).
pub(super) fn share(
    from: &Inode,
    from_position: u64,
    to: &Inode,
    to_position: u64,
    length: u64,
) -> Result<u64> {
    let end = to_position.checked_add(length).ok_or(Error::ExtentInvalid)?;
    let (old, on_disk) = (to.size(), to.data().key().size);
    // What the size on disk is about to be raised past.
    cache::write_back(to, on_disk.min(old), old.min(to_position))?;
    // The last block of a file is shared whole.
    let sectors = length.next_multiple_of(block_bytes(from)) / SECTOR;
    let (source, target) = (File(from), File(to));
    let from = share::Part { owner: &source, start: from_position / SECTOR };
    let part = share::Part { owner: &target, start: to_position / SECTOR };
    share::share(&mount(to).fs.btree, from, part, sectors, &mut |key, reached| {
        key.size = key.size.max(reached.saturating_mul(SECTOR).min(end));
    })?;
    if end > old {
        to.set_size(end);
        cache::extended(to, old, end);
    }
    Ok(length)
}
