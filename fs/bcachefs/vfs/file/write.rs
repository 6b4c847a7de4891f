// SPDX-License-Identifier: GPL-2.0
//! Writing the data of files: promises of space, writing back, direct writes.

use core::ops::Range;

use bcachefs_format::{
    features::Features,
    keys::{compression::CompressionOpt, inode::Inode as Key},
};
use kfs::vfs::iomap::{DirectSpan, DirectWrite, FolioSpan, FolioWrite};

use super::SECTOR;
use crate::{
    btree::space::{DiskReservation, Shortage},
    data::{
        promises::Terms,
        reserve,
        source::{Owner, Source},
        DataOptions, WriteRequest, Writer,
    },
    fs::{
        inode::{Changed, State},
        InodeId,
    },
    util::error::{Error, Result},
    vfs::{
        inode::{
            mount, stored, unused,
            update::{self, Fields},
            Inode,
        },
        mount::Bcachefs,
    },
};

/// Bytes that space is promised for in one go.
const PROMISE_MAX: u64 = 4 << 20;

/// A file in use.
pub(super) struct File<'a>(pub &'a Inode);

impl Owner for File<'_> {
    fn id(&self) -> InodeId {
        self.0.data().id
    }

    fn state(&self) -> Option<&State> {
        Some(&self.0.data().state)
    }

    fn amend(&self, key: &mut Key) {
        let (mount, known) = (mount(self.0), self.0.data().key());
        // Where the key is newer than what is known of it, somebody has just set a time that the VFS has not been told yet.
        if key.mtime == known.mtime {
            key.mtime = stored(mount, self.0.mtime());
        }
        if key.ctime == known.ctime {
            key.ctime = stored(mount, self.0.ctime());
        }
    }

    fn committed(&self, changed: &Changed, seq: u64) {
        update::committed(self.0, changed, seq, Fields::BLOCKS);
    }
}

/// What writes the data of `inode`, and how.
pub(super) fn writer_of(inode: &Inode) -> Result<(&Writer, DataOptions)> {
    let writer = mount(inode).writer()?;
    let options = writer.options_of(&inode.data().key())?;
    Ok((writer, options))
}

/// Bytes of a block.
pub(super) fn block_bytes(inode: &Inode) -> u64 {
    mount(inode).fs.sup.block_bytes().into()
}

/// The blocks that `length` bytes at `position` touch.
pub(super) fn blocks(inode: &Inode, position: u64, length: u64) -> Range<u64> {
    let block = block_bytes(inode).max(1);
    position / block..position.saturating_add(length).div_ceil(block)
}

/// What is promised for a block.
pub(super) fn terms(inode: &Inode, replicas: u8) -> Terms {
    Terms { sectors: block_bytes(inode) / SECTOR, replicas }
}

/// What the superblock has to say before data is compressed that way.
fn require(inode: &Inode, options: &DataOptions) -> Result {
    let used = |option: CompressionOpt| match option.algorithm() {
        1 => Features::LZ4.0 | Features::INCOMPRESSIBLE.0,
        2 => Features::GZIP.0 | Features::INCOMPRESSIBLE.0,
        3 => Features::ZSTD.0 | Features::INCOMPRESSIBLE.0,
        _ => 0,
    };
    mount(inode).require(Features(used(options.compression)))
}

/// See [`Write::promise`](kfs::vfs::iomap::Write::promise).
pub(super) fn promise(inode: &Inode, position: u64, length: u64, whole: bool) -> Result<u64> {
    let (writer, options) = writer_of(inode)?;
    require(inode, &options)?;
    let terms = terms(inode, options.replicas);
    let block = block_bytes(inode);
    let mut length = if whole { length } else { length.min(PROMISE_MAX) };
    loop {
        let range = blocks(inode, position, length);
        let reserve = &mut |sectors| writer.reserve(sectors, &options, Shortage::Fail);
        let promises = &inode.data().promises;
        match promises.promise(range.clone(), terms, reserve, &|_| false) {
            Err(Error::NoSpace) => {}
            Ok(()) => return Ok(length),
            Err(e) => return Err(e),
        }
        // Where the file has space already, none is needed.
        let sectors = range.start * terms.sectors..range.end * terms.sectors;
        let has = reserve::reserved(writer, &File(inode), options.replicas, sectors)?;
        let end = range.start + has / terms.sectors.max(1);
        if end >= range.end || !whole && end > range.start {
            let covered = range.start..end.min(range.end);
            promises.promise(covered.clone(), terms, reserve, &|b| covered.contains(&b))?;
            let reach = covered.end.saturating_mul(block).saturating_sub(position);
            return Ok(length.min(reach));
        }
        // As much as there is, down to a block.
        if whole || range.end - range.start <= 1 {
            return Err(Error::NoSpace);
        }
        let half = (range.start + (range.end - range.start) / 2).saturating_mul(block);
        length = half.saturating_sub(position).max(1);
    }
}

/// Promises space for a range whether there is some or not.
pub(super) fn promise_always(inode: &Inode, position: u64, length: u64) -> Result {
    let (writer, options) = writer_of(inode)?;
    require(inode, &options)?;
    let reserve = &mut |sectors| writer.reserve(sectors, &options, Shortage::Ignore);
    let range = blocks(inode, position, length);
    let terms = terms(inode, options.replicas);
    inode.data().promises.promise(range, terms, reserve, &|_| false)
}

/// See [`Write::give_back`](kfs::vfs::iomap::Write::give_back).
pub(super) fn give_back(inode: &Inode, position: u64, length: u64) {
    let block = block_bytes(inode).max(1);
    // Only whole blocks.
    let range = position.div_ceil(block)..position.saturating_add(length) / block;
    inode.data().promises.give_back(range, terms(inode, 1));
}

/// See [`Write::write`](kfs::vfs::iomap::Write::write).
pub(super) fn write_back(inode: &Inode, run: FolioWrite<Bcachefs>) {
    let (position, size) = (run.position(), run.end());
    let source = Folios(run);
    let range = source.blocks();
    let (writer, options) = match mount(inode).writer() {
        Ok(writer) => match writer.options_of(&inode.data().key()) {
            Ok(options) => (writer, options),
            Err(e) => return source.finish(Err(e)),
        },
        Err(e) => return source.finish(Err(e)),
    };
    let terms = terms(inode, options.replicas);
    let (mut reservation, missing) = inode.data().promises.begin_write(range, terms);
    if missing != 0 {
        // It cannot be refused any more.
        match writer.reserve(missing, &options, Shortage::Ignore) {
            Ok(more) => reservation.join(more),
            Err(e) => return source.finish(Err(e)),
        }
    }
    let request = WriteRequest {
        pos: position,
        size,
        options,
        reservation,
        writer: inode.data().id.inum,
    };
    writer.write(request, source);
}

/// See [`Write::write_direct`](kfs::vfs::iomap::Write::write_direct).
pub(super) fn write_direct(inode: &Inode, run: DirectWrite<Bcachefs>) {
    match prepare_direct(inode, &run) {
        Ok((writer, request)) => writer.write(request, Direct(run)),
        Err(e) => run.finish(Err(e.errno())),
    }
}

fn prepare_direct<'a>(
    inode: &'a Inode,
    run: &DirectWrite<Bcachefs>,
) -> Result<(&'a kernel::sync::Arc<Writer>, WriteRequest)> {
    let writer = mount(inode).writer()?;
    let options = writer.options_of(&inode.data().key())?;
    require(inode, &options)?;
    let (start, sectors) = (run.position() / SECTOR, run.len() as u64 / SECTOR);
    let need = options.promised(sectors);
    let reservation = match writer.reserve(need, &options, Shortage::Fail) {
        Err(Error::NoSpace) => {
            let range = start..start + sectors;
            let has = reserve::reserved(writer, &File(inode), options.replicas, range)?;
            if has < sectors {
                return Err(Error::NoSpace);
            }
            DiskReservation::none()
        }
        got => got?,
    };
    let request = WriteRequest {
        pos: run.position(),
        size: run.position() + run.len() as u64,
        options,
        reservation,
        writer: inode.data().id.inum,
    };
    Ok((writer, request))
}

/// See [`Write::sync`](kfs::vfs::iomap::Write::sync).
pub(super) fn sync(inode: &Inode, data_only: bool) -> Result {
    if !data_only {
        unused::write_times(inode)?;
    }
    update::make_durable(inode)
}

/// Folios that are being written back.
struct Folios(FolioWrite<Bcachefs>);

impl Folios {
    fn blocks(&self) -> Range<u64> {
        blocks(self.0.inode(), self.0.position(), self.0.len() as u64)
    }
}

impl Owner for Folios {
    fn id(&self) -> InodeId {
        self.0.inode().data().id
    }

    fn state(&self) -> Option<&State> {
        Some(&self.0.inode().data().state)
    }

    fn amend(&self, key: &mut Key) {
        File(self.0.inode()).amend(key)
    }

    fn committed(&self, changed: &Changed, seq: u64) {
        File(self.0.inode()).committed(changed, seq)
    }
}

impl Source for Folios {
    type Span = FolioSpan;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_stable(&self) -> bool {
        true
    }

    fn inspect(&self, f: &mut dyn FnMut(&[u8])) -> Result {
        self.0.inspect(f);
        Ok(())
    }

    fn span(&self) -> FolioSpan {
        self.0.span()
    }

    fn split_to(&mut self, len: usize) -> Result<Self> {
        Ok(Folios(self.0.split_to(len)?))
    }

    fn finish(self, result: Result) {
        self.0.inode().data().promises.end_write(self.blocks());
        self.0.finish(result.map_err(Error::errno));
    }
}

/// The memory of a direct write.
struct Direct(DirectWrite<Bcachefs>);

impl Owner for Direct {
    fn id(&self) -> InodeId {
        self.0.inode().data().id
    }

    fn state(&self) -> Option<&State> {
        Some(&self.0.inode().data().state)
    }

    fn amend(&self, key: &mut Key) {
        File(self.0.inode()).amend(key)
    }

    fn committed(&self, changed: &Changed, seq: u64) {
        File(self.0.inode()).committed(changed, seq)
    }
}

impl Source for Direct {
    type Span = DirectSpan;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_stable(&self) -> bool {
        false
    }

    fn inspect(&self, f: &mut dyn FnMut(&[u8])) -> Result {
        Ok(self.0.inspect(f)?)
    }

    fn span(&self) -> DirectSpan {
        self.0.span()
    }

    fn split_to(&mut self, len: usize) -> Result<Self> {
        Ok(Direct(self.0.split_to(len)?))
    }

    fn finish(self, result: Result) {
        self.0.finish(result.map_err(Error::errno));
    }
}
