// SPDX-License-Identifier: GPL-2.0
//! Space promised for the blocks of a file that are dirty in memory.
//!
//! A block is *pending* from the moment at which space is promised for it until what was written back is in the btrees; so whoever looks at the layout
//! of a file sees that the btrees are not all there is. The space is taken when the block's writing back begins. A block may be promised
//! anew while it is being written.
//!
//! Locking: a mutex, under which nothing is allocated. It is taken with folios locked.

use core::ops::Range;

use kernel::{
    new_mutex,
    prelude::*,
    rbtree::{RBTree, RBTreeNodeReservation},
    sync::Mutex,
};
use kfs::mem::insist;

use crate::{
    btree::space::DiskReservation,
    util::error::Result,
};

/// Words of a bitmap of a chunk.
const WORDS: usize = 4;
/// Blocks of a chunk.
const CHUNK: u64 = 64 * WORDS as u64;

/// A bit for each block of a chunk.
type Bitmap = [u64; WORDS];

/// Some blocks of which at least one is pending.
#[derive(Copy, Clone, Default)]
struct Chunk {
    /// Space has been promised.
    promised: Bitmap,
    /// Of those, the ones that need none, as the file has space there already.
    free: Bitmap,
    /// Being written back.
    writing: Bitmap,
    /// Copies that were promised, at most.
    replicas: u8,
}

/// See the description of the module.
#[pin_data]
pub struct Promises {
    #[pin]
    state: Mutex<State>,
}

struct State {
    chunks: RBTree<u64, Chunk>,
    /// All that was promised.
    held: DiskReservation,
}

/// Bit `i` of a bitmap, as a mask of the word it is in.
fn word(map: &mut Bitmap, i: u64) -> Option<(&mut u64, u64)> {
    let at = usize::try_from(i / 64).ok()?;
    Some((map.get_mut(at)?, 1 << (i % 64)))
}

fn has(map: &Bitmap, i: u64) -> bool {
    let at = usize::try_from(i / 64).unwrap_or(WORDS);
    map.get(at).is_some_and(|w| w >> (i % 64) & 1 != 0)
}

/// Sets bit `i`; whether it was clear.
fn set(map: &mut Bitmap, i: u64) -> bool {
    match word(map, i) {
        Some((w, mask)) => {
            let was = *w & mask != 0;
            *w |= mask;
            !was
        }
        None => false,
    }
}

/// Clears bit `i`; whether it was set.
fn clear(map: &mut Bitmap, i: u64) -> bool {
    match word(map, i) {
        Some((w, mask)) => {
            let was = *w & mask != 0;
            *w &= !mask;
            was
        }
        None => false,
    }
}

impl Chunk {
    fn is_pending(&self, i: u64) -> bool {
        has(&self.promised, i) || has(&self.writing, i)
    }

    fn is_empty(&self) -> bool {
        self.promised == Bitmap::default() && self.writing == Bitmap::default()
    }
}

/// The parts of `blocks` chunk by chunk: its number, and which of its blocks.
fn chunks(blocks: Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> {
    let Range { mut start, end } = blocks;
    core::iter::from_fn(move || {
        if start >= end {
            return None;
        }
        let chunk = start / CHUNK;
        let from = start % CHUNK;
        let to = (end - chunk * CHUNK).min(CHUNK);
        start = chunk.saturating_add(1).saturating_mul(CHUNK);
        Some((chunk, from..to))
    })
}

/// What is promised for a block.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Sectors of a block.
    pub sectors: u64,
    /// Copies.
    pub replicas: u8,
}

impl Terms {
    fn space(&self, blocks: u64, replicas: u8) -> u64 {
        blocks.saturating_mul(self.sectors).saturating_mul(replicas.into())
    }
}

impl Promises {
    /// None.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            state <- new_mutex!(
                State { chunks: RBTree::new(), held: DiskReservation::none() },
                "bcachefs_promises"
            ),
        })
    }

    /// Promises space for `blocks`, where it has not been, with what `reserve` gives. Those of which `has_space` says so need none. May sleep.
    ///
    /// # Errors
    ///
    /// What `reserve` says: then nothing was promised.
    pub fn promise(
        &self,
        blocks: Range<u64>,
        terms: Terms,
        reserve: &mut dyn FnMut(u64) -> Result<DiskReservation>,
        has_space: &dyn Fn(u64) -> bool,
    ) -> Result {
        // Nodes first: under the mutex nothing is allocated.
        for (number, _) in chunks(blocks.clone()) {
            if self.state.lock().chunks.get(&number).is_some() {
                continue;
            }
            let node = insist(|| {
                RBTreeNodeReservation::new(GFP_KERNEL).map_err(|_| kernel::alloc::AllocError)
            });
            let mut state = self.state.lock();
            if state.chunks.get(&number).is_none() {
                let none = state.chunks.insert(node.into_node(number, Chunk::default()));
                drop(none);
            }
        }
        let mut got = DiskReservation::none();
        let result = loop {
            let mut state = self.state.lock();
            let need = state.needed(blocks.clone(), terms, has_space);
            if need <= got.sectors {
                let taken = got.split(need);
                state.held.join(taken);
                state.mark(blocks.clone(), terms, has_space);
                break Ok(());
            }
            drop(state);
            match reserve(need - got.sectors) {
                Ok(more) => got.join(more),
                Err(e) => break Err(e),
            }
        };
        if result.is_err() {
            self.state.lock().drop_empty(blocks);
        }
        result
    }

    /// Gives back what was promised for `blocks`: none of them is dirty. May sleep for the mutex.
    pub fn give_back(&self, blocks: Range<u64>, terms: Terms) {
        let mut state = self.state.lock();
        // The range may be all of the rest of the file: as far as there is something.
        let last = state.chunks.cursor_back().map(|c| *c.current().0);
        let Some(last) = last else { return };
        let end = last.saturating_add(1).saturating_mul(CHUNK);
        let blocks = blocks.start..blocks.end.min(end);
        let space = state.withdraw(blocks.clone(), terms, false);
        drop(state.held.split(space));
        state.drop_empty(blocks);
    }

    /// Writing `blocks` back begins: the space that was promised for them, and how much is missing because they became dirty without
    /// a promise. May sleep for the mutex.
    pub fn begin_write(&self, blocks: Range<u64>, terms: Terms) -> (DiskReservation, u64) {
        let mut state = self.state.lock();
        let count = blocks.end.saturating_sub(blocks.start);
        let before = state.count_promised(blocks.clone());
        let space = state.withdraw(blocks, terms, true);
        let missing = terms.space(count.saturating_sub(before), terms.replicas);
        (state.held.split(space), missing)
    }

    /// What was written back of `blocks` is in the btrees, or lost. May sleep for the mutex.
    pub fn end_write(&self, blocks: Range<u64>) {
        let mut state = self.state.lock();
        for (number, part) in chunks(blocks.clone()) {
            if let Some(chunk) = state.chunks.get_mut(&number) {
                for i in part {
                    clear(&mut chunk.writing, i);
                }
            }
        }
        state.drop_empty(blocks);
    }

    /// Whether `block` is pending, and for how many blocks that is so, of `most`. May sleep for the mutex.
    pub fn look(&self, block: u64, most: u64) -> (bool, u64) {
        let state = self.state.lock();
        let pending = |b: u64| {
            let chunk = state.chunks.get(&(b / CHUNK));
            chunk.map(|c| c.is_pending(b % CHUNK))
        };
        let first = pending(block).unwrap_or(false);
        let end = block.saturating_add(most.max(1));
        let mut at = block;
        while at < end {
            match pending(at) {
                Some(p) if p == first => at += 1,
                None if !first => {
                    // On to the next chunk there is.
                    let next = state.chunks.cursor_lower_bound(&(at / CHUNK));
                    let next = next.map_or(end, |c| c.current().0.saturating_mul(CHUNK));
                    at = next.max(at + 1);
                }
                _ => break,
            }
        }
        (first, at.min(end) - block)
    }
}

impl State {
    /// Space that is missing for a promise.
    fn needed(&self, blocks: Range<u64>, terms: Terms, has_space: &dyn Fn(u64) -> bool) -> u64 {
        let mut space = 0;
        for (number, part) in chunks(blocks) {
            let Some(chunk) = self.chunks.get(&number) else {
                continue;
            };
            let more = terms.replicas.saturating_sub(chunk.replicas);
            if more != 0 {
                // Those that were promised fewer copies get more.
                let paid = (0..CHUNK).filter(|i| has(&chunk.promised, *i) && !has(&chunk.free, *i));
                space += terms.space(paid.count() as u64, more);
            }
            let replicas = chunk.replicas.max(terms.replicas);
            let new = part.filter(|i| {
                !has(&chunk.promised, *i) && !has_space(number * CHUNK + i)
            });
            space += terms.space(new.count() as u64, replicas);
        }
        space
    }

    fn mark(&mut self, blocks: Range<u64>, terms: Terms, has_space: &dyn Fn(u64) -> bool) {
        for (number, part) in chunks(blocks) {
            let Some(chunk) = self.chunks.get_mut(&number) else {
                continue;
            };
            chunk.replicas = chunk.replicas.max(terms.replicas);
            for i in part {
                if set(&mut chunk.promised, i) && has_space(number * CHUNK + i) {
                    set(&mut chunk.free, i);
                }
            }
        }
    }

    fn count_promised(&self, blocks: Range<u64>) -> u64 {
        let mut count = 0;
        for (number, part) in chunks(blocks) {
            if let Some(chunk) = self.chunks.get(&number) {
                count += part.filter(|i| has(&chunk.promised, *i)).count() as u64;
            }
        }
        count
    }

    /// Takes back the promises of `blocks`, which are `written` now; the space they stand for.
    fn withdraw(&mut self, blocks: Range<u64>, terms: Terms, written: bool) -> u64 {
        let mut space = 0;
        for (number, part) in chunks(blocks) {
            let Some(chunk) = self.chunks.get_mut(&number) else {
                continue;
            };
            for i in part {
                let free = clear(&mut chunk.free, i);
                if clear(&mut chunk.promised, i) && !free {
                    space += terms.space(1, chunk.replicas);
                }
                if written {
                    set(&mut chunk.writing, i);
                }
            }
        }
        space
    }

    /// Chunks that say nothing any more go.
    fn drop_empty(&mut self, blocks: Range<u64>) {
        for (number, _) in chunks(blocks) {
            if self.chunks.get(&number).is_some_and(Chunk::is_empty) {
                self.chunks.remove(&number);
            }
        }
    }
}

#[kernel::macros::kunit_tests(bcachefs_promises)]
mod tests {
    use super::*;
    use crate::util::error::Error;

    const TERMS: Terms = Terms { sectors: 8, replicas: 2 };

    fn promises() -> kernel::error::Result<Pin<KBox<Promises>>> {
        KBox::pin_init(Promises::new(), GFP_KERNEL)
    }

    /// What `promise` asks for, in blocks of one copy.
    fn asked(p: &Promises, blocks: Range<u64>, terms: Terms) -> u64 {
        let mut sum = 0;
        let done = p.promise(
            blocks,
            terms,
            &mut |sectors| {
                sum += sectors;
                let mut r = DiskReservation::none();
                r.sectors = sectors;
                Ok(r)
            },
            &|_| false,
        );
        assert!(done.is_ok());
        sum / 8
    }

    #[test]
    fn each_block_once() -> kernel::error::Result {
        let p = promises()?;
        assert_eq!(asked(&p, 10..20, TERMS), 20);
        assert_eq!(asked(&p, 15..25, TERMS), 10);
        assert_eq!(asked(&p, 250..600, TERMS), 700);
        assert_eq!(p.look(0, 1000), (false, 10));
        assert_eq!(p.look(12, 1000), (true, 13));
        assert_eq!(p.look(25, 1000), (false, 225));
        assert_eq!(p.look(250, 1000), (true, 350));
        assert_eq!(p.look(600, 50), (false, 50));
        // One copy more, for the whole chunk.
        let three = Terms { replicas: 3, ..TERMS };
        assert_eq!(asked(&p, 24..26, three), 15 + 6 + 3);
        p.give_back(0..u64::MAX, TERMS);
        assert_eq!(p.look(0, 700), (false, 700));
        assert_eq!(p.state.lock().held.sectors, 0);
        assert!(p.state.lock().chunks.is_empty());
        Ok(())
    }

    #[test]
    fn writing_takes_and_stays_pending() -> kernel::error::Result {
        let p = promises()?;
        assert_eq!(asked(&p, 0..10, TERMS), 20);
        let (r, missing) = p.begin_write(5..12, TERMS);
        assert_eq!((r.sectors, missing), (5 * 16, 2 * 16));
        assert_eq!(p.look(0, 100), (true, 12));
        // Dirty again meanwhile.
        assert_eq!(asked(&p, 6..7, TERMS), 2);
        p.end_write(5..12);
        assert_eq!(p.look(0, 100), (true, 5));
        assert_eq!(p.look(5, 100), (false, 1));
        assert_eq!(p.look(6, 100), (true, 1));
        p.give_back(0..12, TERMS);
        assert_eq!(p.state.lock().held.sectors, 0);
        assert!(p.state.lock().chunks.is_empty());
        Ok(())
    }

    #[test]
    fn shortage_leaves_nothing() -> kernel::error::Result {
        let p = promises()?;
        let full = p.promise(0..10, TERMS, &mut |_| Err(Error::NoSpace), &|_| false);
        assert_eq!(full, Err(Error::NoSpace));
        assert!(p.state.lock().chunks.is_empty());
        // Blocks that have space need none.
        let done = p.promise(0..10, TERMS, &mut |_| Err(Error::NoSpace), &|b| b < 10);
        assert_eq!(done, Ok(()));
        let (r, missing) = p.begin_write(0..10, TERMS);
        assert_eq!((r.sectors, missing), (0, 0));
        p.end_write(0..10);
        assert!(p.state.lock().chunks.is_empty());
        Ok(())
    }
}
