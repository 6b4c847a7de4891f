// SPDX-License-Identifier: GPL-2.0
//! How urgent an allocation or a journal reservation is.

use core::fmt;

/// Urgency, ascending. What frees space must be able to go on when what uses it has to wait, so the higher a watermark,
/// the deeper it may reach into what is kept back.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(u8)]
pub enum Watermark {
    /// New stripes of erasure-coded data.
    Stripe,
    /// What users write.
    #[default]
    Normal,
    /// Data moved to empty buckets.
    Copygc,
    /// Nodes of btrees.
    Btree,
    /// Nodes of btrees, for moving data.
    BtreeCopygc,
    /// Making room in the journal.
    Reclaim,
    /// Finishing updates of interior nodes.
    InteriorUpdates,
}

impl Watermark {
    /// All of them, ascending.
    pub const ALL: [Watermark; 7] = [
        Watermark::Stripe,
        Watermark::Normal,
        Watermark::Copygc,
        Watermark::Btree,
        Watermark::BtreeCopygc,
        Watermark::Reclaim,
        Watermark::InteriorUpdates,
    ];

    /// The name under which it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Watermark::Stripe => "stripe",
            Watermark::Normal => "normal",
            Watermark::Copygc => "copygc",
            Watermark::Btree => "btree",
            Watermark::BtreeCopygc => "btree_copygc",
            Watermark::Reclaim => "reclaim",
            Watermark::InteriorUpdates => "interior_updates",
        }
    }
}

impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
