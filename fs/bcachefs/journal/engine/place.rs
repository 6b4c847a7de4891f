// SPDX-License-Identifier: GPL-2.0
//! Where on the devices an entry goes.

use super::{
    ring::{Ring, Spot},
    slot::COPIES_MAX,
};

/// Chooses places for entry `seq` of `sectors` sectors: up to `want` copies, on different devices, with at least `need`. Devices
/// take turns; those whose bucket is full go on to the next one only if the others do not suffice. `None` if there is no room for `need`
/// copies; nothing has been taken then.
pub(super) fn place(
    rings: &mut [Ring],
    seq: u64,
    sectors: u32,
    want: usize,
    need: usize,
) -> Option<[Option<Spot>; COPIES_MAX]> {
    let want = want.clamp(1, COPIES_MAX);
    // Devices as a mask of indices.
    let mut chosen = 0u64;
    let mut copies = 0usize;
    let mut nr = 0;
    for advance in [false, true] {
        while copies < want && nr < COPIES_MAX {
            let mut best: Option<(u64, usize)> = None;
            for (at, ring) in rings.iter_mut().enumerate() {
                if chosen >> at & 1 != 0 || at >= 64 {
                    continue;
                }
                let fits = ring.fits(sectors);
                if (fits || advance) && best.is_none_or(|best| ring.written < best.0) {
                    // Only who is asked last can tell whether it has another bucket.
                    if fits || ring.next_bucket(sectors) {
                        best = Some((ring.written, at));
                    }
                }
            }
            let Some((_, at)) = best else { break };
            chosen |= 1 << at;
            nr += 1;
            copies += rings.get(at).map_or(0, |ring| usize::from(ring.durability));
        }
    }
    if copies < need.max(1) {
        return None;
    }
    let mut spots = [None; COPIES_MAX];
    let mut free = spots.iter_mut();
    for (at, ring) in rings.iter_mut().enumerate().take(64) {
        if chosen >> at & 1 != 0 {
            if let Some(place) = free.next() {
                *place = ring.take(sectors, seq);
            }
        }
    }
    Some(spots)
}

#[cfg(bcachefs_kunit)]
#[kernel::macros::kunit_tests(bcachefs_journal_place)]
mod tests {
    use super::*;
    use kernel::prelude::*;

    fn rings(nr: u8) -> Result<KVec<Ring>> {
        let mut rings = KVec::new();
        for device in 0..nr {
            let mut buckets = KVVec::new();
            for b in 0..4 {
                buckets.push(b, GFP_KERNEL)?;
            }
            let mut ring = Ring::new(device, 16, buckets, &[], 0, 0).map_err(|e| e.errno())?;
            ring.advance(1, 1);
            rings.push(ring, GFP_KERNEL)?;
        }
        Ok(rings)
    }

    fn devices(spots: Option<[Option<Spot>; COPIES_MAX]>) -> u32 {
        let spots = spots.unwrap_or_default();
        spots.iter().flatten().fold(0, |mask, s| mask | 1 << s.device)
    }

    #[test]
    fn devices_take_turns() -> Result {
        let mut r = rings(3)?;
        assert_eq!(devices(place(&mut r, 1, 4, 1, 1)), 1);
        assert_eq!(devices(place(&mut r, 2, 4, 1, 1)), 2);
        assert_eq!(devices(place(&mut r, 3, 4, 2, 1)), 5);
        // The first has written 8 by now.
        assert_eq!(devices(place(&mut r, 4, 4, 2, 1)), 6);
        Ok(())
    }

    #[test]
    fn full_devices_go_on_or_are_done_without() -> Result {
        let mut r = rings(2)?;
        let mut written = 0;
        while place(&mut r, written + 1, 12, 2, 2).is_some() {
            written += 1;
        }
        // Four buckets less the one kept.
        assert_eq!(written, 3);
        assert_eq!(devices(place(&mut r, 9, 12, 2, 1)), 0);
        assert_eq!(devices(place(&mut r, 9, 4, 2, 2)), 3);
        // What needs fewer copies than it wants gets what there is.
        if let Some(ring) = r.get_mut(1) {
            ring.advance(20, 20);
        }
        assert_eq!(devices(place(&mut r, 10, 12, 2, 1)), 2);
        assert_eq!(devices(place(&mut r, 10, 12, 2, 2)), 0);
        assert_eq!(devices(place(&mut r, 10, 17, 1, 1)), 0);
        Ok(())
    }

    #[test]
    fn durable_devices_count_more() -> Result {
        let mut r = rings(3)?;
        for ring in r.iter_mut() {
            ring.durability = 2;
        }
        assert_eq!(devices(place(&mut r, 1, 4, 2, 1)), 1);
        assert_eq!(devices(place(&mut r, 1, 4, 3, 1)), 6);
        Ok(())
    }
}
