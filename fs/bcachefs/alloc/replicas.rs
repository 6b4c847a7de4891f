// SPDX-License-Identifier: GPL-2.0
//! Sets of devices that data is on, and how many sectors are on each, in memory.
//!
//! Looked at by every commit that changes extents, so looking takes no lock: places are filled once and never emptied.
//!
//! # Invariants
//!
//! - Every set in the table is listed in the superblock on disk.
//! - A set is in the table once: only the holder of `adding` adds.

use crate::util::error::Result;
use bcachefs_format::{
    keys::{accounting, data_type::DataType},
    sb::ReplicasEntry,
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{Mutex, SetOnce},
};
use kfs::mem::Counters;

pub use accounting::Replicas;

/// Sets in one part of the table.
const SETS: usize = 128;
/// Places looked at in each part.
const PROBES: usize = 16;

/// Where it is recorded which sets of devices hold data: the superblock.
pub trait ReplicasStore: Send + Sync {
    /// Whether `entry`, whose devices ascend, is listed. Any context.
    fn lists_replicas(&self, entry: &ReplicasEntry<'_>) -> bool;

    /// Makes sure that `entries` are listed, on disk. Sleeps; no lock of a node may be held.
    fn mark_replicas(&self, entries: &mut dyn Iterator<Item = ReplicasEntry<'_>>) -> Result;
}

/// The entry of the superblock for a set.
pub fn entry(set: &Replicas) -> ReplicasEntry<'_> {
    ReplicasEntry {
        data_type: set.data_type,
        nr_required: set.nr_required,
        devs: set.devs(),
    }
}

/// The set that an entry of the superblock lists; `None` for those that are not accounted for.
pub fn set(entry: &ReplicasEntry<'_>) -> Option<Replicas> {
    if entry.data_type == DataType::JOURNAL {
        return None;
    }
    let mut devs = [0; accounting::DEVS_MAX];
    let devs = devs.get_mut(..entry.devs.len())?;
    devs.copy_from_slice(entry.devs);
    devs.sort_unstable();
    Replicas::new(entry.data_type, entry.nr_required, devs)
}

fn hash(set: &Replicas) -> usize {
    let mix = |h: u32, b: &u8| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193);
    let head = [set.data_type.0, set.nr_required];
    let hash = set.devs().iter().fold(head.iter().fold(0xcbf2_9ce4, mix), mix);
    (hash ^ hash >> 15) as usize
}

struct Part {
    sets: KVec<SetOnce<Replicas>>,
    sectors: Counters<SETS>,
    next: SetOnce<KBox<Part>>,
}

impl Part {
    fn new() -> Result<Self> {
        let mut sets = KVec::with_capacity(SETS, GFP_KERNEL)?;
        for _ in 0..SETS {
            sets.push(SetOnce::new(), GFP_KERNEL)?;
        }
        Ok(Part {
            sets,
            sectors: Counters::new()?,
            next: SetOnce::new(),
        })
    }

    fn places(&self, set: &Replicas) -> impl Iterator<Item = (usize, &SetOnce<Replicas>)> {
        let from = hash(set);
        (0..PROBES).filter_map(move |i| {
            let at = from.wrapping_add(i) % SETS;
            self.sets.get(at).map(|s| (at, s))
        })
    }
}

/// The table.
#[pin_data]
pub struct ReplicasTable {
    first: Part,
    #[pin]
    adding: Mutex<()>,
}

impl ReplicasTable {
    /// An empty one.
    pub fn new() -> Result<Pin<KBox<Self>>> {
        let first = Part::new()?;
        Ok(KBox::pin_init(
            pin_init!(ReplicasTable {
                first,
                adding <- new_mutex!((), "replicas_table"),
            }),
            GFP_KERNEL,
        )?)
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        core::iter::successors(Some(&self.first), |p| p.next.as_ref().map(|n| &**n))
    }

    fn find(&self, set: &Replicas) -> Option<(&Part, usize)> {
        // Places fill up from the first on, and do not become empty.
        self.parts().find_map(|part| {
            part.places(set)
                .map_while(|(at, place)| place.as_ref().map(|s| (at, s)))
                .find(|(_, s)| *s == set)
                .map(|(at, _)| (part, at))
        })
    }

    /// Adds sectors to a set; `false` if it is not in the table. Does not sleep.
    pub fn change(&self, set: &Replicas, sectors: i64) -> bool {
        match self.find(set) {
            Some((part, at)) => {
                part.sectors.add(at, sectors as u64);
                true
            }
            None => false,
        }
    }

    /// Sectors of a set; 0 if it is not in the table.
    pub fn sectors(&self, set: &Replicas) -> i64 {
        self.find(set).map_or(0, |(part, at)| part.sectors.sum(at) as i64)
    }

    /// Whether the set is in the table.
    pub fn contains(&self, set: &Replicas) -> bool {
        self.find(set).is_some()
    }

    /// Puts a set, which the superblock lists, into the table. May sleep.
    pub fn add(&self, set: &Replicas) -> Result {
        let _adding = self.adding.lock();
        if self.find(set).is_some() {
            return Ok(());
        }
        let mut part = &self.first;
        loop {
            // INVARIANT: it is not there, and nobody else adds it.
            if part.places(set).any(|(_, place)| place.populate(*set)) {
                return Ok(());
            }
            if part.next.as_ref().is_none() {
                part.next.populate(KBox::new(Part::new()?, GFP_KERNEL)?);
            }
            match part.next.as_ref() {
                Some(next) => part = next,
                None => return Ok(()),
            }
        }
    }

    /// All sets with their sectors.
    pub fn iter(&self) -> impl Iterator<Item = (&Replicas, i64)> {
        self.parts().flat_map(|part| {
            let sets = part.sets.iter().enumerate();
            sets.filter_map(|(at, s)| Some((s.as_ref()?, part.sectors.sum(at) as i64)))
        })
    }
}

#[kernel::macros::kunit_tests(bcachefs_alloc_replicas)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_found_and_counted() -> Result {
        let table = ReplicasTable::new()?;
        let mut all = KVec::new();
        // More than fit in one part.
        for a in 0..20u8 {
            for b in a + 1..20 {
                let set = Replicas::new(DataType::USER, 1, &[a, b]).unwrap_or_default();
                all.push(set, GFP_KERNEL)?;
            }
        }
        for set in all.iter() {
            assert!(!table.change(set, 1));
            table.add(set)?;
            table.add(set)?;
        }
        for (i, set) in all.iter().enumerate() {
            assert!(table.change(set, i as i64 - 50));
            assert!(table.change(set, -1));
        }
        for (i, set) in all.iter().enumerate() {
            assert_eq!(table.sectors(set), i as i64 - 51);
        }
        assert_eq!(table.iter().count(), all.len());
        let other = Replicas::new(DataType::BTREE, 1, &[0, 1]).unwrap_or_default();
        assert!(!table.contains(&other));
        Ok(())
    }

    #[test]
    fn entries_of_the_superblock() {
        let entry_of = |data_type, devs| ReplicasEntry { data_type, nr_required: 1, devs };
        let sorted = Replicas::new(DataType::USER, 1, &[1, 4, 9]);
        assert_eq!(set(&entry_of(DataType::USER, &[9, 1, 4])), sorted);
        assert_eq!(set(&entry_of(DataType::JOURNAL, &[0])), None);
        let back = sorted.as_ref().map(entry);
        assert_eq!(back, Some(entry_of(DataType::USER, &[1, 4, 9])));
        assert_eq!(set(&entry_of(DataType::USER, &[0; 17])), None);
    }
}
