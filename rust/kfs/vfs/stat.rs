// SPDX-License-Identifier: GPL-2.0

//! What `stat(2)`, `statx(2)` and `statfs(2)` report.

use super::Timestamp;
use crate::bindings;

/// Usage of a filesystem: the answer to `statfs(2)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct FsStat {
    /// Magic number of the filesystem type.
    pub magic: u64,
    /// Unit of the block counts, and the preferred size of a transfer, in bytes.
    pub block_size: u32,
    /// Size of the filesystem in blocks.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Free blocks for users without privilege.
    pub blocks_available: u64,
    /// Number of inodes, or of inodes that could be made.
    pub files: u64,
    /// Number of inodes that can be made.
    pub files_free: u64,
    /// The filesystem's id; commonly folded from its UUID.
    pub id: u64,
    /// Greatest length of a name in bytes.
    pub name_length: u32,
}

impl FsStat {
    pub(super) fn fill(&self, raw: &mut bindings::kstatfs) {
        raw.f_type = self.magic as isize;
        raw.f_bsize = self.block_size as isize;
        raw.f_frsize = self.block_size as isize;
        raw.f_blocks = self.blocks;
        raw.f_bfree = self.blocks_free;
        raw.f_bavail = self.blocks_available;
        raw.f_files = self.files;
        raw.f_ffree = self.files_free;
        raw.f_namelen = self.name_length as isize;
        raw.f_fsid.val = [self.id as u32 as i32, (self.id >> 32) as u32 as i32];
    }
}

/// What the caller of `statx(2)` asked for, and what it was given so far.
///
/// Everything that the VFS inode knows (mode, owner, size, times, …) has been filled in when a filesystem sees it.
pub struct Stat<'a> {
    raw: &'a mut bindings::kstat,
    request: u32,
}

impl<'a> Stat<'a> {
    pub(super) fn new(raw: &'a mut bindings::kstat, request: u32) -> Self {
        Self { raw, request }
    }

    /// Whether the birth time was asked for.
    pub fn wants_birth_time(&self) -> bool {
        self.request & bindings::STATX_BTIME != 0
    }

    /// Reports when the file was created.
    pub fn set_birth_time(&mut self, time: Timestamp) {
        self.raw.btime = time.into();
        self.raw.result_mask |= bindings::STATX_BTIME;
    }

    /// Reports the subvolume.
    pub fn set_subvolume(&mut self, id: u64) {
        self.raw.subvol = id;
        self.raw.result_mask |= bindings::STATX_SUBVOL;
    }

    /// Reports the inode number, where it differs from the inode's own.
    pub fn set_inode_number(&mut self, number: u64) {
        self.raw.ino = number;
    }

    /// Reports the preferred size of a transfer, in bytes.
    pub fn set_block_size(&mut self, bytes: u32) {
        self.raw.blksize = bytes;
    }

    /// Reports the space in use, in units of 512 bytes.
    pub fn set_blocks(&mut self, sectors: u64) {
        self.raw.blocks = sectors;
    }

    /// Reports `attributes` out of the set `known`.
    pub fn set_attributes(&mut self, attributes: Attributes, known: Attributes) {
        self.raw.attributes |= attributes.0;
        self.raw.attributes_mask |= known.0;
    }

    /// Reports the alignment, in bytes, that direct I/O needs of memory and of positions in the file.
    pub fn set_direct_io_alignment(&mut self, memory: u32, position: u32) {
        if self.request & bindings::STATX_DIOALIGN != 0 {
            self.raw.dio_mem_align = memory;
            self.raw.dio_offset_align = position;
            self.raw.result_mask |= bindings::STATX_DIOALIGN;
        }
    }
}

/// A set of `STATX_ATTR_*` flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(u64);

impl Attributes {
    /// Stored compressed.
    pub const COMPRESSED: Self = Self(bindings::STATX_ATTR_COMPRESSED as u64);
    /// Cannot be changed, renamed or removed.
    pub const IMMUTABLE: Self = Self(bindings::STATX_ATTR_IMMUTABLE as u64);
    /// Can be written only at its end.
    pub const APPEND: Self = Self(bindings::STATX_ATTR_APPEND as u64);
    /// To be left out by backup programs.
    pub const NODUMP: Self = Self(bindings::STATX_ATTR_NODUMP as u64);
    /// Stored encrypted.
    pub const ENCRYPTED: Self = Self(bindings::STATX_ATTR_ENCRYPTED as u64);

    /// The empty set.
    pub const fn none() -> Self {
        Self(0)
    }

    /// Both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set, with `other` in it if `present`.
    #[must_use]
    pub const fn with(self, other: Self, present: bool) -> Self {
        if present {
            self.and(other)
        } else {
            self
        }
    }
}

impl From<Timestamp> for bindings::timespec64 {
    fn from(time: Timestamp) -> Self {
        Self {
            tv_sec: time.seconds,
            tv_nsec: time.nanoseconds as isize,
        }
    }
}
