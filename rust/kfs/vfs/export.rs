// SPDX-License-Identifier: GPL-2.0

//! File handles: names of files that survive a reboot, for NFS and `open_by_handle_at(2)`.

use super::{
    filesystem::FileSystem,
    inode::{Inode, InodeRef},
    super_block::SuperBlock,
};
use crate::{bindings, errno::Errno};
use core::marker::PhantomData;
use kernel::{
    error::{from_result, VTABLE_DEFAULT_ERROR},
    ffi,
    prelude::*, //
};

/// Most words of 32 bits in a handle.
pub const MAX_WORDS: usize = 32;

/// Operations for file handles.
#[vtable]
pub trait Operations: 'static {
    /// The filesystem.
    type FileSystem: FileSystem;

    /// Makes a handle for `inode`; with `parent`, one that [`decode_parent`](Self::decode_parent) finds the parent of. Must not sleep.
    fn encode(
        inode: &Inode<Self::FileSystem>,
        parent: Option<&Inode<Self::FileSystem>>,
    ) -> Handle;

    /// Finds the inode of a handle. The handle is anything a client may have sent. `ESTALE` if there is no such inode (any more).
    fn decode<'a>(
        sb: &'a SuperBlock<Self::FileSystem>,
        handle: &Handle,
    ) -> Result<InodeRef<'a, Self::FileSystem>>;

    /// Finds the parent that was encoded in a handle.
    fn decode_parent<'a>(
        sb: &'a SuperBlock<Self::FileSystem>,
        handle: &Handle,
    ) -> Result<InodeRef<'a, Self::FileSystem>>;

    /// Finds the directory above a directory.
    fn parent(child: &Inode<Self::FileSystem>) -> Result<InodeRef<'_, Self::FileSystem>>;

    /// Finds the name of `child` in `parent`. Without it the VFS reads the directory and compares inode numbers.
    fn name(
        _parent: &Inode<Self::FileSystem>,
        _child: &Inode<Self::FileSystem>,
    ) -> Result<KVec<u8>> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// A file handle: a type (1 to 254, see `enum fid_type` in `<linux/exportfs.h>`) and words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    kind: u8,
    length: usize,
    words: [u32; MAX_WORDS],
}

impl Handle {
    /// What an inode that has no handle encodes as: the caller is told that it has none.
    pub const UNUSABLE: Self = Self { kind: 255, length: 0, words: [0; MAX_WORDS] };

    /// A handle; `None` if the type is 0 or 255, or there are too many words.
    pub fn new(kind: u8, words: &[u32]) -> Option<Self> {
        let mut handle = Self { kind, length: words.len(), words: [0; MAX_WORDS] };
        if matches!(kind, 0 | 255) {
            return None;
        }
        handle.words.get_mut(..words.len())?.copy_from_slice(words);
        Some(handle)
    }

    /// The type.
    pub fn kind(&self) -> u8 {
        self.kind
    }

    /// The words.
    pub fn words(&self) -> &[u32] {
        self.words.get(..self.length).unwrap_or(&[])
    }

    /// # Safety
    ///
    /// `fid` must be readable for `length` words.
    unsafe fn from_raw(fid: *const u32, length: i32, kind: i32) -> Result<Self> {
        let length = usize::try_from(length)?;
        let kind = u8::try_from(kind)?;
        let mut words = [0; MAX_WORDS];
        let used = words.get_mut(..length).ok_or(Errno::ESTALE)?;
        for (i, word) in used.iter_mut().enumerate() {
            // SAFETY: By the contract. User space chose the bytes, nothing aligned them.
            *word = unsafe { fid.add(i).read_unaligned() };
        }
        Self::new(kind, used).ok_or(Errno::ESTALE.into())
    }
}

/// A filesystem's table of [`Operations`].
pub struct Table<T>(&'static bindings::export_operations, PhantomData<fn(T)>);

impl<T: FileSystem> Table<T> {
    /// The table for `O`.
    pub const fn new<O: Operations<FileSystem = T>>() -> Self {
        Self(&Callbacks::<O>::OPERATIONS, PhantomData)
    }

    pub(super) fn as_raw(&self) -> *const kernel::bindings::export_operations {
        core::ptr::from_ref(self.0).cast()
    }
}

/// The callbacks of `struct export_operations`. See `inode::table` for what the VFS guarantees.
struct Callbacks<O>(PhantomData<O>);

impl<O: Operations> Callbacks<O> {
    const OPERATIONS: bindings::export_operations = bindings::export_operations {
        encode_fh: Some(Self::encode_fh),
        fh_to_dentry: Some(Self::fh_to_dentry),
        fh_to_parent: Some(Self::fh_to_parent),
        get_parent: Some(Self::get_parent),
        get_name: if O::HAS_NAME { Some(Self::get_name) } else { None },
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// For the VFS only: `fh` has room for `*length` words. So below.
    unsafe extern "C" fn encode_fh(
        inode: *mut bindings::inode,
        fh: *mut u32,
        length: *mut i32,
        parent: *mut bindings::inode,
    ) -> i32 {
        // SAFETY: The inodes are of this filesystem and referenced; the rest is the caller's.
        unsafe {
            let parent = (!parent.is_null()).then(|| Inode::from_raw(parent));
            let handle = O::encode(Inode::from_raw(inode), parent);
            let room = core::mem::replace(&mut *length, handle.length as i32);
            if usize::try_from(room).map_or(true, |room| room < handle.length) {
                return bindings::KFS_CONST_FILEID_INVALID as i32;
            }
            for (i, word) in handle.words().iter().enumerate() {
                fh.add(i).write_unaligned(*word);
            }
            handle.kind.into()
        }
    }

    /// A dentry for what was found.
    fn dentry(inode: Result<InodeRef<'_, O::FileSystem>>) -> *mut bindings::dentry {
        match inode {
            // SAFETY: The reference to the inode is given away, also if this fails.
            Ok(inode) => unsafe { bindings::d_obtain_alias(inode.into_raw()) },
            Err(error) => error.to_ptr(),
        }
    }

    /// # Safety
    ///
    /// See `encode_fh`.
    unsafe extern "C" fn fh_to_dentry(
        sb: *mut bindings::super_block,
        fid: *mut bindings::fid,
        length: i32,
        kind: i32,
    ) -> *mut bindings::dentry {
        // SAFETY: The superblock is mounted, the handle readable.
        let (sb, handle) =
            unsafe { (SuperBlock::from_raw(sb), Handle::from_raw(fid.cast(), length, kind)) };
        Self::dentry(handle.and_then(|handle| O::decode(sb, &handle)))
    }

    /// # Safety
    ///
    /// See `encode_fh`.
    unsafe extern "C" fn fh_to_parent(
        sb: *mut bindings::super_block,
        fid: *mut bindings::fid,
        length: i32,
        kind: i32,
    ) -> *mut bindings::dentry {
        // SAFETY: The superblock is mounted, the handle readable.
        let (sb, handle) =
            unsafe { (SuperBlock::from_raw(sb), Handle::from_raw(fid.cast(), length, kind)) };
        Self::dentry(handle.and_then(|handle| O::decode_parent(sb, &handle)))
    }

    /// # Safety
    ///
    /// See `encode_fh`.
    unsafe extern "C" fn get_parent(child: *mut bindings::dentry) -> *mut bindings::dentry {
        // SAFETY: The dentry is positive and of this filesystem.
        Self::dentry(O::parent(unsafe { Inode::from_raw(bindings::kfs_d_inode(child)) }))
    }

    /// # Safety
    ///
    /// See `encode_fh`; `name` has room for NAME_MAX bytes and a zero byte.
    unsafe extern "C" fn get_name(
        parent: *mut bindings::dentry,
        name: *mut ffi::c_char,
        child: *mut bindings::dentry,
    ) -> i32 {
        from_result(|| {
            // SAFETY: The dentries are positive and of this filesystem.
            let found = unsafe {
                O::name(
                    Inode::from_raw(bindings::kfs_d_inode(parent)),
                    Inode::from_raw(bindings::kfs_d_inode(child)),
                )?
            };
            if found.len() > bindings::NAME_MAX as usize || found.contains(&0) {
                return Err(ENOENT);
            }
            // SAFETY: It fits, as was checked.
            unsafe {
                core::ptr::copy_nonoverlapping(found.as_ptr(), name.cast::<u8>(), found.len());
                name.cast::<u8>().add(found.len()).write(0);
            }
            Ok(0)
        })
    }
}

#[kernel::macros::kunit_tests(kfs_vfs_export)]
mod tests {
    use super::*;

    #[test]
    fn handles_have_bounds() {
        assert!(Handle::new(0, &[1]).is_none());
        assert!(Handle::new(255, &[1]).is_none());
        assert!(Handle::new(1, &[0; MAX_WORDS + 1]).is_none());
        let handle = Handle::new(7, &[1, 2, 3]);
        assert!(handle.map(|h| (h.kind(), h.length)) == Some((7, 3)));
        assert!(handle.is_some_and(|h| h.words() == [1, 2, 3]));
    }

    #[test]
    fn foreign_handles_are_checked() {
        let words = [5_u32; MAX_WORDS];
        // SAFETY: As many words as said, or refused before they are read.
        unsafe {
            assert!(Handle::from_raw(words.as_ptr(), 3, 9) == Ok(Handle::new(9, &[5; 3]).unwrap()));
            assert!(Handle::from_raw(words.as_ptr(), MAX_WORDS as i32 + 1, 9).is_err());
            assert!(Handle::from_raw(words.as_ptr(), -1, 9).is_err());
            assert!(Handle::from_raw(words.as_ptr(), 3, 256).is_err());
            assert!(Handle::from_raw(words.as_ptr(), 3, 0).is_err());
        }
    }
}
