// SPDX-License-Identifier: GPL-2.0

//! Runs of folios of the page cache that wait for their data.

use super::Destination;
use crate::{
    bindings,
    block::{PageSpan, Segment},
};
use core::{mem::ManuallyDrop, ptr::NonNull};
use kernel::{
    page::{PAGE_SHIFT, PAGE_SIZE},
    error::to_result,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Arc, Completion,
    },
};

/// A part of a folio.
///
/// # Invariants
///
/// The folio is locked and in the page cache, and waits for `iomap_finish_folio_read` for the bytes from
/// `offset` on, `length` of them, until the run that owns them has called it; or whoever has it locked waits for the run.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    folio: NonNull<bindings::folio>,
    /// Where in the folio.
    offset: usize,
    length: usize,
    /// Where in the run it was gathered for.
    start: usize,
}

// SAFETY: A locked folio may be filled and finished by any thread.
unsafe impl Send for Piece {}
// SAFETY: As above.
unsafe impl Sync for Piece {}

/// The pieces of a run, in order and without gaps.
#[derive(Clone)]
enum Pieces {
    One(Piece),
    Many(Arc<KVec<Piece>>),
}

impl Pieces {
    fn as_slice(&self) -> &[Piece] {
        match self {
            Self::One(piece) => core::slice::from_ref(piece),
            Self::Many(pieces) => pieces,
        }
    }
}

/// A contiguous range of a file, in the page cache, that is to be filled; see [`Destination`].
///
/// The memory holds whatever it held before: every byte must be written before the run is finished with success.
///
/// # Invariants
///
/// The run owns the bytes from `start` on, `length` of them, of `pieces`: it alone finishes them, and nobody else reads or writes them before.
pub struct FolioRun {
    pieces: Pieces,
    start: usize,
    length: usize,
    /// In the file, of the first byte that is owned.
    position: u64,
    block_bits: u8,
    /// Who waits, if not those who wait for the folios.
    reader: Option<Arc<Reader>>,
}

/// A read into a folio that its reader has locked, and waits for.
///
/// # Invariants
///
/// `left` is the number of runs that are not finished.
#[pin_data]
struct Reader {
    left: Atomic<i32>,
    /// The first error, as negative errno, or 0.
    error: Atomic<i32>,
    #[pin]
    done: Completion,
}

/// The reader's side of a read that is waited for.
pub(super) struct SyncRead(Arc<Reader>);

impl SyncRead {
    /// Of one run, to be made with [`FolioRun::single`]. May sleep.
    pub(super) fn new() -> Result<Self> {
        let reader = pin_init!(Reader {
            left: Atomic::new(1),
            error: Atomic::new(0),
            done <- Completion::new(),
        });
        Ok(Self(Arc::pin_init(reader, GFP_KERNEL)?))
    }

    /// Waits until all of the run has been finished. Sleeps.
    pub(super) fn wait(self) -> Result {
        self.0.done.wait_for_completion();
        to_result(self.0.error.load(Relaxed))
    }
}

impl Reader {
    fn finish(&self, result: Result) {
        if let Err(error) = result {
            let _ = self.error.cmpxchg(0, error.to_errno(), Relaxed);
        }
        if self.left.fetch_sub(1, Full) == 1 {
            self.done.complete_all();
        }
    }
}

impl FolioRun {
    /// The bytes from `offset` on of a folio, `length` of them, which are at `position` in the file.
    ///
    /// # Safety
    ///
    /// The folio must be locked, in the page cache and not up to date there, and stay so until `read` says that all has been
    /// finished; it must be of a file with blocks of `1 << block_bits` bytes. No other run is made with `read`.
    pub(super) unsafe fn single(
        folio: NonNull<bindings::folio>,
        offset: usize,
        length: usize,
        position: u64,
        block_bits: u8,
        read: &SyncRead,
    ) -> Self {
        // INVARIANT: By the contract. It is not iomap that waits.
        Self {
            pieces: Pieces::One(Piece { folio, offset, length, start: 0 }),
            start: 0,
            length,
            position,
            block_bits,
            reader: Some(read.0.clone()),
        }
    }

    /// The range is inside, and not empty.
    fn check(&self, offset: usize, length: usize) -> Result {
        match offset.checked_add(length) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(EINVAL),
        }
    }

    /// Calls `f` with the folio, the offset in it and the length of each part of a range.
    fn each(&self, offset: usize, length: usize, mut f: impl FnMut(&Piece, usize, usize)) {
        let mut at = self.start + offset;
        let end = at + length;
        let pieces = self.pieces.as_slice();
        let first = pieces.partition_point(|piece| piece.start + piece.length <= at);
        for piece in pieces.iter().skip(first) {
            if at >= end {
                break;
            }
            let within = at - piece.start;
            let take = (piece.length - within).min(end - at);
            f(piece, piece.offset + within, take);
            at += take;
        }
    }

    /// Ends the read for all that is owned. Once.
    fn complete(&self, result: Result) {
        if let Some(reader) = &self.reader {
            return reader.finish(result);
        }
        let status = result.map_or_else(|error| error.to_errno(), |()| 0);
        self.each(0, self.length, |piece, offset, length| {
            // SAFETY: By the type invariants these bytes are waited for and ours.
            unsafe {
                bindings::iomap_finish_folio_read(piece.folio.as_ptr(), offset, length, status)
            };
        });
    }
}

// SAFETY: The memory is part of locked folios of the page cache, which stay until they are finished, that is, until the value is gone.
unsafe impl PageSpan for FolioRun {
    fn span_len(&self) -> usize {
        self.length
    }

    fn segment(&self, offset: usize) -> Option<Segment> {
        let rest = self.length.checked_sub(offset)?;
        let mut segment = None;
        self.each(offset, rest, |piece, offset, length| {
            if segment.is_some() {
                return;
            }
            // SAFETY: The offset is inside the folio, whose pages are contiguous.
            segment = unsafe {
                let page = bindings::kfs_folio_page(piece.folio.as_ptr(), offset >> PAGE_SHIFT);
                NonNull::new(page).map(|page| Segment::new(page, offset % PAGE_SIZE, length))
            };
        });
        segment
    }
}

impl Destination for FolioRun {
    fn position(&self) -> u64 {
        self.position
    }

    fn copy_in(&mut self, offset: usize, data: &[u8]) -> Result {
        self.check(offset, data.len())?;
        let mut rest = data;
        self.each(offset, data.len(), |piece, offset, length| {
            let (part, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            // SAFETY: By the type invariants these bytes of the folio are ours; they do not overlap with `data`, which
            // nobody else may write.
            unsafe {
                bindings::kfs_memcpy_to_folio(
                    piece.folio.as_ptr(),
                    offset,
                    part.as_ptr().cast(),
                    part.len(),
                )
            };
        });
        Ok(())
    }

    fn zero(&mut self, offset: usize, length: usize) -> Result {
        self.check(offset, length)?;
        self.each(offset, length, |piece, offset, length| {
            // SAFETY: By the type invariants these bytes of the folio are ours.
            unsafe { bindings::kfs_folio_zero_range(piece.folio.as_ptr(), offset, length) };
        });
        Ok(())
    }

    fn inspect(&self, offset: usize, length: usize, f: &mut dyn FnMut(&[u8])) -> Result {
        self.check(offset, length)?;
        self.each(offset, length, |piece, offset, length| {
            let mut done = 0;
            while done < length {
                let at = offset + done;
                let take = (PAGE_SIZE - at % PAGE_SIZE).min(length - done);
                // SAFETY: A mapping reaches to the end of its page. By the type invariants these bytes are ours, so that nobody
                // writes them during the call. Memory of the page cache has some value, whoever wrote it.
                unsafe {
                    let mapped = bindings::kfs_kmap_local_folio(piece.folio.as_ptr(), at);
                    f(core::slice::from_raw_parts(mapped.cast::<u8>(), take));
                    bindings::kfs_kunmap_local(mapped);
                }
                done += take;
            }
        });
        Ok(())
    }

    fn split_to(&mut self, length: usize) -> Result<Self> {
        if length == 0 || length >= self.length {
            return Err(EINVAL);
        }
        let block = 1_u64 << self.block_bits;
        // OVERFLOW: Inside a range of a file, which ends in bounds.
        let middle = self.position + length as u64;
        // A block is finished as a whole; and so is a folio that has only one.
        if middle % block != 0 {
            return Err(EINVAL);
        }
        let front = Self {
            pieces: self.pieces.clone(),
            start: self.start,
            length,
            position: self.position,
            block_bits: self.block_bits,
            reader: self.reader.clone(),
        };
        if let Some(reader) = &self.reader {
            reader.left.add(1, Relaxed);
        }
        self.start += length;
        self.length -= length;
        self.position = middle;
        Ok(front)
    }

    fn finish(self, result: Result) {
        let mut this = ManuallyDrop::new(self);
        this.complete(result);
        // SAFETY: Dropped once; the rest of the fields have nothing to drop.
        unsafe {
            core::ptr::drop_in_place(&mut this.pieces);
            core::ptr::drop_in_place(&mut this.reader);
        }
    }
}

impl Drop for FolioRun {
    fn drop(&mut self) {
        self.complete(Err(EIO));
    }
}

/// Most bytes in a run, so that the first is not kept waiting for the last.
const MAX_RUN: usize = 1 << 20;

/// A run that is being gathered, while iomap goes through the folios of a readahead. Folios are locked then: only to be used
/// inside a [`NofsScope`](crate::mem::NofsScope).
pub(super) struct Gathering {
    first: Option<Piece>,
    more: KVec<Piece>,
    length: usize,
    position: u64,
    block_bits: u8,
}

impl Gathering {
    pub(super) const fn new() -> Self {
        Self { first: None, more: KVec::new(), length: 0, position: 0, block_bits: 0 }
    }

    /// Adds a part of a folio, unless it does not fit: then the run so far is to be taken first.
    ///
    /// # Safety
    ///
    /// The part must begin to wait for `iomap_finish_folio_read` when this returns `true`; `position` must be where it is in the file, and `block_bits`
    /// belong to that file, which is the same one for all calls.
    pub(super) unsafe fn add(
        &mut self,
        folio: NonNull<bindings::folio>,
        offset: usize,
        length: usize,
        position: u64,
        block_bits: u8,
    ) -> bool {
        let piece = Piece { folio, offset, length, start: self.length };
        if self.first.is_none() {
            self.first = Some(piece);
            self.length = length;
            self.position = position;
            self.block_bits = block_bits;
            return true;
        }
        let contiguous = self.position + self.length as u64 == position;
        if !contiguous || self.length >= MAX_RUN {
            return false;
        }
        // Without memory for a longer run there are more short ones.
        if self.more.push(piece, GFP_KERNEL).is_err() {
            return false;
        }
        self.length += length;
        true
    }

    /// Takes what was gathered: one run, or without memory for it one for each piece.
    pub(super) fn take(&mut self, mut f: impl FnMut(FolioRun)) {
        let Some(first) = self.first.take() else {
            return;
        };
        let more = core::mem::replace(&mut self.more, KVec::new());
        let length = core::mem::replace(&mut self.length, 0);
        let (position, block_bits) = (self.position, self.block_bits);
        // INVARIANT: Each piece goes to one run.
        let mut one = |piece: Piece| {
            f(FolioRun {
                position: position + piece.start as u64,
                start: piece.start,
                length: piece.length,
                pieces: Pieces::One(piece),
                block_bits,
                reader: None,
            })
        };
        if more.is_empty() {
            return one(first);
        }
        match Self::share(first, &more) {
            Ok(pieces) => {
                let reader = None;
                f(FolioRun { pieces, start: 0, length, position, block_bits, reader })
            }
            Err(_) => {
                one(first);
                more.iter().for_each(|piece| one(*piece));
            }
        }
    }

    fn share(first: Piece, more: &[Piece]) -> Result<Pieces> {
        let mut pieces = KVec::with_capacity(more.len() + 1, GFP_KERNEL)?;
        pieces.push(first, GFP_KERNEL)?;
        pieces.extend_from_slice(more, GFP_KERNEL)?;
        Ok(Pieces::Many(Arc::new(pieces, GFP_KERNEL)?))
    }
}
