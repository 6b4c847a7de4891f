// SPDX-License-Identifier: GPL-2.0
//! Discarding free buckets of the journal.

use kfs::mem::NofsScope;

use super::{ring::Spot, state::Core};

impl Core {
    /// Discards what is free and has not been. Whether there was anything. Sleeps.
    #[inline(never)]
    pub(super) fn discard(&self) -> bool {
        let _scope = NofsScope::enter();
        let _one = self.discarding.lock();
        let mut any = false;
        let nr = self.inner.lock().rings.len();
        for at in 0..nr {
            loop {
                let next = {
                    let i = self.inner.lock();
                    let ring = i.rings.get(at);
                    ring.and_then(|r| {
                        let spot = Spot { device: r.device, sector: r.to_discard()? };
                        Some((spot, r.bucket_sectors()))
                    })
                };
                let Some((spot, sectors)) = next else { break };
                self.disk.discard(spot, sectors);
                any = true;
                let mut i = self.inner.lock();
                i.discards += 1;
                if let Some(ring) = i.rings.get_mut(at) {
                    ring.was_discarded();
                }
                self.update_space(&mut i);
            }
        }
        any
    }
}
