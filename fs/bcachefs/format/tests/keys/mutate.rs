// SPDX-License-Identifier: GPL-2.0
//! Nothing that is made of a key, however damaged, panics or runs on.
//!
//! `BCACHEFS_MUTATIONS` sets how many damaged keys are tried.

use bcachefs_format::keys::extent::cut::{cut_back, cut_front};
use bcachefs_format::keys::{self, DeviceGeometry, Devices, KeyText, ValidateCtx, Value};
use bcachefs_format::{BtreeId, KeyType};
use std::fmt::Write;

use super::generate;
use super::owned::Owned;
use super::rng::Rng;

/// Devices of many shapes, broken ones among them.
struct Zoo;

impl Devices for Zoo {
    fn geometry(&self, dev: u8) -> Option<DeviceGeometry> {
        (dev % 3 != 0).then(|| DeviceGeometry {
            first_bucket: u64::from(dev % 5),
            nbuckets: 1 << (dev % 40),
            bucket_size: u32::from(dev % 7) * 128,
        })
    }
}

/// Counts what is printed, so that printing is bounded too.
struct Sink(usize);

impl Write for Sink {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        self.0 += s.len();
        Ok(())
    }
}

fn damage(r: &mut Rng, key: &mut Owned) {
    for _ in 0..r.range(1, 4) {
        match r.below(8) {
            0 => key.key.key_type = KeyType(r.below(40) as u8),
            1 => key.key.size = r.magnitude(32) as u32,
            2 => key.key.pos.offset = r.magnitude(64),
            3 => key.key.pos.inode = r.magnitude(64),
            4 => {
                let len = r.below(key.value.len() as u64 + 2) as usize;
                let fill = r.next();
                key.value.resize(len, fill);
                key.key.u64s = 5 + len as u8;
            }
            5 => key.btree = BtreeId(r.below(24) as u8),
            _ if !key.value.is_empty() => {
                let n = key.value.len() as u64;
                let word = &mut key.value[r.below(n) as usize];
                *word = match r.below(3) {
                    0 => *word ^ (1 << r.below(64)),
                    1 => r.next(),
                    _ => r.magnitude(64),
                };
            }
            _ => key.key.u64s = r.next() as u8,
        }
    }
}

fn exercise(r: &mut Rng, key: &Owned) {
    let zoo = Zoo;
    let ctx = ValidateCtx {
        devices: Some(&zoo),
        btree_node_sectors: 512,
        encoded_extent_max: 128,
        ..ValidateCtx::COMMIT
    };
    let k = key.as_ref();
    let commit = keys::validate(k, key.btree, key.level, &ctx);
    let read = keys::validate(k, key.btree, key.level, &ValidateCtx::READ);
    // The rules for writers only ever add to those for readers.
    assert!(commit.is_err() || read.is_ok(), "{}", KeyText(k));
    let mut sink = Sink(0);
    write!(sink, "{}", KeyText(k)).unwrap();
    if let Err(e) = commit {
        write!(sink, "{e}").unwrap();
        assert!(!e.what.is_empty());
    }
    assert!(sink.0 < 100_000);
    // Whatever passes can be decoded.
    let value = keys::parse(k);
    assert!(read.is_err() || value.is_ok());
    match value {
        Ok(Value::Extent(e)) => {
            assert!(e.ptrs().count() <= key.value.len());
            for p in e.ptrs() {
                let _ = (p.live_sector(), p.crc.disk_sectors(), p.crc.smallest_kind());
            }
        }
        Ok(Value::ReflinkV(e)) => assert!(e.ptrs().count() <= key.value.len()),
        Ok(Value::Stripe(s)) => {
            for b in 0..=s.nr_blocks() {
                let _ = s.csum(b, r.below(300) as usize);
            }
        }
        Ok(Value::Xattr(x)) => {
            if let Some(Ok(acl)) = x.acl() {
                assert!(acl.entries().count() <= x.value.len());
            }
        }
        _ => {}
    }
    let mut cut = key.clone();
    let start = cut.key.start_offset();
    let at = start.saturating_add(r.magnitude(34));
    if cut_front(&mut cut.key, &mut cut.value, at).is_ok() && read.is_ok() {
        assert!(cut.key.u64s <= key.key.u64s);
    }
    let mut cut = key.clone();
    let at = start.saturating_add(r.magnitude(34));
    let _ = cut_back(&mut cut.key, &mut cut.value, at);
}

#[test]
fn damaged_keys_do_no_harm() {
    let n: u64 = std::env::var("BCACHEFS_MUTATIONS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(20_000);
    let mut refused = 0;
    for seed in 0..n {
        let mut r = Rng::new(seed);
        let mut key = generate::any(&mut r);
        damage(&mut r, &mut key);
        let bad = keys::validate(key.as_ref(), key.btree, key.level, &ValidateCtx::READ).is_err();
        refused += u64::from(bad);
        exercise(&mut r, &key);
    }
    // The mutations do reach the rules.
    assert!(refused > n / 4, "{refused} of {n} refused");
}

#[test]
fn random_words_do_no_harm() {
    let mut r = Rng::new(4);
    for _ in 0..20_000 {
        let len = r.below(12) as usize;
        let value = (0..len).map(|_| r.magnitude(64)).collect();
        let mut key = generate::any(&mut r);
        key.value = value;
        key.key.u64s = 5 + len as u8;
        key.key.key_type = KeyType(r.below(36) as u8);
        exercise(&mut r, &key);
    }
}
