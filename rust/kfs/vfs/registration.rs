// SPDX-License-Identifier: GPL-2.0

//! Making a filesystem type known to the kernel.

use super::{context, filesystem::FileSystem, inode, super_block};
use crate::bindings;
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    pin::Pin,
    ptr::NonNull,
};
use kernel::{
    container_of,
    error::to_result,
    prelude::*,
    str::CStrExt,
    sync::atomic::{Acquire, Atomic, Relaxed, Release},
    types::Opaque,
    ThisModule, //
};

/// A filesystem type that the kernel knows; see [`FileSystem`].
///
/// Keep it in the module's value: it is to be dropped when the module goes away. The kernel holds a reference on the module for
/// each mount, so there is none then. If it is dropped while there are mounts all the same, what they need stays allocated for ever.
pub struct Registration<T: FileSystem>(ManuallyDrop<Pin<KBox<Type<T>>>>);

/// What stands behind a registration.
///
/// # Invariants
///
/// `cache` is a slab cache for [`inode::Slot<T>`].
#[pin_data]
pub(super) struct Type<T> {
    #[pin]
    raw: Opaque<bindings::file_system_type>,
    cache: NonNull<bindings::kmem_cache>,
    /// Contexts and superblocks.
    users: Atomic<usize>,
    _type: PhantomData<fn(T)>,
}

// SAFETY: The C structure is only handed to functions that lock what they need; the rest is atomic or constant.
unsafe impl<T> Send for Type<T> {}
// SAFETY: As above.
unsafe impl<T> Sync for Type<T> {}

impl<T: FileSystem> Type<T> {
    /// # Safety
    ///
    /// `raw` must be the type of a [`Registration<T>`] that stays during `'a`.
    pub(super) unsafe fn from_raw<'a>(raw: *mut bindings::file_system_type) -> &'a Self {
        // SAFETY: By the contract, `raw` is the field of a `Type<T>`.
        unsafe { &*container_of!(Opaque::cast_from(raw), Self, raw) }
    }

    pub(super) fn enter(&self) {
        self.users.fetch_add(1, Relaxed);
    }

    pub(super) fn leave(&self) {
        self.users.fetch_sub(1, Release);
    }

    pub(super) fn cache(&self) -> *mut bindings::kmem_cache {
        self.cache.as_ptr()
    }
}

impl<T: FileSystem> Registration<T> {
    /// Makes the type known. May sleep. `EBUSY` if there is another of this name.
    pub fn new(module: &'static ThisModule) -> Result<Self> {
        const {
            assert!(
                super::xattr::is_closed(T::XATTR),
                "FileSystem::XATTR does not end with Prefix::END"
            );
        }
        let cache = inode::new_cache::<T>()?;
        let fs_type = KBox::try_pin_init(
            try_pin_init!(Type::<T> {
                raw <- Opaque::ffi_init(|slot: *mut bindings::file_system_type| {
                    let mut raw: bindings::file_system_type = pin_init::zeroed();
                    raw.name = T::NAME.as_char_ptr();
                    raw.fs_flags = T::FLAGS.0 as i32;
                    raw.init_fs_context = Some(context::Callbacks::<T>::init);
                    raw.kill_sb = Some(super_block::kill::<T>);
                    raw.owner = module.as_ptr();
                    // SAFETY: The slot is ours.
                    unsafe { slot.write(raw) };
                }),
                cache,
                users: Atomic::new(0),
                _type: PhantomData,
            }? Error),
            GFP_KERNEL,
        );
        let fs_type = match fs_type {
            Ok(fs_type) => fs_type,
            Err(error) => {
                // SAFETY: The cache was made above and nothing was allocated from it.
                unsafe { bindings::kmem_cache_destroy(cache.as_ptr()) };
                return Err(error);
            }
        };
        let raw = fs_type.raw.get();
        // SAFETY: The structure is initialized and does not move.
        let result = unsafe {
            bindings::kfs_register_lock_keys(raw);
            to_result(bindings::register_filesystem(raw))
        };
        if let Err(error) = result {
            // SAFETY: It was not registered, so that nobody has used it.
            unsafe {
                bindings::kfs_unregister_lock_keys(raw);
                bindings::kmem_cache_destroy(cache.as_ptr());
            }
            return Err(error);
        }
        Ok(Self(ManuallyDrop::new(fs_type)))
    }
}

impl<T: FileSystem> Drop for Registration<T> {
    fn drop(&mut self) {
        let raw = self.0.raw.get();
        // SAFETY: It was registered by `new`, once. No new context can be made after this.
        unsafe { bindings::unregister_filesystem(raw) };
        if self.0.users.load(Acquire) != 0 {
            pr_err!("filesystem type given up while it is in use\n");
            return;
        }
        // SAFETY: There are no superblocks, hence no inodes but those that wait for a grace period to be freed: after the barrier
        // the cache is empty. Superblocks use the lock classes; those are gone, and the box is freed once here.
        unsafe {
            bindings::rcu_barrier();
            bindings::kmem_cache_destroy(self.0.cache());
            bindings::kfs_unregister_lock_keys(raw);
            ManuallyDrop::drop(&mut self.0);
        }
    }
}
