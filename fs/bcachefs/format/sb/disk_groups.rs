// SPDX-License-Identifier: GPL-2.0
//! Disk groups: the labels of devices, as a tree.

use core::fmt;

use zerocopy::byteorder::little_endian::U64;
use zerocopy::{FromBytes as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Field;
use crate::error::Invalid;
use crate::super_block::SuperBlock;

/// Targets have room for 3838 groups; more entries than this make no sense.
const GROUPS_MAX: usize = 4096;
/// Labels nested deeper than this are not followed.
const DEPTH_MAX: usize = 32;

/// A group as stored (48 bytes).
#[derive(
    Copy, Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct DiskGroup {
    /// Last part of the path, padded with zeros.
    pub label: [u8; 32],
    /// Deleted, data allowed, parent.
    pub flags: [U64; 2],
}

const _: () = assert!(core::mem::size_of::<DiskGroup>() == 48);

impl DiskGroup {
    /// A live group. The label is cut to 32 bytes.
    pub fn new(label: &[u8], parent: Option<u32>, data_allowed: u8) -> Self {
        let mut stored = [0; 32];
        for (to, from) in stored.iter_mut().zip(label) {
            *to = *from;
        }
        let parent = parent.map_or(0, |p| u64::from(p) + 1) & 0x3_ffff;
        let flags = u64::from(data_allowed & 0x1f) << 1 | parent << 6;
        DiskGroup {
            label: stored,
            flags: [U64::new(flags), U64::ZERO],
        }
    }

    /// Whether the entry is free for reuse.
    pub fn is_deleted(&self) -> bool {
        self.flags[0].get() & 1 != 0
    }

    /// Bit k: data of type k may be put there.
    pub fn data_allowed(&self) -> u8 {
        (self.flags[0].get() >> 1 & 0x1f) as u8
    }

    /// Index of the group this one is in.
    pub fn parent(&self) -> Option<usize> {
        ((self.flags[0].get() >> 6 & 0x3_ffff) as usize).checked_sub(1)
    }

    /// The label without its padding.
    pub fn label(&self) -> &[u8] {
        let len = self.label.iter().position(|b| *b == 0);
        self.label.get(..len.unwrap_or(32)).unwrap_or(&[])
    }
}

/// The groups of a filesystem.
#[derive(Copy, Clone, Debug, Default)]
pub struct DiskGroups<'a> {
    entries: &'a [DiskGroup],
}

impl<'a> DiskGroups<'a> {
    /// Of a field of type disk_groups.
    pub fn new(field: &Field<'a>) -> Self {
        let bytes = field.payload().as_bytes();
        let nr = bytes.len() / core::mem::size_of::<DiskGroup>();
        let entries = <[DiskGroup]>::ref_from_prefix_with_elems(bytes, nr);
        DiskGroups {
            entries: entries.map_or(&[], |(e, _)| e),
        }
    }

    /// All entries, deleted ones included; the index is the group's number.
    pub const fn entries(&self) -> &'a [DiskGroup] {
        self.entries
    }

    /// A group that is not deleted.
    pub fn get(&self, index: usize) -> Option<&'a DiskGroup> {
        self.entries.get(index).filter(|g| !g.is_deleted())
    }

    /// Prints the path of a group, parts separated by dots.
    pub fn path(&self, index: usize) -> GroupPath<'a> {
        GroupPath {
            groups: *self,
            index,
        }
    }

    /// Checks the field. Errors count bytes from its start.
    pub fn validate(&self, sb: &SuperBlock<'_>) -> Result<(), Invalid> {
        let at = |i: usize| 8 + i * core::mem::size_of::<DiskGroup>();
        let nr = self.entries.len();
        if nr > GROUPS_MAX {
            let what = "disk groups: too many entries";
            return Err(Invalid::plain(what, 0, nr as u64, GROUPS_MAX as u64));
        }
        for (dev, member) in sb.members().iter() {
            let Some(group) = member.group() else {
                continue;
            };
            if self.get(group.into()).is_none() {
                let what = "disk groups: a member is in a group that does not exist";
                return Err(Invalid::plain(what, 0, group.into(), dev.into()));
            }
        }
        for (i, group) in self.entries.iter().enumerate() {
            if group.is_deleted() {
                continue;
            }
            if group.label().is_empty() {
                return Err(Invalid::plain("disk groups: empty label", at(i), 0, 1));
            }
            let same = |g: &DiskGroup| {
                !g.is_deleted() && g.parent() == group.parent() && g.label == group.label
            };
            if let Some(j) = self.entries.iter().take(i).position(same) {
                let what = "disk groups: two groups have the same path";
                return Err(Invalid::plain(what, at(i), i as u64, j as u64));
            }
        }
        Ok(())
    }
}

/// Prints the path of a group; see [`DiskGroups::path`].
#[derive(Copy, Clone, Debug)]
pub struct GroupPath<'a> {
    groups: DiskGroups<'a>,
    index: usize,
}

impl fmt::Display for GroupPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut path = [0usize; DEPTH_MAX];
        let mut depth = 0;
        let mut next = Some(self.index);
        while let (Some(index), Some(slot)) = (next, path.get_mut(depth)) {
            *slot = index;
            depth += 1;
            next = self.groups.entries.get(index).and_then(DiskGroup::parent);
        }
        for (i, index) in path.iter().take(depth).rev().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            match self.groups.get(*index) {
                Some(group) => write!(f, "{}", group.label().escape_ascii())?,
                None => write!(f, "(no group {index})")?,
            }
        }
        Ok(())
    }
}
