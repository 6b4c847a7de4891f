// SPDX-License-Identifier: GPL-2.0
//! Accounting in memory.
//!
//! The accounting btree says what the filesystem holds. The counters that the allocator, statfs and reservations need are kept in
//! memory as well: read at mount, changed by every commit. Others (of inodes, of snapshots) are in the btree only.
//!
//! Counters have a copy for each CPU: changing one touches memory of that CPU alone.

use super::replicas::{self, ReplicasStore, ReplicasTable};
use crate::{
    btree::{
        triggers::MissingReplicas, Attempt, Btree, TransError,
    },
    sb::{device::MEMBERS_MAX, Super},
    util::error::Result,
};
use bcachefs_format::{
    keys::{
        accounting::{Accounting as Value, AccountingKey, ACCOUNTING_COUNTERS_MAX},
        compression::CompressionType,
        data_type::DataType,
        reservation::REPLICAS_MAX,
    },
    sb::ReplicasEntry,
    BtreeId, KeyRef, KeyType,
};
use core::fmt;
use kernel::{
    prelude::*,
    sync::{Arc, SetOnce},
};
use kfs::mem::Counters;

/// Data types that have counters.
pub const TYPES: usize = DataType::COUNT as usize;
/// Counters of one data type on one device.
const PER_TYPE: usize = 3;
const DEVICE_COUNTERS: usize = TYPES * PER_TYPE;

/// The fixed counters: where each kind begins.
const INODES: usize = 0;
const REBALANCE: usize = 1;
const RESERVED: usize = 2;
const COMPRESSION: usize = RESERVED + REPLICAS_MAX as usize;
const BTREES: usize = COMPRESSION + 3 * COMPRESSIONS;
const TOTALS: usize = BTREES + BtreeId::MAX.0 as usize + 1;
const FIXED: usize = TOTALS + 4;
const COMPRESSIONS: usize = CompressionType::INCOMPRESSIBLE.0 as usize;

/// Sums over sets of devices.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Total {
    Btree,
    Data,
    Cached,
    Reserved,
}

impl Total {
    /// The sum that data of this type is part of.
    fn of(data_type: DataType) -> Option<Self> {
        match data_type {
            DataType::BTREE => Some(Total::Btree),
            DataType::USER | DataType::PARITY => Some(Total::Data),
            DataType::CACHED => Some(Total::Cached),
            _ => None,
        }
    }

    fn counter(self) -> usize {
        TOTALS + self as usize
    }
}

/// What the filesystem holds, in sectors.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Superblocks and journals, as whole buckets.
    pub hidden: u64,
    /// Nodes of btrees, all copies.
    pub btree: u64,
    /// File data and parity, all copies.
    pub data: u64,
    /// Data that can be dropped.
    pub cached: u64,
    /// Promised to files, all copies.
    pub reserved: u64,
    /// Number of inodes.
    pub inodes: u64,
}

/// Where the counters of a key are.
enum Place<'a> {
    /// Among the fixed ones, from this one on.
    Fixed(usize),
    /// Among those of a device.
    Device(&'a Counters<DEVICE_COUNTERS>, usize),
    /// In the table of sets of devices.
    Replicas(replicas::Replicas),
    /// In the btree only.
    Nowhere,
}

/// The counters.
pub struct Accounting {
    fixed: Counters<FIXED>,
    devices: KVec<SetOnce<Counters<DEVICE_COUNTERS>>>,
    bucket_sectors: KVec<u32>,
    replicas: Pin<KBox<ReplicasTable>>,
    store: Arc<dyn ReplicasStore>,
}

/// What is in use changes by this many sectors with an accounting key.
pub fn used_sectors(delta: KeyRef<'_>) -> i64 {
    let Ok(value) = Value::parse(delta) else {
        return 0;
    };
    match value.what {
        AccountingKey::PersistentReserved { nr_replicas } => {
            value.counter(0).wrapping_mul(nr_replicas.into())
        }
        AccountingKey::Replicas(set) => match Total::of(set.data_type) {
            Some(Total::Btree | Total::Data) => value.counter(0),
            _ => 0,
        },
        _ => 0,
    }
}

impl Accounting {
    /// Counters, all zero, for the members of the filesystem and the sets of devices that its superblock lists. May sleep.
    #[inline(never)]
    pub fn new(sup: &Super, store: Arc<dyn ReplicasStore>) -> Result<Arc<Self>> {
        let sb = sup.raw()?;
        let members = sb.members();
        let members = members.iter().map(|(dev, m)| (dev, m.bucket_size.get().into()));
        Self::with_members(members, sb.replicas().iter(), store)
    }

    #[inline(never)]
    pub(super) fn with_members<'a>(
        members: impl Iterator<Item = (u8, u32)>,
        listed: impl Iterator<Item = ReplicasEntry<'a>>,
        store: Arc<dyn ReplicasStore>,
    ) -> Result<Arc<Self>> {
        let mut bucket_sectors = KVec::from_elem(0, MEMBERS_MAX, GFP_KERNEL)?;
        let mut devices = KVec::with_capacity(MEMBERS_MAX, GFP_KERNEL)?;
        for _ in 0..MEMBERS_MAX {
            devices.push(SetOnce::new(), GFP_KERNEL)?;
        }
        for (dev, sectors) in members {
            let dev = usize::from(dev);
            if let (Some(place), Some(to)) = (devices.get(dev), bucket_sectors.get_mut(dev)) {
                place.populate(Counters::new()?);
                *to = sectors;
            }
        }
        let replicas = ReplicasTable::new()?;
        for set in listed.filter_map(|entry| replicas::set(&entry)) {
            replicas.add(&set)?;
        }
        Ok(Arc::new(
            Accounting { fixed: Counters::new()?, devices, bucket_sectors, replicas, store },
            GFP_KERNEL,
        )?)
    }

    fn place(&self, what: &AccountingKey) -> Place<'_> {
        let fixed = |from, index, limit| match index < limit {
            true => Place::Fixed(from + index),
            false => Place::Nowhere,
        };
        match *what {
            AccountingKey::NrInodes => Place::Fixed(INODES),
            AccountingKey::RebalanceWork => Place::Fixed(REBALANCE),
            AccountingKey::PersistentReserved { nr_replicas } => match nr_replicas.checked_sub(1) {
                Some(i) => fixed(RESERVED, i.into(), REPLICAS_MAX.into()),
                None => Place::Nowhere,
            },
            AccountingKey::Compression { compression } => match compression.0.checked_sub(1) {
                Some(i) => fixed(COMPRESSION, 3 * usize::from(i), 3 * COMPRESSIONS),
                None => Place::Nowhere,
            },
            AccountingKey::Btree { id } => fixed(BTREES, id as usize, TOTALS - BTREES),
            AccountingKey::DevDataType { dev, data_type } => {
                let counters = self.devices.get(usize::from(dev)).and_then(|d| d.as_ref());
                match counters.filter(|_| data_type.is_known()) {
                    Some(c) => Place::Device(c, PER_TYPE * usize::from(data_type.0)),
                    None => Place::Nowhere,
                }
            }
            AccountingKey::Replicas(set) => Place::Replicas(set),
            AccountingKey::Snapshot { .. } | AccountingKey::Inum { .. } => Place::Nowhere,
            AccountingKey::Unknown { .. } => Place::Nowhere,
        }
    }

    /// Adds `sign` times the counters of `key`. Does not sleep.
    fn change(&self, key: KeyRef<'_>, sign: i64) -> core::result::Result<(), MissingReplicas> {
        let Ok(value) = Value::parse(key) else {
            return Ok(());
        };
        let nr = value.what.nr_counters().unwrap_or(0);
        let deltas = || value.counters().take(nr).map(|d| d.wrapping_mul(sign)).enumerate();
        match self.place(&value.what) {
            Place::Fixed(from) => deltas().for_each(|(i, d)| self.fixed.add(from + i, d as u64)),
            Place::Device(c, from) => deltas().for_each(|(i, d)| c.add(from + i, d as u64)),
            Place::Replicas(set) => {
                let sectors = value.counter(0).wrapping_mul(sign);
                if !self.replicas.change(&set, sectors) {
                    return Err(MissingReplicas);
                }
                if let Some(total) = Total::of(set.data_type) {
                    self.fixed.add(total.counter(), sectors as u64);
                }
            }
            Place::Nowhere => {}
        }
        if let AccountingKey::PersistentReserved { nr_replicas } = value.what {
            let sectors = value.counter(0).wrapping_mul(sign).wrapping_mul(nr_replicas.into());
            self.fixed.add(Total::Reserved.counter(), sectors as u64);
        }
        Ok(())
    }

    /// Applies the deltas of `key`. Does not sleep.
    ///
    /// # Errors
    ///
    /// The superblock does not list the set of devices that `key` is about; nothing is changed.
    pub fn add(&self, key: KeyRef<'_>) -> core::result::Result<(), MissingReplicas> {
        self.change(key, 1)
    }

    /// Takes back [`Accounting::add`]. Does not sleep.
    pub fn subtract(&self, key: KeyRef<'_>) {
        // A set that was found is still there.
        let _ = self.change(key, -1);
    }

    /// Makes the superblock list the sets of devices that `keys` are about. Sleeps; no locks may be held.
    pub fn mark_replicas<'a>(&self, keys: &mut dyn Iterator<Item = KeyRef<'a>>) -> Result {
        let mut sets: KVec<replicas::Replicas> = KVec::new();
        for key in keys {
            match Value::parse(key).map(|v| v.what) {
                Ok(AccountingKey::Replicas(set)) if !self.replicas.contains(&set) => {
                    sets.push(set, GFP_KERNEL)?
                }
                _ => {}
            }
        }
        if sets.iter().any(|set| !self.store.lists_replicas(&replicas::entry(set))) {
            self.store.mark_replicas(&mut sets.iter().map(replicas::entry))?;
        }
        sets.iter().try_for_each(|set| self.replicas.add(set))
    }

    /// Reads what is kept in memory from the btree, with what the journal adds to it; once, before the first commit. May sleep.
    ///
    /// Looks up what there can be instead of going through the btree, which has a key for every inode.
    pub fn read(&self, btree: &Btree) -> Result {
        let one = |what| btree.run(|t| self.read_one(t, what));
        one(AccountingKey::NrInodes)?;
        one(AccountingKey::RebalanceWork)?;
        for nr_replicas in 1..=REPLICAS_MAX {
            one(AccountingKey::PersistentReserved { nr_replicas })?;
        }
        for c in 1..=COMPRESSIONS as u8 {
            one(AccountingKey::Compression { compression: CompressionType(c) })?;
        }
        for id in 0..=BtreeId::MAX.0 {
            one(AccountingKey::Btree { id: id.into() })?;
        }
        for dev in (0..MEMBERS_MAX as u8).filter(|dev| self.device_counters(*dev).is_some()) {
            for t in 0..DataType::COUNT {
                one(AccountingKey::DevDataType { dev, data_type: DataType(t) })?;
            }
        }
        for (set, _) in self.replicas.iter() {
            one(AccountingKey::Replicas(*set))?;
        }
        Ok(())
    }

    fn read_one(&self, t: &mut Attempt<'_>, what: AccountingKey) -> core::result::Result<(), TransError> {
        let Some(pos) = what.to_pos() else {
            return Ok(());
        };
        if let Some(key) = t.get(BtreeId::ACCOUNTING, pos)? {
            if key.key.key_type == KeyType::ACCOUNTING {
                // All sets asked for are in the table.
                let _ = self.add(key);
            }
        }
        Ok(())
    }

    fn device_counters(&self, dev: u8) -> Option<&Counters<DEVICE_COUNTERS>> {
        self.devices.get(usize::from(dev))?.as_ref()
    }

    /// Of each data type the buckets on device `dev`, sectors of them in use, and sectors that are not. Any context.
    pub fn device(&self, dev: u8) -> [[u64; PER_TYPE]; TYPES] {
        let mut all = [[0; PER_TYPE]; TYPES];
        let Some(counters) = self.device_counters(dev) else {
            return all;
        };
        for (i, to) in all.as_flattened_mut().iter_mut().enumerate() {
            *to = count(counters.sum(i));
        }
        all
    }

    /// What the filesystem holds. Any context.
    pub fn totals(&self) -> Totals {
        let total = |t: Total| count(self.fixed.sum(t.counter()));
        let hidden = |(dev, sectors): (usize, &u32)| {
            let counters = self.devices.get(dev)?.as_ref()?;
            let buckets = [DataType::SB, DataType::JOURNAL]
                .map(|t| count(counters.sum(PER_TYPE * usize::from(t.0))));
            Some(buckets.iter().sum::<u64>().saturating_mul(u64::from(*sectors)))
        };
        Totals {
            hidden: self.bucket_sectors.iter().enumerate().filter_map(hidden).sum(),
            btree: total(Total::Btree),
            data: total(Total::Data),
            cached: total(Total::Cached),
            reserved: total(Total::Reserved),
            inodes: count(self.fixed.sum(INODES)),
        }
    }

    /// The counters of `what` as kept in memory; `None` if they are not.
    pub fn get(&self, what: &AccountingKey) -> Option<[i64; ACCOUNTING_COUNTERS_MAX]> {
        let nr = what.nr_counters()?;
        let mut all = [0; ACCOUNTING_COUNTERS_MAX];
        let place = self.place(what);
        for (i, to) in all.iter_mut().take(nr).enumerate() {
            *to = match &place {
                Place::Fixed(from) => self.fixed.sum(from + i) as i64,
                Place::Device(c, from) => c.sum(from + i) as i64,
                Place::Replicas(set) => self.replicas.sectors(set),
                Place::Nowhere => return None,
            };
        }
        Some(all)
    }
}

/// A counter, which is not negative but for a moment.
fn count(n: u64) -> u64 {
    u64::try_from(n as i64).unwrap_or(0)
}

impl fmt::Display for Accounting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.totals())?;
        for (set, sectors) in self.replicas.iter() {
            writeln!(f, "replicas {set}: {sectors}")?;
        }
        for dev in 0..MEMBERS_MAX as u8 {
            if self.device_counters(dev).is_none() {
                continue;
            }
            for (t, [buckets, sectors, fragmented]) in self.device(dev).into_iter().enumerate() {
                if buckets != 0 {
                    let t = DataType(t as u8);
                    writeln!(f, "dev {dev} {t}: {buckets} {sectors} {fragmented}")?;
                }
            }
        }
        Ok(())
    }
}

#[kernel::macros::kunit_tests(bcachefs_alloc_counters)]
mod tests {
    use super::*;
    use bcachefs_format::{Bkey, Bversion};
    use kernel::{new_mutex, sync::Mutex};

    /// A superblock's list, and how often it has been written.
    #[pin_data]
    struct List {
        #[pin]
        sets: Mutex<KVec<replicas::Replicas>>,
    }

    impl ReplicasStore for List {
        fn lists_replicas(&self, entry: &ReplicasEntry<'_>) -> bool {
            self.sets.lock().iter().any(|s| replicas::entry(s) == *entry)
        }

        fn mark_replicas(&self, entries: &mut dyn Iterator<Item = ReplicasEntry<'_>>) -> Result {
            for e in entries {
                if let Some(set) = replicas::set(&e) {
                    self.sets.lock().push(set, GFP_KERNEL)?;
                }
            }
            Ok(())
        }
    }

    fn set(data_type: DataType, devs: &[u8]) -> AccountingKey {
        AccountingKey::Replicas(replicas::Replicas::new(data_type, 1, devs).unwrap_or_default())
    }

    fn accounting() -> Result<(Arc<Accounting>, Arc<List>)> {
        let list = Arc::pin_init(
            pin_init!(List { sets <- new_mutex!(KVec::new(), "list") }),
            GFP_KERNEL,
        )?;
        let listed = ReplicasEntry { data_type: DataType::BTREE, nr_required: 1, devs: &[0] };
        let members = [(0u8, 256u32), (3, 512)];
        let listed = core::iter::once(listed);
        Ok((Accounting::with_members(members.into_iter(), listed, list.clone())?, list))
    }

    fn with<R>(what: AccountingKey, deltas: &[i64], f: impl FnOnce(KeyRef<'_>) -> R) -> R {
        let mut words = [0u64; 3];
        let n = Value::build(deltas, &mut words).unwrap_or(0);
        let key = Bkey {
            u64s: 5 + n as u8,
            key_type: KeyType::ACCOUNTING,
            version: Bversion { hi: 0, lo: 1 },
            ..Bkey::deleted(what.to_pos().unwrap_or_default())
        };
        f(KeyRef { key, value: &words[..n] })
    }

    #[test]
    fn deltas_add_up() -> Result {
        let (a, _) = accounting()?;
        let add = |what, deltas: &[i64]| with(what, deltas, |k| a.add(k));
        let dev = |dev, data_type| AccountingKey::DevDataType { dev, data_type };
        assert_eq!(add(AccountingKey::NrInodes, &[5]), Ok(()));
        assert_eq!(add(AccountingKey::NrInodes, &[-2]), Ok(()));
        assert_eq!(add(dev(0, DataType::SB), &[17, 4000, 352]), Ok(()));
        assert_eq!(add(dev(3, DataType::JOURNAL), &[8, 4096, 0]), Ok(()));
        assert_eq!(add(dev(7, DataType::USER), &[1, 2, 3]), Ok(()));
        assert_eq!(add(set(DataType::BTREE, &[0]), &[512]), Ok(()));
        assert_eq!(add(AccountingKey::PersistentReserved { nr_replicas: 3 }, &[10]), Ok(()));
        let totals = Totals {
            hidden: 17 * 256 + 8 * 512,
            btree: 512,
            reserved: 30,
            inodes: 3,
            ..Totals::default()
        };
        assert_eq!(a.totals(), totals);
        assert_eq!(a.device(0)[1], [17, 4000, 352]);
        assert_eq!(a.device(3)[2], [8, 4096, 0]);
        assert_eq!(a.get(&dev(7, DataType::USER)), None);

        with(AccountingKey::NrInodes, &[3], |k| a.subtract(k));
        with(set(DataType::BTREE, &[0]), &[512], |k| a.subtract(k));
        with(AccountingKey::PersistentReserved { nr_replicas: 3 }, &[10], |k| a.subtract(k));
        let left = Totals { hidden: totals.hidden, ..Totals::default() };
        assert_eq!(a.totals(), left);
        assert_eq!(a.get(&set(DataType::BTREE, &[0])), Some([0; 3]));
        Ok(())
    }

    #[test]
    fn sets_have_to_be_listed_first() -> Result {
        let (a, list) = accounting()?;
        let user = set(DataType::USER, &[0, 3]);
        assert_eq!(with(user, &[8], |k| a.add(k)), Err(MissingReplicas));
        assert_eq!(a.totals(), Totals::default());
        with(user, &[8], |k| a.mark_replicas(&mut core::iter::once(k)))?;
        assert_eq!(list.sets.lock().len(), 1);
        assert_eq!(with(user, &[8], |k| a.add(k)), Ok(()));
        assert_eq!((a.totals().data, a.get(&user)), (8, Some([8, 0, 0])));
        Ok(())
    }

    #[test]
    fn what_counts_as_used() {
        let used = |what, deltas: &[i64]| with(what, deltas, used_sectors);
        assert_eq!(used(set(DataType::USER, &[0, 1]), &[16]), 16);
        assert_eq!(used(set(DataType::PARITY, &[0, 1]), &[-16]), -16);
        assert_eq!(used(set(DataType::BTREE, &[0]), &[512]), 512);
        assert_eq!(used(set(DataType::CACHED, &[0]), &[512]), 0);
        assert_eq!(used(AccountingKey::PersistentReserved { nr_replicas: 2 }, &[8]), 16);
        assert_eq!(used(AccountingKey::NrInodes, &[1]), 0);
        assert_eq!(used(AccountingKey::Snapshot { id: 1 }, &[8]), 0);
    }

    #[test]
    fn counters_do_not_overlap() -> Result {
        let (a, _) = accounting()?;
        let mut keys: KVec<AccountingKey> = KVec::new();
        let mut push = |k| keys.push(k, GFP_KERNEL);
        push(AccountingKey::NrInodes)?;
        push(AccountingKey::RebalanceWork)?;
        for nr_replicas in 0..6 {
            push(AccountingKey::PersistentReserved { nr_replicas })?;
        }
        for c in 0..8 {
            push(AccountingKey::Compression { compression: CompressionType(c) })?;
        }
        for id in 0..70 {
            push(AccountingKey::Btree { id })?;
        }
        for t in 0..13 {
            push(AccountingKey::DevDataType { dev: 0, data_type: DataType(t) })?;
        }
        for (i, what) in keys.iter().enumerate() {
            let nr = what.nr_counters().unwrap_or(0);
            let deltas = [1000 + i as i64, 2000 + i as i64, 3000 + i as i64];
            let _ = with(*what, &deltas[..nr], |k| a.add(k));
        }
        let mut kept = 0;
        for (i, what) in keys.iter().enumerate() {
            if let Some([first, ..]) = a.get(what) {
                assert_eq!(first, 1000 + i as i64);
                kept += 1;
            }
        }
        assert_eq!(kept, 2 + 4 + 5 + 63 + 11);
        Ok(())
    }
}
