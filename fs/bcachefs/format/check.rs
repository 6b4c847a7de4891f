// SPDX-License-Identifier: GPL-2.0
//! The two states of a value that came from disk.
//!
//! [`Unchecked`] wraps a view whose bytes nobody has looked at; the only way on is its validator,
//! which hands out [`Checked`]. Only this crate can make a `Checked`, so holding one is proof that
//! the validator ran. Neither wrapper costs anything at run time.

use core::ops::Deref;

/// A view of bytes as they came from disk.
///
/// The content can be inspected for messages, but code that acts on it takes [`Checked`].
#[derive(Copy, Clone, Debug)]
pub struct Unchecked<T>(T);

impl<T> Unchecked<T> {
    /// Marks `view` as not validated.
    pub const fn new(view: T) -> Self {
        Unchecked(view)
    }

    /// The content, for validators and for printing what is wrong.
    pub const fn peek(&self) -> &T {
        &self.0
    }

    /// Gives up the wrapper, without a claim of validity.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// A value whose validator has accepted it.
///
/// # Invariants
///
/// Made only by the validators of this crate.
#[derive(Copy, Clone, Debug)]
pub struct Checked<T>(T);

impl<T> Checked<T> {
    /// To be called by a validator, once every rule has held.
    pub(crate) const fn new(value: T) -> Self {
        // INVARIANT: only reachable from this crate's validators.
        Checked(value)
    }

    /// Gives up the proof and returns the value.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Checked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
