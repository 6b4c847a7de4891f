// SPDX-License-Identifier: GPL-2.0
//! What every other module uses: errors, messages, counters.

pub mod checksum;
pub mod counters;
pub mod error;
pub mod log;
pub mod sort;
