// SPDX-License-Identifier: GPL-2.0
//! One extent on its way to the devices and into the btrees.
//!
//! ```text
//! start ─► a transfer for each copy ─► the last one queues it on a lane ─► transaction ─► finish
//! ```

use core::{convert::Infallible, ops::Range};

use bcachefs_format::{
    keys::{
        extent::{Crc, EntryWriter, Ptr, Rebalance},
        inline_data::InlineData,
        inode::InodeFlags,
    },
    KeyType,
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Arc, SpinLock, UniqueArc,
    },
};
use kfs::{
    block::{IoError, PageSpan, WriteFlags},
    mem::insist,
};

use super::{
    encode::{Coded, Stored},
    WriteRequest, Writer, SECTOR,
};
use crate::{
    alloc::{rebalance, Placed},
    btree::space::{DiskReservation, OpenBuckets, REPLICAS_MAX},
    data::{
        index::{self, Draft, EXTENT_WORDS_MAX},
        lane::Pending,
        options::DataOptions,
        source::Source,
    },
    sb::device::IoErrorKind,
    util::error::{Error, Result},
};

/// An extent whose data is on the devices, or goes there.
pub(super) struct Op<S: Source> {
    writer: Arc<Writer>,
    source: S,
    /// Sectors of the file.
    range: Range<u64>,
    /// Largest size that the inode gets because of it.
    size: u64,
    content: Content,
    reservation: DiskReservation,
    /// Closed when a key refers to them.
    _open: OpenBuckets,
    lane: u64,
    next: Option<KBox<dyn Pending>>,
}

/// What the key says.
enum Content {
    /// So many bytes of the source.
    Inline(usize),
    /// These copies, less the `failed`.
    Copies {
        ptrs: [Ptr; REPLICAS_MAX],
        nr: u8,
        failed: u32,
        crc: Crc,
        options: DataOptions,
    },
}

/// An extent whose copies are being written.
#[pin_data]
struct Flight<S: Source> {
    /// Copies under way, and one while more are being started.
    left: Atomic<u32>,
    /// Copies that cannot be used, a bit each.
    failed: Atomic<u32>,
    #[pin]
    op: SpinLock<Option<KBox<Op<S>>>>,
}

impl<S: Source> Op<S> {
    fn new(
        writer: &Arc<Writer>,
        request: &mut WriteRequest,
        source: S,
        content: Content,
        open: OpenBuckets,
    ) -> KBox<Self> {
        let sectors = (source.len() / SECTOR) as u64;
        let start = request.pos / SECTOR as u64;
        request.pos += source.len() as u64;
        let promised = request.options.promised(sectors);
        let op = Op {
            writer: writer.clone(),
            range: start..start + sectors,
            size: request.size,
            content,
            reservation: request.reservation.split(promised),
            _open: open,
            lane: source.id().inum,
            source,
            next: None,
        };
        let memory = insist(|| KBox::new_uninit(GFP_KERNEL));
        KBox::write(memory, op)
    }

    /// Keeps all of `source`, which is one block or a few with `bytes` bytes of data, in a key. Does not wait for that.
    pub(super) fn inline(
        writer: &Arc<Writer>,
        request: &mut WriteRequest,
        source: S,
        bytes: usize,
    ) {
        let content = Content::Inline(bytes);
        Self::new(writer, request, source, content, OpenBuckets::none()).queue();
    }

    /// Starts writing an extent to the place found for it.
    #[inline(never)]
    pub(super) fn start(
        writer: &Arc<Writer>,
        request: &mut WriteRequest,
        source: S,
        coded: Coded,
        crc: Crc,
        placed: Placed,
    ) {
        let Placed { ptrs, nr, open, .. } = placed;
        let content = Content::Copies {
            ptrs,
            nr,
            failed: 0,
            crc,
            options: request.options,
        };
        let bytes = coded.sectors as usize * SECTOR;
        // A device may write from the source until the flight has landed, which it does when all transfers have ended.
        let spans = match &coded.stored {
            Stored::Source => Some([0; REPLICAS_MAX].map(|_| Some(source.span()))),
            Stored::Buffer(..) => None,
        };
        let op = Self::new(writer, request, source, content, open);
        let memory = insist(|| UniqueArc::<Flight<S>>::new_uninit(GFP_KERNEL));
        let flight = memory.pin_init_with(pin_init!(Flight {
            left: Atomic::new(1),
            failed: Atomic::new(0),
            op <- new_spinlock!(Some(op), "bcachefs_write_op"),
        }));
        let flight: core::result::Result<Pin<UniqueArc<Flight<S>>>, Infallible> = flight;
        let Ok(flight) = flight;
        let flight: Arc<Flight<S>> = flight.into();

        let mut spans = spans;
        for (i, ptr) in ptrs.iter().enumerate().take(nr.into()) {
            let span = spans.as_mut().and_then(|s| s.get_mut(i)).and_then(Option::take);
            match (&coded.stored, span) {
                (_, Some(span)) => flight.write(writer, i, *ptr, span, bytes),
                (Stored::Buffer(buffer, _), None) => {
                    flight.write(writer, i, *ptr, buffer.clone(), bytes)
                }
                (Stored::Source, None) => flight.fail(i),
            }
        }
        flight.land();
    }

    fn queue(self: KBox<Self>) {
        let (writer, lane) = (self.writer.clone(), self.lane);
        writer.lanes.push(lane, self);
    }

    #[inline(never)]
    fn end(self: KBox<Self>, result: Result) {
        let Op { writer, source, reservation, _open, .. } = KBox::into_inner(self);
        // Space first: who waits for the data may want to know how much there is.
        drop((reservation, _open));
        source.finish(result);
        drop(writer);
    }

    /// The key that says what has been written.
    fn draft(&self) -> Result<Draft> {
        let inum = self.source.id().inum;
        match &self.content {
            Content::Inline(bytes) => {
                let words = bytes.div_ceil(8);
                Draft::new(KeyType::INLINE_DATA, inum, self.range.clone(), words, |value| {
                    self.fill_inline(*bytes, value)
                })
            }
            Content::Copies { ptrs, nr, failed, crc, options } => {
                let mut good = [Ptr::new(0, 0, 0); REPLICAS_MAX];
                let mut n = 0;
                for (i, ptr) in ptrs.iter().enumerate().take((*nr).into()) {
                    if failed & 1 << i == 0 {
                        *good.get_mut(n).ok_or(Error::ExtentInvalid)? = *ptr;
                        n += 1;
                    }
                }
                let good = good.get(..n).unwrap_or(&[]);
                if good.iter().all(|p| p.cached()) {
                    return Err(Error::DataWrite);
                }
                let draft = |rebalance| {
                    let range = self.range.clone();
                    Draft::new(KeyType::EXTENT, inum, range, EXTENT_WORDS_MAX, |value| {
                        entries(value, crc, good, rebalance)
                    })
                };
                match wanted(options) {
                    None => draft(None),
                    wanted => {
                        let with = draft(wanted)?;
                        match rebalance::pending(with.at(0), &self.writer.targets) {
                            0 => draft(None),
                            _ => Ok(with),
                        }
                    }
                }
            }
        }
    }

    /// Copies the first `bytes` bytes of the source to `value`; the words used.
    fn fill_inline(&self, bytes: usize, value: &mut [u64]) -> Option<usize> {
        let mut copy = insist(|| KVec::with_capacity(bytes, GFP_KERNEL));
        let shown = self.source.inspect(&mut |part| {
            let n = part.len().min(bytes - copy.len());
            for byte in part.iter().take(n) {
                // There is room for as many.
                let _ = copy.push_within_capacity(*byte);
            }
        });
        shown.ok()?;
        let bytes = copy.get(..bytes)?;
        InlineData { bytes }.build(value).ok()
    }

    /// Puts the extent into the btrees.
    #[inline(never)]
    fn commit(&mut self) -> Result {
        let draft = self.draft()?;
        let size = self.size;
        let (btree, source) = (&self.writer.btree, &self.source);
        index::replace_all(btree, source, draft, &mut self.reservation, &mut |inode, end| {
            let written = end.saturating_mul(SECTOR as u64).min(size);
            if !inode.flags.contains(InodeFlags::I_SIZE_DIRTY) {
                inode.size = inode.size.max(written);
            }
        })
    }
}

/// The words of a key's value.
fn entries(
    value: &mut [u64],
    crc: &Crc,
    ptrs: &[Ptr],
    rebalance: Option<Rebalance>,
) -> Option<usize> {
    let mut w = EntryWriter::new(value);
    if crc.is_encoded() || crc.compression.0 != 0 {
        w.crc(crc).ok()?;
    }
    for ptr in ptrs {
        w.ptr(*ptr).ok()?;
    }
    if let Some(rebalance) = rebalance {
        w.rebalance(rebalance).ok()?;
    }
    w.finish().ok()
}

/// What is to be done with the data in the background.
fn wanted(options: &DataOptions) -> Option<Rebalance> {
    let compression = match options.background_compression.0 {
        0 => options.compression,
        _ => options.background_compression,
    };
    match options.background_target.0 != 0 || options.background_compression.0 != 0 {
        true => Some(Rebalance::new(compression, options.background_target.0)),
        false => None,
    }
}

impl<S: Source> Flight<S> {
    /// Starts writing copy `i`.
    fn write<P: PageSpan>(
        self: &Arc<Self>,
        writer: &Arc<Writer>,
        i: usize,
        ptr: Ptr,
        span: P,
        bytes: usize,
    ) {
        let Some(device) = writer.devices.get(ptr.dev()).cloned() else {
            return self.fail(i);
        };
        self.left.add(1, Relaxed);
        let (flight, writer) = (self.clone(), writer.clone());
        let bdev = device.bdev.clone();
        let bios = writer.bios.clone();
        let done = move |result: core::result::Result<(), IoError>, span| {
            drop(span);
            if let Err(e) = result {
                device.count_error(IoErrorKind::Write);
                writer.warn(format_args!("{} sector {}: write error: {e}", *device, ptr.offset()));
                flight.fail(i);
            }
            flight.land();
        };
        bdev.write(&bios, ptr.offset(), span, 0..bytes, WriteFlags::NONE, done);
    }

    fn fail(&self, i: usize) {
        let mut failed = self.failed.load(Relaxed);
        while let Err(now) = self.failed.cmpxchg(failed, failed | 1 << i, Full) {
            failed = now;
        }
    }

    /// One less is under way; the last one queues the extent.
    fn land(&self) {
        if self.left.fetch_sub(1, Full) != 1 {
            return;
        }
        let op = self.op.lock().take();
        let Some(mut op) = op else { return };
        if let Content::Copies { failed, .. } = &mut op.content {
            *failed = self.failed.load(Relaxed);
        }
        op.queue();
    }
}

impl<S: Source> Pending for Op<S> {
    fn run(mut self: KBox<Self>) {
        let result = self.commit();
        if let Err(e) = result {
            let (id, start) = (self.source.id(), self.range.start);
            self.writer
                .warn(format_args!("{id} sector {start}: not written: {e}"));
        }
        self.end(result);
    }

    fn next(&mut self) -> &mut Option<KBox<dyn Pending>> {
        &mut self.next
    }
}

#[kernel::macros::kunit_tests(bcachefs_write_op)]
mod tests {
    use super::*;
    use bcachefs_format::{
        checksum::{Csum, CsumType},
        keys::{compression::CompressionType, extent::Entries},
    };

    #[test]
    fn keys_say_what_was_written() -> kernel::error::Result {
        let ptrs = [Ptr::new(0, 1024, 3), Ptr::new(1, 2048, 4)];
        let none = Crc::none(16);
        let mut words = [0u64; 16];
        // Without checksum and compression there is nothing to say but where.
        assert_eq!(entries(&mut words, &none, &ptrs, None), Some(2));
        let sums = Crc { csum_type: CsumType::XXHASH, csum: Csum::new(77, 0), ..none };
        assert_eq!(entries(&mut words, &sums, &ptrs, None), Some(4));
        let raw = Crc { compression: CompressionType::INCOMPRESSIBLE, ..none };
        let used = entries(&mut words, &raw, &ptrs, None).ok_or(EINVAL)?;
        assert_eq!(used, 3);
        let e = Entries::new(&words[..used], 16);
        for (p, want) in e.decoded().zip(ptrs) {
            assert_eq!(p.ptr, want);
            assert_eq!(p.crc.compression, CompressionType::INCOMPRESSIBLE);
            assert_eq!((p.crc.compressed_size, p.crc.live_size), (16, 16));
        }
        Ok(())
    }
}
