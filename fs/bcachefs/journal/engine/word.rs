// SPDX-License-Identifier: GPL-2.0
//! The word that reservations are made in.
//!
//! One atomic word says which staging buffer is open, how much of it is given out, and how many reservations each of the four
//! buffers still has to wait for. A reservation is one compare-and-exchange, giving it back one subtraction.
//!
//! | bits | what |
//! |---|---|
//! | 0..20 | words given out in the open buffer; the two highest values: closed, failed |
//! | 20..22 | the open buffer, or the one that was open last |
//! | 22..24 | laps through the buffers, modulo 4: against a word that comes back while somebody looks away |
//! | 24..64 | references to each buffer, ten bits each; an open entry holds one itself |

/// Number of staging buffers.
pub(super) const SLOTS: usize = 4;

const OFFSET_BITS: u32 = 20;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
/// Nothing can be reserved now.
const CLOSED: u64 = OFFSET_MASK - 1;
/// Nothing can be reserved any more.
const FAILED: u64 = OFFSET_MASK;
const COUNT_MAX: u64 = (1 << 10) - 1;

/// Most words an entry can have, so that offsets fit.
pub(super) const ENTRY_U64S_MAX: u32 = CLOSED as u32 - 1;

/// A value of the word.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    /// Nothing open, the last buffer being that of entry `seq`, no references.
    pub(super) fn closed_after(seq: u64) -> Self {
        Word(CLOSED | (seq % SLOTS as u64) << 20)
    }

    fn offset_bits(self) -> u64 {
        self.0 & OFFSET_MASK
    }

    fn with_offset(self, offset: u64) -> Self {
        Word(self.0 & !OFFSET_MASK | offset)
    }

    /// Words given out, if a buffer is open.
    #[inline]
    pub(super) fn offset(self) -> Option<u32> {
        let offset = self.offset_bits();
        // 20 bits.
        (offset < CLOSED).then_some(offset as u32)
    }

    pub(super) fn is_failed(self) -> bool {
        self.offset_bits() == FAILED
    }

    /// The buffer that is or was open.
    #[inline]
    pub(super) fn slot(self) -> usize {
        (self.0 >> 20 & 3) as usize
    }

    /// What one reference to buffer `slot` counts.
    #[inline]
    pub(super) fn unit(slot: usize) -> u64 {
        1 << (24 + 10 * (slot % SLOTS))
    }

    /// References to buffer `slot`.
    pub(super) fn count(self, slot: usize) -> u64 {
        self.0 / Self::unit(slot) & COUNT_MAX
    }

    /// With `u64s` more words given out, and one reference for them. `None` if there are too many references.
    #[inline]
    pub(super) fn reserve(self, u64s: u32) -> Option<Self> {
        let slot = self.slot();
        (self.count(slot) < COUNT_MAX).then(|| Word(self.0 + u64::from(u64s) + Self::unit(slot)))
    }

    /// With buffer `slot` open and empty. It must have no references.
    pub(super) fn open(self, slot: usize) -> Self {
        let lap = (self.0 >> 22).wrapping_add(u64::from(slot == 0)) & 3;
        let rest = self.0 & !(OFFSET_MASK | 15 << 20);
        Word(rest | ((slot % SLOTS) as u64) << 20 | lap << 22).plus(slot)
    }

    fn plus(self, slot: usize) -> Self {
        Word(self.0 + Self::unit(slot))
    }

    /// With nothing open. References remain.
    pub(super) fn close(self) -> Self {
        self.with_offset(CLOSED)
    }

    /// With nothing open ever again. References remain.
    pub(super) fn fail(self) -> Self {
        self.with_offset(FAILED)
    }
}

#[cfg(bcachefs_kunit)]
#[kernel::macros::kunit_tests(bcachefs_journal_word)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_apart() {
        let w = Word::closed_after(6);
        assert_eq!((w.offset(), w.slot(), w.is_failed()), (None, 2, false));
        let w = w.open(3);
        assert_eq!((w.offset(), w.slot()), (Some(0), 3));
        assert_eq!((w.count(2), w.count(3)), (0, 1));
        let w = w.reserve(7).and_then(|w| w.reserve(5)).unwrap();
        assert_eq!((w.offset(), w.count(3)), (Some(12), 3));
        let w = w.close().open(0).reserve(1).unwrap();
        assert_eq!((w.offset(), w.slot()), (Some(1), 0));
        assert_eq!((w.count(3), w.count(0), w.count(1)), (3, 2, 0));
        let w = Word(w.0 - Word::unit(3));
        assert_eq!((w.count(3), w.count(0)), (2, 2));
        let w = w.fail();
        assert_eq!((w.offset(), w.is_failed(), w.count(0)), (None, true, 2));
    }

    #[test]
    fn references_do_not_overflow() {
        let mut w = Word::closed_after(0).open(1);
        for _ in 1..COUNT_MAX {
            w = w.reserve(1).unwrap();
        }
        assert!(w.reserve(1).is_none());
        assert_eq!((w.count(0), w.count(1), w.count(2)), (0, COUNT_MAX, 0));
    }

    #[test]
    fn a_word_does_not_come_back_soon() {
        let first = Word::closed_after(0).open(1);
        let mut w = first;
        for seq in 2..2 + 15 {
            w = Word(w.close().0 - Word::unit(w.slot())).open(seq % SLOTS);
            if seq < 1 + 16 {
                assert!(w.0 != first.0);
            }
        }
    }
}
