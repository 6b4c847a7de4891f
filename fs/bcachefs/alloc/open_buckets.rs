// SPDX-License-Identifier: GPL-2.0
//! Buckets that something is being written to.
//!
//! From the moment a bucket is chosen until keys refer to what was written to it, nothing else says that it is in use. So it is open,
//! which means: it is not chosen again, not discarded, and its generation stays.
//!
//! # Invariants
//!
//! - Every open bucket is in the hash, once; the rest of the table is the free list.
//! - An open bucket has a reference for each write that is under way, and one more while a write point has it or it is partial: left
//!   behind with room in it, for whoever can use it.

use crate::{
    btree::space::REPLICAS_MAX,
    sb::device::MEMBERS_MAX,
    util::error::Result,
};
use bcachefs_format::keys::{data_type::DataType, extent::Ptr};
use kernel::{new_spinlock, prelude::*, sync::SpinLock};

/// Buckets that can be open, one more than that: number 0 means none.
pub(super) const OPEN_MAX: usize = 1024;
/// Open buckets that can be partial: the oldest makes room for a new one.
const PARTIAL_MAX: usize = OPEN_MAX / 4;
const HASH: usize = 1024;

/// Number of an open bucket.
pub(super) type Id = u16;

/// Numbers of the open buckets of one extent.
pub(super) type Ids = List<Id, REPLICAS_MAX>;

/// A few values.
#[derive(Copy, Clone)]
pub(super) struct List<T, const N: usize> {
    items: [T; N],
    nr: usize,
}

impl<T: Copy + Default + PartialEq, const N: usize> List<T, N> {
    /// An empty one.
    pub(super) fn new() -> Self {
        List { items: [T::default(); N], nr: 0 }
    }

    /// Adds a value; `false` if it is full.
    #[must_use]
    pub(super) fn push(&mut self, item: T) -> bool {
        match self.items.get_mut(self.nr) {
            Some(slot) => {
                *slot = item;
                self.nr += 1;
                true
            }
            None => false,
        }
    }

    pub(super) fn as_slice(&self) -> &[T] {
        self.items.get(..self.nr).unwrap_or(&[])
    }

    pub(super) fn contains(&self, item: T) -> bool {
        self.as_slice().contains(&item)
    }

    pub(super) fn len(&self) -> usize {
        self.nr
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nr == 0
    }

    /// Keeps those that `keep` accepts.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(T) -> bool) {
        let old = *self;
        *self = Self::new();
        for item in old.as_slice() {
            if keep(*item) {
                // It fitted before.
                let _ = self.push(*item);
            }
        }
    }
}

/// What is known of an open bucket.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct OpenBucket {
    pub dev: u8,
    pub generation: u8,
    pub data_type: DataType,
    pub bucket: u64,
    /// Sectors from its end that nobody has taken.
    pub sectors_free: u32,
    /// Sectors it has.
    pub sectors: u32,
    pub refs: u16,
    pub partial: bool,
}

#[derive(Copy, Clone)]
struct Entry {
    open: Option<OpenBucket>,
    /// Of the chain in the hash, or of the free list.
    next: Id,
}

struct Table {
    entries: KVVec<Entry>,
    hash: KVVec<Id>,
    free: Id,
    nr_free: u32,
    partial: KVVec<Id>,
    per_device: [u16; MEMBERS_MAX],
}

/// Why a bucket cannot be opened.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum NotOpened {
    /// It is open.
    Already,
    /// Too many are.
    TableFull,
}

/// The table of open buckets. Nothing of it sleeps.
#[pin_data]
pub(super) struct OpenTable {
    #[pin]
    table: SpinLock<Table>,
}

fn chain(dev: u8, bucket: u64) -> usize {
    let name = u64::from(dev) << 56 ^ bucket;
    (name.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize % HASH
}

impl Table {
    fn get(&self, id: Id) -> Option<&OpenBucket> {
        self.entries.get(usize::from(id))?.open.as_ref()
    }

    fn get_mut(&mut self, id: Id) -> Option<&mut OpenBucket> {
        self.entries.get_mut(usize::from(id))?.open.as_mut()
    }

    fn find(&self, dev: u8, bucket: u64) -> Option<Id> {
        let mut id = self.hash.get(chain(dev, bucket)).copied().unwrap_or(0);
        while id != 0 {
            let entry = self.entries.get(usize::from(id))?;
            match &entry.open {
                Some(b) if b.bucket == bucket && b.dev == dev => return Some(id),
                _ => id = entry.next,
            }
        }
        None
    }

    fn count(&mut self, dev: u8, by: i16) {
        if let Some(n) = self.per_device.get_mut(usize::from(dev)) {
            *n = n.saturating_add_signed(by);
        }
    }

    /// Takes an entry out of the hash and puts it on the free list.
    fn close(&mut self, id: Id, dev: u8, bucket: u64) {
        let chain = chain(dev, bucket);
        let next = self.entries.get(usize::from(id)).map_or(0, |e| e.next);
        let mut at = self.hash.get(chain).copied().unwrap_or(0);
        if at == id {
            if let Some(head) = self.hash.get_mut(chain) {
                *head = next;
            }
        }
        while at != 0 && at != id {
            let Some(entry) = self.entries.get_mut(usize::from(at)) else {
                break;
            };
            if entry.next == id {
                entry.next = next;
                break;
            }
            at = entry.next;
        }
        let free = self.free;
        if let Some(entry) = self.entries.get_mut(usize::from(id)) {
            *entry = Entry { open: None, next: free };
            self.free = id;
            self.nr_free += 1;
        }
        self.count(dev, -1);
    }

    /// Drops a reference. Whether it was the last.
    fn put(&mut self, id: Id) -> bool {
        let Some(b) = self.get_mut(id) else {
            return false;
        };
        b.refs = b.refs.saturating_sub(1);
        let OpenBucket { dev, bucket, refs, .. } = *b;
        if refs == 0 {
            self.close(id, dev, bucket);
        }
        refs == 0
    }
}

impl OpenTable {
    /// An empty table. May sleep.
    pub(super) fn new() -> Result<impl PinInit<Self>> {
        let mut entries = KVVec::with_capacity(OPEN_MAX + 1, GFP_KERNEL)?;
        for id in 0..=OPEN_MAX {
            let next = if id == OPEN_MAX { 0 } else { id as Id + 1 };
            entries.push(Entry { open: None, next }, GFP_KERNEL)?;
        }
        let table = Table {
            entries,
            hash: KVVec::from_elem(0, HASH, GFP_KERNEL)?,
            free: 1,
            nr_free: OPEN_MAX as u32,
            partial: KVVec::with_capacity(PARTIAL_MAX, GFP_KERNEL)?,
            per_device: [0; MEMBERS_MAX],
        };
        Ok(pin_init!(Self {
            table <- new_spinlock!(table, "bcachefs_open_buckets"),
        }))
    }

    /// Opens a bucket, with one reference, if more than `reserve` others can be opened.
    pub(super) fn open(
        &self,
        dev: u8,
        bucket: u64,
        generation: u8,
        data_type: DataType,
        sectors: u32,
        reserve: u32,
    ) -> core::result::Result<Id, NotOpened> {
        let mut table = self.table.lock();
        if table.find(dev, bucket).is_some() {
            return Err(NotOpened::Already);
        }
        let id = table.free;
        if table.nr_free <= reserve || id == 0 {
            return Err(NotOpened::TableFull);
        }
        let chain = chain(dev, bucket);
        let next = table.hash.get(chain).copied().unwrap_or(0);
        let Some(entry) = table.entries.get_mut(usize::from(id)) else {
            return Err(NotOpened::TableFull);
        };
        let free = entry.next;
        *entry = Entry {
            open: Some(OpenBucket {
                dev,
                generation,
                data_type,
                bucket,
                sectors_free: sectors,
                sectors,
                refs: 1,
                partial: false,
            }),
            next,
        };
        if let Some(head) = table.hash.get_mut(chain) {
            *head = id;
        }
        table.free = free;
        table.nr_free -= 1;
        table.count(dev, 1);
        Ok(id)
    }

    /// What is left of an open bucket will not be used.
    pub(super) fn use_up(&self, id: Id) {
        if let Some(b) = self.table.lock().get_mut(id) {
            b.sectors_free = 0;
        }
    }

    /// Whether a bucket is open.
    pub(super) fn is_open(&self, dev: u8, bucket: u64) -> bool {
        self.table.lock().find(dev, bucket).is_some()
    }

    /// What is known of an open bucket.
    pub(super) fn info(&self, id: Id) -> Option<OpenBucket> {
        self.table.lock().get(id).copied()
    }

    /// Buckets that can still be opened.
    pub(super) fn nr_free(&self) -> u32 {
        self.table.lock().nr_free
    }

    /// Open buckets of a device.
    pub(super) fn nr_open(&self, dev: u8) -> u64 {
        let table = self.table.lock();
        table.per_device.get(usize::from(dev)).copied().unwrap_or(0).into()
    }

    /// Open buckets that are partial.
    pub(super) fn nr_partial(&self) -> usize {
        self.table.lock().partial.len()
    }

    /// Takes `sectors` of what is free in an open bucket, with a reference for the write; where they are. `None` if there are
    /// fewer.
    pub(super) fn take_sectors(&self, id: Id, sectors: u32, bucket_start: impl FnOnce(u64) -> u64) -> Option<Ptr> {
        let mut table = self.table.lock();
        let b = table.get_mut(id)?;
        let left = b.sectors_free.checked_sub(sectors)?;
        let refs = b.refs.checked_add(1)?;
        let at = bucket_start(b.bucket).checked_add(u64::from(b.sectors - b.sectors_free))?;
        b.refs = refs;
        b.sectors_free = left;
        Some(Ptr::new(b.dev, at, b.generation))
    }

    /// Drops a reference to each. Whether a bucket was closed by that.
    pub(super) fn put(&self, ids: &[Id]) -> bool {
        let mut table = self.table.lock();
        ids.iter().fold(false, |closed, id| table.put(*id) | closed)
    }

    /// A write point has no use for an open bucket any more: if part of it is used it becomes partial, else it loses the write
    /// point's reference. Whether it was closed by that.
    pub(super) fn leave(&self, id: Id) -> bool {
        let mut guard = self.table.lock();
        let table = &mut *guard;
        let room = table.get(id).is_some_and(|b| {
            b.sectors_free != 0 && b.sectors_free != b.sectors && !b.partial
        });
        let mut closed = false;
        if room && table.partial.len() >= PARTIAL_MAX {
            if let Ok(oldest) = table.partial.remove(0) {
                if let Some(b) = table.get_mut(oldest) {
                    b.partial = false;
                }
                closed = table.put(oldest);
            }
        }
        // There is room for one more: this does not allocate.
        if !room || table.partial.push_within_capacity(id).is_err() {
            return table.put(id) | closed;
        }
        if let Some(b) = table.get_mut(id) {
            b.partial = true;
        }
        closed
    }

    /// Takes over a partial bucket that `fits` accepts, the one left last first.
    pub(super) fn adopt(&self, mut fits: impl FnMut(&OpenBucket) -> bool) -> Option<Id> {
        let mut guard = self.table.lock();
        let table = &mut *guard;
        let at = table
            .partial
            .iter()
            .rposition(|id| table.entries.get(usize::from(*id)).and_then(|e| e.open.as_ref()).is_some_and(&mut fits))?;
        let id = table.partial.remove(at).ok()?;
        table.get_mut(id)?.partial = false;
        Some(id)
    }

    /// Lets go of the partial buckets of `dev`, or of all devices. Whether a bucket was closed by that.
    pub(super) fn drop_partial(&self, dev: Option<u8>) -> bool {
        let mut closed = false;
        while let Some(id) = self.adopt(|b| dev.is_none_or(|dev| b.dev == dev)) {
            closed |= self.put(&[id]);
        }
        closed
    }

    /// Calls `f` with open buckets from number `from` on until it returns false; the number to go on from. For printing, which is
    /// not done under the lock.
    pub(super) fn next_open(&self, from: Id) -> Option<(Id, OpenBucket)> {
        let table = self.table.lock();
        let mut entries = table.entries.iter().enumerate().skip(usize::from(from).max(1));
        entries.find_map(|(id, e)| Some((id as Id, e.open?)))
    }
}

#[kernel::macros::kunit_tests(bcachefs_alloc_open_buckets)]
mod tests {
    use super::*;
    use kernel::sync::Arc;

    const USER: DataType = DataType::USER;

    fn table() -> kernel::error::Result<Arc<OpenTable>> {
        let new = OpenTable::new().map_err(|e| e.errno())?;
        Arc::pin_init(new, GFP_KERNEL)
    }

    #[test]
    fn opened_once_until_closed() -> kernel::error::Result {
        let t = table()?;
        let a = t.open(0, 5, 7, USER, 128, 0).map_err(|_| EINVAL)?;
        assert_eq!(t.open(0, 5, 7, USER, 128, 0), Err(NotOpened::Already));
        assert!(t.open(1, 5, 7, USER, 128, 0).is_ok());
        assert!(t.is_open(0, 5) && t.is_open(1, 5) && !t.is_open(0, 6));
        let start = |b: u64| b * 128;
        let ptr = t.take_sectors(a, 100, start).ok_or(EINVAL)?;
        assert_eq!((ptr.dev(), ptr.offset(), ptr.generation()), (0, 640, 7));
        assert!(t.take_sectors(a, 29, start).is_none());
        let ptr = t.take_sectors(a, 28, start).ok_or(EINVAL)?;
        assert_eq!(ptr.offset(), 740);
        // The write point's and those of two writes.
        assert!(!t.put(&[a]));
        assert!(!t.leave(a));
        assert!(t.is_open(0, 5));
        assert!(t.put(&[a]));
        assert!(!t.is_open(0, 5));
        assert_eq!((t.nr_open(0), t.nr_open(1)), (0, 1));
        assert!(t.open(0, 5, 8, USER, 128, 0).is_ok());
        // Numbers that are not open.
        assert!(!t.put(&[0, 9999]));
        Ok(())
    }

    #[test]
    fn some_are_kept_back() -> kernel::error::Result {
        let t = table()?;
        let mut opened = 0u64;
        while t.open(0, opened, 0, USER, 8, 256).is_ok() {
            opened += 1;
        }
        assert_eq!(opened, OPEN_MAX as u64 - 256);
        assert_eq!(t.open(0, 5000, 0, USER, 8, 256), Err(NotOpened::TableFull));
        while t.open(0, opened, 0, USER, 8, 0).is_ok() {
            opened += 1;
        }
        assert_eq!((opened, t.nr_free()), (OPEN_MAX as u64, 0));
        assert!((0..opened).all(|b| t.is_open(0, b)));
        // Every other one, so that chains are cut at all places.
        let mut id = 1;
        while let Some((at, _)) = t.next_open(id) {
            assert!(t.put(&[at]));
            id = at + 2;
        }
        assert_eq!(t.nr_free(), OPEN_MAX as u32 / 2);
        let left = (0..opened).filter(|b| t.is_open(0, *b)).count();
        assert_eq!(left as u64, t.nr_open(0));
        while t.open(1, opened, 0, USER, 8, 0).is_ok() {
            opened += 1;
        }
        assert_eq!(t.nr_open(1), OPEN_MAX as u64 / 2);
        Ok(())
    }

    #[test]
    fn partial_buckets_are_used_again() -> kernel::error::Result {
        let t = table()?;
        let open = |dev, bucket| t.open(dev, bucket, 0, USER, 64, 0).map_err(|_| EINVAL);
        let (a, b, c) = (open(0, 1)?, open(0, 2)?, open(1, 3)?);
        for id in [a, b, c] {
            assert!(t.take_sectors(id, 1, |x| x).is_some());
            assert!(!t.put(&[id]));
            assert!(!t.leave(id));
        }
        // One that nothing was written to is just closed.
        assert!(t.leave(open(1, 4)?));
        assert_eq!(t.nr_partial(), 3);
        assert_eq!(t.adopt(|o| o.dev == 0), Some(b));
        assert_eq!(t.adopt(|o| o.dev == 7), None);
        assert!(t.info(b).is_some_and(|o| !o.partial && o.refs == 1));
        assert!(t.drop_partial(Some(0)));
        assert!(!t.is_open(0, 1) && t.is_open(0, 2) && t.is_open(1, 3));
        assert!(t.drop_partial(None));
        assert!(!t.drop_partial(None));
        // Nothing is left in it: not partial, but closed.
        assert!(t.take_sectors(b, 3, |x| x).is_some());
        t.use_up(b);
        assert!(!t.leave(b));
        assert!(t.put(&[b]));
        assert_eq!((t.nr_free(), t.nr_partial()), (OPEN_MAX as u32, 0));
        Ok(())
    }

    #[test]
    fn partial_ones_are_not_hoarded() -> kernel::error::Result {
        let t = table()?;
        let n = PARTIAL_MAX as u64 + 40;
        let mut closed = 0;
        for bucket in 0..n {
            let id = t.open(0, bucket, 0, USER, 64, 0).map_err(|_| EINVAL)?;
            assert!(t.take_sectors(id, 1, |x| x).is_some());
            assert!(!t.put(&[id]));
            closed += u64::from(t.leave(id));
        }
        assert_eq!((closed, t.nr_partial(), t.nr_open(0)), (40, PARTIAL_MAX, n - 40));
        assert!((0..n).all(|b| t.is_open(0, b) == (b >= 40)));
        Ok(())
    }

    #[test]
    fn short_lists() {
        let mut l: Ids = List::new();
        for i in 1..=4 {
            assert!(l.push(i));
        }
        assert!(!l.push(5));
        l.retain(|i| i % 2 == 0);
        assert_eq!(l.as_slice(), [2, 4]);
        assert!(l.contains(4) && !l.contains(1) && l.len() == 2);
    }
}
