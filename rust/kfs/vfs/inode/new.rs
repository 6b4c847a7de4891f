// SPDX-License-Identifier: GPL-2.0

//! Inodes that are being filled in.

use super::{InodeRef, Slot, Table};
use crate::{
    bindings,
    vfs::{file, filesystem::FileSystem, iomap, super_block::SuperBlock, Timestamp},
};
use core::{marker::PhantomData, mem::ManuallyDrop, ptr::NonNull};

/// What an inode is, and how it works.
pub enum Kind<T> {
    /// A directory.
    Directory {
        /// Operations.
        inode: Table<T>,
        /// Operations when it is open.
        file: file::Table<T>,
    },
    /// A regular file.
    Regular {
        /// Operations.
        inode: Table<T>,
        /// Operations when it is open.
        file: file::Table<T>,
        /// How its data is read.
        mapping: iomap::Table<T>,
    },
    /// A symbolic link.
    Symlink {
        /// Operations.
        inode: Table<T>,
    },
    /// A character device.
    CharDevice {
        /// Operations.
        inode: Table<T>,
        /// The device's numbers.
        major: u32,
        /// The device's numbers.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Operations.
        inode: Table<T>,
        /// The device's numbers.
        major: u32,
        /// The device's numbers.
        minor: u32,
    },
    /// A named pipe.
    Fifo {
        /// Operations.
        inode: Table<T>,
    },
    /// A socket.
    Socket {
        /// Operations.
        inode: Table<T>,
    },
}

/// Properties of a file that the VFS enforces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Writes are synchronous.
    pub sync: bool,
    /// It cannot be changed.
    pub immutable: bool,
    /// It can only be appended to.
    pub append: bool,
    /// Reading it does not change its access time.
    pub noatime: bool,
}

impl Flags {
    /// As `S_…` flags.
    pub(super) fn bits(self) -> u32 {
        let bits = [
            (self.sync, bindings::KFS_CONST_S_SYNC),
            (self.immutable, bindings::KFS_CONST_S_IMMUTABLE),
            (self.append, bindings::KFS_CONST_S_APPEND),
            (self.noatime, bindings::KFS_CONST_S_NOATIME),
        ];
        bits.iter().filter(|(set, _)| *set).fold(0, |all, (_, bit)| all | bit)
    }
}

/// An inode that is being filled in. Dropped, it goes away, and others who wait for it try themselves.
///
/// # Invariants
///
/// The pointer is to the `raw` of a [`Slot<T>`] without data, in state `I_NEW`, with a reference of its own. So nobody else changes it.
pub struct NewInode<'sb, T: FileSystem>(NonNull<bindings::inode>, PhantomData<&'sb SuperBlock<T>>);

impl<'sb, T: FileSystem> NewInode<'sb, T> {
    /// # Safety
    ///
    /// The type invariants must hold; the reference is given away.
    pub(super) unsafe fn from_raw(raw: NonNull<bindings::inode>) -> Self {
        Self(raw, PhantomData)
    }

    pub(super) fn raw(&self) -> *mut bindings::inode {
        self.0.as_ptr()
    }

    /// Sets the inode number.
    pub fn set_number(&mut self, number: u64) {
        // SAFETY: By the type invariant; so in all setters.
        unsafe { bindings::kfs_inode_set_number(self.raw(), number) };
    }

    /// Sets the permissions: the lower twelve bits of the mode.
    pub fn set_permissions(&mut self, permissions: u16) {
        // SAFETY: See `set_number`.
        unsafe { (*self.raw()).i_mode = permissions & 0o7777 };
    }

    /// Sets the owner, in ids of the filesystem's user namespace.
    pub fn set_owner(&mut self, uid: u32, gid: u32) {
        // SAFETY: See `set_number`.
        unsafe { bindings::kfs_inode_set_owner(self.raw(), uid, gid) };
    }

    /// Sets the number of links.
    pub fn set_links(&mut self, links: u32) {
        // SAFETY: See `set_number`.
        unsafe { bindings::set_nlink(self.raw(), links) };
    }

    /// Sets the size in bytes.
    pub fn set_size(&mut self, bytes: u64) {
        let bytes = bytes.min(crate::vfs::MAX_FILE_POSITION) as i64;
        // SAFETY: See `set_number`.
        unsafe { bindings::kfs_i_size_write(self.raw(), bytes) };
    }

    /// Sets the space in use, in units of 512 bytes.
    pub fn set_blocks(&mut self, sectors: u64) {
        // SAFETY: See `set_number`.
        unsafe { (*self.raw()).i_blocks = sectors };
    }

    /// Sets the times.
    pub fn set_times(&mut self, access: Timestamp, modification: Timestamp, change: Timestamp) {
        // SAFETY: See `set_number`.
        unsafe {
            bindings::kfs_inode_set_atime(self.raw(), access.seconds, access.nanoseconds as isize);
            bindings::kfs_inode_set_mtime(
                self.raw(),
                modification.seconds,
                modification.nanoseconds as isize,
            );
            bindings::kfs_inode_set_ctime(self.raw(), change.seconds, change.nanoseconds as isize);
        }
    }

    /// Sets the generation.
    pub fn set_generation(&mut self, generation: u32) {
        // SAFETY: See `set_number`.
        unsafe { (*self.raw()).i_generation = generation };
    }

    /// Sets the flags.
    pub fn set_flags(&mut self, flags: Flags) {
        // SAFETY: See `set_number`.
        unsafe { (*self.raw()).i_flags = flags.bits() };
    }

    /// Says that the file has no access control lists, so that the VFS does not ask.
    pub fn set_no_acl(&mut self) {
        // SAFETY: See `set_number`.
        unsafe { bindings::kfs_cache_no_acl(self.raw()) };
    }

    /// Makes the inode ready, and lets others find it.
    pub fn finish(self, kind: Kind<T>, data: T::InodeData) -> InodeRef<'sb, T> {
        let raw = self.fill(kind, data);
        // SAFETY: The inode is an `Inode<T>` now, and the reference goes to the result. Unlocking orders what was written before it.
        unsafe {
            bindings::unlock_new_inode(raw.as_ptr());
            InodeRef::from_raw(raw)
        }
    }

    /// Puts in all that makes it an [`Inode<T>`](super::Inode), still locked as new. The reference is given away.
    pub(super) fn fill(self, kind: Kind<T>, data: T::InodeData) -> NonNull<bindings::inode> {
        self.set_kind(kind);
        let raw = ManuallyDrop::new(self).0;
        // SAFETY: By the type invariant the inode is ours until it is unlocked.
        unsafe {
            let slot = Slot::<T>::from_raw(raw.as_ptr());
            (*slot).data.write(data);
            (*slot).has_data = true;
        }
        raw
    }

    fn set_kind(&self, kind: Kind<T>) {
        let (format, inode, special) = match kind {
            Kind::Directory { inode, file } => {
                // SAFETY: See `set_number`.
                unsafe { bindings::kfs_inode_set_fop(self.raw(), file.as_raw()) };
                (bindings::S_IFDIR, inode, None)
            }
            Kind::Regular { inode, file, mapping } => {
                // SAFETY: See `set_number`.
                unsafe {
                    bindings::kfs_inode_set_fop(self.raw(), file.as_raw());
                    (*self.raw()).i_data.a_ops = mapping.as_raw();
                    bindings::kfs_mapping_set_large_folios(self.raw());
                    // What is being written back has checksums, and goes to several places.
                    bindings::kfs_mapping_set_stable_writes(self.raw());
                }
                (bindings::S_IFREG, inode, None)
            }
            Kind::Symlink { inode } => (bindings::S_IFLNK, inode, None),
            Kind::CharDevice { inode, major, minor } => {
                (bindings::S_IFCHR, inode, Some((major, minor)))
            }
            Kind::BlockDevice { inode, major, minor } => {
                (bindings::S_IFBLK, inode, Some((major, minor)))
            }
            Kind::Fifo { inode } => (bindings::S_IFIFO, inode, Some((0, 0))),
            Kind::Socket { inode } => (bindings::S_IFSOCK, inode, Some((0, 0))),
        };
        // SAFETY: See `set_number`.
        unsafe {
            (*self.raw()).i_mode |= format as u16;
            (*self.raw()).i_op = inode.as_raw(format);
            if let Some((major, minor)) = special {
                let device = bindings::kfs_mkdev(major, minor);
                bindings::init_special_inode(self.raw(), (*self.raw()).i_mode, device);
            }
        }
    }
}

impl<T: FileSystem> Drop for NewInode<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the inode is new and the reference ours.
        unsafe { bindings::iget_failed(self.raw()) };
    }
}
