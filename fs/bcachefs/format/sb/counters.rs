// SPDX-License-Identifier: GPL-2.0
//! Persistent counters: how often things happened in the life of the filesystem.

use super::Field;

/// Names of the counters; the index is the counter's number on disk.
pub const NAMES: &[&str] = &[
    "io_read",
    "io_write",
    "io_move",
    "bucket_invalidate",
    "bucket_discard",
    "bucket_alloc",
    "bucket_alloc_fail",
    "btree_cache_scan",
    "btree_cache_reap",
    "btree_cache_cannibalize",
    "btree_cache_cannibalize_lock",
    "btree_cache_cannibalize_lock_fail",
    "btree_cache_cannibalize_unlock",
    "btree_node_write",
    "btree_node_read",
    "btree_node_compact",
    "btree_node_merge",
    "btree_node_split",
    "btree_node_rewrite",
    "btree_node_alloc",
    "btree_node_free",
    "btree_node_set_root",
    "btree_path_relock_fail",
    "btree_path_upgrade_fail",
    "btree_reserve_get_fail",
    "journal_entry_full",
    "journal_full",
    "journal_reclaim_finish",
    "journal_reclaim_start",
    "journal_write",
    "read_promote",
    "read_bounce",
    "read_split",
    "read_retry",
    "read_reuse_race",
    "move_extent_read",
    "move_extent_write",
    "move_extent_finish",
    "move_extent_fail",
    "move_extent_start_fail",
    "copygc",
    "copygc_wait",
    "gc_gens_end",
    "gc_gens_start",
    "trans_blocked_journal_reclaim",
    "trans_restart_btree_node_reused",
    "trans_restart_btree_node_split",
    "trans_restart_fault_inject",
    "trans_restart_iter_upgrade",
    "trans_restart_journal_preres_get",
    "trans_restart_journal_reclaim",
    "trans_restart_journal_res_get",
    "trans_restart_key_cache_key_realloced",
    "trans_restart_key_cache_raced",
    "trans_restart_mark_replicas",
    "trans_restart_mem_realloced",
    "trans_restart_memory_allocation_failure",
    "trans_restart_relock",
    "trans_restart_relock_after_fill",
    "trans_restart_relock_key_cache_fill",
    "trans_restart_relock_next_node",
    "trans_restart_relock_parent_for_fill",
    "trans_restart_relock_path",
    "trans_restart_relock_path_intent",
    "trans_restart_too_many_iters",
    "trans_restart_traverse",
    "trans_restart_upgrade",
    "trans_restart_would_deadlock",
    "trans_restart_would_deadlock_write",
    "trans_restart_injected",
    "trans_restart_key_cache_upgrade",
    "trans_traverse_all",
    "transaction_commit",
    "write_super",
    "trans_restart_would_deadlock_recursion_limit",
    "trans_restart_write_buffer_flush",
    "trans_restart_split_race",
    "write_buffer_flush_slowpath",
    "write_buffer_flush_sync",
];

/// The counters of a filesystem.
#[derive(Copy, Clone, Debug, Default)]
pub struct Counters<'a> {
    values: &'a [u64],
}

impl<'a> Counters<'a> {
    /// Of a field of type counters.
    pub fn new(field: &Field<'a>) -> Self {
        Counters {
            values: field.payload(),
        }
    }

    /// Counter `nr`; 0 if the filesystem does not store it.
    pub fn get(&self, nr: usize) -> u64 {
        self.values.get(nr).copied().unwrap_or(0)
    }

    /// All counters that are stored, unknown ones included.
    pub const fn values(&self) -> &'a [u64] {
        self.values
    }
}
