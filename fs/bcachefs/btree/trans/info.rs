// SPDX-License-Identifier: GPL-2.0
//! The transactions there are and have been, for people and for checks.

use core::{fmt, panic::Location};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{Arc, SpinLock},
};

/// Places in the code of which each buffer counts the transactions.
const SITES: usize = 64;

/// What a transaction is doing.
#[derive(Copy, Clone)]
pub(super) struct Now {
    /// The task; 0 if the buffer is not in use.
    pub pid: i32,
    pub caller: Option<&'static Location<'static>>,
    pub restarts: u32,
}

/// What has become of the transactions that one place in the code has started.
#[derive(Copy, Clone)]
struct Site {
    at: &'static Location<'static>,
    runs: u64,
    commits: u64,
    restarts: u64,
    /// Most restarts of one transaction.
    restarts_max: u32,
}

impl Site {
    fn add(&mut self, other: &Site) {
        self.runs += other.runs;
        self.commits += other.commits;
        self.restarts += other.restarts;
        self.restarts_max = self.restarts_max.max(other.restarts_max);
    }
}

/// Adds `new` to the entry of the same place, or a new one where there is room.
fn count(sites: &mut KVec<Site>, new: &Site) {
    match sites.iter_mut().position(|s| core::ptr::eq(s.at, new.at)) {
        Some(i) => {
            if let Some(s) = sites.get_mut(i) {
                s.add(new);
            }
            // What happens often comes first.
            if i > 0 {
                sites.swap(i, i - 1);
            }
        }
        None => {
            let _ = sites.push_within_capacity(*new);
        }
    }
}

struct State {
    now: Now,
    sites: KVec<Site>,
}

/// The visible part of one buffer.
#[pin_data]
pub(super) struct Info {
    #[pin]
    state: SpinLock<State>,
}

impl Info {
    pub(super) fn start(&self, now: Now) {
        self.state.lock().now = now;
    }

    pub(super) fn restarted(&self, restarts: u32) {
        self.state.lock().now.restarts = restarts;
    }

    /// The transaction has ended after `commits` commits.
    pub(super) fn end(&self, commits: u32) {
        let mut state = self.state.lock();
        let now = core::mem::replace(&mut state.now, Now::IDLE);
        if let Some(at) = now.caller {
            let site = Site {
                at,
                runs: 1,
                commits: commits.into(),
                restarts: now.restarts.into(),
                restarts_max: now.restarts,
            };
            count(&mut state.sites, &site);
        }
    }
}

impl Now {
    const IDLE: Now = Now {
        pid: 0,
        caller: None,
        restarts: 0,
    };
}

/// All buffers of a filesystem's transactions.
#[pin_data]
pub struct Transactions {
    #[pin]
    list: SpinLock<KVec<Arc<Info>>>,
}

impl Transactions {
    pub(in crate::btree) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            list <- new_spinlock!(KVec::new(), "btree_transactions"),
        })
    }

    /// Enters a buffer. May sleep.
    pub(super) fn enter(&self) -> Result<Arc<Info>> {
        let state = State {
            now: Now::IDLE,
            sites: KVec::with_capacity(SITES, GFP_KERNEL)?,
        };
        let info = Arc::pin_init(
            pin_init!(Info {
                state <- new_spinlock!(state, "btree_transaction"),
            }),
            GFP_KERNEL,
        )?;
        self.list.lock().push(info.clone(), GFP_ATOMIC)?;
        Ok(info)
    }

    pub(super) fn leave(&self, info: &Arc<Info>) {
        let mut list = self.list.lock();
        list.retain(|i| !Arc::ptr_eq(i, info));
    }

    /// Whether task `pid` is in a transaction.
    pub(super) fn busy(&self, pid: i32) -> bool {
        let list = self.list.lock();
        let found = list.iter().any(|i| i.state.lock().now.pid == pid);
        found
    }

    /// Buffer `index`.
    fn nth(&self, index: usize) -> Option<Arc<Info>> {
        self.list.lock().get(index).cloned()
    }

    /// What all buffers have counted. May sleep.
    fn sites(&self) -> Result<KVec<Site>> {
        let mut all = KVec::with_capacity(4 * SITES, GFP_KERNEL)?;
        for info in (0..).map_while(|i| self.nth(i)) {
            for site in info.state.lock().sites.iter() {
                count(&mut all, site);
            }
        }
        Ok(all)
    }
}

/// What runs, then what has run by the place it was started from. Printing may sleep.
impl fmt::Display for Transactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for info in (0..).map_while(|i| self.nth(i)) {
            let now = info.state.lock().now;
            match (now.pid, now.caller) {
                (0, _) | (_, None) => writeln!(f, "idle")?,
                (pid, Some(at)) => writeln!(
                    f,
                    "pid {pid} at {}:{} restarts {}",
                    at.file(),
                    at.line(),
                    now.restarts
                )?,
            }
        }
        let sites = self.sites().map_err(|_| fmt::Error)?;
        for s in sites.iter() {
            writeln!(
                f,
                "{}:{}: runs {} commits {} restarts {} at most {}",
                s.at.file(),
                s.at.line(),
                s.runs,
                s.commits,
                s.restarts,
                s.restarts_max
            )?;
        }
        Ok(())
    }
}
