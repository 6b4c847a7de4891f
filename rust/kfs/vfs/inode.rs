// SPDX-License-Identifier: GPL-2.0

//! Inodes.
//!
//! An inode is found or made by [`SuperBlock::inode`]. A [`NewInode`] is locked against everybody else who looks the same key up,
//! until it is [finished](NewInode::finish) or dropped. Each inode has the filesystem's own data embedded, from `finish` until it
//! leaves the cache.

mod attributes;
mod cache;
mod change;
mod create;
mod names;
mod new;
mod operations;
mod table;

pub use self::{
    attributes::FileAttributes,
    change::{Changes, TimeUpdate},
    create::{Created, Creation, Inherited, Label, What},
    names::{Name, RenameMode},
    new::{Flags, Kind, NewInode},
    operations::Operations,
    table::Table,
};

pub(super) use self::cache::{alloc, evict, free, get, new_cache};

use super::{filesystem::FileSystem, super_block::SuperBlock};
use crate::bindings;
use core::{marker::PhantomData, mem::MaybeUninit, ops::Deref, ptr::NonNull};
use kernel::{container_of, types::Opaque};

/// An inode that is ready for use.
///
/// # Invariants
///
/// The C structure is the `raw` of a live [`Slot<T>`] whose data is set, in a superblock that is ready.
#[repr(transparent)]
pub struct Inode<T: FileSystem>(Opaque<bindings::inode>, PhantomData<fn(T)>);

// SAFETY: All methods may be called from any thread; the data is `Send` and `Sync`.
unsafe impl<T: FileSystem> Send for Inode<T> {}
// SAFETY: As above.
unsafe impl<T: FileSystem> Sync for Inode<T> {}

/// The memory of an inode.
///
/// # Invariants
///
/// `key` is set while the inode is in the hash table, `data` while `has_data`.
pub(super) struct Slot<T: FileSystem> {
    raw: Opaque<bindings::inode>,
    key: MaybeUninit<T::InodeKey>,
    data: MaybeUninit<T::InodeData>,
    has_data: bool,
}

impl<T: FileSystem> Slot<T> {
    /// The slot of an inode.
    ///
    /// # Safety
    ///
    /// `raw` must be an inode of a superblock of type `T`.
    unsafe fn from_raw(raw: *mut bindings::inode) -> *mut Self {
        // SAFETY: All inodes of such a superblock come from `alloc`.
        unsafe { container_of!(Opaque::cast_from(raw), Self, raw).cast_mut() }
    }
}

impl<T: FileSystem> Inode<T> {
    /// # Safety
    ///
    /// The invariants of the type must hold for `'a`.
    pub(super) unsafe fn from_raw<'a>(raw: *mut bindings::inode) -> &'a Self {
        // SAFETY: The type is transparent, the pointer valid.
        unsafe { &*raw.cast::<Self>() }
    }

    pub(super) fn as_raw(&self) -> *mut bindings::inode {
        self.0.get()
    }

    /// The filesystem's own data.
    pub fn data(&self) -> &T::InodeData {
        // SAFETY: By the type invariants the slot is live and its data set. Nobody changes it before the inode is evicted, at
        // which time there is no reference to it.
        unsafe { (*Slot::<T>::from_raw(self.as_raw())).data.assume_init_ref() }
    }

    /// What the inode was looked up by.
    pub fn key(&self) -> T::InodeKey {
        // SAFETY: As in `data`; the key is set before the inode can be found.
        unsafe { (*Slot::<T>::from_raw(self.as_raw())).key.assume_init() }
    }

    /// The superblock.
    pub fn super_block(&self) -> &SuperBlock<T> {
        // SAFETY: By the type invariants; a superblock outlives its inodes.
        unsafe { SuperBlock::from_raw((*self.as_raw()).i_sb) }
    }

    /// The inode number.
    pub fn number(&self) -> u64 {
        // SAFETY: By the type invariants; constant.
        unsafe { bindings::kfs_inode_number(self.as_raw()) }
    }

    /// The size of the file in bytes.
    pub fn size(&self) -> u64 {
        // SAFETY: By the type invariants.
        let size = unsafe { bindings::kfs_i_size_read(self.as_raw()) };
        size.max(0) as u64
    }

    /// Type and permissions.
    pub fn mode(&self) -> u16 {
        // SAFETY: By the type invariants; a racy read of a word.
        unsafe { core::ptr::addr_of!((*self.as_raw()).i_mode).read_volatile() }
    }

    /// The generation: tells apart files that had the same number.
    pub fn generation(&self) -> u32 {
        // SAFETY: By the type invariants; constant.
        unsafe { (*self.as_raw()).i_generation }
    }

    fn has_type(&self, format: u32) -> bool {
        u32::from(self.mode()) & bindings::S_IFMT == format
    }

    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        self.has_type(bindings::S_IFDIR)
    }

    /// Whether this is a regular file.
    pub fn is_regular(&self) -> bool {
        self.has_type(bindings::S_IFREG)
    }

    /// Whether this is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.has_type(bindings::S_IFLNK)
    }
}

/// A counted reference to an inode, within the life of its superblock. Dropping it may sleep.
///
/// # Invariants
///
/// The pointer is to an [`Inode<T>`], with a reference of its own.
pub struct InodeRef<'sb, T: FileSystem>(NonNull<bindings::inode>, PhantomData<&'sb SuperBlock<T>>);

// SAFETY: References may be counted on any thread.
unsafe impl<T: FileSystem> Send for InodeRef<'_, T> {}
// SAFETY: As above.
unsafe impl<T: FileSystem> Sync for InodeRef<'_, T> {}

impl<T: FileSystem> InodeRef<'_, T> {
    /// # Safety
    ///
    /// `raw` must be an [`Inode<T>`] of this superblock; a reference to it is given away.
    pub(super) unsafe fn from_raw(raw: NonNull<bindings::inode>) -> Self {
        Self(raw, PhantomData)
    }

    pub(super) fn into_raw(self) -> *mut bindings::inode {
        core::mem::ManuallyDrop::new(self).0.as_ptr()
    }
}

impl<T: FileSystem> Deref for InodeRef<'_, T> {
    type Target = Inode<T>;

    fn deref(&self) -> &Inode<T> {
        // SAFETY: By the type invariant.
        unsafe { Inode::from_raw(self.0.as_ptr()) }
    }
}

impl<T: FileSystem> Drop for InodeRef<'_, T> {
    fn drop(&mut self) {
        // SAFETY: The reference is ours.
        unsafe { bindings::iput(self.0.as_ptr()) };
    }
}

/// What a lookup in the inode cache returned.
pub enum InodeEntry<'sb, T: FileSystem> {
    /// The inode.
    Cached(InodeRef<'sb, T>),
    /// A new inode, to be filled in.
    New(NewInode<'sb, T>),
}
