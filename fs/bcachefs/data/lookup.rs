// SPDX-License-Identifier: GPL-2.0
//! Which extents make up a range of a file.
//!
//! A lookup copies out what a read needs, so that no lock is held afterwards. It is bounded: it
//! returns as many pieces as it is asked for and says by their lengths how far it got. Indirect extents are
//! resolved here, and pointers that cannot be used (stale cached copies) are left out.

use core::ops::Range;

use bcachefs_format::{
    bkey::{KeyRef, KeyType},
    btree_id::BtreeId,
    keys::{
        extent::{DecodedPtr, DecodedPtrs, Extent, PTRS_MAX},
        inline_data::InlineData,
        reflink::{IndirectInlineData, ReflinkP, ReflinkV},
    },
    pos::Bpos,
};
use kernel::prelude::*;

use crate::{
    alloc::bucket_gens,
    btree::{Attempt, IterFlags, TransError},
    fs::InodeId,
    sb::Devices,
    snapshots,
    util::error::Error,
};

/// Most pieces that it is of use to look up at once.
pub const BATCH: usize = 16;

/// A piece of the range that one key describes.
pub struct Piece {
    /// Length in sectors, not zero.
    pub sectors: u64,
    /// What is there.
    pub source: Source,
    /// Whether other files may share it.
    pub shared: bool,
}

/// What a piece consists of.
pub enum Source {
    /// Nothing: zeros.
    Hole,
    /// Space that has been promised or allocated but not written: zeros.
    Unwritten,
    /// Bytes kept in the key; zeros after them.
    Inline(KVec<u8>),
    /// Data on devices.
    Data(Data),
    /// Data that is known to be lost.
    Lost,
    /// A key that makes no sense; the error says how.
    Damaged(Error),
}

/// Data on devices: the copies to choose from.
pub struct Data {
    /// The usable copies, in the order of the key. None of a missing device is left out: whether a device
    /// is present is decided when reading.
    pub ptrs: KVec<DecodedPtr>,
    /// Whether the key had copies that count; without any, what is gone was only cached.
    pub had_dirty: bool,
    /// Sectors from the start of the key's range to the start of the piece.
    pub from: u32,
}

/// What is at a position, in terms of file layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MappingKind {
    /// Nothing.
    Hole,
    /// Space without data.
    Unwritten,
    /// Data kept with the metadata.
    Inline,
    /// Data on devices.
    Data,
}

/// A stretch of a file that is laid out in one way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// What is there.
    pub kind: MappingKind,
    /// Length in sectors, not zero.
    pub sectors: u64,
    /// Device sector of the data of the first copy, if it is stored as it is; else where the stored extent begins.
    pub sector: Option<u64>,
    /// Whether other files may share it.
    pub shared: bool,
}

impl Piece {
    /// The piece as layout.
    pub fn mapping(&self) -> Mapping {
        let (kind, sector) = match &self.source {
            Source::Hole => (MappingKind::Hole, None),
            Source::Unwritten => (MappingKind::Unwritten, None),
            Source::Inline(_) => (MappingKind::Inline, None),
            Source::Lost | Source::Damaged(_) => (MappingKind::Data, None),
            Source::Data(d) => {
                let first = d.ptrs.first().map(|p| {
                    if p.crc.is_compressed() {
                        p.ptr.offset()
                    } else {
                        p.live_sector().saturating_add(u64::from(d.from))
                    }
                });
                (MappingKind::Data, first)
            }
        };
        Mapping {
            kind,
            sectors: self.sectors,
            sector,
            shared: self.shared,
        }
    }
}

/// The stored range, in sectors of the file, of an extent that has to be read as a whole.
///
/// `None` if there is no such extent at `sector`: reading less of it reads less.
pub fn encoded_range(
    t: &mut Attempt<'_>,
    file: InodeId,
    sector: u64,
) -> core::result::Result<Option<Range<u64>>, TransError> {
    let snapshot = snapshots::subvolume(t, file.subvol)?.snapshot;
    let pos = Bpos::with_snapshot(file.inum, sector, snapshot);
    Ok(match t.get(BtreeId::EXTENTS, pos)? {
        Some(k) if k.key.key_type == KeyType::EXTENT => Extent::new(k)
            .ptrs()
            .any(|p| p.crc.is_encoded())
            .then(|| k.key.start_offset()..k.key.pos.offset),
        _ => None,
    })
}

/// Appends to `out` the pieces of `range` (sectors of `file`), in order and without gaps, from the
/// start of the range on, until there are `most` of them. At least one piece is appended to an empty `out`. May sleep.
pub fn pieces(
    t: &mut Attempt<'_>,
    devices: &Devices,
    file: InodeId,
    range: Range<u64>,
    most: usize,
    out: &mut KVec<Piece>,
) -> core::result::Result<(), TransError> {
    let snapshot = snapshots::subvolume(t, file.subvol)?.snapshot;
    let start = Bpos::with_snapshot(file.inum, range.start, snapshot);
    let mut iter = t.iter(BtreeId::EXTENTS, start, IterFlags::SLOTS);
    let mut at = range.start;

    while at < range.end && out.len() < most {
        let mut found = match iter.peek_slot(t)? {
            Some(key) => Found::at(key, at)?,
            None => Found::hole(range.end - at),
        };
        // A slot is no longer than a key can be, a hole may be: do not go through it in small steps.
        if found.is_hole() && found.sectors >= u64::from(u32::MAX) {
            let end = hole_end(t, start_at(start, at), range.end)?;
            found.sectors = end.saturating_sub(at).max(1);
        }
        let mut piece = match found.content {
            Content::Direct(source) => Piece {
                sectors: found.sectors,
                source,
                shared: false,
            },
            Content::Indirect(idx) => indirect(t, idx, found.sectors)?,
        };
        if let Source::Data(data) = &mut piece.source {
            drop_stale(t, devices, data)?;
        }
        piece.sectors = piece.sectors.min(range.end - at);
        at += piece.sectors;
        out.push(piece, GFP_KERNEL)?;
        // An indirect extent may end before the pointer to it does; then the same slot is looked
        // at again, further in.
        iter.set_pos(start_at(start, at));
    }
    Ok(())
}

/// Where the hole at `pos` ends: at the next extent of the file that starts before `end`, or there.
fn hole_end(
    t: &mut Attempt<'_>,
    pos: Bpos,
    end: u64,
) -> core::result::Result<u64, TransError> {
    let mut iter = t.iter(BtreeId::EXTENTS, pos, IterFlags::NONE);
    let next = iter.peek_upto(t, start_at(pos, end))?;
    Ok(next.map_or(end, |key| key.key.start_offset()))
}

fn start_at(start: Bpos, sector: u64) -> Bpos {
    Bpos {
        offset: sector,
        ..start
    }
}

/// What a key of the extents btree says about a sector.
struct Found {
    /// Sectors to the end of the key; not zero.
    sectors: u64,
    content: Content,
}

enum Content {
    Direct(Source),
    /// At this sector of the reflink btree.
    Indirect(u64),
}

impl Found {
    fn hole(sectors: u64) -> Self {
        Found {
            sectors,
            content: Content::Direct(Source::Hole),
        }
    }

    fn is_hole(&self) -> bool {
        matches!(self.content, Content::Direct(Source::Hole))
    }

    /// Copies out what `key`, which covers `sector`, says about it.
    fn at(key: KeyRef<'_>, sector: u64) -> core::result::Result<Self, TransError> {
        // A slot always covers the position asked for; were it otherwise, a sector is consumed so
        // that the walk ends.
        let sectors = key.key.pos.offset.saturating_sub(sector).max(1);
        let from = sector.saturating_sub(key.key.start_offset());
        let content = match key.key.key_type {
            KeyType::REFLINK_P => match ReflinkP::parse(key) {
                Ok(p) => Content::Indirect(p.idx.saturating_add(from)),
                Err(_) => Content::Direct(Source::Damaged(Error::ExtentInvalid)),
            },
            _ => Content::Direct(source(key, from)?),
        };
        Ok(Found { sectors, content })
    }
}

/// What `key`, of a type that holds data itself, has `from` sectors into its range.
fn source(key: KeyRef<'_>, from: u64) -> core::result::Result<Source, TransError> {
    Ok(match key.key.key_type {
        KeyType::DELETED | KeyType::WHITEOUT | KeyType::HASH_WHITEOUT | KeyType::COOKIE => {
            Source::Hole
        }
        KeyType::RESERVATION => Source::Unwritten,
        KeyType::ERROR => Source::Lost,
        KeyType::INLINE_DATA => inline(InlineData::new(key).bytes, from)?,
        KeyType::INDIRECT_INLINE_DATA => match IndirectInlineData::parse(key) {
            Ok(v) => inline(v.data.bytes, from)?,
            Err(_) => Source::Damaged(Error::ExtentInvalid),
        },
        KeyType::EXTENT => data(Extent::new(key).ptrs(), from)?,
        KeyType::REFLINK_V => match ReflinkV::parse(key) {
            Ok(v) => data(v.ptrs(), from)?,
            Err(_) => Source::Damaged(Error::ExtentInvalid),
        },
        _ => Source::Damaged(Error::ExtentInvalid),
    })
}

/// Inline data from sector `from` on.
fn inline(bytes: &[u8], from: u64) -> core::result::Result<Source, TransError> {
    let skip = usize::try_from(from.saturating_mul(512)).unwrap_or(usize::MAX);
    let mut copy = KVec::new();
    copy.extend_from_slice(bytes.get(skip..).unwrap_or(&[]), GFP_KERNEL)?;
    Ok(Source::Inline(copy))
}

fn data(ptrs: DecodedPtrs<'_>, from: u64) -> core::result::Result<Source, TransError> {
    let mut copy = KVec::new();
    let mut had_dirty = false;
    for p in ptrs.take(PTRS_MAX) {
        if p.ptr.unwritten() {
            return Ok(Source::Unwritten);
        }
        had_dirty |= p.is_dirty();
        copy.push(p, GFP_KERNEL)?;
    }
    Ok(match u32::try_from(from) {
        Ok(from) => Source::Data(Data {
            ptrs: copy,
            had_dirty,
            from,
        }),
        Err(_) => Source::Damaged(Error::ExtentInvalid),
    })
}

/// The piece that begins at sector `idx` of the reflink btree, at most `sectors` long.
fn indirect(
    t: &mut Attempt<'_>,
    idx: u64,
    sectors: u64,
) -> core::result::Result<Piece, TransError> {
    let damaged = |sectors| Piece {
        sectors,
        source: Source::Damaged(Error::ExtentInvalid),
        shared: true,
    };
    let Some(key) = t.get(BtreeId::REFLINK, Bpos::new(0, idx))? else {
        // A reference to nothing.
        return Ok(damaged(sectors));
    };
    let rest = key.key.pos.offset.saturating_sub(idx).max(1);
    if key.key.key_type == KeyType::REFLINK_P {
        return Ok(damaged(sectors.min(rest)));
    }
    Ok(Piece {
        sectors: sectors.min(rest),
        source: source(key, idx.saturating_sub(key.key.start_offset()))?,
        shared: true,
    })
}

/// Leaves out the cached copies whose bucket has been reused since.
fn drop_stale(
    t: &mut Attempt<'_>,
    devices: &Devices,
    data: &mut Data,
) -> core::result::Result<(), TransError> {
    if data.ptrs.iter().all(|p| p.is_dirty()) {
        return Ok(());
    }
    let mut stale = 0u32;
    for (i, p) in data.ptrs.iter().enumerate() {
        if p.is_dirty() {
            continue;
        }
        let gone = match devices.get(p.ptr.dev()) {
            Some(dev) => {
                let bucket = dev.bucket_pos(dev.bucket_of(p.ptr.offset()));
                p.ptr.staleness(bucket_gens::generation(t, bucket)?) != 0
            }
            None => true,
        };
        if gone {
            stale |= 1 << i;
        }
    }
    let mut i = 0;
    data.ptrs.retain(|_| {
        let keep = stale & 1 << i == 0;
        i += 1;
        keep
    });
    Ok(())
}
