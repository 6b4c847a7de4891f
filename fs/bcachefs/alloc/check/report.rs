// SPDX-License-Identifier: GPL-2.0
//! What a check has found.

use core::fmt;
use kernel::prelude::*;

/// Differences that are described.
const DESCRIBED: usize = 40;
/// Bytes of a description.
const LENGTH: usize = 320;

/// What has been looked at, and what is not as it should be.
pub struct Report {
    /// Nodes of btrees.
    pub nodes: u64,
    /// Pointers to data and nodes.
    pub pointers: u64,
    /// Buckets.
    pub buckets: u64,
    /// Backpointers.
    pub backpointers: u64,
    /// Accounting keys.
    pub accounting: u64,
    /// What is not as it should be.
    pub differences: u64,
    /// Counters that are not, and that writers of this version let drift: of inodes in a crash, of compression when a bucket with
    /// cached copies is reused, since it is not known whose they are. Nothing relies on them.
    pub drifted: u64,
    described: KVec<KVec<u8>>,
}

/// Collects text up to some length.
struct Line {
    bytes: [u8; LENGTH],
    len: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for b in s.bytes() {
            let Some(to) = self.bytes.get_mut(self.len) else {
                break;
            };
            *to = b;
            self.len += 1;
        }
        Ok(())
    }
}

impl Report {
    pub(super) fn new() -> Self {
        Report {
            nodes: 0,
            pointers: 0,
            buckets: 0,
            backpointers: 0,
            accounting: 0,
            differences: 0,
            drifted: 0,
            described: KVec::new(),
        }
    }

    /// Notes a difference. Does not sleep.
    pub(super) fn differs(&mut self, text: fmt::Arguments<'_>) {
        self.differences += 1;
        self.describe(text);
    }

    /// Notes a counter that has drifted. Does not sleep.
    pub(super) fn drift(&mut self, text: fmt::Arguments<'_>) {
        self.drifted += 1;
        self.describe(text);
    }

    fn describe(&mut self, text: fmt::Arguments<'_>) {
        if self.described.len() >= DESCRIBED {
            return;
        }
        // What there is no memory for is still counted.
        let flags = GFP_NOWAIT | __GFP_NOWARN;
        let mut line = Line { bytes: [0; LENGTH], len: 0 };
        let _ = fmt::write(&mut line, text);
        let bytes = line.bytes.get(..line.len).unwrap_or(&[]);
        let mut text = KVec::new();
        if text.extend_from_slice(bytes, flags).is_ok() {
            let _ = self.described.push(text, flags);
        }
    }

    /// Whether everything is as it should be.
    pub fn is_clean(&self) -> bool {
        self.differences == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for text in self.described.iter() {
            writeln!(f, "{}", core::str::from_utf8(text).unwrap_or("?"))?;
        }
        write!(
            f,
            "{} nodes, {} pointers, {} buckets, {} backpointers, {} accounting keys: {} differences, {} counters have drifted",
            self.nodes,
            self.pointers,
            self.buckets,
            self.backpointers,
            self.accounting,
            self.differences,
            self.drifted
        )
    }
}
