// SPDX-License-Identifier: GPL-2.0
//! Waiting for space, and what makes some.

use super::{
    check,
    fixture::{buckets, full, node, whole, Fixture, Keys, BUCKET, DEV, FLUSHED},
};
use crate::{
    alloc::Placed,
    btree::space::{Shortage, SpaceError, SpaceWait},
    util::error::{Error, Result},
};
use bcachefs_format::keys::{alloc::Alloc, data_type::DataType};
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};
use kfs::work::{Kind, WorkQueue};

/// A request that has to wait.
fn blocked(f: &Fixture) -> Result<KBox<dyn SpaceWait>> {
    match f.ask(&whole(1))? {
        Err(SpaceError::Blocked(wait)) => Ok(wait),
        _ => Err(Error::BucketInconsistent),
    }
}

/// One free bucket, which is waiting for the journal.
fn one_waiting() -> Result<Fixture> {
    let mut keys = Keys::new();
    keys.free(0, 10, 11, 0)?;
    keys.alloc(0, 10, &Alloc { journal_seq: FLUSHED + 3, ..Alloc::default() })?;
    Fixture::new(&[DEV], keys, 500)
}

pub(super) fn woken_when_durable() -> Result {
    let f = one_waiting()?;
    let wait = blocked(&f)?;
    f.allocator.journal_flushed(FLUSHED + 2);
    // Woken although it is of no use: it asks again.
    wait.wait()?;
    let wait = blocked(&f)?;
    let (allocator, queue) = (f.allocator.clone(), WorkQueue::new(c"bcachefs-test", Kind::Unbound)?);
    queue.try_spawn(GFP_KERNEL, move || allocator.journal_flushed(FLUSHED + 3))?;
    wait.wait()?;
    check!(buckets(&f.place(&whole(1))?).eq([(0, 10)]));
    Ok(())
}

pub(super) fn woken_when_closed() -> Result {
    let mut keys = Keys::new();
    keys.free(0, 10, 11, 0)?;
    let f = Fixture::new(&[DEV], keys, 500)?;
    let held = f.place(&whole(1))?;
    let wait = blocked(&f)?;
    // Between looking and waiting.
    drop(held);
    wait.wait()?;
    let held: Placed = f.place(&whole(1))?;
    let wait = blocked(&f)?;
    let queue = WorkQueue::new(c"bcachefs-test", Kind::Unbound)?;
    queue.try_spawn(GFP_KERNEL, move || drop(held))?;
    wait.wait()?;
    check!(f.place(&whole(1)).is_ok());
    Ok(())
}

pub(super) fn stopping_wakes_in_vain() -> Result {
    let f = one_waiting()?;
    let queue = WorkQueue::new(c"bcachefs-test", Kind::Unbound)?;
    let failed = Arc::new(Atomic::new(0u32), GFP_KERNEL)?;
    for _ in 0..4 {
        let (wait, failed) = (blocked(&f)?, failed.clone());
        queue.try_spawn(GFP_KERNEL, move || {
            if wait.wait() == Err(Error::AllocatorStopped) {
                failed.add(1u32, Relaxed);
            }
        })?;
    }
    let late = blocked(&f)?;
    f.allocator.stop();
    queue.flush();
    check!(failed.load(Relaxed) == 4);
    check!(late.wait() == Err(Error::AllocatorStopped));
    // Starting again is possible.
    f.allocator.start(f.btree.clone())?;
    check!(f.is_blocked(&whole(1))?);
    Ok(())
}

pub(super) fn slow_waits_are_reported() -> Result {
    let f = one_waiting()?;
    let wait = blocked(&f)?;
    let (allocator, queue) = (f.allocator.clone(), WorkQueue::new(c"bcachefs-test", Kind::Unbound)?);
    queue.try_spawn(GFP_KERNEL, move || {
        nap(1500);
        allocator.journal_flushed(FLUSHED + 3);
    })?;
    // It takes longer than the second after which it says so.
    wait.wait()?;
    let mut text = kfs::show::Text::new();
    check!(f.allocator.show_reserves(&mut text).is_ok());
    let text = core::str::from_utf8(text.as_bytes()).unwrap_or("");
    check!(text.contains("device 0 test: buckets 1024") && text.contains("running true"));
    Ok(())
}

pub(super) fn emptied_buckets_are_discarded() -> Result {
    let mut keys = Keys::new();
    let emptied = Alloc { data_type: DataType::NEED_DISCARD, need_discard: true, ..Alloc::default() };
    for (bucket, seq) in [(20, 0), (21, FLUSHED + 1), (22, FLUSHED)] {
        keys.need_discard(0, bucket)?;
        keys.alloc(0, bucket, &Alloc { journal_seq: seq, ..emptied })?;
    }
    let f = Fixture::new(&[DEV], keys, 500)?;
    let discarded = || f.disk.discarded.load(Relaxed);
    check!(eventually(|| discarded() != 0));
    // Nothing can be committed here, so the worker gives up after the first.
    f.allocator.stop();
    check!(f.disk.last.load(Relaxed) == 20 * u64::from(BUCKET));
    // Read-only: nothing is discarded.
    f.world.writers.stop();
    let before = discarded();
    let emptied_22 = Alloc { journal_seq: FLUSHED, ..emptied };
    f.allocator.start(f.btree.clone())?;
    f.allocator.bucket_changed(0, 22, &full(), &emptied_22);
    nap(50);
    f.allocator.stop();
    check!(discarded() == before);
    f.world.writers.start();
    f.allocator.start(f.btree.clone())?;
    check!(eventually(|| discarded() != before));
    // One that is told of goes the fast path, but not when it is not durable or open.
    let emptied_21 = Alloc { journal_seq: FLUSHED + 1, ..emptied };
    f.allocator.bucket_changed(0, 21, &full(), &emptied_21);
    f.allocator.bucket_changed(0, 22, &full(), &emptied_22);
    check!(eventually(|| f.disk.last.load(Relaxed) == 22 * u64::from(BUCKET)));
    check!(f.allocator.is_durable(0, 21) == Some(false));
    check!(f.allocator.is_durable(0, 22) == Some(true));
    Ok(())
}

fn nap(ms: i64) {
    kernel::time::delay::fsleep(kernel::time::Delta::from_millis(ms));
}

/// Whether `f` becomes true within some seconds.
fn eventually(f: impl Fn() -> bool) -> bool {
    for _ in 0..500 {
        if f() {
            return true;
        }
        nap(10);
    }
    false
}

pub(super) fn promises_follow_capacity() -> Result {
    let f = Fixture::new(&[DEV], Keys::new(), 500)?;
    let usage = f.allocator.usage();
    // 1023 buckets of 64 sectors, less (2 * 4 + 16 + 3) * 2 of them, as 8 % is more.
    let all = 1023 * 64;
    check!(usage.capacity == all - (all / 100 * 8 + all % 100 * 8 / 100));
    let room = usage.available();
    check!(f.space.reserve(room + 1, Shortage::Fail) == Err(Error::NoSpace));
    check!(f.space.reserve(room, Shortage::Fail) == Ok(room));
    check!(f.space.reserve(1, Shortage::Fail) == Err(Error::NoSpace));
    check!(f.space.reserve(1, Shortage::Ignore) == Ok(1));
    f.space.unreserve(room + 1);
    // Data comes, and promises go.
    f.world.fs.lock().data = 1000;
    check!(f.space.reserve(room, Shortage::Fail) == Err(Error::NoSpace));
    check!(f.space.reserve(room, Shortage::Partial).is_ok_and(|n| n < room && n > room - 1100));
    f.world.fs.lock().data = 0;
    check!(f.allocator.usage().used != 0);
    check!(f.place(&node()).is_err());
    Ok(())
}
