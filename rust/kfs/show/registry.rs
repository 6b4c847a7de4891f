// SPDX-License-Identifier: GPL-2.0

//! Directories that independent users share: made by the first, removed with the last.

use crate::bindings;
use core::cell::UnsafeCell;
use kernel::{prelude::*, str::CString};

/// The shared directories of one kind.
///
/// Its lock is one for all registries. It is held while a directory is made or removed, so that neither may involve a
/// registry.
pub(super) struct Registry<D> {
    entries: UnsafeCell<KVec<Entry<D>>>,
}

struct Entry<D> {
    name: CString,
    directory: D,
    users: usize,
}

// SAFETY: The entries are accessed under the lock only.
unsafe impl<D: Send> Sync for Registry<D> {}

impl<D: Clone> Registry<D> {
    pub(super) const fn new() -> Self {
        Self {
            entries: UnsafeCell::new(KVec::new()),
        }
    }

    /// The directory `name`, which is made by `make` if there is none, and a token to keep as long as it is
    /// used. The token has to outlive the directory's clones.
    pub(super) fn join(
        &'static self,
        name: &CStr,
        make: impl FnOnce() -> Result<D>,
    ) -> Result<(D, User<D>)> {
        let copy = name.to_cstring()?;
        let directory = self.locked(|entries| -> Result<D> {
            if let Some(entry) = entries.iter_mut().find(|entry| *entry.name == *name) {
                entry.users += 1;
                return Ok(entry.directory.clone());
            }
            let entry = Entry {
                name: name.to_cstring()?,
                directory: make()?,
                users: 1,
            };
            let directory = entry.directory.clone();
            entries.push(entry, GFP_KERNEL)?;
            Ok(directory)
        })?;
        // Only now, as dropping it takes the count back.
        let user = User {
            registry: self,
            name: copy,
        };
        Ok((directory, user))
    }
}

impl<D> Registry<D> {
    fn locked<R>(&self, access: impl FnOnce(&mut KVec<Entry<D>>) -> R) -> R {
        // SAFETY: Locked and unlocked here, in this order.
        unsafe { bindings::kfs_registry_lock() };
        // SAFETY: Under the lock, the access is exclusive.
        let result = access(unsafe { &mut *self.entries.get() });
        // SAFETY: As above.
        unsafe { bindings::kfs_registry_unlock() };
        result
    }
}

/// A use of a shared directory, which ends when this is dropped.
pub(super) struct User<D: 'static> {
    registry: &'static Registry<D>,
    name: CString,
}

impl<D> Drop for User<D> {
    fn drop(&mut self) {
        self.registry.locked(|entries| {
            let found = entries.iter_mut().position(|entry| *entry.name == *self.name);
            let Some(index) = found else {
                return;
            };
            let left = entries.get_mut(index).map(|entry| {
                entry.users = entry.users.saturating_sub(1);
                entry.users
            });
            if left == Some(0) {
                // The directory is removed in here, so that the next who makes one of this name does not find it still there.
                drop(entries.remove(index));
            }
            if entries.is_empty() {
                // Nobody drops a static, and a module that goes should leave no memory.
                *entries = KVec::new();
            }
        });
    }
}
