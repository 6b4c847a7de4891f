// SPDX-License-Identifier: GPL-2.0
//! The sequence of entries that makes up a value with pointers.
//!
//! The number of the lowest set bit of an entry's first word is its kind, and the kind gives its
//! length. A kind that is not known has no length, so what follows it cannot be read.
//!
//! [`Entries`] yields entries as they are stored; [`DecodedPtrs`] yields pointers, each with what
//! the entries before it say about it. Both end after at most as many steps as there are words.

use core::fmt;

use crate::keys::extent::crc::{Crc, CrcKind};
use crate::keys::extent::ptr::Ptr;
use crate::keys::extent::rebalance::Rebalance;
use crate::keys::extent::stripe_ptr::StripePtr;

/// Largest number of pointers in one key.
pub const PTRS_MAX: usize = 16;

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A copy of the data.
    Ptr(Ptr),
    /// Sizes, checksum and compression of the pointers that follow.
    Crc(CrcKind, Crc),
    /// The next pointer belongs to a stripe.
    StripePtr(StripePtr),
    /// Work wanted in the background.
    Rebalance(Rebalance),
    /// Not an entry: an unknown kind (the number of the lowest bit set, 64 for a zero word), or
    /// one that is cut off by the value's end. Always the last.
    Bad(u32),
}

impl Entry {
    /// Length in words; 0 for [`Entry::Bad`].
    pub const fn words(&self) -> usize {
        match self {
            Self::Ptr(_) | Self::StripePtr(_) | Self::Rebalance(_) => 1,
            Self::Crc(kind, _) => kind.words(),
            Self::Bad(_) => 0,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ptr(p) => p.fmt(f),
            Self::Crc(_, c) => c.fmt(f),
            Self::StripePtr(s) => s.fmt(f),
            Self::Rebalance(r) => r.fmt(f),
            Self::Bad(kind) => write!(f, "(bad entry of kind {kind})"),
        }
    }
}

/// Iterates over entries with the word at which each begins.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    rest: &'a [u64],
    at: usize,
    live_size: u32,
}

impl<'a> Entries<'a> {
    /// The entries in `words`, in a key of `live_size` sectors.
    pub const fn new(words: &'a [u64], live_size: u32) -> Self {
        Self {
            rest: words,
            at: 0,
            live_size,
        }
    }

    /// The words not yet iterated over.
    pub const fn words(&self) -> &'a [u64] {
        self.rest
    }

    /// The same entries as pointers with their surroundings.
    pub const fn decoded(self) -> DecodedPtrs<'a> {
        DecodedPtrs {
            entries: self,
            crc: Crc::none(self.live_size),
            stripe: None,
        }
    }

    /// The plain pointers among the entries.
    pub fn ptrs(self) -> impl Iterator<Item = Ptr> + 'a {
        self.filter_map(|(_, e)| match e {
            Entry::Ptr(p) => Some(p),
            _ => None,
        })
    }

    /// The wanted background state, if recorded.
    pub fn rebalance(mut self) -> Option<Rebalance> {
        self.find_map(|(_, e)| match e {
            Entry::Rebalance(r) => Some(r),
            _ => None,
        })
    }

    fn parse(&self) -> Option<Entry> {
        let (first, after) = self.rest.split_first()?;
        let word = u64::from_le(*first);
        let kind = word.trailing_zeros();
        let crc = |kind: CrcKind| {
            let mut words = [word, 0, 0];
            let tail = after.get(..kind.words() - 1)?;
            for (to, from) in words.iter_mut().skip(1).zip(tail) {
                *to = u64::from_le(*from);
            }
            Some(Entry::Crc(kind, Crc::decode(kind, words, self.live_size)))
        };
        let entry = match kind {
            0 => Some(Entry::Ptr(Ptr::from_word(word))),
            1 => crc(CrcKind::Crc32),
            2 => crc(CrcKind::Crc64),
            3 => crc(CrcKind::Crc128),
            4 => Some(Entry::StripePtr(StripePtr::from_word(word))),
            5 => Some(Entry::Rebalance(Rebalance::from_word(word))),
            _ => None,
        };
        Some(entry.unwrap_or(Entry::Bad(kind)))
    }
}

impl Iterator for Entries<'_> {
    type Item = (usize, Entry);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.parse()?;
        let at = self.at;
        // A bad entry swallows the rest.
        let words = match entry {
            Entry::Bad(_) => self.rest.len(),
            _ => entry.words(),
        };
        self.rest = self.rest.get(words..).unwrap_or(&[]);
        self.at += words;
        Some((at, entry))
    }
}

impl fmt::Display for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sep = "";
        for (_, e) in *self {
            write!(f, "{sep}{e}")?;
            sep = ", ";
        }
        Ok(())
    }
}

/// A pointer with everything that applies to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodedPtr {
    /// The pointer.
    pub ptr: Ptr,
    /// The checksum entry in effect, or [`Crc::none`].
    pub crc: Crc,
    /// The stripe whose block this is.
    pub stripe: Option<StripePtr>,
    /// The word of the value's entries at which the pointer is stored.
    pub at: usize,
}

impl DecodedPtr {
    /// Whether this copy counts as one: not cached.
    pub const fn is_dirty(&self) -> bool {
        !self.ptr.cached()
    }

    /// The first sector on the device of the live data. Meaningful for data that is not compressed.
    pub fn live_sector(&self) -> u64 {
        self.ptr.offset().saturating_add(u64::from(self.crc.offset))
    }
}

/// Iterates over pointers with the checksum entry and stripe that apply to each.
#[derive(Clone, Copy, Debug)]
pub struct DecodedPtrs<'a> {
    entries: Entries<'a>,
    crc: Crc,
    stripe: Option<StripePtr>,
}

impl Iterator for DecodedPtrs<'_> {
    type Item = DecodedPtr;

    fn next(&mut self) -> Option<DecodedPtr> {
        for (at, entry) in self.entries.by_ref() {
            match entry {
                Entry::Ptr(ptr) => {
                    return Some(DecodedPtr {
                        ptr,
                        crc: self.crc,
                        stripe: self.stripe.take(),
                        at,
                    })
                }
                Entry::Crc(_, crc) => self.crc = crc,
                Entry::StripePtr(s) => self.stripe = Some(s),
                Entry::Rebalance(_) => {}
                Entry::Bad(_) => break,
            }
        }
        None
    }
}
