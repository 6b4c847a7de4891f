// SPDX-License-Identifier: GPL-2.0
//! Sets of member devices.

use crate::sb::device::MEMBERS_MAX;
use core::fmt;

const _: () = assert!(MEMBERS_MAX <= 64);

/// A set of devices, by index.
#[derive(Copy, Clone, PartialEq, Eq, Default)]
pub struct DeviceSet(pub u64);

impl DeviceSet {
    /// None.
    pub const NONE: DeviceSet = DeviceSet(0);
    /// All there can be.
    pub const ALL: DeviceSet = DeviceSet(u64::MAX);

    /// One device; none if there is no such index.
    pub const fn one(dev: u8) -> Self {
        match 1u64.checked_shl(dev as u32) {
            Some(bit) => DeviceSet(bit),
            None => DeviceSet(0),
        }
    }

    /// Whether `dev` is in it.
    #[inline]
    pub const fn has(self, dev: u8) -> bool {
        self.0 & Self::one(dev).0 != 0
    }

    /// Adds `dev`.
    pub fn add(&mut self, dev: u8) {
        self.0 |= Self::one(dev).0;
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: DeviceSet) -> Self {
        DeviceSet(self.0 & other.0)
    }

    /// What is in this one only.
    #[must_use]
    pub const fn without(self, other: DeviceSet) -> Self {
        DeviceSet(self.0 & !other.0)
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Number of devices.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The devices, ascending.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            let dev = left.trailing_zeros();
            left &= left.checked_sub(1)?;
            Some(dev as u8)
        })
    }
}

impl fmt::Debug for DeviceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for DeviceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sep = "";
        f.write_str("[")?;
        for dev in self.iter() {
            write!(f, "{sep}{dev}")?;
            sep = " ";
        }
        f.write_str("]")
    }
}
