// SPDX-License-Identifier: GPL-2.0
//! Reading file data.
//!
//! [`Reader::read`] cuts a request into the pieces of the file's layout and starts each on its own:
//! it waits for btree nodes, but not for data. Each piece carries its part of the destination and
//! finishes it when it is done, in process context; nothing is left to do for the caller.
//!
//! Memory held by a piece is bounded by the largest extent that can be stored encoded: once for what
//! is on disk, once for what it decompresses to. Reserves of both sizes exist, so that reads go on when there
//! is no memory. A piece holds one buffer of each kind at most and takes them in the same order.

pub(super) mod limit;
mod op;

use core::fmt;

use bcachefs_format::keys::extent::Ptr;
use kernel::{
    prelude::*,
    sync::{Arc, SetOnce},
};
use kfs::{
    block::{BioSet, IoBuf, IoBufPool},
    mem::NofsScope,
};

use self::{
    limit::Limit,
    op::{Again, Op},
};
use super::{
    decompress::Decompressor,
    destination::{Buffer, Destination, Split, BUFFER_MAX},
    lane::Lanes,
    lookup::{self, Mapping, Piece, Source, BATCH},
};
use crate::{
    alloc::Allocator,
    btree::Btree,
    fs::InodeId,
    fs_warn,
    sb::{Device, Devices},
    util::{
        counters::{Counter, Counters},
        error::{Error, Result},
    },
};

/// Bytes of a sector.
const SECTOR: u64 = 512;

/// Bios kept in reserve for data reads.
const BIOS: u32 = 64;

/// Buffers of each kind kept in reserve.
const BUFFERS: u32 = 2;

/// Largest stored extent the reserves are made for; larger ones, which only a damaged or foreign
/// filesystem has, are read as memory allows.
const RESERVED_BYTES_MAX: usize = 1 << 20;

/// What reading data needs of a filesystem.
pub struct Reader {
    name: Name,
    btree: Arc<Btree>,
    devices: Arc<Devices>,
    counters: Arc<Counters>,
    bios: Arc<BioSet>,
    stored: Arc<IoBufPool>,
    decoded: Arc<IoBufPool>,
    /// Length of the buffers in both reserves.
    reserve_bytes: usize,
    decompressor: Decompressor,
    messages: Limit,
    /// Knows the generations of buckets, in a filesystem that is written to.
    allocator: SetOnce<Arc<Allocator>>,
    /// Reads whose data has gone elsewhere meanwhile.
    late: Lanes,
}

/// What the filesystem is called in messages.
pub type Name = kernel::str::CString;

impl Reader {
    /// Allocates what reading needs for a filesystem whose encoded extents are up to
    /// `encoded_extent_max` bytes long. May sleep.
    pub fn new(
        name: Name,
        btree: Arc<Btree>,
        devices: Arc<Devices>,
        counters: Arc<Counters>,
        encoded_extent_max: usize,
    ) -> Result<Arc<Reader>> {
        let reserve = encoded_extent_max.clamp(4096, RESERVED_BYTES_MAX);
        Ok(Arc::new(
            Reader {
                name,
                btree,
                devices,
                counters,
                bios: BioSet::new(BIOS)?,
                stored: IoBufPool::new(BUFFERS, reserve)?,
                decoded: IoBufPool::new(BUFFERS, reserve)?,
                reserve_bytes: reserve,
                decompressor: Decompressor::new()?,
                messages: Limit::new(),
                allocator: SetOnce::new(),
                late: Lanes::new(c"bcachefs-read", 1)?,
            },
            GFP_KERNEL,
        )?)
    }

    /// From now on buckets can be reused: `allocator` knows which have been. To be called before that. Any context.
    pub fn watch(&self, allocator: &Arc<Allocator>) {
        self.allocator.populate(allocator.clone());
    }

    /// Whether the bucket that `ptr` points into is not any more what it was when the pointer was made. Any context.
    fn is_reused(&self, device: &Device, ptr: &Ptr) -> bool {
        let generation = |a: &Arc<Allocator>| a.generation(ptr.dev(), device.bucket_of(ptr.offset()));
        let now = self.allocator.as_ref().and_then(generation);
        now.is_some_and(|now| now != ptr.generation())
    }

    /// Reads `dest.len()` bytes at byte `pos` of `file`. `pos` is a multiple of the sector size.
    ///
    /// Past the last extent there are zeros: the size of the file is not looked at. May return
    /// before the read is complete; the outcome goes to `dest`. May sleep.
    pub fn read<D: Split>(self: &Arc<Self>, file: InodeId, pos: u64, mut dest: D) {
        let mut sector = pos / SECTOR;
        let mut pieces = KVec::new();
        loop {
            let left = dest.len() as u64;
            if pos % SECTOR != 0 || left % SECTOR != 0 {
                return dest.finish(Err(Error::ExtentInvalid));
            }
            if let Err(e) = self.lookup(file, sector, left / SECTOR, BATCH, &mut pieces) {
                return dest.finish(Err(e));
            }
            if pieces.is_empty() {
                return dest.finish(Err(Error::ExtentInvalid));
            }
            for piece in pieces.drain_all() {
                let bytes = piece.sectors.saturating_mul(SECTOR);
                let at = sector * SECTOR;
                sector += piece.sectors;
                if bytes >= dest.len() as u64 {
                    return self.start(file, at, piece, dest, Self::read);
                }
                self.counters.inc(Counter::READ_SPLIT);
                // Less than the length of `dest`.
                match dest.split_to(bytes as usize) {
                    Ok(part) => self.start(file, at, piece, part, Self::read),
                    Err(e) => return dest.finish(Err(e)),
                }
            }
        }
    }

    /// Reads `len` bytes at `pos` (a multiple of the sector size) of `file` and waits for them. Meant for
    /// small things, such as the target of a symbolic link.
    pub fn read_bytes(self: &Arc<Self>, file: InodeId, pos: u64, len: usize) -> Result<KVec<u8>> {
        let mut bytes = KVec::new();
        let mut sector = pos / SECTOR;
        if len > BUFFER_MAX {
            return Err(Error::DataRead);
        }
        let mut pieces = KVec::new();
        'look: while bytes.len() < len {
            let left = (len - bytes.len()).div_ceil(SECTOR as usize);
            self.lookup(file, sector, left as u64, BATCH, &mut pieces)?;
            if pieces.is_empty() {
                return Err(Error::ExtentInvalid);
            }
            for piece in pieces.drain_all() {
                // At most `left` sectors, so it fits.
                let size = (piece.sectors * SECTOR) as usize;
                let at = sector * SECTOR;
                sector += piece.sectors;
                let (buffer, waiter) = Buffer::new(size)?;
                let moved = |_: &Arc<Self>, _, _, buffer: Buffer| buffer.finish(Err(Error::DataMoved));
                self.start(file, at, piece, buffer, moved);
                let memory = match waiter.wait() {
                    Err(Error::DataMoved) => {
                        sector = at / SECTOR;
                        continue 'look;
                    }
                    memory => memory?,
                };
                let want = size.min(len - bytes.len());
                let data = memory.as_bytes().get(..want).ok_or(Error::DataRead)?;
                bytes.extend_from_slice(data, GFP_KERNEL)?;
            }
        }
        Ok(bytes)
    }

    /// How the file is laid out from `sector` on: the first stretch, at most `sectors` long. May sleep.
    pub fn map(&self, file: InodeId, sector: u64, sectors: u64) -> Result<Mapping> {
        let mut pieces = KVec::new();
        self.lookup(file, sector, sectors.max(1), 1, &mut pieces)?;
        let first = pieces.first().ok_or(Error::ExtentInvalid)?;
        Ok(first.mapping())
    }

    /// The range of sectors of the file that has to be read to read `sector`, if that is more than
    /// the sector itself. May sleep.
    pub fn encoded_range(
        &self,
        file: InodeId,
        sector: u64,
    ) -> Result<Option<core::ops::Range<u64>>> {
        self.btree
            .run(|t| lookup::encoded_range(t, file, sector))
    }

    /// Waits until all I/O has ended and all completions have run. May sleep.
    pub fn wait_idle(&self) {
        self.bios.wait_idle();
        // Nothing is written any more: these are not late again.
        self.late.flush();
        self.bios.wait_idle();
    }

    fn lookup(
        &self,
        file: InodeId,
        sector: u64,
        sectors: u64,
        most: usize,
        out: &mut KVec<Piece>,
    ) -> Result {
        let end = sector.checked_add(sectors).ok_or(Error::ExtentInvalid)?;
        let _nofs = NofsScope::enter();
        self.btree.run(|t| {
            out.clear();
            lookup::pieces(t, &self.devices, file, sector..end, most, out)
        })
    }

    /// Starts the read of one piece, which is at byte `pos` of the file.
    fn start<D: Destination>(
        self: &Arc<Self>,
        file: InodeId,
        pos: u64,
        piece: Piece,
        mut dest: D,
        again: Again<D>,
    ) {
        let sectors = dest.len() as u64 / SECTOR;
        self.counters.add(Counter::IO_READ, sectors);
        let result = match piece.source {
            Source::Hole | Source::Unwritten => dest.zero(0, dest.len()),
            Source::Inline(bytes) => fill_inline(&mut dest, &bytes),
            Source::Lost => {
                self.warn(format_args!("{file} offset {pos}: data is lost"));
                Err(Error::DataRead)
            }
            Source::Damaged(e) => {
                self.warn(format_args!("{file} offset {pos}: {e}"));
                Err(e)
            }
            Source::Data(data) => {
                let _nofs = NofsScope::enter();
                return Op::start(self, file, pos, data, dest, again);
            }
        };
        dest.finish(result);
    }

    /// Prints a message about a read, unless there have been many of late.
    fn warn(&self, text: fmt::Arguments<'_>) {
        match self.messages.admit() {
            limit::Verdict::Print => fs_warn!(self, "{text}"),
            limit::Verdict::Last => {
                fs_warn!(self, "{text} (further messages about reads are left out for a while)")
            }
            limit::Verdict::Drop => {}
        }
    }

    /// A buffer for `bytes` of data as stored. Waits if there is no memory.
    fn stored_buffer(&self, bytes: usize) -> Result<IoBuf> {
        self.buffer(&self.stored, bytes)
    }

    /// A buffer for `bytes` of decompressed data. Waits if there is no memory.
    fn decoded_buffer(&self, bytes: usize) -> Result<IoBuf> {
        self.buffer(&self.decoded, bytes)
    }

    /// Memory if there is some, else from the reserve if its buffers are long enough.
    fn buffer(&self, reserve: &Arc<IoBufPool>, bytes: usize) -> Result<IoBuf> {
        if let Ok(buffer) = IoBuf::new(bytes, GFP_NOWAIT | __GFP_NOWARN) {
            return Ok(buffer);
        }
        if bytes <= self.reserve_bytes {
            return Ok(IoBufPool::get(reserve));
        }
        Ok(IoBuf::new(bytes, GFP_KERNEL)?)
    }
}

/// Inline data, and zeros after it.
fn fill_inline<D: Destination>(dest: &mut D, bytes: &[u8]) -> Result {
    let len = dest.len();
    let used = bytes.len().min(len);
    dest.copy_in(0, bytes.get(..used).unwrap_or(bytes))?;
    if used < len {
        dest.zero(used, len - used)?;
    }
    Ok(())
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.to_str() {
            Ok(name) => f.write_str(name),
            Err(_) => f.write_str("?"),
        }
    }
}
