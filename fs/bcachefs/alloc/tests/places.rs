// SPDX-License-Identifier: GPL-2.0
//! Which buckets are given out.

use super::{
    check,
    fixture::{buckets, full, node, whole, Dev, Fixture, Keys, BUCKET, DEV, FLUSHED, NBUCKETS, NODE},
};
use crate::{
    alloc::{request::AllocRequest, write_points::WritePointSpec, DeviceSet, Placed},
    btree::space::SpaceError,
    util::{
        error::{Error, Result},
        watermark::Watermark,
    },
};
use bcachefs_format::{
    keys::{alloc::Alloc, data_type::DataType},
    sb::Target,
};
use kernel::prelude::*;

/// Target numbers of devices.
fn target(dev: u16) -> Target {
    Target(1 + dev)
}

/// Takes whole buckets until there are no more.
fn take_all(f: &Fixture, req: &AllocRequest) -> Result<(KVec<Placed>, KVec<(u8, u64)>)> {
    let (mut places, mut all) = (KVec::new(), KVec::new());
    while let Ok(p) = f.ask(req)? {
        for b in buckets(&p) {
            all.push(b, GFP_KERNEL)?;
        }
        places.push(p, GFP_KERNEL)?;
    }
    all.sort_unstable();
    Ok((places, all))
}

pub(super) fn free_buckets_only() -> Result {
    let mut keys = Keys::new();
    keys.free(0, 10, 20, 0)?;
    keys.free(0, 30, 31, 0)?;
    keys.free(0, 1000, NBUCKETS, 0)?;
    // Not free, to be waited for, and free although there is a key.
    keys.alloc(0, 12, &full())?;
    keys.alloc(0, 13, &Alloc { journal_seq: FLUSHED + 1, ..Alloc::default() })?;
    keys.alloc(0, 14, &Alloc { journal_seq: FLUSHED, generation: 9, oldest_gen: 9, ..Alloc::default() })?;
    // Not as far ahead as its place says.
    keys.alloc(0, 15, &Alloc { generation: 40, oldest_gen: 9, ..Alloc::default() })?;
    let f = Fixture::new(&[DEV], keys, 500)?;
    f.allocator.bucket_changed(
        0,
        16,
        &full(),
        &Alloc { data_type: DataType::FREE, journal_seq: FLUSHED + 5, ..Alloc::default() },
    );
    let (places, got) = take_all(&f, &whole(1))?;
    let want = [10, 11, 14, 17, 18, 19, 30, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007];
    check!(got.iter().map(|b| b.1).eq(want));
    for p in &places {
        for ptr in p.ptrs.iter().take(p.nr.into()) {
            let generation = if ptr.offset() / u64::from(BUCKET) == 14 { 9 } else { 0 };
            check!(ptr.generation() == generation && !ptr.cached());
        }
    }
    check!(f.is_blocked(&whole(1))?);
    // What is not used after all is free again; nothing was committed.
    drop(places);
    check!(take_all(&f, &whole(2))?.1.len() == want.len());
    Ok(())
}

pub(super) fn before_there_are_keys() -> Result {
    let mut keys = Keys::new();
    keys.alloc(0, 3, &full())?;
    keys.alloc(0, 5, &Alloc::default())?;
    let f = Fixture::new(&[Dev { freespace: false, ..DEV }], keys, 2 * NBUCKETS)?;
    let mut got = KVec::new();
    let mut places = KVec::new();
    for _ in 0..6 {
        let p = f.place(&whole(1))?;
        got.push(buckets(&p).next().map_or(0, |b| b.1), GFP_KERNEL)?;
        places.push(p, GFP_KERNEL)?;
    }
    // Data keeps away from where nodes may be.
    check!(got.iter().copied().eq(64..70));
    check!(buckets(&f.place(&node())?).eq([(0, 1)]));
    drop(places);
    let all = take_all(&f, &AllocRequest { watermark: Watermark::InteriorUpdates, ..whole(1) })?;
    // All but the first, the last sixteen, the full one, and the one that nodes are in.
    check!(all.1.len() as u64 == NBUCKETS - 1 - 16 - 1 - 1);
    Ok(())
}

pub(super) fn generations_part_the_search() -> Result {
    let mut keys = Keys::new();
    keys.free(0, 40, 42, 2)?;
    keys.free(0, 50, 52, 0)?;
    for b in [40, 41] {
        keys.alloc(0, b, &Alloc { generation: 33, ..Alloc::default() })?;
    }
    let f = Fixture::new(&[DEV], keys, 500)?;
    let mut order = KVec::new();
    let mut places = KVec::new();
    for _ in 0..4 {
        let p = f.place(&whole(1))?;
        order.push(buckets(&p).next().map_or(0, |b| b.1), GFP_KERNEL)?;
        places.push(p, GFP_KERNEL)?;
    }
    // Those that were not reused as often come first.
    check!(order.as_slice() == [50, 51, 40, 41]);
    check!(f.is_blocked(&whole(1))?);
    Ok(())
}

pub(super) fn oldest_pointers_are_found() -> Result {
    let gens = core::array::from_fn(|bucket| bucket as u8);
    let mut keys = Keys::new();
    keys.gens(0, &gens)?;
    for (inode, bucket, generation) in [(10, 20, 15), (11, 20, 12), (12, 20, 19), (13, 21, 21)] {
        keys.extent(inode, 0, bucket, generation)?;
    }
    // A device that is not there, and a bucket that is not.
    keys.extent(14, 9, 20, 0)?;
    keys.extent(15, 0, NBUCKETS + 5, 0)?;
    let f = Fixture::new(&[DEV], keys, 500)?;
    check!(f.allocator.generation(0, 20) == Some(20) && f.allocator.generation(0, NBUCKETS).is_none());
    let oldest = f.allocator.gens.oldest(&f.btree)?;
    let oldest = oldest.first().ok_or(Error::NoMem)?;
    check!(oldest.get(20) == Some(12) && oldest.get(21) == Some(21) && oldest.get(22) == Some(22));
    f.allocator.bucket_changed(0, 22, &full(), &Alloc { generation: 23, ..Alloc::default() });
    check!(f.allocator.generation(0, 22) == Some(23) && oldest.get(22) == Some(22));
    Ok(())
}

pub(super) fn copies_on_different_devices() -> Result {
    let three = [DEV, DEV, Dev { durability: 0, ..DEV }];
    let mut keys = Keys::new();
    for dev in 0..3 {
        keys.free(dev, 10, 900, 0)?;
    }
    let f = Fixture::new(&three, keys, 800)?;
    let two = AllocRequest { replicas: 2, required: 1, ..node() };
    let mut places = KVec::new();
    for _ in 0..64 {
        let p = f.place(&two)?;
        let mut set = DeviceSet::NONE;
        buckets(&p).for_each(|(dev, _)| set.add(dev));
        // Never where it would not count.
        check!(p.nr == 2 && set == DeviceSet(0b11) && p.sectors == u32::from(NODE));
        places.push(p, GFP_KERNEL)?;
    }
    // More copies than devices: as many as there are, if that is enough.
    let p = f.place(&AllocRequest { replicas: 3, required: 2, ..node() })?;
    check!(p.nr == 2);
    let e = f.ask(&AllocRequest { replicas: 3, required: 3, ..node() })?;
    check!(matches!(e, Err(SpaceError::Failed(Error::DevicesInsufficient))));
    // One has it already.
    let p = f.place(&AllocRequest { have: DeviceSet::one(1), ..whole(7) })?;
    check!(buckets(&p).all(|b| b.0 != 1));
    Ok(())
}

pub(super) fn targets_first() -> Result {
    let three = [DEV, DEV, Dev { durability: 0, ..DEV }];
    let mut keys = Keys::new();
    keys.free(0, 10, 900, 0)?;
    keys.free(1, 10, 12, 0)?;
    keys.free(2, 10, 900, 0)?;
    let f = Fixture::new(&three, keys, 800)?;
    let on_1 = AllocRequest { target: target(1), ..whole(1) };
    let (a, b) = (f.place(&on_1)?, f.place(&on_1)?);
    check!([&a, &b].into_iter().flat_map(buckets).all(|b| b.0 == 1));
    // It is full: elsewhere, but not where it would not count.
    let c = f.place(&on_1)?;
    check!(buckets(&c).all(|b| b.0 == 0));
    let e = f.ask(&AllocRequest { only_target: true, ..on_1 })?;
    check!(matches!(e, Err(SpaceError::Failed(Error::NoSpace))));
    // A copy for reading in the target, and one that counts elsewhere.
    let p = f.place(&AllocRequest { target: target(2), ..whole(2) })?;
    check!(p.nr == 2);
    for ptr in p.ptrs.iter().take(2) {
        check!(ptr.cached() == (ptr.dev() == 2));
    }
    Ok(())
}

pub(super) fn write_points_keep_apart() -> Result {
    let mut keys = Keys::new();
    keys.free(0, 10, 900, 0)?;
    let f = Fixture::new(&[DEV], keys, 800)?;
    let part = |key| AllocRequest { sectors: 24, sectors_min: 1, ..whole(key) };
    let mut places = KVec::new();
    let mut at = [(0u64, 0u32); 6];
    // Two writers in turns.
    for (i, slot) in at.iter_mut().enumerate() {
        let p = f.place(&part(2 + 2 * (i as u64 % 2)))?;
        *slot = (p.ptrs.first().map_or(0, |ptr| ptr.offset()), p.sectors);
        places.push(p, GFP_KERNEL)?;
    }
    let [a1, b1, a2, b2, a3, b3] = at;
    for [x, y, z] in [[a1, a2, a3], [b1, b2, b3]] {
        check!(x.0 % u64::from(BUCKET) == 0 && x.1 == 24);
        check!(y == (x.0 + 24, 24));
        // What is left of the bucket, though it is less than asked for.
        check!(z == (x.0 + 48, 16));
    }
    check!(a1.0 != b1.0);
    check!(f.allocator.nr_open(0) == 2);
    // Both buckets are used up: when the writes have ended, nothing is open any more.
    drop(places);
    check!(f.allocator.nr_open(0) == 0);
    Ok(())
}

pub(super) fn nodes_never_span_buckets() -> Result {
    let mut keys = Keys::new();
    keys.free(0, 10, 900, 0)?;
    // Only the second quarter of the device is known to have nodes.
    let f = Fixture::new(&[Dev { map: (10, 0xffff_0000), ..DEV }], keys, 800)?;
    let odd = AllocRequest { sectors: 24, sectors_min: 24, ..node() };
    let mut places = KVec::new();
    for _ in 0..20 {
        let p = f.place(&odd)?;
        let at = p.ptrs.first().map_or(0, |ptr| ptr.offset());
        check!(at % u64::from(BUCKET) <= 24 && p.sectors == 24);
        check!((16 << 10..32 << 10).contains(&at));
        places.push(p, GFP_KERNEL)?;
    }
    // Two in each bucket, the rest of which is lost.
    check!(f.allocator.nr_open(0) == 10);
    let p = f.place(&whole(1))?;
    check!(buckets(&p).all(|b| !(256..512).contains(&b.1)));
    Ok(())
}

pub(super) fn urgent_ones_dig_deeper() -> Result {
    let mut keys = Keys::new();
    keys.free(0, 100, 200, 0)?;
    // 28 nodes fill four buckets; 1/64 is sixteen.
    let f = Fixture::new(&[DEV], keys, 26)?;
    let mut places = KVec::new();
    let mut left = KVec::new();
    for w in Watermark::ALL {
        let req = AllocRequest { watermark: w, ..whole(1) };
        let mut got = 0u32;
        while let Ok(p) = f.ask(&req)? {
            got += 1;
            places.push(p, GFP_KERNEL)?;
        }
        left.push(got, GFP_KERNEL)?;
    }
    // Reserves are 40, 24, 8, 4, 0, 0, 0 of the 26.
    check!(left.as_slice() == [0, 2, 16, 4, 4, 0, 0]);
    Ok(())
}

pub(super) fn removed_devices_are_left() -> Result {
    let mut keys = Keys::new();
    keys.free(0, 10, 900, 0)?;
    keys.free(1, 10, 900, 0)?;
    let f = Fixture::new(&[DEV, DEV], keys, 800)?;
    let part = |key| AllocRequest { sectors: 8, sectors_min: 1, replicas: 2, ..whole(key) };
    let busy = f.place(&part(1))?;
    drop(f.place(&part(2))?);
    check!(f.allocator.nr_open(0) == 2 && f.allocator.nr_open(1) == 2);
    let before = f.allocator.usage().capacity;
    f.allocator.remove_device(1);
    check!(f.allocator.usage().capacity < before);
    // One is being written to.
    check!(f.allocator.nr_open(1) == 1);
    let p = f.place(&part(1))?;
    check!(p.nr == 1 && buckets(&p).all(|b| b.0 == 0));
    drop(busy);
    check!(f.allocator.nr_open(1) == 0);
    f.allocator.add_device(1);
    check!(f.allocator.usage().capacity == before && f.place(&part(1))?.nr == 2);
    drop(p);
    f.allocator.stop();
    check!(f.allocator.nr_open(0) == 0 && f.allocator.nr_open(1) == 0);
    let e = f.ask(&AllocRequest { point: WritePointSpec::Copygc, ..whole(1) })?;
    check!(matches!(e, Err(SpaceError::Failed(Error::AllocatorStopped))));
    Ok(())
}
