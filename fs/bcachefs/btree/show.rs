// SPDX-License-Identifier: GPL-2.0
//! What can be seen of the btrees from outside.

use super::{cache::Cache, roots::Roots, trans::Transactions, Btree, IterFlags};
use bcachefs_format::{btree_node::BTREE_MAX_DEPTH, keys::KeyText, Bpos, BtreeId};
use core::{
    fmt::{self, Write as _},
    ops::ControlFlow,
};
use kernel::sync::Arc;
use kfs::show::{debugfs::Records, Text};

impl Btree {
    /// Nodes in memory, by btree and level, and what became of them.
    pub fn show_cache(&self) -> &Cache {
        &self.fill.cache
    }

    /// Transactions that run.
    pub fn show_transactions(&self) -> &Transactions {
        &self.buffers.transactions
    }

    /// Where the btrees begin.
    pub fn show_roots(&self) -> impl fmt::Display + '_ {
        Shown(&self.roots)
    }
}

struct Shown<'a>(&'a Roots);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Everything that is counted.
impl fmt::Display for Btree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fill.cache.fmt(f)?;
        self.fill.fmt(f)?;
        self.key_cache.fmt(f)?;
        let (cycles, overflows) = self.buffers.graph_stats();
        writeln!(f, "lock cycles broken: {cycles}")?;
        writeln!(f, "lock cycle searches given up: {overflows}")?;
        writeln!(f, "keys of the journal: {}", self.keys.len())
    }
}

/// Keys printed at a time.
const KEYS_PER_RECORD: usize = 32;

/// All keys of a btree's leaves, those of all snapshots, for a file in debugfs.
pub struct KeysFile {
    btree: Arc<Btree>,
    id: BtreeId,
}

impl KeysFile {
    /// The keys of `id`.
    pub fn new(btree: Arc<Btree>, id: BtreeId) -> Self {
        KeysFile { btree, id }
    }
}

impl Records for KeysFile {
    type Cursor = Option<Bpos>;

    fn open(&self) -> kernel::error::Result<Self::Cursor> {
        Ok(Some(Bpos::POS_MIN))
    }

    fn next(&self, cursor: &mut Self::Cursor, out: &mut Text) -> kernel::error::Result<bool> {
        let Some(start) = *cursor else {
            return Ok(false);
        };
        let mut printed = 0;
        let flags = IterFlags::ALL_SNAPSHOTS | IterFlags::NOT_EXTENTS | IterFlags::PREFETCH;
        let next = self
            .btree
            .walk(self.id, start, Bpos::SPOS_MAX, flags, |k| {
                if printed == KEYS_PER_RECORD {
                    return Ok(ControlFlow::Break(k.key.pos));
                }
                printed += 1;
                let _ = writeln!(out, "{}", KeyText(k));
                Ok(ControlFlow::Continue(()))
            })
            .map_err(|e| e.errno())?;
        *cursor = next;
        Ok(printed != 0)
    }
}

/// All nodes of a btree, from the leaves up, for a file in debugfs.
pub struct NodesFile {
    btree: Arc<Btree>,
    id: BtreeId,
}

impl NodesFile {
    /// The nodes of `id`.
    pub fn new(btree: Arc<Btree>, id: BtreeId) -> Self {
        NodesFile { btree, id }
    }
}

impl Records for NodesFile {
    type Cursor = Option<(u8, Bpos)>;

    fn open(&self) -> kernel::error::Result<Self::Cursor> {
        Ok(Some((0, Bpos::POS_MIN)))
    }

    fn next(&self, cursor: &mut Self::Cursor, out: &mut Text) -> kernel::error::Result<bool> {
        let Some((level, pos)) = *cursor else {
            return Ok(false);
        };
        let max = self
            .btree
            .walk_nodes_from(self.id, level, pos, |head, node| {
                let _ = write!(out, "{head}\n  {node}");
                Ok(ControlFlow::Break(node.max()))
            })
            .map_err(|e| e.errno())?;
        *cursor = match max {
            None => None,
            Some(max) => match max.successor() {
                Some(next) => Some((level, next)),
                None if level + 1 < BTREE_MAX_DEPTH => Some((level + 1, Bpos::POS_MIN)),
                None => None,
            },
        };
        Ok(max.is_some())
    }
}

/// The nodes in memory, one after the other, for a file in debugfs. Those that come and go meanwhile may be missed.
pub struct CacheFile(pub Arc<Btree>);

impl Records for CacheFile {
    type Cursor = usize;

    fn open(&self) -> kernel::error::Result<Self::Cursor> {
        Ok(0)
    }

    fn next(&self, cursor: &mut Self::Cursor, out: &mut Text) -> kernel::error::Result<bool> {
        let Some(node) = self.0.fill.cache.nth(*cursor) else {
            return Ok(false);
        };
        *cursor += 1;
        let _ = writeln!(out, "{}\n    {}", node.shared(), *node);
        Ok(true)
    }
}
