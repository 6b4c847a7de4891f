// SPDX-License-Identifier: GPL-2.0

//! The kernel layer: safe abstractions over C APIs that the kernel's own `kernel` crate does not wrap.
//!
//! Nothing in here knows about a particular filesystem; each part should read as a patch for
//! `rust/kernel/`. This crate is the only place with `unsafe` code.

mod bindings;
pub mod block;
pub mod checksum;
pub mod compress;
pub mod errno;
pub mod hash;
pub mod list;
pub mod mem;
pub mod random;
pub mod show;
pub mod sync;
pub mod time;
pub mod vfs;
pub mod work;

/// Prefix of messages this crate itself prints.
#[allow(dead_code)]
const __LOG_PREFIX: &[u8] = b"kfs\0";
