// SPDX-License-Identifier: GPL-2.0

//! Tests of six locks: modes, sequence numbers, hand-over, and cycles.

use crate::work::{Kind, WorkQueue};

use super::{Busy, Graph, LockError, LockSet, Mode, Seat, SixLock};
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Arc, Completion,
    },
};

type Lock = SixLock<[u64; 2], u32>;
type Locks = LockSet<[u64; 2], u32>;

/// Fails the test at this line unless the condition holds.
macro_rules! check {
    ($cond:expr) => {
        if !$cond {
            pr_err!("six: line {}: {} does not hold\n", line!(), stringify!($cond));
            return Err(EINVAL);
        }
    };
}

fn lock() -> Result<Arc<Lock>> {
    Arc::pin_init(SixLock::new([0, 0], 7u32), GFP_KERNEL)
}

fn set(graph: &Arc<Graph>) -> Result<Locks> {
    LockSet::new(graph.clone(), 16)
}

/// Which modes go together, and what a set may do with its own.
pub(super) fn modes() -> Result {
    let graph = Graph::new()?;
    let l = lock()?;
    let (mut a, mut b) = (set(&graph)?, set(&graph)?);
    let full = |_| EINVAL;
    let sa = a.reference(&l).map_err(full)?;
    let sb = b.reference(&l).map_err(full)?;
    check!(*l.shared() == 7 && a.get(sa).is_none());

    check!(a.try_lock(sa, Mode::Read) == Ok(true));
    check!(b.try_lock(sb, Mode::Intent) == Ok(true));
    // Readers go with intent, not with write; intent does not go with intent.
    check!(b.try_lock(sb, Mode::Write) == Ok(false));
    check!(a.try_lock(sa, Mode::Intent) == Err(LockError::Upgrade));
    check!(a.get(sa).is_some() && a.get_mut(sa).is_none() && b.get_mut(sb).is_none());
    a.unlock(sa);
    check!(a.get(sa).is_none());
    check!(b.try_lock(sb, Mode::Write) == Ok(true));
    check!(a.try_lock(sa, Mode::Read) == Ok(false));
    check!(l.try_exclusive().is_err());

    // Write changes the sequence number when it is released, nothing else does.
    let seq = l.seq();
    match b.get_mut(sb) {
        Some(data) => *data = [5, 5],
        None => return Err(EINVAL),
    }
    b.downgrade(sb, Mode::Intent);
    check!(l.seq() == seq + 1);
    b.downgrade(sb, Mode::Read);
    b.unlock(sb);
    check!(l.seq() == seq + 1);
    check!(b.relock(sb, Mode::Read) && b.get(sb) == Some(&[5, 5]));
    // `a` gave the lock up before the write.
    check!(!a.relock(sa, Mode::Read));
    b.unlock(sb);

    // Two users of one set share the entry; the lock goes with the last one.
    check!(a.reference(&l) == Ok(sa));
    check!(a.try_lock(sa, Mode::Intent) == Ok(true));
    a.put(sa);
    check!(a.mode(sa) == Some(Mode::Intent) && a.nr_held() == 1);
    check!(matches!(l.try_exclusive(), Err(Busy::Intent)));
    a.put(sa);
    check!(a.mode(sa).is_none() && a.nr_held() == 0);
    let mut owned = l.try_exclusive().map_err(|_| EINVAL)?;
    owned[0] = 9;
    check!(b.try_lock(sb, Mode::Read) == Ok(false));
    drop(owned);
    check!(b.try_lock(sb, Mode::Read) == Ok(true) && b.get(sb) == Some(&[9, 5]));

    // Dropping a set releases everything.
    drop(b);
    check!(l.try_exclusive().is_ok());
    Ok(())
}

/// A table that is full says so, and entries are used again.
pub(super) fn capacity() -> Result {
    let graph = Graph::new()?;
    let mut s: Locks = LockSet::new(graph, 2)?;
    let (l0, l1, l2) = (lock()?, lock()?, lock()?);
    let s0 = s.reference(&l0).map_err(|_| EINVAL)?;
    check!(s.reference(&l1).is_ok());
    check!(s.reference(&l2) == Err(LockError::Full));
    s.put(s0);
    let s2 = s.reference(&l2).map_err(|_| EINVAL)?;
    check!(s.lock(s2, Mode::Write) == Ok(()));
    s.unlock_all();
    check!(s.nr_held() == 0 && s.relock(s2, Mode::Write));
    Ok(())
}

/// Things that several tasks share in a test.
#[pin_data]
struct Shared {
    graph: Arc<Graph>,
    locks: KVec<Arc<Lock>>,
    running: Atomic<u32>,
    failed: Atomic<u32>,
    deadlocks: Atomic<u32>,
    passed: Atomic<u32>,
    writes: Atomic<u64>,
    #[pin]
    ready: Completion,
    #[pin]
    done: Completion,
}

fn shared(locks: usize, tasks: u32) -> Result<Arc<Shared>> {
    let mut all = KVec::new();
    for _ in 0..locks {
        all.push(lock()?, GFP_KERNEL)?;
    }
    let graph = Graph::new()?;
    Arc::pin_init(
        pin_init!(Shared {
            graph,
            locks: all,
            running: Atomic::new(tasks),
            failed: Atomic::new(0),
            deadlocks: Atomic::new(0),
            passed: Atomic::new(0),
            writes: Atomic::new(0),
            ready <- Completion::new(),
            done <- Completion::new(),
        }),
        GFP_KERNEL,
    )
}

/// Runs `f` in `tasks` tasks at a time and waits for all.
fn in_tasks(shared: &Arc<Shared>, tasks: u32, f: fn(&Shared, u32) -> Result) -> Result {
    let queue = WorkQueue::new(kernel::c_str!("six-test"), Kind::Unbound)?;
    for i in 0..tasks {
        let s = shared.clone();
        queue.try_spawn(GFP_KERNEL, move || {
            if f(&s, i).is_err() {
                s.failed.add(1u32, Relaxed);
            }
            if s.running.fetch_sub(1u32, Full) == 1 {
                s.done.complete_all();
            }
        })?;
    }
    shared.done.wait_for_completion();
    if shared.failed.load(Relaxed) != 0 {
        return Err(EINVAL);
    }
    Ok(())
}

/// Two sets that each want what the other holds: one is told to give up, the other goes on.
pub(super) fn deadlock() -> Result {
    fn task(s: &Shared, me: u32) -> Result {
        let mut set = set(&s.graph)?;
        let (first, second) = match me {
            0 => (s.locks.first(), s.locks.get(1)),
            _ => (s.locks.get(1), s.locks.first()),
        };
        let (first, second) = first.zip(second).ok_or(EINVAL)?;
        let a = set.reference(first).map_err(|_| EINVAL)?;
        let b = set.reference(second).map_err(|_| EINVAL)?;
        check!(set.lock(a, Mode::Intent) == Ok(()));
        // Both hold their first before either asks for its second.
        if s.passed.fetch_add(1u32, Full) == 1 {
            s.ready.complete_all();
        }
        s.ready.wait_for_completion();
        match set.lock(b, Mode::Intent) {
            Ok(()) => {}
            Err(LockError::WouldDeadlock) => {
                s.deadlocks.add(1u32, Relaxed);
                set.unlock_all();
                check!(set.lock(b, Mode::Intent) == Ok(()));
                check!(set.lock(a, Mode::Intent) == Ok(()));
            }
            Err(_) => return Err(EINVAL),
        }
        check!(set.lock(a, Mode::Write) == Ok(()));
        Ok(())
    }
    let s = shared(2, 2)?;
    in_tasks(&s, 2, task)?;
    check!(s.deadlocks.load(Relaxed) >= 1);
    check!(s.graph.stats().0 >= 1);
    Ok(())
}

/// A writer that waits for a reader is handed the lock; readers that came later wait for it.
pub(super) fn hand_over() -> Result {
    fn task(s: &Shared, me: u32) -> Result {
        let mut set = set(&s.graph)?;
        let l = s.locks.first().ok_or(EINVAL)?;
        let slot = set.reference(l).map_err(|_| EINVAL)?;
        if me == 0 {
            check!(set.lock(slot, Mode::Read) == Ok(()));
            s.ready.complete_all();
            // Until the writer has announced itself.
            let mut spins = 0u32;
            while l.raw.holders().2 == false && spins < 100_000_000 {
                kernel::processor::cpu_relax();
                spins += 1;
            }
            check!(l.raw.holders().2);
            let mut other = LockSet::new(s.graph.clone(), 1)?;
            let late = other.reference(l).map_err(|_| EINVAL)?;
            check!(other.try_lock(late, Mode::Read) == Ok(false));
            check!(set.get(slot) == Some(&[0, 0]));
            set.unlock(slot);
            check!(other.lock(late, Mode::Read) == Ok(()));
            check!(other.get(late) == Some(&[1, 1]));
        } else {
            s.ready.wait_for_completion();
            check!(set.lock(slot, Mode::Write) == Ok(()));
            *set.get_mut(slot).ok_or(EINVAL)? = [1, 1];
        }
        Ok(())
    }
    let s = shared(1, 2)?;
    in_tasks(&s, 2, task)
}

/// A task with two sets that waits by one of them is seen to hold what is in the other.
pub(super) fn beside() -> Result {
    fn task(s: &Shared, me: u32) -> Result {
        let (mut first, mut second) = (set(&s.graph)?, set(&s.graph)?);
        let locks = match me {
            0 => (s.locks.first(), s.locks.get(1)),
            _ => (s.locks.get(1), s.locks.first()),
        };
        let (a, b) = locks.0.zip(locks.1).ok_or(EINVAL)?;
        let a = first.reference(a).map_err(|_| EINVAL)?;
        let b = second.reference(b).map_err(|_| EINVAL)?;
        check!(first.lock_beside(a, Mode::Intent, &second) == Ok(()));
        if s.passed.fetch_add(1u32, Full) == 1 {
            s.ready.complete_all();
        }
        s.ready.wait_for_completion();
        match second.lock_beside(b, Mode::Intent, &first) {
            Ok(()) => {}
            Err(LockError::WouldDeadlock) => {
                s.deadlocks.add(1u32, Relaxed);
                first.unlock_all();
                check!(second.lock_beside(b, Mode::Intent, &first) == Ok(()));
            }
            Err(_) => return Err(EINVAL),
        }
        Ok(())
    }
    let s = shared(2, 2)?;
    in_tasks(&s, 2, task)?;
    check!(s.deadlocks.load(Relaxed) >= 1);
    Ok(())
}

/// Many tasks, few locks, all modes in random order: nothing is lost, torn or stuck.
pub(super) fn stress() -> Result {
    const TASKS: u32 = 6;
    const ROUNDS: u32 = 1000;
    fn task(s: &Shared, me: u32) -> Result {
        let mut set = set(&s.graph)?;
        let mut x = 0x1234_5678_9abc_def0u64.wrapping_mul(u64::from(me) * 2 + 1);
        let mut draw = move |n: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 8) % n.max(1)
        };
        for _ in 0..ROUNDS {
            let wanted = 1 + draw(3);
            let mut tries = 0u32;
            'again: loop {
                set.clear();
                tries += 1;
                check!(tries < 1_000_000);
                for _ in 0..wanted {
                    let l = s.locks.get(draw(s.locks.len() as u64) as usize).ok_or(EINVAL)?;
                    let mode = match draw(4) {
                        0 => Mode::Write,
                        1 => Mode::Intent,
                        _ => Mode::Read,
                    };
                    let slot = set.reference(l).map_err(|_| EINVAL)?;
                    match set.lock(slot, mode) {
                        Ok(()) => {}
                        Err(LockError::WouldDeadlock | LockError::TooDeep | LockError::Upgrade) => {
                            s.deadlocks.add(1u32, Relaxed);
                            continue 'again;
                        }
                        Err(_) => return Err(EINVAL),
                    }
                    let data = set.get(slot).ok_or(EINVAL)?;
                    check!(data[0] == data[1]);
                    if let Some(data) = set.get_mut(slot) {
                        data[0] += 1;
                        kernel::processor::cpu_relax();
                        data[1] += 1;
                        s.writes.add(1u64, Relaxed);
                        if draw(2) == 0 {
                            set.downgrade(slot, Mode::Read);
                        }
                    } else if draw(4) == 0 {
                        // Give up and take back: unchanged if that works.
                        let before = *set.get(slot).ok_or(EINVAL)?;
                        set.unlock(slot);
                        if set.relock(slot, Mode::Read) {
                            check!(set.get(slot) == Some(&before));
                        }
                    }
                }
                break;
            }
        }
        Ok(())
    }
    let s = shared(4, TASKS)?;
    in_tasks(&s, TASKS, task)?;
    let mut sum = 0;
    for l in s.locks.iter() {
        let owned = l.try_exclusive().map_err(|_| EINVAL)?;
        sum += owned[0];
        check!(owned[0] == owned[1]);
    }
    check!(sum == s.writes.load(Relaxed));
    check!(sum > 0);
    pr_info!(
        "six: {sum} writes, {} restarts, {} cycles\n",
        s.deadlocks.load(Relaxed),
        s.graph.stats().0
    );
    Ok(())
}

/// A lock made in memory got before is held by who made it, and an ordinary one after that.
fn seat() -> Result {
    let seat = Seat::new(GFP_KERNEL)?;
    let made: core::result::Result<_, core::convert::Infallible> = seat.occupy([1, 2], 9u32);
    let mut mine = match made {
        Ok(mine) => mine,
        Err(never) => match never {},
    };
    let lock: Arc<Lock> = mine.lock().clone();
    check!(matches!(lock.try_exclusive(), Err(Busy::Other)));
    check!(*lock.shared() == 9);
    if let Some(word) = mine.get_mut(1) {
        *word = 7;
    }
    drop(mine);
    let mut locks = Locks::new(Graph::new()?, 2)?;
    let slot = locks.reference(&lock).map_err(|_| EINVAL)?;
    check!(locks.try_lock(slot, Mode::Write) == Ok(true));
    check!(locks.get(slot) == Some(&[1, 7]));
    Ok(())
}

#[kernel::macros::kunit_tests(kfs_six)]
mod suite {
    use kernel::prelude::*;

    #[test]
    fn modes() -> Result {
        super::modes()
    }

    #[test]
    fn capacity() -> Result {
        super::capacity()
    }

    #[test]
    fn seat() -> Result {
        super::seat()
    }

    #[test]
    fn deadlock() -> Result {
        super::deadlock()
    }

    #[test]
    fn beside() -> Result {
        super::beside()
    }

    #[test]
    fn hand_over() -> Result {
        super::hand_over()
    }

    #[test]
    fn stress() -> Result {
        super::stress()
    }
}
