// SPDX-License-Identifier: GPL-2.0

//! The context of a mount or a reconfiguration: `struct fs_context`.

use super::{
    filesystem::FileSystem,
    parameters::{self, Refusal},
    registration::Type,
    super_block::{self, SuperBlock},
};
use crate::bindings;
use core::marker::PhantomData;
use kernel::{error::from_result, fmt, prelude::*, str::CStrExt, types::NotThreadSafe};

/// What a context is made for.
pub enum MountPurpose<'a, T: FileSystem> {
    /// A mount.
    Mount,
    /// Changing the options of a mounted filesystem.
    Reconfigure(&'a SuperBlock<T>),
}

/// The options that the VFS keeps itself.
#[derive(Clone, Copy, Debug)]
pub struct MountFlags(u32);

impl MountFlags {
    /// Whether `ro` was asked for.
    pub fn is_read_only(self) -> bool {
        self.0 & bindings::KFS_CONST_SB_RDONLY != 0
    }
}

/// Where to tell the person who mounts what is wrong: their process's log, and the kernel's.
pub struct Log<'a> {
    fc: *mut bindings::fs_context,
    _context: PhantomData<&'a ()>,
    _not_send: NotThreadSafe,
}

/// Longest message in bytes; what is longer is cut off.
const MESSAGE: usize = 256;

impl Log<'_> {
    /// # Safety
    ///
    /// `fc` must be valid during the lifetime of the result.
    unsafe fn new(fc: *mut bindings::fs_context) -> Self {
        Self { fc, _context: PhantomData, _not_send: NotThreadSafe }
    }

    fn write(&self, level: u8, args: fmt::Arguments<'_>) {
        let mut line = Line { text: [0; MESSAGE], length: 0 };
        // A message that is too long is cut off, which is all that can go wrong.
        let _ = fmt::Write::write_fmt(&mut line, args);
        // SAFETY: `self.fc` is valid, as is the text for its length.
        unsafe {
            bindings::kfs_logfc(self.fc.cast(), level, line.text.as_ptr().cast(), line.length)
        };
    }

    /// Says why something fails.
    pub fn error(&self, args: fmt::Arguments<'_>) {
        self.write(b'e', args);
    }

    /// Says that something is done differently from what was asked.
    pub fn warn(&self, args: fmt::Arguments<'_>) {
        self.write(b'w', args);
    }

    /// Says something.
    pub fn info(&self, args: fmt::Arguments<'_>) {
        self.write(b'i', args);
    }

    /// [`error`](Self::error), and `EINVAL` to return.
    pub fn invalid(&self, args: fmt::Arguments<'_>) -> Error {
        self.error(args);
        EINVAL
    }
}

struct Line {
    text: [u8; MESSAGE],
    length: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = self.text.get_mut(self.length..).ok_or(fmt::Error)?;
        let take = s.floor_char_boundary_at(room.len());
        for (to, from) in room.iter_mut().zip(s.as_bytes().iter().take(take)) {
            *to = *from;
        }
        self.length += take;
        if take < s.len() {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

trait FloorCharBoundary {
    /// The greatest length of a prefix that has at most `limit` bytes and ends between characters.
    fn floor_char_boundary_at(&self, limit: usize) -> usize;
}

impl FloorCharBoundary for str {
    fn floor_char_boundary_at(&self, limit: usize) -> usize {
        let limit = limit.min(self.len());
        (0..=limit).rev().find(|i| self.is_char_boundary(*i)).unwrap_or(0)
    }
}

/// What a context of ours owns: `fs_private`.
pub(super) struct Private<T: FileSystem> {
    pub(super) options: T::Options,
    pub(super) fs_type: *const Type<T>,
}

/// The callbacks of `struct fs_context`.
pub(super) struct Callbacks<T>(PhantomData<T>);

impl<T: FileSystem> Callbacks<T> {
    const OPERATIONS: bindings::fs_context_operations = bindings::fs_context_operations {
        free: Some(Self::free),
        parse_param: Some(Self::parse_param),
        get_tree: Some(Self::get_tree),
        reconfigure: Some(Self::reconfigure),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// For the VFS only: `fc` is a new context for a type registered as [`Type<T>`].
    pub(super) unsafe extern "C" fn init(fc: *mut kernel::bindings::fs_context) -> i32 {
        let fc = fc.cast::<bindings::fs_context>();
        from_result(|| {
            // SAFETY: The context is ours to fill in; a reconfiguration's root is set and belongs to a superblock of
            // type `T` that is filled in, which stays active during the call.
            let purpose = unsafe {
                if bindings::kfs_fc_is_reconfigure(fc.cast()) {
                    MountPurpose::Reconfigure(SuperBlock::from_raw((*(*fc).root).d_sb))
                } else {
                    MountPurpose::Mount
                }
            };
            let options = T::new_options(purpose)?;
            // SAFETY: The type of a context is what it was made for: a `Type<T>`, which lives as long
            // as the module, on which the context holds a reference.
            let fs_type = unsafe { Type::<T>::from_raw((*fc).fs_type) };
            let private = KBox::new(Private::<T> { options, fs_type }, GFP_KERNEL)?;
            fs_type.enter();
            // SAFETY: As above. `free` undoes this.
            unsafe {
                (*fc).fs_private = KBox::into_raw(private).cast();
                (*fc).ops = &Self::OPERATIONS;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// For the VFS only: `fc` went through `init`; this is the last callback.
    unsafe extern "C" fn free(fc: *mut bindings::fs_context) {
        // SAFETY: `fs_private` was set by `init` and is given up now.
        let private = unsafe { (*fc).fs_private };
        if private.is_null() {
            return;
        }
        // SAFETY: As above.
        let private = unsafe { KBox::from_raw(private.cast::<Private<T>>()) };
        let fs_type = private.fs_type;
        drop(private);
        // SAFETY: The context holds a reference on the module, and with it the type.
        unsafe { (*fs_type).leave() };
    }

    /// # Safety
    ///
    /// `fc` went through `init`, and no other reference to its private data is in use: the VFS serializes
    /// all callbacks of a context.
    pub(super) unsafe fn private<'a>(fc: *mut bindings::fs_context) -> &'a mut Private<T> {
        // SAFETY: See above.
        unsafe { &mut *(*fc).fs_private.cast::<Private<T>>() }
    }

    /// # Safety
    ///
    /// For the VFS only.
    unsafe extern "C" fn parse_param(
        fc: *mut bindings::fs_context,
        param: *mut kernel::bindings::fs_parameter,
    ) -> i32 {
        from_result(|| {
            // SAFETY: The VFS passes a parameter whose key and string are terminated and live during the call.
            let (name, is_flag, string) = unsafe {
                let string = bindings::kfs_parameter_string(param);
                (
                    CStr::from_char_ptr(bindings::kfs_parameter_key(param)),
                    bindings::kfs_parameter_is_flag(param),
                    (!string.is_null()).then(|| CStr::from_char_ptr(string)),
                )
            };
            // SAFETY: `fc` is valid during the call.
            let log = unsafe { Log::new(fc) };
            let name = parameters::text(name)?;
            if name == "source" {
                // The VFS takes it.
                return Err(Error::from_errno(-(bindings::ENOPARAM as i32)));
            }
            if !is_flag && string.is_none() {
                return Err(log.invalid(fmt!("option \"{name}\": neither a flag nor text")));
            }
            let text = string.map(parameters::text).transpose()?;
            let parameter = match parameters::parse(T::PARAMETERS, name, text) {
                Ok(parameter) => parameter,
                Err(Refusal::Unknown) => {
                    return Err(Error::from_errno(-(bindings::ENOPARAM as i32)));
                }
                Err(Refusal::Malformed(spec)) => {
                    return Err(log.invalid(fmt!("option \"{name}\" {spec}")));
                }
            };
            // SAFETY: `init` has been called; the VFS serializes callbacks.
            let private = unsafe { Self::private(fc) };
            T::parse_parameter(&mut private.options, &parameter, &log)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// For the VFS only.
    unsafe extern "C" fn get_tree(fc: *mut bindings::fs_context) -> i32 {
        from_result(|| {
            // SAFETY: `fc` and its source are valid during the call; `init` has been called; the VFS serializes callbacks.
            let (log, private, flags, source) = unsafe {
                let source = (*fc).source;
                (
                    Log::new(fc),
                    Self::private(fc),
                    MountFlags((*fc).sb_flags),
                    (!source.is_null()).then(|| CStr::from_char_ptr(source)),
                )
            };
            let identity = T::identify(&mut private.options, source, &log)?;
            // SAFETY: `fc` is the context of this get_tree call.
            let root = unsafe { super_block::get(fc, identity, private, flags, &log)? };
            // SAFETY: `fc` is valid. The reference on the dentry goes to it, as does that on the superblock.
            unsafe { (*fc).root = root };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// For the VFS only: `fc.root` is of a mounted filesystem of this type, whose `s_umount` is held.
    unsafe extern "C" fn reconfigure(fc: *mut bindings::fs_context) -> i32 {
        from_result(|| {
            // SAFETY: See above; `s_umount` keeps the flags as they are.
            let (sb, log, private, flags) = unsafe {
                let raw = (*(*fc).root).d_sb;
                // What is not in the mask stays as it is, whatever the context's flags say.
                let mask = (*fc).sb_flags_mask;
                let flags = (*raw).s_flags as u32 & !mask | (*fc).sb_flags & mask;
                (
                    SuperBlock::<T>::from_raw(raw),
                    Log::new(fc),
                    Self::private(fc),
                    MountFlags(flags),
                )
            };
            if sb.is_forced_read_only() && !flags.is_read_only() {
                log.error(fmt!("this filesystem can only be mounted read-only"));
                return Err(EROFS);
            }
            if flags.is_read_only() && !sb.is_read_only() {
                // Nobody writes any more: what the page cache and the inodes hold goes out first.
                // SAFETY: The superblock is live, `s_umount` is held.
                kernel::error::to_result(unsafe { bindings::sync_filesystem(sb.as_raw()) })?;
            }
            if T::HAS_RECONFIGURE {
                T::reconfigure(sb, &mut private.options, flags, &log)?;
            }
            Ok(0)
        })
    }
}
