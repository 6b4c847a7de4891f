// SPDX-License-Identifier: GPL-2.0

//! Concurrent hash tables.
//!
//! C header: [`include/linux/rhashtable.h`](srctree/include/linux/rhashtable.h)

mod node;
mod table;
mod walk;

pub use self::table::{InsertError, Table};
pub use self::walk::Walk;
