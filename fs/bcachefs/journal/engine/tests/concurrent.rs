// SPDX-License-Identifier: GPL-2.0
//! Several tasks commit, flush and write out, while the medium is copied at any moment.
//!
//! Each task counts up. A commit of number n is a key in the journal and a number in memory that is pinned; writing out makes it
//! durable elsewhere. After a crash, what was written out and what the journal has must add up to a number without a gap, and not
//! below what a flush has acknowledged.

use kernel::{
    c_str, new_mutex,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Relaxed, Release},
        Arc, Completion, Mutex, SetOnce,
    },
};
use kfs::work::{Kind, WorkQueue};

use super::super::{
    pins::{Pin, PinKind},
    reserve::Blocked,
    state::Core,
    PinFlush, PinFlusher,
};
use super::{
    check,
    full::{hold, release, set_flusher},
    world::{config, journal, key, Client, World, TASKS},
};
use crate::util::{
    error::{Error, Result},
    watermark::Watermark,
};
use bcachefs_format::{jset::EntryType, BtreeId, KeyRef};

const COMMITS: u64 = 10_000;

#[pin_data]
struct Task {
    pin: Arc<Pin>,
    /// What has been committed. Locked as a node would be.
    #[pin]
    value: Mutex<u64>,
    acked: Atomic<u64>,
}

#[pin_data]
struct Shared {
    core: SetOnce<Arc<Core>>,
    world: Arc<World>,
    tasks: KVec<Arc<Task>>,
    running: Atomic<u32>,
    failed: Atomic<u32>,
    #[pin]
    done: Completion,
}

impl PinFlusher for Shared {
    fn flush(&self, cookie: u64, _seq: u64) -> PinFlush {
        let task = self.tasks.get(cookie as usize);
        let (Some(core), Some(task)) = (self.core.as_ref(), task) else {
            return PinFlush::Stop;
        };
        let value = task.value.lock();
        if let Some(durable) = self.world.state.lock().durable.get_mut(cookie as usize) {
            *durable = *value;
        }
        release(core, &task.pin);
        PinFlush::Done
    }
}

fn commit(core: &Core, task: &Task, me: u64) -> Result<u64> {
    loop {
        let mut value = task.value.lock();
        match core.reserve(8 + (me as u32), Watermark::Normal) {
            Ok(mut r) => {
                *value += 1;
                let k = KeyRef { key: key(me, *value), value: &[*value] };
                check!(r.key(EntryType::BTREE_KEYS, BtreeId(5), 0, &k));
                hold(core, &task.pin, r.seq());
                return Ok(r.seq());
            }
            Err(Blocked::Failed) => return Err(Error::JournalFailed),
            Err(Blocked::Full) => {}
        }
        drop(value);
        check!(core.wait(8 + me as u32, Watermark::Normal, false)?);
    }
}

fn run(s: &Shared, me: u64) -> Result {
    let core = s.core.as_ref().ok_or(Error::MetadataInvalid)?;
    let task = s.tasks.get(me as usize).ok_or(Error::MetadataInvalid)?;
    for n in 1..=COMMITS {
        let seq = commit(core, task, me)?;
        if n % (11 + 7 * me) == 0 {
            core.flush(seq)?;
            task.acked.store(n, Release);
        } else if n % 64 == 0 {
            core.flush_async(seq);
        }
    }
    Ok(())
}

fn verify(s: &Shared, keep: u32) -> Result {
    let mut acked = [0; TASKS];
    for (at, task) in acked.iter_mut().zip(s.tasks.iter()) {
        *at = task.acked.load(Acquire);
    }
    let image = s.world.crash(keep)?;
    let keys = image.keys()?;
    for (me, acked) in acked.iter().enumerate() {
        let mut have = *image.durable.get(me).unwrap_or(&0);
        for found in keys.iter().filter(|f| f.task == me as u64) {
            check!(found.n <= have + 1);
            have = have.max(found.n);
        }
        check!(have >= *acked);
    }
    Ok(())
}

fn crash_anywhere(devices: u8, copies: usize) -> Result {
    let (world, client) = (World::new(devices, 8, true)?, Client::new()?);
    world.background();
    let mut tasks = KVec::new();
    for n in 0..TASKS {
        let pin = Pin::new([PinKind::Btree, PinKind::Other][n % 2], n as u64, GFP_KERNEL)?;
        let task = Arc::pin_init(
            pin_init!(Task { pin, value <- new_mutex!(0), acked: Atomic::new(0) }),
            GFP_KERNEL,
        )?;
        tasks.push(task, GFP_KERNEL)?;
    }
    let core = journal(config(copies), &world, 8, &client)?;
    let its_world = world.clone();
    let shared = Arc::pin_init(
        pin_init!(Shared {
            core: SetOnce::new(),
            world: its_world,
            tasks,
            running: Atomic::new(TASKS as u32),
            failed: Atomic::new(0),
            done <- Completion::new(),
        }),
        GFP_KERNEL,
    )?;
    shared.core.populate(core.clone());
    for kind in [PinKind::Btree, PinKind::Other] {
        set_flusher(&core, kind, shared.clone());
    }
    let queue = WorkQueue::new(c_str!("journal-tasks"), Kind::Unbound)?;
    for me in 0..TASKS as u64 {
        let s = shared.clone();
        queue.try_spawn(GFP_KERNEL, move || {
            if let Err(e) = run(&s, me) {
                kernel::pr_err!("task {me}: {e:?}\n");
                s.failed.add(1, Relaxed);
            }
            if s.running.fetch_sub(1, kernel::sync::atomic::Full) == 1 {
                s.done.complete_all();
            }
        })?;
    }
    let mut crashes = 0u32;
    let mut wrong = Ok(());
    while shared.running.load(Acquire) != 0 && wrong.is_ok() {
        crashes += 1;
        wrong = verify(&shared, crashes % 9);
    }
    shared.done.wait_for_completion();
    wrong?;
    check!(shared.failed.load(Relaxed) == 0);
    check!(crashes > 0);
    // Round the ring more than once.
    check!(core.cur_seq.load(Relaxed) > 100);
    core.stop()?;
    verify(&shared, 0)?;
    check!(world.crash(0)?.keys()?.is_empty());
    core.owners.lock().flushers = [const { None }; 3];
    drop(queue);
    Ok(())
}

pub(super) fn one_device() -> Result {
    crash_anywhere(1, 1)
}

pub(super) fn two_devices() -> Result {
    crash_anywhere(2, 2)
}
