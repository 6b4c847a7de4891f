// SPDX-License-Identifier: GPL-2.0
//! Transactions: a body of code that is run again until none of its locks was lost on the way.
//!
//! [`super::Btree::run`] lends the body an [`Attempt`]. Everything an attempt does may end in a [`Restart`], which is
//! not an error: only the loop in `run` takes it, and nothing turns it into one. Paths and
//! locks belong to the attempt's [`buffer::Buffer`], one of which waits on every CPU.
//!
//! An attempt that changes something collects updates ([`update`]) and commits them at once: all of them become one entry of the
//! journal and are in the nodes when the locks are released, or none.
//!
//! Context: process context, may sleep. While an attempt is alive memory is allocated without entering
//! filesystems. No lock of a node is held while the attempt waits for I/O.

mod attempt;
pub(super) mod buffer;
mod commit;
mod error;
mod extent;
mod info;
mod inject;
mod lineage;
pub(super) mod pending;
mod range;
mod run;
mod trigger;
pub mod update;

pub use attempt::Attempt;
pub(super) use error::Reason;
pub use error::{Restart, TransError};
pub use info::Transactions;
pub use inject::Inject;
