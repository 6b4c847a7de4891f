// SPDX-License-Identifier: GPL-2.0

//! The table.

use super::{
    node::{Graveyard, Node},
    Walk,
};
use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    alloc::Flags,
    error::{from_err_ptr, to_result},
    prelude::*,
    sync::{rcu, Arc},
    types::Opaque,
};

/// A hash table that holds a reference to each of its objects, found by a 64-bit key.
///
/// Lookups run under RCU: they take no lock, and do not wait for insertions, removals or the table's growing and
/// shrinking, which happen by themselves. The reference of a removed object is dropped some time after its removal, in process
/// context.
///
/// The table has to be pinned, and dropping it may sleep.
///
/// # Invariants
///
/// `raw` is initialised; its nodes are from `KBox::<Node<T>>::into_raw()`, with `graveyard` as graveyard.
#[pin_data(PinnedDrop)]
pub struct Table<T: Send + Sync + 'static> {
    #[pin]
    graveyard: Graveyard<T>,
    #[pin]
    raw: Opaque<bindings::rhashtable>,
}

// SAFETY: A `rhashtable` is made for concurrent use and not bound to a thread; its objects are `Send` and `Sync`.
unsafe impl<T: Send + Sync + 'static> Send for Table<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync + 'static> Sync for Table<T> {}

/// Why an object was not inserted.
pub enum InsertError<T> {
    /// There is one with this key: here it is.
    Exists(Arc<T>),
    /// There is no memory for it, or the table is full.
    Failed(Error),
}

impl<T: Send + Sync + 'static> Table<T> {
    /// Makes an empty table. May sleep; fails with `ENOMEM`.
    pub fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            graveyard <- Graveyard::new(),
            // INVARIANT: Initialised last, so that it is whenever there is a table; it has no nodes.
            raw <- Opaque::try_ffi_init(|table| {
                // SAFETY: `table` is pinned memory for a table.
                to_result(unsafe { bindings::kfs_hash_init(table) })
            }),
        })
    }

    /// Finds the node with this key.
    ///
    /// It is valid while the RCU guard lives.
    fn node<'a>(&self, key: u64, _guard: &'a rcu::Guard) -> Option<&'a Node<T>> {
        // SAFETY: By the type invariant the table is initialised; RCU is locked.
        let node = unsafe { bindings::kfs_hash_lookup(self.raw.get(), key) };
        // SAFETY: By the type invariant it is such a node, and nodes are freed a grace period after their removal.
        NonNull::new(node.cast::<Node<T>>()).map(|node| unsafe { node.as_ref() })
    }

    /// The object with this key. Does not sleep.
    pub fn get(&self, key: u64) -> Option<Arc<T>> {
        let guard = rcu::read_lock();
        Some(self.node(key, &guard)?.value.clone())
    }

    /// Inserts an object unless there is one with this key. May sleep.
    pub fn insert(&self, key: u64, value: Arc<T>) -> Result<(), InsertError<T>> {
        self.insert_with(key, value, GFP_KERNEL)
    }

    /// The same with memory allocated with `flags`, which say whether it may sleep.
    pub fn insert_with(&self, key: u64, value: Arc<T>, flags: Flags) -> Result<(), InsertError<T>> {
        let node = Node::new(key, value, &raw const self.graveyard, flags);
        let node = node.map_err(InsertError::Failed)?;
        let node = KBox::into_raw(node);
        let guard = rcu::read_lock();
        // SAFETY: By the type invariant the table is initialised, and RCU is locked. The node is valid.
        let there = from_err_ptr(unsafe { bindings::kfs_hash_insert(self.raw.get(), node.cast()) });
        let error = match there.map(|there| NonNull::new(there.cast::<Node<T>>())) {
            // INVARIANT: From `into_raw()`, above.
            Ok(None) => return Ok(()),
            // SAFETY: By the type invariant it is such a node; RCU keeps it.
            Ok(Some(there)) => InsertError::Exists(unsafe { there.as_ref() }.value.clone()),
            Err(error) => InsertError::Failed(error),
        };
        // What is dropped next may sleep when dropped.
        drop(guard);
        // SAFETY: From `into_raw()`, above, and not in the table.
        drop(unsafe { KBox::from_raw(node) });
        Err(error)
    }

    /// Removes the object with this key if it is `value` itself. Says whether it was, and was removed by this call.
    pub fn remove(&self, key: u64, value: &T) -> bool {
        let guard = rcu::read_lock();
        let Some(node) = self.node(key, &guard) else {
            return false;
        };
        if !core::ptr::eq(Arc::as_ptr(&node.value), value) {
            return false;
        }
        let node = NonNull::from(node);
        // SAFETY: By the type invariant the table is initialised; RCU keeps the node valid.
        let removed = unsafe { bindings::kfs_hash_remove(self.raw.get(), node.as_ptr().cast()) };
        if removed != 0 {
            // Somebody else has just done it.
            return false;
        }
        // SAFETY: By the type invariant from `into_raw()`; removed by this call, hence buried once.
        unsafe { Node::bury(node) };
        true
    }

    /// The number of objects, while others may be inserting and removing.
    pub fn len(&self) -> usize {
        // SAFETY: By the type invariant the table is initialised.
        unsafe { bindings::kfs_hash_len(self.raw.get()) as usize }
    }

    /// Whether there are no objects, while others may be inserting and removing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Goes through the table, in no particular order, over at most `limit` objects. May sleep.
    ///
    /// An object may be met twice when the table is resized meanwhile, and missed when others that share its bucket are
    /// removed meanwhile. Who has to see all repeats it.
    pub fn walk(&self, limit: usize) -> Result<Walk<'_, T>> {
        Walk::new(self, limit)
    }

    pub(super) fn as_raw(&self) -> *mut bindings::rhashtable {
        self.raw.get()
    }
}

/// # Safety
///
/// Called by `rhashtable_free_and_destroy()` for each node of a table of `T`.
unsafe extern "C" fn free_node<T>(node: *mut c_void, _: *mut c_void) {
    // SAFETY: By `Table`'s invariant, from `into_raw()`; the table does not use it any more.
    drop(unsafe { KBox::from_raw(node.cast::<Node<T>>()) });
}

#[pinned_drop]
impl<T: Send + Sync + 'static> PinnedDrop for Table<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant the table is initialised. Nobody uses it any more: users borrow it.
        unsafe {
            bindings::rhashtable_free_and_destroy(
                self.raw.get(),
                Some(free_node::<T>),
                core::ptr::null_mut(),
            );
        }
        self.graveyard.close();
    }
}

#[kernel::macros::kunit_tests(kfs_hash)]
mod tests {
    use super::*;
    use kernel::sync::atomic::{Atomic, Relaxed};

    struct Thing {
        number: u64,
        drops: Arc<Atomic<i32>>,
    }

    impl Drop for Thing {
        fn drop(&mut self) {
            self.drops.add(1, Relaxed);
        }
    }

    fn thing(number: u64, drops: &Arc<Atomic<i32>>) -> Result<Arc<Thing>> {
        let drops = drops.clone();
        Ok(Arc::new(Thing { number, drops }, GFP_KERNEL)?)
    }

    const COUNT: u64 = 3000;

    #[test]
    fn objects_come_and_go() -> Result {
        let drops = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let table = KBox::pin_init(Table::<Thing>::new(), GFP_KERNEL)?;
        assert!(table.is_empty());
        for number in 0..COUNT {
            // Spread, with high bits that matter.
            let key = number << 33 | 1;
            assert!(table.insert(key, thing(number, &drops)?).is_ok());
        }
        assert_eq!(table.len(), COUNT as usize);
        for number in 0..COUNT {
            assert!(table.get(number << 33 | 1).is_some_and(|found| found.number == number));
            assert!(table.get(number << 33).is_none());
        }

        // An object is not replaced.
        let second = thing(77, &drops)?;
        match table.insert(5 << 33 | 1, second.clone()) {
            Err(InsertError::Exists(there)) => assert_eq!(there.number, 5),
            _ => return Err(EINVAL),
        }
        // Nor removed in another's name.
        assert!(!table.remove(5 << 33 | 1, &second));
        drop(second);
        assert_eq!(drops.load(Relaxed), 1);

        let fifth = table.get(5 << 33 | 1).ok_or(ENOENT)?;
        assert!(table.remove(5 << 33 | 1, &fifth));
        assert!(!table.remove(5 << 33 | 1, &fifth));
        assert!(table.get(5 << 33 | 1).is_none());
        assert_eq!(fifth.number, 5);
        drop(fifth);

        drop(table);
        assert_eq!(drops.load(Relaxed), COUNT as i32 + 1);
        Ok(())
    }

    #[test]
    fn walks_are_complete_and_bounded() -> Result {
        let drops = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let table = KBox::pin_init(Table::<Thing>::new(), GFP_KERNEL)?;
        assert_eq!(table.walk(100)?.count(), 0);
        for number in 0..200 {
            assert!(table.insert(number, thing(number, &drops)?).is_ok());
        }
        let mut met = [false; 200];
        for (key, found) in table.walk(100_000)? {
            assert_eq!(key, found.number);
            if let Some(met) = met.get_mut(key as usize) {
                *met = true;
            }
        }
        assert!(met.iter().all(|&met| met));
        assert_eq!(table.walk(17)?.count(), 17);

        // Emptied while walking over it, which may miss some.
        for _ in 0..200 {
            for (key, found) in table.walk(100_000)? {
                table.remove(key, &found);
            }
            if table.is_empty() {
                break;
            }
        }
        assert!(table.is_empty());
        Ok(())
    }
}
