// SPDX-License-Identifier: GPL-2.0
//! The transactions there are, for people and for checks.

use core::{fmt, panic::Location};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{Arc, SpinLock},
};

/// What a transaction is doing.
#[derive(Copy, Clone)]
pub(super) struct Now {
    /// The task; 0 if the buffer is not in use.
    pub pid: i32,
    pub caller: Option<&'static Location<'static>>,
    pub restarts: u32,
}

/// The visible part of one buffer.
#[pin_data]
pub(super) struct Info {
    #[pin]
    now: SpinLock<Now>,
}

impl Info {
    pub(super) fn set(&self, now: Now) {
        *self.now.lock() = now;
    }

    pub(super) fn restarted(&self, restarts: u32) {
        self.now.lock().restarts = restarts;
    }
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
        let info = Arc::pin_init(
            pin_init!(Info {
                now <- new_spinlock!(Now { pid: 0, caller: None, restarts: 0 }, "btree_transaction"),
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
        let found = list.iter().any(|i| i.now.lock().pid == pid);
        found
    }
}

impl fmt::Display for Transactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut index = 0;
        loop {
            // One at a time: printing may sleep.
            let now = match self.list.lock().get(index) {
                Some(info) => *info.now.lock(),
                None => return Ok(()),
            };
            index += 1;
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
    }
}
