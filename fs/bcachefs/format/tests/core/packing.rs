// SPDX-License-Identifier: GPL-2.0
//! Packing against a plain model: order, search bounds, round trips, format calculation.

use std::cmp::Ordering;

use bcachefs_format::bkey::{Bversion, KeyType};
use bcachefs_format::bset::PackedRef;
use bcachefs_format::packed::{FormatCalc, SearchPos};
use bcachefs_format::{Bkey, BkeyFormat, Bpos};

use super::random::Random;

/// The unpacked width of each field.
const WIDTHS: [u8; 6] = [64, 64, 32, 32, 32, 64];

fn random_format(r: &mut Random) -> BkeyFormat {
    loop {
        let mut bits = [0u8; 6];
        let mut offset = [0u64; 6];
        for i in 0..6 {
            let w = u32::from(WIDTHS[i]);
            bits[i] = match r.below(4) {
                0 => 0,
                1 => w as u8,
                _ => r.below(w as usize + 1) as u8,
            };
            let max = u64::MAX >> (64 - w);
            let top = if bits[i] == 0 {
                max
            } else {
                max - (u64::MAX >> (64 - u32::from(bits[i])))
            };
            offset[i] = match u32::from(bits[i]) == w {
                true => 0,
                false => r.number(w).min(top),
            };
        }
        // Rejects the few whose fields do not fit five words with the header.
        if let Ok(f) = BkeyFormat::new(bits, offset) {
            if f.key_u64s() <= 5 {
                return f;
            }
        }
    }
}

/// A value of field `i`, near the range that the format can hold more often than not.
fn near(r: &mut Random, f: &BkeyFormat, i: usize) -> u64 {
    let max = u64::MAX >> (64 - u32::from(WIDTHS[i]));
    let bits = u32::from(f.bits()[i]);
    let span = if bits == 0 {
        0
    } else {
        u64::MAX >> (64 - bits)
    };
    let o = f.offsets()[i];
    let v = match r.below(8) {
        0 => o,
        1 => o.wrapping_add(span),
        2 => o.wrapping_add(span).wrapping_add(1),
        3 => o.wrapping_sub(1),
        4 => r.number(u32::from(WIDTHS[i])),
        _ => o.wrapping_add(r.next() & span),
    };
    v & max
}

fn random_key(r: &mut Random, f: &BkeyFormat) -> Bkey {
    Bkey {
        u64s: 5 + r.below(4) as u8,
        key_type: KeyType(r.below(35) as u8),
        needs_whiteout: false,
        pos: Bpos::with_snapshot(near(r, f, 0), near(r, f, 1), near(r, f, 2) as u32),
        size: near(r, f, 3) as u32,
        version: Bversion {
            hi: near(r, f, 4) as u32,
            lo: near(r, f, 5),
        },
    }
}

/// Whether the format can hold all fields of the key.
fn fits(f: &BkeyFormat, k: &Bkey) -> bool {
    let fields = [
        k.pos.inode,
        k.pos.offset,
        k.pos.snapshot.into(),
        k.size.into(),
        k.version.hi.into(),
        k.version.lo,
    ];
    (0..6).all(|i| {
        let bits = u32::from(f.bits()[i]);
        let span = if bits == 0 {
            0
        } else {
            u64::MAX >> (64 - bits)
        };
        fields[i]
            .checked_sub(f.offsets()[i])
            .is_some_and(|s| s <= span)
    })
}

fn with_value(header: &[u64], u64s: usize) -> Vec<u64> {
    let mut w = header.to_vec();
    w.resize(u64s, !0);
    w
}

#[test]
fn pack_is_exact_and_ordered() {
    let mut r = Random::new(1);
    let (mut packed_nr, mut compared) = (0, 0);
    for _ in 0..400 {
        let f = random_format(&mut r);
        assert_eq!(BkeyFormat::from_disk(&f.to_disk()), Ok(f));
        let mut keys: Vec<(Bkey, Vec<u64>)> = Vec::new();
        for _ in 0..60 {
            let k = random_key(&mut r, &f);
            let packed = f.pack(&k);
            assert_eq!(packed.is_some(), fits(&f, &k), "{f} {k}");
            let Some(p) = packed else { continue };
            let words = with_value(
                p.words(),
                usize::from(f.key_u64s()) + usize::from(k.value_u64s()),
            );
            let back = PackedRef::at(&words, 0, &f).unwrap();
            assert_eq!(back.header(&f), k, "{f}");
            assert_eq!(back.pos(&f), k.pos);
            packed_nr += 1;
            keys.push((k, words));
        }
        for (a, aw) in &keys {
            for (b, bw) in &keys {
                let want = a.pos.cmp(&b.pos);
                assert_eq!(f.cmp_packed(aw, bw), want, "{f} {a} {b}");
                assert_eq!(f.pos_words(aw).cmp(&f.pos_words(bw)), want);
                assert_eq!(f.cmp_pos(aw, b.pos), want);
                // An unpacked key of the same position compares alike.
                let unpacked = with_value(&b.to_words(), b.u64s.into());
                let b_ref = PackedRef::at(&unpacked, 0, &f).unwrap();
                assert_eq!(b_ref.header(&f), *b);
                let a_ref = PackedRef::at(aw, 0, &f).unwrap();
                assert_eq!(a_ref.cmp(&b_ref, &f), want);
                assert_eq!(b_ref.cmp(&a_ref, &f), want.reverse());
                compared += 1;
            }
        }
    }
    assert!(
        packed_nr > 3000 && compared > 50_000,
        "{packed_nr} {compared}"
    );
}

#[test]
fn search_finds_the_place() {
    let mut r = Random::new(2);
    let mut seen = [0usize; 3];
    let mut inexact = 0;
    for _ in 0..600 {
        let f = random_format(&mut r);
        let keys: Vec<(Bpos, Vec<u64>)> = (0..40)
            .filter_map(|_| {
                let k = Bkey {
                    u64s: 5,
                    ..random_key(&mut r, &f)
                };
                Some((k.pos, f.pack(&k)?.words().to_vec()))
            })
            .collect();
        for _ in 0..40 {
            let mut pos = random_key(&mut r, &f).pos;
            if r.below(3) == 0 && !keys.is_empty() {
                let near = keys[r.below(keys.len())].0;
                pos = match r.below(3) {
                    0 => near,
                    1 => near.successor().unwrap_or(near),
                    _ => near.predecessor().unwrap_or(near),
                };
            }
            let search = SearchPos::new(&f, pos);
            inexact += usize::from(!search.is_exact());
            for (key, words) in &keys {
                let want = key.cmp(&pos);
                assert_eq!(search.cmp_key(&f, words), want, "{f} key {key} pos {pos}");
                if let Some(bound) = search.bound_words() {
                    // The bound is the highest packed position that is not above.
                    let above = f.pos_words(words) > bound;
                    assert_eq!(above, want == Ordering::Greater);
                } else {
                    assert_eq!(want, Ordering::Greater);
                }
                seen[(want as i8 + 1) as usize] += 1;
            }
        }
    }
    assert!(seen.iter().all(|n| *n > 500), "{seen:?}");
    assert!(inexact > 5000, "{inexact}");
}

#[test]
fn calculated_formats_hold_their_keys() {
    let mut r = Random::new(3);
    for _ in 0..2000 {
        let like = random_format(&mut r);
        let keys: Vec<Bkey> = (0..1 + r.below(20))
            .map(|_| Bkey {
                version: Bversion::ZERO,
                ..random_key(&mut r, &like)
            })
            .collect();
        let mut calc = FormatCalc::new();
        keys.iter().for_each(|k| calc.add_key(k));
        let f = calc.finish();
        assert_eq!(BkeyFormat::from_disk(&f.to_disk()), Ok(f), "invalid {f}");
        for k in &keys {
            assert!(f.pack(k).is_some(), "{f} {k}");
        }
    }
    // Nothing added: still valid.
    let f = FormatCalc::new().finish();
    assert_eq!(BkeyFormat::from_disk(&f.to_disk()), Ok(f));
}

#[test]
fn bad_formats_are_refused() {
    let good = BkeyFormat::new([16, 8, 32, 16, 0, 0], [0; 6]).unwrap();
    let bad = |change: &dyn Fn(&mut bcachefs_format::packed::DiskBkeyFormat)| {
        let mut d = good.to_disk();
        change(&mut d);
        BkeyFormat::from_disk(&d).unwrap_err()
    };
    assert_eq!(bad(&|d| d.nr_fields = 5).offset, 1);
    assert_eq!(bad(&|d| d.key_u64s = 3).offset, 0);
    assert_eq!(bad(&|d| d.bits_per_field[2] = 33).offset, 4);
    assert_eq!(bad(&|d| d.field_offset[2].set(1)).offset, 24);
    assert_eq!(bad(&|d| d.field_offset[0].set(u64::MAX)).offset, 8);
    assert_eq!(bad(&|d| d.field_offset[3].set(0xffff_ffff)).offset, 32);
}

#[test]
fn positions() {
    let mut r = Random::new(4);
    for _ in 0..10_000 {
        let p = Bpos::with_snapshot(r.number(64), r.number(64), r.number(32) as u32);
        match p.successor() {
            Some(s) => {
                assert!(s > p);
                assert_eq!(s.predecessor(), Some(p));
            }
            None => assert_eq!(p, Bpos::SPOS_MAX),
        }
        match p.nosnap_successor() {
            Some(s) => {
                assert!(s > p && s.snapshot == 0);
                assert_eq!(s.nosnap_predecessor(), Some(p.at_snapshot(0)));
            }
            None => assert!(p.eq_nosnap(Bpos::POS_MAX)),
        }
    }
    assert_eq!(Bpos::POS_MIN.predecessor(), None);
    assert_eq!(Bpos::SPOS_MAX.to_string(), "SPOS_MAX");
    assert_eq!(Bpos::new(1, 2).to_string(), "1:2:0");
}
