// SPDX-License-Identifier: GPL-2.0
//! The btrees of a filesystem and what kind of keys each holds.

use core::fmt;

/// Number of a btree. Open: numbers up to [`BtreeId::MAX`] may appear in newer filesystems and
/// their roots are kept.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BtreeId(pub u8);

/// Keys are ranges: they have a size and their position is the end.
const EXTENTS: u8 = 1 << 0;
/// Keys live in snapshots: the snapshot field is used and nonzero.
const SNAPSHOTS: u8 = 1 << 1;
/// The snapshot field is used freely.
const SNAPSHOT_FIELD: u8 = 1 << 2;
/// Keys hold data pointers.
const DATA: u8 = 1 << 3;
/// Holds allocation information, which can be rebuilt from the other trees.
const ALLOC: u8 = 1 << 4;

macro_rules! btree_ids {
    ($($(#[$doc:meta])* $nr:literal $konst:ident $name:literal ($flags:expr);)*) => {
        impl BtreeId {
            $($(#[$doc])* pub const $konst: BtreeId = BtreeId($nr);)*

            const TABLE: &'static [(&'static str, u8)] = &[$(($name, $flags)),*];
        }
    };
}

btree_ids! {
    /// File extents.
    0 EXTENTS "extents" (EXTENTS | SNAPSHOTS | DATA);
    /// Inodes.
    1 INODES "inodes" (SNAPSHOTS);
    /// Directory entries.
    2 DIRENTS "dirents" (SNAPSHOTS);
    /// Extended attributes.
    3 XATTRS "xattrs" (SNAPSHOTS);
    /// Bucket states.
    4 ALLOC "alloc" (ALLOC);
    /// Quotas.
    5 QUOTAS "quotas" (0);
    /// Erasure-coding stripes.
    6 STRIPES "stripes" (0);
    /// Indirect extents.
    7 REFLINK "reflink" (EXTENTS | DATA);
    /// Subvolumes.
    8 SUBVOLUMES "subvolumes" (0);
    /// Snapshots.
    9 SNAPSHOTS "snapshots" (0);
    /// LRU lists of buckets.
    10 LRU "lru" (0);
    /// Free buckets.
    11 FREESPACE "freespace" (EXTENTS | ALLOC);
    /// Buckets to discard.
    12 NEED_DISCARD "need_discard" (ALLOC);
    /// From buckets to the keys that use them.
    13 BACKPOINTERS "backpointers" (ALLOC);
    /// Bucket generations.
    14 BUCKET_GENS "bucket_gens" (ALLOC);
    /// Snapshot trees.
    15 SNAPSHOT_TREES "snapshot_trees" (0);
    /// Unlinked inodes still open.
    16 DELETED_INODES "deleted_inodes" (SNAPSHOT_FIELD);
    /// Operations to finish after a crash.
    17 LOGGED_OPS "logged_ops" (0);
    /// Extents to move.
    18 REBALANCE_WORK "rebalance_work" (SNAPSHOT_FIELD);
    /// Parent to child subvolumes.
    19 SUBVOLUME_CHILDREN "subvolume_children" (0);
    /// Usage counters.
    20 ACCOUNTING "accounting" (SNAPSHOT_FIELD);
}

impl BtreeId {
    /// Number of btrees of metadata version 1.13.
    pub const COUNT: u8 = Self::TABLE.len() as u8;
    /// The highest number any version may use.
    pub const MAX: BtreeId = BtreeId(62);

    /// All btrees of metadata version 1.13, in order.
    pub fn all() -> impl Iterator<Item = BtreeId> {
        (0..Self::COUNT).map(BtreeId)
    }

    /// The name, if the btree is a known one.
    pub fn name(self) -> Option<&'static str> {
        Self::TABLE.get(usize::from(self.0)).map(|e| e.0)
    }

    /// Whether metadata version 1.13 knows this btree.
    #[inline]
    pub const fn is_known(self) -> bool {
        self.0 < Self::COUNT
    }

    #[inline]
    fn has(self, flag: u8) -> bool {
        Self::TABLE
            .get(usize::from(self.0))
            .is_some_and(|e| e.1 & flag != 0)
    }

    /// Whether keys are ranges with a size, positioned at their end.
    #[inline]
    pub fn is_extents(self) -> bool {
        self.has(EXTENTS)
    }

    /// Whether keys live in snapshots (snapshot field nonzero).
    #[inline]
    pub fn has_snapshots(self) -> bool {
        self.has(SNAPSHOTS)
    }

    /// Whether the snapshot field of keys may be nonzero.
    #[inline]
    pub fn has_snapshot_field(self) -> bool {
        self.has(SNAPSHOTS | SNAPSHOT_FIELD)
    }

    /// Whether keys hold data pointers.
    #[inline]
    pub fn has_data_ptrs(self) -> bool {
        self.has(DATA)
    }

    /// Whether the tree holds allocation information, which can be rebuilt.
    #[inline]
    pub fn is_alloc(self) -> bool {
        self.has(ALLOC)
    }
}

impl fmt::Display for BtreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "(unknown btree {})", self.0),
        }
    }
}

impl fmt::Debug for BtreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
