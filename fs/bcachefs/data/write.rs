// SPDX-License-Identifier: GPL-2.0
//! Writing file data.
//!
//! [`Writer::write`] cuts a request into extents, and for each: compresses, finds a place, computes the checksum, and starts writing all
//! copies. It waits for buckets and for memory, but not for data. When the copies of an extent are on the devices, it is queued
//! on a lane, whose work item puts it into the btrees together with the inode's size and sectors, and finishes its part of the
//! source. Buckets stay open until then.
//!
//! A device that fails costs a copy: the extent is put into the btrees with those that were written. Without any, the part fails.
//!
//! | file | what it has |
//! |---|---|
//! | `encode` | compression, checksums |
//! | `op` | one extent: I/O, its key, the transaction |

mod encode;
mod op;

use core::fmt;

use bcachefs_format::{
    keys::{data_type::DataType, inode::Inode},
    sb::options::Options as SbOptions,
};
use kernel::{prelude::*, sync::Arc};
use kfs::{
    block::{BioSet, IoBuf, IoBufPool},
    mem::NofsScope,
};

use self::{encode::Coded, op::Op};
use super::{
    compress::Compressor,
    copygc::Signal,
    lane::Lanes,
    options::DataOptions,
    read::{limit::{self, Limit}, Name},
    source::Source,
};
use crate::{
    alloc::{
        rebalance::Targets, AllocRequest, Allocator, DeviceSet, Placed, WritePointSpec,
    },
    btree::{
        space::{DiskReservation, Shortage, Space, SpaceError},
        Btree,
    },
    fs_warn,
    sb::{Devices, Super},
    util::{
        counters::{Counter, Counters},
        error::{Error, Result},
        io_clock::{IoClocks, Rw},
        watermark::Watermark,
    },
};

/// Bytes of a sector.
pub(super) const SECTOR: usize = 512;

/// Bios kept in reserve for writing data.
const BIOS: u32 = 64;
/// Buffers of each kind kept in reserve.
const BUFFERS: u32 = 2;
/// Largest extent the reserves are made for.
const RESERVED_BYTES_MAX: usize = 1 << 20;
/// Largest extent that is written at once without checksum or compression.
const PLAIN_BYTES_MAX: usize = 1 << 20;
/// Queues to the btrees.
const LANES: usize = 8;
/// Longest file data that is kept in a key.
const INLINE_BYTES_MAX: usize = 1024;

/// What writing data needs of a filesystem.
pub struct Writer {
    name: Name,
    btree: Arc<Btree>,
    devices: Arc<Devices>,
    counters: Arc<Counters>,
    clocks: Arc<IoClocks>,
    allocator: Arc<Allocator>,
    copygc: Arc<Signal>,
    space: Arc<dyn Space>,
    options: SbOptions,
    targets: Targets,
    block_bytes: usize,
    /// Bytes of the largest extent with checksum or compression.
    encoded_max: usize,
    bios: Arc<BioSet>,
    plain: Arc<IoBufPool>,
    packed: Arc<IoBufPool>,
    compressor: Pin<KBox<Compressor>>,
    lanes: Lanes,
    messages: Limit,
}

/// What of a filesystem a [`Writer`] works with.
pub struct Parts {
    /// What it is called in messages.
    pub name: Name,
    /// The superblock.
    pub sup: Arc<Super>,
    /// The btrees, which can be written.
    pub btree: Arc<Btree>,
    /// The devices.
    pub devices: Arc<Devices>,
    /// The counters.
    pub counters: Arc<Counters>,
    /// The clocks that go by I/O.
    pub clocks: Arc<IoClocks>,
    /// Where space comes from.
    pub allocator: Arc<Allocator>,
    /// Who has to know how much is written.
    pub copygc: Arc<Signal>,
}

/// What is to become of the bytes of a source.
pub struct WriteRequest {
    /// Byte of the file at which they begin; a multiple of the block size.
    pub pos: u64,
    /// The inode gets at least the size up to which they go, but not because of them more than this, in bytes.
    pub size: u64,
    /// How to write.
    pub options: DataOptions,
    /// Space that was promised.
    pub reservation: DiskReservation,
    /// Who writes: what has the same number should be near each other.
    pub writer: u64,
}

impl Writer {
    /// Allocates what writing needs. May sleep.
    pub fn new(parts: Parts) -> Result<Arc<Writer>> {
        let space = parts.btree.engine()?.space.clone();
        let encoded_max = (parts.sup.encoded_extent_max_sectors as usize).saturating_mul(SECTOR);
        let reserve = encoded_max.clamp(4096, RESERVED_BYTES_MAX);
        Ok(Arc::new(
            Writer {
                name: parts.name,
                btree: parts.btree,
                devices: parts.devices,
                counters: parts.counters,
                clocks: parts.clocks,
                allocator: parts.allocator,
                copygc: parts.copygc,
                space,
                options: parts.sup.raw()?.options()?,
                targets: Targets::new(&parts.sup)?,
                block_bytes: parts.sup.block_bytes() as usize,
                // Larger ones are legal, and would take too much memory at a time.
                encoded_max: reserve,
                bios: BioSet::new(BIOS)?,
                plain: IoBufPool::new(BUFFERS, reserve)?,
                packed: IoBufPool::new(BUFFERS, reserve)?,
                compressor: KBox::pin_init(Compressor::new(reserve), GFP_KERNEL)?,
                lanes: Lanes::new(c"bcachefs-write", LANES)?,
                messages: Limit::new(),
            },
            GFP_KERNEL,
        )?)
    }

    /// The options in effect for the data of a file.
    pub fn options_of(&self, inode: &Inode) -> Result<DataOptions> {
        DataOptions::new(&self.options, inode)
    }

    /// Promises space. Sleeps for a mutex, with [`Shortage::Ignore`] not even that.
    pub fn reserve(&self, sectors: u64, options: &DataOptions, how: Shortage) -> Result<DiskReservation> {
        let got = self.space.reserve(sectors, how)?;
        Ok(DiskReservation::new(self.space.clone(), got, options.replicas))
    }

    /// The btrees.
    pub fn btree(&self) -> &Arc<Btree> {
        &self.btree
    }

    /// The space that is promised and given back.
    pub fn space(&self) -> &Arc<dyn Space> {
        &self.space
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// Waits until all writes that were started have ended. Sleeps.
    pub fn wait_idle(&self) {
        self.bios.wait_idle();
        self.lanes.flush();
    }

    /// Writes the bytes of `source`. Returns before that is complete; the outcome goes to `source`, part by part. Sleeps for buckets and
    /// memory; no lock of a node may be held, nor anything that completions of writes wait for.
    pub fn write<S: Source>(self: &Arc<Self>, mut request: WriteRequest, mut source: S) {
        let _nofs = NofsScope::enter();
        let block = self.block_bytes as u64;
        if source.len() as u64 % block != 0 || request.pos % block != 0 {
            return source.finish(Err(Error::ExtentInvalid));
        }
        let sectors = (source.len() / SECTOR) as u64;
        self.counters.add(Counter::IO_WRITE, sectors);
        self.clocks.add(Rw::Write, sectors);
        self.copygc.written(self.clocks.now(Rw::Write));
        loop {
            let most = self.extent_max(&request.options);
            let mut part = match source.len() > most {
                true => match source.split_to(most) {
                    Ok(part) => part,
                    Err(e) => return source.finish(Err(e)),
                },
                false => match self.write_last(&mut request, source) {
                    Some(rest) => {
                        source = rest;
                        continue;
                    }
                    None => return,
                },
            };
            // What does not find a place as one is cut further.
            while let Some(rest) = self.write_extent(&mut request, part) {
                part = rest;
            }
        }
    }

    /// Writes what is not longer than an extent can be; returns what is left of it.
    fn write_last<S: Source>(self: &Arc<Self>, request: &mut WriteRequest, source: S) -> Option<S> {
        if let Some(bytes) = self.inline_bytes(request, source.len()) {
            Op::inline(self, request, source, bytes);
            return None;
        }
        self.write_extent(request, source)
    }

    /// How many bytes of a file's data are to be kept in the key, if they are.
    fn inline_bytes(&self, request: &WriteRequest, len: usize) -> Option<usize> {
        let bytes = request.size.checked_sub(request.pos)?.min(len as u64);
        let most = INLINE_BYTES_MAX.min(self.block_bytes / 2) as u64;
        (bytes != 0 && bytes <= most).then_some(bytes as usize)
    }

    /// Bytes of the largest extent.
    fn extent_max(&self, options: &DataOptions) -> usize {
        let plain = options.checksum.0 == 0 && options.compression.algorithm() == 0;
        let most = if plain { PLAIN_BYTES_MAX } else { self.encoded_max };
        // At least a block.
        (most - most % self.block_bytes).max(self.block_bytes)
    }

    /// Starts writing the first extent of `source`; returns what is left of it, if no place was large enough for all.
    fn write_extent<S: Source>(
        self: &Arc<Self>,
        request: &mut WriteRequest,
        mut source: S,
    ) -> Option<S> {
        let mut coded = match self.compress(&source, &request.options) {
            Ok(coded) => coded,
            Err(e) => {
                source.finish(Err(e));
                return None;
            }
        };
        let packed = coded.compression.is_compressed();
        let placed = match self.place(&request.options, &coded, packed, request.writer) {
            Ok(placed) => placed,
            Err(e) => {
                self.warn(format_args!("{} offset {}: no place to write: {e}", source.id(), request.pos));
                source.finish(Err(e));
                return None;
            }
        };
        let mut rest = None;
        if placed.sectors < coded.sectors {
            // Whole blocks, as everything in a bucket is.
            match source.split_to(placed.sectors as usize * SECTOR) {
                Ok(part) => {
                    rest = Some(source);
                    source = part;
                    coded.sectors = placed.sectors;
                }
                Err(e) => {
                    source.finish(Err(e));
                    return None;
                }
            }
        }
        match self.seal(&source, &request.options, &mut coded, placed.nr) {
            Ok(crc) => Op::start(self, request, source, coded, crc, placed),
            Err(e) => source.finish(Err(e)),
        }
        rest
    }

    /// Finds a place for `coded`, of all of it if that is what is `wanted` as a whole. Sleeps until there is one.
    #[inline(never)]
    fn place(
        &self,
        options: &DataOptions,
        coded: &Coded,
        whole: bool,
        writer: u64,
    ) -> Result<Placed> {
        let block = (self.block_bytes / SECTOR) as u32;
        let request = AllocRequest {
            point: WritePointSpec::Hashed(writer),
            data_type: DataType::USER,
            sectors: coded.sectors,
            sectors_min: if whole { coded.sectors } else { block },
            replicas: options.replicas,
            required: options.required,
            target: options.target,
            only_target: false,
            have: DeviceSet::NONE,
            watermark: Watermark::Normal,
        };
        loop {
            let found = self
                .btree
                .run(|t| Allocator::alloc_sectors(&self.allocator, t, &request))?;
            match found {
                Ok(placed) => return Ok(placed),
                Err(SpaceError::Blocked(wait)) => wait.wait()?,
                Err(SpaceError::Failed(e)) => return Err(e),
            }
        }
    }

    /// Memory if there is some, else from the reserve. May sleep.
    fn buffer(&self, reserve: &Arc<IoBufPool>, bytes: usize) -> IoBuf {
        match IoBuf::new(bytes, GFP_NOWAIT | __GFP_NOWARN) {
            Ok(buffer) => buffer,
            // No extent is longer.
            Err(_) => IoBufPool::get(reserve),
        }
    }

    /// Prints a message about a write, unless there have been many of late.
    fn warn(&self, text: fmt::Arguments<'_>) {
        match self.messages.admit() {
            limit::Verdict::Print => fs_warn!(self, "{text}"),
            limit::Verdict::Last => {
                fs_warn!(self, "{text} (further messages about writes are left out for a while)")
            }
            limit::Verdict::Drop => {}
        }
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.to_str() {
            Ok(name) => f.write_str(name),
            Err(_) => f.write_str("?"),
        }
    }
}
