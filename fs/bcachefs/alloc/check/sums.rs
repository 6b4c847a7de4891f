// SPDX-License-Identifier: GPL-2.0
//! Counters by the position of their accounting key, added up while nodes are locked: memory is got beforehand.

use crate::util::error::Result;
use bcachefs_format::{
    keys::accounting::{AccountingKey, ACCOUNTING_COUNTERS_MAX},
    Bpos,
};
use kernel::prelude::*;

/// Most keys that one key with pointers adds to.
const PER_KEY: usize = 40;
/// Keys that memory is got for at once.
const BATCH: usize = 256;

/// The counters of one accounting key.
pub(super) type Values = [i64; ACCOUNTING_COUNTERS_MAX];

struct Sum {
    pos: Bpos,
    values: Values,
    seen: bool,
}

/// The sums, ascending by position.
pub(super) struct Sums {
    sums: KVVec<Sum>,
}

impl Sums {
    pub(super) fn new() -> Self {
        Sums { sums: KVVec::new() }
    }

    /// Whether what one key adds fits.
    pub(super) fn has_room(&self) -> bool {
        self.sums.capacity() - self.sums.len() >= PER_KEY
    }

    /// Makes room. May sleep.
    pub(super) fn make_room(&mut self) -> Result {
        Ok(self.sums.reserve(PER_KEY + BATCH.max(self.sums.len()), GFP_KERNEL)?)
    }

    fn find(&self, pos: Bpos) -> core::result::Result<usize, usize> {
        self.sums.binary_search_by(|s| s.pos.cmp(&pos))
    }

    /// Adds to a key. Does not allocate; without room it is lost.
    pub(super) fn add(&mut self, what: AccountingKey, deltas: &[i64]) {
        let Some(pos) = what.to_pos() else {
            return;
        };
        let at = match self.find(pos) {
            Ok(at) => at,
            Err(at) => {
                let sum = Sum { pos, values: Values::default(), seen: false };
                let _ = self.sums.insert_within_capacity(at, sum);
                at
            }
        };
        if let Some(sum) = self.sums.get_mut(at).filter(|s| s.pos == pos) {
            for (to, delta) in sum.values.iter_mut().zip(deltas) {
                *to = to.wrapping_add(*delta);
            }
        }
    }

    /// The sum for a key, which counts as seen from now on.
    pub(super) fn take(&mut self, pos: Bpos) -> Values {
        let at = self.find(pos).ok();
        match at.and_then(|at| self.sums.get_mut(at)) {
            Some(sum) => {
                sum.seen = true;
                sum.values
            }
            None => Values::default(),
        }
    }

    /// Sums other than zero that have not been seen.
    pub(super) fn unseen(&self) -> impl Iterator<Item = (Bpos, Values)> + '_ {
        self.sums
            .iter()
            .filter(|s| !s.seen && s.values != Values::default())
            .map(|s| (s.pos, s.values))
    }
}

#[kernel::macros::kunit_tests(bcachefs_alloc_check_sums)]
mod tests {
    use super::*;

    #[test]
    fn sums_add_up_and_are_seen() -> Result {
        let mut sums = Sums::new();
        assert!(!sums.has_room());
        sums.make_room()?;
        assert!(sums.has_room());
        let key = |id| AccountingKey::Snapshot { id };
        for i in 0..100u32 {
            sums.add(key(i * 7 % 10), &[i64::from(i)]);
        }
        let pos = |id| key(id).to_pos().unwrap_or_default();
        // 7 * 3 = 21: the numbers that end in 3.
        assert_eq!(sums.take(pos(1)), [3 + 13 + 23 + 33 + 43 + 53 + 63 + 73 + 83 + 93, 0, 0]);
        assert_eq!(sums.take(pos(77)), [0; 3]);
        assert_eq!(sums.unseen().count(), 9);
        sums.add(key(1), &[5]);
        assert_eq!(sums.unseen().count(), 9);
        Ok(())
    }
}
