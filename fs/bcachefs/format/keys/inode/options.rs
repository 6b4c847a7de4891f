// SPDX-License-Identifier: GPL-2.0
//! Options that an inode carries: set on it, or inherited from its directory when it was made.
//!
//! Stored as the option's value plus one; 0 means that the filesystem's option applies. Which ones
//! were set explicitly, and so are not replaced on a move to another directory, is a bitmap.

use core::fmt;

use crate::checksum::CsumOpt;
use crate::error::{ErrorId, Invalid};
use crate::keys::compression::CompressionOpt;

/// An option of an inode; the number is its bit in [`InodeOptions::fields_set`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum InodeOpt {
    /// Checksum of new data ([`CsumOpt`]).
    DataChecksum = 0,
    /// Compression of new data ([`CompressionOpt`]).
    Compression = 1,
    /// Project, for quotas.
    Project = 2,
    /// Compression to be done in the background.
    BackgroundCompression = 3,
    /// Number of copies.
    DataReplicas = 4,
    /// Where to keep a copy of data that is read.
    PromoteTarget = 5,
    /// Where to write.
    ForegroundTarget = 6,
    /// Where to move to in the background.
    BackgroundTarget = 7,
    /// Whether to erasure code.
    ErasureCode = 8,
    /// Whether to overwrite in place, without checksums.
    Nocow = 9,
}

impl InodeOpt {
    /// All options, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::DataChecksum,
        Self::Compression,
        Self::Project,
        Self::BackgroundCompression,
        Self::DataReplicas,
        Self::PromoteTarget,
        Self::ForegroundTarget,
        Self::BackgroundTarget,
        Self::ErasureCode,
        Self::Nocow,
    ];

    /// The option's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DataChecksum => "data_checksum",
            Self::Compression => "compression",
            Self::Project => "project",
            Self::BackgroundCompression => "background_compression",
            Self::DataReplicas => "data_replicas",
            Self::PromoteTarget => "promote_target",
            Self::ForegroundTarget => "foreground_target",
            Self::BackgroundTarget => "background_target",
            Self::ErasureCode => "erasure_code",
            Self::Nocow => "nocow",
        }
    }
}

/// The options of an inode as stored: value plus one, 0 for none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InodeOptions {
    /// Stored data checksum.
    pub data_checksum: u8,
    /// Stored compression.
    pub compression: u8,
    /// Stored project id.
    pub project: u32,
    /// Stored background compression.
    pub background_compression: u8,
    /// Stored number of replicas.
    pub data_replicas: u8,
    /// Stored promote target.
    pub promote_target: u16,
    /// Stored foreground target.
    pub foreground_target: u16,
    /// Stored background target.
    pub background_target: u16,
    /// Stored erasure coding choice.
    pub erasure_code: u16,
    /// Stored nocow choice.
    pub nocow: u8,
    /// Bitmap, by number of the option, of what was set on this inode itself.
    pub fields_set: u16,
}

impl InodeOptions {
    /// The stored form of `opt`.
    const fn stored(&self, opt: InodeOpt) -> u32 {
        match opt {
            InodeOpt::DataChecksum => self.data_checksum as u32,
            InodeOpt::Compression => self.compression as u32,
            InodeOpt::Project => self.project,
            InodeOpt::BackgroundCompression => self.background_compression as u32,
            InodeOpt::DataReplicas => self.data_replicas as u32,
            InodeOpt::PromoteTarget => self.promote_target as u32,
            InodeOpt::ForegroundTarget => self.foreground_target as u32,
            InodeOpt::BackgroundTarget => self.background_target as u32,
            InodeOpt::ErasureCode => self.erasure_code as u32,
            InodeOpt::Nocow => self.nocow as u32,
        }
    }

    /// The value of `opt`; `None` if the filesystem's applies.
    pub const fn get(&self, opt: InodeOpt) -> Option<u32> {
        self.stored(opt).checked_sub(1)
    }

    /// Sets or clears `opt`. Returns whether the value has a stored form; if not, nothing changes.
    /// The bitmap of explicitly set options is left alone.
    #[must_use]
    pub fn set(&mut self, opt: InodeOpt, value: Option<u32>) -> bool {
        let stored = match value {
            Some(v) => match v.checked_add(1) {
                Some(s) => s,
                None => return false,
            },
            None => 0,
        };
        fn put<T: TryFrom<u32>>(to: &mut T, stored: u32) -> bool {
            T::try_from(stored).map(|v| *to = v).is_ok()
        }
        match opt {
            InodeOpt::DataChecksum => put(&mut self.data_checksum, stored),
            InodeOpt::Compression => put(&mut self.compression, stored),
            InodeOpt::Project => put(&mut self.project, stored),
            InodeOpt::BackgroundCompression => put(&mut self.background_compression, stored),
            InodeOpt::DataReplicas => put(&mut self.data_replicas, stored),
            InodeOpt::PromoteTarget => put(&mut self.promote_target, stored),
            InodeOpt::ForegroundTarget => put(&mut self.foreground_target, stored),
            InodeOpt::BackgroundTarget => put(&mut self.background_target, stored),
            InodeOpt::ErasureCode => put(&mut self.erasure_code, stored),
            InodeOpt::Nocow => put(&mut self.nocow, stored),
        }
    }

    /// Whether `opt` was set on this inode itself.
    pub const fn is_explicit(&self, opt: InodeOpt) -> bool {
        self.fields_set & (1 << opt as u16) != 0
    }

    /// The options a new inode gets from its directory: all values, none of them explicit.
    pub const fn inherited(&self) -> Self {
        let mut new = *self;
        new.fields_set = 0;
        new
    }

    /// Whether the options are ones that exist. Only those are checked that reading depends on.
    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        if self.data_checksum > CsumOpt::COUNT {
            return Err(Invalid::new(
                ErrorId::INODE_CHECKSUM_TYPE_INVALID,
                "unknown checksum option",
                0,
                u64::from(self.data_checksum),
                u64::from(CsumOpt::COUNT),
            ));
        }
        if let Some(c) = self.compression.checked_sub(1) {
            if !CompressionOpt(c).is_valid() {
                return Err(Invalid::new(
                    ErrorId::INODE_COMPRESSION_TYPE_INVALID,
                    "unknown compression option",
                    0,
                    u64::from(c),
                    3,
                ));
            }
        }
        Ok(())
    }
}

impl fmt::Display for InodeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("opts (")?;
        let mut sep = "";
        for opt in InodeOpt::ALL {
            if let Some(v) = self.get(opt) {
                let mark = if self.is_explicit(opt) { "!" } else { "" };
                write!(f, "{sep}{}{mark} {v}", opt.name())?;
                sep = ", ";
            }
        }
        f.write_str(")")
    }
}
