// SPDX-License-Identifier: GPL-2.0
//! The flag words of the superblock.
//!
//! One table names every bit range. Getters return the raw number; [`super::Options`] decodes what
//! is an option.

/// The seven flag words, native.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct SbFlags(pub [u64; 7]);

const fn mask(lo: u32, hi: u32) -> u64 {
    (u64::MAX >> (64 - (hi - lo))) << lo
}

macro_rules! flags {
    ($($(#[$doc:meta])* $get:ident $set:ident $word:literal, $lo:literal .. $hi:literal;)*) => {
        impl SbFlags {
            $(
                $(#[$doc])*
                pub const fn $get(&self) -> u64 {
                    (self.0[$word] & mask($lo, $hi)) >> $lo
                }

                /// Sets the range; bits of `v` that do not fit are lost.
                pub fn $set(&mut self, v: u64) {
                    let m = mask($lo, $hi);
                    self.0[$word] = self.0[$word] & !m | v << $lo & m;
                }
            )*

            /// Name, word, first bit and end of every range.
            pub const RANGES: &'static [(&'static str, usize, u32, u32)] =
                &[$((stringify!($get), $word, $lo, $hi)),*];
        }
    };
}

flags! {
    /// Set once the first mount has completed; before, superblocks are not written.
    initialized set_initialized 0, 0..1;
    /// Clean shutdown: the clean section counts.
    clean set_clean 0, 1..2;
    /// Checksum type of the superblock.
    csum_type set_csum_type 0, 2..8;
    /// What to do about errors.
    error_action set_error_action 0, 8..12;
    /// Sectors of a btree node.
    btree_node_size set_btree_node_size 0, 12..28;
    /// Percent of space kept for copying garbage collection.
    gc_reserve set_gc_reserve 0, 28..33;
    /// Percent of space kept for root.
    root_reserve set_root_reserve 0, 33..40;
    /// Checksum option of metadata.
    meta_csum_type set_meta_csum_type 0, 40..44;
    /// Checksum option of data.
    data_csum_type set_data_csum_type 0, 44..48;
    /// Replicas of metadata.
    meta_replicas_want set_meta_replicas_want 0, 48..52;
    /// Replicas of data.
    data_replicas_want set_data_replicas_want 0, 52..56;
    /// POSIX ACLs.
    posix_acl set_posix_acl 0, 56..57;
    /// User quotas.
    usrquota set_usrquota 0, 57..58;
    /// Group quotas.
    grpquota set_grpquota 0, 58..59;
    /// Project quotas.
    prjquota set_prjquota 0, 59..60;
    /// Errors were seen since the last full check.
    has_errors set_has_errors 0, 60..61;
    /// The next recovery has to check topology.
    has_topology_errors set_has_topology_errors 0, 61..62;
    /// Keys are big-endian; not supported.
    big_endian set_big_endian 0, 62..63;
    /// Promote whole extents.
    promote_whole_extents set_promote_whole_extents 0, 63..64;
    /// String hash option.
    str_hash_type set_str_hash_type 1, 0..4;
    /// Low nibble of the compression option.
    compression_type_lo set_compression_type_lo 1, 4..8;
    /// Inode numbers fit 32 bits.
    inode_32bit set_inode_32bit 1, 8..9;
    /// 128-bit MACs on data.
    wide_macs set_wide_macs 1, 9..10;
    /// Nonzero if encrypted.
    encryption_type set_encryption_type 1, 10..14;
    /// Binary logarithm of the longest encoded extent, in sectors.
    encoded_extent_max_bits set_encoded_extent_max_bits 1, 14..20;
    /// Replicas of metadata that have to be written.
    meta_replicas_req set_meta_replicas_req 1, 20..24;
    /// Replicas of data that have to be written.
    data_replicas_req set_data_replicas_req 1, 24..28;
    /// Promote target.
    promote_target set_promote_target 1, 28..40;
    /// Foreground target.
    foreground_target set_foreground_target 1, 40..52;
    /// Background target.
    background_target set_background_target 1, 52..64;
    /// Low nibble of the background compression option.
    background_compression_type_lo set_background_compression_type_lo 2, 0..4;
    /// Space kept for copying garbage collection, in sectors.
    gc_reserve_bytes set_gc_reserve_bytes 2, 4..64;
    /// Erasure coding.
    erasure_code set_erasure_code 3, 0..16;
    /// Metadata target.
    metadata_target set_metadata_target 3, 16..28;
    /// Shard inode numbers by CPU.
    shard_inums set_shard_inums 3, 28..29;
    /// Inodes go through the key cache.
    inodes_use_key_cache set_inodes_use_key_cache 3, 29..30;
    /// Milliseconds.
    journal_flush_delay set_journal_flush_delay 3, 30..62;
    /// Journal flushes on demand are disabled.
    journal_flush_disabled set_journal_flush_disabled 3, 62..63;
    /// Milliseconds.
    journal_reclaim_delay set_journal_reclaim_delay 4, 0..32;
    /// Log transaction names and overwritten keys.
    journal_transaction_names set_journal_transaction_names 4, 32..33;
    /// Write in place.
    nocow set_nocow 4, 33..34;
    /// Unused.
    write_buffer_size set_write_buffer_size 4, 34..54;
    /// Version upgrade option.
    version_upgrade set_version_upgrade 4, 54..56;
    /// High nibble of the compression option.
    compression_type_hi set_compression_type_hi 4, 56..60;
    /// High nibble of the background compression option.
    background_compression_type_hi set_background_compression_type_hi 4, 60..64;
    /// Last version to which an upgrade was completed.
    version_upgrade_complete set_version_upgrade_complete 5, 0..16;
    /// Seconds.
    allocator_stuck_timeout set_allocator_stuck_timeout 5, 16..32;
}
