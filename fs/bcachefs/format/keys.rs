// SPDX-License-Identifier: GPL-2.0
//! Keys: what the values in the btrees mean.
//!
//! One file per type of value, named after it; each has the layout on disk, the decoded form or
//! view, the rules, the printer and the builder. Three tables go over all types: [`parse`] decodes
//! any value, [`validate`] checks any key, and [`types`] has the lengths of values and which btree
//! holds which types.
//!
//! Values come from disk: a view can be had of anything that can be taken apart without reading
//! past its end, and says nothing about whether the content makes sense. [`check`] hands out proof.
//!
//! Builders write into the caller's words and return how many they used; `parse(build(x)) == x`.
//! Old generations of a value are read, never written.
//!
//! Context: pure functions, callable anywhere.

pub mod accounting;
pub mod acl;
pub mod alloc;
pub mod backpointer;
pub mod btree_ptr;
pub mod bucket_gens;
pub mod compression;
pub mod cookie;
mod ctx;
pub mod data_type;
pub mod dirent;
pub mod extent;
pub mod inline_data;
pub mod inode;
mod layout;
pub mod logged_op;
pub mod lru;
pub mod quota;
pub mod reflink;
pub mod reservation;
pub mod snapshot;
pub mod snapshot_tree;
pub mod str_hash;
pub mod stripe;
pub mod subvolume;
pub mod text;
pub mod types;
mod validate;
mod value;
pub mod varint;
pub mod xattr;

pub use ctx::{DeviceGeometry, Devices, ValidateCtx, When};
pub use layout::BuildError;
pub use validate::{check, validate, validate_header, validate_value};
pub use value::{parse, KeyText, Value};
