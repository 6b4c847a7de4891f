// SPDX-License-Identifier: GPL-2.0
//! The superblock's flag words for what was asked for.

use bcachefs_format::sb::options::Target;
use bcachefs_format::sb::SbFlags;

use crate::request::OptionRequest;
use crate::size::SECTOR;

/// What options become once devices and labels are known.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// Bytes of a btree node.
    pub node_size: u64,
    /// Where metadata goes.
    pub metadata_target: Target,
    /// Where new data goes.
    pub foreground_target: Target,
    /// Where data goes later.
    pub background_target: Target,
    /// Where data that was read goes, too.
    pub promote_target: Target,
}

/// Milliseconds until a journal entry is written.
const JOURNAL_FLUSH_DELAY: u64 = 1000;
/// Milliseconds between runs of journal reclaim.
const JOURNAL_RECLAIM_DELAY: u64 = 100;

/// The flag words of a filesystem that has not been mounted yet.
pub fn make(o: &OptionRequest, r: &Resolved) -> SbFlags {
    let mut f = SbFlags::default();
    f.set_error_action(o.errors.0.into());
    f.set_btree_node_size(r.node_size / SECTOR);
    f.set_gc_reserve(o.gc_reserve_percent.into());
    f.set_gc_reserve_bytes(o.gc_reserve_bytes / SECTOR);
    f.set_root_reserve(o.root_reserve_percent.into());
    f.set_meta_csum_type(o.metadata_checksum.0.into());
    f.set_data_csum_type(o.data_checksum.0.into());
    f.set_meta_replicas_want(o.metadata_replicas.into());
    f.set_data_replicas_want(o.data_replicas.into());
    f.set_meta_replicas_req(o.metadata_replicas_required.into());
    f.set_data_replicas_req(o.data_replicas_required.into());
    f.set_posix_acl(o.acl.into());
    f.set_usrquota(o.usrquota.into());
    f.set_grpquota(o.grpquota.into());
    f.set_prjquota(o.prjquota.into());
    f.set_promote_whole_extents(1);
    f.set_str_hash_type(o.str_hash.0.into());
    f.set_compression_type_lo(o.compression.algorithm().into());
    f.set_compression_type_hi(o.compression.level().into());
    f.set_background_compression_type_lo(o.background_compression.algorithm().into());
    f.set_background_compression_type_hi(o.background_compression.level().into());
    f.set_inode_32bit(o.inodes_32bit.into());
    f.set_wide_macs(o.wide_macs.into());
    f.set_encoded_extent_max_bits((o.encoded_extent_max / SECTOR).ilog2().into());
    f.set_promote_target(r.promote_target.0.into());
    f.set_foreground_target(r.foreground_target.0.into());
    f.set_background_target(r.background_target.0.into());
    f.set_metadata_target(r.metadata_target.0.into());
    f.set_erasure_code(o.erasure_code.into());
    f.set_shard_inums(o.shard_inode_numbers.into());
    f.set_inodes_use_key_cache(o.inodes_use_key_cache.into());
    f.set_journal_flush_delay(JOURNAL_FLUSH_DELAY);
    f.set_journal_reclaim_delay(JOURNAL_RECLAIM_DELAY);
    f.set_journal_transaction_names(o.journal_transaction_names.into());
    f.set_nocow(o.nocow.into());
    f.set_allocator_stuck_timeout(o.allocator_stuck_timeout.into());
    f
}
