// SPDX-License-Identifier: GPL-2.0
//! The superblock: header, framing and validation. Its fields are in [`crate::sb`].
//!
//! The way of a superblock read from a device: [`probe`] on its first sectors says how long it is,
//! [`SuperBlock::open`] checks what identifies it and its checksum, [`Unchecked::validate`] checks
//! everything else. Which copy and which device to believe is decided in [`crate::sb::choose`].

mod validate;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::check::Unchecked;
use crate::checksum::{Checksummer, Csum, CsumType, Nonce};
use crate::error::Invalid;
use crate::features::{Compat, Features};
use crate::magic::{is_sb_magic, Uuid};
use crate::sb::field::{Field, FieldType, Fields};
use crate::sb::flags::SbFlags;
use crate::sb::layout::{DiskLayout, SB_MAX_SIZE_BITS_MAX};
use crate::sb::{
    Blacklist, Clean, Counters, Crypt, DiskGroups, Downgrades, Errors, Ext, JournalBuckets, Member,
    Members, Options, Quota, Replicas,
};
use crate::version::Version;

/// Sector of the first superblock copy, unless the layout says otherwise.
pub const SB_SECTOR: u64 = 8;
/// Sector of the layout.
pub const SB_LAYOUT_SECTOR: u64 = 7;
/// Most members a filesystem can have.
pub const MEMBERS_MAX: u8 = 64;
/// The index that stands for no device.
pub const DEV_INVALID: u8 = 255;

/// The superblock as stored, up to its fields (752 bytes).
#[derive(
    Copy, Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct DiskSb {
    /// Checksum of everything after it, to the end of the fields.
    pub csum: Csum,
    /// Current metadata version.
    pub version: U16,
    /// Oldest version of any metadata that may be on disk.
    pub version_min: U16,
    /// Zero.
    pub pad: [U16; 2],
    /// See [`is_sb_magic`].
    pub magic: Uuid,
    /// Internal UUID: identifies the filesystem, never changes, and seeds the magics.
    pub uuid: Uuid,
    /// UUID shown to users.
    pub user_uuid: Uuid,
    /// Label, not necessarily terminated.
    pub label: [u8; 32],
    /// Sector this copy was written to.
    pub offset: U64,
    /// Incremented by every superblock write.
    pub seq: U64,
    /// Block size in sectors.
    pub block_size: U16,
    /// Member index of the device this is on.
    pub dev_idx: u8,
    /// Number of member slots.
    pub nr_devices: u8,
    /// Words of fields.
    pub u64s: U32,
    /// Base of timestamps in nanoseconds: when the filesystem was made.
    pub time_base_lo: U64,
    /// Zero.
    pub time_base_hi: U32,
    /// Nanoseconds per unit of time.
    pub time_precision: U32,
    /// See [`SbFlags`].
    pub flags: [U64; 7],
    /// When it was last written, in seconds.
    pub write_time: U64,
    /// Incompatible features; the second word must be 0.
    pub features: [U64; 2],
    /// Compatible features.
    pub compat: [U64; 2],
    /// Where the copies on this device are.
    pub layout: DiskLayout,
}

/// Bytes of the fixed part.
pub const SB_HEADER_BYTES: usize = core::mem::size_of::<DiskSb>();

const CSUM_BYTES: usize = core::mem::size_of::<Csum>();

/// Byte offset of a field of [`DiskSb`].
macro_rules! at {
    ($f:ident) => {
        core::mem::offset_of!(DiskSb, $f)
    };
}

const _: () = {
    assert!(SB_HEADER_BYTES == 752);
    assert!(at!(magic) == 24);
    assert!(at!(label) == 72);
    assert!(at!(seq) == 112);
    assert!(at!(u64s) == 124);
    assert!(at!(flags) == 144);
    assert!(at!(write_time) == 200);
    assert!(at!(features) == 208);
    assert!(at!(compat) == 224);
    assert!(at!(layout) == 240);
};

impl DiskSb {
    /// Bytes of header and fields.
    pub fn bytes(&self) -> u64 {
        SB_HEADER_BYTES as u64 + u64::from(self.u64s.get()) * 8
    }

    /// The flag words.
    pub fn flags(&self) -> SbFlags {
        SbFlags(self.flags.map(|w| w.get()))
    }
}

/// Looks at the fixed part of a superblock in `words`: checks that it is one, of a version that can
/// be read, and returns how many bytes it has, which may be more than `words` holds.
pub fn probe(words: &[u64]) -> Result<usize, Invalid> {
    let Ok((sb, _)) = DiskSb::ref_from_prefix(words.as_bytes()) else {
        let len = words.len() as u64 * 8;
        return Err(Invalid::plain(
            "superblock is cut off",
            0,
            len,
            SB_HEADER_BYTES as u64,
        ));
    };
    if !is_sb_magic(&sb.magic) {
        return Err(Invalid::plain(
            "not a bcachefs superblock",
            at!(magic),
            sb.magic.low_word(),
            crate::magic::SB_MAGIC.low_word(),
        ));
    }
    let (version, oldest) = (Version(sb.version.get()), Version(sb.version_min.get()));
    let current = u64::from(Version::CURRENT.0);
    if !version.is_compatible() {
        let what = "superblock: unsupported metadata version";
        return Err(Invalid::plain(
            what,
            at!(version),
            version.0.into(),
            current,
        ));
    }
    if !oldest.is_compatible() {
        let what = "superblock: unsupported oldest metadata version";
        return Err(Invalid::plain(
            what,
            at!(version_min),
            oldest.0.into(),
            current,
        ));
    }
    if oldest > version {
        let what = "superblock: oldest version is above the current one";
        return Err(Invalid::plain(
            what,
            at!(version_min),
            oldest.0.into(),
            version.0.into(),
        ));
    }
    let bits = sb.layout.sb_max_size_bits.min(SB_MAX_SIZE_BITS_MAX);
    let limit = 512u64 << bits;
    if sb.bytes() > limit {
        let what = "superblock: longer than its layout allows";
        return Err(Invalid::plain(what, at!(u64s), sb.bytes(), limit));
    }
    // At most 32 MiB.
    Ok(sb.bytes() as usize)
}

/// What validation has to know about the device and the machine.
#[derive(Copy, Clone, Debug)]
pub struct SbLimits {
    /// Logical block size of the device in bytes.
    pub logical_block_bytes: u32,
    /// Largest filesystem block the machine can handle, in bytes: the page size.
    pub block_bytes_max: u32,
}

/// A superblock in memory.
#[derive(Copy, Clone, Debug)]
pub struct SuperBlock<'a> {
    header: &'a DiskSb,
    words: &'a [u64],
}

impl<'a> SuperBlock<'a> {
    /// Frames the superblock at the start of `words` without verifying its checksum.
    pub fn frame(words: &'a [u64]) -> Result<Unchecked<Self>, Invalid> {
        let bytes = probe(words)?;
        let have = words.len() as u64 * 8;
        let cut_off = || Invalid::plain("superblock is cut off", at!(u64s), have, bytes as u64);
        let words = words.get(..bytes / 8).ok_or_else(cut_off)?;
        let (header, _) = DiskSb::ref_from_prefix(words.as_bytes()).map_err(|_| cut_off())?;
        Ok(Unchecked::new(SuperBlock { header, words }))
    }

    /// Frames the superblock at the start of `words` and verifies its checksum.
    pub fn open<C: Checksummer + ?Sized>(
        words: &'a [u64],
        csum: &C,
    ) -> Result<Unchecked<Self>, Invalid> {
        let sb = Self::frame(words)?;
        let (header, bytes) = (sb.peek().header, sb.peek().words.as_bytes());
        let csum_type = CsumType(header.flags().csum_type() as u8);
        let unsupported = Invalid::plain(
            "superblock: checksum type is unknown or needs a key",
            at!(flags),
            csum_type.0.into(),
            CsumType::XXHASH.0.into(),
        );
        if !csum_type.is_known() || csum_type.is_mac() {
            return Err(unsupported);
        }
        let covered = bytes.get(CSUM_BYTES..).unwrap_or(&[]);
        csum.verify(csum_type, Nonce::NONE, covered, &header.csum)
            .map_err(|e| {
                let mismatch = Invalid::plain("superblock: checksum is wrong", 0, 0, 0);
                e.describe(csum_type, &header.csum, unsupported, mismatch)
            })?;
        Ok(sb)
    }

    /// The fixed part.
    pub const fn header(&self) -> &'a DiskSb {
        self.header
    }

    /// All words, header and fields.
    pub const fn words(&self) -> &'a [u64] {
        self.words
    }

    /// Current metadata version.
    pub fn version(&self) -> Version {
        Version(self.header.version.get())
    }

    /// Oldest version of any metadata that may be on disk.
    pub fn version_min(&self) -> Version {
        Version(self.header.version_min.get())
    }

    /// The last version to which an upgrade was completed.
    pub fn version_upgrade_complete(&self) -> Version {
        match self.flags().version_upgrade_complete() {
            0 => self.version(),
            v => Version(v as u16),
        }
    }

    /// The flag words.
    pub fn flags(&self) -> SbFlags {
        self.header.flags()
    }

    /// Incompatible features.
    pub fn features(&self) -> Features {
        Features(self.header.features[0].get())
    }

    /// Compatible features.
    pub fn compat(&self) -> Compat {
        Compat(self.header.compat[0].get())
    }

    /// Whether the filesystem was shut down cleanly.
    pub fn is_clean(&self) -> bool {
        self.flags().clean() != 0
    }

    /// The label, up to its terminator.
    pub fn label(&self) -> &'a [u8] {
        let label = &self.header.label;
        let len = label.iter().position(|b| *b == 0).unwrap_or(label.len());
        label.get(..len).unwrap_or(&[])
    }

    /// The options stored in the superblock, each within its range.
    pub fn options(&self) -> Result<Options, Invalid> {
        Options::decode(self)
    }

    /// The fields, in the order they are stored.
    pub fn fields(&self) -> Fields<'a> {
        Fields::new(self.words.get(SB_HEADER_BYTES / 8..).unwrap_or(&[]))
    }

    /// The first field of a type.
    pub fn field(&self, field_type: FieldType) -> Option<Field<'a>> {
        self.fields()
            .map_while(Result::ok)
            .find(|f| f.field_type == field_type)
    }

    /// The members. Without any if the superblock has no usable member field.
    pub fn members(&self) -> Members<'a> {
        let nr = self.header.nr_devices;
        let v2 = self
            .field(FieldType::MEMBERS_V2)
            .map(|f| Members::v2(&f, nr));
        let v1 = || {
            self.field(FieldType::MEMBERS_V1)
                .map(|f| Members::v1(&f, nr))
        };
        v2.or_else(v1).unwrap_or_default()
    }

    /// The member this superblock's device is.
    pub fn this_member(&self) -> Option<Member> {
        self.members().get(self.header.dev_idx)
    }

    /// The encryption key.
    pub fn crypt(&self) -> Option<Crypt> {
        Crypt::parse(&self.field(FieldType::CRYPT)?).ok()
    }

    /// Which combinations of devices hold data.
    pub fn replicas(&self) -> Replicas<'a> {
        let current = self
            .field(FieldType::REPLICAS)
            .map(|f| Replicas::current(&f));
        let v0 = || self.field(FieldType::REPLICAS_V0).map(|f| Replicas::v0(&f));
        current.or_else(v0).unwrap_or_default()
    }

    /// Quota limits.
    pub fn quota(&self) -> Option<Quota> {
        Quota::parse(&self.field(FieldType::QUOTA)?).ok()
    }

    /// Disk groups, that is labels.
    pub fn disk_groups(&self) -> DiskGroups<'a> {
        let field = self.field(FieldType::DISK_GROUPS);
        field.map(|f| DiskGroups::new(&f)).unwrap_or_default()
    }

    /// The clean section; means something only if [`SuperBlock::is_clean`].
    pub fn clean(&self) -> Option<Clean<'a>> {
        Clean::parse(&self.field(FieldType::CLEAN)?).ok()
    }

    /// This device's journal.
    pub fn journal_buckets(&self) -> JournalBuckets<'a> {
        let v2 = self
            .field(FieldType::JOURNAL_V2)
            .map(|f| JournalBuckets::v2(&f));
        let v1 = || {
            self.field(FieldType::JOURNAL)
                .map(|f| JournalBuckets::v1(&f))
        };
        v2.or_else(v1).unwrap_or_default()
    }

    /// Blacklisted journal sequence numbers.
    pub fn blacklist(&self) -> Blacklist<'a> {
        let field = self.field(FieldType::JOURNAL_SEQ_BLACKLIST);
        field.map(|f| Blacklist::new(&f)).unwrap_or_default()
    }

    /// Persistent counters.
    pub fn counters(&self) -> Counters<'a> {
        let field = self.field(FieldType::COUNTERS);
        field.map(|f| Counters::new(&f)).unwrap_or_default()
    }

    /// Errors seen.
    pub fn errors(&self) -> Errors<'a> {
        let field = self.field(FieldType::ERRORS);
        field.map(|f| Errors::new(&f)).unwrap_or_default()
    }

    /// What recovery has been told to do.
    pub fn ext(&self) -> Option<Ext> {
        Ext::parse(&self.field(FieldType::EXT)?).ok()
    }

    /// What an older version has to do when it takes over.
    pub fn downgrades(&self) -> Downgrades<'a> {
        let field = self.field(FieldType::DOWNGRADE);
        field.map(|f| Downgrades::new(&f)).unwrap_or_default()
    }
}
