// SPDX-License-Identifier: GPL-2.0
//! What a key with pointers stands for: sectors in buckets, backpointers, accounting.
//!
//! Functions over values, for triggers and for checking alike.

use super::{bucket::pointer_type, geometry::Buckets};
use bcachefs_format::{
    keys::{
        accounting::{AccountingKey, Replicas},
        backpointer::{Backpointer, BACKPOINTER_SHIFT},
        compression::CompressionType,
        data_type::DataType,
        extent::{DecodedPtr, Entries, PTRS_MAX},
        reservation::Reservation,
    },
    Bkey, Bpos, BtreeId, KeyRef, KeyType,
};

/// Words of a `btree_ptr_v2` before its pointers.
const BTREE_PTR_HEADER: usize = 5;
/// Words of a `reflink_v` before its entries.
const REFLINK_V_HEADER: usize = 1;

/// The entries of a key that has pointers; nodes have `node_sectors`. `None` for other types.
pub fn entries(key: KeyRef<'_>, node_sectors: u32) -> Option<Entries<'_>> {
    let (from, size) = match key.key.key_type {
        KeyType::EXTENT => (0, key.key.size),
        KeyType::REFLINK_V => (REFLINK_V_HEADER, key.key.size),
        KeyType::BTREE_PTR => (0, node_sectors),
        KeyType::BTREE_PTR_V2 => (BTREE_PTR_HEADER, node_sectors),
        _ => return None,
    };
    Some(Entries::new(key.value.get(from..).unwrap_or(&[]), size))
}

/// Whether two keys at one position have the same pointers, so that nothing follows from putting one in the place of the other.
pub fn same_entries(old: KeyRef<'_>, new: KeyRef<'_>) -> bool {
    match (entries(old, 0), entries(new, 0)) {
        (Some(a), Some(b)) => old.key.size == new.key.size && a.words() == b.words(),
        _ => false,
    }
}

/// What the pointers of a key at `level` lead to.
pub fn data_type(level: u8) -> DataType {
    match level {
        0 => DataType::USER,
        _ => DataType::BTREE,
    }
}

/// The backpointer of `p`, a pointer of `key`, which is at `level` of `btree`, to a bucket of `buckets`.
pub fn backpointer(
    btree: BtreeId,
    level: u8,
    key: &Bkey,
    p: &DecodedPtr,
    buckets: &Buckets,
) -> (Bpos, Backpointer) {
    let sector = p.ptr.offset();
    let in_bucket = buckets.in_bucket(sector) << BACKPOINTER_SHIFT;
    let value = Backpointer {
        btree,
        level,
        data_type: pointer_type(p, data_type(level)),
        bucket_offset: in_bucket + u64::from(p.crc.offset),
        bucket_len: u32::try_from(p.crc.disk_sectors()).unwrap_or(u32::MAX),
        pos: key.pos,
    };
    (Backpointer::key_pos(p.ptr.dev(), sector, p.crc.offset), value)
}

/// Adds up what one key with pointers contributes to accounting, pointer by pointer.
pub struct KeySums {
    btree: BtreeId,
    level: u8,
    snapshot: u32,
    inum: u64,
    size: u32,
    sign: i64,
    devs: [u8; PTRS_MAX],
    nr_devs: usize,
    sectors: i64,
    compression: CompressionType,
    compressed: [i64; 3],
}

impl KeySums {
    /// For `key` at `level` of `btree`, which comes, or goes if `insert` is false.
    pub fn new(btree: BtreeId, level: u8, key: &Bkey, insert: bool) -> Self {
        KeySums {
            btree,
            level,
            snapshot: key.pos.snapshot,
            inum: key.pos.inode,
            size: key.size,
            sign: if insert { 1 } else { -1 },
            devs: [0; PTRS_MAX],
            nr_devs: 0,
            sectors: 0,
            compression: CompressionType::NONE,
            compressed: [0; 3],
        }
    }

    /// Adds a pointer that is not stale, and calls `emit` with what that adds to counters. Pointers into stripes are the caller's.
    pub fn add<E>(
        &mut self,
        p: &DecodedPtr,
        mut emit: impl FnMut(AccountingKey, &[i64]) -> Result<(), E>,
    ) -> Result<(), E> {
        let sectors = p.crc.disk_sectors() as i64;
        if p.ptr.cached() {
            if let Some(set) = Replicas::new(DataType::CACHED, 1, &[p.ptr.dev()]) {
                emit(AccountingKey::Replicas(set), &[self.sign * sectors])?;
            }
        } else if let Some(place) = self.devs.get_mut(self.nr_devs) {
            *place = p.ptr.dev();
            self.nr_devs += 1;
            self.sectors += sectors;
        }
        if self.compression != p.crc.compression {
            self.flush_compression(&mut emit)?;
        }
        self.compression = p.crc.compression;
        if self.compression != CompressionType::NONE {
            let [extents, before, after] = &mut self.compressed;
            *extents = 1;
            *before += i64::from(p.crc.uncompressed_size);
            *after += i64::from(p.crc.compressed_size);
        }
        Ok(())
    }

    fn flush_compression<E>(
        &mut self,
        emit: &mut impl FnMut(AccountingKey, &[i64]) -> Result<(), E>,
    ) -> Result<(), E> {
        let sums = core::mem::take(&mut self.compressed).map(|n| self.sign * n);
        match self.compression {
            CompressionType::NONE => Ok(()),
            compression => emit(AccountingKey::Compression { compression }, &sums),
        }
    }

    /// Calls `emit` with the rest.
    pub fn finish<E>(
        mut self,
        mut emit: impl FnMut(AccountingKey, &[i64]) -> Result<(), E>,
    ) -> Result<(), E> {
        let sectors = self.sign * self.sectors;
        let devs = self.devs.get_mut(..self.nr_devs).unwrap_or(&mut []);
        devs.sort_unstable();
        if !devs.is_empty() {
            if let Some(set) = Replicas::new(data_type(self.level), 1, devs) {
                emit(AccountingKey::Replicas(set), &[sectors])?;
            }
            if self.level == 0 && self.snapshot != 0 {
                emit(AccountingKey::Snapshot { id: self.snapshot }, &[sectors])?;
            }
        }
        self.flush_compression(&mut emit)?;
        if self.level > 0 {
            return emit(AccountingKey::Btree { id: self.btree.0.into() }, &[sectors]);
        }
        let counters = [self.sign, self.sign * i64::from(self.size), sectors];
        emit(AccountingKey::Inum { inum: self.inum }, &counters)
    }
}

/// What a reservation adds to accounting. `None` if `key` is none.
pub fn reserved(key: KeyRef<'_>) -> Option<(AccountingKey, i64)> {
    if key.key.key_type != KeyType::RESERVATION {
        return None;
    }
    let nr_replicas = Reservation::parse(key).ok()?.nr_replicas;
    Some((
        AccountingKey::PersistentReserved { nr_replicas },
        i64::from(key.key.size),
    ))
}

#[kernel::macros::kunit_tests(bcachefs_alloc_pointers)]
mod tests {
    use super::*;
    use bcachefs_format::keys::extent::{Crc, EntryWriter, Ptr};
    use kernel::prelude::*;

    type Emitted = KVec<(AccountingKey, [i64; 3])>;

    fn extent_key(pos: Bpos, size: u32, words: &[u64]) -> KeyRef<'_> {
        let key = Bkey {
            u64s: 5 + words.len() as u8,
            key_type: KeyType::EXTENT,
            size,
            ..Bkey::deleted(pos)
        };
        KeyRef { key, value: words }
    }

    fn sums(key: KeyRef<'_>, btree: BtreeId, level: u8, insert: bool) -> Result<Emitted> {
        let mut out = KVec::new();
        let mut emit = |k: AccountingKey, d: &[i64]| {
            let mut all = [0; 3];
            all[..d.len()].copy_from_slice(d);
            out.push((k, all), GFP_KERNEL)
        };
        let mut sums = KeySums::new(btree, level, &key.key, insert);
        for p in entries(key, 256).ok_or(EINVAL)?.decoded() {
            sums.add(&p, &mut emit)?;
        }
        sums.finish(&mut emit)?;
        Ok(out)
    }

    fn set(data_type: DataType, devs: &[u8]) -> AccountingKey {
        AccountingKey::Replicas(Replicas::new(data_type, 1, devs).unwrap_or_default())
    }

    #[test]
    fn a_plain_extent() -> Result {
        let mut words = [0u64; 8];
        let mut w = EntryWriter::new(&mut words);
        w.ptr(Ptr::new(3, 512, 0)).and_then(|w| w.ptr(Ptr::new(1, 1000, 0))).map_err(|_| EINVAL)?;
        let n = w.finish().map_err(|_| EINVAL)?;
        let key = extent_key(Bpos::with_snapshot(4099, 128, 9), 16, &words[..n]);
        let want = [
            (set(DataType::USER, &[1, 3]), [32, 0, 0]),
            (AccountingKey::Snapshot { id: 9 }, [32, 0, 0]),
            (AccountingKey::Inum { inum: 4099 }, [1, 16, 32]),
        ];
        assert_eq!(&sums(key, BtreeId::EXTENTS, 0, true)?[..], &want[..]);
        let want = want.map(|(k, d)| (k, d.map(|n| -n)));
        assert_eq!(&sums(key, BtreeId::EXTENTS, 0, false)?[..], &want[..]);
        Ok(())
    }

    #[test]
    fn compression_is_counted_by_runs() -> Result {
        let crc = |compression, compressed_size| Crc {
            compression,
            compressed_size,
            uncompressed_size: 128,
            ..Crc::none(128)
        };
        let mut words = [0u64; 16];
        let mut w = EntryWriter::new(&mut words);
        let write = |w: &mut EntryWriter<'_>| {
            w.crc(&crc(CompressionType::LZ4, 24))?;
            w.ptr(Ptr::new(0, 512, 0))?;
            w.ptr(Ptr::new(1, 512, 0).with_cached(true))?;
            w.crc(&crc(CompressionType::ZSTD, 16))?;
            w.ptr(Ptr::new(2, 512, 0))?;
            w.crc(&crc(CompressionType::NONE, 128))?;
            w.ptr(Ptr::new(4, 512, 0)).map(drop)
        };
        write(&mut w).map_err(|_| EINVAL)?;
        let n = w.finish().map_err(|_| EINVAL)?;
        let key = extent_key(Bpos::with_snapshot(4099, 128, 9), 128, &words[..n]);
        let lz4 = AccountingKey::Compression { compression: CompressionType::LZ4 };
        let zstd = AccountingKey::Compression { compression: CompressionType::ZSTD };
        let want = [
            (set(DataType::CACHED, &[1]), [24, 0, 0]),
            (lz4, [1, 256, 48]),
            (zstd, [1, 128, 16]),
            (set(DataType::USER, &[0, 2, 4]), [168, 0, 0]),
            (AccountingKey::Snapshot { id: 9 }, [168, 0, 0]),
            (AccountingKey::Inum { inum: 4099 }, [1, 128, 168]),
        ];
        assert_eq!(&sums(key, BtreeId::EXTENTS, 0, true)?[..], &want[..]);
        Ok(())
    }

    #[test]
    fn nodes_are_whole() -> Result {
        let ptr = Ptr::new(0, 6656, 0).word().to_le();
        let words = [0, 1, 2, 3, 4, ptr];
        let key = Bkey {
            u64s: 11,
            key_type: KeyType::BTREE_PTR_V2,
            ..Bkey::deleted(Bpos::SPOS_MAX)
        };
        let key = KeyRef { key, value: &words };
        let want = [
            (set(DataType::BTREE, &[0]), [256, 0, 0]),
            (AccountingKey::Btree { id: 3 }, [256, 0, 0]),
        ];
        assert_eq!(&sums(key, BtreeId::XATTRS, 1, true)?[..], &want[..]);

        // The backpointer that the C module wrote for it.
        let buckets = Buckets { dev: 0, first: 0, nr: 1024, sectors: 256 };
        let p = entries(key, 256).and_then(|e| e.decoded().next()).ok_or(EINVAL)?;
        let (pos, bp) = backpointer(BtreeId::INODES, 1, &key.key, &p, &buckets);
        assert_eq!(pos, Bpos::new(0, 6656 << 10));
        let want = Backpointer {
            btree: BtreeId::INODES,
            level: 1,
            data_type: DataType::BTREE,
            bucket_offset: 0,
            bucket_len: 256,
            pos: Bpos::SPOS_MAX,
        };
        assert_eq!(bp, want);
        Ok(())
    }

    #[test]
    fn only_entries_matter() {
        let a = [1u64, 2, 3, 4, 5, 0x11];
        let b = [9u64, 8, 7, 6, 5, 0x11];
        let c = [1u64, 2, 3, 4, 5, 0x21];
        let header = Bkey {
            u64s: 11,
            key_type: KeyType::BTREE_PTR_V2,
            ..Bkey::deleted(Bpos::SPOS_MAX)
        };
        let key = |value| KeyRef { key: header, value };
        assert!(same_entries(key(&a), key(&b)));
        assert!(!same_entries(key(&c), key(&b)));
        let gone = KeyRef { key: Bkey::deleted(Bpos::SPOS_MAX), value: &[] };
        assert!(!same_entries(gone, key(&b)));
    }
}
