// SPDX-License-Identifier: GPL-2.0

//! Hints to the processor's caches.

/// Has the cache line of element `i` fetched, if there is one: what is needed soon. Never faults, changes nothing.
#[inline(always)]
pub fn prefetch<T>(slice: &[T], i: usize) {
    if let Some(item) = slice.get(i) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: A hint, without effect on memory or registers.
        unsafe {
            core::arch::asm!("prefetcht0 [{}]", in(reg) item, options(nostack, preserves_flags, readonly));
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = item;
    }
}
