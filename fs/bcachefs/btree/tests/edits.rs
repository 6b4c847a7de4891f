// SPDX-License-Identifier: GPL-2.0
//! Changes of one node against a sorted array, through writes and reads.

use super::{
    check,
    image::{Draw, MAGIC},
    NoRules,
};
use crate::{
    btree::{
        fill::Geometry,
        node::{load, shape::{self, Half}, Cursor, NodeData, NodeHead, NodeMem, PtrKey, Shape},
        write::make_entry,
    },
    util::{
        checksum::Checksums,
        error::{Error, Result},
    },
};
use bcachefs_format::{
    btree_node::{NodeEntry, NodeWant, SECTOR_U64S},
    checksum::CsumType,
    keys::{btree_ptr::BtreePtr, extent::Ptr},
    version::Version,
    Bkey, Bpos, BtreeId, KeyRef, KeyType,
};
use kernel::prelude::*;

const BTREE: BtreeId = BtreeId::XATTRS;
const SEQ: u64 = 0x77;

/// A position in the newest snapshot.
fn at(inode: u64, offset: u64) -> Bpos {
    Bpos::with_snapshot(inode, offset, u32::MAX)
}

/// A key with up to three words of value.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Key {
    pos: Bpos,
    len: usize,
    value: u64,
    version: u64,
}

impl Key {
    fn words(&self) -> [u64; 3] {
        [self.value, !self.value, self.value >> 7]
    }

    fn header(&self) -> Bkey {
        Bkey {
            u64s: 5 + self.len as u8,
            key_type: match self.len {
                0 => KeyType::HASH_WHITEOUT,
                _ => KeyType::COOKIE,
            },
            version: bcachefs_format::bkey::Bversion { hi: 0, lo: self.version },
            // Not to be believed.
            needs_whiteout: self.value & 1 != 0,
            ..Bkey::deleted(self.pos)
        }
    }

    fn same(&self, k: KeyRef<'_>) -> bool {
        let header = Bkey { needs_whiteout: false, ..k.key };
        let mine = Bkey { needs_whiteout: false, ..self.header() };
        header == mine && Some(k.value) == self.words().get(..self.len)
    }
}

fn gone(pos: Bpos) -> KeyRef<'static> {
    KeyRef { key: Bkey::deleted(pos), value: &[] }
}

/// The keys that should be there, in order.
#[derive(Default)]
struct Model(KVec<Key>);

impl Model {
    fn find(&self, pos: Bpos) -> core::result::Result<usize, usize> {
        self.0.binary_search_by(|k| k.pos.cmp(&pos))
    }

    fn put(&mut self, key: Key) -> Result {
        match self.find(key.pos) {
            Ok(i) => {
                if let Some(k) = self.0.get_mut(i) {
                    *k = key;
                }
            }
            Err(i) => {
                self.0.reserve(1, GFP_KERNEL)?;
                let _ = self.0.insert_within_capacity(i, key);
            }
        }
        Ok(())
    }

    fn remove(&mut self, pos: Bpos) -> bool {
        self.find(pos).is_ok_and(|i| self.0.remove(i).is_ok())
    }

    fn copy(&self) -> Result<Model> {
        let mut keys = KVec::new();
        keys.extend_from_slice(&self.0, GFP_KERNEL)?;
        Ok(Model(keys))
    }

    fn position(&self, draw: &mut Draw) -> Option<Bpos> {
        self.0.get(draw.below(self.0.len() as u64) as usize).map(|k| k.pos)
    }
}

/// A node, its bytes on disk, and what both should be.
struct Bench {
    shape: Shape,
    geometry: Geometry,
    head: Pin<KBox<NodeHead>>,
    data: KBox<NodeData>,
    disk: KVVec<u64>,
    model: Model,
    /// What the bytes on disk amount to.
    on_disk: Model,
    seq: u64,
    whiteouts: usize,
}

fn head(min: Bpos, max: Bpos) -> Result<Pin<KBox<NodeHead>>> {
    let mut value = [0; 9];
    let n = BtreePtr::new(SEQ, 0, min, max)
        .build(&[Ptr::new(0, 0, 0)], &mut value)
        .map_err(|_| Error::BtreeNodeInvalid)?;
    let key = Bkey {
        u64s: 5 + n as u8,
        key_type: KeyType::BTREE_PTR_V2,
        ..Bkey::deleted(max)
    };
    let value = value.get(..n).unwrap_or(&[]);
    let ptr = PtrKey::new(KeyRef { key, value }).ok_or(Error::BtreeNodeInvalid)?;
    Ok(KBox::pin_init(NodeHead::new(BTREE, 0, SEQ, &ptr, &[]), GFP_KERNEL)?)
}

/// What [`NodeData::empty`] is.
fn nothing() -> Result<KBox<NodeData>> {
    Ok(KBox::init(NodeData::empty(), GFP_KERNEL)?)
}

/// A new node for `min..=max`.
fn blank(min: Bpos, max: Bpos, shape: Shape, mem: NodeMem, generation: u32) -> Result<KBox<NodeData>> {
    let mut data = nothing()?;
    check!(shape::blank(min, max, shape, &mut Some(mem), &mut data));
    data.set_identity(SEQ, generation, 0);
    Ok(data)
}

/// Both halves of a node.
fn split(
    old: &NodeData,
    left: NodeMem,
    right: NodeMem,
    pinned: impl Fn(Bpos) -> bool,
) -> Result<Option<(KBox<NodeData>, KBox<NodeData>)>> {
    let Some(cut) = shape::cut(old, pinned) else {
        return Ok(None);
    };
    let (mut l, mut r) = (nothing()?, nothing()?);
    check!(shape::half(old, &cut, Half::Left, &mut Some(left), &mut l));
    check!(shape::half(old, &cut, Half::Right, &mut Some(right), &mut r));
    Ok(Some((l, r)))
}

impl Bench {
    fn new(node_sectors: u32, block_sectors: u16) -> Result<Self> {
        let shape = Shape { node_sectors, block_sectors };
        let (min, max) = (Bpos::new(1, 0), at(1000, u64::MAX));
        let mem = NodeMem::new(shape, GFP_KERNEL)?;
        Ok(Bench {
            shape,
            geometry: Geometry {
                node_sectors,
                block_sectors,
                magic: MAGIC,
                version: Version::CURRENT,
                version_min: Version::CURRENT,
                metadata_csum: CsumType::CRC32C_NONZERO,
            },
            head: head(min, max)?,
            data: blank(min, max, shape, mem, 3)?,
            disk: KVVec::from_elem(!0, shape.u64s(), GFP_KERNEL)?,
            model: Model::default(),
            on_disk: Model::default(),
            seq: 10,
            whiteouts: 0,
        })
    }

    fn ready(&mut self) -> Result {
        let head: &NodeHead = &self.head;
        self.data.prepare(head, GFP_KERNEL).map_err(|_| Error::NoMem)
    }

    /// Some position in the node: a few inodes, near or far offsets.
    fn draw_pos(&self, draw: &mut Draw) -> Bpos {
        match draw.below(3) {
            0 => self.model.position(draw).unwrap_or(at(5, 5)),
            1 => at(5 + draw.below(2), draw.below(3000)),
            _ => Bpos::with_snapshot(1 + draw.below(1000), draw.below(1 << 40) << 20, 1 + draw.below(3) as u32),
        }
    }

    /// Puts a key at `pos`, if there is room. False if not.
    fn put(&mut self, pos: Bpos, draw: &mut Draw) -> Result<bool> {
        let key = Key {
            pos,
            len: draw.below(4) as usize,
            value: draw.below(1 << 60),
            // Not all can be packed.
            version: draw.below(40).saturating_sub(38) << draw.below(60),
        };
        let words = key.words();
        let r = KeyRef { key: key.header(), value: words.get(..key.len).unwrap_or(&[]) };
        self.seq += draw.below(2);
        if self.data.room() < usize::from(r.key.u64s) {
            check!(self.data.insert(r, self.seq).is_err());
            return Ok(false);
        }
        let before = self.data.live_u64s() as i32;
        let old = self.data.seek(pos);
        let change = self.data.insert(r, self.seq).map_err(|_| Error::BtreeNodeInvalid)?;
        check!(!self.data.is_current(&old));
        check!(change.changed() && before + change.live_u64s == self.data.live_u64s() as i32);
        check!(self.data.journal_seq() == self.seq);
        self.model.put(key)?;
        Ok(true)
    }

    fn remove(&mut self, pos: Bpos) -> Result<bool> {
        if self.data.room() < 5 {
            return Ok(false);
        }
        let change = self.data.insert(gone(pos), self.seq).map_err(|_| Error::BtreeNodeInvalid)?;
        check!(change.changed() == self.model.remove(pos));
        Ok(true)
    }

    /// Writes what is unwritten to the bytes on disk. Of the whiteouts none must be missing, and none be there without reason.
    fn write(&mut self) -> Result {
        let mut buf = KVVec::from_elem(!0u64, self.shape.u64s(), GFP_KERNEL)?;
        let at = self.data.sectors_written();
        let expected = self.data.first_write_sectors();
        let left = self.data.room();
        let sectors = make_entry(&mut buf, &self.head, &self.data, &self.geometry, None)
            .map_err(|_| Error::BtreeNodeWrite)?;
        check!(at != 0 || sectors == expected);
        if sectors == 0 {
            check!(self.same_as_on_disk());
            return Ok(());
        }
        let entry = NodeEntry::alone(&buf, at, self.shape.block_sectors)?;
        // What room was promised is there.
        check!(left * 8 + entry.bytes() + at as usize * 512 < self.shape.u64s() * 8);
        for (_, key) in entry.keys().iter(self.data.format()) {
            let (pos, first) = (key.pos(self.data.format()), key.words().first().copied().unwrap_or(0));
            check!(first & 1 << 15 == 0);
            if key.is_deleted() {
                check!(self.on_disk.find(pos).is_ok() && self.model.find(pos).is_err());
                self.whiteouts += 1;
            } else {
                check!(self.model.find(pos).is_ok());
            }
        }
        let start = at as usize * SECTOR_U64S;
        let n = sectors as usize * SECTOR_U64S;
        match (self.disk.get_mut(start..start + n), buf.get(..n)) {
            (Some(to), Some(from)) => to.copy_from_slice(from),
            _ => return Err(Error::BtreeNodeWrite),
        }
        self.data.start_write(at + sectors);
        check!(self.data.room() == 0);
        self.on_disk = self.model.copy()?;
        Ok(())
    }

    fn same_as_on_disk(&self) -> bool {
        self.on_disk.0.as_slice() == self.model.0.as_slice()
    }

    fn read(&self) -> Result<KBox<NodeData>> {
        let want = NodeWant {
            magic: MAGIC,
            btree: BTREE,
            level: 0,
            min_key: Some(self.data.min()),
            max_key: self.data.max(),
            seq: Some(SEQ),
            sectors_written: self.data.sectors_written() as u16,
            range_updated: false,
            sb_version: Version::CURRENT,
            version_min: Version::CURRENT,
            block_sectors: self.shape.block_sectors,
        };
        let mut data = nothing()?;
        let loaded = load(&self.disk, &want, &Checksums, &NoRules, GFP_KERNEL, &mut data);
        loaded.map_err(|_| Error::BtreeNodeInvalid)?;
        Ok(data)
    }

    /// Everything from the beginning in a new node with the same keys.
    fn compact(&mut self) -> Result {
        let mut mem = Some(NodeMem::new(self.shape, GFP_KERNEL)?);
        let generation = self.data.generation() + 1;
        let mut new = nothing()?;
        check!(shape::compact(&self.data, &mut mem, &mut new));
        new.set_identity(SEQ, generation, 0);
        self.data = new;
        self.on_disk = Model::default();
        self.disk.iter_mut().for_each(|w| *w = !0);
        Ok(())
    }
}

/// Forwards, backwards, and the counts.
fn same(node: &NodeData, model: &[Key]) -> Result {
    let mut n = 0;
    for (k, m) in node.iter().zip(model) {
        check!(m.same(k));
        n += 1;
    }
    check!(n == model.len() && node.live_keys() == n);
    check!(node.iter().count() == n);
    let mut cursor = node.seek(Bpos::SPOS_MAX);
    let mut u64s = 0;
    for m in model.iter().rev() {
        let found = cursor.back_live(node).ok_or(Error::BtreeTopology)?;
        check!(m.same(found.key.unpack(node.format())));
        u64s += found.key.u64s();
    }
    check!(cursor.back_live(node).is_none());
    check!(u64s == node.live_u64s());
    Ok(())
}

fn seeks(node: &NodeData, model: &Model, draw: &mut Draw) -> Result {
    for _ in 0..4 {
        let near = model.position(draw).unwrap_or(Bpos::POS_MIN);
        let pos = match draw.below(5) {
            0 => near,
            1 => near.successor().unwrap_or(near),
            2 => near.predecessor().unwrap_or(near),
            3 => Bpos::new(draw.below(1001), draw.below(1 << 60)),
            _ => at(5 + draw.below(2), draw.below(3000)),
        };
        let mut cursor: Cursor = node.seek(pos);
        check!(node.is_current(&cursor));
        let found = cursor.peek_live(node).map(|f| f.key.unpack(node.format()));
        let expected = model.0.get(model.0.partition_point(|k| k.pos < pos));
        check!(match (found, expected) {
            (Some(f), Some(e)) => e.same(f),
            (None, None) => true,
            _ => false,
        });
    }
    Ok(())
}

/// Random changes, with writes and reads between them.
pub(super) fn match_model() -> Result {
    let mut draw = Draw(21);
    let (mut whiteouts, mut compacted, mut read) = (0, 0, 0);
    for (sectors, block, rounds) in [(64, 1, 6000), (64, 8, 6000), (512, 8, 12000), (16, 2, 3000)] {
        let mut b = Bench::new(sectors, block)?;
        let mut deletes = 3;
        for round in 0..rounds {
            if round % 500 == 0 {
                // Growing and shrinking by turns.
                deletes = [1, 3, 6][draw.below(3) as usize % 3];
            }
            b.ready()?;
            // Several changes under one lock.
            let mut full = false;
            for _ in 0..1 + draw.below(3) {
                let pos = b.draw_pos(&mut draw);
                let done = if draw.below(10) < deletes {
                    b.remove(pos)?
                } else {
                    b.put(pos, &mut draw)?
                };
                full |= !done;
            }
            seeks(&b.data, &b.model, &mut draw)?;
            if draw.below(60) == 0 {
                b.write()?;
                same(&b.data, &b.model.0)?;
                let node = b.read()?;
                same(&node, &b.model.0)?;
                seeks(&node, &b.model, &mut draw)?;
                if draw.below(3) == 0 {
                    // What was read goes on.
                    b.data = node;
                    read += 1;
                }
            } else if full {
                b.ready()?;
                // Only if it is really full.
                if b.data.room() < 8 {
                    b.compact()?;
                    compacted += 1;
                    if b.data.room() < 100 {
                        b.model = Model::default();
                        let mem = NodeMem::new(b.shape, GFP_KERNEL)?;
                        b.data = blank(b.data.min(), b.data.max(), b.shape, mem, 0)?;
                    }
                }
            }
            if round % 100 == 0 {
                same(&b.data, &b.model.0)?;
            }
        }
        same(&b.data, &b.model.0)?;
        b.ready()?;
        b.write()?;
        let read = b.read()?;
        same(&read, &b.model.0)?;
        whiteouts += b.whiteouts;
    }
    check!(whiteouts > 500 && compacted > 3 && read > 20);
    Ok(())
}

/// Until nothing fits any more, in several orders; what was promised to fit does, on disk as well.
pub(super) fn fill_to_the_brim() -> Result {
    let mut draw = Draw(22);
    for order in 0..4 {
        let mut b = Bench::new(64, 1 + order as u16)?;
        let mut writes = 0;
        for i in 0..4000u64 {
            b.ready()?;
            let offset = match order {
                0 => i,
                1 => 10_000 - i,
                2 => i * 7919 % 4001,
                _ => (i & 1) * 100_000 + i,
            };
            if !b.put(at(7, offset), &mut draw)? {
                break;
            }
            if draw.below(100) == 0 {
                b.write()?;
                writes += 1;
            }
        }
        seeks(&b.data, &b.model, &mut draw)?;
        same(&b.data, &b.model.0)?;
        b.write()?;
        let read = b.read()?;
        same(&read, &b.model.0)?;
        check!(writes > 0 && b.model.0.len() > 300);
        // All of them deleted again, in a node that starts anew.
        b.compact()?;
        b.ready()?;
        b.write()?;
        while let Some(pos) = b.model.position(&mut draw) {
            b.ready()?;
            if !b.remove(pos)? {
                b.write()?;
                b.ready()?;
                if !b.remove(pos)? {
                    b.compact()?;
                }
            }
        }
        check!(b.data.live_keys() == 0 && b.data.live_u64s() == 0);
        b.write()?;
    }
    Ok(())
}

/// No key is lost or gained, the ranges fit together, and the formats are for the keys at hand.
pub(super) fn split_and_merge() -> Result {
    let mut draw = Draw(23);
    let mut merged = 0;
    for round in 0..60 {
        let mut b = Bench::new(64, 1)?;
        let n = 2 + draw.below(if round % 2 == 0 { 40 } else { 900 });
        for _ in 0..n {
            b.ready()?;
            let pos = b.draw_pos(&mut draw);
            if draw.below(8) == 0 {
                b.remove(pos)?;
            } else {
                b.put(pos, &mut draw)?;
            }
            if draw.below(50) == 0 {
                b.write()?;
            }
        }
        let mem = || NodeMem::new(b.shape, GFP_KERNEL);
        let never = |_: Bpos| false;
        let Some((mut left, right)) = split(&b.data, mem()?, mem()?, never)? else {
            check!(b.model.0.len() < 2);
            continue;
        };
        let at = left.live_keys();
        check!(at > 0 && right.live_keys() > 0);
        same(&left, b.model.0.get(..at).unwrap_or(&[]))?;
        same(&right, b.model.0.get(at..).unwrap_or(&[]))?;
        check!(left.min() == b.data.min() && right.max() == b.data.max());
        check!(left.max().successor() == Some(right.min()));
        check!(b.model.0.get(at - 1).is_some_and(|k| k.pos == left.max()));
        let total = b.data.live_u64s();
        // Three fifths, by what the old node has of them, and no key more.
        let sizes = |n: usize| -> usize {
            let mut cursor = b.data.start();
            let mut sum = 0;
            for _ in 0..n {
                sum += cursor.peek_live(&b.data).map_or(0, |f| f.key.u64s());
                cursor.advance(&b.data);
            }
            sum
        };
        check!(sizes(at) * 5 >= total * 3 || right.live_keys() == 1);
        check!(sizes(at - 1) * 5 < total * 3);
        seeks(&left, &Model(copied(&b.model.0, 0, at)?), &mut draw)?;

        // Not after these.
        let pinned = left.max();
        if let Some((l, r)) = split(&b.data, mem()?, mem()?, |p| p == pinned)? {
            check!(l.max() != pinned && l.live_keys() + r.live_keys() == b.model.0.len());
        } else {
            check!(b.model.0.len() == 2);
        }

        let want = shape::merged_u64s(&left, &right);
        let mut whole = nothing()?;
        if shape::merge(&left, &right, &mut Some(mem()?), &mut whole) {
            merged += 1;
            same(&whole, &b.model.0)?;
            check!(whole.live_u64s() == want && whole.live_u64s() <= whole.max_u64s());
            check!(whole.min() == b.data.min() && whole.max() == b.data.max());
            check!(whole.journal_seq() == b.data.journal_seq());
        } else {
            check!(want + 1 > left.max_u64s());
        }
        check!(!shape::merge(&right, &left, &mut Some(mem()?), &mut whole));
        // Changes go on in the halves.
        let mut half = Bench {
            model: Model(copied(&b.model.0, 0, at)?),
            head: head(left.min(), left.max())?,
            data: {
                left.set_identity(SEQ, 1, 0);
                left
            },
            ..Bench::new(64, 1)?
        };
        half.seq = b.seq;
        for _ in 0..50 {
            let pos = half.draw_pos(&mut draw);
            if half.data.covers(pos) {
                half.put(pos, &mut draw)?;
            }
            half.ready()?;
        }
        same(&half.data, &half.model.0)?;
        half.write()?;
        let read = half.read()?;
        same(&read, &half.model.0)?;
    }
    check!(merged > 10);
    check!(shape::estimate(100, 3000) == 100 && !shape::wants_merge(1001, 3000));
    check!(shape::estimate(2000, 3000) == 1250 + 375 && shape::estimate(9000, 3000) == 3000);
    Ok(())
}

fn copied(keys: &[Key], from: usize, to: usize) -> Result<KVec<Key>> {
    let mut copy = KVec::new();
    copy.extend_from_slice(keys.get(from..to).unwrap_or(&[]), GFP_KERNEL)?;
    Ok(copy)
}
