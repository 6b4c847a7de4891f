// SPDX-License-Identifier: GPL-2.0

//! Allocation of inodes, and finding them by key.

use super::{Inode, InodeEntry, InodeRef, NewInode, Slot};
use crate::{
    bindings,
    vfs::{filesystem::FileSystem, registration::Type, super_block::SuperBlock},
};
use core::{mem, ptr, ptr::NonNull};
use kernel::{ffi::c_void, prelude::*, str::CStrExt, str::CString};

/// Makes the slab cache of a filesystem type.
pub(in crate::vfs) fn new_cache<T: FileSystem>() -> Result<NonNull<bindings::kmem_cache>> {
    let name = CString::try_from_fmt(fmt!("{}_inode", T::NAME))?;
    // SAFETY: The kernel copies the name. `construct` fits the size.
    let cache = unsafe {
        bindings::kfs_inode_cache_create(
            name.as_char_ptr(),
            u32::try_from(mem::size_of::<Slot<T>>())?,
            u32::try_from(mem::align_of::<Slot<T>>())?,
            Some(construct::<T>),
        )
    };
    NonNull::new(cache).ok_or(ENOMEM)
}

/// # Safety
///
/// For the slab allocator only.
unsafe extern "C" fn construct<T: FileSystem>(slot: *mut c_void) {
    let slot = slot.cast::<Slot<T>>();
    // SAFETY: The memory is that of a `Slot<T>`, and not in use.
    unsafe {
        (*slot).has_data = false;
        bindings::inode_init_once((*slot).raw.get());
    }
}

/// `alloc_inode`.
///
/// # Safety
///
/// For the VFS only: `sb` is of type `T`.
pub(in crate::vfs) unsafe extern "C" fn alloc<T: FileSystem>(
    sb: *mut bindings::super_block,
) -> *mut bindings::inode {
    // SAFETY: The type of the superblock is a registered `Type<T>`, whose cache is for slots of `T`.
    let slot = unsafe {
        let cache = Type::<T>::from_raw((*sb).s_type).cache();
        bindings::kfs_alloc_inode_sb(sb, cache).cast::<Slot<T>>()
    };
    if slot.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: The slot is ours.
    unsafe {
        (*slot).has_data = false;
        let raw = (*slot).raw.get();
        // The VFS does not reset it, and `NewInode` adds the type to what is there: not to that of an earlier inode.
        (*raw).i_mode = 0;
        raw
    }
}

/// `free_inode`. Called after a grace period, in atomic context.
///
/// # Safety
///
/// For the VFS only: the inode came from `alloc`.
pub(in crate::vfs) unsafe extern "C" fn free<T: FileSystem>(inode: *mut bindings::inode) {
    // SAFETY: The slot was allocated from a slab cache, and nobody uses it. Its data was dropped by `evict`, or never set.
    unsafe { bindings::kfree(Slot::<T>::from_raw(inode).cast()) };
}

/// `evict_inode`. May sleep.
///
/// # Safety
///
/// For the VFS only: the inode came from `alloc`, and is used by nobody else.
pub(in crate::vfs) unsafe extern "C" fn evict<T: FileSystem>(inode: *mut bindings::inode) {
    // SAFETY: This is what the VFS wants done. No folio is locked after it, so that no read is under way. The data is
    // seen by nobody: operations that the VFS calls under RCU alone are answered without looking at it.
    unsafe {
        bindings::truncate_inode_pages_final(&mut (*inode).i_data);
        let slot = Slot::<T>::from_raw(inode);
        if T::HAS_DELETE && (*slot).has_data && (*inode).__bindgen_anon_1.i_nlink == 0 {
            // A frozen filesystem has to wait with that.
            let sb = (*inode).i_sb;
            bindings::kfs_sb_start_intwrite(sb);
            T::delete(Inode::from_raw(inode));
            bindings::kfs_sb_end_intwrite(sb);
        }
        bindings::clear_inode(inode);
        if mem::replace(&mut (*slot).has_data, false) {
            (*slot).data.assume_init_drop();
        }
    }
}

/// Compares keys. Under a spinlock.
///
/// # Safety
///
/// For `iget5_locked` only; `key` is a `T::InodeKey`.
unsafe extern "C" fn test<T: FileSystem>(inode: *mut bindings::inode, key: *mut c_void) -> i32 {
    // SAFETY: The inode is in the hash table, hence its key is set, and has been before it could be found there.
    unsafe {
        let slot = Slot::<T>::from_raw(inode);
        ((*slot).key.assume_init() == *key.cast::<T::InodeKey>()).into()
    }
}

/// Sets the key of a new inode. Under a spinlock.
///
/// # Safety
///
/// For `iget5_locked` only; `key` is a `T::InodeKey`.
unsafe extern "C" fn set<T: FileSystem>(inode: *mut bindings::inode, key: *mut c_void) -> i32 {
    // SAFETY: The inode is not in the hash table yet: it is ours.
    unsafe { (*Slot::<T>::from_raw(inode)).key.write(*key.cast::<T::InodeKey>()) };
    0
}

/// See [`SuperBlock::inode`].
pub(in crate::vfs) fn get<T: FileSystem>(
    sb: &SuperBlock<T>,
    mut key: T::InodeKey,
) -> Result<InodeEntry<'_, T>> {
    let hash = T::hash(&key);
    // SAFETY: The superblock is ready; the callbacks get the key they want.
    let inode = unsafe {
        bindings::kfs_iget5_locked(
            sb.as_raw(),
            hash,
            Some(test::<T>),
            Some(set::<T>),
            ptr::from_mut(&mut key).cast(),
        )
    };
    let inode = NonNull::new(inode).ok_or(ENOMEM)?;
    // SAFETY: `iget5_locked` returned a reference: to an inode that is new, and locked for us, or to one that
    // somebody finished (an inode that was given up is not found any more).
    unsafe {
        if bindings::kfs_inode_is_new(inode.as_ptr()) {
            Ok(InodeEntry::New(NewInode::from_raw(inode)))
        } else {
            Ok(InodeEntry::Cached(InodeRef::from_raw(inode)))
        }
    }
}
