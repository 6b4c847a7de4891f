// SPDX-License-Identifier: GPL-2.0
//! Moving one copy of some data to another place.

use bcachefs_format::{
    checksum::CsumType,
    keys::{
        backpointer::Backpointer,
        data_type::DataType,
        extent::{Crc, DecodedPtr},
    },
    Bkey, BtreeId, KeyRef, KeyType,
};
use kernel::prelude::*;
use kfs::block::{IoBuf, WriteFlags};

use super::{bucket::Bucket, value, Copygc};
use crate::{
    alloc::{AllocRequest, Allocator, DeviceSet, Placed, WritePointSpec},
    btree::{
        space::SpaceError,
        trans::update::{CommitFlags, UpdateFlags},
        IterFlags,
    },
    data::checksum::Hasher,
    sb::{device::IoErrorKind, Device},
    util::{
        counters::Counter,
        error::{Error, Result},
        io_clock::Rw,
        watermark::Watermark,
    },
};

/// Bytes of a sector.
const SECTOR: usize = 512;
/// Most words of a value.
const VALUE_WORDS_MAX: usize = 256;
/// Most sectors of a copy that is moved.
const SECTORS_MAX: u32 = (16 << 20) / SECTOR as u32;

const COMMIT: CommitFlags = CommitFlags {
    watermark: Watermark::Copygc,
    no_enospc: true,
    ..CommitFlags::NORMAL
};

/// Keys of all snapshots stay where they are, each by itself.
const UPDATE: UpdateFlags = UpdateFlags {
    exact: true,
    internal_snapshot: true,
    no_triggers: false,
    bypass_key_cache: false,
    invalidate: false,
};

/// What became of a copy.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It is elsewhere.
    Moved,
    /// It is where it was, or somebody else has changed it.
    Left,
    /// There is no bucket to move anything to at the moment.
    NoRoom,
}

/// Memory for keys on their way.
pub(super) struct Room {
    key: Bkey,
    /// The value as it is.
    value: KVVec<u64>,
    /// And as it is to be.
    new: KVVec<u64>,
}

impl Room {
    /// May sleep.
    pub(super) fn new() -> Result<Self> {
        Ok(Room {
            key: Bkey::default(),
            value: KVVec::with_capacity(VALUE_WORDS_MAX, GFP_KERNEL)?,
            new: KVVec::from_elem(0, VALUE_WORDS_MAX, GFP_KERNEL)?,
        })
    }

    /// Keeps `key`; whether it is one with copies of data.
    fn keep(&mut self, key: KeyRef<'_>) -> bool {
        self.key = key.key;
        self.value.clear();
        let fits = key.value.iter().all(|w| self.value.push_within_capacity(*w).is_ok());
        fits && matches!(key.key.key_type, KeyType::EXTENT | KeyType::REFLINK_V)
    }

    fn key(&self) -> KeyRef<'_> {
        KeyRef { key: self.key, value: &self.value }
    }
}

/// What is to be written, of what was read.
struct Cut {
    /// First sector.
    from: u32,
    sectors: u32,
    /// How the new copy relates to the key's data.
    crc: Crc,
}

impl Copygc {
    /// Moves the copy in `bucket` of the data that `bp` leads to. Sleeps.
    #[inline(never)]
    pub(super) fn relocate(
        &self,
        room: &mut Room,
        bp: &Backpointer,
        device: &Device,
        bucket: &Bucket,
    ) -> Result<Outcome> {
        if !matches!(bp.btree, BtreeId::EXTENTS | BtreeId::REFLINK) {
            return Ok(Outcome::Left);
        }
        let found = self.parts.btree.run(|t| {
            let mut iter = t.iter(bp.btree, bp.pos, IterFlags::EACH);
            let key = iter.peek_upto(t, bp.pos)?;
            Ok(key.is_some_and(|k| room.keep(k)))
        })?;
        // Backpointers go late.
        let old = match found {
            true => value::ptrs(room.key())?.find(|p| bucket.has(device, p.ptr)),
            false => None,
        };
        let Some(old) = old.filter(|p| !p.ptr.cached() && p.stripe.is_none()) else {
            return Ok(Outcome::Left);
        };
        let (sectors, cut) = self.plan(&old);
        if sectors == 0 || sectors > SECTORS_MAX || old.crc.is_encrypted() {
            return Ok(Outcome::Left);
        }
        let others = value::ptrs(room.key())?.filter(|p| p.at != old.at);
        let mut have = DeviceSet::NONE;
        others.for_each(|p| have.add(p.ptr.dev()));
        let Some((data, cut)) = self.read(device, &old, sectors, cut)? else {
            return Ok(Outcome::Left);
        };
        let Some(placed) = self.place(bucket.dev, have, cut.sectors)? else {
            return Ok(Outcome::NoRoom);
        };
        if !old.ptr.unwritten() && !self.write(&data, &cut, &placed) {
            self.parts.counters.inc(Counter::MOVE_EXTENT_FAIL);
            return Ok(Outcome::Left);
        }
        let moved = self.replace(room, bp.btree, &old, &cut.crc, &placed)?;
        // Until a key refers to them, buckets have to be open.
        drop(placed);
        self.parts.counters.inc(match moved {
            true => Counter::MOVE_EXTENT_FINISH,
            false => Counter::MOVE_EXTENT_FAIL,
        });
        Ok(if moved { Outcome::Moved } else { Outcome::Left })
    }

    /// Sectors to read of `p`, and which of them are to be written. What only makes sense as a whole is kept as a whole.
    fn plan(&self, p: &DecodedPtr) -> (u32, Cut) {
        let crc = p.crc;
        if crc.is_compressed() {
            let sectors = crc.compressed_size;
            return (sectors, Cut { from: 0, sectors, crc });
        }
        let live = Crc {
            compressed_size: crc.live_size,
            uncompressed_size: crc.live_size,
            offset: 0,
            ..crc
        };
        let cut = Cut { from: crc.offset, sectors: crc.live_size, crc: live };
        // Of a checksum all is needed; else what comes before the live part has to be read, too, for the sake of simplicity.
        (crc.compressed_size, cut)
    }

    /// Reads what is stored, and verifies it. `None`, with a message, if that is no good. Sleeps.
    #[inline(never)]
    fn read(
        &self,
        device: &Device,
        p: &DecodedPtr,
        sectors: u32,
        mut cut: Cut,
    ) -> Result<Option<(IoBuf, Cut)>> {
        let bytes = sectors as usize * SECTOR;
        let mut data = IoBuf::new(bytes, GFP_KERNEL)?;
        if p.ptr.unwritten() {
            return Ok(Some((data, cut)));
        }
        let sector = p.ptr.offset();
        if !device.contains(sector, sectors) {
            self.warn(format_args!("{device} sector {sector}: extent lies outside of its device"));
            return Ok(None);
        }
        self.parts.counters.add(Counter::MOVE_EXTENT_READ, sectors.into());
        if let Err(e) = device.bdev.read_sync(sector, &mut data, 0..bytes) {
            device.count_error(IoErrorKind::Read);
            self.warn(format_args!("{device} sector {sector}: read error while moving: {e}"));
            return Ok(None);
        }
        let stored = data.as_bytes().get(..bytes).unwrap_or(&[]);
        if sum(p.crc.csum_type, stored)? != p.crc.csum && p.crc.csum_type != CsumType::NONE {
            device.count_error(IoErrorKind::Checksum);
            self.warn(format_args!("{device} sector {sector}: wrong checksum while moving"));
            return Ok(None);
        }
        if cut.sectors != sectors {
            let from = cut.from as usize * SECTOR;
            let part = stored.get(from..from + cut.sectors as usize * SECTOR);
            cut.crc.csum = sum(p.crc.csum_type, part.ok_or(Error::ExtentInvalid)?)?;
        }
        Ok(Some((data, cut)))
    }

    /// Finds a place that is worth as much as one on `dev`, on no device of `have`. `None` if there is none. Sleeps.
    #[inline(never)]
    fn place(&self, dev: u8, have: DeviceSet, sectors: u32) -> Result<Option<Placed>> {
        let request = AllocRequest {
            point: WritePointSpec::Copygc,
            data_type: DataType::USER,
            sectors,
            sectors_min: sectors,
            replicas: self.parts.allocator.durability(dev).max(1),
            required: 1,
            target: self.target,
            only_target: false,
            have,
            watermark: Watermark::Copygc,
        };
        let allocator = &self.parts.allocator;
        let found = self
            .parts
            .btree
            .run(|t| Allocator::alloc_sectors(allocator, t, &request))?;
        match found {
            Ok(placed) => Ok(Some(placed)),
            // Not waited for: going read-only would wait for that. Whoever finds none either says so again.
            Err(SpaceError::Blocked(_) | SpaceError::Failed(Error::NoSpace)) => Ok(None),
            Err(SpaceError::Failed(e)) => Err(e),
        }
    }

    /// Writes the part `cut` of `data` to all places. Whether that worked. Sleeps.
    fn write(&self, data: &IoBuf, cut: &Cut, placed: &Placed) -> bool {
        let from = cut.from as usize * SECTOR;
        let range = from..from + cut.sectors as usize * SECTOR;
        self.parts.clocks.add(Rw::Write, cut.sectors.into());
        self.parts.counters.add(Counter::MOVE_EXTENT_WRITE, cut.sectors.into());
        placed.ptrs.iter().take(placed.nr.into()).all(|ptr| {
            let Some(device) = self.parts.devices.get(ptr.dev()) else {
                return false;
            };
            let done = device.bdev.write_sync(ptr.offset(), data, range.clone(), WriteFlags::NONE);
            if let Err(e) = &done {
                device.count_error(IoErrorKind::Write);
                let sector = ptr.offset();
                self.warn(format_args!("{} sector {sector}: write error while moving: {e}", **device));
            }
            done.is_ok()
        })
    }

    /// Has the key refer to the new copy in the place of `old`, if it is what it was. Whether it was. Sleeps.
    #[inline(never)]
    fn replace(
        &self,
        room: &mut Room,
        btree: BtreeId,
        old: &DecodedPtr,
        crc: &Crc,
        placed: &Placed,
    ) -> Result<bool> {
        let before = KeyRef { key: room.key, value: &room.value };
        let ptrs = placed.ptrs.get(..placed.nr.into()).unwrap_or(&[]);
        let header = value::build(before, old, crc, ptrs, &mut room.new)?;
        let used = usize::from(header.value_u64s());
        let after = KeyRef { key: header, value: room.new.get(..used).unwrap_or(&[]) };
        let (replaced, _) = self.parts.btree.commit(None, COMMIT, |t| {
            let mut iter = t.iter(btree, before.key.pos, IterFlags::EACH | IterFlags::INTENT);
            let now = iter.peek_upto(t, before.key.pos)?;
            let same = now.is_some_and(|k| k.key == before.key && k.value == before.value);
            if same {
                t.insert(btree, after, UPDATE)?;
            }
            Ok(same)
        })?;
        Ok(replaced)
    }
}

/// The checksum of `bytes`.
fn sum(csum_type: CsumType, bytes: &[u8]) -> Result<bcachefs_format::checksum::Csum> {
    let mut hasher = Hasher::new(csum_type).ok_or(Error::ExtentInvalid)?;
    hasher.update(bytes);
    Ok(hasher.finish())
}
