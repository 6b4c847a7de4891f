// SPDX-License-Identifier: GPL-2.0

//! Runs of folios of the page cache that are being written back.

use crate::{
    bindings,
    block::{PageSpan, Segment},
    mem::insist,
    vfs::{filesystem::FileSystem, inode::Inode},
};
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, UniqueArc,
    },
};

/// A part of a folio.
#[derive(Clone, Copy)]
struct Piece {
    folio: NonNull<bindings::folio>,
    /// Where in the folio.
    offset: usize,
    length: usize,
    /// Where in the run it was gathered for.
    start: usize,
}

/// What a run was gathered from.
///
/// # Invariants
///
/// Each piece is a part of a folio that is under writeback, which waits for `iomap_finish_folio_write` for those bytes until the
/// run that owns them has called it. The folios belong to `inode`, which is there as long as one of them is.
pub(super) struct Record {
    inode: NonNull<bindings::inode>,
    /// In order and without gaps.
    pieces: KVec<Piece>,
    /// Where the file ended, if that is before the end of the last piece.
    file_end: u64,
}

// SAFETY: Folios under writeback may be read and finished by any thread.
unsafe impl Send for Record {}
// SAFETY: As above.
unsafe impl Sync for Record {}

impl Record {
    /// Calls `f` with the folio, the offset in it and the length of each part of a range.
    fn each(&self, at: usize, length: usize, mut f: impl FnMut(&Piece, usize, usize)) {
        let (mut at, end) = (at, at + length);
        let first = self.pieces.partition_point(|piece| piece.start + piece.length <= at);
        for piece in self.pieces.iter().skip(first) {
            if at >= end {
                break;
            }
            let within = at - piece.start;
            let take = (piece.length - within).min(end - at);
            f(piece, piece.offset + within, take);
            at += take;
        }
    }

    fn segment(&self, at: usize, rest: usize) -> Option<Segment> {
        let mut segment = None;
        self.each(at, rest, |piece, offset, length| {
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

/// A part of a record, to be finished when nobody refers to it any more.
///
/// # Invariants
///
/// The part owns the bytes from `start` on, `length` of them, of `record`: it alone finishes them.
struct Part {
    record: Arc<Record>,
    start: Atomic<usize>,
    length: Atomic<usize>,
    /// How the writing back ends, as negative errno, or 0.
    outcome: Atomic<i32>,
}

impl Part {
    /// Sleeps until there is memory.
    ///
    /// # Safety
    ///
    /// The range must be inside of `record`, and nobody else's to finish.
    unsafe fn new(record: Arc<Record>, start: usize, length: usize) -> Arc<Self> {
        let memory = insist(|| UniqueArc::new_uninit(GFP_KERNEL));
        // INVARIANT: By the contract.
        let part = Self {
            record,
            start: Atomic::new(start),
            length: Atomic::new(length),
            outcome: Atomic::new(EIO.to_errno()),
        };
        memory.write(part).into()
    }

    fn start(&self) -> usize {
        self.start.load(Relaxed)
    }

    fn length(&self) -> usize {
        self.length.load(Relaxed)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let inode = self.record.inode.as_ptr();
        let outcome = self.outcome.load(Relaxed);
        if outcome != 0 {
            // SAFETY: By the record's invariants: its bytes are not finished yet.
            unsafe { bindings::kfs_mapping_set_error(inode, outcome) };
        }
        self.record.each(self.start(), self.length(), |piece, _, length| {
            // SAFETY: By the type invariants these bytes are waited for and ours. The inode is there until the last of them is finished.
            unsafe { bindings::iomap_finish_folio_write(inode, piece.folio.as_ptr(), length) };
        });
    }
}

/// A contiguous range of a file of a filesystem `T`, whole blocks in the page cache, that is to be written back.
///
/// Nobody changes the bytes meanwhile. When it is [finished](Self::finish) and no [span](Self::span) of it is left, writers can change them
/// again, and with an error `fsync` reports that; dropped unfinished it counts as failed.
pub struct FolioWrite<T> {
    part: Arc<Part>,
    /// In the file, of the first byte that is owned.
    position: u64,
    /// There may be spans.
    shared: Atomic<bool>,
    _type: PhantomData<fn(T)>,
}

/// The memory of a [`FolioWrite`], for a device to be written to.
pub struct FolioSpan(Arc<Part>);

// SAFETY: The folios are under writeback, during which they stay and nobody writes to them; that is not finished while there is a reference
// to the part, whose range does not change any more.
unsafe impl PageSpan for FolioSpan {
    const WRITABLE: bool = false;

    fn span_len(&self) -> usize {
        self.0.length()
    }

    fn segment(&self, offset: usize) -> Option<Segment> {
        let rest = self.0.length().checked_sub(offset).filter(|rest| *rest != 0)?;
        self.0.record.segment(self.0.start() + offset, rest)
    }
}

impl<T: FileSystem> FolioWrite<T> {
    /// The file.
    pub fn inode(&self) -> &Inode<T> {
        // SAFETY: The folios of the part are under writeback, so that the inode is there; it is of a filesystem `T`, as
        // whoever gathered them has promised.
        unsafe { Inode::from_raw(self.part.record.inode.as_ptr()) }
    }

    /// The position in the file that the first byte belongs to.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The length in bytes, never 0.
    #[allow(clippy::len_without_is_empty)] // Never empty.
    pub fn len(&self) -> usize {
        self.part.length()
    }

    /// Where the data ends in the file: with the last byte, or before if the file did when this was gathered. It may have grown since, but
    /// what it has grown by is not in here.
    pub fn end(&self) -> u64 {
        (self.position + self.len() as u64).min(self.part.record.file_end)
    }

    /// The memory, for a device.
    pub fn span(&self) -> FolioSpan {
        self.shared.store(true, Relaxed);
        FolioSpan(self.part.clone())
    }

    /// Shows all bytes, piece by piece, in order.
    pub fn inspect(&self, f: &mut dyn FnMut(&[u8])) {
        let part = &self.part;
        part.record.each(part.start(), part.length(), |piece, offset, length| {
            let mut done = 0;
            while done < length {
                let at = offset + done;
                let take = (PAGE_SIZE - at % PAGE_SIZE).min(length - done);
                // SAFETY: A mapping reaches to the end of its page. The folio is under writeback, so that nobody writes to it.
                unsafe {
                    let mapped = bindings::kfs_kmap_local_folio(piece.folio.as_ptr(), at);
                    f(core::slice::from_raw_parts(mapped.cast::<u8>(), take));
                    bindings::kfs_kunmap_local(mapped);
                }
                done += take;
            }
        });
    }

    /// Takes the first `length` bytes off, as a run of its own. Sleeps until there is memory.
    ///
    /// # Errors
    ///
    /// `EINVAL` unless `length` is a multiple of the block size, more than 0 and less than [`len`](Self::len), and no span has been taken.
    pub fn split_to(&mut self, length: usize) -> Result<Self> {
        let record = &self.part.record;
        // SAFETY: As in `inode()`.
        let block = unsafe { bindings::kfs_inode_block_size(record.inode.as_ptr()) } as usize;
        let (start, whole) = (self.part.start(), self.part.length());
        if length == 0 || length >= whole || length % block != 0 || self.shared.load(Relaxed) {
            return Err(EINVAL);
        }
        // INVARIANT: Without spans nobody else looks at the part: it gives the bytes up before the other one gets them.
        self.part.start.store(start + length, Relaxed);
        self.part.length.store(whole - length, Relaxed);
        // SAFETY: See above.
        let front = unsafe { Part::new(record.clone(), start, length) };
        let position = self.position;
        self.position += length as u64;
        Ok(Self {
            part: front,
            position,
            shared: Atomic::new(false),
            _type: PhantomData,
        })
    }

    /// Ends the writing back.
    pub fn finish(self, result: Result) {
        let outcome = result.map_or_else(|error| error.to_errno(), |()| 0);
        self.part.outcome.store(outcome, Relaxed);
    }
}

/// Most bytes in a run.
const MAX_RUN: usize = 1 << 20;
/// Most parts of folios in a run.
const MAX_PIECES: usize = 256;

/// A run that is being gathered, while iomap goes through dirty folios.
pub(super) struct Gathering {
    pieces: KVec<Piece>,
    length: usize,
    position: u64,
    file_end: u64,
}

impl Gathering {
    /// Of nothing. Sleeps until there is memory.
    pub(super) fn new() -> KBox<Self> {
        let pieces = insist(|| KVec::with_capacity(MAX_PIECES, GFP_KERNEL));
        let memory = insist(|| KBox::new_uninit(GFP_KERNEL));
        KBox::write(memory, Self { pieces, length: 0, position: 0, file_end: u64::MAX })
    }

    /// Adds a part of a folio, of a file that ends at `file_end` or behind that part; `false` if it does not fit, and the run so far is to be taken first.
    ///
    /// # Safety
    ///
    /// The part must be under writeback and wait for `iomap_finish_folio_write` when this returns `true`. All must be of one file.
    pub(super) unsafe fn add(
        &mut self,
        folio: NonNull<bindings::folio>,
        offset: usize,
        length: usize,
        position: u64,
        file_end: u64,
    ) -> bool {
        if self.pieces.is_empty() {
            self.position = position;
            self.length = 0;
        }
        let contiguous = self.position + self.length as u64 == position;
        if !contiguous || self.length >= MAX_RUN {
            return false;
        }
        let piece = Piece { folio, offset, length, start: self.length };
        if self.pieces.push_within_capacity(piece).is_err() {
            return false;
        }
        self.length += length;
        if file_end < position + length as u64 {
            self.file_end = file_end;
        }
        true
    }

    /// The run that was gathered, if there is one.
    ///
    /// # Safety
    ///
    /// `inode` must be the file that the parts are of, and of a filesystem `T`.
    pub(super) unsafe fn take<T>(
        self: KBox<Self>,
        inode: NonNull<bindings::inode>,
    ) -> Option<FolioWrite<T>> {
        let Self { pieces, length, position, file_end } = KBox::into_inner(self);
        if pieces.is_empty() {
            return None;
        }
        let memory = insist(|| UniqueArc::new_uninit(GFP_KERNEL));
        // INVARIANT: As `add` demands.
        let record = memory.write(Record { inode, pieces, file_end });
        // SAFETY: All of a record that is new.
        let part = unsafe { Part::new(record.into(), 0, length) };
        Some(FolioWrite {
            part,
            position,
            shared: Atomic::new(false),
            _type: PhantomData,
        })
    }
}
