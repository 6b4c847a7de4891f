// SPDX-License-Identifier: GPL-2.0
//! Which device is next.
//!
//! A write point goes round its devices such that each gets a share in proportion to the space it has left. Every allocation moves the
//! device's hand by the inverse of that space, and the device whose hand is least far goes first. All hands are pulled
//! back in step, so that what happened long ago is forgotten.

use super::device_set::DeviceSet;
use crate::sb::device::MEMBERS_MAX;
use core::cmp::Reverse;

/// By how much the hand of a device with one bucket left moves.
const UNIT: u64 = 1 << 48;

/// The hands of all devices.
pub(super) struct StripeClock {
    hands: [u64; MEMBERS_MAX],
}

/// Devices in the order in which to try them.
pub(super) struct Order {
    devices: [u8; MEMBERS_MAX],
    nr: usize,
}

impl Order {
    /// The devices.
    pub(super) fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        self.devices.iter().take(self.nr).copied()
    }
}

impl StripeClock {
    /// With all hands at the start.
    pub(super) const fn new() -> Self {
        StripeClock { hands: [0; MEMBERS_MAX] }
    }

    /// The devices of `from`, those first whose turn it is; of equals those with the higher index.
    pub(super) fn order(&self, from: DeviceSet) -> Order {
        let mut order = Order { devices: [0; MEMBERS_MAX], nr: 0 };
        for (slot, dev) in order.devices.iter_mut().zip(from.iter()) {
            *slot = dev;
            order.nr += 1;
        }
        if let Some(devices) = order.devices.get_mut(..order.nr) {
            let hand = |dev: &u8| self.hands.get(usize::from(*dev)).copied();
            devices.sort_unstable_by_key(|dev| (hand(dev), Reverse(*dev)));
        }
        order
    }

    /// `dev`, which has `available` buckets left, was chosen.
    pub(super) fn chosen(&mut self, dev: u8, available: u64) {
        let Some(hand) = self.hands.get_mut(usize::from(dev)) else {
            return;
        };
        let back = *hand / 4;
        *hand = hand.saturating_add(UNIT / available.max(1));
        for hand in &mut self.hands {
            *hand = hand.saturating_sub(back);
        }
    }
}

#[kernel::macros::kunit_tests(bcachefs_alloc_stripe_clock)]
mod tests {
    use super::*;

    /// Lets `n` buckets be chosen of devices with `space` buckets each, which do not get fewer.
    fn shares<const N: usize>(space: [u64; N], n: u32) -> [u32; N] {
        let mut clock = StripeClock::new();
        let mut all = DeviceSet::NONE;
        (0..N).for_each(|dev| all.add(dev as u8));
        let mut got = [0; N];
        for _ in 0..n {
            let first = clock.order(all).iter().next();
            let dev = usize::from(first.unwrap_or(0));
            got[dev] += 1;
            clock.chosen(dev as u8, space[dev]);
        }
        got
    }

    #[test]
    fn equal_devices_get_equal_shares() {
        for n in shares([1000; 4], 4000) {
            assert!((990..=1010).contains(&n));
        }
    }

    #[test]
    fn larger_devices_get_more() {
        let [small, large] = shares([1000, 3000], 4000);
        assert!(small + large == 4000);
        assert!((800..=1200).contains(&small));
        // An empty device is left alone, nearly.
        let [full, free] = shares([0, 100_000], 4000);
        assert!(full <= 4 && free >= 3996);
    }

    #[test]
    fn order_holds_each_device_once() {
        let mut clock = StripeClock::new();
        clock.chosen(3, 10);
        clock.chosen(5, 1000);
        let set = DeviceSet(0b10_1011);
        let mut seen = DeviceSet::NONE;
        for dev in clock.order(set).iter() {
            assert!(!seen.has(dev));
            seen.add(dev);
        }
        assert_eq!(seen, set);
        // Untouched ones first, then the one whose hand moved less.
        assert!(clock.order(set).iter().eq([1, 0, 5, 3]));
        assert_eq!(clock.order(DeviceSet::NONE).iter().count(), 0);
        assert_eq!(clock.order(DeviceSet::ALL).iter().count(), MEMBERS_MAX);
    }
}
