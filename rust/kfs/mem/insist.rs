// SPDX-License-Identifier: GPL-2.0

//! Small allocations that may not fail.

use kernel::{
    alloc::AllocError,
    time::{delay::fsleep, Delta},
};

/// How long to wait before trying again.
const PAUSE: Delta = Delta::from_millis(10);

/// Tries an allocation until it succeeds. Sleeps.
///
/// For pieces of less than a few pages, on the way of data to the devices, where there is nobody to tell of a failure. The
/// caller holds nothing that freeing memory may wait for, and is in a [`NofsScope`](super::NofsScope).
pub fn insist<T>(mut allocate: impl FnMut() -> Result<T, AllocError>) -> T {
    loop {
        match allocate() {
            Ok(value) => return value,
            Err(AllocError) => fsleep(PAUSE),
        }
    }
}

#[kernel::macros::kunit_tests(kfs_insist)]
mod tests {
    use super::*;

    #[test]
    fn tries_until_it_succeeds() {
        let mut tries = 0;
        let value = insist(|| {
            tries += 1;
            match tries {
                3 => Ok(7),
                _ => Err(AllocError),
            }
        });
        assert_eq!((value, tries), (7, 3));
    }
}
