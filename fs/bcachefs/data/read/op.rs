// SPDX-License-Identifier: GPL-2.0
//! One piece of a read: data on devices.
//!
//! An operation owns its destination from start to end. It tries the copies of the data one after
//! the other: each is either delivered, verified, or struck off with an entry in the device's error
//! count. It never waits for I/O; each step runs in the completion of the one before, in process
//! context, and the number of steps is bounded by the number of copies.
//!
//! ```text
//! attempt ─► plan ─┬─ Plain ────────► device reads into the destination ──────────► finish
//!    ▲             ├─ Whole ────────► the same (memory is stable) ─► verify in place ─► finish
//!    │             └─ otherwise ────► device reads into a buffer ─► verify ─► decode, copy ─► finish
//!    └──── next copy ◄─────────────── I/O error, wrong checksum, damage
//! ```
//!
//! While the filesystem is written to, the data can have been moved or overwritten since it was looked up, and its bucket
//! reused. Its generation tells. What was read is not looked at then, whatever it is: the layout is looked up again.

use bcachefs_format::{
    checksum::CsumType,
    keys::extent::{Crc, DecodedPtr},
};
use kernel::{prelude::*, sync::Arc};
use kfs::{
    block::{IoBuf, IoError},
    mem::{insist, NofsScope},
};

use super::{Reader, SECTOR};
use crate::{
    data::{
        checksum::Hasher,
        destination::Destination,
        lane::Pending,
        lookup::Data,
        plan::{How, Plan, Wanted},
    },
    fs::InodeId,
    sb::{device::IoErrorKind, Device},
    util::{
        counters::Counter,
        error::{Error, Result},
    },
};

/// An operation under way. The destination travels beside it, because the block layer takes it.
pub(super) struct Op<D> {
    reader: Arc<Reader>,
    file: InodeId,
    /// Byte of the file at which the piece begins.
    pos: u64,
    data: Data,
    want: Wanted,
    /// Copies that have been tried, a bit each, by index in `data.ptrs`.
    tried: u32,
    /// What to report if no copy is good: the most telling failure so far.
    error: Option<Error>,
    /// Whether in-place verification has failed and everything goes through a buffer now.
    bounce: bool,
    /// Reads from the start.
    again: Again<D>,
}

/// Reads a destination, which is at that byte of that file, looking up anew where its data is. Sleeps.
pub(super) type Again<D> = fn(&Arc<Reader>, InodeId, u64, D);

/// A read that came too late.
struct Late<D> {
    op: KBox<Op<D>>,
    dest: D,
    next: Option<KBox<dyn Pending>>,
}

impl<D: Destination> Pending for Late<D> {
    fn run(self: KBox<Self>) {
        let Late { op, dest, .. } = KBox::into_inner(self);
        (op.again)(&op.reader, op.file, op.pos, dest);
    }

    fn next(&mut self) -> &mut Option<KBox<dyn Pending>> {
        &mut self.next
    }
}

/// A copy chosen, and what to read of it.
struct Choice {
    device: Arc<Device>,
    ptr: DecodedPtr,
    plan: Plan,
}

impl<D: Destination> Op<D> {
    /// Starts the read of all of `dest`, which is the part of `file` at byte `pos`, from `data`. `again` is called if that is not
    /// there any more.
    pub(super) fn start(
        reader: &Arc<Reader>,
        file: InodeId,
        pos: u64,
        data: Data,
        dest: D,
        again: Again<D>,
    ) {
        let want = Wanted {
            from: data.from,
            sectors: u32::try_from(dest.len() as u64 / SECTOR).unwrap_or(u32::MAX),
        };
        let op = Op {
            reader: reader.clone(),
            file,
            pos,
            data,
            want,
            tried: 0,
            error: None,
            bounce: false,
            again,
        };
        match KBox::new(op, GFP_KERNEL) {
            Ok(op) => op.attempt(dest),
            Err(e) => dest.finish(Err(e.into())),
        }
    }

    /// Tries the next copy, or ends with what went wrong.
    fn attempt(mut self: KBox<Self>, mut dest: D) {
        let _nofs = NofsScope::enter();
        let Some(choice) = self.choose() else {
            let result = match self.error {
                Some(e) => Err(e),
                // Nothing but cached copies, all gone: there never was anything else here.
                None if !self.data.had_dirty => dest.zero(0, dest.len()),
                None => {
                    self.warn(None, "no copy is on a device that is present");
                    Err(Error::DataRead)
                }
            };
            return dest.finish(result);
        };

        let in_place = match choice.plan.how {
            How::Plain => true,
            How::Whole => !self.bounce,
            _ => false,
        };
        if in_place {
            self.read_in_place(choice, dest)
        } else {
            self.read_buffered(choice, dest)
        }
    }

    /// The next usable copy. Strikes off those that are not.
    fn choose(&mut self) -> Option<Choice> {
        let count = self.data.ptrs.len().min(u32::BITS as usize);
        // Neighbouring ranges of a file begin with different copies, so that all devices share the
        // work; a range always begins with the same one, whose cache may still hold it.
        let first = (self.pos >> 20) as usize;
        for i in 0..count {
            let index = (first.wrapping_add(i)) % count;
            if self.tried & 1 << index != 0 {
                continue;
            }
            self.tried |= 1 << index;
            let Some(ptr) = self.data.ptrs.get(index).copied() else {
                continue;
            };
            let Some(device) = self.reader.devices.get(ptr.ptr.dev()) else {
                continue;
            };
            let device = device.clone();
            let align = device.bdev.logical_block_bytes() >> 9;
            match Plan::new(ptr.ptr.offset(), &ptr.crc, self.want, align) {
                Ok(plan) if device.contains(plan.sector, plan.sectors) => {
                    return Some(Choice { device, ptr, plan })
                }
                Ok(plan) => {
                    self.fail(Error::ExtentInvalid);
                    let sector = plan.sector;
                    self.warn(Some((&device, sector)), "extent lies outside of its device");
                }
                Err(why) => {
                    self.fail(Error::ExtentInvalid);
                    let place = Some((&*device, ptr.ptr.offset()));
                    self.warn_fmt(place, format_args!("{why}"));
                }
            }
        }
        None
    }

    /// The device writes the destination; the checksum, if any, is that of the destination.
    fn read_in_place(self: KBox<Self>, choice: Choice, dest: D) {
        let bdev = choice.device.bdev.clone();
        let bios = self.reader.bios.clone();
        let sector = choice.plan.sector;
        let step = KBox::new((self, choice), GFP_KERNEL);
        let step = match step {
            Ok(step) => step,
            Err(e) => return dest.finish(Err(e.into())),
        };
        dest.read_from(&bdev, &bios, sector, move |result, dest| {
            let (mut op, choice) = KBox::into_inner(step);
            if op.is_late(&choice) {
                return op.look_again(dest);
            }
            if let Err(e) = result {
                op.io_error(&choice, e);
                return op.retry(dest);
            }
            if choice.plan.how == How::Plain {
                return dest.finish(Ok(()));
            }
            match verify_destination(&dest, &choice.ptr.crc) {
                Ok(true) => dest.finish(Ok(())),
                Ok(false) if dest.is_stable() => {
                    op.checksum_error(&choice);
                    op.retry(dest)
                }
                // Somebody may have written to the memory, or it cannot be looked at now: read the copy again, into a buffer.
                _ => {
                    op.bounce = true;
                    op.read_buffered(choice, dest)
                }
            }
        });
    }

    /// The device writes a buffer; what is wanted is taken from it.
    fn read_buffered(self: KBox<Self>, choice: Choice, dest: D) {
        let bytes = choice.plan.sectors as usize * SECTOR as usize;
        let buffer = match self.reader.stored_buffer(bytes) {
            Ok(buffer) => buffer,
            Err(e) => return dest.finish(Err(e)),
        };
        self.reader.counters.inc(Counter::READ_BOUNCE);
        let bdev = choice.device.bdev.clone();
        let bios = self.reader.bios.clone();
        let sector = choice.plan.sector;
        let step = match KBox::new((self, choice, dest), GFP_KERNEL) {
            Ok(step) => step,
            // The destination was dropped with the rest, which ends the read as failed.
            Err(_) => return,
        };
        bdev.read(&bios, sector, buffer, 0..bytes, move |result, buffer: IoBuf| {
            let _nofs = NofsScope::enter();
            let (mut op, choice, mut dest) = KBox::into_inner(step);
            if op.is_late(&choice) {
                drop(buffer);
                return op.look_again(dest);
            }
            if let Err(e) = result {
                // Trying another copy may wait for a buffer, which could be this one.
                drop(buffer);
                op.io_error(&choice, e);
                return op.retry(dest);
            }
            let stored = buffer.as_bytes().get(..bytes).unwrap_or(&[]);
            match op.deliver(&choice, stored, &mut dest) {
                Ok(()) => dest.finish(Ok(())),
                Err(Error::NoMem) => dest.finish(Err(Error::NoMem)),
                Err(_) => {
                    drop(buffer);
                    op.retry(dest)
                }
            }
        });
    }

    /// Verifies `stored`, what the device holds, and writes the wanted part of it to `dest`.
    fn deliver(&mut self, choice: &Choice, stored: &[u8], dest: &mut D) -> Result {
        let crc = &choice.ptr.crc;
        let mut hasher = Hasher::new(crc.csum_type).ok_or(Error::ExtentInvalid)?;
        hasher.update(stored);
        if crc.csum_type != CsumType::NONE && hasher.finish() != crc.csum {
            self.checksum_error(choice);
            return Err(Error::DataChecksum);
        }
        match choice.plan.how {
            How::Plain | How::Whole => copy_part(dest, stored, 0),
            How::Part { skip } => copy_part(dest, stored, skip),
            How::Compressed { uncompressed, skip } => {
                let bytes = uncompressed as usize * SECTOR as usize;
                let mut decoded = self.reader.decoded_buffer(bytes)?;
                let out = decoded
                    .as_bytes_mut()
                    .get_mut(..bytes)
                    .ok_or(Error::NoMem)?;
                let done = self.reader.decompressor.run(crc.compression, stored, out);
                if let Err(e) = done {
                    self.fail(e);
                    let place = Some((&*choice.device, choice.plan.sector));
                    self.warn_fmt(place, format_args!("{} data: {e}", crc.compression));
                    return Err(e);
                }
                copy_part(dest, out, skip)
            }
        }
    }

    /// Whether the bucket of what was read has been reused, or is about to be.
    fn is_late(&self, choice: &Choice) -> bool {
        self.reader.is_reused(&choice.device, &choice.ptr.ptr)
    }

    /// Has the layout looked up again. Not here: that may wait for nodes, whose reads complete where this runs.
    fn look_again(self: KBox<Self>, dest: D) {
        self.reader.counters.inc(Counter::READ_REUSE_RACE);
        let reader = self.reader.clone();
        let _nofs = NofsScope::enter();
        let memory = insist(|| KBox::new_uninit(GFP_KERNEL));
        let late = KBox::write(memory, Late { op: self, dest, next: None });
        reader.late.push(0, late);
    }

    fn retry(self: KBox<Self>, dest: D) {
        self.reader.counters.inc(Counter::READ_RETRY);
        self.attempt(dest)
    }

    fn io_error(&mut self, choice: &Choice, error: IoError) {
        choice.device.count_error(IoErrorKind::Read);
        self.fail(Error::DataRead);
        let place = Some((&*choice.device, choice.plan.sector));
        self.warn_fmt(place, format_args!("read error: {error}"));
    }

    fn checksum_error(&mut self, choice: &Choice) {
        choice.device.count_error(IoErrorKind::Checksum);
        self.fail(Error::DataChecksum);
        let csum_type = choice.ptr.crc.csum_type;
        let place = Some((&*choice.device, choice.plan.sector));
        self.warn_fmt(place, format_args!("wrong checksum, type {csum_type}"));
    }

    /// Notes a failure. The first one stands: later copies are no better.
    fn fail(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }

    fn warn(&self, place: Option<(&Device, u64)>, text: &str) {
        self.warn_fmt(place, format_args!("{text}"));
    }

    fn warn_fmt(&self, place: Option<(&Device, u64)>, text: core::fmt::Arguments<'_>) {
        let (file, pos) = (self.file, self.pos);
        match place {
            Some((device, sector)) => self
                .reader
                .warn(format_args!("{device} sector {sector}: {text} ({file} offset {pos})")),
            None => self
                .reader
                .warn(format_args!("{text} ({file} offset {pos})")),
        }
    }
}

/// Whether the bytes of `dest` have the checksum in `crc`.
fn verify_destination<D: Destination>(dest: &D, crc: &Crc) -> Result<bool> {
    let mut hasher = Hasher::new(crc.csum_type).ok_or(Error::ExtentInvalid)?;
    dest.inspect(&mut |bytes| hasher.update(bytes))?;
    Ok(hasher.finish() == crc.csum)
}

/// Fills `dest` with `data` from `skip` sectors on.
fn copy_part<D: Destination>(dest: &mut D, data: &[u8], skip: u32) -> Result {
    let from = skip as usize * SECTOR as usize;
    let part = from
        .checked_add(dest.len())
        .and_then(|end| data.get(from..end))
        .ok_or(Error::ExtentInvalid)?;
    dest.copy_in(0, part)
}
