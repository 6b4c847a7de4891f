// SPDX-License-Identifier: GPL-2.0
//! Extents: keys that say where a range of a file's data is stored.
//!
//! The value is a sequence of entries. A checksum entry applies to all pointers after it until the
//! next one; a stripe entry applies to exactly the next pointer; a rebalance entry to the key.
//! Pointers before any checksum entry lead to plain data as long as the key. Position is the *end*
//! of the range.
//!
//! | file | what it has |
//! |---|---|
//! | `entry` | the iterators |
//! | `ptr`, `crc`, `stripe_ptr`, `rebalance` | one entry each |
//! | `validate` | rules for all values with pointers |
//! | `cut` | trimming a key to a part of its range |
//! | `builder` | writing entries |

use core::fmt;

use crate::bkey::KeyRef;
use crate::error::Invalid;
use crate::keys::ctx::ValidateCtx;

pub mod builder;
pub mod crc;
pub mod cut;
pub mod entry;
pub mod ptr;
pub mod rebalance;
pub mod stripe_ptr;
pub(crate) mod validate;

pub use builder::EntryWriter;
pub use crc::{Crc, CrcKind};
pub use entry::{DecodedPtr, DecodedPtrs, Entries, Entry, PTRS_MAX};
pub use ptr::{Ptr, DEV_INVALID};
pub use rebalance::Rebalance;
pub use stripe_ptr::StripePtr;

/// A view of an `extent` value.
#[derive(Clone, Copy, Debug)]
pub struct Extent<'a> {
    entries: Entries<'a>,
}

impl<'a> Extent<'a> {
    /// Looks at the value of `key`, which is of type `extent`. Any content has a view; what cannot
    /// be read shows as [`Entry::Bad`].
    pub const fn new(key: KeyRef<'a>) -> Self {
        Self {
            entries: Entries::new(key.value, key.key.size),
        }
    }

    /// The entries as stored.
    pub const fn entries(&self) -> Entries<'a> {
        self.entries
    }

    /// The pointers, each with what applies to it.
    pub const fn ptrs(&self) -> DecodedPtrs<'a> {
        self.entries.decoded()
    }

    /// Whether the range is allocated but reads as zeros. A valid extent is so as a whole.
    pub fn is_unwritten(&self) -> bool {
        self.entries.ptrs().any(|p| p.unwritten())
    }
}

impl fmt::Display for Extent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries.fmt(f)
    }
}

/// Checks the value of a key of type `extent`.
pub(crate) fn validate_value(key: KeyRef<'_>, ctx: &ValidateCtx<'_>) -> Result<(), Invalid> {
    validate::validate_entries(
        &key.key,
        Extent::new(key).entries(),
        0,
        validate::PtrsIn::Extent,
        ctx,
    )
}
