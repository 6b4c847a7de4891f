// SPDX-License-Identifier: GPL-2.0
//! The newest key of an inode that is in use.
//!
//! What a transaction makes of a key is put here after the commit. Commits of one inode follow each other under the lock of its key's
//! node, but what they have to put here may overtake. So each transaction draws a number ([`State::draw`]) while it holds
//! that lock, from the first look at the key to the commit: the numbers are in the order of the commits, and
//! what has a lower number than what is here is old.

use bcachefs_format::keys::inode::Inode;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, SpinLock,
    },
};

/// See the description of the module.
#[pin_data]
pub struct State {
    drawn: Atomic<u64>,
    /// The newest journal entry that changed the inode.
    seq: Atomic<u64>,
    #[pin]
    newest: SpinLock<Newest>,
}

struct Newest {
    key: Inode,
    number: u64,
}

/// A key that a transaction puts in place, and its number.
#[derive(Copy, Clone, Debug)]
pub struct Changed {
    /// The key.
    pub key: Inode,
    /// Its place in the order of changes; 0 if the inode is not in use.
    pub number: u64,
}

impl State {
    /// For an inode whose key is `key`.
    pub fn new(key: &Inode) -> Result<Arc<Self>, crate::util::error::Error> {
        let key = *key;
        let state = pin_init!(State {
            drawn: Atomic::new(0),
            seq: Atomic::new(key.journal_seq),
            newest <- new_spinlock!(Newest { key, number: 0 }, "inode_state"),
        });
        Ok(Arc::pin_init(state, GFP_KERNEL)?)
    }

    /// For an inode that was made after this: what it has become, in journal entry `seq`. Nobody else knows it yet.
    pub fn made(&self, key: &Inode, seq: u64) {
        let mut newest = self.newest.lock();
        newest.key = *key;
        newest.key.journal_seq = seq;
        self.seq.store(seq, Relaxed);
    }

    /// The key.
    pub fn key(&self) -> Inode {
        self.newest.lock().key
    }

    /// The newest journal entry that changed the inode: when it is durable, the inode is. An inode that came from disk
    /// begins with the one that is noted there.
    pub fn journal_seq(&self) -> u64 {
        self.seq.load(Relaxed)
    }

    /// A number for a change that has begun: its key is locked for intent, and will be until the commit.
    pub fn draw(&self) -> u64 {
        self.drawn.fetch_add(1, Relaxed) + 1
    }

    /// After a commit, as journal entry `seq`: `changed` is the key now, unless a newer one is here already. `then` gets the newest
    /// one, under a spinlock: what it derives from the key is never older than what is here.
    pub fn committed(&self, changed: &Changed, seq: u64, then: impl FnOnce(&Inode)) {
        let mut newest = self.newest.lock();
        if changed.number > newest.number {
            newest.key = changed.key;
            newest.number = changed.number;
        }
        if seq > self.seq.load(Relaxed) {
            newest.key.journal_seq = seq;
            self.seq.store(seq, Relaxed);
        }
        then(&newest.key);
    }
}

#[kernel::macros::kunit_tests(bcachefs_fs_inode_state)]
mod tests {
    use super::*;

    #[test]
    fn late_news_are_not_news() {
        let state = State::new(&Inode { journal_seq: 3, ..Inode::default() }).unwrap();
        let (first, second) = (state.draw(), state.draw());
        let changed = |size, number| Changed { key: Inode { size, ..Inode::default() }, number };
        state.committed(&changed(20, second), 5, |key| assert!(key.size == 20));
        state.committed(&changed(10, first), 5, |key| assert!(key.size == 20));
        assert!(state.key().size == 20);
        assert!(state.journal_seq() == 5);
        state.committed(&changed(0, 0), 4, |_| ());
        assert!(state.journal_seq() == 5 && state.key().size == 20);
    }
}
