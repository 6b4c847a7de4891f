// SPDX-License-Identifier: GPL-2.0

//! Records as a `seq_file`.
//!
//! The C code asks for records by number, sometimes more than once for the same, and may go back to an earlier one. So the current record
//! is kept as text, and going back begins anew.
//!
//! Lifetimes: debugfs calls `open`, `read` and `llseek` only while the file is not removed, and its removal waits for
//! them, so that they can use the records. `release` may come later; it does not touch the records.

use super::{Records, Text};
use crate::bindings;
use core::ptr::NonNull;
use kernel::{error::to_result, prelude::*};

extern "C" {
    /// The `struct module` this code is linked into, for its address only.
    static __this_module: u8;
}

/// An open file.
struct Open<T: Records> {
    records: NonNull<T>,
    cursor: Option<T::Cursor>,
    /// The number of the current record, if `cursor` is not `None`.
    index: bindings::loff_t,
    /// The current record.
    text: Text,
    /// Whether there is a current record, or why there is none.
    there: Result<bool>,
}

impl<T: Records> Open<T> {
    /// Makes the next record the current one.
    ///
    /// # Safety
    ///
    /// The records are alive.
    unsafe fn advance(&mut self) {
        self.text.clear();
        let Some(cursor) = &mut self.cursor else {
            self.there = Ok(false);
            return;
        };
        // SAFETY: By the caller's promise.
        let records = unsafe { self.records.as_ref() };
        self.there = records.next(cursor, &mut self.text);
    }

    /// Makes record number `index` the current one, if there are that many.
    ///
    /// # Safety
    ///
    /// The records are alive.
    unsafe fn seek(&mut self, index: bindings::loff_t) {
        if self.cursor.is_none() || index < self.index {
            // SAFETY: By the caller's promise.
            match unsafe { self.records.as_ref() }.open() {
                Ok(cursor) => self.cursor = Some(cursor),
                Err(error) => {
                    self.there = Err(error);
                    return;
                }
            }
            self.index = 0;
            // SAFETY: By the caller's promise.
            unsafe { self.advance() };
        }
        while self.index < index && self.there == Ok(true) {
            self.index += 1;
            // SAFETY: By the caller's promise.
            unsafe { self.advance() };
        }
    }

    /// What the C code wants to be told about the current record.
    fn answer(&mut self) -> *mut c_void {
        match self.there {
            Ok(true) => core::ptr::from_mut(self).cast(),
            Ok(false) => core::ptr::null_mut(),
            Err(error) => error.to_ptr(),
        }
    }
}

/// The operations on files that show a `T`, whose address is the file's private data.
pub(super) fn operations<T: Records>() -> &'static bindings::file_operations {
    struct Of<T>(T);

    impl<T: Records> Of<T> {
        const FILE: bindings::file_operations = bindings::file_operations {
            owner: (&raw const __this_module).cast_mut().cast(),
            open: Some(open::<T>),
            read: Some(bindings::seq_read),
            llseek: Some(bindings::seq_lseek),
            release: Some(release::<T>),
            ..pin_init::zeroed()
        };
    }

    &Of::<T>::FILE
}

/// # Safety
///
/// Called by debugfs for a file that shows a `T`.
unsafe extern "C" fn open<T: Records>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    struct Of<T>(T);

    impl<T: Records> Of<T> {
        const SEQ: bindings::seq_operations = bindings::seq_operations {
            start: Some(start::<T>),
            stop: Some(stop),
            next: Some(next::<T>),
            show: Some(show::<T>),
        };
    }

    // SAFETY: By the caller's promise, this is what `Dir::file` set.
    let Some(records) = NonNull::new(unsafe { (*inode).i_private }.cast::<T>()) else {
        return EINVAL.to_errno();
    };
    let state = Open {
        records,
        cursor: None,
        index: 0,
        text: Text::new(),
        there: Ok(false),
    };
    let Ok(state) = KBox::new(state, GFP_KERNEL) else {
        return ENOMEM.to_errno();
    };
    // SAFETY: The file is being opened.
    if let Err(error) = to_result(unsafe { bindings::seq_open(file, &Of::<T>::SEQ) }) {
        return error.to_errno();
    }
    // SAFETY: `seq_open` put a `seq_file` there.
    unsafe {
        let seq = (*file).private_data.cast::<bindings::seq_file>();
        (*seq).private = KBox::into_raw(state).cast();
    }
    0
}

/// # Safety
///
/// Called by debugfs, once, for a file that [`open`] opened.
unsafe extern "C" fn release<T: Records>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    // SAFETY: `open` put the state there.
    unsafe {
        let seq = (*file).private_data.cast::<bindings::seq_file>();
        drop(KBox::from_raw((*seq).private.cast::<Open<T>>()));
    }
    // SAFETY: Opened by `seq_open`.
    unsafe { bindings::seq_release(inode, file) }
}

/// # Safety
///
/// `seq` is the `seq_file` of a file that [`open`] opened, and its lock is held.
unsafe fn state_of<'a, T: Records>(seq: *mut bindings::seq_file) -> &'a mut Open<T> {
    // SAFETY: By the caller's promise; the lock makes the access exclusive.
    unsafe { &mut *(*seq).private.cast() }
}

/// # Safety
///
/// Called for a file that [`open`] opened, with its lock held.
unsafe extern "C" fn start<T: Records>(
    seq: *mut bindings::seq_file,
    index: *mut bindings::loff_t,
) -> *mut c_void {
    // SAFETY: By the caller's promise.
    let state = unsafe { state_of::<T>(seq) };
    // SAFETY: This is part of a read or seek, see the top of this file.
    unsafe { state.seek(*index) };
    state.answer()
}

/// # Safety
///
/// As for [`start`].
unsafe extern "C" fn next<T: Records>(
    seq: *mut bindings::seq_file,
    _: *mut c_void,
    index: *mut bindings::loff_t,
) -> *mut c_void {
    // SAFETY: By the caller's promise.
    let state = unsafe { state_of::<T>(seq) };
    // SAFETY: This is part of a read or seek, see the top of this file.
    unsafe {
        *index += 1;
        state.seek(*index);
    }
    state.answer()
}

/// # Safety
///
/// As for [`start`].
unsafe extern "C" fn show<T: Records>(seq: *mut bindings::seq_file, _: *mut c_void) -> c_int {
    // SAFETY: By the caller's promise.
    let text = unsafe { state_of::<T>(seq) }.text.as_bytes();
    // SAFETY: Copies that many bytes; what does not fit is asked for again with more room.
    unsafe { bindings::seq_write(seq, text.as_ptr().cast(), text.len()) };
    0
}

/// # Safety
///
/// None.
unsafe extern "C" fn stop(_: *mut bindings::seq_file, _: *mut c_void) {}
