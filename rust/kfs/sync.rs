// SPDX-License-Identifier: GPL-2.0

//! Synchronisation that the kernel's own crate lacks.

pub mod six;
mod srcu;

pub use self::srcu::{Deferred, Srcu, SrcuGuard};
