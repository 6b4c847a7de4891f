// SPDX-License-Identifier: GPL-2.0
//! The table of the filesystem's options: name, help, and how a value is read.

use bcachefs_format::checksum::CsumOpt;
use bcachefs_format::keys::compression::CompressionOpt;
use bcachefs_format::sb::options::{ErrorAction, StrHashOpt};

use crate::request::OptionRequest;
use crate::size;
use crate::Result;

/// Takes a value over into the request, if it is a good one.
type Set = fn(&mut OptionRequest, &str) -> Result<()>;

/// One option.
#[derive(Copy, Clone, Debug)]
pub struct OptionDef {
    /// Name, upstream's.
    pub name: &'static str,
    /// What stands for the value in the help; empty for options that are on or off, whose value may be left out.
    pub value: &'static str,
    /// One line.
    pub help: &'static str,
    /// Reads the value.
    pub set: Set,
}

macro_rules! table {
    ($($name:ident $value:literal $help:literal $parse:expr;)*) => {
        /// All options, in the order of the help.
        pub static OPTIONS: &[OptionDef] = &[$(
            OptionDef {
                name: stringify!($name),
                value: $value,
                help: $help,
                set: |o, text| {
                    o.$name = $parse(text)?;
                    Ok(())
                },
            },
        )*];
    };
}

table! {
    block_size "SIZE" "Filesystem block size, 512 to 4k; default: the largest block of a device"
        |t| power_of_two(t, 512, 4096).map(Some);
    btree_node_size "SIZE" "Btree node size; default 256k, or the bucket size if that is smaller"
        |t| power_of_two(t, 512, 512 << 10).map(Some);
    errors "continue|fix_safe|panic|ro" "Action to take on filesystem error"
        |t| choice(t, ErrorAction::COUNT, |n| ErrorAction(n).name()).map(ErrorAction);
    metadata_replicas "#" "Number of metadata replicas" replicas;
    data_replicas "#" "Number of data replicas" replicas;
    metadata_replicas_required "#" "Metadata replicas without which a write fails" replicas;
    data_replicas_required "#" "Data replicas without which a write fails" replicas;
    encoded_extent_max "SIZE" "Maximum size of checksummed or compressed extents"
        |t| power_of_two(t, 4 << 10, 1 << 20);
    metadata_checksum "none|crc32c|crc64|xxhash" "Checksum of metadata" checksum;
    data_checksum "none|crc32c|crc64|xxhash" "Checksum of data" checksum;
    compression "none|lz4|gzip|zstd[:LEVEL]" "Compression of new data" compression;
    background_compression "none|lz4|gzip|zstd[:LEVEL]" "Compression of data moved in the background" compression;
    str_hash "crc32c|crc64|siphash" "Hash function for directory entries and xattrs"
        |t| choice(t, StrHashOpt::COUNT, |n| StrHashOpt(n).name()).map(StrHashOpt);
    metadata_target "DEVICE|LABEL" "Device or label for metadata writes" target;
    foreground_target "DEVICE|LABEL" "Device or label for foreground writes" target;
    background_target "DEVICE|LABEL" "Device or label to move data to in the background" target;
    promote_target "DEVICE|LABEL" "Device or label to promote data to on read" target;
    erasure_code "" "Enable erasure coding (experimental upstream; this module cannot write it)" boolean;
    inodes_32bit "" "Constrain inode numbers to 32 bits (default)" boolean;
    shard_inode_numbers "" "Shard new inode numbers by CPU (default)" boolean;
    inodes_use_key_cache "" "Use the btree key cache for inodes (default)" boolean;
    gc_reserve_percent "%" "Percentage of space kept for copying garbage collection, 5 to 20"
        |t| number(t, 5, 20).map(|n| n as u8);
    gc_reserve_bytes "SIZE" "Space kept for copying garbage collection; wins over the percentage"
        |t| multiple(t, 512);
    root_reserve_percent "%" "Percentage of space kept for the superuser" |t| number(t, 0, 99).map(|n| n as u8);
    wide_macs "" "Store full 128 bits of cryptographic MACs, instead of 80" boolean;
    acl "" "Enable POSIX ACLs (default)" boolean;
    usrquota "" "Enable user quotas" boolean;
    grpquota "" "Enable group quotas" boolean;
    prjquota "" "Enable project quotas" boolean;
    journal_transaction_names "" "Log names of transactions in the journal (default)" boolean;
    allocator_stuck_timeout "SECONDS" "When to report that allocation is stuck"
        |t| number(t, 0, u16::MAX as u64 - 1).map(|n| n as u16);
    nocow "" "Write in place when possible; without checksums, compression, encryption" boolean;
}

fn number(text: &str, min: u64, max: u64) -> Result<u64> {
    match text.parse() {
        Ok(n) if (min..=max).contains(&n) => Ok(n),
        _ => Err(format!("{text:?} is not a number from {min} to {max}")),
    }
}

fn replicas(text: &str) -> Result<u8> {
    number(text, 1, 3).map(|n| n as u8)
}

fn power_of_two(text: &str, min: u64, max: u64) -> Result<u64> {
    let bytes = size::parse(text)?;
    if !bytes.is_power_of_two() || !(min..=max).contains(&bytes) {
        let (min, max) = (size::show(min), size::show(max));
        return Err(format!("{text} is not a power of two from {min} to {max}"));
    }
    Ok(bytes)
}

fn multiple(text: &str, of: u64) -> Result<u64> {
    match size::parse(text)? {
        bytes if bytes % of == 0 => Ok(bytes),
        _ => Err(format!("{text} is not a multiple of {}", size::show(of))),
    }
}

fn boolean(text: &str) -> Result<bool> {
    match text {
        "1" => Ok(true),
        "0" => Ok(false),
        _ => Err(format!("{text:?} is neither 0 nor 1")),
    }
}

/// The number of a name among `count` of them.
fn choice(text: &str, count: u8, name: fn(u8) -> Option<&'static str>) -> Result<u8> {
    (0..count).find(|n| name(*n) == Some(text)).ok_or_else(|| {
        let names: Vec<_> = (0..count).filter_map(name).collect();
        format!("{text:?} is none of {}", names.join(", "))
    })
}

fn checksum(text: &str) -> Result<CsumOpt> {
    choice(text, CsumOpt::COUNT, |n| CsumOpt(n).name()).map(CsumOpt)
}

fn compression(text: &str) -> Result<CompressionOpt> {
    let (algorithm, level) = text.split_once(':').unwrap_or((text, "0"));
    let names = |n| ["none", "lz4", "gzip", "zstd"].get(usize::from(n)).copied();
    let algorithm = choice(algorithm, 4, names)?;
    let level = number(level, 0, 15).map_err(|e| format!("compression level: {e}"))?;
    let opt = CompressionOpt(algorithm | (level as u8) << 4);
    match opt.is_valid() {
        true => Ok(opt),
        false => Err(format!("{text:?}: a level without compression")),
    }
}

fn target(text: &str) -> Result<Option<String>> {
    Ok(Some(text).filter(|t| *t != "none").map(String::from))
}
