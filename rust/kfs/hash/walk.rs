// SPDX-License-Identifier: GPL-2.0

//! Going through a table.

use super::{node::Node, Table};
use crate::bindings;
use core::ptr::NonNull;
use kernel::{error::from_err_ptr, prelude::*, sync::Arc, types::Opaque};

/// Objects taken from the table in one go, under RCU.
const BATCH: usize = 16;

/// An iterator over the objects of a [`Table`] and their keys; see [`Table::walk`].
///
/// The table may be changed while it exists.
///
/// # Invariants
///
/// `raw` has been entered for `table`, and is not started.
pub struct Walk<'a, T: Send + Sync + 'static> {
    table: &'a Table<T>,
    raw: KBox<Opaque<bindings::rhashtable_iter>>,
    batch: [Option<(u64, Arc<T>)>; BATCH],
    next: usize,
    /// How many more objects, or restarts after the table was resized.
    left: usize,
    ended: bool,
}

// SAFETY: The iterator is linked into the table under the table's lock, and not bound to a thread while it is not started.
unsafe impl<T: Send + Sync + 'static> Send for Walk<'_, T> {}

impl<'a, T: Send + Sync + 'static> Walk<'a, T> {
    pub(super) fn new(table: &'a Table<T>, limit: usize) -> Result<Self> {
        // Boxed, because the table links it into a list.
        let raw = KBox::new(Opaque::uninit(), GFP_KERNEL)?;
        // SAFETY: The table is initialised, and borrowed until `drop()`; `raw` stays where it is.
        unsafe { bindings::rhashtable_walk_enter(table.as_raw(), raw.get()) };
        // INVARIANT: Entered just now.
        Ok(Self {
            table,
            raw,
            batch: [const { None }; BATCH],
            next: 0,
            left: limit,
            ended: false,
        })
    }

    /// Fills `batch` from its beginning.
    fn refill(&mut self) {
        self.next = 0;
        let mut filled = 0;
        // SAFETY: By the type invariant, entered and not started. This locks RCU.
        unsafe { bindings::kfs_hash_walk_start(self.raw.get()) };
        while filled < BATCH && self.left > 0 {
            self.left -= 1;
            // SAFETY: Started, above.
            match from_err_ptr(unsafe { bindings::rhashtable_walk_next(self.raw.get()) }) {
                Ok(node) => {
                    let Some(node) = NonNull::new(node.cast::<Node<T>>()) else {
                        self.ended = true;
                        break;
                    };
                    // SAFETY: By the table's invariant it is such a node; RCU keeps it.
                    let node = unsafe { node.as_ref() };
                    if let Some(place) = self.batch.get_mut(filled) {
                        *place = Some((node.key, node.value.clone()));
                        filled += 1;
                    }
                }
                // The table was resized, and the walk begins anew.
                Err(error) if error == EAGAIN => (),
                Err(_) => {
                    self.ended = true;
                    break;
                }
            }
        }
        // INVARIANT: Not started any more.
        // SAFETY: Started, above.
        unsafe { bindings::rhashtable_walk_stop(self.raw.get()) };
    }

    /// The table.
    pub fn table(&self) -> &'a Table<T> {
        self.table
    }
}

impl<T: Send + Sync + 'static> Iterator for Walk<'_, T> {
    type Item = (u64, Arc<T>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.batch.get_mut(self.next).and_then(Option::take) {
                self.next += 1;
                return Some(item);
            }
            if self.ended || self.left == 0 {
                return None;
            }
            self.refill();
        }
    }
}

impl<T: Send + Sync + 'static> Drop for Walk<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, entered and not started; not used after this.
        unsafe { bindings::rhashtable_walk_exit(self.raw.get()) };
    }
}
