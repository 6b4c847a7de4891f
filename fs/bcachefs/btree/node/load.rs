// SPDX-License-Identifier: GPL-2.0
//! From the bytes of one copy of a node to keys in memory.
//!
//! All rules of reading are applied: those of the frame, the header and the sets by the format crate's scanner, then the
//! sets are merged, keys outside of a range that repair has narrowed are dropped, and so are keys whose
//! value is invalid. Those of files and their data are not: a hole, or an older version that an ancestor snapshot has, would be
//! seen as if nothing were wrong, and hash chains of names would end early. They become keys of type `error`. An error means that this copy cannot be used; what can be lived with
//! is reported.

use super::{data::NodeData, mem::Shape, sort::Merge};
use bcachefs_format::{
    bset::PackedRef,
    btree_node::{NodeScan, NodeWant, SECTOR_U64S},
    checksum::Checksummer,
    BtreeId, Invalid, KeyRef, KeyType,
};
use kernel::prelude::*;

/// Why a copy could not be used.
#[derive(Copy, Clone, Debug)]
pub enum LoadError {
    /// It breaks a rule; another copy may not.
    Invalid(Invalid),
    /// No memory for the keys.
    NoMem,
}

impl From<Invalid> for LoadError {
    fn from(e: Invalid) -> Self {
        LoadError::Invalid(e)
    }
}

impl From<kernel::alloc::AllocError> for LoadError {
    fn from(_: kernel::alloc::AllocError) -> Self {
        LoadError::NoMem
    }
}

/// What the rules of reading depend on besides the node.
pub trait Rules {
    /// Whether the journal entry with this sequence number never counted.
    fn blacklisted(&self, journal_seq: u64) -> bool;

    /// The rules of the key's type. A key that breaks them is dropped; in trees of files and their data it becomes one
    /// that says that something is lost.
    fn check_value(&self, key: KeyRef<'_>) -> Result<(), Invalid>;

    /// Takes note of damage that does not keep the node from being used.
    fn issue(&self, what: &Invalid);
}

/// Verifies the node in `words` and makes it usable as `data`. `words` is as long as nodes are. May sleep; allocates memory for the
/// keys with `flags`.
#[inline(never)]
pub fn load(
    words: &[u64],
    want: &NodeWant,
    csum: &(impl Checksummer + ?Sized),
    rules: &(impl Rules + ?Sized),
    flags: kernel::alloc::Flags,
    data: &mut NodeData,
) -> Result<(), LoadError> {
    let mut scan = NodeScan::new(words, *want)?;
    let mut merge = Merge::default();
    let mut journal_seq = 0;
    while let Some(set) = scan.next_bset(csum, |seq| rules.blacklisted(seq))? {
        if let Some(issue) = set.issue {
            rules.issue(&issue);
        }
        if set.used {
            journal_seq = set.bset.journal_seq.get().max(journal_seq);
            merge.push(set.keys, flags)?;
        }
    }
    let Some(header) = scan.header() else {
        return Err(Invalid::plain("node has no header", 0, 0, 1).into());
    };
    let mut out: KVVec<u64> = KVVec::with_capacity(merge.words(), flags)?;
    let narrowed = want.range_updated;
    let stays = want.level == 0 && (want.btree.has_snapshots() || want.btree == BtreeId::REFLINK);
    merge.run(&header.format, |key| {
        let pos = key.pos(&header.format);
        if narrowed && (pos < header.min_key || pos > header.max_key) {
            return true;
        }
        let value_u64s = key.value(&header.format).len();
        if let Err(e) = rules.check_value(key.unpack(&header.format)) {
            rules.issue(&e);
            return !stays || append_error(&mut out, &key, value_u64s);
        }
        append(&mut out, &key, value_u64s)
    });
    data.set_words(out, &header.format, header.min_key, header.max_key, flags)?;
    let shape = Shape {
        node_sectors: (words.len() / SECTOR_U64S) as u32,
        block_sectors: want.block_sectors,
    };
    data.set_identity(header.seq, header.generation, scan.sectors());
    data.set_shape(shape, journal_seq);
    Ok(())
}

/// Copies a key. The hint that a pointer to a node has room for means nothing after a read and is cleared.
fn append(out: &mut KVVec<u64>, key: &PackedRef<'_>, value_u64s: usize) -> bool {
    let at = out.len();
    // Room for all sets was made before.
    for &word in key.words() {
        if out.push_within_capacity(word).is_err() {
            return false;
        }
    }
    if key.key_type() == KeyType::BTREE_PTR_V2 && value_u64s > 0 {
        if let Some(hint) = out.get_mut(at + key.u64s() - value_u64s) {
            *hint = 0;
        }
    }
    true
}

/// Puts a key of type `error`, without a value, in the place of `key`.
fn append_error(out: &mut KVVec<u64>, key: &PackedRef<'_>, value_u64s: usize) -> bool {
    let header_u64s = key.u64s().saturating_sub(value_u64s);
    for (i, &word) in key.words().iter().take(header_u64s).enumerate() {
        // Packed or not, the first word has the length in its lowest byte and the type in its third.
        let word = match i {
            0 => word & !0xff_00ff | header_u64s as u64 | u64::from(KeyType::ERROR.0) << 16,
            _ => word,
        };
        if out.push_within_capacity(word).is_err() {
            return false;
        }
    }
    true
}

#[cfg(bcachefs_kunit)]
#[kernel::macros::kunit_tests(bcachefs_node_load)]
mod tests {
    use super::*;
    use bcachefs_format::{bset::BsetBuilder, packed::FormatCalc, Bkey, Bpos};

    /// Position, size and version stay; type and value go. Packed and unpacked.
    #[test]
    fn damaged_keys_become_errors() -> kernel::error::Result {
        let pos = Bpos::with_snapshot(4096, 128, u32::MAX);
        let key = Bkey {
            u64s: Bkey::deleted(pos).u64s + 2,
            key_type: KeyType::EXTENT,
            size: 8,
            ..Bkey::deleted(pos)
        };
        let value = [u64::MAX; 2];
        let mut calc = FormatCalc::new();
        let none = calc.finish();
        calc.add_key(&key);
        for format in [calc.finish(), none] {
            let mut words = [0; 16];
            let mut builder = BsetBuilder::new(&mut words, format);
            assert!(builder.push(&KeyRef { key, value: &value }).is_ok());
            builder.finish();
            let packed = PackedRef::at(&words, 0, &format).map_err(|_| EINVAL)?;
            let mut out = KVVec::with_capacity(16, GFP_KERNEL)?;
            assert!(append_error(&mut out, &packed, value.len()));
            let error = PackedRef::at(&out, 0, &format).map_err(|_| EINVAL)?;
            assert_eq!((error.u64s(), error.is_packed()), (out.len(), packed.is_packed()));
            let got = error.unpack(&format);
            let want = Bkey { u64s: key.u64s - 2, key_type: KeyType::ERROR, ..key };
            assert!(got.key == want && got.value.is_empty());
        }
        Ok(())
    }
}
