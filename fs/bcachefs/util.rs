// SPDX-License-Identifier: GPL-2.0
//! What every other module uses: errors, messages, counters.

pub mod checksum;
pub mod counters;
pub mod error;
pub mod io_clock;
pub mod log;
pub mod sort;
#[cfg(any(bcachefs_tests, bcachefs_kunit))]
pub mod threads;
pub mod watermark;
pub mod write_refs;
