// SPDX-License-Identifier: GPL-2.0
//! Choosing the key format of a new node.
//!
//! Any valid format serves readers. This one gives every field the bits its range in the node needs,
//! leaves extents room to grow by merging, and spreads what the last word has to spare so that field
//! widths become whole bytes where possible. Given the same keys it yields what existing
//! implementations yield.

use super::{fields_of, low_mask, BkeyFormat, FIELD_BITS, FIELD_SIZE, HEADER_BITS, NR_FIELDS};
use crate::bkey::Bkey;
use crate::pos::Bpos;

/// Bits by which the size field is widened when it is used at all.
const SIZE_SLACK_BITS: u8 = 4;

/// Collects the range of each field over the keys of a node.
#[derive(Clone, Debug)]
pub struct FormatCalc {
    min: [u64; NR_FIELDS],
    max: [u64; NR_FIELDS],
}

impl Default for FormatCalc {
    fn default() -> Self {
        Self::new()
    }
}

impl FormatCalc {
    /// Nothing seen yet.
    pub fn new() -> Self {
        let mut min = [u64::MAX; NR_FIELDS];
        min[FIELD_SIZE] = 0;
        FormatCalc {
            min,
            max: [0; NR_FIELDS],
        }
    }

    #[inline]
    fn add_field(&mut self, i: usize, v: u64) {
        self.min[i] = self.min[i].min(v);
        self.max[i] = self.max[i].max(v);
    }

    /// Takes a position into account: the node's bounds.
    pub fn add_pos(&mut self, pos: Bpos) {
        for (i, v) in [pos.inode, pos.offset, pos.snapshot.into()]
            .into_iter()
            .enumerate()
        {
            self.add_field(i, v);
        }
    }

    /// Takes a key of the node into account.
    pub fn add_key(&mut self, key: &Bkey) {
        for (i, v) in fields_of(key).into_iter().enumerate() {
            self.add_field(i, v);
        }
    }

    /// The same for one packed with `format`.
    #[inline]
    pub fn add_packed(&mut self, key: &[u64], format: &BkeyFormat) {
        for i in 0..NR_FIELDS {
            self.add_field(i, format.field(key, i));
        }
    }

    /// The format for what was added.
    pub fn finish(&self) -> BkeyFormat {
        let mut bits = [0u8; NR_FIELDS];
        let mut offset = [0u64; NR_FIELDS];
        for i in 0..NR_FIELDS {
            let min = self.min[i].min(self.max[i]);
            let len = u64::BITS - (self.max[i] - min).leading_zeros();
            (bits[i], offset[i]) = clamp(i, len as u8, min);
        }
        let size = &mut bits[FIELD_SIZE];
        if *size > 0 {
            *size += SIZE_SLACK_BITS.min(FIELD_BITS[FIELD_SIZE] - *size);
        }
        (bits[FIELD_SIZE], offset[FIELD_SIZE]) =
            clamp(FIELD_SIZE, bits[FIELD_SIZE], offset[FIELD_SIZE]);

        let used: u32 = HEADER_BITS + bits.iter().map(|&b| u32::from(b)).sum::<u32>();
        let key_u64s = used.div_ceil(64);
        let mut spare = key_u64s * 64 - used;
        for i in 0..NR_FIELDS {
            let round = (8 - bits[i] % 8) % 8;
            if u32::from(round) <= spare {
                (bits[i], offset[i]) = clamp(i, bits[i] + round, offset[i]);
                spare -= u32::from(round);
            }
        }
        // `clamp` upholds every rule of a valid format, and rounding only used what was spare.
        BkeyFormat::prepare(key_u64s as u8, bits, offset)
    }
}

/// The nearest valid (bits, offset) for field `i`.
fn clamp(i: usize, bits: u8, offset: u64) -> (u8, u64) {
    let width = FIELD_BITS[i];
    let bits = bits.min(width);
    if bits == width {
        return (bits, 0);
    }
    let highest = low_mask(width.into()) - low_mask(bits.into());
    (bits, offset.min(highest))
}
