// SPDX-License-Identifier: GPL-2.0
//! What a write of a node has to do with the rest of the filesystem.

use crate::{
    btree::{node::Node, Btree},
    journal::engine::{Journal, Pin},
    util::error::{Error, Result},
};
use kernel::sync::Arc;

/// The journal that keeps what is not written, and who is told what has been.
pub(in crate::btree) trait Around: Send + Sync {
    /// Keeps entry `seq`. Does not sleep.
    fn pin(&self, pin: &Arc<Pin>, seq: u64);

    /// Keeps it no longer. Does not sleep.
    fn unpin(&self, pin: &Arc<Pin>);

    /// Whether the journal has failed.
    fn failed(&self) -> bool;

    /// Nothing must be written any more. Does not sleep.
    fn halt(&self, error: Error);

    /// See [`Btree::node_written`].
    fn written(&self, btree: &Btree, node: &Arc<Node>, sectors: u32, failed: &[u8]) -> Result;

    /// See [`Btree::new_node_written`].
    fn new_written(&self, btree: &Btree, node: &Arc<Node>, failed: &[u8]);
}

impl Around for Arc<Journal> {
    fn pin(&self, pin: &Arc<Pin>, seq: u64) {
        Journal::pin(self, pin, seq);
    }

    fn unpin(&self, pin: &Arc<Pin>) {
        Journal::unpin(self, pin);
    }

    fn failed(&self) -> bool {
        Journal::failed(self)
    }

    fn halt(&self, error: Error) {
        Journal::halt(self, error);
    }

    fn written(&self, btree: &Btree, node: &Arc<Node>, sectors: u32, failed: &[u8]) -> Result {
        btree.node_written(node, sectors, failed)
    }

    fn new_written(&self, btree: &Btree, node: &Arc<Node>, failed: &[u8]) {
        btree.new_node_written(node, failed);
    }
}
