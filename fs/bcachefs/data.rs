// SPDX-License-Identifier: GPL-2.0
//! File data: from a range of a file to its bytes, and from bytes to extents.
//!
//! | file | what it has |
//! |---|---|
//! | `lookup` | which extents make up a range, indirect ones resolved |
//! | `plan` | what to read from a device to get a part of an extent |
//! | `read` | the entry: splits a request into extents and starts each |
//! | `read/op` | one extent: choice of copy, I/O, verification, the next copy on failure |
//! | `checksum`, `compress`, `decompress` | the algorithms, by the numbers stored with the data |
//! | `destination` | where the bytes go: page cache, user pages, a buffer |
//! | `write` | bytes to extents |
//! | `source` | where the bytes come from, and whose they are |
//! | `options` | how the data of a file is to be written |
//! | `promises` | space for what is dirty in memory |
//! | `lane` | what completions leave to threads |
//! | `index` | the transactions that change which extents a file has |
//! | `punch`, `reserve`, `shift`, `share` | holes and ends; space without data; moving, sharing ranges |
//! | `copygc` | moving what is left in half-empty buckets together |
//! | `logged` | what of that is finished after a crash |
//!
//! Nothing here knows of the VFS. No btree lock is held while data I/O is under way.

pub mod checksum;
pub mod compress;
pub mod copygc;
pub mod decompress;
pub mod destination;
pub mod index;
mod lane;
pub mod logged;
pub mod lookup;
pub mod options;
pub mod plan;
pub mod promises;
pub mod punch;
pub mod read;
pub mod reserve;
pub mod share;
pub mod shift;
pub mod source;
pub mod write;

pub use destination::{Buffer, Destination};
pub use lookup::{Mapping, MappingKind};
pub use options::DataOptions;
pub use read::Reader;
pub use promises::Promises;
pub use source::{Owner, Source};
pub use write::{WriteRequest, Writer};
