// SPDX-License-Identifier: GPL-2.0
//! The filesystem's own errors.
//!
//! One variant per class of place an error is thrown, so that a message or a trace says more than an
//! errno does. The errno is derived ([`Error::errno`]) where a result leaves the filesystem, in `vfs/`
//! and `init/`, and nowhere else.
//!
//! A transaction restart is not an error and has no variant here.

use bcachefs_format::Invalid;
use core::fmt;
use kernel::{alloc::AllocError, error::code};
use kfs::errno::Errno;

/// Result of filesystem code.
pub type Result<T = ()> = core::result::Result<T, Error>;

/// Defines [`Error`] from one line per error: variant, errno, description.
macro_rules! errors {
    ($($(#[$doc:meta])* $variant:ident $errno:ident $text:literal;)*) => {
        /// What went wrong.
        #[derive(Copy, Clone, PartialEq, Eq)]
        pub enum Error {
            /// The kernel said so; the code is passed on unchanged.
            Kernel(kernel::error::Error),
            $(#[doc = $text] $(#[$doc])* $variant,)*
        }

        impl Error {
            /// The name under which the error is printed and traced.
            pub fn name(self) -> &'static str {
                match self {
                    Error::Kernel(_) => "kernel",
                    $(Error::$variant => stringify!($variant),)*
                }
            }

            /// What the error means, for a person.
            pub fn text(self) -> &'static str {
                match self {
                    Error::Kernel(_) => "the kernel reported an error",
                    $(Error::$variant => $text,)*
                }
            }

            /// The errno that system calls report.
            pub fn errno(self) -> kernel::error::Error {
                match self {
                    Error::Kernel(e) => e,
                    $(Error::$variant => Errno::$errno.into(),)*
                }
            }
        }
    };
}

// One line each, grouped by the folder that throws them.
errors! {
    // Anywhere.
    NoMem ENOMEM "out of memory";
    MetadataInvalid EUCLEAN "metadata on disk breaks a rule of the format";
    Unsupported EOPNOTSUPP "this is not supported yet";
    Interrupted EINTR "interrupted by a signal";
    WouldDeadlock EDEADLK "going on would wait for the work that makes room";
    // sb/
    DeviceOpen ENODEV "a member device cannot be opened";
    DeviceTwice EINVAL "the same device was given twice";
    DeviceTooSmall EUCLEAN "a device is smaller than its superblock says";
    DeviceReadOnlyNeeded EROFS "only read-only mounts are possible";
    NotInitialised EROFS "the filesystem has not been initialised yet";
    DeviceRead EIO "a read from a device failed";
    SuperNotFound EINVAL "no bcachefs superblock found";
    SuperInvalid EUCLEAN "no valid superblock found";
    SuperVersion EOPNOTSUPP "the metadata version is not supported";
    SuperFeature EOPNOTSUPP "an incompatible feature is not supported";
    SuperEncrypted EOPNOTSUPP "encrypted filesystems are not supported yet";
    SuperBigEndian EOPNOTSUPP "big-endian filesystems are not supported";
    SuperMismatch EINVAL "a device does not belong to this filesystem";
    SuperSplitBrain EINVAL "a device was mounted without the others and has diverged";
    DeviceMissing ENXIO "a member device is missing";
    ReplicasMissing ENXIO "devices that hold the only copy of something are missing";
    SuperWrite EIO "the superblock cannot be written";
    SuperStale EBUSY "a superblock was changed by somebody else";
    SuperFull ENOSPC "the superblock has no room left";
    // journal/
    JournalRead EIO "the journal cannot be read";
    JournalNoEntries EUCLEAN "the filesystem was not shut down cleanly and its journal is empty";
    JournalNoFlush EUCLEAN "the journal holds no entry recovery could start from";
    JournalMissing EUCLEAN "journal entries that recovery needs are missing";
    JournalTooBig EFBIG "the journal holds more keys than can be kept in memory";
    JournalFailed EROFS "the journal has failed, the filesystem is read-only";
    JournalStuck EROFS "the journal is full and nothing in it can be freed";
    JournalTooSmall EINVAL "the journal is too small";
    JournalInvalid EUCLEAN "a journal entry that was to be written breaks a rule of the format";
    JournalWrite EIO "the journal cannot be written";
    CleanSectionMissing EUCLEAN "the superblock is marked clean but has no clean section";
    // init/
    OptionUnknown EINVAL "unknown mount option";
    OptionValue EINVAL "invalid value for a mount option";
    OptionUnsupported EOPNOTSUPP "a mount option that is not supported yet";
    NoSource EINVAL "no device given";
    TooManySources EINVAL "more devices given than a filesystem can have";
    // btree/ snapshots/
    BtreeNodeRead EIO "a btree node cannot be read";
    BtreeNodeInvalid EUCLEAN "a btree node is damaged";
    BtreeRootMissing EUCLEAN "the root of a btree is lost";
    BtreeTopology EUCLEAN "a btree's nodes do not fit together";
    BtreeWriting EBUSY "the btrees are being written already";
    TransTooManyPaths E2BIG "a transaction needs more paths than there are";
    TransNested EDEADLK "a transaction was started inside another one";
    BtreeShutDown ESHUTDOWN "the filesystem is being unmounted";
    TransTooManyRestarts ETIMEDOUT "a transaction was restarted too often";
    TransTooBig E2BIG "a transaction changes too much at once";
    SnapshotInternal EROFS "keys of a snapshot that has children do not change";
    BtreeNodeWrite EIO "a btree node cannot be written";
    BtreeKeyInvalid EUCLEAN "a key that was to be written breaks a rule of the format";
    BtreeTooDeep ENOSPC "a btree is as deep as it can be, and full";
    SnapshotMissing EUCLEAN "a snapshot that is referred to does not exist";
    SubvolumeMissing ENOENT "no such subvolume";
    // alloc/ data/
    NoSpace ENOSPC "no space left";
    DevicesInsufficient EROFS "there are not enough devices to write to";
    BucketInconsistent EUCLEAN "a bucket is not what it is recorded to be";
    AllocatorStopped EROFS "the allocator has been stopped";
    DataRead EIO "no readable copy of the data";
    DataWrite EIO "data cannot be written";
    DataMoved EIO "data was moved while it was being read";
    DataChecksum EIO "no copy of the data has the right checksum";
    DataDecompress EIO "compressed data is damaged";
    ExtentInvalid EUCLEAN "an extent is damaged";
    // fs/
    InodeMissing ENOENT "no such inode";
    InodeInvalid EUCLEAN "an inode is damaged";
    DirentMissing ENOENT "no such name in the directory";
    DirentTarget ENOENT "a name points to an inode that does not exist";
    XattrMissing ENODATA "no such attribute";
    XattrInvalid EUCLEAN "an extended attribute is damaged";
    HandleStale ESTALE "the file handle no longer names a file";
    NameTooLong ENAMETOOLONG "the name is too long";
    NameExists EEXIST "the name exists";
    DirectoryFull ENOSPC "the directory has no place for the name";
    DirectoryNotEmpty ENOTEMPTY "the directory is not empty";
    NotDirectory ENOTDIR "not a directory";
    CrossDevice EXDEV "not within one filesystem, or not without changing options";
    TooManyLinks EMLINK "too many links";
    InodeNumbersFull ENOSPC "no inode number is free";
    NumberTaken EBUSY "an inode number that was free is not any more";
    XattrExists EEXIST "the attribute exists";
    XattrTooBig ENOSPC "the attribute does not fit";
    SubvolumeName EOPNOTSUPP "names of subvolumes cannot be changed yet";
    LinkTooLong ENAMETOOLONG "the target of a symbolic link is longer than is supported yet";
    NotPermitted EPERM "this cannot be done with the file";
    ReadOnly EROFS "the filesystem is read-only";
    // tests/
    TestUnknown EINVAL "there is no such test, or not with these arguments";
    TestFailed EIO "a test has found something wrong";
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Kernel(e) => write!(f, "{e:?}"),
            e => f.write_str(e.text()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Kernel(e) => write!(f, "Kernel({e:?})"),
            e => f.write_str(e.name()),
        }
    }
}

impl From<kernel::error::Error> for Error {
    fn from(e: kernel::error::Error) -> Self {
        if e == code::ENOMEM {
            Error::NoMem
        } else {
            Error::Kernel(e)
        }
    }
}

impl From<AllocError> for Error {
    fn from(_: AllocError) -> Self {
        Error::NoMem
    }
}

/// For places that have already reported the details.
impl From<Invalid> for Error {
    fn from(_: Invalid) -> Self {
        Error::MetadataInvalid
    }
}
