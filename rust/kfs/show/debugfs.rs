// SPDX-License-Identifier: GPL-2.0

//! Directories and files of any length in debugfs.
//!
//! The kernel crate has debugfs files whose whole content is printed into memory when they are read. These are for contents too
//! large for that: they are printed record by record.
//!
//! As everywhere with debugfs, making something does not fail: if debugfs is absent, or there is no memory, it is just
//! not there.
//!
//! C headers: [`include/linux/debugfs.h`](srctree/include/linux/debugfs.h),
//! [`include/linux/seq_file.h`](srctree/include/linux/seq_file.h)

mod seq;

use crate::bindings;
use core::marker::PhantomData;
use kernel::{prelude::*, sync::Arc};

use super::{
    registry::{Registry, User},
    Text,
};

/// Something that is shown as a sequence of records.
///
/// The methods run in process context, in the task that reads the file, and may sleep.
pub trait Records: Send + Sync + 'static {
    /// Where a reader is: a position, which should own nothing that has to be given up when the file is removed, as it may be kept
    /// longer.
    type Cursor: Send + 'static;

    /// The position of the first record.
    fn open(&self) -> Result<Self::Cursor>;

    /// Prints the record at the cursor and moves the cursor to the next; or returns `false` if there is none.
    ///
    /// What does not fit into `out` is cut off; errors of `out` can be ignored. An error that is returned ends the
    /// file, and is given to the reader.
    fn next(&self, cursor: &mut Self::Cursor, out: &mut Text) -> Result<bool>;
}

/// An entry of debugfs that is removed with this value.
///
/// # Invariants
///
/// `dentry` is an entry of debugfs that this value owns, or an error pointer.
struct Entry {
    dentry: *mut bindings::dentry,
    /// Kept: removing a directory removes what is in it.
    _parent: Option<Dir>,
}

// SAFETY: debugfs entries are made and removed from any thread.
unsafe impl Send for Entry {}
// SAFETY: As above.
unsafe impl Sync for Entry {}

impl Drop for Entry {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; error pointers are accepted. Waits for operations under way.
        unsafe { bindings::kfs_debugfs_remove(self.dentry) };
    }
}

/// A directory. It is removed when its clones, and what is in it, are dropped.
#[derive(Clone)]
pub struct Dir {
    entry: Option<Arc<Entry>>,
    // Dropped after `entry`: the order of the fields.
    _shared: Option<Arc<User<Arc<Entry>>>>,
}

/// The directories at the root.
static TOP: Registry<Arc<Entry>> = Registry::new();

impl Dir {
    /// The directory `name` at the root of debugfs, which is made by the first call and removed with the last of the directories
    /// that calls with this name returned. May sleep.
    pub fn new(name: &CStr) -> Self {
        let shared = TOP.join(name, || Self::make(name, None));
        match shared.and_then(|(entry, user)| Ok((entry, Arc::new(user, GFP_KERNEL)?))) {
            Ok((entry, user)) => Self {
                entry: Some(entry),
                _shared: Some(user),
            },
            Err(_) => Self {
                entry: None,
                _shared: None,
            },
        }
    }

    /// Makes a directory in this one. May sleep.
    pub fn subdir(&self, name: &CStr) -> Self {
        let entry = self.entry.as_ref();
        Self {
            entry: entry.and_then(|_| Self::make(name, Some(self.clone())).ok()),
            _shared: None,
        }
    }

    fn make(name: &CStr, parent: Option<Dir>) -> Result<Arc<Entry>> {
        let entry = parent.as_ref().and_then(|parent| parent.entry.as_ref());
        let raw_parent = entry.map_or(core::ptr::null_mut(), |entry| entry.dentry);
        // SAFETY: `name` is a string. The parent exists, or is an error pointer, which is accepted.
        let dentry = unsafe { bindings::kfs_debugfs_create_dir(name.as_char_ptr(), raw_parent) };
        let entry = Entry {
            dentry,
            _parent: parent,
        };
        Ok(Arc::new(entry, GFP_KERNEL)?)
    }

    /// Makes a file, readable by root only, that shows `records`. May sleep.
    ///
    /// While the file exists it owns a reference to them. Who has it open when it is removed reads an error from then on.
    pub fn file<T: Records>(&self, name: &CStr, records: Arc<T>) -> File<T> {
        let entry = self.entry.as_ref().map(|parent| {
            // SAFETY: `name` is a string, and the parent exists or is an error pointer. The operations are those for a pointer to
            // `T`, which `records` keeps valid until after the entry is removed, see `File`.
            let dentry = unsafe {
                bindings::kfs_debugfs_create_file(
                    name.as_char_ptr(),
                    parent.dentry,
                    Arc::as_ptr(&records).cast_mut().cast(),
                    seq::operations::<T>(),
                )
            };
            Entry {
                dentry,
                _parent: Some(self.clone()),
            }
        });
        File {
            _entry: entry,
            _records: records,
            _shows: PhantomData,
        }
    }
}

/// A file made by [`Dir::file`]. Dropping it removes the file, after waiting for reads that are under way.
pub struct File<T: Records> {
    // Dropped before the records are: the order of the fields.
    _entry: Option<Entry>,
    _records: Arc<T>,
    _shows: PhantomData<T>,
}
