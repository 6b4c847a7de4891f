// SPDX-License-Identifier: GPL-2.0
//! Regular files: their data in the page cache and by direct I/O, their layout.
//!
//! For reading, every range is one mapping: the layout is looked up once, by the read itself, which fills holes
//! with zeros. So a whole readahead arrives as one run of folios, and is cut by extent.
//!
//! What is written is in `write`: space is promised when pages become dirty, and data gets its place when it is written back. How the layout
//! and the size are changed is in `range`.
//!
//! For reports (`FIEMAP`, `SEEK_HOLE`, `SEEK_DATA`) the layout is looked up here. What iomap has no way to say:
//! that data is compressed or stored more than once. The address shown is that of the first copy, on
//! its device; for compressed data it is where the stored extent begins.

mod range;
mod write;

use core::cmp::max;

use kernel::{error::Result, prelude::*, sync::Arc};
use kfs::{
    block::{BioSet, BlockDevice, IoError},
    vfs::{
        file::Table as FileTable,
        iomap::{
            self, Allocate, Destination as _, DirectRun, DirectWrite, FolioRun, FolioWrite, Mapping,
            MappingKind, Purpose, Read, Write,
        },
    },
};

use super::{
    inode::{mount, Inode},
    mount::{Bcachefs, Mount},
};
use crate::{
    data::{
        self,
        destination::{Destination, Split},
    },
    util::error::{self, Error},
};

/// Bytes of a sector.
const SECTOR: u64 = 512;

/// Readaheads at least this long are not widened: they are sequential, and the next one goes on from there.
const WIDEN_BELOW: u64 = 128 << 10;

/// File data.
pub(super) struct Data;

pub(super) const DATA: iomap::Table<Bcachefs> = iomap::Table::writable::<Data>();
pub(super) const DATA_FILE: FileTable<Bcachefs> = FileTable::iomap_writable::<Data>();

pub(super) use range::set_size;

/// The alignment direct I/O needs: the largest block size of all members.
pub(super) fn direct_alignment(mount: &Mount) -> u32 {
    let devices = mount.fs.devices.iter();
    devices.fold(SECTOR as u32, |align, d| {
        max(align, d.bdev.logical_block_bytes())
    })
}

#[vtable]
impl Read for Data {
    type FileSystem = Bcachefs;

    fn begin(inode: &Inode, position: u64, length: u64, purpose: Purpose) -> Result<Mapping> {
        match purpose {
            Purpose::Report => report(inode, position, length).map_err(Error::errno),
            Purpose::Read | Purpose::Direct => Ok(Mapping {
                kind: MappingKind::Mapped,
                position,
                length: whole_blocks(inode, position, length),
                address: None,
                shared: false,
            }),
        }
    }

    fn read(inode: &Inode, run: FolioRun) {
        let (id, position) = (inode.data().id, run.position());
        let run = Run::<_, true>(run);
        mount(inode).reader.read(id, position, run);
    }

    fn read_direct(inode: &Inode, run: DirectRun) {
        let (id, position) = (inode.data().id, run.position());
        let run = Run::<_, false>(run);
        mount(inode).reader.read(id, position, run);
    }

    fn direct_device(inode: &Inode) -> Result<Arc<BlockDevice>> {
        let devices = mount(inode).fs.devices.iter();
        let coarsest = devices.max_by_key(|d| d.bdev.logical_block_bytes());
        coarsest.map(|d| d.bdev.clone()).ok_or(ENODEV)
    }

    fn readahead_window(inode: &Inode, position: u64, length: u64) -> Option<(u64, u64)> {
        if length >= WIDEN_BELOW {
            return None;
        }
        let end = position.checked_add(length)?;
        let (from, to) = (encoded(inode, position)?, encoded(inode, end.checked_sub(1)?)?);
        let start = from.0.min(position);
        let end = to.1.max(end);
        Some((start, end - start))
    }
}

#[vtable]
impl Write for Data {
    fn promise(inode: &Inode, position: u64, length: u64, whole: bool) -> Result<u64> {
        write::promise(inode, position, length, whole).map_err(Error::errno)
    }

    fn give_back(inode: &Inode, position: u64, length: u64) {
        write::give_back(inode, position, length)
    }

    fn zero(inode: &Inode, position: u64, length: u64) -> Result<(bool, u64)> {
        zero(inode, position, length).map_err(Error::errno)
    }

    fn write(inode: &Inode, run: FolioWrite<Bcachefs>) {
        write::write_back(inode, run)
    }

    fn write_direct(inode: &Inode, run: DirectWrite<Bcachefs>) {
        write::write_direct(inode, run)
    }

    fn sync(inode: &Inode, data_only: bool) -> Result {
        write::sync(inode, data_only).map_err(Error::errno)
    }

    fn allocate(inode: &Inode, how: Allocate, position: u64, length: u64) -> Result {
        range::allocate(inode, how, position, length).map_err(Error::errno)
    }

    fn share(
        from: &Inode,
        from_position: u64,
        to: &Inode,
        to_position: u64,
        length: u64,
    ) -> Result<u64> {
        range::share(from, from_position, to, to_position, length).map_err(Error::errno)
    }
}

/// How many of `length` bytes at `position` are pending as the first one is, or are not; and whether it is.
fn pending(inode: &Inode, position: u64, length: u64) -> (bool, u64) {
    let block = write::block_bytes(inode).max(1);
    let blocks = write::blocks(inode, position, length);
    let (is, count) = inode.data().promises.look(blocks.start, blocks.end - blocks.start);
    let end = (blocks.start + count).saturating_mul(block);
    (is, end.saturating_sub(position).min(length).max(1))
}

/// See [`Write::zero`].
fn zero(inode: &Inode, position: u64, length: u64) -> error::Result<(bool, u64)> {
    let (dirty, length) = pending(inode, position, length);
    if !dirty {
        let found = layout(inode, position, length)?;
        let length = length.min(found.position + found.length - position);
        if matches!(found.kind, MappingKind::Hole | MappingKind::Unwritten) {
            return Ok((false, length));
        }
        write::promise_always(inode, position, length)?;
        return Ok((true, length));
    }
    write::promise_always(inode, position, length)?;
    Ok((true, length))
}

/// The bytes of the encoded extent at `position`, or just that position if it is not in one. `None` if that cannot be found out.
fn encoded(inode: &Inode, position: u64) -> Option<(u64, u64)> {
    let reader = &mount(inode).reader;
    let range = reader.encoded_range(inode.data().id, position / SECTOR).ok()?;
    let Some(range) = range else {
        return Some((position, position));
    };
    Some((
        range.start.checked_mul(SECTOR)?,
        range.end.checked_mul(SECTOR)?,
    ))
}

/// `length`, made longer so that the range ends with a block.
fn whole_blocks(inode: &Inode, position: u64, length: u64) -> u64 {
    let block = u64::from(mount(inode).fs.sup.block_bytes());
    let end = position.saturating_add(length);
    match end.checked_next_multiple_of(block) {
        Some(end) => end - position,
        None => length,
    }
}

/// The layout at `position`, with what is in memory only.
fn report(inode: &Inode, position: u64, length: u64) -> error::Result<Mapping> {
    let (dirty, same) = pending(inode, position, length);
    let mut found = layout(inode, position, same)?;
    let end = position.saturating_add(same);
    found.length = found.length.min(end.saturating_sub(found.position)).max(1);
    if dirty && found.kind != MappingKind::Mapped {
        found.kind = MappingKind::Delayed;
        found.address = None;
    }
    Ok(found)
}

/// The layout at `position`, as the btrees have it.
fn layout(inode: &Inode, position: u64, length: u64) -> error::Result<Mapping> {
    let sector = position / SECTOR;
    let end = position.saturating_add(length).div_ceil(SECTOR);
    let sectors = max(end - sector, 1);
    let found = mount(inode)
        .reader
        .map(inode.data().id, sector, sectors)?;
    let kind = match found.kind {
        data::MappingKind::Hole => MappingKind::Hole,
        data::MappingKind::Unwritten => MappingKind::Unwritten,
        data::MappingKind::Inline | data::MappingKind::Data => MappingKind::Mapped,
    };
    Ok(Mapping {
        kind,
        position: sector * SECTOR,
        length: found.sectors.saturating_mul(SECTOR),
        address: found.sector.map(|s| s.saturating_mul(SECTOR)),
        shared: found.shared,
    })
}

/// The VFS's memory as a destination. `STABLE` memory cannot be changed by others meanwhile.
struct Run<D, const STABLE: bool>(D);

impl<D: iomap::Destination, const STABLE: bool> Destination for Run<D, STABLE> {
    fn len(&self) -> usize {
        self.0.span_len()
    }

    fn copy_in(&mut self, offset: usize, data: &[u8]) -> error::Result {
        Ok(self.0.copy_in(offset, data)?)
    }

    fn zero(&mut self, offset: usize, len: usize) -> error::Result {
        Ok(self.0.zero(offset, len)?)
    }

    fn is_stable(&self) -> bool {
        STABLE
    }

    fn inspect(&self, f: &mut dyn FnMut(&[u8])) -> error::Result {
        Ok(self.0.inspect(0, self.0.span_len(), f)?)
    }

    fn read_from<F>(self, bdev: &Arc<BlockDevice>, bios: &Arc<BioSet>, sector: u64, done: F)
    where
        F: FnOnce(core::result::Result<(), IoError>, Self) + Send + 'static,
    {
        let range = 0..self.0.span_len();
        bdev.read(bios, sector, self.0, range, move |result, memory| {
            done(result, Run(memory))
        });
    }

    fn finish(self, result: error::Result) {
        self.0.finish(result.map_err(Error::errno));
    }
}

impl<D: iomap::Destination, const STABLE: bool> Split for Run<D, STABLE> {
    fn split_to(&mut self, len: usize) -> error::Result<Self> {
        Ok(Run(self.0.split_to(len)?))
    }
}
