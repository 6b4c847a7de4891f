// SPDX-License-Identifier: GPL-2.0
//! A position prepared for many comparisons with the packed keys of one node.
//!
//! A searched position need not be one that the node's format can hold. What can always be had is
//! the highest packed position that is not above it. Between the two lies no packed key, so
//! comparing keys with that lower bound gives the right answer:
//! a key above the bound is above the position, and, unless the bound is exact, a key at the bound
//! is below the position.

use core::cmp::Ordering;

use super::{low_mask, put_bits, BkeyFormat, NR_POS_FIELDS};
use crate::pos::Bpos;

/// How the packed bound relates to the position.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Bound {
    /// The position itself.
    Exact,
    /// The highest position below it that can be packed.
    Below,
    /// Everything that can be packed is above the position.
    None,
}

/// A position to search for, packed with one format.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct SearchPos {
    pos: Bpos,
    /// In the layout of [`BkeyFormat::pos_words`].
    words: [u64; 3],
    bound: Bound,
}

impl SearchPos {
    /// Packs `pos`, or the nearest lower position that `format` can hold.
    #[inline]
    pub fn new(format: &BkeyFormat, pos: Bpos) -> Self {
        let mut words = [0; 3];
        let mut at = 0;
        let fields = [pos.inode, pos.offset, pos.snapshot.into()];
        for ((v, &bits), &offset) in fields.into_iter().zip(&format.bits).zip(&format.offset) {
            let bits = u32::from(bits);
            let stored = v.wrapping_sub(offset);
            if v < offset || stored > low_mask(bits) {
                return Self::nearest(format, pos);
            }
            if bits != 0 {
                let top = stored << (64 - bits);
                let (word, shift) = ((at / 64) as usize, at % 64);
                if let Some(w) = words.get_mut(word) {
                    *w |= top >> shift;
                }
                if let (1.., Some(w)) = (shift, words.get_mut(word + 1)) {
                    *w |= top << (64 - shift);
                }
                at += bits;
            }
        }
        SearchPos {
            pos,
            words,
            bound: Bound::Exact,
        }
    }

    /// The same for any position.
    #[inline(never)]
    fn nearest(format: &BkeyFormat, pos: Bpos) -> Self {
        // Least significant word first while the number is being made.
        let mut words = [0u64; 3];
        let mut at = 192;
        let mut bound = Bound::Exact;
        // Once a field has been replaced by its highest value, so are all after it.
        let mut saturate = false;
        let fields = [pos.inode, pos.offset, pos.snapshot.into()];
        let mut borrow = false;
        for (i, v) in fields.into_iter().enumerate().take(NR_POS_FIELDS) {
            let bits = u32::from(format.bits[i]);
            let mask = low_mask(bits);
            at -= bits;
            if borrow {
                continue;
            }
            let stored = match v.checked_sub(format.offset[i]) {
                _ if saturate => mask,
                Some(s) if s <= mask => s,
                Some(_) => {
                    saturate = true;
                    mask
                }
                None => {
                    // Too low in this field: the bound is the last position before the prefix made
                    // so far, with zeros in what follows.
                    borrow = true;
                    0
                }
            };
            put_bits(&mut words, at, stored);
        }
        if saturate {
            bound = Bound::Below;
        }
        if borrow {
            bound = if decrement(&mut words, at) {
                Bound::Below
            } else {
                Bound::None
            };
        }
        words.reverse();
        SearchPos { pos, words, bound }
    }

    /// The position searched for.
    #[inline]
    pub const fn pos(&self) -> Bpos {
        self.pos
    }

    /// Whether the position itself could be packed.
    #[inline]
    pub fn is_exact(&self) -> bool {
        self.bound == Bound::Exact
    }

    /// The packed bound in the layout of [`BkeyFormat::pos_words`]; `None` if every key of this
    /// format is above the position.
    #[inline]
    pub fn bound_words(&self) -> Option<[u64; 3]> {
        (self.bound != Bound::None).then_some(self.words)
    }

    /// Compares a key packed with `format`, which must be the one given to [`SearchPos::new`], with
    /// the position: `Less` if the key is below it.
    #[inline]
    pub fn cmp_key(&self, format: &BkeyFormat, key: &[u64]) -> Ordering {
        if self.bound == Bound::None {
            return Ordering::Greater;
        }
        let n = usize::from(format.key_u64s);
        for ((i, m), y) in format.pos_mask.into_iter().enumerate().zip(self.words) {
            if m == 0 || i >= n {
                break;
            }
            let x = key.get(n - 1 - i).copied().unwrap_or(0) & m;
            if x != y {
                return x.cmp(&y);
            }
        }
        match self.bound {
            Bound::Exact => Ordering::Equal,
            _ => Ordering::Less,
        }
    }

    /// The highest word of the bound; `None` if there is no bound. A packed key of which that word is lower is below the position, one
    /// of which it is higher above it.
    #[inline]
    pub(crate) fn top(&self) -> Option<u64> {
        let [top, ..] = self.words;
        (self.bound != Bound::None).then_some(top)
    }
}

/// Subtracts one unit of bit `at` from the little-endian number `words`; false if it was zero.
fn decrement(words: &mut [u64; 3], at: u32) -> bool {
    if words.iter().all(|w| *w == 0) {
        return false;
    }
    let mut unit = [0; 3];
    put_bits(&mut unit, at, 1);
    let mut borrow = false;
    for (w, u) in words.iter_mut().zip(unit) {
        let (d, b1) = w.overflowing_sub(u);
        let (d, b2) = d.overflowing_sub(borrow.into());
        *w = d;
        borrow = b1 || b2;
    }
    true
}
