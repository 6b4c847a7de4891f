// SPDX-License-Identifier: GPL-2.0

//! Buffers that go to several devices.

use super::{IoBuf, PageSpan, Segment};
use kernel::{
    alloc::{AllocError, Flags},
    sync::{Arc, UniqueArc},
};

/// A buffer whose contents are final, so that several transfers can write them at the same time.
///
/// Drop it in process context.
#[derive(Clone)]
pub struct SharedBuf(Arc<IoBuf>);

impl SharedBuf {
    /// Shares `buf`. Allocates with `flags`.
    pub fn new(buf: IoBuf, flags: Flags) -> Result<Self, AllocError> {
        Ok(Self(Arc::new(buf, flags)?))
    }

    /// The contents.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The contents as 64-bit words in the machine's byte order.
    pub fn as_words(&self) -> &[u64] {
        self.0.as_words()
    }
}

impl From<UniqueArc<IoBuf>> for SharedBuf {
    /// Without allocating.
    fn from(buf: UniqueArc<IoBuf>) -> Self {
        Self(buf.into())
    }
}

// SAFETY: The reference keeps the memory. It is not written to: nobody has the buffer mutably, and as it says that it is not
// writable no transfer from a device into it compiles.
unsafe impl PageSpan for SharedBuf {
    const WRITABLE: bool = false;

    fn span_len(&self) -> usize {
        self.0.len()
    }

    fn segment(&self, offset: usize) -> Option<Segment> {
        self.0.segment(offset)
    }
}
