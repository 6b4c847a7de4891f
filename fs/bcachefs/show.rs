// SPDX-License-Identifier: GPL-2.0
//! What a mounted filesystem shows of itself: sysfs for values, debugfs for what is inside.
//!
//! `/sys/fs/bcachefs/UUID/` is laid out the way users of the format know it, as far as a read-only mount has
//! something to say. `/sys/kernel/debug/bcachefs/UUID/` has the superblock, the node cache, what the journal
//! lays over the btrees, and every btree's keys. Files only print; each uses the printer of the object itself.

pub mod debug;
pub mod sys;

use kernel::{str::CString, sync::Arc};

use crate::{init::Filesystem, util::error::Result};

/// The files of one mounted filesystem. Dropping it removes them, after waiting for those who read one.
///
/// The files hold references to the filesystem: drop this first.
pub struct Show {
    _sys: sys::SysFiles,
    _debug: debug::DebugFiles,
}

impl Show {
    /// Makes the files of `fs`. May sleep.
    ///
    /// # Errors
    ///
    /// `EEXIST` if a filesystem with the same UUID is mounted already: a copy of this one.
    pub fn new(fs: &Arc<Filesystem>) -> Result<Self> {
        let name = CString::try_from_fmt(core::format_args!("{}", fs.sup.user_uuid))?;
        Ok(Show {
            _sys: sys::SysFiles::new(fs, &name)?,
            _debug: debug::DebugFiles::new(fs, &name)?,
        })
    }
}
