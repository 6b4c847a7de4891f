// SPDX-License-Identifier: GPL-2.0

//! Transfers that run while the caller goes on.
//!
//! A request is a record from the reserves of a [`BioSet`]. It owns the memory that is transferred and the closure to
//! call, both moved in, so that nothing has to be allocated for them. It goes through these steps:
//!
//! 1. `start` fills the record in, in the caller's context, and submits as many bios as the transfer needs. Each bio
//!    holds a count of `pending`; so does `start` itself until all are submitted.
//! 2. `bio_done`, usually in an interrupt, notes the first error and gives the count back. Whoever
//!    gives the last one back queues the record's work item.
//! 3. `run`, on the set's work queue, calls `finish`, which takes everything out of the record, gives the record back, and calls the
//!    closure.

use super::{
    stats::now_ns, BioSet, BlockDevice, IoError, Op, PageSpan, Status, BIO_MAX_SEGMENTS,
    SECTOR_SHIFT,
};
use crate::{bindings, work::init_raw};
use core::{
    mem::MaybeUninit,
    ops::{BitOr, Range},
    ptr::NonNull,
};
use kernel::{
    container_of,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        static_lock_class, Arc,
    },
    types::Opaque,
};

/// What a write has to do beyond writing.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct WriteFlags(u32);

// The numbers are known to opf() in rust/helpers/block.c.
impl WriteFlags {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// What was written before is durable first.
    pub const PREFLUSH: Self = Self(1);
    /// Complete only when durable.
    pub const FUA: Self = Self(2);
    /// The data is metadata, for those who trace or prioritise.
    pub const META: Self = Self(4);
}

impl BitOr for WriteFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The flags a bio gets. Somebody waits for reads and flushes.
pub(super) fn opf_bits(op: Op, flags: WriteFlags) -> u32 {
    const SYNC: u32 = 8;
    match op {
        Op::Read => flags.0 & WriteFlags::META.0,
        Op::Write | Op::Flush => flags.0 | SYNC,
    }
}

/// The number of segments a bio needs to hold the bytes `at..end` of `span`, or the most a bio can have if that is less.
pub(super) fn pages_upper_bound<S: PageSpan>(span: &S, at: usize, end: usize) -> u16 {
    let left = end.saturating_sub(at);
    match span.segment(at) {
        Some(first) if first.len() >= left => 1,
        // Segments may begin and end within pages, which costs one more.
        _ => (left / PAGE_SIZE + 2).min(BIO_MAX_SEGMENTS) as u16,
    }
}

/// Adds as much of the bytes `at..end` of `span` to `bio` as it takes; returns how many bytes that is.
///
/// That is a multiple of the logical block size, of which `mask` is [`BlockDevice::block_mask`]; memory that cannot be
/// divided that way is refused.
///
/// # Safety
///
/// `bio` has not been submitted. What was added is not transferred after `span`'s contract permits it.
pub(super) unsafe fn fill<S: PageSpan>(
    bio: *mut bindings::bio,
    span: &S,
    at: usize,
    end: usize,
    mask: usize,
) -> Result<usize, Status> {
    /// A bio counts bytes in 32 bits; stay well below.
    const MAX_BYTES: usize = 1 << 30;

    let limit = end.saturating_sub(at).min(MAX_BYTES);
    let mut done = 0;
    while done < limit {
        let segment = span.segment(at + done).ok_or(Status::OutOfRange)?;
        let len = segment.len().min(limit - done);
        // SAFETY: The memory is there by the invariant of `Segment`, and the bio is ours by the caller's promise.
        // CAST: `len` is at most `MAX_BYTES`, and offsets are within what one allocation has.
        let added = unsafe {
            bindings::bio_add_page(bio, segment.page(), len as u32, segment.offset() as u32)
        };
        if added == 0 {
            break;
        }
        done += len;
    }
    if done == 0 || done & mask != 0 {
        return Err(Status::Misaligned);
    }
    Ok(done)
}

/// Room for what a request carries: the span, and the closure with all it owns.
const PAYLOAD_BYTES: usize = 256;

/// The record of a transfer under way.
///
/// # Invariants
///
/// From `start` to `finish`: `payload` holds the pair of span and closure that `finish` was instantiated for.
#[repr(C)]
pub(super) struct Request {
    work: Opaque<bindings::work_struct>,
    /// Bios not yet complete, plus one while more are being submitted.
    pending: Atomic<i32>,
    /// Zero, or the first `blk_status_t` that was not.
    error: Atomic<i32>,
    /// Why it could not be submitted.
    refused: Option<Status>,
    device: Arc<BlockDevice>,
    set: Arc<BioSet>,
    op: Op,
    sector: u64,
    bytes: usize,
    start_ns: u64,
    finish: unsafe fn(NonNull<Request>),
    payload: MaybeUninit<[u64; PAYLOAD_BYTES / 8]>,
}

/// What [`start`] is to transfer.
pub(super) struct Transfer {
    pub(super) op: Op,
    pub(super) flags: WriteFlags,
    pub(super) sector: u64,
    pub(super) range: Range<usize>,
}

impl BlockDevice {
    /// Starts reading from `sector` on into the bytes `range` of `span`; calls `done` when that is complete or has failed.
    ///
    /// The span is given back to `done`, which runs in process context, in the work queue of `set`, and may sleep or start other
    /// transfers. It is always called, and never before this function could have returned to an ordinary caller's
    /// eyes: not from within it.
    ///
    /// May sleep for memory, which it takes from `set` only; does not enter file systems. `sector` and both
    /// ends of `range` have to be multiples of the device's logical block size. Span and closure together may have 256 bytes;
    /// that is checked when compiling.
    pub fn read<S, F>(
        self: &Arc<Self>,
        set: &Arc<BioSet>,
        sector: u64,
        span: S,
        range: Range<usize>,
        done: F,
    ) where
        S: PageSpan,
        F: FnOnce(Result<(), IoError>, S) + Send + 'static,
    {
        const { assert!(S::WRITABLE) };
        let transfer = Transfer {
            op: Op::Read,
            flags: WriteFlags::NONE,
            sector,
            range,
        };
        start(self, set, transfer, span, done);
    }

    /// Starts writing the bytes `range` of `span` to `sector` and what follows; otherwise as [`read`](Self::read).
    pub fn write<S, F>(
        self: &Arc<Self>,
        set: &Arc<BioSet>,
        sector: u64,
        span: S,
        range: Range<usize>,
        flags: WriteFlags,
        done: F,
    ) where
        S: PageSpan,
        F: FnOnce(Result<(), IoError>, S) + Send + 'static,
    {
        let transfer = Transfer {
            op: Op::Write,
            flags,
            sector,
            range,
        };
        start(self, set, transfer, span, done);
    }

    /// Starts making everything durable whose writing was complete before this call; calls `done` when that is so or has failed.
    /// Otherwise as [`read`](Self::read).
    pub fn start_flush<F>(self: &Arc<Self>, set: &Arc<BioSet>, done: F)
    where
        F: FnOnce(Result<(), IoError>) + Send + 'static,
    {
        let transfer = Transfer {
            op: Op::Flush,
            flags: WriteFlags::PREFLUSH,
            sector: 0,
            range: 0..0,
        };
        start(self, set, transfer, NoData, |result, NoData| done(result));
    }
}

/// What a flush transfers.
struct NoData;

// SAFETY: There are no segments.
unsafe impl PageSpan for NoData {
    fn span_len(&self) -> usize {
        0
    }

    fn segment(&self, _offset: usize) -> Option<super::Segment> {
        None
    }
}

/// Makes a request and submits it.
fn start<S, F>(
    device: &Arc<BlockDevice>,
    set: &Arc<BioSet>,
    transfer: Transfer,
    span: S,
    done: F,
) where
    S: PageSpan,
    F: FnOnce(Result<(), IoError>, S) + Send + 'static,
{
    const {
        assert!(size_of::<(S, F)>() <= PAYLOAD_BYTES);
        assert!(align_of::<(S, F)>() <= align_of::<u64>());
        assert!(align_of::<Request>() <= 8);
    }
    let Transfer {
        op,
        flags,
        sector,
        range,
    } = transfer;
    set.begin();
    let request: NonNull<Request> = set.requests.alloc().cast();
    let refused = device.check(op, sector, &range, span.span_len()).err();
    // SAFETY: The pool's elements have room for a `Request` and are aligned to 8 bytes; this one is ours.
    unsafe {
        request.write(Request {
            work: Opaque::uninit(),
            pending: Atomic::new(1),
            error: Atomic::new(0),
            refused,
            device: device.clone(),
            set: set.clone(),
            op,
            sector,
            bytes: range.end.saturating_sub(range.start),
            start_ns: now_ns(),
            finish: finish::<S, F>,
            payload: MaybeUninit::uninit(),
        });
    }
    let raw = request.as_ptr();
    // SAFETY: Written just now. `work` stays where it is until it has run.
    unsafe { init_raw((*raw).work.get(), run, c"block::Request", static_lock_class!()) };
    // SAFETY: The payload has room for the pair and is aligned for it, as asserted above.
    // INVARIANT: `finish` was instantiated for the same types.
    unsafe { (*raw).payload.as_mut_ptr().cast::<(S, F)>().write((span, done)) };
    if refused.is_none() {
        // SAFETY: Initialised above; the count this function holds keeps the request from being finished.
        let span = unsafe { &(*(*raw).payload.as_ptr().cast::<(S, F)>()).0 };
        // SAFETY: As above; `span` is in the request until `finish`.
        let result = unsafe { submit(request, span, range, opf_bits(op, flags)) };
        if let Err(status) = result {
            // SAFETY: This function's count keeps the request; others do not use this field before `finish`.
            unsafe { (*raw).refused = Some(status) };
        }
    }
    // SAFETY: This is the count this function holds.
    unsafe { put(request) };
}

/// Submits the bios for the bytes `range` of `span`.
///
/// # Safety
///
/// The caller holds a count of `request`, whose payload `span` is.
unsafe fn submit<S: PageSpan>(
    request: NonNull<Request>,
    span: &S,
    range: Range<usize>,
    bits: u32,
) -> Result<(), Status> {
    let raw = request.as_ptr();
    // SAFETY: The request is valid while the caller holds a count; these fields do not change.
    let (device, set, op) = unsafe { (&(*raw).device, &(*raw).set, (*raw).op) };
    // SAFETY: As above.
    let mut position = unsafe { (*raw).sector };
    if op == Op::Flush {
        // SAFETY: Set and device are valid. The bio is ours until it is submitted, `bio_done` gives it and the count back.
        // A bio without segments may be a flush, as its flags say.
        unsafe {
            let bio = bindings::kfs_bio_alloc(set.as_raw(), device.as_raw(), 0, true, bits);
            (*bio).bi_private = raw.cast();
            (*bio).bi_end_io = Some(bio_done);
            (*raw).pending.add(1, Relaxed);
            bindings::submit_bio(bio);
        }
        return Ok(());
    }
    let mask = device.block_mask();
    let mut at = range.start;
    while at < range.end {
        // SAFETY: Set and device are valid. One bio is submitted before the next is allocated, as waiting for memory requires.
        let bio = unsafe {
            bindings::kfs_bio_alloc(
                set.as_raw(),
                device.as_raw(),
                pages_upper_bound(span, at, range.end),
                op != Op::Read,
                bits,
            )
        };
        // SAFETY: The bio is ours until it is submitted. The span stays in the request until all bios are complete.
        let filled = unsafe {
            (*bio).bi_iter.bi_sector = position;
            (*bio).bi_private = raw.cast();
            (*bio).bi_end_io = Some(bio_done);
            fill(bio, span, at, range.end, mask)
        };
        let bytes = match filled {
            Ok(bytes) => bytes,
            Err(status) => {
                // SAFETY: Not submitted, and not used any more.
                unsafe { bindings::bio_put(bio) };
                return Err(status);
            }
        };
        // SAFETY: The request is valid, see above.
        unsafe { (*raw).pending.add(1, Relaxed) };
        // SAFETY: Complete, and `bio_done` gives the bio and the count back.
        unsafe { bindings::submit_bio(bio) };
        at += bytes;
        position += (bytes >> SECTOR_SHIFT) as u64;
    }
    Ok(())
}

/// Completion of one bio, in any context.
///
/// # Safety
///
/// Called by the block layer, once for each bio that [`submit`] submitted.
unsafe extern "C" fn bio_done(bio: *mut bindings::bio) {
    // SAFETY: `submit` put the request there, and the bio's count keeps it.
    let request = unsafe { NonNull::new_unchecked((*bio).bi_private.cast::<Request>()) };
    // SAFETY: The bio is complete and ours again.
    let status = unsafe { (*bio).bi_status };
    if status != 0 {
        // SAFETY: The request is valid, see above. Only the first error is kept.
        let _ = unsafe { (*request.as_ptr()).error.cmpxchg(0, i32::from(status), Relaxed) };
    }
    // SAFETY: Complete, not used after this.
    unsafe { bindings::bio_put(bio) };
    // SAFETY: This is the bio's count.
    unsafe { put(request) };
}

/// Gives a count back; the last one queues the completion.
///
/// # Safety
///
/// The caller holds a count of `request`, and gives it up.
unsafe fn put(request: NonNull<Request>) {
    let raw = request.as_ptr();
    // SAFETY: Valid while the count is held.
    if unsafe { (*raw).pending.fetch_sub(1, Full) } == 1 {
        // SAFETY: Nobody else has a count, so that the request is this function's. The work item was initialised in `start` and is queued once.
        // The work queue lives as long as the set, of which the request has a reference.
        unsafe {
            bindings::queue_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                (*raw).set.queue.as_raw(),
                (*raw).work.get(),
            );
        }
    }
}

/// The work item of a request.
///
/// # Safety
///
/// Called by the work queue for the `work` of a [`Request`] that [`put`] queued.
unsafe extern "C" fn run(work: *mut bindings::work_struct) {
    let work: *mut Opaque<bindings::work_struct> = work.cast();
    // SAFETY: By the caller's promise, this is the field of a request, and the request is this function's.
    let request = unsafe { NonNull::new_unchecked(container_of!(work, Request, work)) };
    // SAFETY: As above; it is not used after this.
    unsafe { (request.as_ref().finish)(request) };
}

/// Takes the request apart and calls its closure.
///
/// # Safety
///
/// `request` is the caller's, was started with a span of type `S` and a closure of type `F`, and is not used after this.
unsafe fn finish<S, F>(request: NonNull<Request>)
where
    S: PageSpan,
    F: FnOnce(Result<(), IoError>, S) + Send + 'static,
{
    // SAFETY: By the type invariant, the payload is such a pair; it is moved out, as everything else, and the memory
    // is given back without dropping anything in it.
    let ((span, done), request) = unsafe {
        let payload = (*request.as_ptr()).payload.as_ptr().cast::<(S, F)>().read();
        let record = request.read();
        record.set.requests.free(request.cast());
        (payload, record)
    };
    let Request {
        error,
        refused,
        device,
        set,
        op,
        sector,
        bytes,
        start_ns,
        ..
    } = request;
    // `blk_status_t` has eight bits.
    let status = match error.load(Relaxed) as u8 {
        0 => refused,
        code => Some(Status::Device(code)),
    };
    let result = match status {
        None => {
            device.counters.completed(op, bytes, now_ns().wrapping_sub(start_ns));
            Ok(())
        }
        Some(status) => Err(device.error(op, sector, status)),
    };
    // Before the closure, which may give up the last reference but this.
    drop(device);
    done(result, span);
    BioSet::finish(set);
}

#[kernel::macros::kunit_tests(kfs_block_request)]
mod tests {
    use super::*;
    use crate::block::{IoBuf, SECTOR_SIZE};

    /// A buffer whose pieces of `PIECE` bytes come in reverse order, so that no two are neighbours.
    struct Reversed<const PIECE: usize>(IoBuf);

    // SAFETY: These are parts of the buffer's segments.
    unsafe impl<const PIECE: usize> PageSpan for Reversed<PIECE> {
        fn span_len(&self) -> usize {
            self.0.len()
        }

        fn segment(&self, offset: usize) -> Option<crate::block::Segment> {
            let start = self.0.len().checked_sub(offset - offset % PIECE + PIECE)?;
            let whole = self.0.segment(start + offset % PIECE)?;
            let len = whole.len().min(PIECE - offset % PIECE);
            let page = NonNull::new(whole.page())?;
            // SAFETY: The beginning of a segment.
            Some(unsafe { crate::block::Segment::new(page, whole.offset(), len) })
        }
    }

    /// What a bio with room for `vecs` segments takes of the bytes `range`.
    fn filled<S: PageSpan>(span: &S, vecs: u16, range: Range<usize>) -> Result<usize, Status> {
        let none = core::ptr::null_mut();
        // SAFETY: The bio is not submitted, so that it may do without a device.
        unsafe {
            let bio = bindings::kfs_bio_alloc(none, core::ptr::null_mut(), vecs, false, 0);
            let result = fill(bio, span, range.start, range.end, SECTOR_SIZE - 1);
            if let Ok(bytes) = result {
                if (*bio).bi_iter.bi_size as usize != bytes {
                    return Err(Status::Device(255));
                }
            }
            bindings::bio_put(bio);
            result
        }
    }

    #[test]
    fn bios_take_what_they_can() -> Result {
        let whole = IoBuf::new(64 << 10, GFP_KERNEL)?;
        assert_eq!(filled(&whole, 16, 0..64 << 10), Ok(64 << 10));
        assert_eq!(filled(&whole, 16, 512..1536), Ok(1024));
        assert_eq!(filled(&whole, 16, 512..512), Err(Status::Misaligned));
        assert_eq!(filled(&whole, 16, 512..100_000), Err(Status::OutOfRange));

        let pages = Reversed::<PAGE_SIZE>(IoBuf::new(16 * PAGE_SIZE, GFP_KERNEL)?);
        assert_eq!(filled(&pages, 16, 0..16 * PAGE_SIZE), Ok(16 * PAGE_SIZE));
        assert_eq!(filled(&pages, 4, 0..16 * PAGE_SIZE), Ok(4 * PAGE_SIZE));
        assert_eq!(filled(&pages, 4, 512..16 * PAGE_SIZE), Ok(4 * PAGE_SIZE - 512));
        assert_eq!(pages_upper_bound(&pages, 0, 16 * PAGE_SIZE), 18);
        assert_eq!(pages_upper_bound(&pages, 0, PAGE_SIZE), 1);
        Ok(())
    }

    #[test]
    fn memory_that_cannot_be_divided_is_refused() -> Result {
        let halves = Reversed::<256>(IoBuf::new(PAGE_SIZE, GFP_KERNEL)?);
        assert_eq!(filled(&halves, 4, 0..PAGE_SIZE), Ok(1024));
        assert_eq!(filled(&halves, 3, 0..PAGE_SIZE), Err(Status::Misaligned));
        Ok(())
    }

    #[test]
    fn flags_are_what_somebody_waits_for() {
        assert_eq!(opf_bits(Op::Read, WriteFlags::FUA | WriteFlags::META), 4);
        assert_eq!(opf_bits(Op::Write, WriteFlags::FUA | WriteFlags::PREFLUSH), 11);
    }
}
