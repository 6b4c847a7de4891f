// SPDX-License-Identifier: GPL-2.0
//! Moving what is left in half-empty buckets together, so that there are empty ones.
//!
//! Only whole buckets can be written to again. When those that can be had are few compared with the space that is free inside of
//! others, the emptiest buckets are gone through by their backpointers: data is copied to buckets of its own write point, nodes are
//! rewritten. What is emptied becomes free when the journal entry that says so is durable.
//!
//! Nothing of a key changes but where its data is: compressed data stays as it is, checksums are looked at before and go along. A key
//! that has changed meanwhile is left alone.
//!
//! It runs in a thread of its own, when so much has been written that it may be time ([`Signal::written`]), or somebody has
//! found no bucket ([`Signal::short`]).
//!
//! | file | what it has |
//! |---|---|
//! | `bucket` | which buckets, what is in them |
//! | `extent` | one copy of data |
//! | `value` | the key with its new place |

mod bucket;
mod extent;
mod value;

use core::fmt;

use bcachefs_format::sb::options::Target;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc,
    },
};
use kfs::{
    mem::NofsScope,
    work::{Job, Kind, WorkQueue},
};

use self::{bucket::Place, extent::Room};
use super::read::{
    limit::{Limit, Verdict},
    Name,
};
use crate::{
    alloc::Allocator,
    btree::Btree,
    fs_warn,
    sb::{Devices, Super},
    util::{
        counters::{Counter, Counters},
        error::{Error, Result},
        io_clock::{IoClocks, Rw},
    },
};

/// Buckets that are taken from the list at a time.
const BATCH: usize = 16;

/// What tells the thread that there may be something to do.
#[pin_data]
pub struct Signal {
    /// When, by the clock of writes, it is to look.
    due: Atomic<u64>,
    #[pin]
    job: Job<Copygc>,
}

impl Signal {
    /// Of a thread that has not been started. May sleep.
    pub fn new() -> Result<Arc<Self>> {
        let queue = Arc::new(WorkQueue::new(c"bcachefs-copygc", Kind::Unbound)?, GFP_KERNEL)?;
        Ok(Arc::pin_init(
            pin_init!(Signal {
                due: Atomic::new(0),
                job <- Job::new(queue, Copygc::work),
            }),
            GFP_KERNEL,
        )?)
    }

    /// The clock of writes says `now`. Any context.
    pub fn written(&self, now: u64) {
        if now >= self.due.load(Relaxed) {
            self.job.kick();
        }
    }

    /// Somebody has found no bucket. Any context.
    pub fn short(&self) {
        self.job.kick();
    }

    /// Lets it begin: the filesystem is written to from now on.
    pub fn start(&self, copygc: Arc<Copygc>) {
        self.job.start(copygc);
        self.job.kick();
    }

    /// Returns when it does nothing any more. Sleeps.
    pub fn stop(&self) {
        self.job.stop();
    }
}

/// What a [`Copygc`] works with.
pub struct Parts {
    /// What the filesystem is called in messages.
    pub name: Name,
    /// The superblock.
    pub sup: Arc<Super>,
    /// The btrees.
    pub btree: Arc<Btree>,
    /// The devices.
    pub devices: Arc<Devices>,
    /// The counters.
    pub counters: Arc<Counters>,
    /// The clocks that go by I/O.
    pub clocks: Arc<IoClocks>,
    /// Where space comes from.
    pub allocator: Arc<Allocator>,
    /// What wakes it.
    pub signal: Arc<Signal>,
}

/// See the description of the module.
pub struct Copygc {
    parts: Parts,
    /// Where data goes, if there is room.
    target: Target,
    messages: Limit,
}

impl Copygc {
    /// For a filesystem that is written to. May sleep.
    pub fn new(parts: Parts) -> Result<Arc<Self>> {
        let target = parts.sup.raw()?.options()?.background_target;
        let copygc = Copygc { parts, target, messages: Limit::new() };
        Ok(Arc::new(copygc, GFP_KERNEL)?)
    }

    fn work(this: &Arc<Self>) {
        let _nofs = NofsScope::enter();
        // An error means that the filesystem is not written to any more; what is wrong with single buckets is reported there.
        let wait = this.run().unwrap_or(u64::MAX);
        let now = this.parts.clocks.now(Rw::Write);
        this.parts.signal.due.store(now.saturating_add(wait), Relaxed);
    }

    /// Empties buckets as long as that is due; then returns the sectors that can be written before it may be again. Sleeps.
    fn run(&self) -> Result<u64> {
        let mut room = Room::new()?;
        let mut from = Place::FIRST;
        loop {
            let wait = self.parts.allocator.sectors_until_crowded();
            if wait != 0 {
                self.parts.counters.inc(Counter::COPYGC_WAIT);
                return Ok(wait);
            }
            let some = self.pass(&mut room, &mut from)?;
            if !some {
                // There is nothing that could be moved now: not before a good deal has been written.
                return Ok(self.smallest_device() / 64);
            }
        }
    }

    /// Empties some buckets, from place `from` of the list on. Whether there were any. Sleeps.
    fn pass(&self, room: &mut Room, from: &mut Place) -> Result<bool> {
        // Both the list and the backpointers are written late.
        self.parts.btree.flush_write_buffer()?;
        let buckets = self.candidates(from)?;
        for bucket in buckets.iter() {
            // Going read-only waits for what holds this.
            let Some(_writing) = self.parts.btree.engine()?.writers.get() else {
                return Err(Error::ReadOnly);
            };
            self.parts.counters.inc(Counter::COPYGC);
            self.evacuate(room, bucket)?;
        }
        if !buckets.is_empty() {
            // Not free before that.
            let journal = &self.parts.btree.engine()?.journal;
            journal.flush(journal.cur_seq())?;
        }
        Ok(!buckets.is_empty())
    }

    /// Sectors of the smallest device.
    fn smallest_device(&self) -> u64 {
        let devices = self.parts.devices.iter();
        let sizes = devices.map(|d| d.nbuckets.saturating_mul(d.bucket_sectors.into()));
        sizes.min().unwrap_or(0)
    }

    /// Prints a message, unless there have been many of late.
    fn warn(&self, text: fmt::Arguments<'_>) {
        match self.messages.admit() {
            Verdict::Print => fs_warn!(self, "{text}"),
            Verdict::Last => {
                fs_warn!(self, "{text} (further messages about moving data are left out for a while)")
            }
            Verdict::Drop => {}
        }
    }
}

impl fmt::Display for Copygc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.parts.name.to_str().unwrap_or("?"))
    }
}
