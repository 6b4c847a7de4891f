// SPDX-License-Identifier: GPL-2.0
//! What is needed stays; room is made; and there is an end to waiting for it.

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, SetOnce,
    },
};

use super::super::{
    pins::{Pin, PinKind},
    reserve::Blocked,
    ring::Ring,
    state::Core,
    PinFlush, PinFlusher,
};
use super::{
    check,
    order::{commit, until},
    world::{config, journal, rings, Client, Lazy, World, BUCKET},
};
use crate::util::{
    error::{Error, Result},
    watermark::Watermark,
};

pub(super) fn set_flusher(core: &Core, kind: PinKind, flusher: Arc<dyn PinFlusher>) {
    if let Some(place) = core.owners.lock().flushers.get_mut(kind as usize) {
        *place = Some(flusher);
    }
}

pub(super) fn hold(core: &Core, pin: &Arc<Pin>, seq: u64) {
    if pin.seq().is_none_or(|held| held > seq) {
        core.inner.lock().pins.hold(pin, seq);
    }
}

pub(super) fn release(core: &Core, pin: &Arc<Pin>) {
    let mut i = core.inner.lock();
    Core::pin_changes(&mut i, pin);
    i.pins.release(pin);
    core.pop_pins(&mut i);
    core.room.notify_all();
}

/// Lets go of the pin it is asked for.
struct Eager {
    core: SetOnce<Arc<Core>>,
    pins: KVec<Arc<Pin>>,
    flushed: Atomic<u32>,
    busy: Atomic<u32>,
}

impl PinFlusher for Eager {
    fn flush(&self, cookie: u64, _seq: u64) -> PinFlush {
        if self.busy.load(Relaxed) > 0 {
            self.busy.add(u32::MAX, Relaxed);
            return PinFlush::Busy;
        }
        self.flushed.add(1, Relaxed);
        if let (Some(core), Some(pin)) = (self.core.as_ref(), self.pins.get(cookie as usize)) {
            release(core, pin);
        }
        PinFlush::Done
    }
}

const PINS: u64 = 16;

/// Many laps round a small ring, everything pinned.
pub(super) fn reclaims() -> Result {
    let (world, client) = (World::new(1, 8, false)?, Client::new()?);
    let core = journal(config(1), &world, 8, &client)?;
    let mut pins = KVec::new();
    for n in 0..PINS {
        pins.push(Pin::new(PinKind::Btree, n, GFP_KERNEL)?, GFP_KERNEL)?;
    }
    let mut copies = KVec::new();
    for pin in pins.iter() {
        copies.push(pin.clone(), GFP_KERNEL)?;
    }
    let flusher = Arc::new(
        Eager {
            core: SetOnce::new(),
            pins: copies,
            flushed: Atomic::new(0),
            busy: Atomic::new(5),
        },
        GFP_KERNEL,
    )?;
    flusher.core.populate(core.clone());
    set_flusher(&core, PinKind::Btree, flusher.clone());
    for n in 0..4000u64 {
        let seq = commit(&core, 0, n)?;
        let Some(pin) = pins.get((n % PINS) as usize) else { continue };
        hold(&core, pin, seq);
        if n % 3 == 0 {
            core.flush(seq)?;
        }
    }
    check!(flusher.flushed.load(Relaxed) > 50);
    check!(world.state.lock().log.len() > 500);
    // A pass over all of them, and then there are none.
    core.inner.lock().pins.held();
    if let Some(pin) = pins.first() {
        hold(&core, pin, commit(&core, 0, 9)?);
    }
    check!(core.flush_pins(u64::MAX)?);
    check!(core.inner.lock().pins.held() == 0);
    check!(!core.flush_pins(u64::MAX)?);
    check!(core.stop()? >= 1000);
    core.owners.lock().flushers = [const { None }; 3];
    Ok(())
}

/// Nothing is ever let go of.
pub(super) fn stuck() -> Result {
    for answer in [PinFlush::Done, PinFlush::Busy, PinFlush::Stop] {
        let (world, client) = (World::new(1, 8, false)?, Client::new()?);
        let core = journal(config(1), &world, 8, &client)?;
        set_flusher(&core, PinKind::Other, Arc::new(Lazy(answer), GFP_KERNEL)?);
        let pin = Pin::new(PinKind::Other, 1, GFP_KERNEL)?;
        let mut last = 0;
        let mut acked = 0;
        let begun = core.now();
        let error = loop {
            match commit(&core, 0, last) {
                Ok(seq) => {
                    hold(&core, &pin, seq);
                    if core.flush(seq).is_ok() {
                        acked = last;
                    }
                    last += 1;
                }
                Err(e) => break e,
            }
            check!(last < 100_000);
        };
        check!(error == Error::JournalFailed);
        // After the time that was set for it, and not much later.
        check!((300..3000).contains(&(core.now() - begun)));
        check!(until(|| client.failed.load(Relaxed) == 1));
        check!(core.inner.lock().failed == Some(Error::JournalStuck));
        check!(core.flush_pins(1).is_err());
        // Low on room, users have to wait long before those who make room have none.
        check!(core.reserve(1, Watermark::Normal).err() == Some(Blocked::Failed));
        let keys = world.crash(0)?.keys()?;
        check!(keys.len() as u64 == acked + 1);
        check!(core.stop().is_err());
    }
    Ok(())
}

pub(super) fn replay() -> Result {
    let (world, client) = (World::new(1, 8, false)?, Client::new()?);
    // Entries 10..20 are needed: in the buckets behind the newest, 3, two each; entries up to 27 were lost.
    let mut buckets = KVVec::new();
    for b in 0..8 {
        buckets.push(b, GFP_KERNEL)?;
    }
    let seqs = [14, 16, 18, 19, 0, 9, 10, 12];
    let mut ring = KVec::new();
    ring.push(Ring::new(0, BUCKET as u32, buckets, &seqs, 3, 20)?, GFP_KERNEL)?;
    let core = Core::make(config(1), world.clone(), ring, 10, 28, client)?;
    check!(core.cur_seq.load(Relaxed) == 27 && core.flushed_seq.load(Relaxed) == 27);
    check!(core.reserve(1, Watermark::InteriorUpdates).err() == Some(Blocked::Failed));
    core.start()?;
    core.flush(27)?;
    core.meta()?;
    let first = world.state.lock().log.first().copied();
    check!(first.is_some_and(|l| l.seq == 28 && l.sector == 3 * BUCKET as u64 + 20));
    // Nothing older is let go of by itself.
    check!(core.last_seq.load(Relaxed) == 10);
    check!(core.lowest() == Watermark::Reclaim as u32);
    check!(!core.flush_pins(u64::MAX)?);
    for _ in 0..60 {
        core.meta()?;
        check!(world.state.lock().log.iter().all(|l| !(6..8).contains(&(l.sector as usize / BUCKET))));
        let i = core.inner.lock();
        // The last bucket but one.
        if i.space.discarded.total < 20 {
            break;
        }
    }
    core.inner.lock().pins.replayed(15, u64::MAX);
    core.pop_pins(&mut core.inner.lock());
    check!(core.last_seq.load(Relaxed) == 15);
    for _ in 0..100 {
        core.meta()?;
        check!(world.state.lock().log.iter().all(|l| l.sector as usize / BUCKET != 1));
        if core.inner.lock().space.discarded.total < 20 {
            break;
        }
    }
    core.inner.lock().pins.replayed(u64::MAX, u64::MAX);
    core.pop_pins(&mut core.inner.lock());
    for _ in 0..300 {
        core.meta()?;
    }
    check!(core.lowest() == Watermark::Stripe as u32);
    let last = core.stop()?;
    let range = world.crash(0)?.range()?;
    check!(range.is_some_and(|r| (r.first, r.last) == (last, last)));
    Ok(())
}

pub(super) fn stop_and_start() -> Result {
    let (world, client) = (World::new(2, 8, false)?, Client::new()?);
    let core = journal(config(2), &world, 8, &client)?;
    for n in 0..50 {
        core.flush(commit(&core, 0, n)?)?;
    }
    let last = core.stop()?;
    check!(last >= 51 && core.last_seq.load(Relaxed) == last + 1);
    let image = world.crash(0)?;
    check!(image.range()?.is_some_and(|r| (r.first, r.last) == (last, last)));
    check!(image.keys()?.is_empty());
    check!(core.reserve(1, Watermark::Normal).err() == Some(Blocked::Failed));
    // Once more, nothing having happened.
    core.start()?;
    let again = core.stop()?;
    check!(again == last);
    core.start()?;
    let seq = commit(&core, 0, 99)?;
    check!(seq == last + 1);
    core.flush(seq)?;
    check!(world.crash(0)?.keys()?.len() == 1);
    let last = core.stop()?;
    // Another journal goes on where this one was.
    let mut ring = rings(2, 8)?;
    let mut at = KVec::with_capacity(2, GFP_KERNEL)?;
    for r in core.inner.lock().rings.iter() {
        check!(at.push_within_capacity(r.position()).is_ok());
    }
    for (device, (r, &(bucket, used))) in ring.iter_mut().zip(at.iter()).enumerate() {
        let mut buckets = KVVec::new();
        for b in 0..8 {
            buckets.push(b, GFP_KERNEL)?;
        }
        *r = Ring::new(device as u8, BUCKET as u32, buckets, &[], bucket as usize, used)?;
    }
    drop(core);
    let core = Core::make(config(2), world.clone(), ring, last + 1, last + 1, client)?;
    core.start()?;
    for n in 100..400 {
        core.flush(commit(&core, 0, n)?)?;
        check!(world.crash(0)?.range()?.is_some_and(|r| r.last > last));
    }
    core.stop()?;
    check!(world.crash(0)?.keys()?.is_empty());
    Ok(())
}
