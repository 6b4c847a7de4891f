// SPDX-License-Identifier: GPL-2.0
//! Btree nodes in memory.
//!
//! A [`Node`] is a six lock around its keys ([`NodeData`]) with a head that can be looked at without the lock
//! ([`NodeHead`]). Keys stay packed; searching and walking compares packed positions.

pub mod cursor;
pub mod data;
pub mod head;
pub mod index;
pub(in crate::btree) mod insert;
pub mod load;
pub mod mem;
mod prepare;
mod set;
pub mod shape;
mod sort;
mod table;

pub use cursor::{Cursor, Edit, FoundKey};
pub use data::NodeData;
pub use head::{Flag, NodeHead, PtrKey, Sibling};
pub use insert::{Change, Refused};
pub use load::{load, LoadError, Rules};
pub use mem::{NeedMemory, NodeMem, Shape};
pub use sort::Merge;

use bcachefs_format::{keys::btree_ptr::BtreePtr, Invalid};

/// A node: its keys under a six lock, and its head.
pub type Node = kfs::sync::six::SixLock<NodeData, NodeHead>;
/// The sole owner of a node's keys.
pub type NodeExclusive = kfs::sync::six::Exclusive<NodeData, NodeHead>;
/// The nodes a transaction has locked.
pub type NodeLocks = kfs::sync::six::LockSet<NodeData, NodeHead>;

/// The key under which the node behind `ptr` is cached: its random number, or what stands for it in old pointers.
pub fn hash_key(ptr: &PtrKey) -> Result<u64, Invalid> {
    let p = BtreePtr::parse(ptr.get())?;
    match p.seq {
        Some(seq) => Ok(seq),
        None => Ok(ptr.get().value.first().copied().unwrap_or(0)),
    }
}
