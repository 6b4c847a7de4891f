// SPDX-License-Identifier: GPL-2.0
//! When a node is written: steps of its flags.
//!
//! Each is one atomic change, so that of two who want to write a node one does, and a wish to write it that comes up during
//! a write is not forgotten.

use super::{NotWritten, WriteWhy};
use crate::btree::node::Flag;

fn has(v: u32, flag: Flag) -> bool {
    v & flag.bits() != 0
}

/// Starts a write; `first`: nothing of the node has been written yet.
pub(super) fn start(v: u32, why: WriteWhy, first: bool) -> Result<u32, NotWritten> {
    let refused = if !has(v, Flag::DIRTY) {
        NotWritten::Clean
    } else if why == WriteWhy::Needed && !has(v, Flag::NEED_WRITE) {
        NotWritten::NotNeeded
    } else if has(v, Flag::NEVER_WRITE) || has(v, Flag::FAKE) {
        NotWritten::Never
    } else if has(v, Flag::WRITE_BLOCKED) {
        NotWritten::Blocked
    } else if !first && has(v, Flag::WILL_MAKE_REACHABLE) {
        NotWritten::NotReachable
    } else if has(v, Flag::WRITE_IN_FLIGHT) {
        NotWritten::InFlight
    } else {
        let v = v & !(Flag::DIRTY.bits() | Flag::NEED_WRITE.bits());
        let v = v | Flag::WRITE_IN_FLIGHT.bits() | Flag::WRITE_IN_FLIGHT_INNER.bits();
        return Ok(v ^ Flag::WRITE_SLOT.bits());
    };
    Err(refused)
}

/// The devices are done.
pub(super) fn io_done(v: u32) -> u32 {
    v & !Flag::WRITE_IN_FLIGHT_INNER.bits()
}

/// The write has ended.
pub(super) fn finish(v: u32) -> u32 {
    v & !(Flag::WRITE_IN_FLIGHT.bits() | Flag::WRITE_IN_FLIGHT_INNER.bits())
}

/// What was to be written could not be: it stays unwritten, for good, and in memory.
pub(super) fn give_up(v: u32) -> u32 {
    finish(v) | Flag::DIRTY.bits() | Flag::NEVER_WRITE.bits() | Flag::NOEVICT.bits()
}

/// Whether the node is to be written again now.
pub(super) fn wanted(v: u32) -> bool {
    has(v, Flag::NEED_WRITE) && start(v, WriteWhy::Needed, true).is_ok()
}

#[cfg(bcachefs_kunit)]
#[kernel::macros::kunit_tests(bcachefs_node_write_state)]
mod tests {
    use super::*;

    /// All combinations of the flags that matter, against the rules one by one.
    #[test]
    fn writes_start_as_ruled() {
        let flags = [
            Flag::DIRTY,
            Flag::NEED_WRITE,
            Flag::NEVER_WRITE,
            Flag::WRITE_BLOCKED,
            Flag::WILL_MAKE_REACHABLE,
            Flag::WRITE_IN_FLIGHT,
            Flag::WRITE_SLOT,
        ];
        let mut started = 0;
        for n in 0..1u32 << flags.len() {
            let on = |i: usize| n & 1 << i != 0;
            let v = flags.iter().enumerate().fold(0, |v, (i, f)| if on(i) { v | f.bits() } else { v });
            for (why, first) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let (only_needed, first) = (why == 1, first == 1);
                let why = if only_needed { WriteWhy::Needed } else { WriteWhy::Dirty };
                let may = on(0)
                    && (on(1) || !only_needed)
                    && !on(2)
                    && !on(3)
                    && (first || !on(4))
                    && !on(5);
                let result = start(v, why, first);
                assert_eq!(result.is_ok(), may);
                let Ok(new) = result else { continue };
                started += 1;
                assert!(!has(new, Flag::DIRTY) && !has(new, Flag::NEED_WRITE));
                assert!(has(new, Flag::WRITE_IN_FLIGHT) && has(new, Flag::WRITE_IN_FLIGHT_INNER));
                // The other slot, so that what changes from now on is pinned apart.
                assert_eq!(has(new, Flag::WRITE_SLOT), !on(6));
                assert_eq!(start(new | Flag::DIRTY.bits(), why, first), {
                    match (only_needed, !first && on(4)) {
                        (true, _) => Err(NotWritten::NotNeeded),
                        (_, true) => Err(NotWritten::NotReachable),
                        _ => Err(NotWritten::InFlight),
                    }
                });
                let after = io_done(new);
                assert!(has(after, Flag::WRITE_IN_FLIGHT) && !has(after, Flag::WRITE_IN_FLIGHT_INNER));
                assert!(!has(finish(after), Flag::WRITE_IN_FLIGHT));
                assert!(!wanted(finish(after)));
                assert!(start(give_up(new), WriteWhy::Dirty, first) == Err(NotWritten::Never));
            }
        }
        assert!(started > 0);
    }

    #[test]
    fn a_wish_during_a_write_is_kept() {
        let v = start(Flag::DIRTY.bits(), WriteWhy::Dirty, false).unwrap_or(0);
        let v = v | Flag::DIRTY.bits() | Flag::NEED_WRITE.bits();
        assert!(!wanted(v));
        assert!(wanted(finish(io_done(v))));
        assert!(!wanted(finish(v) | Flag::WRITE_BLOCKED.bits()));
    }
}
