// SPDX-License-Identifier: GPL-2.0
//! The on-disk format of bcachefs: layouts, validation, printing, building.
//!
//! This crate knows bytes and nothing else: it does no I/O, allocates nothing and holds no locks.
//! It is compiled into the kernel module, into the userspace programs and into the host tests from
//! the same source, so everything in it can be called from any context and never sleeps.
//!
//! Rules kept throughout:
//! - Nothing read from disk is trusted: counts and offsets are checked before use, a walk over disk
//!   data always advances, and no function panics on any input.
//! - Bytes become values once. A type from disk is first looked at as raw bytes (zerocopy), then
//!   validated; engine code is given validated values only. See [`check`].
//! - Validation is pure and says what is wrong and where ([`Invalid`]); the same validator runs after
//!   every read and before every write.
//! - Unknown values of open enumerations (key types, entry types, btree ids) are kept, not dropped.
//!
//! Only little-endian filesystems on little-endian machines are supported.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(not(target_endian = "little"))]
compile_error!("only little-endian machines are supported");

pub mod bkey;
pub mod bset;
pub mod btree_id;
pub mod btree_node;
pub mod check;
pub mod checksum;
pub mod error;
pub mod features;
pub mod jset;
pub mod keys;
pub mod magic;
pub mod packed;
pub mod pos;
pub mod sb;
pub mod super_block;
pub mod version;

pub use bkey::{Bkey, Bversion, DiskBkey, KeyContext, KeyRef, KeyType};
pub use bset::{Keys, PackedRef};
pub use btree_id::BtreeId;
pub use btree_node::SECTOR_BYTES;
pub use check::{Checked, Unchecked};
pub use checksum::{Checksummer, Csum, CsumType, Nonce};
pub use error::{ErrorId, Invalid};
pub use jset::{Entries, Entry, EntryType, Jset, RawEntry};
pub use magic::Uuid;
pub use packed::{BkeyFormat, SearchPos};
pub use pos::{Bpos, DiskBpos};
pub use super_block::SuperBlock;
pub use version::Version;
