// SPDX-License-Identifier: GPL-2.0
//! Event counters of a mounted filesystem.
//!
//! The numbers and names are those of the superblock's counters field. A mount starts from the values
//! stored there; a read-only mount counts in memory and stores nothing. Counting is a relaxed atomic
//! addition and allowed in any context.

use core::fmt;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, UniqueArc,
    },
};

use super::error::Result;

/// A kind of event, by its number in the superblock.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Counter(u8);

macro_rules! counters {
    ($($nr:literal $konst:ident $name:literal;)*) => {
        #[allow(missing_docs)] // the name is the documentation
        impl Counter {
            $(pub const $konst: Counter = Counter($nr);)*

            const NAMES: &'static [&'static str] = &[$($name),*];
            const C_NAMES: &'static [&'static CStr] = &[$(kernel::c_str!($name)),*];
        }
    };
}

counters! {
    0 IO_READ "io_read";
    1 IO_WRITE "io_write";
    2 IO_MOVE "io_move";
    3 BUCKET_INVALIDATE "bucket_invalidate";
    4 BUCKET_DISCARD "bucket_discard";
    5 BUCKET_ALLOC "bucket_alloc";
    6 BUCKET_ALLOC_FAIL "bucket_alloc_fail";
    7 BTREE_CACHE_SCAN "btree_cache_scan";
    8 BTREE_CACHE_REAP "btree_cache_reap";
    9 BTREE_CACHE_CANNIBALIZE "btree_cache_cannibalize";
    10 BTREE_CACHE_CANNIBALIZE_LOCK "btree_cache_cannibalize_lock";
    11 BTREE_CACHE_CANNIBALIZE_LOCK_FAIL "btree_cache_cannibalize_lock_fail";
    12 BTREE_CACHE_CANNIBALIZE_UNLOCK "btree_cache_cannibalize_unlock";
    13 BTREE_NODE_WRITE "btree_node_write";
    14 BTREE_NODE_READ "btree_node_read";
    15 BTREE_NODE_COMPACT "btree_node_compact";
    16 BTREE_NODE_MERGE "btree_node_merge";
    17 BTREE_NODE_SPLIT "btree_node_split";
    18 BTREE_NODE_REWRITE "btree_node_rewrite";
    19 BTREE_NODE_ALLOC "btree_node_alloc";
    20 BTREE_NODE_FREE "btree_node_free";
    21 BTREE_NODE_SET_ROOT "btree_node_set_root";
    22 BTREE_PATH_RELOCK_FAIL "btree_path_relock_fail";
    23 BTREE_PATH_UPGRADE_FAIL "btree_path_upgrade_fail";
    24 BTREE_RESERVE_GET_FAIL "btree_reserve_get_fail";
    25 JOURNAL_ENTRY_FULL "journal_entry_full";
    26 JOURNAL_FULL "journal_full";
    27 JOURNAL_RECLAIM_FINISH "journal_reclaim_finish";
    28 JOURNAL_RECLAIM_START "journal_reclaim_start";
    29 JOURNAL_WRITE "journal_write";
    30 READ_PROMOTE "read_promote";
    31 READ_BOUNCE "read_bounce";
    32 READ_SPLIT "read_split";
    33 READ_RETRY "read_retry";
    34 READ_REUSE_RACE "read_reuse_race";
    35 MOVE_EXTENT_READ "move_extent_read";
    36 MOVE_EXTENT_WRITE "move_extent_write";
    37 MOVE_EXTENT_FINISH "move_extent_finish";
    38 MOVE_EXTENT_FAIL "move_extent_fail";
    39 MOVE_EXTENT_START_FAIL "move_extent_start_fail";
    40 COPYGC "copygc";
    41 COPYGC_WAIT "copygc_wait";
    42 GC_GENS_END "gc_gens_end";
    43 GC_GENS_START "gc_gens_start";
    44 TRANS_BLOCKED_JOURNAL_RECLAIM "trans_blocked_journal_reclaim";
    45 TRANS_RESTART_BTREE_NODE_REUSED "trans_restart_btree_node_reused";
    46 TRANS_RESTART_BTREE_NODE_SPLIT "trans_restart_btree_node_split";
    47 TRANS_RESTART_FAULT_INJECT "trans_restart_fault_inject";
    48 TRANS_RESTART_ITER_UPGRADE "trans_restart_iter_upgrade";
    49 TRANS_RESTART_JOURNAL_PRERES_GET "trans_restart_journal_preres_get";
    50 TRANS_RESTART_JOURNAL_RECLAIM "trans_restart_journal_reclaim";
    51 TRANS_RESTART_JOURNAL_RES_GET "trans_restart_journal_res_get";
    52 TRANS_RESTART_KEY_CACHE_KEY_REALLOCED "trans_restart_key_cache_key_realloced";
    53 TRANS_RESTART_KEY_CACHE_RACED "trans_restart_key_cache_raced";
    54 TRANS_RESTART_MARK_REPLICAS "trans_restart_mark_replicas";
    55 TRANS_RESTART_MEM_REALLOCED "trans_restart_mem_realloced";
    56 TRANS_RESTART_MEMORY_ALLOCATION_FAILURE "trans_restart_memory_allocation_failure";
    57 TRANS_RESTART_RELOCK "trans_restart_relock";
    58 TRANS_RESTART_RELOCK_AFTER_FILL "trans_restart_relock_after_fill";
    59 TRANS_RESTART_RELOCK_KEY_CACHE_FILL "trans_restart_relock_key_cache_fill";
    60 TRANS_RESTART_RELOCK_NEXT_NODE "trans_restart_relock_next_node";
    61 TRANS_RESTART_RELOCK_PARENT_FOR_FILL "trans_restart_relock_parent_for_fill";
    62 TRANS_RESTART_RELOCK_PATH "trans_restart_relock_path";
    63 TRANS_RESTART_RELOCK_PATH_INTENT "trans_restart_relock_path_intent";
    64 TRANS_RESTART_TOO_MANY_ITERS "trans_restart_too_many_iters";
    65 TRANS_RESTART_TRAVERSE "trans_restart_traverse";
    66 TRANS_RESTART_UPGRADE "trans_restart_upgrade";
    67 TRANS_RESTART_WOULD_DEADLOCK "trans_restart_would_deadlock";
    68 TRANS_RESTART_WOULD_DEADLOCK_WRITE "trans_restart_would_deadlock_write";
    69 TRANS_RESTART_INJECTED "trans_restart_injected";
    70 TRANS_RESTART_KEY_CACHE_UPGRADE "trans_restart_key_cache_upgrade";
    71 TRANS_TRAVERSE_ALL "trans_traverse_all";
    72 TRANSACTION_COMMIT "transaction_commit";
    73 WRITE_SUPER "write_super";
    74 TRANS_RESTART_WOULD_DEADLOCK_RECURSION_LIMIT "trans_restart_would_deadlock_recursion_limit";
    75 TRANS_RESTART_WRITE_BUFFER_FLUSH "trans_restart_write_buffer_flush";
    76 TRANS_RESTART_SPLIT_RACE "trans_restart_split_race";
    77 WRITE_BUFFER_FLUSH_SLOWPATH "write_buffer_flush_slowpath";
    78 WRITE_BUFFER_FLUSH_SYNC "write_buffer_flush_sync";
}

impl Counter {
    /// How many kinds there are.
    pub const COUNT: usize = Self::NAMES.len();

    /// All kinds, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Counter> {
        (0..Self::COUNT as u8).map(Counter)
    }

    /// The number in the superblock.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The name shown to users.
    pub fn name(self) -> &'static str {
        Self::NAMES.get(self.index()).copied().unwrap_or("")
    }

    /// The same for those who want a C string.
    pub fn c_name(self) -> &'static CStr {
        Self::C_NAMES.get(self.index()).copied().unwrap_or_default()
    }
}

/// The values, since the filesystem was made and since it was mounted.
pub struct Counters {
    stored: [u64; Counter::COUNT],
    since_mount: [Atomic<u64>; Counter::COUNT],
}

impl Counters {
    /// Starts from the values of the superblock's field, missing ones being zero. May sleep.
    pub fn new(stored: impl Iterator<Item = u64>) -> Result<Arc<Self>> {
        let zero = init!(Counters {
            stored: [0; Counter::COUNT],
            since_mount: [const { Atomic::new(0) }; Counter::COUNT],
        });
        let mut counters = UniqueArc::init(zero, GFP_KERNEL)?;
        for (to, from) in counters.stored.iter_mut().zip(stored) {
            *to = from;
        }
        Ok(counters.into())
    }

    /// Counts one event.
    #[inline]
    pub fn inc(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `n` events (or, for the `io_*` kinds, sectors).
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) {
        if let Some(v) = self.since_mount.get(counter.index()) {
            v.add(n, Relaxed);
        }
    }

    /// Events since this mount.
    pub fn since_mount(&self, counter: Counter) -> u64 {
        self.since_mount
            .get(counter.index())
            .map_or(0, |v| v.load(Relaxed))
    }

    /// Events since the filesystem was made.
    pub fn total(&self, counter: Counter) -> u64 {
        self.stored
            .get(counter.index())
            .map_or(0, |v| v.wrapping_add(self.since_mount(counter)))
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in Counter::all() {
            writeln!(
                f,
                "{:<46} {:>20} {:>20}",
                c.name(),
                self.since_mount(c),
                self.total(c)
            )?;
        }
        Ok(())
    }
}
