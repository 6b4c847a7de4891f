// SPDX-License-Identifier: GPL-2.0
//! What is known of a node without its lock.

use super::mem::NodeMem;
use crate::{
    journal::engine::{Pin, PinKind},
    util::error::Error,
};
use bcachefs_format::{bkey::BKEY_U64S, keys::btree_ptr::BtreePtr, Bkey, Bpos, BtreeId, KeyRef};
use core::fmt;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed, Release},
        Arc, Completion, SetOnce, SpinLock,
    },
};
use kfs::sync::InlineAtomic;

/// No neighbour on that side.
const SIBLING_NONE: u32 = u32::MAX;
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

macro_rules! flags {
    ($($(#[$doc:meta])* $bit:literal $konst:ident $name:literal;)*) => {
        impl Flag {
            $($(#[$doc])* pub const $konst: Flag = Flag(1 << $bit);)*

            const NAMES: &'static [(Flag, &'static str)] = &[$((Flag::$konst, $name)),*];
        }
    };
}

impl Flag {
    /// As a number of one bit.
    pub(in crate::btree) const fn bits(self) -> u32 {
        self.0
    }

    /// Whether it is one of `flags`.
    pub(in crate::btree) const fn is_in(self, flags: u32) -> bool {
        flags & self.0 != 0
    }
}

flags! {
    /// Its content is valid, or it has been found that it cannot be read.
    0 READ_DONE "read_done";
    /// Used since eviction last looked.
    1 ACCESSED "accessed";
    /// Must stay in memory: it is a root, or its content could not be written.
    2 NOEVICT "noevict";
    /// Not in the cache any more: whoever finds it through an old reference has to look again.
    3 DEAD "dead";
    /// Stands in for the root of an empty btree; not on disk.
    4 FAKE "fake";
    /// Should be written anew when that is possible: nothing fits into it.
    5 NEED_REWRITE "need_rewrite";
    /// Has changes that are not written. Set with the lock held for write, cleared by who starts the write.
    6 DIRTY "dirty";
    /// Is being written: from the start until the pointer to it says so.
    7 WRITE_IN_FLIGHT "write_in_flight";
    /// New children are not durable yet.
    8 WRITE_BLOCKED "write_blocked";
    /// New and not reachable yet: only its first write is allowed.
    9 WILL_MAKE_REACHABLE "will_make_reachable";
    /// Is to be written as soon as that is allowed.
    10 NEED_WRITE "need_write";
    /// Is being written: from the start until the devices are done.
    11 WRITE_IN_FLIGHT_INNER "write_in_flight_inner";
    /// Which of the two pins is for changes made now.
    12 WRITE_SLOT "write_slot";
    /// After an error: must not reach the devices any more.
    13 NEVER_WRITE "never_write";
    /// Is being replaced by other nodes.
    14 DYING "dying";
    /// Is in the queue of nodes to be written.
    15 WRITE_QUEUED "write_queued";
    /// Is counted as dirty.
    16 COUNTED "counted";
}

/// A neighbour in the same parent.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Sibling {
    /// The one to the left.
    Prev,
    /// The one to the right.
    Next,
}

/// What of a node can be looked at without its lock.
#[pin_data]
pub struct NodeHead {
    /// The btree.
    pub btree: BtreeId,
    /// Level; 0 for leaves.
    pub level: u8,
    /// Key in the cache's table.
    pub hash: u64,
    /// Lowest position, if the pointer says so.
    min: Option<Bpos>,
    /// Highest position.
    max: Bpos,
    /// The key that points to the node.
    #[pin]
    ptr: SpinLock<PtrKey>,
    flags: Atomic<u32>,
    /// For each side an upper bound of the words that this node and that neighbour would have as one.
    siblings: [Atomic<u32>; 2],
    /// For changes of either parity of `WRITE_SLOT`.
    pins: SetOnce<[Arc<Pin>; 2]>,
    /// Memory for changes, got without the lock; see [`NodeHead::give`].
    #[pin]
    spare: SpinLock<Option<NodeMem>>,
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
    pub fn new<'a>(
        btree: BtreeId,
        level: u8,
        hash: u64,
        ptr: &'a PtrKey,
        flags: &[Flag],
    ) -> impl PinInit<Self> + use<'a> {
        let flags = flags.iter().fold(0, |a, f| a | f.0);
        let p = BtreePtr::parse(ptr.get()).ok();
        let min = p.and_then(|p| p.min_key);
        let max = ptr.get().key.pos;
        pin_init!(Self {
            btree,
            level,
            hash,
            min,
            max,
            ptr <- new_spinlock!(*ptr, "btree_node_ptr"),
            flags: Atomic::new(flags),
            siblings: [const { Atomic::new(SIBLING_NONE) }; 2],
            pins: SetOnce::new(),
            spare <- new_spinlock!(None, "btree_node_spare"),
            place: Atomic::new(u32::MAX),
            bytes: Atomic::new(0),
            error: SetOnce::new(),
            read <- Completion::new(),
        })
    }

    /// A copy of the key that points to the node. Any context.
    pub fn ptr(&self) -> PtrKey {
        *self.ptr.lock()
    }

    /// Notes that the key that points to the node has changed: sectors written, or copies. Range, and what the node is cached
    /// under, must be the same. Any context.
    pub fn set_ptr(&self, ptr: PtrKey) {
        *self.ptr.lock() = ptr;
    }

    /// Whether the flag is set.
    #[inline]
    pub fn has(&self, flag: Flag) -> bool {
        self.flags.read_acquire() & flag.0 != 0
    }

    fn change(&self, f: impl Fn(u32) -> u32) -> u32 {
        let mut old = self.flags.read();
        loop {
            match self.flags.cmpxchg(old, f(old), Full) {
                Ok(_) => return old,
                Err(now) => old = now,
            }
        }
    }

    /// All flags.
    pub(in crate::btree) fn flags(&self) -> u32 {
        self.flags.read_acquire()
    }

    /// One atomic step of the flags; what they are then.
    pub(in crate::btree) fn change_by(&self, f: impl Fn(u32) -> u32) -> u32 {
        f(self.change(&f))
    }

    /// One atomic step of the flags; what `f` refuses is left as it is.
    pub(in crate::btree) fn step<E>(&self, f: impl Fn(u32) -> Result<u32, E>) -> Result<u32, E> {
        let mut old = self.flags.read_acquire();
        loop {
            let new = f(old)?;
            match self.flags.cmpxchg(old, new, Full) {
                Ok(_) => return Ok(new),
                Err(now) => old = now,
            }
        }
    }

    /// Sets the flag; whether it was set.
    pub fn set(&self, flag: Flag) -> bool {
        self.change(|v| v | flag.0) & flag.0 != 0
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
        self.max
    }

    /// Lowest position of the node, if its pointer says so.
    #[inline]
    pub fn min(&self) -> Option<Bpos> {
        self.min
    }

    /// The pin of one slot. `None` before the node was prepared for changes.
    pub(in crate::btree) fn pin(&self, slot: bool) -> Option<&Arc<Pin>> {
        let [a, b] = self.pins.as_ref()?;
        Some(if slot { b } else { a })
    }

    /// Both pins, for who takes them over when the node is replaced. `None` if it never was dirty.
    pub fn pins(&self) -> Option<&[Arc<Pin>; 2]> {
        self.pins.as_ref()
    }

    /// Makes the pins, which changes need. Allocates with `flags`.
    pub(in crate::btree) fn make_pins(&self, flags: kernel::alloc::Flags) -> Result<(), Error> {
        if self.pins.as_ref().is_none() {
            let new = || Pin::new(PinKind::Btree, self.hash, flags);
            // Somebody else may have been quicker.
            self.pins.populate([new()?, new()?]);
        }
        Ok(())
    }

    /// Puts memory aside for [`super::NodeData::prepare`], which takes it. Does not sleep; drops what was put aside before.
    pub fn give(&self, mem: NodeMem) {
        let old = self.spare.lock().replace(mem);
        drop(old);
    }

    /// Takes what was put aside.
    pub(super) fn take_spare(&self) -> Option<NodeMem> {
        self.spare.lock().take()
    }

    /// An upper bound of the words that this node and its neighbour would have as one node; `None` if it has no such neighbour in
    /// its parent.
    pub fn sibling(&self, side: Sibling) -> Option<u32> {
        let n = self.sibling_place(side).read();
        (n != SIBLING_NONE).then_some(n)
    }

    /// Sets [`NodeHead::sibling`].
    pub fn set_sibling(&self, side: Sibling, u64s: Option<u32>) {
        self.sibling_place(side).store(u64s.unwrap_or(SIBLING_NONE), Relaxed);
    }

    /// Lowers both bounds by `u64s` words, which have gone. The lock must be held for write.
    pub fn shrunk(&self, u64s: u32) {
        for side in [Sibling::Prev, Sibling::Next] {
            if let Some(n) = self.sibling(side) {
                self.set_sibling(side, Some(n.saturating_sub(u64s)));
            }
        }
    }

    fn sibling_place(&self, side: Sibling) -> &Atomic<u32> {
        let [prev, next] = &self.siblings;
        match side {
            Sibling::Prev => prev,
            Sibling::Next => next,
        }
    }

    /// Numbers changes of `place`; used by the cache with its lock held.
    pub fn set_place(&self, place: u32) {
        self.place.store(place, Release);
    }
}

impl fmt::Display for NodeHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ptr = self.ptr();
        write!(f, "btree {} level {} {}", self.btree, self.level, ptr.get().key)?;
        let flags = self.flags.read();
        for &(flag, name) in Flag::NAMES {
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
