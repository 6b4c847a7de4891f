// SPDX-License-Identifier: GPL-2.0

//! Random numbers, of the kind nobody can guess.

use crate::bindings;

/// A random number. Any context.
pub fn u64() -> u64 {
    let mut value = 0u64;
    // SAFETY: Eight bytes are writable, and any value is a valid one.
    unsafe { bindings::get_random_bytes((&raw mut value).cast(), size_of::<u64>()) };
    value
}
