// SPDX-License-Identifier: GPL-2.0
//! What holds for the whole filesystem, checked and in native form.

use core::fmt;

use bcachefs_format::{
    features::{Compat, Features},
    keys::inode::time::{TimeBase, UnixTime},
    magic,
    sb::SbFlags,
    super_block::SuperBlock,
    Uuid, Version,
};
use kernel::prelude::*;

use super::{policy::ErrorAction, read::view};
use crate::util::error::Result;

/// The superblock of the filesystem: the best of all copies, validated.
pub struct Super {
    /// Internal UUID: never changes, seeds magics.
    pub uuid: Uuid,
    /// External UUID: what users see.
    pub user_uuid: Uuid,
    /// Current metadata version.
    pub version: Version,
    /// Oldest version of any metadata on disk.
    pub version_min: Version,
    /// Sequence number of the superblock.
    pub seq: u64,
    /// Sectors of a block.
    pub block_sectors: u16,
    /// Sectors of a btree node.
    pub btree_node_sectors: u16,
    /// Most sectors of data under one checksum.
    pub encoded_extent_max_sectors: u32,
    /// On-disk times count from here, in nanoseconds since the epoch.
    pub time_base_ns: i64,
    /// Nanoseconds per unit of on-disk times. Not zero.
    pub time_precision_ns: u32,
    /// Whether the last unmount was a clean one.
    pub clean: bool,
    /// Number of member slots.
    pub nr_devices: u8,
    /// Incompatible features in use.
    pub features: Features,
    /// Compatible features in use.
    pub compat: Compat,
    /// Flag words, raw.
    pub flags: SbFlags,
    words: KVVec<u64>,
}

impl Super {
    /// From the words of a superblock that has been validated.
    pub(super) fn new(words: KVVec<u64>) -> Result<Self> {
        let sb = view(&words)?;
        let (h, flags) = (sb.header(), sb.flags());
        Ok(Super {
            uuid: h.uuid,
            user_uuid: h.user_uuid,
            version: sb.version(),
            version_min: sb.version_min(),
            seq: h.seq.get(),
            block_sectors: h.block_size.get(),
            // Validated to be at most 1024.
            btree_node_sectors: flags.btree_node_size() as u16,
            encoded_extent_max_sectors: 1 << flags.encoded_extent_max_bits().min(31),
            time_base_ns: h.time_base_lo.get() as i64,
            time_precision_ns: h.time_precision.get().max(1),
            clean: sb.is_clean(),
            nr_devices: h.nr_devices,
            features: sb.features(),
            compat: sb.compat(),
            flags,
            words,
        })
    }

    /// The superblock itself, for everything that has no field here.
    ///
    /// # Errors
    ///
    /// None in practice: the words were accepted before.
    pub fn raw(&self) -> Result<SuperBlock<'_>> {
        view(&self.words)
    }

    /// Bytes of a block.
    #[inline]
    pub fn block_bytes(&self) -> u32 {
        u32::from(self.block_sectors) << 9
    }

    /// Bytes of a btree node.
    #[inline]
    pub fn btree_node_bytes(&self) -> u32 {
        u32::from(self.btree_node_sectors) << 9
    }

    /// The constant every node's header starts with in this filesystem.
    pub fn bset_magic(&self) -> u64 {
        magic::bset_magic(&self.uuid)
    }

    /// The constant every journal entry carries in this filesystem.
    pub fn jset_magic(&self) -> u64 {
        magic::jset_magic(&self.uuid)
    }

    /// What to do about damaged metadata, unless a mount option says otherwise.
    pub fn error_action(&self) -> ErrorAction {
        ErrorAction::from_index(self.flags.error_action()).unwrap_or(ErrorAction::ReadOnly)
    }

    /// Whether POSIX ACLs are in use.
    pub fn posix_acl(&self) -> bool {
        self.flags.posix_acl() != 0
    }

    /// Journal sequence numbers that do not count, as half-open ranges.
    pub(crate) fn blacklist(&self) -> Result<KVVec<(u64, u64)>> {
        let mut ranges = KVVec::new();
        for range in self.raw()?.blacklist().entries() {
            ranges.push((range.start.get(), range.end.get()), GFP_KERNEL)?;
        }
        Ok(ranges)
    }

    /// How times are stored.
    pub fn times(&self) -> TimeBase {
        // The same 64 bits, whichever way they are read.
        TimeBase::new(self.time_base_ns as u64, self.time_precision_ns)
    }

    /// The time now, as it is stored.
    pub fn now(&self) -> i64 {
        let ns = kfs::time::real_ns();
        self.times().from_unix(UnixTime {
            secs: ns.div_euclid(1_000_000_000),
            // Below 10^9.
            nanos: ns.rem_euclid(1_000_000_000) as u32,
        })
    }

    /// Values of the persistent counters.
    pub(crate) fn counters(&self) -> impl Iterator<Item = u64> + '_ {
        let values = self.raw().map_or(&[][..], |sb| sb.counters().values());
        values.iter().copied()
    }
}

/// Prints the external UUID: the filesystem's name in messages.
impl fmt::Display for Super {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.user_uuid, f)
    }
}

