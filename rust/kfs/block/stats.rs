// SPDX-License-Identifier: GPL-2.0

//! How much a device was used, and how long it took.

use super::Op;
use kernel::sync::atomic::{Atomic, Relaxed};

/// What has been transferred since the device was opened. Times are in nanoseconds from submission to completion,
/// times in the queue included; simultaneous transfers each count their own.
#[derive(Copy, Clone, Debug, Default)]
pub struct IoStats {
    /// Completed reads.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Time of all reads together.
    pub read_ns: u64,
    /// Time of the slowest read.
    pub read_ns_max: u64,
    /// Completed writes and flushes.
    pub writes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Time of all writes together.
    pub write_ns: u64,
    /// Time of the slowest write.
    pub write_ns_max: u64,
    /// Transfers that failed; they are not counted elsewhere.
    pub errors: u64,
}

/// One direction.
struct Direction {
    count: Atomic<u64>,
    bytes: Atomic<u64>,
    ns: Atomic<u64>,
    ns_max: Atomic<u64>,
}

impl Direction {
    const fn new() -> Self {
        Self {
            count: Atomic::new(0),
            bytes: Atomic::new(0),
            ns: Atomic::new(0),
            ns_max: Atomic::new(0),
        }
    }

    fn add(&self, bytes: usize, ns: u64) {
        self.count.add(1u64, Relaxed);
        self.bytes.add(bytes as u64, Relaxed);
        self.ns.add(ns, Relaxed);
        let mut max = self.ns_max.load(Relaxed);
        while ns > max {
            match self.ns_max.cmpxchg(max, ns, Relaxed) {
                Ok(_) => break,
                Err(now) => max = now,
            }
        }
    }
}

/// The counters behind [`IoStats`].
pub(super) struct Counters {
    read: Direction,
    write: Direction,
    errors: Atomic<u64>,
}

impl Counters {
    pub(super) const fn new() -> Self {
        Self {
            read: Direction::new(),
            write: Direction::new(),
            errors: Atomic::new(0),
        }
    }

    pub(super) fn completed(&self, op: Op, bytes: usize, ns: u64) {
        match op {
            Op::Read => self.read.add(bytes, ns),
            Op::Write | Op::Flush => self.write.add(bytes, ns),
        }
    }

    pub(super) fn failed(&self) {
        self.errors.add(1u64, Relaxed);
    }

    pub(super) fn read_all(&self) -> IoStats {
        IoStats {
            reads: self.read.count.load(Relaxed),
            read_bytes: self.read.bytes.load(Relaxed),
            read_ns: self.read.ns.load(Relaxed),
            read_ns_max: self.read.ns_max.load(Relaxed),
            writes: self.write.count.load(Relaxed),
            write_bytes: self.write.bytes.load(Relaxed),
            write_ns: self.write.ns.load(Relaxed),
            write_ns_max: self.write.ns_max.load(Relaxed),
            errors: self.errors.load(Relaxed),
        }
    }
}

/// Now, for differences.
pub(super) fn now_ns() -> u64 {
    // SAFETY: No requirements.
    unsafe { crate::bindings::ktime_get() as u64 }
}
