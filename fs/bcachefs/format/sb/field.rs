// SPDX-License-Identifier: GPL-2.0
//! The fields of a superblock: framing, types, and the table of their validators.

use core::fmt;

use zerocopy::IntoBytes as _;

use super::{
    Blacklist, Clean, Crypt, DiskGroups, Downgrades, Errors, Ext, JournalBuckets, Members, Quota,
    Replicas,
};
use crate::error::Invalid;
use crate::super_block::SuperBlock;

/// Bytes of a field's header.
pub const FIELD_HEADER_BYTES: usize = 8;

/// Type of a field. Open: unknown fields are kept.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct FieldType(pub u32);

macro_rules! field_types {
    ($($(#[$doc:meta])* $nr:literal $konst:ident $name:literal;)*) => {
        impl FieldType {
            $($(#[$doc])* pub const $konst: FieldType = FieldType($nr);)*

            const NAMES: &'static [&'static str] = &[$($name),*];
        }
    };
}

field_types! {
    /// Journal buckets of this device, old form.
    0 JOURNAL "journal";
    /// Members, first 56 bytes of each.
    1 MEMBERS_V1 "members_v1";
    /// Encryption key.
    2 CRYPT "crypt";
    /// Device combinations that hold data, all of whose devices are equal.
    3 REPLICAS_V0 "replicas_v0";
    /// Quota limits.
    4 QUOTA "quota";
    /// Disk groups.
    5 DISK_GROUPS "disk_groups";
    /// What a clean shutdown leaves behind.
    6 CLEAN "clean";
    /// Device combinations that hold data.
    7 REPLICAS "replicas";
    /// Blacklisted journal sequence numbers.
    8 JOURNAL_SEQ_BLACKLIST "journal_seq_blacklist";
    /// Journal buckets of this device.
    9 JOURNAL_V2 "journal_v2";
    /// Persistent counters.
    10 COUNTERS "counters";
    /// Members.
    11 MEMBERS_V2 "members_v2";
    /// Errors seen.
    12 ERRORS "errors";
    /// What recovery has been told to do.
    13 EXT "ext";
    /// What an older version has to do.
    14 DOWNGRADE "downgrade";
}

impl FieldType {
    /// The name, if the type is known.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.get(self.0 as usize).copied()
    }

    /// Whether the field belongs to one device and is not copied to the others.
    pub const fn is_per_device(self) -> bool {
        matches!(self, FieldType::JOURNAL | FieldType::JOURNAL_V2)
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "(unknown field {})", self.0),
        }
    }
}

impl fmt::Debug for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One field, header included.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Field<'a> {
    /// Type.
    pub field_type: FieldType,
    /// All words; the first is the header.
    pub words: &'a [u64],
    /// Byte offset in the area of fields.
    pub offset: usize,
}

impl<'a> Field<'a> {
    /// All bytes, header included: offsets in the documentation of fields count from here.
    pub fn bytes(&self) -> &'a [u8] {
        self.words.as_bytes()
    }

    /// The words after the header.
    pub fn payload(&self) -> &'a [u64] {
        self.words.get(1..).unwrap_or(&[])
    }

    /// The header word for a field of `u64s` words in all.
    pub const fn header_word(field_type: FieldType, u64s: u32) -> u64 {
        u64s as u64 | (field_type.0 as u64) << 32
    }

    /// Checks the field by the rules of its type. Errors count bytes from its start.
    pub fn validate(&self, sb: &SuperBlock<'_>) -> Result<(), Invalid> {
        let nr = sb.header().nr_devices;
        match self.field_type {
            FieldType::JOURNAL => JournalBuckets::v1(self).validate(sb),
            FieldType::JOURNAL_V2 => JournalBuckets::v2(self).validate(sb),
            FieldType::MEMBERS_V1 => Members::v1(self, nr).validate(sb),
            FieldType::MEMBERS_V2 => Members::v2(self, nr).validate(sb),
            FieldType::CRYPT => Crypt::parse(self).map(drop),
            FieldType::REPLICAS_V0 => Replicas::v0(self).validate(sb),
            FieldType::REPLICAS => Replicas::current(self).validate(sb),
            FieldType::QUOTA => Quota::parse(self).map(drop),
            FieldType::DISK_GROUPS => DiskGroups::new(self).validate(sb),
            FieldType::CLEAN => Clean::parse(self)?.validate(),
            FieldType::JOURNAL_SEQ_BLACKLIST => Blacklist::new(self).validate(),
            FieldType::ERRORS => Errors::new(self).validate(),
            FieldType::EXT => Ext::parse(self).map(drop),
            FieldType::DOWNGRADE => Downgrades::new(self).validate(sb),
            // Counters are informational, and unknown fields are kept as they are.
            _ => Ok(()),
        }
    }
}

/// Iterator over the fields. Yields one error and ends where a field does not fit.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    words: &'a [u64],
    at: usize,
}

impl<'a> Fields<'a> {
    /// Over the words after the superblock's fixed part.
    pub const fn new(words: &'a [u64]) -> Self {
        Fields { words, at: 0 }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Invalid>;

    fn next(&mut self) -> Option<Self::Item> {
        let head = *self.words.get(self.at)?;
        let u64s = head as u32 as usize;
        let offset = self.at * 8;
        let left = self.words.len() - self.at;
        let end = self.at.saturating_add(u64s);
        match self.words.get(self.at..end) {
            Some(words) if u64s > 0 => {
                self.at = end;
                Some(Ok(Field {
                    field_type: FieldType((head >> 32) as u32),
                    words,
                    offset,
                }))
            }
            _ => {
                self.at = self.words.len();
                Some(Err(Invalid::plain(
                    "superblock field is empty or extends past the end",
                    offset,
                    u64s as u64,
                    left as u64,
                )))
            }
        }
    }
}
