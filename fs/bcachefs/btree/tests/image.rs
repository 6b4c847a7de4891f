// SPDX-License-Identifier: GPL-2.0
//! Btrees made in memory.

use crate::{
    btree::{
        fill::ReadOp,
        source::{CopyError, NodeSource},
        Btree, Config,
    },
    journal::{
        start::{RootState, StartState},
        Blacklist, JournalKeys, Root,
    },
    util::{
        checksum::Checksums,
        counters::Counters,
        error::{Error, Result},
    },
};
use bcachefs_format::{
    btree_node::{NewBset, NewNode, NodeWriter},
    checksum::CsumType,
    keys::{self, btree_ptr::BtreePtr, extent::Ptr},
    packed::FormatCalc,
    version::Version,
    Bkey, Bpos, BtreeId, KeyRef, KeyType,
};
use core::fmt;
use kernel::{prelude::*, str::CString, sync::Arc};
use kfs::block::IoBuf;

/// Sectors of a node in these tests.
pub(super) const NODE_SECTORS: usize = 32;
const NODE_U64S: usize = NODE_SECTORS * 64;
/// The magic of these tests' nodes.
pub(super) const MAGIC: u64 = 0x5eed;
/// Keys in a leaf, and pointers in an interior node.
const FAN_OUT: usize = 12;

/// A key with a value of one word.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Key {
    pub pos: Bpos,
    pub size: u32,
    pub key_type: KeyType,
    pub value: u64,
}

impl Key {
    /// A point with a value.
    pub(super) fn new(pos: Bpos, value: u64) -> Self {
        Key {
            pos,
            size: 0,
            key_type: KeyType::COOKIE,
            value,
        }
    }

    /// What a key found in a tree is, in these terms.
    pub(super) fn of(k: KeyRef<'_>) -> Self {
        Key {
            pos: k.key.pos,
            size: k.key.size,
            key_type: k.key.key_type,
            value: k.value.first().copied().unwrap_or(0),
        }
    }

    /// The same as the engine has it.
    pub(super) fn as_ref(&self) -> KeyRef<'_> {
        let value: &[u64] = match self.key_type {
            KeyType::COOKIE | KeyType::RESERVATION => core::slice::from_ref(&self.value),
            _ => &[],
        };
        let key = Bkey {
            u64s: 5 + value.len() as u8,
            key_type: self.key_type,
            size: self.size,
            ..Bkey::deleted(self.pos)
        };
        KeyRef { key, value }
    }
}

/// Random numbers that are the same every time.
pub(crate) struct Draw(pub u64);

impl Draw {
    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n.max(1)
    }
}

/// Nodes in memory. The pointer's sector is the index of the node; device 1 has damaged copies only.
pub(super) struct Image {
    nodes: KVVec<KVVec<u64>>,
    /// Whether nodes have a first copy that is damaged.
    damaged: bool,
}

fn failed<E>(_: E) -> Error {
    Error::BtreeNodeInvalid
}

impl Image {
    pub(super) fn new() -> Self {
        Image {
            nodes: KVVec::new(),
            damaged: true,
        }
    }

    /// The same with one copy of each node, which is good: a node of which one is not is to be written anew.
    pub(super) fn sound() -> Self {
        Image {
            damaged: false,
            ..Self::new()
        }
    }

    /// Writes one node of several sets and returns the pointer to it, as words.
    pub(super) fn node(
        &mut self,
        btree: BtreeId,
        level: u8,
        min: Bpos,
        max: Bpos,
        sets: &[&[KeyRef<'_>]],
        format_from: usize,
    ) -> Result<KVec<u64>> {
        let mut calc = FormatCalc::new();
        calc.add_pos(min);
        calc.add_pos(max);
        for k in sets.iter().flat_map(|s| s.iter()).take(format_from) {
            calc.add_key(&k.key);
        }
        let format = calc.finish();
        let index = self.nodes.len() as u64;
        let seq = 0x1000 + index;
        let mut words = KVVec::from_elem(0u64, NODE_U64S, GFP_KERNEL)?;
        let mut writer = NodeWriter::new(&mut words, 1, 0);
        let new = NewNode {
            magic: MAGIC,
            btree,
            level,
            generation: 0,
            min_key: min,
            max_key: max,
            format,
        };
        for (i, set) in sets.iter().enumerate() {
            let bset = NewBset {
                seq,
                journal_seq: 1 + i as u64,
                csum_type: CsumType::CRC32C_NONZERO,
                version: Version::CURRENT,
            };
            let keys = set.iter().copied();
            if i == 0 {
                writer.write_first(&new, &bset, keys, &Checksums, None).map_err(failed)?;
            } else if !set.is_empty() {
                writer.append(&format, &bset, keys, &Checksums, None).map_err(failed)?;
            }
        }
        let written = writer.sectors_written() as u16;
        self.nodes.push(words, GFP_KERNEL)?;
        let mut value = [0u64; 9];
        let ptrs = [Ptr::new(1, index, 0), Ptr::new(0, index, 0)];
        let n = BtreePtr::new(seq, written, min, max)
            .build(ptrs.get(usize::from(!self.damaged)..).unwrap_or(&[]), &mut value)
            .map_err(failed)?;
        let key = Bkey {
            u64s: 5 + n as u8,
            key_type: KeyType::BTREE_PTR_V2,
            ..Bkey::deleted(max)
        };
        let mut out = KVec::new();
        out.extend_from_slice(&key.to_words(), GFP_KERNEL)?;
        out.extend_from_slice(value.get(..n).unwrap_or(&[]), GFP_KERNEL)?;
        Ok(out)
    }

    /// Builds a tree of `keys`, which must ascend, and returns its root.
    pub(super) fn tree(&mut self, btree: BtreeId, keys: &[Key]) -> Result<Root> {
        let mut level = 0;
        let mut pointers: KVec<KVec<u64>> = KVec::new();
        let mut min = Bpos::POS_MIN;
        let groups = keys.len().div_ceil(FAN_OUT).max(1);
        for g in 0..groups {
            let group = keys.get(g * FAN_OUT..).unwrap_or(&[]);
            let group = group.get(..FAN_OUT.min(group.len())).unwrap_or(&[]);
            let max = match group.last() {
                Some(k) if g + 1 < groups => k.pos,
                _ => Bpos::SPOS_MAX,
            };
            let ptr = self.leaf(btree, min, max, group)?;
            pointers.push(ptr, GFP_KERNEL)?;
            min = max.successor().unwrap_or(Bpos::SPOS_MAX);
        }
        while pointers.len() > 1 {
            level += 1;
            let mut above = KVec::new();
            let mut min = Bpos::POS_MIN;
            let n = pointers.len();
            let mut at = 0;
            while at < n {
                let end = (at + FAN_OUT).min(n);
                let mut refs: KVec<KeyRef<'_>> = KVec::new();
                for p in pointers.get(at..end).unwrap_or(&[]) {
                    let (header, value) = p.split_first_chunk::<5>().ok_or(Error::NoMem)?;
                    refs.push(KeyRef { key: Bkey::from_words(header), value }, GFP_KERNEL)?;
                }
                let max = refs.last().map_or(Bpos::SPOS_MAX, |k| k.key.pos);
                let ptr = self.node(btree, level, min, max, &[&refs], usize::MAX)?;
                above.push(ptr, GFP_KERNEL)?;
                min = max.successor().unwrap_or(Bpos::SPOS_MAX);
                at = end;
            }
            pointers = above;
        }
        let key = pointers.pop().ok_or(Error::NoMem)?;
        Ok(Root { level, key })
    }

    /// A leaf in two sets: the second overwrites some keys of the first, and deletes one that is not meant to be.
    fn leaf(&mut self, btree: BtreeId, min: Bpos, max: Bpos, keys: &[Key]) -> Result<KVec<u64>> {
        let mut old: KVec<Key> = KVec::new();
        let mut new: KVec<Key> = KVec::new();
        for (i, k) in keys.iter().enumerate() {
            let stale = Key { value: !k.value, ..*k };
            match i % 3 {
                0 => old.push(*k, GFP_KERNEL)?,
                1 => {
                    old.push(stale, GFP_KERNEL)?;
                    new.push(*k, GFP_KERNEL)?;
                }
                _ => new.push(*k, GFP_KERNEL)?,
            }
        }
        let mut sets: [KVec<KeyRef<'_>>; 2] = [KVec::new(), KVec::new()];
        for (set, keys) in sets.iter_mut().zip([&old, &new]) {
            for k in keys.iter() {
                set.push(k.as_ref(), GFP_KERNEL)?;
            }
        }
        let [a, b] = &sets;
        self.node(btree, 0, min, max, &[a, b], keys.len() / 2)
    }

    /// The words of node `index`.
    pub(super) fn words(&mut self, index: usize) -> Option<&mut KVVec<u64>> {
        self.nodes.get_mut(index)
    }

    /// A filesystem with these nodes, a root and keys in the journal.
    pub(super) fn mount(self, btree: BtreeId, root: Root, keys: JournalKeys) -> Result<Arc<Btree>> {
        let mut roots = KVec::new();
        roots.push((btree, root), GFP_KERNEL)?;
        self.mount_all(roots, keys)
    }

    /// The same with several btrees.
    pub(super) fn mount_all(
        self,
        mut trees: KVec<(BtreeId, Root)>,
        keys: JournalKeys,
    ) -> Result<Arc<Btree>> {
        let mut roots = KVec::new();
        for id in 0..=BtreeId::MAX.0 {
            let i = trees.iter().position(|t| t.0 .0 == id);
            let state = match i.and_then(|i| trees.remove(i).ok()) {
                Some((_, root)) => RootState::At(root),
                None => RootState::Absent,
            };
            roots.push(state, GFP_KERNEL)?;
        }
        let mut start = StartState {
            roots,
            keys,
            blacklist: Blacklist::new(KVVec::new()),
            key_version: 0,
            clocks: [0; 2],
            next_seq: 100,
            replayed: None,
            rings: KVec::new(),
        };
        mount(KBox::new(self, GFP_KERNEL)?, NODE_SECTORS as u32, &mut start)
    }
}

/// Btrees whose nodes, of `node_sectors`, are read from `source`. May sleep.
pub(super) fn mount(
    source: KBox<dyn NodeSource>,
    node_sectors: u32,
    start: &mut StartState,
) -> Result<Arc<Btree>> {
    let config = Config {
        node_sectors,
        block_sectors: 1,
        magic: MAGIC,
        version: Version::CURRENT.0,
        version_min: Version::CURRENT.0,
        metadata_csum: CsumType::CRC32C_NONZERO,
        name: CString::try_from_fmt(core::format_args!("test"))?,
    };
    let counters = Counters::new(core::iter::empty())?;
    Btree::with_source(config, source, start, counters)
}

/// Btrees without nodes, over which the journal lays `keys`. For tests elsewhere that need something to read.
pub(crate) fn without_nodes(keys: JournalKeys) -> Result<Arc<Btree>> {
    Image::new().mount_all(KVec::new(), keys)
}

impl NodeSource for Image {
    fn buffer(&self) -> Option<IoBuf> {
        self.try_buffer()
    }

    fn try_buffer(&self) -> Option<IoBuf> {
        IoBuf::new(NODE_SECTORS * 512, GFP_KERNEL).ok()
    }

    fn read(&self, ptr: Ptr, mut buf: IoBuf, op: KBox<ReadOp>) {
        let node = self.nodes.get(ptr.offset() as usize);
        match node.filter(|n| n.len() <= buf.as_words().len()) {
            Some(words) => {
                if let Some(to) = buf.as_words_mut().get_mut(..words.len()) {
                    to.copy_from_slice(words);
                    // The copies on device 1 have a bit flipped, everywhere else.
                    if let Some(w) = to.get_mut(30).filter(|_| ptr.dev() == 1) {
                        *w ^= 1;
                    }
                }
                op.copy_read(ptr, Ok(()), buf)
            }
            None => op.copy_read(ptr, Err(CopyError::DeviceMissing), buf),
        }
    }

    fn count_error(&self, _: Ptr, _: &CopyError) {}

    fn geometry(&self) -> Option<&dyn keys::Devices> {
        None
    }

    fn describe(&self, ptr: Ptr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "copy {} of node {}", ptr.dev(), ptr.offset())
    }

    fn wait_idle(&self) {}
}
