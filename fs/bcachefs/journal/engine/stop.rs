// SPDX-License-Identifier: GPL-2.0
//! Beginning and ending to write.

use kernel::sync::Arc;

use super::state::Core;
use crate::util::error::{Error, Result};

/// Each turn can make work for the next one, but not for ever.
const TURNS_MAX: u32 = 100;

impl Core {
    /// See [`Journal::start`](super::Journal::start).
    pub(super) fn start(self: &Arc<Self>) -> Result {
        {
            let mut i = self.inner.lock();
            if i.failed.is_some() {
                return Err(Error::JournalFailed);
            }
            i.stopped = false;
            i.need_flush = true;
            self.update_space(&mut i);
        }
        self.writer.start(self.clone());
        self.reclaimer.start(self.clone());
        self.reclaimer.kick();
        Ok(())
    }

    /// See [`Journal::stop`](super::Journal::stop).
    pub(super) fn stop(&self) -> Result<u64> {
        let result = self.quiesce();
        self.end();
        result
    }

    /// Waits until nothing is needed any more, and the newest entry on disk says so.
    fn quiesce(&self) -> Result<u64> {
        for _ in 0..TURNS_MAX {
            self.flush_pins(u64::MAX)?;
            {
                let i = self.inner.lock();
                let all = i.ondisk == i.cur && i.flushed == i.cur && i.last_empty == i.cur;
                let replaying = i.pins.replay_holds(u64::MAX);
                if all && (replaying || i.last_seq_ondisk == i.cur) {
                    return Ok(i.cur);
                }
            }
            self.meta()?;
        }
        Err(Error::JournalStuck)
    }

    /// Nothing is accepted and nothing written any more. Sleeps.
    pub(super) fn end(&self) {
        self.reclaimer.stop();
        {
            let mut i = self.inner.lock();
            if !i.stopped {
                self.close(&mut i);
                while i.ondisk != i.cur {
                    self.done.wait(&mut i);
                }
                i.stopped = true;
            }
            self.room.notify_all();
        }
        self.writer.stop();
        self.disk.wait_idle();
    }
    /// Stops everything as it is. Sleeps.
    pub(super) fn abandon(&self) {
        {
            let mut i = self.inner.lock();
            i.stopped = true;
            self.fail_word(&mut i);
        }
        self.reclaimer.stop();
        self.writer.stop();
        self.disk.wait_idle();
    }
}
