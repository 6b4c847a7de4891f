// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.

use super::{filesystem::FileSystem, inode::Inode};
use crate::{bindings, errno::Errno};
use core::marker::PhantomData;
use kernel::{
    error::{from_result, VTABLE_DEFAULT_ERROR},
    ffi,
    prelude::*,
    str::CStrExt, //
};

/// The extended attributes whose names begin with one prefix.
///
/// POSIX access control lists do not come this way: see [`inode::Operations::acl`](super::inode::Operations::acl).
#[vtable]
pub trait Handler: 'static {
    /// The filesystem.
    type FileSystem: FileSystem;

    /// The prefix, with its dot: `user.`, `trusted.`, `security.`, or one of the filesystem's own.
    const PREFIX: &'static CStr;

    /// Reads the attribute `name` (what follows the prefix, never empty) into `value`.
    ///
    /// Returns `ENODATA` if there is none.
    fn get(inode: &Inode<Self::FileSystem>, name: &[u8], value: &mut Value<'_>) -> Result;

    /// Sets (`Some`) or removes (`None`) an attribute. Without it every change is refused with `EOPNOTSUPP`; on
    /// a read-only filesystem the VFS refuses before.
    fn set(
        _inode: &Inode<Self::FileSystem>,
        _name: &[u8],
        _value: Option<&[u8]>,
        _mode: SetMode,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// What [`Handler::set`] is to do about an attribute that exists, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMode {
    /// Create or replace.
    Either,
    /// `EEXIST` if it exists.
    Create,
    /// `ENODATA` if it does not exist.
    Replace,
}

/// Where the value of an attribute goes.
///
/// Knows how long the value is even if the caller's buffer is too small, or if only the length was asked for.
pub struct Value<'a> {
    buffer: Option<&'a mut [u8]>,
    length: usize,
    overflow: bool,
}

/// Where the names of a file's attributes go: each with its prefix.
pub struct Names<'a> {
    value: Value<'a>,
    show_trusted: bool,
}

/// A [`Handler`] as an entry of [`FileSystem::XATTR`].
#[repr(transparent)]
pub struct Prefix<T>(Option<&'static bindings::xattr_handler>, PhantomData<fn(T)>);

impl<T: FileSystem> Prefix<T> {
    /// Ends the list.
    pub const END: Self = Self(None, PhantomData);

    /// The entry for `H`.
    pub const fn of<H: Handler<FileSystem = T>>() -> Self {
        Self(Some(&Callbacks::<H>::HANDLER), PhantomData)
    }
}

/// Whether a list has its end, once.
pub(super) const fn is_closed<T>(list: &[Prefix<T>]) -> bool {
    matches!(list.last(), Some(Prefix(None, _)))
}

impl<'a> Value<'a> {
    fn new(buffer: Option<&'a mut [u8]>) -> Self {
        Self { buffer, length: 0, overflow: false }
    }

    /// Appends to the value.
    pub fn write(&mut self, bytes: &[u8]) {
        let start = self.length;
        self.length = start.saturating_add(bytes.len());
        if let Some(buffer) = &mut self.buffer {
            match buffer.get_mut(start..self.length) {
                Some(room) => room.copy_from_slice(bytes),
                None => self.overflow = true,
            }
        }
    }

    /// The length of the whole value; `ERANGE` if it does not fit.
    fn finish(self) -> Result<usize> {
        if self.overflow {
            return Err(ERANGE);
        }
        Ok(self.length)
    }
}

impl<'a> Names<'a> {
    pub(super) fn new(buffer: Option<&'a mut [u8]>) -> Self {
        Self {
            value: Value::new(buffer),
            // SAFETY: No requirements.
            show_trusted: unsafe { bindings::capable(bindings::CAP_SYS_ADMIN as i32) },
        }
    }

    /// Adds the attribute whose name is `prefix` (with its dot) and `name`. A name with a zero byte is left out.
    pub fn add(&mut self, prefix: &[u8], name: &[u8]) {
        if prefix == b"trusted." && !self.show_trusted || prefix.contains(&0) || name.contains(&0) {
            return;
        }
        self.value.write(prefix);
        self.value.write(name);
        self.value.write(&[0]);
    }

    pub(super) fn finish(self) -> Result<usize> {
        self.value.finish()
    }
}

/// The callbacks of `struct xattr_handler`. See `inode::table` for what the VFS guarantees.
struct Callbacks<H>(PhantomData<H>);

impl<H: Handler> Callbacks<H> {
    const HANDLER: bindings::xattr_handler = bindings::xattr_handler {
        prefix: kernel::str::as_char_ptr_in_const_context(H::PREFIX),
        get: Some(Self::get),
        set: Some(Self::set),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// For the VFS only, as below.
    unsafe extern "C" fn get(
        _handler: *const bindings::xattr_handler,
        _dentry: *mut bindings::dentry,
        inode: *mut bindings::inode,
        name: *const ffi::c_char,
        buffer: *mut ffi::c_void,
        size: usize,
    ) -> i32 {
        from_result(|| {
            // SAFETY: The inode is of this filesystem, the name terminated. The buffer is the caller's, and ours during the call.
            let (inode, name, mut value) = unsafe {
                let buffer = (size != 0 && !buffer.is_null())
                    .then(|| core::slice::from_raw_parts_mut(buffer.cast::<u8>(), size));
                (Inode::from_raw(inode), CStr::from_char_ptr(name), Value::new(buffer))
            };
            H::get(inode, name.to_bytes(), &mut value)?;
            Ok(i32::try_from(value.finish()?)?)
        })
    }

    /// # Safety
    ///
    /// See `get`.
    unsafe extern "C" fn set(
        _handler: *const bindings::xattr_handler,
        _idmap: *mut bindings::mnt_idmap,
        _dentry: *mut bindings::dentry,
        inode: *mut bindings::inode,
        name: *const ffi::c_char,
        value: *const ffi::c_void,
        size: usize,
        flags: i32,
    ) -> i32 {
        from_result(|| {
            if !H::HAS_SET {
                return Err(Errno::EOPNOTSUPP.into());
            }
            // SAFETY: See `get`; no value means removal.
            let (inode, name, value) = unsafe {
                let value = (!value.is_null())
                    .then(|| core::slice::from_raw_parts(value.cast::<u8>(), size));
                (Inode::from_raw(inode), CStr::from_char_ptr(name), value)
            };
            let mode = match flags as u32 {
                bindings::XATTR_CREATE => SetMode::Create,
                bindings::XATTR_REPLACE => SetMode::Replace,
                _ => SetMode::Either,
            };
            H::set(inode, name.to_bytes(), value, mode)?;
            Ok(0)
        })
    }
}

#[kernel::macros::kunit_tests(kfs_vfs_xattr)]
mod tests {
    use super::*;

    #[test]
    fn a_value_knows_its_length() {
        let mut value = Value::new(None);
        value.write(b"abc");
        value.write(b"de");
        assert!(value.finish() == Ok(5));

        let mut buffer = [0; 5];
        let mut value = Value::new(Some(&mut buffer));
        value.write(b"abc");
        value.write(b"de");
        assert!(value.finish() == Ok(5));
        assert!(&buffer == b"abcde");
    }

    #[test]
    fn a_short_buffer_is_an_error() {
        let mut buffer = [0; 4];
        let mut value = Value::new(Some(&mut buffer));
        value.write(b"abc");
        value.write(b"de");
        assert!(value.finish() == Err(ERANGE));
    }
}
