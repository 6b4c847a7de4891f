// SPDX-License-Identifier: GPL-2.0
//! The parts of a superblock: layout, flags and options, and one file per field.
//!
//! Every field type has a view that reads values on demand and cannot fail or panic whatever the
//! bytes, a validator, a printer, and an encoder that makes the field again from values.

pub mod blacklist;
pub mod build;
pub mod choose;
pub mod clean;
pub mod counters;
pub mod crypt;
pub mod disk_groups;
pub mod downgrade;
pub mod errors;
pub mod ext;
pub mod field;
pub mod flags;
pub mod journal;
pub mod layout;
pub mod members;
pub mod options;
pub mod print;
pub mod quota;
pub mod replicas;

pub use blacklist::Blacklist;
pub use build::{SbBuilder, SbFull};
pub use clean::Clean;
pub use counters::Counters;
pub use crypt::Crypt;
pub use disk_groups::{DiskGroup, DiskGroups};
pub use downgrade::{Downgrade, Downgrades};
pub use errors::{ErrorCount, Errors};
pub use ext::Ext;
pub use field::{Field, FieldType, Fields};
pub use flags::SbFlags;
pub use journal::JournalBuckets;
pub use layout::DiskLayout;
pub use members::{Member, MemberState, Members};
pub use options::{Options, Target};
pub use quota::Quota;
pub use replicas::{Replicas, ReplicasEntry};
