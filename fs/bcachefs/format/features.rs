// SPDX-License-Identifier: GPL-2.0
//! Feature and compat bits of the superblock.

use core::fmt;

use crate::version::Access;

/// Incompatible features: a reader must know every bit that is set.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct Features(pub u64);

macro_rules! bit_names {
    ($t:ident: $($(#[$doc:meta])* $nr:literal $konst:ident $name:literal;)*) => {
        impl $t {
            $($(#[$doc])* pub const $konst: $t = $t(1 << $nr);)*

            const NAMES: &'static [&'static str] = &[$($name),*];

            /// All bits that are known.
            pub const KNOWN: $t = $t((1 << Self::NAMES.len()) - 1);
        }
    };
}

bit_names! { Features:
    /// Data may be compressed with lz4.
    0 LZ4 "lz4";
    /// Data may be compressed with gzip.
    1 GZIP "gzip";
    /// Data may be compressed with zstd.
    2 ZSTD "zstd";
    /// Link counts are updated in the transaction of the link.
    3 ATOMIC_NLINK "atomic_nlink";
    /// Erasure coding.
    4 EC "ec";
    /// The superblock's list of blacklisted journal sequence numbers is in use.
    5 JOURNAL_SEQ_BLACKLIST_V3 "journal_seq_blacklist_v3";
    /// Shared extents.
    6 REFLINK "reflink";
    /// Directory hashes use the correct siphash.
    7 NEW_SIPHASH "new_siphash";
    /// File data held in keys.
    8 INLINE_DATA "inline_data";
    /// Extents are never trimmed in written nodes.
    9 NEW_EXTENT_OVERWRITE "new_extent_overwrite";
    /// Extents may be marked incompressible.
    10 INCOMPRESSIBLE "incompressible";
    /// Node pointers of the second form.
    11 BTREE_PTR_V2 "btree_ptr_v2";
    /// Journal replay need not do extent overwrites.
    12 EXTENTS_ABOVE_BTREE_UPDATES "extents_above_btree_updates";
    /// Interior updates are journalled.
    13 BTREE_UPDATES_JOURNALLED "btree_updates_journalled";
    /// Shared inline data.
    14 REFLINK_INLINE_DATA "reflink_inline_data";
    /// Inodes use the current variable-length integers.
    15 NEW_VARINT "new_varint";
    /// Journal entries written without a flush.
    16 JOURNAL_NO_FLUSH "journal_no_flush";
    /// Bucket states of the second form.
    17 ALLOC_V2 "alloc_v2";
    /// Extents may start before the node that holds them.
    18 EXTENTS_ACROSS_BTREE_NODES "extents_across_btree_nodes";
}

impl Features {
    /// Bits every new or upgraded filesystem has.
    pub const ON_CREATE: Features = Features(
        Self::NEW_SIPHASH.0
            | Self::NEW_EXTENT_OVERWRITE.0
            | Self::BTREE_PTR_V2.0
            | Self::EXTENTS_ABOVE_BTREE_UPDATES.0
            | Self::BTREE_UPDATES_JOURNALLED.0
            | Self::NEW_VARINT.0
            | Self::JOURNAL_NO_FLUSH.0
            | Self::ALLOC_V2.0
            | Self::EXTENTS_ACROSS_BTREE_NODES.0,
    );
    /// Bits set when going read-write.
    pub const ON_READ_WRITE: Features = Features(
        Self::NEW_EXTENT_OVERWRITE.0
            | Self::EXTENTS_ABOVE_BTREE_UPDATES.0
            | Self::BTREE_UPDATES_JOURNALLED.0
            | Self::ALLOC_V2.0
            | Self::EXTENTS_ACROSS_BTREE_NODES.0,
    );
    /// Bits cleared by a clean shutdown.
    pub const CLEARED_WHEN_CLEAN: Features =
        Features(Self::EXTENTS_ABOVE_BTREE_UPDATES.0 | Self::BTREE_UPDATES_JOURNALLED.0);

    /// Whether every bit of `bits` is set.
    pub const fn contains(self, bits: Features) -> bool {
        self.0 & bits.0 == bits.0
    }

    /// The bits that are not known.
    pub const fn unknown(self) -> Features {
        Features(self.0 & !Self::KNOWN.0)
    }

    /// What can be done with a filesystem that has these features. `clean` says whether it was shut
    /// down cleanly: without these features the journal of a crashed filesystem would need the
    /// replay of an older format.
    pub fn access(self, clean: bool) -> Access {
        if self.unknown().0 != 0 {
            Access::Refused("filesystem has unknown incompatible features")
        } else if !self.contains(Self::NEW_EXTENT_OVERWRITE) {
            Access::Refused("filesystem lacks the feature new_extent_overwrite")
        } else if !clean && !self.contains(Self::EXTENTS_ABOVE_BTREE_UPDATES) {
            Access::Refused("filesystem is dirty and lacks the feature extents_above_btree_updates")
        } else if self.contains(Self::EC) {
            Access::ReadOnly("erasure coding cannot be written")
        } else {
            Access::ReadWrite
        }
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_bits(f, self.0, Self::NAMES)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Compatible features: unknown bits may be ignored.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct Compat(pub u64);

bit_names! { Compat:
    /// Allocation information is valid.
    0 ALLOC_INFO "alloc_info";
    /// Allocation information of metadata is valid.
    1 ALLOC_METADATA "alloc_metadata";
    /// Extents in the journal are as they are in the btree.
    2 EXTENTS_ABOVE_BTREE_UPDATES_DONE "extents_above_btree_updates_done";
    /// Key formats never overflow.
    3 BFORMAT_OVERFLOW_DONE "bformat_overflow_done";
}

impl Compat {
    /// Bits set at creation.
    pub const ON_CREATE: Compat =
        Compat(Self::EXTENTS_ABOVE_BTREE_UPDATES_DONE.0 | Self::BFORMAT_OVERFLOW_DONE.0);
    /// Bits set by a clean shutdown.
    pub const ON_CLEAN: Compat = Compat(Self::ALLOC_INFO.0 | Self::ALLOC_METADATA.0);

    /// Whether every bit of `bits` is set.
    pub const fn contains(self, bits: Compat) -> bool {
        self.0 & bits.0 == bits.0
    }
}

impl fmt::Display for Compat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_bits(f, self.0, Self::NAMES)
    }
}

impl fmt::Debug for Compat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Prints the names of the set bits of `v`, separated by commas; unnamed bits by number.
pub(crate) fn fmt_bits(f: &mut fmt::Formatter<'_>, v: u64, names: &[&str]) -> fmt::Result {
    let mut sep = "";
    for bit in (0..u64::BITS).filter(|b| v >> b & 1 != 0) {
        f.write_str(sep)?;
        match names.get(bit as usize) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "bit{bit}")?,
        }
        sep = ",";
    }
    if sep.is_empty() {
        f.write_str("(none)")?;
    }
    Ok(())
}
