// SPDX-License-Identifier: GPL-2.0
//! What is written when.

use bcachefs_format::{jset::EntryType, BtreeId, KeyRef};
use kernel::{
    prelude::*,
    sync::{atomic::Relaxed, Arc},
};
use kfs::{
    block::WriteFlags,
    work::{Kind, WorkQueue},
};

use super::super::{
    pins::{Pin, PinKind},
    reserve::Blocked,
    state::Core,
};
use super::{
    check,
    full::hold,
    world::{config, journal, key, Client, World},
};
use crate::util::{
    error::{Error, Result},
    watermark::Watermark,
};

/// Commits key `n` of `task`. Returns the entry.
pub(super) fn commit(core: &Core, task: u64, n: u64) -> Result<u64> {
    commit_as(core, EntryType::BTREE_KEYS, task, n)
}

fn commit_as(core: &Core, kind: EntryType, task: u64, n: u64) -> Result<u64> {
    loop {
        match core.reserve(8, Watermark::Normal) {
            Ok(mut r) => {
                let k = KeyRef { key: key(task, n), value: &[n] };
                check!(r.key(kind, BtreeId(5), 0, &k));
                return Ok(r.seq());
            }
            Err(Blocked::Failed) => return Err(Error::JournalFailed),
            Err(Blocked::Full) => check!(core.wait(8, Watermark::Normal, false)?),
        }
    }
}

/// Calls `ready` until it is true, for some seconds.
pub(super) fn until(mut ready: impl FnMut() -> bool) -> bool {
    for _ in 0..3000 {
        if ready() {
            return true;
        }
        kernel::time::delay::fsleep(kernel::time::Delta::from_millis(1));
    }
    false
}

/// Starts `f` in the background.
fn spawn(queue: &WorkQueue, f: impl FnOnce() + Send + 'static) -> Result {
    Ok(queue.try_spawn(GFP_KERNEL, f)?)
}

pub(super) fn flushed() -> Result {
    let (world, client) = (World::new(1, 8, false)?, Client::new()?);
    let core = journal(config(1), &world, 8, &client)?;
    let seq = commit(&core, 0, 1)?;
    check!(seq == 1);
    core.flush(seq)?;
    check!(client.flushed.load(Relaxed) == 1 && client.marked.load(Relaxed) == 1);
    let keys = world.crash(0)?.keys()?;
    check!(keys.len() == 1 && keys.first().is_some_and(|f| (f.task, f.n, f.seq) == (0, 1, 1)));
    // One device flushes itself; the first entry is a flush entry.
    check!(world.state.lock().log.first().is_some_and(|l| {
        l.flags == Some(WriteFlags::PREFLUSH | WriteFlags::FUA) && l.sector == 0
    }));
    // What nobody asks for is written after a while all the same, and durable after another.
    let seq = commit(&core, 0, 2)?;
    check!(seq == 2);
    check!(until(|| core.inner.lock().ondisk >= 2));
    check!(until(|| {
        let _ = commit(&core, 0, 3);
        world.crash(0).and_then(|i| i.keys()).is_ok_and(|k| k.iter().any(|f| f.n == 2))
    }));
    // An entry without anything is written when it is asked for.
    core.meta()?;
    let last = core.cur_seq.load(Relaxed);
    check!(world.crash(0)?.range()?.is_some_and(|r| r.last == last));
    // Nothing is written that was flushed already.
    let before = world.state.lock().log.len();
    core.flush(last)?;
    check!(world.state.lock().log.len() == before);
    core.abandon();
    Ok(())
}

pub(super) fn flush_waits() -> Result {
    let (world, client) = (World::new(1, 8, false)?, Client::new()?);
    let mut c = config(1);
    // Nothing is written for its age.
    c.flush_delay = 60_000;
    let core = journal(c, &world, 8, &client)?;
    commit(&core, 0, 0)?;
    core.flush(1)?;
    world.state.lock().hold = true;
    for n in 1..3 {
        check!(commit(&core, 0, n)? == n + 1);
        core.close(&mut core.inner.lock());
        check!(until(|| world.held() == n as usize));
    }
    // Entries 2 and 3 are being written, without flushes. The one asked for waits for them, however long it has been ready.
    check!(commit(&core, 0, 3)? == 4);
    core.flush_async(4);
    core.close(&mut core.inner.lock());
    check!(until(|| core.inner.lock().composed == 4));
    check!(world.held() == 2);
    // They may end in any order.
    check!(world.let_go(1));
    check!(core.inner.lock().ondisk == 1 && world.held() == 1);
    check!(world.let_go(0));
    check!(until(|| world.held() == 1));
    {
        let s = world.state.lock();
        let flags = |at: usize| s.log.get(at).and_then(|l| l.flags);
        check!(flags(1) == Some(WriteFlags::NONE) && flags(2) == Some(WriteFlags::NONE));
        check!(flags(3) == Some(WriteFlags::PREFLUSH | WriteFlags::FUA));
    }
    check!(core.flushed_seq.load(Relaxed) == 1);
    let image = world.crash(8)?;
    let (h2, h4) = (image.header(2)?, image.header(4)?);
    check!(h2.is_some_and(|h| h.is_no_flush() && h.last_seq.get() == 0));
    check!(h4.is_some_and(|h| !h.is_no_flush() && h.last_seq.get() == 2));
    // If the last write was cut off, what was flushed before counts.
    check!(world.crash(0)?.range()?.is_some_and(|r| (r.first, r.last) == (1, 1)));
    check!(world.let_go(0));
    check!(core.flushed_seq.load(Relaxed) == 4);
    check!(world.crash(0)?.keys()?.len() == 3);
    world.state.lock().hold = false;
    core.abandon();
    Ok(())
}

pub(super) fn several_devices() -> Result {
    let (world, client) = (World::new(3, 8, false)?, Client::new()?);
    let core = journal(config(2), &world, 8, &client)?;
    world.state.lock().hold = true;
    let seq = commit(&core, 0, 1)?;
    core.flush_async(seq);
    check!(until(|| world.held() == 3));
    check!(world.state.lock().log.iter().all(|l| l.seq == 0));
    check!(world.let_go(0) && world.let_go(0));
    check!(world.held() == 1);
    check!(world.let_go(0) && until(|| world.held() == 2));
    {
        let s = world.state.lock();
        let writes = s.log.get(3..).unwrap_or_default();
        check!(writes.iter().all(|l| l.seq == 1 && l.flags == Some(WriteFlags::FUA)));
        check!(writes.first().map(|l| l.device) != writes.last().map(|l| l.device));
    }
    check!(world.let_go(1) && core.flushed_seq.load(Relaxed) == 0);
    check!(world.let_go(0) && core.flushed_seq.load(Relaxed) == 1);
    // The copies are alike.
    check!(world.crash(0)?.keys()?.len() == 1);
    check!(client.marked.load(Relaxed).count_ones() == 2);
    world.state.lock().hold = false;
    core.abandon();
    Ok(())
}

pub(super) fn promises() -> Result {
    let (world, client) = (World::new(1, 16, false)?, Client::new()?);
    let mut c = config(1);
    c.flush_delay = 60_000;
    let core = journal(c, &world, 16, &client)?;
    check!(commit(&core, 0, 0)? == 1);
    let pin = Pin::new(PinKind::Other, 0, GFP_KERNEL)?;
    hold(&core, &pin, 1);
    // The first has to be one.
    check!(!core.noflush_promise(1, 2));
    core.flush(1)?;
    check!(commit(&core, 0, 1)? == 2);
    core.close(&mut core.inner.lock());
    check!(commit(&core, 0, 2)? == 3);
    check!(!core.noflush_promise(1, 3) && !core.noflush_promise(2, 5) && !core.noflush_promise(3, 3));
    check!(core.noflush_promise(2, 4));
    // Who wants entry 3 to be durable gets another one that is.
    core.flush(3)?;
    check!(core.flushed_seq.load(Relaxed) == 4);
    let image = world.crash(0)?;
    check!(image.header(2)?.is_some_and(|h| h.is_no_flush()));
    check!(image.header(3)?.is_some_and(|h| h.is_no_flush()));
    check!(image.keys()?.len() == 3);
    // Somebody waits for this one.
    check!(commit(&core, 0, 3)? == 5);
    world.state.lock().hold = true;
    core.flush_async(5);
    check!(!core.noflush_promise(5, 6));
    world.state.lock().hold = false;
    check!(until(|| world.held() == 0 || world.let_go(0)));
    core.abandon();
    Ok(())
}

pub(super) fn buffered() -> Result {
    let (world, client) = (World::new(1, 8, false)?, Client::new()?);
    let core = journal(config(1), &world, 8, &client)?;
    let pin = Pin::new(PinKind::Other, 0, GFP_KERNEL)?;
    for n in 0..3 {
        hold(&core, &pin, commit(&core, 0, n)?);
        commit_as(&core, EntryType::WRITE_BUFFER_KEYS, 1, n)?;
    }
    core.hand_over(1)?;
    {
        let b = client.buffered.lock();
        check!(b.len() == 3);
        for (n, at) in b.iter().enumerate() {
            check!(*at == (1, 8 + 16 * n as u32 + 1, n as u64));
        }
    }
    // More than was reserved is refused.
    {
        let mut r = core.reserve(6, Watermark::Normal).map_err(|_| Error::JournalFailed)?;
        let k = KeyRef { key: key(0, 9), value: &[9] };
        check!(!r.key(EntryType::BTREE_KEYS, BtreeId(5), 0, &k) && !r.records(&[0; 7]));
        check!(r.room() == 6);
    }
    core.flush(2)?;
    // Ordinary keys on disk; what was not used of a reservation has left no trace.
    let image = world.crash(0)?;
    check!(image.keys()?.len() == 6);
    check!(image.header(2)?.is_some_and(|h| h.u64s.get() == 2));
    core.abandon();
    Ok(())
}

pub(super) fn one_device_fails() -> Result {
    let (world, client) = (World::new(2, 8, false)?, Client::new()?);
    let core = journal(config(2), &world, 8, &client)?;
    world.state.lock().fail_writes = 1;
    let seq = commit(&core, 0, 1)?;
    core.flush(seq)?;
    check!(!core.has_failed() && world.crash(0)?.keys()?.len() == 1);
    core.abandon();
    Ok(())
}

pub(super) fn all_devices_fail() -> Result {
    let (world, client) = (World::new(1, 8, false)?, Client::new()?);
    let core = journal(config(1), &world, 8, &client)?;
    core.flush(commit(&core, 0, 1)?)?;
    world.state.lock().fail_writes = 1;
    let seq = commit(&core, 0, 2)?;
    check!(core.flush(seq).is_err());
    check!(until(|| client.failed.load(Relaxed) == 1));
    check!(core.has_failed());
    check!(core.reserve(8, Watermark::InteriorUpdates).err() == Some(Blocked::Failed));
    check!(core.wait(8, Watermark::Normal, false).is_err() && core.meta().is_err());
    check!(core.flush_pins(9).is_err() && core.stop().is_err());
    // What was acknowledged still is.
    check!(core.flush(1).is_ok() && core.flushed_seq.load(Relaxed) == 1);
    check!(world.crash(8)?.keys()?.len() == 1);
    Ok(())
}

pub(super) fn flush_fails() -> Result {
    let (world, client) = (World::new(2, 8, false)?, Client::new()?);
    let core = journal(config(1), &world, 8, &client)?;
    core.flush(commit(&core, 0, 1)?)?;
    world.state.lock().fail_flushes = 2;
    let writes = world.state.lock().log.len();
    let seq = commit(&core, 0, 2)?;
    check!(core.flush(seq).is_err());
    check!(until(|| client.failed.load(Relaxed) == 1));
    // Not written: it would claim what is not so.
    check!(world.state.lock().log.iter().skip(writes).all(|l| l.flags.is_none()));
    core.abandon();
    Ok(())
}

pub(super) fn grows() -> Result {
    let (world, client) = (World::new(1, 16, false)?, Client::new()?);
    let core = journal(config(1), &world, 16, &client)?;
    // Buckets have 32 KiB here.
    let most = core.most();
    check!(core.inner.lock().buf_u64s == most);
    check!(core.wait(most + 1, Watermark::Normal, false).err() == Some(Error::JournalTooSmall));
    let mut n = 0;
    let mut big = KVVec::new();
    big.resize(most as usize, 0u64, GFP_KERNEL)?;
    let queue = WorkQueue::new(kernel::c_str!("journal-test"), Kind::Unbound)?;
    while n < 20 {
        match core.reserve(most, Watermark::Normal) {
            Ok(mut r) => {
                check!(r.offset() == 0 && r.room() == most);
                if let [head, text @ ..] = big.as_mut_slice() {
                    *head = u64::from(most - 1) | 9 << 32;
                    text.fill(n);
                }
                check!(r.records(&big));
                n += 1;
            }
            Err(_) => check!(core.wait(most, Watermark::Normal, false)?),
        }
    }
    let at = core.cur_seq.load(Relaxed);
    let (c, a) = (core.clone(), Arc::clone(&core));
    spawn(&queue, move || {
        let _ = c.flush(at);
    })?;
    a.flush(at)?;
    drop(queue);
    check!(world.crash(0)?.range()?.is_some_and(|r| r.last >= at));
    core.abandon();
    Ok(())
}
