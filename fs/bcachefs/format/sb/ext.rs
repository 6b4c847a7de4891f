// SPDX-License-Identifier: GPL-2.0
//! What recovery has been told to do, and what it has to be silent about.

use zerocopy::byteorder::little_endian::U64;
use zerocopy::{FromZeros as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Field;
use crate::btree_id::BtreeId;
use crate::error::{ErrorId, Invalid};

/// The payload of the field (88 bytes).
#[derive(
    Copy,
    Clone,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(C)]
pub struct Ext {
    /// Bit n: the recovery pass with stable number n has to run.
    pub recovery_passes_required: [U64; 2],
    /// Bit n: errors with id n are repaired without a report.
    pub errors_silent: [U64; 8],
    /// Bit n: btree n has lost data.
    pub btrees_lost_data: U64,
}

/// Fewest bytes of the field, header included. `btrees_lost_data` came later.
const FIELD_BYTES_MIN: usize = 88;

const _: () = assert!(core::mem::size_of::<Ext>() == 88);

impl Ext {
    /// Reads the field. Errors count bytes from its start.
    pub fn parse(field: &Field<'_>) -> Result<Self, Invalid> {
        let got = field.bytes().len();
        if got < FIELD_BYTES_MIN {
            let what = "ext: field too short";
            return Err(Invalid::plain(what, 0, got as u64, FIELD_BYTES_MIN as u64));
        }
        let mut ext = Ext::new_zeroed();
        let payload = field.payload().as_bytes();
        for (to, from) in ext.as_mut_bytes().iter_mut().zip(payload) {
            *to = *from;
        }
        Ok(ext)
    }

    /// Whether errors of kind `id` are repaired without a report.
    pub fn is_silent(&self, id: ErrorId) -> bool {
        bit(&self.errors_silent, id.0.into())
    }

    /// Makes errors of kind `id` silent.
    pub fn set_silent(&mut self, id: ErrorId) {
        set_bit(&mut self.errors_silent, id.0.into());
    }

    /// Whether the pass with stable number `pass` has to run.
    pub fn pass_required(&self, pass: u8) -> bool {
        bit(&self.recovery_passes_required, pass.into())
    }

    /// Requires the pass with stable number `pass`.
    pub fn require_pass(&mut self, pass: u8) {
        set_bit(&mut self.recovery_passes_required, pass.into());
    }

    /// Whether `btree` has lost data.
    pub fn lost_data(&self, btree: BtreeId) -> bool {
        bit(
            core::slice::from_ref(&self.btrees_lost_data),
            btree.0.into(),
        )
    }
}

fn bit(words: &[U64], nr: usize) -> bool {
    words
        .get(nr / 64)
        .is_some_and(|w| w.get() >> (nr % 64) & 1 != 0)
}

fn set_bit(words: &mut [U64], nr: usize) {
    if let Some(w) = words.get_mut(nr / 64) {
        *w = U64::new(w.get() | 1 << (nr % 64));
    }
}
