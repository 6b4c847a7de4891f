// SPDX-License-Identifier: GPL-2.0
//! What reading the journal found, for people.

use core::fmt;

use super::StartState;

/// Kept for showing after the start state has been handed on.
#[derive(Copy, Clone, Debug)]
pub struct Summary {
    /// First and last entry laid over the btrees; `None` after a clean shutdown.
    pub replayed: Option<(u64, u64)>,
    /// Where the journal would go on.
    pub next_seq: u64,
    /// Keys in the overlay.
    pub keys: usize,
    /// Memory of the overlay.
    pub memory_bytes: usize,
    /// Ranges on the blacklist.
    pub blacklisted_ranges: usize,
}

impl Summary {
    /// Of a start state.
    #[inline(never)]
    pub fn new(start: &StartState) -> Self {
        Summary {
            replayed: start.replayed,
            next_seq: start.next_seq,
            keys: start.keys.len(),
            memory_bytes: start.keys.memory_bytes(),
            blacklisted_ranges: start.blacklist.ranges().len(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.replayed {
            None => write!(f, "clean shutdown, next journal entry {}", self.next_seq)?,
            Some((first, last)) => write!(
                f,
                "unclean shutdown, journal entries {first}..={last}, {} keys in {} KiB, next entry {}",
                self.keys,
                self.memory_bytes >> 10,
                self.next_seq
            )?,
        }
        write!(f, ", {} blacklisted ranges", self.blacklisted_ranges)
    }
}
