// SPDX-License-Identifier: GPL-2.0

//! Lists through their items, from which any item can be taken without knowing where it stands.
//!
//! The kernel crate's `List` leaves it to the caller, as an unsafe promise, that an item is in the list it is removed from. Here
//! an item knows that: it belongs to one collection of lists at most, and says so.

use core::{cell::UnsafeCell, mem::ManuallyDrop, ptr::NonNull};
use kernel::{
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Relaxed, Release},
        Arc,
    },
};

/// What an item has a place in lists by.
///
/// # Invariants
///
/// `owner` is 0, or the number of the collection of lists whose item this is in. It is changed from 0 by
/// whoever then has a collection with that number exclusively, and to 0 likewise. `place` is accessed only by
/// who has that collection exclusively, or changed by nobody while it is shared.
pub struct Links<T> {
    owner: Atomic<u64>,
    place: UnsafeCell<Place<T>>,
}

struct Place<T> {
    prev: Option<NonNull<Links<T>>>,
    next: Option<NonNull<Links<T>>>,
    list: usize,
    item: *const T,
}

// SAFETY: `place` is guarded as the type invariants say, and points to items, which can be sent and shared.
unsafe impl<T: Send + Sync> Send for Links<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for Links<T> {}

impl<T> Links<T> {
    /// In no list.
    pub const fn new() -> Self {
        Self {
            owner: Atomic::new(0),
            place: UnsafeCell::new(Place {
                prev: None,
                next: None,
                list: 0,
                item: core::ptr::null(),
            }),
        }
    }
}

impl<T> Default for Links<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Something that has [`Links`].
pub trait Linked: Sized + Send + Sync + 'static {
    /// The links, which have to be a part of the item itself: others are refused.
    fn links(&self) -> &Links<Self>;
}

/// The ends of a list.
struct Head<T> {
    first: Option<NonNull<Links<T>>>,
    last: Option<NonNull<Links<T>>>,
}

/// A number of lists of `T`, called by their indices. What is in them is referred to.
///
/// It is to be kept behind a lock; nothing here sleeps.
///
/// # Invariants
///
/// `id` belongs to no other collection. Every pointer in `heads`, and in the places of links reached from there, is to the links in an
/// item of which the collection owns a reference (`item`, from `Arc::into_raw`), and whose `owner` is `id`. `prev` and `next` are the
/// neighbours, `list` the index of the head.
pub struct Lists<T: Linked> {
    id: u64,
    heads: KVVec<Head<T>>,
}

// SAFETY: It owns references to items, which can be sent and shared.
unsafe impl<T: Linked> Send for Lists<T> {}
// SAFETY: Through a shared reference, items and links are only read.
unsafe impl<T: Linked> Sync for Lists<T> {}

static LAST_ID: Atomic<u64> = Atomic::new(0);

impl<T: Linked> Lists<T> {
    /// Makes `nr` empty lists. May sleep.
    pub fn new(nr: usize) -> Result<Self> {
        let mut heads = KVVec::with_capacity(nr, GFP_KERNEL)?;
        for _ in 0..nr {
            heads.push(Head { first: None, last: None }, GFP_KERNEL)?;
        }
        // INVARIANT: 64 bits do not wrap. All lists are empty.
        Ok(Self {
            id: LAST_ID.fetch_add(1, Relaxed) + 1,
            heads,
        })
    }

    /// Appends `item` to the list with index `list`.
    ///
    /// # Errors
    ///
    /// The item, if it is in some list already, there is no such list, or its links are not its own.
    pub fn push_back(&mut self, list: usize, item: Arc<T>) -> Result<(), Arc<T>> {
        let links = NonNull::from(item.links());
        let start = Arc::as_ptr(&item) as usize;
        let at = links.as_ptr() as usize;
        let inside = at >= start && at - start + size_of::<Links<T>>() <= size_of::<T>();
        let Some(head) = self.heads.get_mut(list).filter(|_| inside) else {
            return Err(item);
        };
        if item.links().owner.cmpxchg(0, self.id, Acquire).is_err() {
            return Err(item);
        }
        let prev = head.last.replace(links);
        // SAFETY: The links are a part of the item, which stays where it is as long as the reference that is kept. With
        // the owner set by this call, and `self` borrowed exclusively, nobody else accesses the place.
        unsafe {
            *links.as_ref().place.get() = Place {
                prev,
                next: None,
                list,
                item: Arc::into_raw(item),
            };
        }
        match prev {
            // SAFETY: By the type invariant, and as above.
            Some(prev) => unsafe { (*prev.as_ref().place.get()).next = Some(links) },
            None => head.first = Some(links),
        }
        Ok(())
    }

    /// Takes `item` out of its list. `None` if it is in none of these.
    pub fn remove(&mut self, item: &T) -> Option<Arc<T>> {
        let links = item.links();
        if links.owner.load(Relaxed) != self.id {
            return None;
        }
        // SAFETY: It is in one of these lists, by the invariant of `Links`, and `self` is borrowed exclusively.
        Some(unsafe { self.unlink(NonNull::from(links)) })
    }

    /// # Safety
    ///
    /// The links are those of an item in one of these lists.
    unsafe fn unlink(&mut self, links: NonNull<Links<T>>) -> Arc<T> {
        // SAFETY: By the type invariant all these are valid, and `self` is borrowed exclusively.
        unsafe {
            let place = &*links.as_ref().place.get();
            let (prev, next, item) = (place.prev, place.next, place.item);
            let list = place.list;
            match next {
                Some(next) => (*next.as_ref().place.get()).prev = prev,
                None => {
                    if let Some(head) = self.heads.get_mut(list) {
                        head.last = prev;
                    }
                }
            }
            match prev {
                Some(prev) => (*prev.as_ref().place.get()).next = next,
                None => {
                    if let Some(head) = self.heads.get_mut(list) {
                        head.first = next;
                    }
                }
            }
            // INVARIANT: No list leads to it any more.
            links.as_ref().owner.store(0, Release);
            Arc::from_raw(item)
        }
    }

    /// Takes out the first item of a list.
    pub fn pop_front(&mut self, list: usize) -> Option<Arc<T>> {
        let first = self.heads.get(list)?.first?;
        // SAFETY: It is in that list.
        Some(unsafe { self.unlink(first) })
    }

    /// The list that `item` is in, if it is one of these.
    pub fn list_of(&self, item: &T) -> Option<usize> {
        let links = item.links();
        if links.owner.load(Relaxed) != self.id {
            return None;
        }
        // SAFETY: It is in one of these lists, and nobody changes that while `self` is borrowed.
        Some(unsafe { (*links.place.get()).list })
    }

    /// The first item of a list for which `wanted` is true.
    pub fn find(&self, list: usize, mut wanted: impl FnMut(&T) -> bool) -> Option<Arc<T>> {
        let mut at = self.heads.get(list)?.first;
        while let Some(links) = at {
            // SAFETY: By the type invariant, and nobody changes anything while `self` is borrowed. The reference stays
            // the list's own.
            let (item, next) = unsafe {
                let place = &*links.as_ref().place.get();
                (ManuallyDrop::new(Arc::from_raw(place.item)), place.next)
            };
            if wanted(&item) {
                return Some(Arc::clone(&item));
            }
            at = next;
        }
        None
    }

    /// Whether a list is empty; one that does not exist is.
    pub fn is_empty(&self, list: usize) -> bool {
        self.heads.get(list).is_none_or(|head| head.first.is_none())
    }
}

impl<T: Linked> Drop for Lists<T> {
    fn drop(&mut self) {
        for list in 0..self.heads.len() {
            while self.pop_front(list).is_some() {}
        }
    }
}

#[kernel::macros::kunit_tests(kfs_list)]
mod tests {
    use super::*;

    struct Item {
        value: u32,
        links: Links<Item>,
    }

    impl Linked for Item {
        fn links(&self) -> &Links<Self> {
            &self.links
        }
    }

    fn item(value: u32) -> Result<Arc<Item>> {
        let links = Links::new();
        Ok(Arc::new(Item { value, links }, GFP_KERNEL)?)
    }

    fn sum(lists: &Lists<Item>, list: usize) -> u32 {
        let mut sum = 0;
        let none = lists.find(list, |item| {
            sum = sum * 10 + item.value;
            false
        });
        assert!(none.is_none());
        sum
    }

    #[test]
    fn items_come_and_go() -> Result {
        let mut lists = Lists::new(2)?;
        let mut other = Lists::new(1)?;
        let all = [item(1)?, item(2)?, item(3)?, item(4)?];
        for item in &all {
            assert!(lists.push_back(1, item.clone()).is_ok());
        }
        assert_eq!((sum(&lists, 0), sum(&lists, 1)), (0, 1234));
        assert!(lists.push_back(0, all[1].clone()).is_err());
        assert!(other.push_back(0, all[1].clone()).is_err());
        assert!(other.remove(&all[1]).is_none());
        assert!(lists.remove(&all[1]).is_some());
        assert!(lists.remove(&all[1]).is_none());
        assert_eq!(sum(&lists, 1), 134);
        assert!(lists.remove(&all[3]).is_some() && lists.remove(&all[0]).is_some());
        assert_eq!(sum(&lists, 1), 3);
        assert_eq!((lists.list_of(&all[2]), lists.list_of(&all[0])), (Some(1), None));
        assert!(other.push_back(0, all[1].clone()).is_ok());
        assert!(lists.push_back(2, all[0].clone()).is_err());
        assert!(lists.push_back(0, all[0].clone()).is_ok());
        assert!(lists.pop_front(1).is_some_and(|item| item.value == 3));
        assert!(lists.is_empty(1) && !lists.is_empty(0) && lists.is_empty(9));
        drop(other);
        assert!(lists.push_back(1, all[1].clone()).is_ok());
        drop(lists);
        for item in all {
            // No list refers to it any more.
            assert!(Arc::into_unique_or_drop(item).is_some());
        }
        Ok(())
    }

    struct Liar {
        links: KBox<Links<Liar>>,
    }

    impl Linked for Liar {
        fn links(&self) -> &Links<Self> {
            &self.links
        }
    }

    #[test]
    fn links_elsewhere_are_refused() -> Result {
        let links = KBox::new(Links::new(), GFP_KERNEL)?;
        let item = Arc::new(Liar { links }, GFP_KERNEL)?;
        let mut lists = Lists::new(1)?;
        assert!(lists.push_back(0, item).is_err());
        Ok(())
    }
}
