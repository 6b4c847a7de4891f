// SPDX-License-Identifier: GPL-2.0
//! The journal's state, for people.

use core::fmt;

use super::{
    slot::{Entry, Phase},
    space::Space,
    state::Core,
    word::SLOTS,
};
use crate::util::{error::Error, watermark::Watermark};

/// The state at one moment.
pub struct Snapshot {
    cur: u64,
    open: bool,
    composed: u64,
    ondisk: u64,
    flushed: u64,
    last_seq: u64,
    last_seq_ondisk: u64,
    pins: usize,
    low: bool,
    blocked: u32,
    buf_u64s: u32,
    space: Space,
    entries: [Entry; SLOTS],
    failed: Option<Error>,
}

impl Core {
    /// Takes a picture. Any context but interrupts.
    pub(super) fn show(&self) -> Snapshot {
        let low = self.lowest() > Watermark::Stripe as u32;
        let i = self.inner.lock();
        Snapshot {
            cur: i.cur,
            open: i.open,
            composed: i.composed,
            ondisk: i.ondisk,
            flushed: i.flushed,
            last_seq: i.pins.front(),
            last_seq_ondisk: i.last_seq_ondisk,
            pins: i.pins.held(),
            low,
            blocked: i.blocked,
            buf_u64s: i.buf_u64s,
            space: i.space,
            entries: i.entries,
            failed: i.failed,
        }
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.open { "open" } else { "closed" };
        write!(
            f,
            "seq {} ({state}) composed {} on disk {} flushed {} last_seq {} on disk {} pins {} blocked {} buffer {} KiB",
            self.cur,
            self.composed,
            self.ondisk,
            self.flushed,
            self.last_seq,
            self.last_seq_ondisk,
            self.pins,
            self.blocked,
            self.buf_u64s / 128
        )?;
        let s = &self.space;
        write!(
            f,
            "; sectors free {} after discards {} after a flush {} of {}, next entry {}{}",
            s.discarded.total,
            s.clean_ondisk.total,
            s.clean.total,
            s.total.total,
            s.discarded.next_entry,
            if self.low { ", low" } else { "" }
        )?;
        for e in self.entries.iter().filter(|e| e.phase != Phase::Free) {
            write!(f, "; entry {} {:?} sectors {}", e.seq, e.phase, e.sectors)?;
            if e.must_flush {
                f.write_str(" must flush")?;
            }
        }
        match self.failed {
            Some(e) => write!(f, "; failed: {e}"),
            None => Ok(()),
        }
    }
}

// What the kernel's `pr_info!` and its siblings print.
impl kernel::fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
