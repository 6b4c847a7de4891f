// SPDX-License-Identifier: GPL-2.0
//! Trimming keys: what is left maps every sector to where it was before.

use bcachefs_format::keys::extent::cut::{cut_back, cut_front};
use bcachefs_format::keys::extent::DecodedPtr;
use bcachefs_format::keys::{self, ValidateCtx, Value};
use bcachefs_format::KeyType;

use super::generate;
use super::owned::Owned;
use super::rng::Rng;

/// Where a key says the sector at `offset` of its range is.
#[derive(PartialEq, Eq, Debug)]
enum Place {
    /// One place per pointer: device, sector on disk or in the uncompressed data, length on disk,
    /// whether it counts from the begin of encoded data.
    Ptrs(Vec<(u8, u64, u64)>),
    Reflink(u64),
    Bytes(Vec<u8>),
    Nothing,
}

fn place_of(p: &DecodedPtr, sectors_in: u64) -> (u8, u64, u64) {
    if p.crc.is_compressed() {
        // On disk the whole extent stays where it is; in it, the offset tells.
        (
            p.ptr.dev(),
            p.ptr.offset(),
            u64::from(p.crc.offset) + sectors_in,
        )
    } else {
        (p.ptr.dev(), p.live_sector() + sectors_in, 0)
    }
}

fn place(key: &Owned, offset: u64) -> Place {
    let inside = offset - key.key.start_offset();
    assert!(inside < u64::from(key.key.size));
    let sector_bytes = |bytes: &[u8]| {
        let from = bytes.len().min(512 * inside as usize);
        let mut b = bytes[from..].to_vec();
        b.resize(512, 0);
        Place::Bytes(b)
    };
    match keys::parse(key.as_ref()).unwrap() {
        Value::Extent(e) => Place::Ptrs(e.ptrs().map(|p| place_of(&p, inside)).collect()),
        Value::ReflinkV(e) => Place::Ptrs(e.ptrs().map(|p| place_of(&p, inside)).collect()),
        Value::ReflinkP(p) => Place::Reflink(p.idx + inside),
        Value::InlineData(d) => sector_bytes(d.bytes),
        Value::IndirectInlineData(d) => sector_bytes(d.data.bytes),
        _ => Place::Nothing,
    }
}

fn shrink_to_length(key: &mut Owned) {
    key.value.truncate(usize::from(key.key.value_u64s()));
}

#[test]
fn what_is_left_is_where_it_was() {
    let mut r = Rng::new(20);
    let makers: &[fn(&mut Rng) -> Owned] = &[
        generate::extent,
        generate::reflink_v,
        generate::reflink_p,
        generate::inline_data,
        generate::indirect_inline_data,
        generate::reservation,
    ];
    for _ in 0..20_000 {
        let key = r.pick(makers)(&mut r);
        let (start, end) = (key.key.start_offset(), key.key.pos.offset);
        let from = r.range(start, end - 1);
        let to = r.range(from + 1, end);
        let mut cut = key.clone();
        // Either order gives the same.
        if r.flip() {
            cut_front(&mut cut.key, &mut cut.value, from).unwrap();
            cut_back(&mut cut.key, &mut cut.value, to).unwrap();
        } else {
            cut_back(&mut cut.key, &mut cut.value, to).unwrap();
            cut_front(&mut cut.key, &mut cut.value, from).unwrap();
        }
        shrink_to_length(&mut cut);
        assert_eq!(cut.key.start_offset(), from);
        assert_eq!(cut.key.pos.offset, to);
        assert_eq!(cut.key.key_type, key.key.key_type);
        for probe in [from, to - 1, r.range(from, to - 1)] {
            assert_eq!(place(&cut, probe), place(&key, probe));
        }
        let res = keys::validate(cut.as_ref(), cut.btree, 0, &ValidateCtx::COMMIT);
        assert_eq!(res, Ok(()));
    }
}

#[test]
fn encoded_extents_keep_their_sizes() {
    let mut r = Rng::new(21);
    let mut encoded = 0;
    for _ in 0..5_000 {
        let key = generate::extent(&mut r);
        let mut cut = key.clone();
        let by = r.below(key.key.size.into());
        let at = key.key.start_offset() + by;
        cut_front(&mut cut.key, &mut cut.value, at).unwrap();
        let parsed = (keys::parse(key.as_ref()), keys::parse(cut.as_ref()));
        let (Ok(Value::Extent(a)), Ok(Value::Extent(b))) = parsed else {
            panic!("not extents");
        };
        let mut crc_seen = false;
        for (a, b) in a.ptrs().zip(b.ptrs()) {
            assert_eq!(a.at, b.at);
            if a.crc.live_size == a.crc.compressed_size && !a.crc.is_encoded() {
                continue;
            }
            crc_seen = true;
            assert_eq!(a.ptr, b.ptr);
            assert_eq!(a.crc.compressed_size, b.crc.compressed_size);
            assert_eq!(a.crc.uncompressed_size, b.crc.uncompressed_size);
            assert_eq!(u64::from(a.crc.offset) + by, b.crc.offset.into());
            assert_eq!((a.crc.csum, a.crc.nonce), (b.crc.csum, b.crc.nonce));
            assert_eq!(b.crc.live_size, cut.key.size);
        }
        encoded += u32::from(crc_seen);
    }
    assert!(encoded > 1_000);
}

#[test]
fn nothing_left_is_a_deleted_key() {
    let mut r = Rng::new(22);
    for _ in 0..1_000 {
        let key = generate::extent(&mut r);
        let (start, end) = (key.key.start_offset(), key.key.pos.offset);

        let mut cut = key.clone();
        cut_front(&mut cut.key, &mut cut.value, end + r.below(2)).unwrap();
        assert_eq!(cut.key.key_type, KeyType::DELETED);
        assert_eq!((cut.key.size, cut.key.u64s), (0, 5));
        assert_eq!(cut.key.pos.offset, end);

        let mut cut = key.clone();
        cut_back(&mut cut.key, &mut cut.value, start - r.below(2).min(start)).unwrap();
        assert_eq!(cut.key.key_type, KeyType::DELETED);
        assert_eq!((cut.key.size, cut.key.u64s), (0, 5));
        assert_eq!(cut.key.pos.offset, start);

        // Cuts outside the range change nothing.
        let mut cut = key.clone();
        cut_front(&mut cut.key, &mut cut.value, start).unwrap();
        cut_back(&mut cut.key, &mut cut.value, end).unwrap();
        assert_eq!(cut, key);
    }
}
