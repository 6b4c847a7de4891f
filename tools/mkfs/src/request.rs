// SPDX-License-Identifier: GPL-2.0
//! What was asked for.

use std::path::PathBuf;

use bcachefs_format::checksum::CsumOpt;
use bcachefs_format::keys::compression::CompressionOpt;
use bcachefs_format::magic::Uuid;
use bcachefs_format::sb::options::{ErrorAction, StrHashOpt};

/// Kinds of data that a device may hold, as bits: journal, btree and user.
pub const DATA_ALLOWED_ALL: u8 = 1 << 2 | 1 << 3 | 1 << 4;

/// One device and what was said about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceRequest {
    /// The device, or a file.
    pub path: PathBuf,
    /// Its place among the disk groups, parts separated by dots.
    pub label: Option<String>,
    /// How many replicas a copy on it counts for.
    pub durability: u8,
    /// Whether freed buckets are discarded.
    pub discard: bool,
    /// Bytes of a bucket; chosen by the device's size if not given.
    pub bucket_size: Option<u64>,
    /// Bit k: data of type k may be put there.
    pub data_allowed: u8,
    /// Bytes to use; all if not given.
    pub fs_size: Option<u64>,
}

impl DeviceRequest {
    /// A device about which nothing was said.
    pub fn new(path: PathBuf) -> Self {
        DeviceRequest {
            path,
            label: None,
            durability: 1,
            discard: false,
            bucket_size: None,
            data_allowed: DATA_ALLOWED_ALL,
            fs_size: None,
        }
    }
}

/// The filesystem's options. Sizes are in bytes, targets are names.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // upstream's option names
pub struct OptionRequest {
    pub block_size: Option<u64>,
    pub btree_node_size: Option<u64>,
    pub errors: ErrorAction,
    pub metadata_replicas: u8,
    pub data_replicas: u8,
    pub metadata_replicas_required: u8,
    pub data_replicas_required: u8,
    pub encoded_extent_max: u64,
    pub metadata_checksum: CsumOpt,
    pub data_checksum: CsumOpt,
    pub compression: CompressionOpt,
    pub background_compression: CompressionOpt,
    pub str_hash: StrHashOpt,
    pub metadata_target: Option<String>,
    pub foreground_target: Option<String>,
    pub background_target: Option<String>,
    pub promote_target: Option<String>,
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
    pub journal_transaction_names: bool,
    pub allocator_stuck_timeout: u16,
    pub nocow: bool,
}

impl Default for OptionRequest {
    fn default() -> Self {
        OptionRequest {
            block_size: None,
            btree_node_size: None,
            errors: ErrorAction::FIX_SAFE,
            metadata_replicas: 1,
            data_replicas: 1,
            metadata_replicas_required: 1,
            data_replicas_required: 1,
            encoded_extent_max: 64 << 10,
            metadata_checksum: CsumOpt::CRC32C,
            data_checksum: CsumOpt::CRC32C,
            compression: CompressionOpt::NONE,
            background_compression: CompressionOpt::NONE,
            str_hash: StrHashOpt::SIPHASH,
            metadata_target: None,
            foreground_target: None,
            background_target: None,
            promote_target: None,
            erasure_code: false,
            inodes_32bit: true,
            shard_inode_numbers: true,
            inodes_use_key_cache: true,
            gc_reserve_percent: 8,
            gc_reserve_bytes: 0,
            root_reserve_percent: 0,
            wide_macs: false,
            acl: true,
            usrquota: false,
            grpquota: false,
            prjquota: false,
            journal_transaction_names: true,
            allocator_stuck_timeout: 30,
            nocow: false,
        }
    }
}

/// Everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The devices, in the order of their member numbers.
    pub devices: Vec<DeviceRequest>,
    /// Options of the filesystem.
    pub options: OptionRequest,
    /// The UUID shown to users; random if not given.
    pub uuid: Option<Uuid>,
    /// Label of the filesystem, at most 32 bytes.
    pub fs_label: String,
    /// Bytes that each copy of the superblock may grow to.
    pub superblock_size: u64,
    /// Whether a device that holds something is overwritten.
    pub force: bool,
    /// Whether only errors are printed.
    pub quiet: bool,
}
