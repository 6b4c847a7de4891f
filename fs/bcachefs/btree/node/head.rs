// SPDX-License-Identifier: GPL-2.0
//! What is known of a node without its lock.

use crate::util::error::Error;
use bcachefs_format::{bkey::BKEY_U64S, Bkey, Bpos, BtreeId, KeyRef};
use core::fmt;
use kernel::{
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed, Release},
        Completion, SetOnce,
    },
};

/// Words of the longest pointer to a node.
pub const PTR_U64S_MAX: usize = BKEY_U64S as usize + 9;

/// A copy of the key that points to a node.
#[derive(Copy, Clone)]
pub struct PtrKey {
    key: Bkey,
    value: [u64; PTR_U64S_MAX - BKEY_U64S as usize],
    len: u8,
}

impl PtrKey {
    /// Copies `k`. `None` if its value is longer than a pointer's can be.
    pub fn new(k: KeyRef<'_>) -> Option<Self> {
        let mut value = [0; PTR_U64S_MAX - BKEY_U64S as usize];
        value.get_mut(..k.value.len())?.copy_from_slice(k.value);
        Some(PtrKey {
            key: k.key,
            value,
            len: k.value.len() as u8,
        })
    }

    /// The key.
    pub fn get(&self) -> KeyRef<'_> {
        KeyRef {
            key: self.key,
            value: self.value.get(..usize::from(self.len)).unwrap_or(&[]),
        }
    }
}

/// A node's flags. Changed by atomic operations only.
#[derive(Copy, Clone, PartialEq, Eq)]
pub struct Flag(u32);

impl Flag {
    /// Its content is valid, or it has been found that it cannot be read.
    pub const READ_DONE: Flag = Flag(1 << 0);
    /// Used since eviction last looked.
    pub const ACCESSED: Flag = Flag(1 << 1);
    /// Must stay in memory: it is a root.
    pub const NOEVICT: Flag = Flag(1 << 2);
    /// Not in the cache any more: whoever finds it through an old reference has to look again.
    pub const DEAD: Flag = Flag(1 << 3);
    /// Stands in for the root of an empty btree; not on disk.
    pub const FAKE: Flag = Flag(1 << 4);
    /// Should be written anew when that is possible.
    pub const NEED_REWRITE: Flag = Flag(1 << 5);
    /// Has changes that are not written.
    pub const DIRTY: Flag = Flag(1 << 6);
    /// Is being written.
    pub const WRITE_IN_FLIGHT: Flag = Flag(1 << 7);
    /// New children are not durable yet.
    pub const WRITE_BLOCKED: Flag = Flag(1 << 8);
    /// New and not reachable yet.
    pub const WILL_MAKE_REACHABLE: Flag = Flag(1 << 9);

    const NAMES: [(Flag, &'static str); 10] = [
        (Flag::READ_DONE, "read_done"),
        (Flag::ACCESSED, "accessed"),
        (Flag::NOEVICT, "noevict"),
        (Flag::DEAD, "dead"),
        (Flag::FAKE, "fake"),
        (Flag::NEED_REWRITE, "need_rewrite"),
        (Flag::DIRTY, "dirty"),
        (Flag::WRITE_IN_FLIGHT, "write_in_flight"),
        (Flag::WRITE_BLOCKED, "write_blocked"),
        (Flag::WILL_MAKE_REACHABLE, "will_make_reachable"),
    ];
}

/// The part of a node that does not change while the node is in memory, flags apart.
#[pin_data]
pub struct NodeHead {
    /// The btree.
    pub btree: BtreeId,
    /// Level; 0 for leaves.
    pub level: u8,
    /// Key in the cache's table.
    pub hash: u64,
    /// The key that points to the node.
    pub ptr: PtrKey,
    flags: Atomic<u32>,
    /// Place in the list of the cache.
    pub place: Atomic<u32>,
    /// Memory of the keys, for accounting.
    pub bytes: Atomic<u64>,
    error: SetOnce<Error>,
    #[pin]
    read: Completion,
}

impl NodeHead {
    /// A head with `flags` as a start.
    pub fn new(
        btree: BtreeId,
        level: u8,
        hash: u64,
        ptr: PtrKey,
        flags: &[Flag],
    ) -> impl PinInit<Self> {
        let flags = flags.iter().fold(0, |a, f| a | f.0);
        pin_init!(Self {
            btree,
            level,
            hash,
            ptr,
            flags: Atomic::new(flags),
            place: Atomic::new(u32::MAX),
            bytes: Atomic::new(0),
            error: SetOnce::new(),
            read <- Completion::new(),
        })
    }

    /// Whether the flag is set.
    #[inline]
    pub fn has(&self, flag: Flag) -> bool {
        self.flags.load(Acquire) & flag.0 != 0
    }

    fn change(&self, f: impl Fn(u32) -> u32) -> u32 {
        let mut old = self.flags.load(Relaxed);
        loop {
            match self.flags.cmpxchg(old, f(old), Full) {
                Ok(_) => return old,
                Err(now) => old = now,
            }
        }
    }

    /// Sets the flag.
    pub fn set(&self, flag: Flag) {
        self.change(|v| v | flag.0);
    }

    /// Clears the flag; whether it was set.
    pub fn clear(&self, flag: Flag) -> bool {
        self.change(|v| v & !flag.0) & flag.0 != 0
    }

    /// Notes that the node has been used.
    #[inline]
    pub fn touch(&self) {
        if !self.has(Flag::ACCESSED) {
            self.set(Flag::ACCESSED);
        }
    }

    /// Ends the read, with an error if there was one, and wakes those who wait for it.
    pub fn finish_read(&self, result: Result<(), Error>) {
        if let Err(e) = result {
            self.error.populate(e);
        }
        self.set(Flag::READ_DONE);
        self.read.complete_all();
    }

    /// Waits for the read to end. May sleep; no lock of a node may be held.
    pub fn wait_read(&self) {
        self.read.wait_for_completion();
    }

    /// Why the node could not be read.
    #[inline]
    pub fn error(&self) -> Option<Error> {
        self.error.copy()
    }

    /// Highest position of the node, by its pointer.
    #[inline]
    pub fn max(&self) -> Bpos {
        self.ptr.get().key.pos
    }

    /// Numbers changes of `place`; used by the cache with its lock held.
    pub fn set_place(&self, place: u32) {
        self.place.store(place, Release);
    }
}

impl fmt::Display for NodeHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ptr = self.ptr.get();
        write!(f, "btree {} level {} {}", self.btree, self.level, ptr.key)?;
        let flags = self.flags.load(Relaxed);
        for (flag, name) in Flag::NAMES {
            if flags & flag.0 != 0 {
                write!(f, " {name}")?;
            }
        }
        if let Some(e) = self.error() {
            write!(f, " error: {e}")?;
        }
        Ok(())
    }
}
