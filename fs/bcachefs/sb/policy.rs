// SPDX-License-Identifier: GPL-2.0
//! What the user, or the superblock, wants done in bad cases.

use core::fmt;

/// What to do when metadata turns out to be damaged.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ErrorAction {
    /// Report and go on.
    Continue,
    /// Repair what is safe to repair, else go read-only.
    FixSafe,
    /// Panic.
    Panic,
    /// Go read-only.
    ReadOnly,
}

impl ErrorAction {
    /// Names by number in the superblock.
    pub const NAMES: &'static [&'static str] = &["continue", "fix_safe", "panic", "ro"];

    /// From the number in the superblock.
    pub fn from_index(index: u64) -> Option<Self> {
        Some(match index {
            0 => Self::Continue,
            1 => Self::FixSafe,
            2 => Self::Panic,
            3 => Self::ReadOnly,
            _ => return None,
        })
    }
}

impl fmt::Display for ErrorAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES.get(*self as usize).copied().unwrap_or(""))
    }
}

/// How much may be missing.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Degraded {
    /// Every member must be there.
    #[default]
    No,
    /// Members may be missing as long as one copy of everything is there.
    Yes,
    /// Even if some data has no copy left.
    Very,
}

/// Which devices to accept when opening.
#[derive(Copy, Clone, Default, Debug)]
pub struct Policy {
    /// How much may be missing.
    pub degraded: Degraded,
    /// Do not leave out devices that were mounted apart from the others.
    pub no_splitbrain_check: bool,
    /// Sector of the superblock; the usual places if `None`.
    pub sector: Option<u64>,
}
