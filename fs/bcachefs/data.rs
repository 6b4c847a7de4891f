// SPDX-License-Identifier: GPL-2.0
//! File data: from a range of a file to its bytes.
//!
//! | file | what it has |
//! |---|---|
//! | `lookup` | which extents make up a range, indirect ones resolved |
//! | `plan` | what to read from a device to get a part of an extent |
//! | `read` | the entry: splits a request into extents and starts each |
//! | `read/op` | one extent: choice of copy, I/O, verification, the next copy on failure |
//! | `checksum`, `decompress` | the algorithms, by the numbers stored with the data |
//! | `destination` | where the bytes go: page cache, user pages, a buffer |
//!
//! Nothing here knows of the VFS. No btree lock is held while data I/O is under way.

pub mod checksum;
pub mod decompress;
pub mod destination;
pub mod lookup;
pub mod plan;
pub mod read;

pub use destination::{Buffer, Destination};
pub use lookup::{Mapping, MappingKind};
pub use read::Reader;
