// SPDX-License-Identifier: GPL-2.0
//! Going read-write and back.
//!
//! The parts that write are made when the filesystem first becomes read-write, and stay until it is unmounted. Becoming read-only ends
//! with an empty journal entry and a superblock marked clean; in an emergency, which the journal announces, everything is stopped
//! where it is and the superblock stays dirty, so that the next mount replays what the journal has.
//!
//! | state | journal | write references |
//! |---|---|---|
//! | read-only | stopped | none |
//! | starting | runs | none: only the mount itself changes anything |
//! | read-write | runs | given |
//! | stopped by an emergency | halted | none |
//!
//! Locking: changes of state take turns under `phase`, outermost of all locks here.

use core::fmt;

use bcachefs_format::features::{Compat, Features};
use kernel::{
    str::CString,
    new_mutex, new_spinlock,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Arc, Completion, Mutex, SetOnce, SpinLock,
    },
};
use kfs::{block::Access, work::{Kind, WorkQueue}};

use super::{
    alloc_client::{FsAllocClient, FsTriggerClient, SuperReplicas},
    journal_client::FsJournalClient,
    mount::CAN_WRITE,
    Options,
};
use crate::{
    alloc::{self, Accounting, AllocTriggers, Allocator},
    btree::{engine::Engine, Btree},
    data::{
        self,
        copygc::{self, Copygc, Signal},
    },
    fs::inode,
    fs_err, fs_info, fs_warn,
    journal::{
        engine::Journal,
        StartState,
    },
    recovery,
    sb::{Devices, LiveSuper, Super},
    snapshots::SnapshotTable,
    util::{
        counters::Counters,
        error::{Error, Result},
        io_clock::IoClocks,
        log::Log,
        write_refs::WriteRefs,
    },
};

/// Rounds of writing out before shutting down is given up. Each writes out what the one before has caused; there are few.
const SHUTDOWN_ROUNDS_MAX: u32 = 1000;

/// Whether the filesystem can be changed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It cannot.
    ReadOnly,
    /// It can.
    ReadWrite,
    /// It cannot, and not before it has been unmounted.
    Stopped,
}

/// What exists only once the filesystem has been read-write.
struct Parts {
    journal: Arc<Journal>,
    allocator: Arc<Allocator>,
    accounting: Arc<Accounting>,
    copygc: Arc<Copygc>,
    /// What wakes it.
    signal: Arc<Signal>,
}

/// A call in another thread.
#[pin_data]
struct Call {
    #[pin]
    done: Completion,
    #[pin]
    result: SpinLock<Result>,
}

/// What the filesystem is written with.
#[pin_data]
pub struct Writing {
    /// The btrees.
    pub btree: Arc<Btree>,
    /// Permission to change anything.
    pub writers: Arc<WriteRefs>,
    /// The clocks that go by I/O.
    pub clocks: Arc<IoClocks>,
    sup: Arc<Super>,
    live: Arc<LiveSuper>,
    devices: Arc<Devices>,
    snapshots: Arc<SnapshotTable>,
    counters: Arc<Counters>,
    client: Arc<FsJournalClient>,
    /// What the journal starts from, the first time.
    start: KBox<StartState>,
    parts: SetOnce<Parts>,
    nochanges: bool,
    /// The journal has failed.
    failed: Atomic<u32>,
    /// The journal has been replayed, or the filesystem initialised.
    recovered: Atomic<u32>,
    /// It was read-write when it was frozen.
    frozen: Atomic<u32>,
    queue: WorkQueue,
    #[pin]
    phase: Mutex<Phase>,
}

impl Writing {
    /// For a filesystem that is being mounted: read-only to begin with. May sleep.
    #[allow(clippy::too_many_arguments)] // One for each part of a filesystem.
    #[inline(never)]
    pub(super) fn new(
        sup: Arc<Super>,
        live: Arc<LiveSuper>,
        devices: Arc<Devices>,
        btree: Arc<Btree>,
        snapshots: Arc<SnapshotTable>,
        counters: Arc<Counters>,
        client: Arc<FsJournalClient>,
        clocks: Arc<IoClocks>,
        start: KBox<StartState>,
        options: &Options,
    ) -> Result<Arc<Self>> {
        let writers = Arc::new(WriteRefs::new()?, GFP_KERNEL)?;
        let queue = WorkQueue::new(c"bcachefs-state", Kind::Unbound)?;
        let nochanges = options.nochanges;
        let writing = Arc::pin_init(
            pin_init!(Writing {
                btree,
                writers,
                clocks,
                sup,
                live,
                devices,
                snapshots,
                counters,
                client,
                start,
                parts: SetOnce::new(),
                nochanges,
                failed: Atomic::new(0),
                recovered: Atomic::new(0),
                frozen: Atomic::new(0),
                queue,
                phase <- new_mutex!(Phase::ReadOnly, "fs_phase"),
            }),
            GFP_KERNEL,
        )?;
        Ok(writing)
    }

    /// Whether the filesystem can be changed. May sleep, while that is just changing.
    pub fn phase(&self) -> Phase {
        *self.phase.lock()
    }

    /// Whether the journal has failed since the filesystem was mounted.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Relaxed) != 0
    }

    /// The journal, once the filesystem has been read-write.
    pub fn journal(&self) -> Option<&Arc<Journal>> {
        self.parts.as_ref().map(|p| &p.journal)
    }

    /// The allocator, once the filesystem has been read-write.
    pub fn allocator(&self) -> Option<&Arc<Allocator>> {
        self.parts.as_ref().map(|p| &p.allocator)
    }

    /// What wakes who moves data together, once the filesystem has been read-write.
    pub fn copygc(&self) -> Option<&Arc<Signal>> {
        self.parts.as_ref().map(|p| &p.signal)
    }

    /// The counters of what the filesystem holds, once it has been read-write.
    pub fn accounting(&self) -> Option<&Arc<Accounting>> {
        self.parts.as_ref().map(|p| &p.accounting)
    }

    /// Becomes read-write, if it is not. What is wrong, if anything, is explained in `log`. Sleeps for long.
    pub fn go_read_write(self: &Arc<Self>, log: &dyn Log) -> Result {
        if !CAN_WRITE {
            log.error(format_args!(
                "{}: only read-only mounts are supported yet",
                *self.sup
            ));
            return Err(Error::DeviceReadOnlyNeeded);
        }
        let mut phase = self.phase.lock();
        match *phase {
            Phase::ReadWrite => return Ok(()),
            Phase::Stopped => {
                log.error(format_args!(
                    "{}: was stopped by an error; it has to be unmounted first",
                    *self.sup
                ));
                return Err(Error::JournalFailed);
            }
            Phase::ReadOnly => {}
        }
        if self.nochanges {
            log.error(format_args!("{}: mounted with nochanges: read-only", *self.sup));
            return Err(Error::ReadOnly);
        }
        let first = self.parts.as_ref().is_none();
        if first {
            recovery::verdict::check_superblock(&self.sup, &self.devices, log)?;
            recovery::verdict::check_btrees(&self.sup, &self.btree, log)?;
        }
        for device in self.devices.iter() {
            device.bdev.set_access(Access::ReadWrite).inspect_err(|_| {
                log.error(format_args!("{}: cannot be written", **device));
            })?;
        }
        let done = self.apart(Self::start_writing);
        if let Err(e) = done {
            log.error(format_args!("{}: cannot go read-write: {e}", *self.sup));
            // The first error is the one to report.
            let _ = self.apart(|this| this.stop_writing(true));
            *phase = match self.parts.as_ref() {
                Some(_) => Phase::Stopped,
                None => Phase::ReadOnly,
            };
            self.close_devices();
            return Err(e);
        }
        self.writers.start();
        *phase = Phase::ReadWrite;
        if let Some(parts) = self.parts.as_ref() {
            parts.allocator.kick();
            parts.signal.start(parts.copygc.clone());
        }
        drop(phase);
        if first {
            self.finish_interrupted(log)?;
        }
        Ok(())
    }

    /// Finishes what a crash has interrupted of operations on files, before files are changed. Sleeps for long.
    fn finish_interrupted(self: &Arc<Self>, log: &dyn Log) -> Result {
        let done = self.apart(|this| {
            let count = data::logged::resume_all(&this.btree, this.sup.block_bytes().into())?;
            if count != 0 {
                fs_info!(*this.sup, "{count} interrupted operations on files have been finished");
            }
            Ok(())
        });
        done.inspect_err(|e| {
            log.error(format_args!(
                "{}: an interrupted operation on a file cannot be finished: {e}",
                *self.sup
            ));
            // What went wrong first is what to report.
            let _ = self.go_read_only();
        })
    }

    /// Runs `f` in a thread of the work queue, and waits for it. Mounting and unmounting begin deep in the VFS, and what they
    /// do here needs most of a stack. Sleeps.
    fn apart(self: &Arc<Self>, f: fn(&Arc<Self>) -> Result) -> Result {
        let call = Arc::pin_init(
            pin_init!(Call {
                done <- Completion::new(),
                result <- new_spinlock!(Ok(()), "fs_phase_call"),
            }),
            GFP_KERNEL,
        )?;
        let (this, theirs) = (self.clone(), call.clone());
        let spawned = self.queue.try_spawn(GFP_KERNEL, move || {
            let result = f(&this);
            // Before the caller goes on, who may be about to drop the queue.
            drop(this);
            *theirs.result.lock() = result;
            theirs.done.complete_all();
        });
        if spawned.is_err() {
            // What has to be done has to be done.
            return f(self);
        }
        call.done.wait_for_completion();
        let result = *call.result.lock();
        result
    }

    /// The steps of going read-write.
    fn start_writing(self: &Arc<Self>) -> Result {
        let initialized = self.live.initialized()?;
        let first = self.parts.as_ref().is_none();
        if first {
            let parts = self.make_parts()?;
            self.parts.populate(parts);
        }
        let parts = self.parts.as_ref().ok_or(Error::ReadOnly)?;
        self.mark_dirty()?;
        self.client.attach(Some(self.clone()));
        self.live.set_on_failure(Some(self.client.clone()));
        parts.journal.start()?;
        parts.allocator.start(self.btree.clone())?;
        if self.recovered.load(Relaxed) != 0 {
            return Ok(());
        }
        if !initialized {
            recovery::initialise(
                &self.sup,
                &self.live,
                &self.devices,
                &self.btree,
                &parts.journal,
            )?;
            self.btree.allow_accounting_flush();
        } else {
            recovery::replay(&self.sup, &self.btree, &parts.journal)?;
            recovery::passes::run(&self.live, &self.devices, &self.btree)?;
        }
        parts.allocator.recalc_capacity();
        let known = self.live.read(|sb| sb.compat().contains(Compat::ALLOC_INFO))?;
        if !known {
            self.live.change(|image| image.set_compat(Compat::ALLOC_INFO))?;
        }
        let deleted = inode::delete::finish_all(&self.btree)?;
        if deleted != 0 {
            fs_info!(*self.sup, "{deleted} files without names deleted");
        }
        self.recovered.store(1, Relaxed);
        self.btree.start_caching_keys();
        Ok(())
    }

    /// Makes the parts that write, in the order in which they know each other.
    fn make_parts(self: &Arc<Self>) -> Result<Parts> {
        let replicas = Arc::new(SuperReplicas(self.live.clone()), GFP_KERNEL)?;
        let accounting = Accounting::new(&self.sup, replicas)?;
        accounting.read(&self.btree)?;
        let signal = Signal::new()?;
        let client = FsAllocClient {
            live: self.live.clone(),
            accounting: accounting.clone(),
            clocks: self.clocks.clone(),
            writers: self.writers.clone(),
            copygc: signal.clone(),
            may_discard: true,
        };
        let client = Arc::new(client, GFP_KERNEL)?;
        let flushed = match self.start.replayed {
            Some((_, last)) => last,
            None => self.start.next_seq.saturating_sub(1),
        };
        let allocator = Allocator::new(
            &self.sup,
            &self.devices,
            client,
            self.counters.clone(),
            flushed,
        )?;
        allocator.read_generations(&self.btree)?;
        let journal = Journal::new(
            &self.sup,
            self.devices.clone(),
            &self.start,
            self.client.clone(),
        )?;
        let client = FsTriggerClient {
            allocator: allocator.clone(),
            clocks: self.clocks.clone(),
        };
        let triggers = AllocTriggers::new(
            &self.sup,
            accounting.clone(),
            self.snapshots.clone(),
            journal.clone(),
            Arc::new(client, GFP_KERNEL)?,
        )?;
        self.btree.start_writing(Engine {
            journal: journal.clone(),
            triggers,
            space: alloc::btree_space(&allocator)?,
            writers: self.writers.clone(),
        })?;
        let copygc = Copygc::new(copygc::Parts {
            name: CString::try_from_fmt(format_args!("{}", *self.sup))?,
            sup: self.sup.clone(),
            btree: self.btree.clone(),
            devices: self.devices.clone(),
            counters: self.counters.clone(),
            clocks: self.clocks.clone(),
            allocator: allocator.clone(),
            signal: signal.clone(),
        })?;
        Ok(Parts {
            journal,
            allocator,
            accounting,
            copygc,
            signal,
        })
    }

    /// Has the superblock say that the filesystem is in use, and which entries of the journal never counted, before anything else is
    /// written.
    fn mark_dirty(&self) -> Result {
        let now = kfs::time::real_seconds();
        self.live.change(|image| {
            image.edit_flags(|flags| flags.set_clean(0))?;
            image.edit_features(Features::ON_READ_WRITE, Features(0))?;
            image.edit_ext(|_| ())?;
            if self.recovered.load(Relaxed) == 0 {
                image.set_blacklist(self.start.blacklist.ranges())?;
            }
            for device in self.devices.iter() {
                image.edit_member(device.index, |m| m.last_mount.set(now))?;
            }
            Ok(())
        })
    }

    /// Becomes read-only, if it is not: everything is written out and the superblock marked clean. Sleeps for long.
    ///
    /// # Errors
    ///
    /// It is read-only in any case; with an error the next mount replays the journal.
    pub fn go_read_only(self: &Arc<Self>) -> Result {
        let mut phase = self.phase.lock();
        if *phase != Phase::ReadWrite {
            return Ok(());
        }
        self.writers.stop();
        self.writers.wait();
        let result = self.apart(|this| this.stop_writing(false));
        *phase = match result {
            Ok(()) => Phase::ReadOnly,
            Err(_) => Phase::Stopped,
        };
        self.close_devices();
        result
    }

    /// Stops everything that writes; in an emergency as it is.
    fn stop_writing(&self, emergency: bool) -> Result {
        let Some(parts) = self.parts.as_ref() else {
            return Ok(());
        };
        parts.signal.stop();
        let mut result = match emergency || self.has_failed() {
            true => Err(Error::JournalFailed),
            false => self.write_out(parts),
        };
        if result.is_err() {
            parts.journal.halt(Error::JournalFailed);
            // Those who wait for room are woken, and with them whoever waits for those.
            parts.allocator.stop();
            self.finish_stopped();
        }
        let last = parts.journal.stop();
        self.btree.stop_interior();
        parts.allocator.stop();
        if result.is_ok() {
            result = last.and_then(|seq| self.mark_clean(parts, seq));
        }
        if let Err(e) = result {
            fs_err!(*self.sup, "not shut down cleanly: {e}");
        }
        result
    }

    /// Writes out until there is nothing left to write, twice: each step can leave work for one before it.
    fn write_out(&self, parts: &Parts) -> Result {
        let mut quiet = 0;
        let mut before = 0;
        for _ in 0..SHUTDOWN_ROUNDS_MAX {
            let mut busy = self.btree.flush_interior()?;
            busy |= self.btree.flush_write_buffer()?;
            busy |= parts.journal.flush_pins(u64::MAX)?;
            busy |= self.btree.flush_nodes()?;
            self.btree.wait_node_writes();
            let now = parts.journal.cur_seq();
            if self.has_failed() {
                return Err(Error::JournalFailed);
            }
            quiet = if busy || now != before { 0 } else { quiet + 1 };
            before = now;
            if quiet == 2 {
                return Ok(());
            }
        }
        fs_warn!(*self.sup, "shutting down: there is always something left to write");
        Err(Error::JournalStuck)
    }

    /// After an emergency: waits for what was under way, which fails.
    fn finish_stopped(&self) {
        let _ = self.btree.flush_interior();
        self.btree.wait_node_writes();
    }

    /// Has the superblock say that the last entry of the journal was `seq`, and that there is nothing to replay.
    fn mark_clean(&self, parts: &Parts, seq: u64) -> Result {
        if self.btree.dirty_nodes() != 0 || self.btree.dirty_keys() != 0 {
            fs_err!(*self.sup, "shutting down: nodes or keys left that have not been written");
            return Err(Error::BtreeNodeWrite);
        }
        if !self.live.initialized()? || self.recovered.load(Relaxed) == 0 {
            return Ok(());
        }
        self.live.change(|image| {
            let u64s = self.client.clean_u64s();
            image.set_clean_section(seq, u64s, |out| self.client.clean_records(out))?;
            image.edit_flags(|flags| flags.set_clean(1))?;
            image.edit_features(Features(0), Features::CLEARED_WHEN_CLEAN)?;
            image.set_compat(Compat::ON_CLEAN)?;
            for device in self.devices.iter() {
                let Some((bucket, offset)) = parts.journal.position(device.index) else {
                    continue;
                };
                image.edit_member(device.index, |m| {
                    m.last_journal_bucket.set(bucket);
                    m.last_journal_bucket_offset.set(offset);
                })?;
            }
            Ok(())
        })
    }

    fn close_devices(&self) {
        for device in self.devices.iter() {
            // Never fails in this direction.
            let _ = device.bdev.set_access(Access::ReadOnly);
        }
    }

    /// Something went wrong that the journal cannot go on after: stops changes, from a work item. Does not sleep.
    pub(super) fn emergency(self: &Arc<Self>, error: Error) {
        if self.failed.xchg(1, Full) != 0 {
            return;
        }
        fs_err!(*self.sup, "{error}: going read-only");
        let this = self.clone();
        if self
            .queue
            .try_spawn(GFP_ATOMIC, move || this.stop_after_failure())
            .is_err()
        {
            // Nothing can be journalled any more, so nothing is changed; unmounting does the rest.
            fs_err!(*self.sup, "no memory to go read-only in an orderly way");
        }
    }

    fn stop_after_failure(&self) {
        let mut phase = self.phase.lock();
        if *phase != Phase::ReadWrite {
            return;
        }
        self.writers.stop();
        if let Some(parts) = self.parts.as_ref() {
            // Who holds a reference may wait for room, which will never come.
            parts.allocator.stop();
        }
        self.writers.wait();
        let _ = self.stop_writing(true);
        *phase = Phase::Stopped;
        self.close_devices();
        fs_info!(*self.sup, "read-only");
    }

    /// Entries up to `seq` are durable.
    pub(super) fn journal_flushed(&self, seq: u64) {
        if let Some(parts) = self.parts.as_ref() {
            parts.allocator.journal_flushed(seq);
        }
    }

    /// Makes everything durable that has been changed; without `wait` only begins to. Sleeps.
    ///
    /// # Errors
    ///
    /// [`Error::JournalFailed`] after an emergency: what was changed last may be lost.
    pub fn sync(&self, wait: bool) -> Result {
        let Some(parts) = self.parts.as_ref() else {
            return Ok(());
        };
        if self.has_failed() {
            return Err(Error::JournalFailed);
        }
        if !self.writers.are_given() {
            return Ok(());
        }
        let seq = parts.journal.cur_seq();
        if wait {
            parts.journal.flush(seq)
        } else {
            parts.journal.flush_async(seq);
            Ok(())
        }
    }

    /// Before the devices are copied or put to sleep: as for becoming read-only, but for a while only. Sleeps.
    pub fn freeze(self: &Arc<Self>) -> Result {
        if self.phase() == Phase::ReadWrite {
            self.frozen.store(1, Relaxed);
        }
        self.go_read_only()
    }

    /// After [`Writing::freeze`]: becomes what it was before. Sleeps.
    pub fn thaw(self: &Arc<Self>, log: &dyn Log) -> Result {
        match self.frozen.xchg(0, Full) {
            0 => Ok(()),
            _ => self.go_read_write(log),
        }
    }

    /// At unmount: becomes read-only, and lets go of what refers to it. Sleeps.
    pub(super) fn shutdown(self: &Arc<Self>) {
        // Errors have been reported.
        let _ = self.go_read_only();
        self.queue.flush();
        if let Some(parts) = self.parts.as_ref() {
            parts.journal.detach();
        }
        self.live.set_on_failure(None);
        self.client.attach(None);
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::ReadOnly => "ro",
            Phase::ReadWrite => "rw",
            Phase::Stopped => "emergency_ro",
        })
    }
}
