// SPDX-License-Identifier: GPL-2.0
//! Metadata versions. Everything that depends on the version of a filesystem asks here.

use core::fmt;

/// A metadata version: `major << 10 | minor`. One number space for superblocks, journal entries and
/// bsets.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u16);

const MINOR_BITS: u32 = 10;

/// Names, by version, ascending.
static NAMES: &[(Version, &str)] = &[
    (Version::new(0, 9), "minimum"),
    (Version::new(0, 10), "bkey_renumber"),
    (Version::new(0, 11), "inode_btree_change"),
    (Version::new(0, 12), "snapshot"),
    (Version::new(0, 13), "inode_backpointers"),
    (Version::new(0, 14), "btree_ptr_sectors_written"),
    (Version::new(0, 15), "snapshot_2"),
    (Version::new(0, 16), "reflink_p_fix"),
    (Version::new(0, 17), "subvol_dirent"),
    (Version::new(0, 18), "inode_v2"),
    (Version::new(0, 19), "freespace"),
    (Version::new(0, 20), "alloc_v4"),
    (Version::new(0, 21), "new_data_types"),
    (Version::new(0, 22), "backpointers"),
    (Version::new(0, 23), "inode_v3"),
    (Version::new(0, 24), "unwritten_extents"),
    (Version::new(0, 25), "bucket_gens"),
    (Version::new(0, 26), "lru_v2"),
    (Version::new(0, 27), "fragmentation_lru"),
    (Version::new(0, 28), "no_bps_in_alloc_keys"),
    (Version::new(0, 29), "snapshot_trees"),
    (Version::new(1, 0), "major_minor"),
    (Version::new(1, 1), "snapshot_skiplists"),
    (Version::new(1, 2), "deleted_inodes"),
    (Version::new(1, 3), "rebalance_work"),
    (Version::new(1, 4), "member_seq"),
    (Version::new(1, 5), "subvolume_fs_parent"),
    (Version::new(1, 6), "btree_subvolume_children"),
    (Version::new(1, 7), "mi_btree_bitmap"),
    (Version::new(1, 8), "bucket_stripe_sectors"),
    (Version::new(1, 9), "disk_accounting_v2"),
    (Version::new(1, 10), "disk_accounting_v3"),
    (Version::new(1, 11), "disk_accounting_inum"),
    (Version::new(1, 12), "rebalance_work_acct_fix"),
    (Version::new(1, 13), "inode_has_child_snapshots"),
];

impl Version {
    /// The oldest version anyone still reads.
    pub const MIN: Version = Version::new(0, 9);
    /// From here on keys carry snapshots and need no transformation when read.
    pub const SNAPSHOT: Version = Version::new(0, 12);
    /// From here on a device's last superblock sequence number is recorded, which makes it possible
    /// to tell that two devices went separate ways.
    pub const MEMBER_SEQ: Version = Version::new(1, 4);
    /// Up to and including this version some newer options were not stored.
    pub const DISK_ACCOUNTING_V2: Version = Version::new(1, 9);
    /// The version this implementation writes.
    pub const CURRENT: Version = Version::new(1, 13);

    /// From its two parts.
    pub const fn new(major: u16, minor: u16) -> Self {
        Version(major << MINOR_BITS | minor)
    }

    /// From the 32-bit field of a journal entry; `None` if it is not a version number at all.
    pub fn from_u32(v: u32) -> Option<Self> {
        u16::try_from(v).ok().map(Version)
    }

    /// Major part. A different major version cannot be read.
    pub const fn major(self) -> u16 {
        self.0 >> MINOR_BITS
    }

    /// Minor part. A higher minor version can be read.
    pub const fn minor(self) -> u16 {
        self.0 & ((1 << MINOR_BITS) - 1)
    }

    /// Whether metadata of this version can be interpreted: not from before the supported range,
    /// and not of a later major version.
    pub const fn is_compatible(self) -> bool {
        self.0 >= Self::MIN.0 && self.major() <= Self::CURRENT.major()
    }

    /// Whether keys of this version may need the transformations of old formats, which are not
    /// implemented.
    pub const fn needs_key_compat(self) -> bool {
        self.0 < Self::SNAPSHOT.0
    }

    /// What this implementation can do with a filesystem of this version whose oldest metadata is
    /// of version `oldest`.
    pub fn access(self, oldest: Version) -> Access {
        if !self.is_compatible() {
            Access::Refused("metadata version is not supported")
        } else if oldest.needs_key_compat() {
            Access::Refused("filesystem holds metadata from before version 0.12 (snapshot)")
        } else if self < Self::CURRENT {
            Access::ReadOnly("metadata version is older than 1.13 and upgrading is not supported")
        } else if self > Self::CURRENT {
            Access::ReadOnly("metadata version is newer than 1.13")
        } else {
            Access::ReadWrite
        }
    }

    /// The name, if the version is a known one.
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|e| e.0 == self).map(|e| e.1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{}: {}",
            self.major(),
            self.minor(),
            self.name().unwrap_or("(unknown version)")
        )
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())
    }
}

/// How a filesystem may be mounted, as far as its format decides.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Access {
    /// Everything is understood.
    ReadWrite,
    /// Reading is safe, writing is not; with the reason.
    ReadOnly(&'static str),
    /// Not even reading is safe; with the reason.
    Refused(&'static str),
}

impl Access {
    /// The stricter of two verdicts; the first one's reason if they are alike.
    pub fn and(self, other: Access) -> Access {
        match (self, other) {
            (Access::Refused(_), _) => self,
            (_, Access::Refused(_)) => other,
            (Access::ReadOnly(_), _) => self,
            _ => other,
        }
    }
}
