// SPDX-License-Identifier: GPL-2.0

//! Raw C declarations: everything of the kernel's `bindings` crate, what `rust/bindings/parameters`
//! adds to it, and the C helpers of `rust/helpers/`.
//!
//! For this crate only; nothing of it may appear in a public signature.

#![allow(
    clippy::all,
    missing_docs,
    dead_code,
    non_camel_case_types,
    non_upper_case_globals,
    non_snake_case,
    improper_ctypes,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports,
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks
)]

pub use self::helpers::*;
pub use kernel::bindings::*;

use kernel::ffi;
use pin_init::{MaybeZeroable, Zeroable};

type __kernel_size_t = usize;
type __kernel_ssize_t = isize;
type __kernel_ptrdiff_t = isize;

// Not in a module of its own: what is defined here takes precedence over the globs above, so that listing something
// that another kernel version's `bindings` has already is harmless.
include!(concat!(env!("KFS_OBJ"), "/rust/bindings_generated.rs"));

mod helpers {
    use super::*;

    include!(concat!(env!("KFS_OBJ"), "/rust/helpers_generated.rs"));
}
