// SPDX-License-Identifier: GPL-2.0

//! Superblocks: one mounted filesystem each.
//!
//! A superblock is [`New`] while [`FileSystem::fill_super`] describes it, and [`Ready`] from then on: only a ready one has the
//! filesystem's data.

use super::{
    context::{Log, MountFlags, Private},
    filesystem::FileSystem,
    inode::{self, InodeEntry},
    registration::Type,
    super_operations::Callbacks,
};
use crate::bindings;
use core::{
    cell::Cell,
    marker::PhantomData,
    ptr,
};
use kernel::{
    error::from_err_ptr,
    ffi::c_void,
    prelude::*,
    types::{ForeignOwnable, Opaque},
};

/// State of a superblock that is being filled in.
pub struct New(PhantomData<Cell<()>>);

/// State of a superblock that has its data.
pub struct Ready(());

/// A superblock.
///
/// # Invariants
///
/// The C structure is live and of a registered type `T`; its `s_fs_info` points at an [`Info<T>`]. If the state is [`Ready`], the data
/// in there is set; if it is [`New`], the current thread holds `s_umount` exclusively.
#[repr(transparent)]
pub struct SuperBlock<T: FileSystem, S = Ready>(
    Opaque<bindings::super_block>,
    PhantomData<(fn(T), S)>,
);

// SAFETY: All methods of a ready superblock may be called from any thread.
unsafe impl<T: FileSystem> Send for SuperBlock<T> {}
// SAFETY: As above.
unsafe impl<T: FileSystem> Sync for SuperBlock<T> {}

/// What `s_fs_info` points at, from the making of a superblock to after its end.
struct Info<T: FileSystem> {
    identity: T::Identity,
    /// `T::Data` as foreign pointer, null while the filesystem is not open.
    ///
    /// Written while nobody else has a reference to the superblock as a ready one.
    data: Cell<*mut c_void>,
    /// Remounting for writing is refused.
    forced_read_only: Cell<bool>,
    fs_type: *const Type<T>,
}

impl<T: FileSystem, S> SuperBlock<T, S> {
    /// # Safety
    ///
    /// The invariants of the type must hold for `'a`.
    pub(super) unsafe fn from_raw<'a>(raw: *mut bindings::super_block) -> &'a Self {
        // SAFETY: The type is transparent, the pointer valid.
        unsafe { &*raw.cast::<Self>() }
    }

    pub(super) fn as_raw(&self) -> *mut bindings::super_block {
        self.0.get()
    }

    fn info(&self) -> &Info<T> {
        // SAFETY: By the type invariants.
        unsafe { &*(*self.as_raw()).s_fs_info.cast::<Info<T>>() }
    }

    /// Size of a block in bytes.
    pub fn block_size(&self) -> u32 {
        // SAFETY: By the type invariants; set before the superblock is ready and constant since.
        unsafe { (*self.as_raw()).s_blocksize as u32 }
    }

    /// Whether the filesystem is mounted read-only at the moment.
    pub fn is_read_only(&self) -> bool {
        // SAFETY: By the type invariants; a racy read of a word.
        let flags = unsafe { ptr::addr_of!((*self.as_raw()).s_flags).read_volatile() };
        flags & bindings::KFS_CONST_SB_RDONLY as usize != 0
    }

    pub(super) fn is_forced_read_only(&self) -> bool {
        // Written only before the superblock is ready.
        self.info().forced_read_only.get()
    }
}

impl<T: FileSystem> SuperBlock<T> {
    /// The filesystem's data.
    pub fn data(&self) -> <T::Data as ForeignOwnable>::Borrowed<'_> {
        let data = self.info().data.get();
        // SAFETY: By the type invariants the data is set; it is taken back only after the last callback, that is, after
        // any reference to a ready superblock.
        unsafe { T::Data::borrow(data) }
    }

    /// The time of now, as files get it.
    pub fn now(&self) -> super::Timestamp {
        let mut nanoseconds = 0;
        // SAFETY: No requirements.
        let seconds = unsafe { bindings::kfs_file_clock(&mut nanoseconds) };
        super::Timestamp { seconds, nanoseconds: nanoseconds as u32 }
    }

    /// What [`FileSystem::identify`] returned.
    pub fn identity(&self) -> &T::Identity {
        &self.info().identity
    }

    /// Finds the inode with this key in the cache, or makes a new one for the caller to fill in. May sleep: waits while
    /// somebody else fills in the same inode.
    pub fn inode(&self, key: T::InodeKey) -> Result<InodeEntry<'_, T>> {
        inode::get(self, key)
    }
}

impl<T: FileSystem> SuperBlock<T, New> {
    /// Sets the magic number of the filesystem type.
    pub fn set_magic(&self, magic: u64) {
        // SAFETY: Nobody else uses the superblock yet, by the type invariants; so in all setters.
        unsafe { (*self.as_raw()).s_magic = magic as usize };
    }

    /// Sets the block size: a power of two from 512 to the page size, or with [`LARGE_BLOCKS`](super::filesystem::TypeFlags) to 64 KiB; else `EINVAL`.
    pub fn set_block_size(&self, bytes: u32) -> Result {
        let limit = if T::FLAGS.0 & bindings::FS_LBS != 0 { 1 << 16 } else { kernel::page::PAGE_SIZE };
        if !bytes.is_power_of_two() || bytes < 512 || bytes as usize > limit {
            return Err(EINVAL);
        }
        let raw = self.as_raw();
        // SAFETY: See `set_magic`.
        unsafe {
            (*raw).s_blocksize = bytes as usize;
            (*raw).s_blocksize_bits = bytes.trailing_zeros() as u8;
        }
        Ok(())
    }

    /// Sets the granularity of times in nanoseconds, and the first and last second that can be stored.
    pub fn set_time(&self, granularity: u32, first: i64, last: i64) {
        let raw = self.as_raw();
        // SAFETY: See `set_magic`.
        unsafe {
            (*raw).s_time_gran = granularity.clamp(1, 1_000_000_000);
            (*raw).s_time_min = first;
            (*raw).s_time_max = last;
        }
    }

    /// Sets the greatest size of a file, in bytes, and with it the greatest position in a directory.
    pub fn set_max_bytes(&self, bytes: u64) {
        // SAFETY: See `set_magic`.
        unsafe { (*self.as_raw()).s_maxbytes = bytes.min(super::MAX_FILE_POSITION) as i64 };
    }

    /// Sets the filesystem's UUID.
    pub fn set_uuid(&self, uuid: &[u8; 16]) {
        // SAFETY: See `set_magic`; 16 bytes are readable.
        unsafe { bindings::kfs_super_set_uuid(self.as_raw(), uuid.as_ptr()) };
    }

    /// Sets the short name of the filesystem that the kernel shows in messages (a device name), at most 31 bytes.
    pub fn set_name(&self, name: &str) {
        // SAFETY: See `set_magic`; the name is readable for its length.
        unsafe { bindings::kfs_super_set_id(self.as_raw(), name.as_ptr().cast(), name.len()) };
    }

    /// Sets how far sequential reads are read ahead, in bytes. Without it: the VFS's default.
    pub fn set_readahead(&self, bytes: usize) {
        let pages = bytes.div_ceil(kernel::page::PAGE_SIZE);
        // SAFETY: See `set_magic`; the superblock has a `backing_dev_info` of its own.
        unsafe { bindings::kfs_super_set_readahead(self.as_raw(), pages) };
    }

    /// Has the VFS check access control lists.
    pub fn enable_acl(&self) {
        self.set_flag(bindings::KFS_CONST_SB_POSIXACL);
    }

    /// Makes the mount read-only, whatever was asked for; remounting for writing is refused with `EROFS`.
    pub fn force_read_only(&self) {
        self.info().forced_read_only.set(true);
        self.set_flag(bindings::KFS_CONST_SB_RDONLY);
    }

    fn set_flag(&self, flag: u32) {
        // SAFETY: See `set_magic`.
        unsafe { (*self.as_raw()).s_flags |= flag as usize };
    }
}

/// Answers whether an existing superblock serves a context. Atomic context.
///
/// # Safety
///
/// For `sget_fc` only.
unsafe extern "C" fn test<T: FileSystem>(
    sb: *mut bindings::super_block,
    fc: *mut kernel::bindings::fs_context,
) -> i32 {
    let fc = fc.cast::<bindings::fs_context>();
    // SAFETY: `sget_fc` shows superblocks of this type only, from the moment `s_fs_info` is set (before the superblock is on the
    // list) to SB_DEAD, which `kill` waits for before it frees the info. The context's info was put there by `get`. The identity never changes.
    let (existing, wanted) = unsafe {
        let (existing, wanted) = ((*sb).s_fs_info.cast::<Info<T>>(), (*fc).s_fs_info.cast::<Info<T>>());
        if existing.is_null() || wanted.is_null() {
            return 0;
        }
        (&(*existing).identity, &(*wanted).identity)
    };
    T::is_same(existing, wanted).into()
}

/// Finds or makes the superblock for a context, and returns a reference to its root; a reference to the superblock is held, its
/// `s_umount` locked, as `get_tree` wants it.
///
/// # Safety
///
/// `fc` must be a context of type `T` inside its `get_tree`.
pub(super) unsafe fn get<T: FileSystem>(
    fc: *mut bindings::fs_context,
    identity: T::Identity,
    private: &mut Private<T>,
    flags: MountFlags,
    log: &Log<'_>,
) -> Result<*mut bindings::dentry> {
    let fs_type = private.fs_type;
    let info = KBox::new(
        Info::<T> {
            identity,
            data: Cell::new(ptr::null_mut()),
            forced_read_only: Cell::new(false),
            fs_type,
        },
        GFP_KERNEL,
    )?;
    // SAFETY: The context is valid and ours; `sget_fc` moves `s_fs_info` to a superblock that it makes.
    let sb = unsafe {
        (*fc).s_fs_info = KBox::into_raw(info).cast();
        let sb = bindings::sget_fc(fc.cast(), Some(test::<T>), Some(bindings::set_anon_super_fc));
        let unused = core::mem::replace(&mut (*fc).s_fs_info, ptr::null_mut());
        if !unused.is_null() {
            drop(KBox::from_raw(unused.cast::<Info<T>>()));
        }
        from_err_ptr(sb)?
    };
    // SAFETY: `sget_fc` returned a superblock of this type, with `s_umount` held. One that exists has a root; and only
    // one that was just made has none (a failed one is never found).
    unsafe {
        if (*sb).s_root.is_null() {
            (*fs_type).enter();
            if let Err(error) = fill_super::<T>(sb, &mut private.options, flags, log) {
                bindings::deactivate_locked_super(sb);
                return Err(error);
            }
        } else {
            let existing = SuperBlock::<T>::from_raw(sb);
            if !existing.is_forced_read_only() && existing.is_read_only() != flags.is_read_only() {
                bindings::deactivate_locked_super(sb);
                return Err(EBUSY);
            }
        }
        Ok(bindings::kfs_dget((*sb).s_root))
    }
}

/// # Safety
///
/// `sb` was just made by `sget_fc` in `get`.
unsafe fn fill_super<T: FileSystem>(
    sb: *mut bindings::super_block,
    options: &mut T::Options,
    flags: MountFlags,
    log: &Log<'_>,
) -> Result {
    // SAFETY: The superblock is new and ours: `s_umount` is held.
    unsafe {
        (*sb).s_op = &Callbacks::<T>::OPERATIONS;
        (*sb).s_xattr = T::XATTR.as_ptr().cast();
        if let Some(table) = T::EXPORT {
            (*sb).s_export_op = table.as_raw();
        }
        (*sb).s_time_gran = 1;
    }
    // SAFETY: As above.
    let new = unsafe { SuperBlock::<T, New>::from_raw(sb) };
    // SAFETY: As above; called once.
    kernel::error::to_result(unsafe { bindings::kfs_super_setup_bdi(sb) })?;
    new.set_block_size(kernel::page::PAGE_SIZE as u32)?;
    new.set_max_bytes(super::MAX_FILE_POSITION);
    let data = T::fill_super(new, options, &new.info().identity, flags, log)?;
    new.info().data.set(data.into_foreign());
    // SAFETY: Now it has its data.
    let ready = unsafe { SuperBlock::<T>::from_raw(sb) };
    let root = T::root(ready)?;
    if !root.is_directory() {
        return Err(ENOTDIR);
    }
    // SAFETY: The reference to the inode goes to `d_make_root`, which drops it if it fails.
    unsafe {
        let root = bindings::d_make_root(root.into_raw());
        if root.is_null() {
            return Err(ENOMEM);
        }
        (*sb).s_root = root;
        (*sb).s_flags |= bindings::KFS_CONST_SB_ACTIVE as usize;
    }
    Ok(())
}

/// Drops the filesystem's data.
///
/// # Safety
///
/// There must be no inodes any more, and no reference to the superblock as a ready one from now on.
pub(super) unsafe fn drop_data<T: FileSystem>(sb: *mut bindings::super_block) {
    // SAFETY: The info lives until `kill`.
    let info = unsafe { &*(*sb).s_fs_info.cast::<Info<T>>() };
    let data = info.data.replace(ptr::null_mut());
    // SAFETY: A foreign pointer made by `fill_super`, and taken out.
    drop(unsafe { T::Data::try_from_foreign(data) });
}

/// `kill_sb`.
///
/// # Safety
///
/// For the VFS only.
pub(super) unsafe extern "C" fn kill<T: FileSystem>(sb: *mut bindings::super_block) {
    // SAFETY: Superblocks of this type come from `get` alone. Without a root the VFS does not call `put_super`; inodes are not
    // cached then. After `kill_anon_super` the superblock is dead, that is, `test` will not be called for it.
    unsafe {
        if (*sb).s_root.is_null() {
            drop_data::<T>(sb);
        }
        bindings::kill_anon_super(sb);
        let info = core::mem::replace(&mut (*sb).s_fs_info, ptr::null_mut());
        let info = KBox::from_raw(info.cast::<Info<T>>());
        let fs_type = info.fs_type;
        drop(info);
        (*fs_type).leave();
    }
}
