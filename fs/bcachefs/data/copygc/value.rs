// SPDX-License-Identifier: GPL-2.0
//! The value of a key with one copy of its data elsewhere.

use bcachefs_format::{
    bkey::BKEY_U64S,
    keys::{
        extent::{Crc, DecodedPtr, DecodedPtrs, EntryWriter, Extent, Ptr},
        reflink::ReflinkV,
        BuildError,
    },
    Bkey, KeyRef, KeyType,
};

use crate::util::error::{Error, Result};

/// The copies that `key`, of a type that has some, refers to.
pub(super) fn ptrs<'a>(key: KeyRef<'a>) -> Result<DecodedPtrs<'a>> {
    Ok(match key.key.key_type {
        KeyType::REFLINK_V => ReflinkV::parse(key)?.ptrs(),
        _ => Extent::new(key).ptrs(),
    })
}

/// Builds in `out` the value of `key` with copies at `new`, which relate to its data as `crc` says, in the place of `old`. Returns the key's header.
pub(super) fn build(
    key: KeyRef<'_>,
    old: &DecodedPtr,
    crc: &Crc,
    new: &[Ptr],
    out: &mut [u64],
) -> Result<Bkey> {
    let used = write(key, old, crc, new, out)?;
    let u64s = usize::from(BKEY_U64S) + used;
    let mut header = key.key;
    header.u64s = u8::try_from(u64s).map_err(|_| Error::ExtentInvalid)?;
    Ok(header)
}

fn write(
    key: KeyRef<'_>,
    old: &DecodedPtr,
    crc: &Crc,
    new: &[Ptr],
    out: &mut [u64],
) -> Result<usize> {
    let wrong = |_: BuildError| Error::ExtentInvalid;
    let none = Crc::none(key.key.size);
    let (mut w, rebalance) = match key.key.key_type {
        KeyType::REFLINK_V => {
            let v = ReflinkV::parse(key)?;
            (EntryWriter::reflink_v(out, v.refcount).map_err(wrong)?, v.entries().rebalance())
        }
        _ => (EntryWriter::new(out), Extent::new(key).entries().rebalance()),
    };
    let unwritten = old.ptr.unwritten();
    let put = |w: &mut EntryWriter<'_>, p: &DecodedPtr| {
        if let Some(stripe) = p.stripe {
            w.stripe_ptr(stripe)?;
        }
        w.ptr(p.ptr).map(|_| ())
    };
    // A pointer goes by the checksum entry before it: first those that go by none.
    for p in ptrs(key)?.filter(|p| p.at != old.at && p.crc == none) {
        put(&mut w, &p).map_err(wrong)?;
    }
    if *crc == none {
        for ptr in new {
            w.ptr(ptr.with_unwritten(unwritten)).map_err(wrong)?;
        }
    }
    let mut last = none;
    for p in ptrs(key)?.filter(|p| p.at != old.at && p.crc != none) {
        if p.crc != last {
            w.crc(&p.crc).map_err(wrong)?;
            last = p.crc;
        }
        put(&mut w, &p).map_err(wrong)?;
    }
    if *crc != none {
        if *crc != last {
            w.crc(crc).map_err(wrong)?;
        }
        for ptr in new {
            w.ptr(ptr.with_unwritten(unwritten)).map_err(wrong)?;
        }
    }
    if let Some(rebalance) = rebalance {
        w.rebalance(rebalance).map_err(wrong)?;
    }
    w.finish().map_err(wrong)
}

#[kernel::macros::kunit_tests(bcachefs_copygc_value)]
mod tests {
    use super::*;
    use bcachefs_format::{
        checksum::{Csum, CsumType},
        Bpos,
    };
    use kernel::{error::Result, prelude::EINVAL};

    fn key(words: &[u64], size: u32) -> KeyRef<'_> {
        let key = Bkey {
            u64s: BKEY_U64S + words.len() as u8,
            key_type: KeyType::EXTENT,
            size,
            ..Bkey::deleted(Bpos::new(4096, 100))
        };
        KeyRef { key, value: words }
    }

    #[test]
    fn the_others_stay_what_they_were() -> Result {
        let sums = |csum, offset| Crc {
            csum_type: CsumType::CRC32C,
            csum: Csum::new(csum, 0),
            offset,
            compressed_size: 32,
            uncompressed_size: 32,
            ..Crc::none(8)
        };
        let mut words = [0u64; 16];
        let mut w = EntryWriter::new(&mut words);
        w.ptr(Ptr::new(0, 1000, 1)).map_err(|_| EINVAL)?;
        w.crc(&sums(77, 4)).map_err(|_| EINVAL)?;
        w.ptr(Ptr::new(1, 2000, 2)).map_err(|_| EINVAL)?;
        w.ptr(Ptr::new(2, 3000, 3)).map_err(|_| EINVAL)?;
        let used = w.finish().map_err(|_| EINVAL)?;
        let before = key(words.get(..used).ok_or(EINVAL)?, 8);

        // The live part goes elsewhere alone.
        let live = Crc { compressed_size: 8, uncompressed_size: 8, offset: 0, ..sums(5, 0) };
        for (old, crc) in [(0, Crc::none(8)), (1, live), (2, live), (1, sums(77, 4))] {
            let all = || Extent::new(before).ptrs();
            let moved = all().nth(old).ok_or(EINVAL)?;
            let new = Ptr::new(5, 9000, 9);
            let mut out = [0u64; 16];
            let header = build(before, &moved, &crc, &[new], &mut out).map_err(crate::util::error::Error::errno)?;
            let after = KeyRef {
                key: header,
                value: out.get(..usize::from(header.value_u64s())).ok_or(EINVAL)?,
            };
            let found = |ptr: Ptr| Extent::new(after).ptrs().find(|p| p.ptr == ptr);
            assert_eq!(Extent::new(after).ptrs().count(), 3);
            for p in all().filter(|p| p.at != moved.at) {
                assert!(found(p.ptr).is_some_and(|q| q.crc == p.crc));
            }
            assert!(found(new).is_some_and(|q| q.crc == crc));
        }
        Ok(())
    }
}
