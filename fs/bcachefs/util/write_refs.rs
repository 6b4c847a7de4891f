// SPDX-License-Identifier: GPL-2.0
//! Permission to change the filesystem.
//!
//! Whoever changes something holds a reference while doing so. They exist only while the filesystem is read-write; going
//! read-only begins with waiting for those that are left. What finishes changes (reclaim of the journal, updates of interior nodes)
//! goes on after that and has none.

use kernel::prelude::*;
use kfs::sync::{Entry, Gate};

use super::error::Result;

/// Gives out references, or none.
pub struct WriteRefs {
    gate: Pin<KBox<Gate>>,
}

/// The filesystem stays read-write as long as this lives, emergencies excepted.
pub type WriteRef<'a> = Entry<'a>;

impl WriteRefs {
    /// Gives out none to begin with. May sleep.
    pub fn new() -> Result<Self> {
        Ok(WriteRefs {
            gate: KBox::pin_init(Gate::new(), GFP_KERNEL)?,
        })
    }

    /// A reference; `None` unless the filesystem is read-write. Any context.
    #[inline]
    pub fn get(&self) -> Option<WriteRef<'_>> {
        self.gate.enter()
    }

    /// Whether there are references to be had. Any context.
    pub fn are_given(&self) -> bool {
        self.gate.is_open()
    }

    /// Gives out references from now on. By whoever changes the filesystem's state, under their lock. May sleep.
    pub fn start(&self) {
        self.gate.open();
    }

    /// Gives out none any more. The same rules as for [`WriteRefs::start`]. Does not wait for those that are left.
    pub fn stop(&self) {
        self.gate.close();
    }

    /// After [`WriteRefs::stop`]: waits until none are left. Sleeps.
    pub fn wait(&self) {
        self.gate.wait_empty();
    }
}
