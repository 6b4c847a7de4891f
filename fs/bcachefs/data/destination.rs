// SPDX-License-Identifier: GPL-2.0
//! Where the bytes of a read go.
//!
//! A destination is owned by the read from the moment it is handed over, and is finished exactly
//! once: by value, or, should it be dropped on the way, as failed. So a waiter is always woken.

use core::ops::Range;

use kernel::{
    new_mutex,
    prelude::*,
    sync::{Arc, Completion, Mutex},
};
use kfs::block::{BioSet, BlockDevice, IoBuf, IoError};

use crate::util::error::{Error, Result};

/// The largest piece a caller may ask to be read into one [`Buffer`].
pub const BUFFER_MAX: usize = 1 << 20;

/// Memory that the data of one part of a read goes to.
///
/// Offsets are in bytes from the start. Usable from any thread in process context.
#[allow(clippy::len_without_is_empty)] // Never empty.
pub trait Destination: Send + Sized + 'static {
    /// Length in bytes, a multiple of the sector size, not zero.
    fn len(&self) -> usize;

    /// Copies `data` to `offset`.
    fn copy_in(&mut self, offset: usize, data: &[u8]) -> Result;

    /// Zeroes `len` bytes at `offset`.
    fn zero(&mut self, offset: usize, len: usize) -> Result;

    /// Whether nobody else can change the memory, so that what [`inspect`](Self::inspect) shows is what the device wrote.
    fn is_stable(&self) -> bool;

    /// Shows all bytes, piece by piece, in order.
    fn inspect(&self, f: &mut dyn FnMut(&[u8])) -> Result;

    /// Has the device read all of the destination from `sector` on, and calls `done` with the
    /// result, in process context.
    fn read_from<F>(self, bdev: &Arc<BlockDevice>, bios: &Arc<BioSet>, sector: u64, done: F)
    where
        F: FnOnce(core::result::Result<(), IoError>, Self) + Send + 'static;

    /// Ends the read of this part. After success every byte has been written.
    fn finish(self, result: Result);
}

/// A destination from which a front part can be taken.
pub trait Split: Destination {
    /// Takes the first `len` bytes off, as a destination of its own. `len` is less than
    /// [`len`](Destination::len).
    fn split_to(&mut self, len: usize) -> Result<Self>;
}

/// A buffer in kernel memory, with somebody who waits for it.
pub struct Buffer {
    /// Taken only when the buffer is finished.
    memory: Option<IoBuf>,
    len: usize,
    waiter: Arc<Waiter>,
}

/// The other side of a [`Buffer`].
#[pin_data]
pub struct Waiter {
    #[pin]
    done: Completion,
    #[pin]
    outcome: Mutex<Option<Result<IoBuf>>>,
}

impl Buffer {
    /// Allocates a buffer of `len` bytes. May sleep.
    pub fn new(len: usize) -> Result<(Buffer, Arc<Waiter>)> {
        if len > BUFFER_MAX {
            return Err(Error::NoMem);
        }
        let memory = IoBuf::new(len, GFP_KERNEL)?;
        let waiter = Arc::pin_init(
            pin_init!(Waiter {
                done <- Completion::new(),
                outcome <- new_mutex!(None),
            }),
            GFP_KERNEL,
        )?;
        let buffer = Buffer {
            memory: Some(memory),
            len,
            waiter: waiter.clone(),
        };
        Ok((buffer, waiter))
    }

    fn range(&mut self, range: Range<usize>) -> Result<&mut [u8]> {
        self.memory
            .as_mut()
            .and_then(|m| m.as_bytes_mut().get_mut(range))
            .ok_or(Error::ExtentInvalid)
    }
}

impl Waiter {
    /// Waits until the read has ended; the memory holds the data then. May sleep.
    pub fn wait(&self) -> Result<IoBuf> {
        self.done.wait_for_completion();
        // Nothing is left there only if somebody has waited before.
        self.outcome.lock().take().unwrap_or(Err(Error::DataRead))
    }
}

impl Destination for Buffer {
    fn len(&self) -> usize {
        self.len
    }

    fn copy_in(&mut self, offset: usize, data: &[u8]) -> Result {
        let end = offset.saturating_add(data.len());
        self.range(offset..end)?.copy_from_slice(data);
        Ok(())
    }

    fn zero(&mut self, offset: usize, len: usize) -> Result {
        self.range(offset..offset.saturating_add(len))?.fill(0);
        Ok(())
    }

    fn is_stable(&self) -> bool {
        true
    }

    fn inspect(&self, f: &mut dyn FnMut(&[u8])) -> Result {
        let bytes = self.memory.as_ref().and_then(|m| m.as_bytes().get(..self.len));
        f(bytes.ok_or(Error::ExtentInvalid)?);
        Ok(())
    }

    fn read_from<F>(mut self, bdev: &Arc<BlockDevice>, bios: &Arc<BioSet>, sector: u64, done: F)
    where
        F: FnOnce(core::result::Result<(), IoError>, Self) + Send + 'static,
    {
        // Without memory it has been finished, which consumes it: the case does not arise, and
        // dropping `self` would wake the waiter.
        if let Some(memory) = self.memory.take() {
            let range = 0..self.len;
            bdev.read(bios, sector, memory, range, move |result, memory| {
                self.memory = Some(memory);
                done(result, self)
            });
        }
    }

    fn finish(mut self, result: Result) {
        let outcome = match (result, self.memory.take()) {
            (Ok(()), Some(memory)) => Ok(memory),
            (Err(e), _) => Err(e),
            (Ok(()), None) => Err(Error::DataRead),
        };
        *self.waiter.outcome.lock() = Some(outcome);
        // The waiter is woken by the drop that follows.
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        {
            let mut outcome = self.waiter.outcome.lock();
            if outcome.is_none() {
                *outcome = Some(Err(Error::DataRead));
            }
        }
        self.waiter.done.complete_all();
    }
}

