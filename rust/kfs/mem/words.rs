// SPDX-License-Identifier: GPL-2.0

//! Memory that several tasks write at once.

use crate::sync::InlineAtomic;
use kernel::{
    alloc::{AllocError, Flags},
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Relaxed, Release},
        SetOnce,
    },
};

/// A buffer of 64-bit words that can be stored and loaded by anybody at any time, and that can grow while it is in use.
///
/// Each word is an atomic accessed without ordering: a load sees some value that was stored, and which one is for the
/// users to arrange. Who gives out disjoint ranges and passes them on with a release and an acquire has a plain buffer.
///
/// Memory is taken in pieces of 64 KiB, so that growing moves nothing.
pub struct AtomicWords {
    pieces: KVec<SetOnce<KVVec<Atomic<u64>>>>,
    len: Atomic<usize>,
}

impl AtomicWords {
    /// Words of a piece.
    const PIECE: usize = 8192;

    /// An empty buffer that can grow to `max` words, rounded up to whole pieces. May sleep.
    pub fn new(max: usize) -> Result<Self, AllocError> {
        let nr = max.div_ceil(Self::PIECE);
        let mut pieces = KVec::with_capacity(nr, GFP_KERNEL)?;
        for _ in 0..nr {
            pieces.push(SetOnce::new(), GFP_KERNEL)?;
        }
        Ok(Self {
            pieces,
            len: Atomic::new(0),
        })
    }

    /// The number of words there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len.load(Acquire)
    }

    /// Whether it has not grown yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes it at least `words` long; new words are zero. Sleeps if `flags` allow it. Others may use the buffer
    /// meanwhile, but not grow it as well: what they add may be missing from the length for a moment.
    ///
    /// # Errors
    ///
    /// If memory is short, or `words` is beyond the maximum. What it has grown by until then remains.
    pub fn grow(&self, words: usize, flags: Flags) -> Result<(), AllocError> {
        let nr = words.div_ceil(Self::PIECE);
        let pieces = self.pieces.get(..nr).ok_or(AllocError)?;
        for (i, piece) in pieces.iter().enumerate() {
            if piece.as_ref().is_none() {
                let mut words = KVVec::with_capacity(Self::PIECE, flags)?;
                for _ in 0..Self::PIECE {
                    words.push(Atomic::new(0), flags)?;
                }
                piece.populate(words);
            }
            let end = (i + 1) * Self::PIECE;
            if self.len.load(Relaxed) < end {
                self.len.store(end, Release);
            }
        }
        Ok(())
    }

    /// The words from `at` on, as far as they are in one piece.
    #[inline]
    fn run(&self, at: usize) -> Option<&[Atomic<u64>]> {
        let piece = self.pieces.get(at / Self::PIECE)?.as_ref()?;
        piece.get(at % Self::PIECE..)
    }

    /// Stores `words` from `at` on. `false` if the buffer is too short; a part may have been stored then. Any context.
    #[inline]
    pub fn store(&self, mut at: usize, mut words: &[u64]) -> bool {
        while !words.is_empty() {
            let Some(run) = self.run(at) else {
                return false;
            };
            for (to, from) in run.iter().zip(words) {
                to.write(*from);
            }
            let n = run.len().min(words.len());
            at += n;
            words = words.get(n..).unwrap_or_default();
        }
        true
    }

    /// Stores zeroes in `nr` words from `at` on. `false` if the buffer is too short. Any context.
    pub fn clear(&self, at: usize, nr: usize) -> bool {
        const ZEROES: [u64; 32] = [0; 32];
        let mut done = 0;
        while done < nr {
            let n = (nr - done).min(ZEROES.len());
            if !self.store(at + done, ZEROES.get(..n).unwrap_or_default()) {
                return false;
            }
            done += n;
        }
        true
    }

    /// Loads what is from `at` on into `words`. `false` if the buffer is too short. Any context.
    pub fn load(&self, mut at: usize, mut words: &mut [u64]) -> bool {
        while !words.is_empty() {
            let Some(run) = self.run(at) else {
                return false;
            };
            let n = run.len().min(words.len());
            let Some((now, later)) = words.split_at_mut_checked(n) else {
                return false;
            };
            for (to, from) in now.iter_mut().zip(run) {
                *to = from.read();
            }
            at += n;
            words = later;
        }
        true
    }
}

#[kernel::macros::kunit_tests(kfs_atomic_words)]
mod tests {
    use super::*;

    #[test]
    fn words_cross_pieces_and_grow() -> Result {
        let words = AtomicWords::new(3 * AtomicWords::PIECE)?;
        assert!(words.is_empty());
        assert!(!words.store(0, &[1]));
        words.grow(AtomicWords::PIECE + 1, GFP_KERNEL)?;
        assert_eq!(words.len(), 2 * AtomicWords::PIECE);
        let at = AtomicWords::PIECE - 2;
        assert!(words.store(at, &[1, 2, 3, 4]));
        let mut read = [9; 5];
        assert!(words.load(at, &mut read));
        assert_eq!(read, [1, 2, 3, 4, 0]);
        assert!(words.clear(at + 1, 2));
        assert!(words.load(at, &mut read));
        assert_eq!(read, [1, 0, 0, 4, 0]);
        assert!(!words.store(2 * AtomicWords::PIECE - 1, &[1, 2]));
        assert!(!words.load(2 * AtomicWords::PIECE, &mut read));
        words.grow(3 * AtomicWords::PIECE, GFP_KERNEL)?;
        assert!(words.store(2 * AtomicWords::PIECE - 1, &[1, 2]));
        assert!(words.grow(3 * AtomicWords::PIECE + 1, GFP_KERNEL).is_err());
        Ok(())
    }
}
