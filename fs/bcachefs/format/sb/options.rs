// SPDX-License-Identifier: GPL-2.0
//! The options stored in the superblock, decoded and within their ranges.

use core::fmt;

use super::flags::SbFlags;
use crate::checksum::{CsumOpt, Encryption};
use crate::error::Invalid;
use crate::keys::compression::CompressionOpt;
use crate::super_block::{DiskSb, SuperBlock};
use crate::version::Version;

/// Where data is to be put: 12 bits on disk. 0 none, then devices, then disk groups.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct Target(pub u16);

/// What a [`Target`] means.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum TargetKind {
    /// Anywhere.
    None,
    /// One device, by member index.
    Dev(u8),
    /// A disk group, by its index.
    Group(u16),
}

impl Target {
    const FIRST_DEV: u16 = 1;
    const FIRST_GROUP: u16 = 257;

    /// What the number stands for.
    pub const fn kind(self) -> TargetKind {
        if self.0 < Self::FIRST_DEV {
            TargetKind::None
        } else if self.0 < Self::FIRST_GROUP {
            TargetKind::Dev((self.0 - Self::FIRST_DEV) as u8)
        } else {
            TargetKind::Group(self.0 - Self::FIRST_GROUP)
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            TargetKind::None => f.write_str("none"),
            TargetKind::Dev(dev) => write!(f, "dev {dev}"),
            TargetKind::Group(group) => write!(f, "group {group}"),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! choices {
    ($(#[$doc:meta])* $t:ident: $($nr:literal $konst:ident $name:literal)*) => {
        $(#[$doc])*
        #[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Default)]
        pub struct $t(pub u8);

        #[allow(missing_docs)] // the name is the documentation
        impl $t {
            $(pub const $konst: $t = $t($nr);)*

            const NAMES: &'static [&'static str] = &[$($name),*];

            /// Number of choices; valid values are below it.
            pub const COUNT: u8 = Self::NAMES.len() as u8;

            /// The name, if the value is valid.
            pub fn name(self) -> Option<&'static str> {
                Self::NAMES.get(usize::from(self.0)).copied()
            }
        }

        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name().unwrap_or("(invalid)"))
            }
        }
    };
}

choices! {
    /// What to do when an inconsistency is found.
    ErrorAction: 0 CONTINUE "continue" 1 FIX_SAFE "fix_safe" 2 PANIC "panic" 3 RO "ro"
}
choices! {
    /// Hash of directory entries and xattrs, as an option.
    StrHashOpt: 0 CRC32C "crc32c" 1 CRC64 "crc64" 2 SIPHASH "siphash"
}
choices! {
    /// Whether to upgrade the metadata version when mounting.
    VersionUpgrade: 0 COMPATIBLE "compatible" 1 INCOMPATIBLE "incompatible" 2 NONE "none"
}
impl fmt::Display for CsumOpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or("(invalid)"))
    }
}

/// All options of a filesystem. Sizes are in sectors unless named otherwise.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // upstream's option names
pub struct Options {
    pub block_size: u16,
    pub btree_node_size: u16,
    pub errors: ErrorAction,
    pub metadata_replicas: u8,
    pub data_replicas: u8,
    pub metadata_replicas_required: u8,
    pub data_replicas_required: u8,
    pub encoded_extent_max: u32,
    pub metadata_checksum: CsumOpt,
    pub data_checksum: CsumOpt,
    pub compression: CompressionOpt,
    pub background_compression: CompressionOpt,
    pub str_hash: StrHashOpt,
    pub metadata_target: Target,
    pub foreground_target: Target,
    pub background_target: Target,
    pub promote_target: Target,
    pub erasure_code: bool,
    pub inodes_32bit: bool,
    pub shard_inode_numbers: bool,
    pub inodes_use_key_cache: bool,
    pub gc_reserve_percent: u8,
    pub gc_reserve_bytes: u64,
    pub root_reserve_percent: u8,
    pub wide_macs: bool,
    pub acl: bool,
    pub usrquota: bool,
    pub grpquota: bool,
    pub prjquota: bool,
    /// Milliseconds.
    pub journal_flush_delay: u32,
    pub journal_flush_disabled: bool,
    /// Milliseconds.
    pub journal_reclaim_delay: u32,
    pub journal_transaction_names: bool,
    /// Seconds.
    pub allocator_stuck_timeout: u16,
    pub version_upgrade: VersionUpgrade,
    pub nocow: bool,
    pub promote_whole_extents: bool,
    pub encryption: Encryption,
}

/// Where the flag words start in the superblock.
const FLAGS_AT: usize = core::mem::offset_of!(DiskSb, flags);
/// Where the block size is.
const BLOCK_SIZE_AT: usize = core::mem::offset_of!(DiskSb, block_size);

/// Accepts `v` if it lies within `min..=max`.
fn range(what: &'static str, word: usize, v: u64, min: u64, max: u64) -> Result<u64, Invalid> {
    if v < min || v > max {
        let want = if v < min { min } else { max };
        return Err(Invalid::plain(what, FLAGS_AT + 8 * word, v, want));
    }
    Ok(v)
}

impl Options {
    /// Decodes the options of a superblock and checks their ranges.
    pub fn decode(sb: &SuperBlock<'_>) -> Result<Self, Invalid> {
        let f = defaulted(sb.flags(), sb.version());
        let block_size = sb.header().block_size.get();
        if !block_size.is_power_of_two() || block_size > 64 {
            let what = "superblock: block size is no power of two up to 32 KiB";
            return Err(Invalid::plain(what, BLOCK_SIZE_AT, block_size.into(), 64));
        }
        let node_size = range(
            "superblock: btree node size",
            0,
            f.btree_node_size(),
            1,
            1024,
        )?;
        if !node_size.is_power_of_two() {
            let what = "superblock: btree node size is no power of two";
            return Err(Invalid::plain(what, FLAGS_AT, node_size, 512));
        }
        let replicas = |what, word, v| range(what, word, v, 1, 3).map(|v| v as u8);
        let csum = |what, v| range(what, 0, v, 0, u64::from(CsumOpt::COUNT) - 1);
        let compression = |what, lo: u64, hi: u64| {
            let opt = CompressionOpt((lo | hi << 4) as u8);
            match opt.is_valid() {
                true => Ok(opt),
                false => Err(Invalid::plain(what, FLAGS_AT + 8, opt.0.into(), 0)),
            }
        };
        let encoded_bits = range(
            "superblock: encoded extent size",
            1,
            f.encoded_extent_max_bits(),
            3,
            11,
        )?;
        let delay_max = u64::from(u32::MAX) - 1;
        Ok(Options {
            block_size,
            btree_node_size: node_size as u16,
            errors: ErrorAction(
                range("superblock: error action", 0, f.error_action(), 0, 3)? as u8,
            ),
            metadata_replicas: replicas(
                "superblock: metadata replicas",
                0,
                f.meta_replicas_want(),
            )?,
            data_replicas: replicas("superblock: data replicas", 0, f.data_replicas_want())?,
            metadata_replicas_required: replicas(
                "superblock: required metadata replicas",
                1,
                f.meta_replicas_req(),
            )?,
            data_replicas_required: replicas(
                "superblock: required data replicas",
                1,
                f.data_replicas_req(),
            )?,
            encoded_extent_max: 1 << encoded_bits,
            metadata_checksum: CsumOpt(csum(
                "superblock: metadata checksum option",
                f.meta_csum_type(),
            )? as u8),
            data_checksum: CsumOpt(
                csum("superblock: data checksum option", f.data_csum_type())? as u8,
            ),
            compression: compression(
                "superblock: compression option",
                f.compression_type_lo(),
                f.compression_type_hi(),
            )?,
            background_compression: compression(
                "superblock: background compression option",
                f.background_compression_type_lo(),
                f.background_compression_type_hi(),
            )?,
            str_hash: StrHashOpt(range(
                "superblock: string hash option",
                1,
                f.str_hash_type(),
                0,
                2,
            )? as u8),
            metadata_target: Target(f.metadata_target() as u16),
            foreground_target: Target(f.foreground_target() as u16),
            background_target: Target(f.background_target() as u16),
            promote_target: Target(f.promote_target() as u16),
            erasure_code: range("superblock: erasure code", 3, f.erasure_code(), 0, 1)? != 0,
            inodes_32bit: f.inode_32bit() != 0,
            shard_inode_numbers: f.shard_inums() != 0,
            inodes_use_key_cache: f.inodes_use_key_cache() != 0,
            gc_reserve_percent: range("superblock: gc reserve percent", 0, f.gc_reserve(), 5, 20)?
                as u8,
            gc_reserve_bytes: f.gc_reserve_bytes() << 9,
            root_reserve_percent: range(
                "superblock: root reserve percent",
                0,
                f.root_reserve(),
                0,
                99,
            )? as u8,
            wide_macs: f.wide_macs() != 0,
            acl: f.posix_acl() != 0,
            usrquota: f.usrquota() != 0,
            grpquota: f.grpquota() != 0,
            prjquota: f.prjquota() != 0,
            journal_flush_delay: range(
                "superblock: journal flush delay",
                3,
                f.journal_flush_delay(),
                1,
                delay_max,
            )? as u32,
            journal_flush_disabled: f.journal_flush_disabled() != 0,
            journal_reclaim_delay: range(
                "superblock: journal reclaim delay",
                4,
                f.journal_reclaim_delay(),
                0,
                delay_max,
            )? as u32,
            journal_transaction_names: f.journal_transaction_names() != 0,
            allocator_stuck_timeout: range(
                "superblock: allocator stuck timeout",
                5,
                f.allocator_stuck_timeout(),
                0,
                u64::from(u16::MAX) - 1,
            )? as u16,
            version_upgrade: VersionUpgrade(range(
                "superblock: version upgrade option",
                4,
                f.version_upgrade(),
                0,
                2,
            )? as u8),
            nocow: f.nocow() != 0,
            promote_whole_extents: f.promote_whole_extents() != 0,
            encryption: match (f.encryption_type(), f.wide_macs()) {
                (0, _) => Encryption::Off,
                (_, 0) => Encryption::NarrowMacs,
                (_, _) => Encryption::WideMacs,
            },
        })
    }
}

/// The flags with what older writers left out filled in.
fn defaulted(mut f: SbFlags, version: Version) -> SbFlags {
    if f.journal_flush_delay() == 0 {
        f.set_journal_flush_delay(1000);
    }
    if f.journal_reclaim_delay() == 0 {
        f.set_journal_reclaim_delay(1000);
    }
    if version <= Version::DISK_ACCOUNTING_V2 {
        if f.allocator_stuck_timeout() == 0 {
            f.set_allocator_stuck_timeout(30);
        }
        f.set_promote_whole_extents(1);
    }
    f
}
