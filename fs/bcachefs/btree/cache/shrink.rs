// SPDX-License-Identifier: GPL-2.0
//! Taking nodes out of memory.

use super::{stats::NotFreed, Cache, List, WriteBack};
use crate::btree::node::Flag;
use kernel::{prelude::*, sync::atomic::Relaxed};
use kfs::{
    mem::{Reclaim, Scanned, Shrink},
    sync::six::Busy,
};

/// What eviction spares.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(super) enum Mercy {
    /// Nodes in use, and the reserve.
    Usual,
    /// Nothing that can be had.
    None,
}

impl Cache {
    /// Evicts the node at `place`, if it can be. What takes its place is unspecified.
    fn try_evict(&self, list: &mut List, place: usize, mercy: Mercy) -> Result<(), NotFreed> {
        let Some(node) = list.nodes.get(place).cloned() else {
            return Err(NotFreed::Noevict);
        };
        let head = node.shared();
        let blocked = |flag| head.has(flag);
        if !blocked(Flag::READ_DONE) {
            return Err(NotFreed::ReadInFlight);
        }
        let reasons = [
            (Flag::NOEVICT, NotFreed::Noevict),
            (Flag::DIRTY, NotFreed::Dirty),
            (Flag::WRITE_IN_FLIGHT, NotFreed::WriteInFlight),
            (Flag::WRITE_BLOCKED, NotFreed::WriteBlocked),
            (Flag::WILL_MAKE_REACHABLE, NotFreed::WillMakeReachable),
        ];
        let check = || {
            reasons
                .iter()
                .find(|(flag, _)| blocked(*flag))
                .map_or(Ok(()), |(_, why)| Err(*why))
        };
        check()?;
        if head.clear(Flag::ACCESSED) && mercy == Mercy::Usual {
            return Err(NotFreed::AccessBit);
        }
        let mut owned = node.try_exclusive().map_err(|busy| match busy {
            Busy::Intent => NotFreed::LockIntent,
            Busy::Other => NotFreed::LockWrite,
        })?;
        // With the lock held nothing can change any more.
        check()?;
        self.remove_locked(list, &node);
        let mem = owned.take_memory();
        drop(owned);
        if let Some(mem) = mem.filter(|_| self.wants_memory()) {
            self.put_memory(mem);
        }
        self.stats.evicted();
        Ok(())
    }

    /// Goes round with the hand until `want` nodes are evicted or all have been looked at. Returns how many were evicted.
    pub(super) fn evict(&self, want: usize, mercy: Mercy) -> usize {
        let mut freed = 0;
        let mut looked = 0;
        let all = self.nr_nodes();
        // In pieces, so that others get at the list in between.
        while freed < want && looked < all {
            let mut list = self.list.lock();
            let (f, l) = self.scan_locked(&mut list, want - freed, 64.min(all - looked), mercy);
            freed += f;
            looked += l;
            if l == 0 {
                break;
            }
        }
        freed
    }

    /// Looks at up to `touch` nodes and evicts up to `want` of them. How many were evicted and looked at.
    fn scan_locked(
        &self,
        list: &mut List,
        want: usize,
        touch: usize,
        mercy: Mercy,
    ) -> (usize, usize) {
        let (mut freed, mut touched) = (0, 0);
        let reserve = match mercy {
            Mercy::Usual => self.reserve.load(Relaxed),
            Mercy::None => 0,
        };
        while freed < want && touched < touch && !list.nodes.is_empty() {
            if list.nodes.len() <= reserve {
                self.stats.not_freed(NotFreed::CacheReserve);
                break;
            }
            if list.hand >= list.nodes.len() {
                list.hand = 0;
            }
            touched += 1;
            match self.try_evict(list, list.hand, mercy) {
                // The last node of the list is now where the hand stands.
                Ok(()) => freed += 1,
                Err(why) => {
                    self.stats.not_freed(why);
                    if why == NotFreed::Dirty && self.writes_wanted(list.nodes.len(), touch) {
                        if let (Some(write_back), Some(node)) =
                            (self.write_back.as_ref(), list.nodes.get(list.hand))
                        {
                            write_back.write_soon(node);
                        }
                    }
                    list.hand += 1;
                }
            }
        }
        (freed, touched)
    }
}

impl Cache {
    /// Whether so much is dirty that `wanted` of `all` nodes cannot be had without writing.
    fn writes_wanted(&self, all: usize, wanted: usize) -> bool {
        self.nr_dirty().saturating_add(wanted) >= all / 4 * 3
    }

    /// Has up to `n` dirty nodes written.
    pub(super) fn write_some(&self, n: usize, write_back: &dyn WriteBack) {
        let list = self.list.lock();
        let dirty = list.nodes.iter().filter(|node| {
            let head = node.shared();
            head.has(Flag::DIRTY) && !head.has(Flag::WRITE_BLOCKED)
        });
        dirty.take(n).for_each(|node| write_back.write_soon(node));
    }
}

impl Shrink for Cache {
    fn count(&self, _: &Reclaim) -> usize {
        self.nr_nodes().saturating_sub(self.reserve.load(Relaxed))
    }

    fn scan(&self, _: &Reclaim, nr: usize) -> Scanned {
        // We may have been called by an allocation made with the list locked.
        let Some(mut list) = self.list.try_lock() else {
            return Scanned::Stop;
        };
        self.stats.scanned();
        let (freed, scanned) = self.scan_locked(&mut list, nr, nr, Mercy::Usual);
        Scanned::Freed { freed, scanned }
    }
}
