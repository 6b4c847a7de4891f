// SPDX-License-Identifier: GPL-2.0

//! Error codes by name, whether or not the kernel's own [`kernel::error::code`] has them: older kernels' has fewer.

use crate::bindings;
use kernel::error::Error;

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident),* $(,)?) => {
        /// An error code.
        #[derive(Copy, Clone, Debug, PartialEq, Eq)]
        pub enum Errno {
            $($(#[$doc])* $code,)*
        }

        impl From<Errno> for Error {
            fn from(errno: Errno) -> Error {
                match errno {
                    $(Errno::$code => Error::from_errno(-(bindings::$code as i32)),)*
                }
            }
        }
    };
}

codes! {
    /// Too much was given.
    E2BIG,
    /// It is in use.
    EBUSY,
    /// Waiting would never end.
    EDEADLK,
    /// It exists.
    EEXIST,
    /// Too large.
    EFBIG,
    /// Permission denied.
    EACCES,
    /// Too many links.
    EMLINK,
    /// It is not a directory.
    ENOTDIR,
    /// It is not empty.
    ENOTEMPTY,
    /// The operation is not permitted.
    EPERM,
    /// Not within one filesystem.
    EXDEV,
    /// An argument makes no sense.
    EINVAL,
    /// A device failed, or what it holds is damaged.
    EIO,
    /// A name or path is too long.
    ENAMETOOLONG,
    /// There is no such attribute.
    ENODATA,
    /// There is no such device.
    ENODEV,
    /// A signal came.
    EINTR,
    /// There is nothing of that name.
    ENOENT,
    /// Out of memory.
    ENOMEM,
    /// There is no room left.
    ENOSPC,
    /// There is nothing at that place.
    ENXIO,
    /// This kind of object does not do that.
    EOPNOTSUPP,
    /// The filesystem is read-only.
    EROFS,
    /// It is being shut down.
    ESHUTDOWN,
    /// A file handle names nothing (any more).
    ESTALE,
    /// It took too long.
    ETIMEDOUT,
    /// What is on disk makes no sense.
    EUCLEAN,
}
