// SPDX-License-Identifier: GPL-2.0
//! Buckets and space.
//!
//! | part | what |
//! |---|---|
//! | [`bucket`], [`pointers`], [`rebalance`] | what follows from a change of a key, as functions over values |
//! | [`triggers`] | the same for the keys of a transaction |
//! | [`counters`], [`replicas`] | accounting in memory |
//! | [`accounting`] | how much space is in use, from the btree |
//! | [`mark`] | the buckets of superblocks and journals, and those that are free, on a device that is new |
//! | [`check`] | whether what the btrees say of buckets and space is what follows from the other keys |
//! | [`bucket_gens`], `generations` | generations of buckets, from the btree and in memory |
//! | [`client`] | what the allocator needs of the rest of the filesystem |
//! | `reservations`, `reserves` | promises of space; what is kept back, and for whom |
//! | `open_buckets`, [`write_points`] | buckets being written to, and who writes to them |
//! | `waiting` | buckets that must not be reused before the journal has been flushed |
//! | `search`, `region`, `nouse` | finding a free bucket of a device |
//! | [`request`], `stripe_clock`, `targets` | choosing devices |
//! | `discard`, `invalidate`, `gens_gc` | making buckets free |
//! | [`allocator`], `device`, `shared` | all of that together |
//! | [`space`] | what the btrees see of it |

pub mod accounting;
pub mod allocator;
pub mod bucket;
pub mod bucket_gens;
pub mod check;
pub mod client;
pub mod counters;
mod device;
pub mod device_set;
mod discard;
mod generations;
mod gens_gc;
pub mod geometry;
mod invalidate;
pub mod mark;
mod nouse;
mod open_buckets;
pub mod pointers;
pub mod rebalance;
mod region;
pub mod replicas;
pub mod request;
mod reservations;
mod reserves;
mod search;
mod shared;
pub mod show;
pub mod space;
mod stripe_clock;
mod targets;
#[cfg(bcachefs_kunit)]
mod tests;
mod trigger_client;
pub mod triggers;
mod wait;
mod waiting;
pub mod write_points;

pub use allocator::{Allocator, Placed};
pub use client::{AllocClient, ClockKind, DeviceUsage};
pub use counters::{Accounting, Totals};
pub use device_set::DeviceSet;
pub use replicas::ReplicasStore;
pub use request::AllocRequest;
pub use space::btree_space;
pub use trigger_client::TriggerClient;
pub use triggers::AllocTriggers;
pub use write_points::WritePointSpec;
