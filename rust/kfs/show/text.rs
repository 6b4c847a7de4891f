// SPDX-License-Identifier: GPL-2.0

//! What is printed into.

use kernel::{fmt, prelude::*};

/// Writes text into a buffer of fixed size. What does not fit is cut off, and reported as an error, which a printer
/// may simply pass on.
pub struct PageWriter<'a> {
    page: &'a mut [u8],
    len: usize,
    full: bool,
}

impl<'a> PageWriter<'a> {
    pub(super) fn new(page: &'a mut [u8]) -> Self {
        Self {
            page,
            len: 0,
            full: false,
        }
    }

    /// Bytes written.
    pub(super) fn written(&self) -> usize {
        self.len
    }

    /// Whether something was cut off.
    pub fn is_full(&self) -> bool {
        self.full
    }
}

impl fmt::Write for PageWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.page.get_mut(self.len..).unwrap_or_default();
        let mut fits = text.len().min(room.len());
        while !text.is_char_boundary(fits) {
            fits -= 1;
        }
        if let (Some(to), Some(from)) = (room.get_mut(..fits), text.as_bytes().get(..fits)) {
            to.copy_from_slice(from);
        }
        self.len += fits;
        if fits < text.len() {
            self.full = true;
            return Err(fmt::Error);
        }
        Ok(())
    }
}

/// Text that grows in memory, up to [`Text::MAX_BYTES`]. What is beyond that, or has no memory, is cut off and reported
/// as an error.
pub struct Text {
    bytes: KVVec<u8>,
}

impl Text {
    /// The most it takes, in bytes.
    pub const MAX_BYTES: usize = 64 << 10;

    /// Empty text. Does not allocate.
    pub const fn new() -> Self {
        Self {
            bytes: KVVec::new(),
        }
    }

    /// What has been written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets what has been written, but keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() > Self::MAX_BYTES.saturating_sub(self.bytes.len()) {
            return Err(fmt::Error);
        }
        self.bytes
            .extend_from_slice(text.as_bytes(), GFP_KERNEL)
            .map_err(|_| fmt::Error)
    }
}

#[kernel::macros::kunit_tests(kfs_show_text)]
mod tests {
    use super::*;
    use core::fmt::Write as _;

    #[test]
    fn pages_end() {
        let mut page = [0u8; 8];
        let mut writer = PageWriter::new(&mut page);
        assert!(write!(writer, "abc{}", 12).is_ok());
        assert_eq!(writer.written(), 5);
        assert!(!writer.is_full());
        // Three bytes are left: room for one of two letters of two bytes.
        assert!(writer.write_str("\u{e4}\u{e4}").is_err());
        assert!(writer.is_full());
        assert_eq!(writer.written(), 7);
        assert_eq!(&page[..7], "abc12\u{e4}".as_bytes());
    }

    #[test]
    fn text_ends() {
        let mut text = Text::new();
        for _ in 0..Text::MAX_BYTES / 16 {
            assert!(text.write_str("0123456789abcdef").is_ok());
        }
        assert!(text.write_str("x").is_err());
        assert_eq!(text.as_bytes().len(), Text::MAX_BYTES);
        text.clear();
        assert!(text.write_str("x").is_ok());
        assert_eq!(text.as_bytes(), b"x");
    }
}
