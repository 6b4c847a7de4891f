// SPDX-License-Identifier: GPL-2.0
//! Sorting in place, without recursion, panics or memory: heapsort.
//!
//! The time is O(n log n) whatever the order of the input, which may come from a hostile image. Not stable.

/// Sorts `items` so that `key` ascends.
pub fn sort_by_key<T: Copy, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    sort_by(items, |a, b| key(a) < key(b));
}

/// Sorts `items` by `less`, a strict order.
pub fn sort_by<T: Copy>(items: &mut [T], less: impl Fn(&T, &T) -> bool) {
    let len = items.len();
    for root in (0..len / 2).rev() {
        sift_down(items, root, &less);
    }
    for end in (1..len).rev() {
        items.swap(0, end);
        if let Some(heap) = items.get_mut(..end) {
            sift_down(heap, 0, &less);
        }
    }
}

/// Restores the heap order below `root`, where everything else already has it.
fn sift_down<T: Copy>(heap: &mut [T], root: usize, less: &impl Fn(&T, &T) -> bool) {
    // Down along the larger children to a leaf, then back up to where the item belongs: most items belong near
    // the leaves, so this halves the comparisons.
    let mut leaf = root;
    loop {
        let (left, right) = (2 * leaf + 1, 2 * leaf + 2);
        leaf = match (heap.get(left), heap.get(right)) {
            (Some(l), Some(r)) => {
                if less(l, r) {
                    right
                } else {
                    left
                }
            }
            (Some(_), None) => left,
            _ => break,
        };
    }
    let Some(&item) = heap.get(root) else { return };
    while leaf > root && heap.get(leaf).is_some_and(|x| less(x, &item)) {
        leaf = (leaf - 1) / 2;
    }
    // Everything on the way up to the root moves up by one.
    let mut carried = item;
    loop {
        let Some(slot) = heap.get_mut(leaf) else { return };
        core::mem::swap(slot, &mut carried);
        if leaf <= root {
            return;
        }
        leaf = (leaf - 1) / 2;
    }
}

#[cfg(bcachefs_kunit)]
#[kernel::macros::kunit_tests(bcachefs_sort)]
mod tests {
    use super::*;

    #[test]
    fn sorts_everything() {
        let mut seed = 1u32;
        let mut next = || {
            seed = seed.wrapping_mul(1664525).wrapping_add(1013904223);
            seed >> 24
        };
        for len in 0..100 {
            let mut items = [0u32; 100];
            let items = &mut items[..len];
            let mut sum = 0;
            for item in items.iter_mut() {
                *item = next();
                sum += *item;
            }
            sort_by_key(items, |x| *x);
            assert!(items.windows(2).all(|w| w[0] <= w[1]));
            assert_eq!(items.iter().sum::<u32>(), sum);
        }
    }

    #[test]
    fn sorts_what_is_sorted_or_equal() {
        let mut up = [1, 2, 3, 4, 5, 6, 7];
        sort_by_key(&mut up, |x| *x);
        assert_eq!(up, [1, 2, 3, 4, 5, 6, 7]);
        let mut down = [7, 6, 5, 4, 3, 2, 1];
        sort_by_key(&mut down, |x| *x);
        assert_eq!(down, up);
        let mut equal = [3; 5];
        sort_by_key(&mut equal, |x| *x);
        assert_eq!(equal, [3; 5]);
    }
}
