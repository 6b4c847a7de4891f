// SPDX-License-Identifier: GPL-2.0
//! Triggers in transactions: after whatever changes, what is recorded of buckets and space has to be what follows from the keys.

mod world;

use crate::{
    alloc::triggers::keys,
    btree::{
        trans::update::{CommitFlags, UpdateFlags},
        IterFlags,
    },
    util::error::{Error, Result},
};
use bcachefs_format::{
    keys::{
        compression::{CompressionOpt, CompressionType},
        data_type::DataType,
        extent::{Crc, EntryWriter, Rebalance},
        inode::{Inode, InodeFlags, Mode, INODE_WORDS_MAX},
        reflink::ReflinkP,
        reservation::Reservation,
        BuildError,
    },
    Bkey, Bpos, BtreeId, KeyRef, KeyType,
};
use kernel::prelude::*;
use world::{World, BUCKET};

const FLAGS: CommitFlags = CommitFlags::INITIALISING;

fn unbuilt(_: BuildError) -> Error {
    Error::ExtentInvalid
}

/// A key with a size.
fn ranged(key_type: KeyType, end: Bpos, size: u32, value: &[u64]) -> KeyRef<'_> {
    let key = keys::header(key_type, end, value.len());
    KeyRef { key: Bkey { size, ..key }, value }
}

impl World {
    /// Where a file's range is written next.
    fn file_range(&mut self) -> (Bpos, u32) {
        let size = 1 + self.draw.below(16) as u32;
        let end = self.draw.below(100) + u64::from(size);
        (Bpos::with_snapshot(4096 + self.draw.below(3), end, self.leaf()), size)
    }

    /// Entries of data of `size` sectors, somewhere. `None` if there is no room.
    fn entries(&mut self, size: u32, out: &mut [u64], w: fn(&mut [u64]) -> core::result::Result<EntryWriter<'_>, BuildError>) -> Result<Option<usize>> {
        let compressed = self.draw.below(3) == 0;
        let stored = if compressed { 1 + self.draw.below(size.into()) as u32 } else { size };
        let Some(first) = self.place(0, stored)? else {
            return Ok(None);
        };
        let second = match self.draw.below(2) {
            0 => self.place(1, stored)?,
            _ => None,
        };
        let cached = self.draw.below(2) == 0;
        let wanted = self.draw.below(4);
        let mut w = w(out).map_err(unbuilt)?;
        if compressed {
            let crc = Crc {
                compression: CompressionType::LZ4,
                compressed_size: stored,
                ..Crc::none(size)
            };
            w.crc(&crc).map_err(unbuilt)?;
        }
        w.ptr(first).map_err(unbuilt)?;
        if let Some(ptr) = second {
            w.ptr(ptr.with_cached(cached)).map_err(unbuilt)?;
        }
        if wanted < 2 {
            let to = Rebalance::new(CompressionOpt(wanted as u8), 2);
            w.rebalance(to).map_err(unbuilt)?;
        }
        Ok(Some(w.finish().map_err(unbuilt)?))
    }

    fn write(&mut self) -> Result {
        let (end, size) = self.file_range();
        let mut value = [0; 12];
        let Some(n) = self.entries(size, &mut value, |w| Ok(EntryWriter::new(w)))? else {
            return Ok(());
        };
        let key = ranged(KeyType::EXTENT, end, size, value.get(..n).unwrap_or(&[]));
        self.commit(|t| t.insert(BtreeId::EXTENTS, key, UpdateFlags::default()))
    }

    fn reserve(&mut self) -> Result {
        let (end, size) = self.file_range();
        let nr_replicas = 1 + self.draw.below(4) as u8;
        let mut value = [0];
        Reservation { generation: 0, nr_replicas }.build(&mut value).map_err(unbuilt)?;
        let key = ranged(KeyType::RESERVATION, end, size, &value);
        self.commit(|t| t.insert(BtreeId::EXTENTS, key, UpdateFlags::default()))
    }

    fn punch(&mut self) -> Result {
        let (end, size) = self.file_range();
        let key = ranged(KeyType::DELETED, end, size, &[]);
        self.commit(|t| t.insert(BtreeId::EXTENTS, key, UpdateFlags::default()))
    }

    /// Data to be shared, and a reference to it.
    fn share(&mut self) -> Result {
        let (end, size) = self.file_range();
        let mut value = [0; 12];
        let Some(n) = self.entries(size, &mut value, |w| EntryWriter::reflink_v(w, 0))? else {
            return Ok(());
        };
        let start = self.shared_end;
        self.shared_end += u64::from(size);
        let at = Bpos::new(0, self.shared_end);
        let shared = ranged(KeyType::REFLINK_V, at, size, value.get(..n).unwrap_or(&[]));
        let mut value = [0; 2];
        ReflinkP { idx: start, ..ReflinkP::default() }.build(&mut value).map_err(unbuilt)?;
        let key = ranged(KeyType::REFLINK_P, end, size, &value);
        self.commit(|t| {
            t.insert(BtreeId::REFLINK, shared, UpdateFlags { exact: true, ..UpdateFlags::default() })?;
            t.insert(BtreeId::EXTENTS, key, UpdateFlags::default())
        })
    }

    /// Another reference to a part of what is shared.
    fn refer(&mut self) -> Result {
        let Some(shared) = self.pick(BtreeId::REFLINK, KeyType::REFLINK_V)? else {
            return Ok(());
        };
        let (end, size) = self.file_range();
        let skip = self.draw.below(shared.key.size.into());
        let size = u64::from(size).min(u64::from(shared.key.size) - skip) as u32;
        let mut value = [0; 2];
        let p = ReflinkP { idx: shared.key.start_offset() + skip, ..ReflinkP::default() };
        p.build(&mut value).map_err(unbuilt)?;
        let key = ranged(KeyType::REFLINK_P, end, size, &value);
        self.commit(|t| t.insert(BtreeId::EXTENTS, key, UpdateFlags::default()))
    }

    /// Moves a reference: what it refers to must not go in between.
    fn move_reference(&mut self) -> Result {
        let Some(from) = self.pick(BtreeId::EXTENTS, KeyType::REFLINK_P)? else {
            return Ok(());
        };
        if !self.is_leaf(from.key.pos.snapshot) {
            return Ok(());
        }
        let to = Bpos { inode: 4100, offset: 1000 + self.draw.below(100), ..from.key.pos };
        let size = from.key.size;
        self.commit(|t| {
            let gone = ranged(KeyType::DELETED, from.key.pos, size, &[]);
            t.insert(BtreeId::EXTENTS, gone, UpdateFlags::default())?;
            let here = ranged(KeyType::REFLINK_P, to, size, &from.value);
            t.insert(BtreeId::EXTENTS, here, UpdateFlags::default())
        })
    }

    fn inode(&mut self) -> Result {
        let inum = 4096 + self.draw.below(3);
        let pos = Bpos::with_snapshot(0, inum, self.any_snapshot());
        let unlinked = self.draw.below(3) == 0;
        let flags = UpdateFlags { exact: true, internal_snapshot: true, ..UpdateFlags::default() };
        let mut value = [0; INODE_WORDS_MAX];
        let what = self.draw.below(5);
        let (key_type, n) = match what {
            0 => (KeyType::DELETED, 0),
            1 => (KeyType::INODE_GENERATION, 1),
            _ => {
                let inode = Inode {
                    mode: Mode(0o100644),
                    flags: if unlinked { InodeFlags::UNLINKED } else { InodeFlags::NONE },
                    ..Inode::default()
                };
                (KeyType::INODE_V3, inode.build(&mut value).map_err(unbuilt)?)
            }
        };
        let value = value.get_mut(..n).unwrap_or(&mut []);
        // A rewrite keeps what the trigger looks after.
        let keep = self.find(BtreeId::INODES, pos)?;
        if let (Some(old), KeyType::INODE_V3) = (keep, key_type) {
            if old.key.key_type == KeyType::INODE_V3 {
                let flag = u64::from(InodeFlags::HAS_CHILD_SNAPSHOT.0);
                let kept = u64::from_le(old.value.get(2).copied().unwrap_or(0)) & flag;
                if let Some(word) = value.get_mut(2) {
                    *word |= kept.to_le();
                }
            }
        }
        let key = KeyRef { key: keys::header(key_type, pos, n), value };
        self.commit(|t| t.insert(BtreeId::INODES, key, flags))
    }

    /// Buckets that are to be discarded are, unless they are held open.
    fn discard(&mut self) -> Result {
        for pos in self.buckets_of_type(DataType::NEED_DISCARD)? {
            if self.client.holds(pos) {
                continue;
            }
            self.commit(|t| {
                let flags = IterFlags::SLOTS | IterFlags::INTENT;
                let mut iter = t.iter(BtreeId::ALLOC, pos, flags);
                let mut a = keys::parse_alloc(iter.peek_slot(t)?)?;
                a.need_discard = false;
                a.data_type = a.data_type_if(a.data_type);
                keys::update_alloc(t, &iter, pos, &a)
            })?;
        }
        Ok(())
    }

    /// What is only cached in a bucket is given up.
    fn invalidate(&mut self) -> Result {
        let cached = self.buckets_of_type(DataType::CACHED)?;
        let Some(pos) = cached.get(self.draw.below(cached.len() as u64) as usize).copied() else {
            return Ok(());
        };
        self.commit(|t| {
            let flags = IterFlags::SLOTS | IterFlags::INTENT;
            let mut iter = t.iter(BtreeId::ALLOC, pos, flags);
            let mut a = keys::parse_alloc(iter.peek_slot(t)?)?;
            a.generation = a.generation.wrapping_add(1);
            a.need_inc_gen = false;
            (a.cached_sectors, a.dirty_sectors) = (0, 0);
            a.data_type = a.data_type_if(a.data_type);
            let mut value = [0; 8];
            let n = a.build(&mut value).map_err(keys::unwritable)?;
            let key = KeyRef { key: keys::header(KeyType::ALLOC_V4, pos, n), value: &value };
            t.update(&iter, key, UpdateFlags { invalidate: true, ..UpdateFlags::default() })
        })
    }

    fn step(&mut self) -> Result {
        match self.draw.below(40) {
            0..12 => self.write(),
            12..15 => self.reserve(),
            15..20 => self.punch(),
            20..23 => self.share(),
            23..26 => self.refer(),
            26..28 => self.move_reference(),
            28..34 => self.inode(),
            34..36 => self.discard(),
            36..38 => self.invalidate(),
            _ => self.hold(),
        }
    }
}

/// Does something `n` times, and looks at everything now and then.
fn run(seed: u64, n: u32, restarts: u32) -> Result {
    let mut world = World::new(seed, restarts)?;
    for i in 0..n {
        world.step().inspect_err(|e| pr_err!("{}\n", format_args!("seed {seed}, step {i}: {e}")))?;
        if i % 10 == 9 || i + 1 == n {
            world.settle()?;
            world.check().inspect_err(|e| pr_err!("{}\n", format_args!("seed {seed}, after step {i}: {e}")))?;
        }
    }
    world.used_everything()
}

#[kernel::macros::kunit_tests(bcachefs_triggers)]
mod suite {
    use kernel::prelude::*;

    #[test]
    fn everything_follows() -> Result {
        for seed in 1..=6 {
            super::run(seed, 300, 0).map_err(|e| e.errno())?;
        }
        Ok(())
    }

    #[test]
    fn everything_follows_with_restarts() -> Result {
        for seed in 11..=13 {
            super::run(seed, 200, 60).map_err(|e| e.errno())?;
        }
        Ok(())
    }

    #[test]
    fn a_bucket_taken_while_free_ones_are_listed() -> Result {
        assert!(super::World::listed_meanwhile().map_err(|e| e.errno())?);
        Ok(())
    }

    #[test]
    fn a_bucket_is_large_enough() {
        assert!(super::BUCKET >= 32);
    }
}
