// SPDX-License-Identifier: GPL-2.0

//! Loads and stores of atomics without a call.
//!
//! The kernel crate does every atomic operation by a function in C, since what the C macros do cannot be said in Rust. For plain
//! loads and stores it can, and where one comes after the other the calls are what takes the time.

use kernel::sync::atomic::Atomic;

/// Loads and stores that compile to single instructions. They order what the kernel's own do and can be mixed with those.
pub trait InlineAtomic {
    /// What is in it.
    type Value;

    /// As `load(Relaxed)`.
    fn read(&self) -> Self::Value;
    /// As `load(Acquire)`.
    fn read_acquire(&self) -> Self::Value;
    /// As `store(value, Relaxed)`.
    fn write(&self, value: Self::Value);
}

macro_rules! inline_atomic {
    ($($int:ty, $core:ident;)*) => {
        $(impl InlineAtomic for Atomic<$int> {
            type Value = $int;

            #[inline(always)]
            fn read(&self) -> $int {
                // SAFETY: Valid and aligned as long as `self` is. What others do at the same time are atomic operations, too,
                // of which C's memory model makes a volatile access of this size one.
                unsafe { self.as_ptr().read_volatile() }
            }

            #[inline(always)]
            fn read_acquire(&self) -> $int {
                // SAFETY: As above.
                let atomic = unsafe { core::sync::atomic::$core::from_ptr(self.as_ptr()) };
                atomic.load(core::sync::atomic::Ordering::Acquire)
            }

            #[inline(always)]
            fn write(&self, value: $int) {
                // SAFETY: As above.
                unsafe { self.as_ptr().write_volatile(value) }
            }
        })*
    };
}

inline_atomic! {
    u32, AtomicU32;
    u64, AtomicU64;
    usize, AtomicUsize;
}

#[kernel::macros::kunit_tests(kfs_inline_atomic)]
mod tests {
    use super::*;
    use kernel::sync::atomic::{Acquire, Full, Relaxed};

    #[test]
    fn they_see_what_the_others_do() {
        let word = Atomic::new(7u64);
        assert_eq!((word.read(), word.read_acquire()), (7, 7));
        assert_eq!(word.fetch_add(1u64 << 40, Full), 7);
        assert_eq!(word.read(), 7 + (1 << 40));
        word.write(u64::MAX);
        assert_eq!((word.load(Relaxed), word.load(Acquire)), (u64::MAX, u64::MAX));
        let small = Atomic::new(u32::MAX);
        assert_eq!(small.cmpxchg(u32::MAX, 3, Full), Ok(u32::MAX));
        assert_eq!((small.read(), small.read_acquire()), (3, 3));
        let size = Atomic::new(5usize);
        size.write(6);
        assert_eq!((size.load(Relaxed), size.read_acquire()), (6, 6));
    }
}
