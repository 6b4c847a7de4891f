// SPDX-License-Identifier: GPL-2.0
//! How the data of a file is to be written.

use bcachefs_format::{
    checksum::{CsumOpt, CsumType, Encryption},
    keys::{
        compression::CompressionOpt,
        inode::{Inode, InodeOpt},
    },
    sb::options::{Options as SbOptions, Target},
};

use crate::{
    btree::space::REPLICAS_MAX,
    util::error::{Error, Result},
};

/// Options that have a bearing on writing data, in effect for one file.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct DataOptions {
    /// Checksum of what is on disk.
    pub checksum: CsumType,
    /// Compression to be tried.
    pub compression: CompressionOpt,
    /// Copies; at least 1.
    pub replicas: u8,
    /// With fewer copies than this a write fails.
    pub required: u8,
    /// Where to write.
    pub target: Target,
    /// Where it is to be moved in the background.
    pub background_target: Target,
    /// How it is to be compressed in the background.
    pub background_compression: CompressionOpt,
}

impl DataOptions {
    /// Of a file whose inode is `inode`, in a filesystem with options `sb`.
    ///
    /// # Errors
    ///
    /// [`Error::SuperEncrypted`]: data that has to be encrypted cannot be written.
    pub fn new(sb: &SbOptions, inode: &Inode) -> Result<Self> {
        if sb.encryption != Encryption::Off {
            return Err(Error::SuperEncrypted);
        }
        let own = |opt| inode.options.get(opt);
        // Own options have been validated, except for their width.
        let byte = |opt, default: u8| own(opt).map_or(default, |v| v as u8);
        let target = |opt, default: Target| own(opt).map_or(default, |v| Target(v as u16));
        let in_place = own(InodeOpt::Nocow).map_or(sb.nocow, |v| v != 0);
        let mut options = DataOptions {
            checksum: CsumOpt(byte(InodeOpt::DataChecksum, sb.data_checksum.0))
                .data_type(sb.encryption)
                .unwrap_or(CsumType::CRC32C),
            compression: CompressionOpt(byte(InodeOpt::Compression, sb.compression.0)),
            replicas: byte(InodeOpt::DataReplicas, sb.data_replicas).clamp(1, REPLICAS_MAX as u8),
            required: sb.data_replicas_required.max(1),
            target: target(InodeOpt::ForegroundTarget, sb.foreground_target),
            background_target: target(InodeOpt::BackgroundTarget, sb.background_target),
            background_compression: CompressionOpt(byte(
                InodeOpt::BackgroundCompression,
                sb.background_compression.0,
            )),
        };
        if in_place {
            // Data that may be overwritten in place by others. Here it is not: writing elsewhere is right as well.
            options.checksum = CsumType::NONE;
            options.compression = CompressionOpt::NONE;
            options.background_compression = CompressionOpt::NONE;
        }
        options.required = options.required.min(options.replicas);
        Ok(options)
    }

    /// Sectors to be promised for `sectors` of data.
    pub fn promised(&self, sectors: u64) -> u64 {
        sectors.saturating_mul(self.replicas.into())
    }
}
