// SPDX-License-Identifier: GPL-2.0

//! Synchronisation that the kernel's own crate lacks.

mod event;
mod gate;
mod inline;
pub mod six;
mod srcu;
mod srcu_cell;

pub use self::event::{Event, Seen};
pub use self::gate::{Entry, Gate};
pub use self::inline::InlineAtomic;
pub use self::srcu::{Deferred, Srcu, SrcuGuard};
pub use self::srcu_cell::SrcuCell;
