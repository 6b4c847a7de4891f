// SPDX-License-Identifier: GPL-2.0

//! A lock together with what it protects.

use super::raw::{Mode, Raw};
use core::{
    cell::UnsafeCell,
    fmt,
    mem::MaybeUninit,
    ops::{Deref, DerefMut},
};
use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::{Arc, UniqueArc},
};

/// Data of type `T` that is accessed through a [`super::LockSet`] (or an [`Exclusive`]), and a part of type
/// `S` that can be looked at without the lock.
#[pin_data]
pub struct SixLock<T, S = ()> {
    #[pin]
    pub(super) raw: Raw,
    #[pin]
    shared: S,
    pub(super) data: UnsafeCell<T>,
}

// SAFETY: The data moves with the lock.
unsafe impl<T: Send, S: Send> Send for SixLock<T, S> {}
// SAFETY: The data is handed out as `&T` to those who hold read or intent, possibly several at a time, hence `T: Sync`;
// and as `&mut T` to one who holds write, on whatever task that is, hence `T: Send`. `S` is shared anyway.
unsafe impl<T: Send + Sync, S: Sync> Sync for SixLock<T, S> {}

/// Memory for a lock, for those who need one when they cannot wait for memory.
pub struct Seat<T, S = ()>(UniqueArc<MaybeUninit<SixLock<T, S>>>);

impl<T, S> Seat<T, S> {
    /// Allocates with `flags`.
    pub fn new(flags: kernel::alloc::Flags) -> Result<Self, AllocError> {
        Ok(Seat(UniqueArc::new_uninit(flags)?))
    }

    /// Makes a lock of it that is born held for write by the [`Exclusive`] returned. Does not sleep.
    pub fn occupy<E>(
        self,
        data: impl Init<T>,
        shared: impl PinInit<S, E>,
    ) -> Result<Exclusive<T, S>, E>
    where
        E: From<core::convert::Infallible>,
    {
        let lock = self
            .0
            .pin_init_with(SixLock::with_raw(Raw::new_exclusive(), data, shared))?;
        // INVARIANT: Born held.
        Ok(Exclusive { lock: lock.into() })
    }
}

/// Makes the value inside of the cell, where it stays: it may be too large for the stack.
fn in_cell<T>(value: impl Init<T>) -> impl Init<UnsafeCell<T>> {
    let make = |slot: *mut UnsafeCell<T>| {
        // SAFETY: A cell has the layout of what is in it; `slot` is ours to be initialised, by the caller's promise.
        unsafe { value.__init(UnsafeCell::raw_get(slot)) }
    };
    // SAFETY: The closure initialises all of the slot; it cannot fail.
    unsafe { pin_init::init_from_closure(make) }
}

/// Why a lock could not be taken exclusively.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Busy {
    /// Somebody holds it for intent.
    Intent,
    /// Somebody holds it for read, or for write.
    Other,
}

impl<T, S> SixLock<T, S> {
    /// A free lock.
    pub fn new<E>(data: impl Init<T>, shared: impl PinInit<S, E>) -> impl PinInit<Self, E>
    where
        E: From<core::convert::Infallible>,
    {
        Self::with_raw(Raw::new(), data, shared)
    }

    /// A lock that is born held for write by the [`Exclusive`] returned. May sleep if `flags` say so.
    pub fn new_exclusive<E>(
        data: impl Init<T>,
        shared: impl PinInit<S, E>,
        flags: kernel::alloc::Flags,
    ) -> Result<Exclusive<T, S>>
    where
        E: From<core::convert::Infallible>,
        Error: From<E>,
    {
        let lock = Arc::pin_init(Self::with_raw(Raw::new_exclusive(), data, shared), flags)?;
        // INVARIANT: Born held.
        Ok(Exclusive { lock })
    }

    fn with_raw<E>(
        raw: impl PinInit<Raw>,
        data: impl Init<T>,
        shared: impl PinInit<S, E>,
    ) -> impl PinInit<Self, E>
    where
        E: From<core::convert::Infallible>,
    {
        try_pin_init!(Self {
            raw <- raw,
            shared <- shared,
            data <- in_cell(data),
        }? E)
    }

    /// Takes the lock for write if nobody holds it in any mode. Does not sleep.
    pub fn try_exclusive(self: &Arc<Self>) -> Result<Exclusive<T, S>, Busy> {
        match self.raw.try_exclusive() {
            // INVARIANT: Just taken.
            Ok(()) => Ok(Exclusive { lock: self.clone() }),
            Err((_, true, false)) => Err(Busy::Intent),
            Err(_) => Err(Busy::Other),
        }
    }

    /// The sequence number; it changes with every release of write.
    pub fn seq(&self) -> u32 {
        self.raw.seq()
    }

    /// The part that needs no lock.
    #[inline]
    pub fn shared(&self) -> &S {
        &self.shared
    }
}

/// Prints who holds the lock.
impl<T, S> fmt::Display for SixLock<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (readers, intent, write) = self.raw.holders();
        write!(
            f,
            "seq {} readers {readers} intent {} write {} waiters {}",
            self.raw.seq(),
            u8::from(intent),
            u8::from(write),
            self.raw.nr_waiters()
        )
    }
}

/// Write access to a lock outside of any lock set.
///
/// Its owner must not wait for other locks: it is invisible to the search for cycles. It may be sent elsewhere, a node
/// that is being read is kept by its read.
///
/// # Invariants
///
/// Intent and write of `lock` are held and belong to this value.
pub struct Exclusive<T, S = ()> {
    lock: Arc<SixLock<T, S>>,
}

impl<T, S> Exclusive<T, S> {
    /// The lock.
    pub fn lock(&self) -> &Arc<SixLock<T, S>> {
        &self.lock
    }
}

impl<T, S> Deref for Exclusive<T, S> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: Write is held (type invariant), so nobody else has access.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T, S> DerefMut for Exclusive<T, S> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: Write is held (type invariant), so nobody else has access.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T, S> Drop for Exclusive<T, S> {
    fn drop(&mut self) {
        self.lock.raw.unlock_write();
        self.lock.raw.unlock_intent();
    }
}

impl Mode {
    /// For printing.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Read => "read",
            Mode::Intent => "intent",
            Mode::Write => "write",
        }
    }
}
