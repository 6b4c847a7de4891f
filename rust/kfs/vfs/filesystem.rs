// SPDX-License-Identifier: GPL-2.0

//! The trait a filesystem type implements.

use super::{
    context::{Log, MountFlags, MountPurpose},
    export, inode,
    inode::InodeRef,
    parameters::{Parameter, Spec},
    stat::FsStat,
    super_block::{New, SuperBlock},
    xattr,
};
use kernel::{error::VTABLE_DEFAULT_ERROR, fmt, prelude::*, types::ForeignOwnable};

/// A filesystem type.
///
/// The implementing type itself is a name only; it has no values. One mount goes through:
///
/// 1. [`new_options`](Self::new_options), then [`parse_parameter`](Self::parse_parameter) for each option given;
/// 2. [`identify`](Self::identify): which filesystem does the source name? If a superblock
///    for which [`is_same`](Self::is_same) answers `true` exists already, it is shared and nothing more is called;
/// 3. [`fill_super`](Self::fill_super): open the filesystem; its [`Data`](Self::Data) becomes available from the superblock;
/// 4. [`root`](Self::root).
///
/// At unmount, after the last inode is gone, [`Data`](Self::Data) is dropped (that may sleep), and only then can
/// the same devices be mounted again.
#[vtable]
pub trait FileSystem: Sized + Send + Sync + 'static {
    /// Owned by the superblock, from [`fill_super`](Self::fill_super) to the end of the unmount. Often `Arc<…>`.
    type Data: ForeignOwnable + Send + Sync + 'static;

    /// Embedded in each inode, given to [`NewInode::finish`](super::NewInode::finish), dropped when the inode leaves the cache.
    type InodeData: Send + Sync + 'static;

    /// What identifies an inode within a superblock.
    type InodeKey: Copy + Eq + Send + Sync + 'static;

    /// The values of the mount options, collected before the mount and before each reconfiguration.
    type Options: Send + 'static;

    /// What is known of a filesystem before it is opened: enough to notice that it is mounted already.
    type Identity: Send + Sync + 'static;

    /// The name for `mount -t`.
    const NAME: &'static CStr;

    /// `FS_*` flags of the type besides those that follow from this layer: see [`TypeFlags`].
    const FLAGS: TypeFlags = TypeFlags::NONE;

    /// The mount options, other than `source` and those that the VFS knows itself (`ro`, `sync`, …).
    const PARAMETERS: &'static [Spec];

    /// The extended attributes that are served, closed by [`xattr::Prefix::END`].
    const XATTR: &'static [xattr::Prefix<Self>] = &[xattr::Prefix::END];

    /// File handles (NFS, `open_by_handle_at(2)`), if there are any.
    const EXPORT: Option<export::Table<Self>> = None;

    /// The hash of an inode's key, for the inode cache. Atomic context.
    fn hash(key: &Self::InodeKey) -> u64;

    /// Starts a mount or a reconfiguration.
    fn new_options(purpose: MountPurpose<'_, Self>) -> Result<Self::Options>;

    /// Takes one option. The value has the type that [`PARAMETERS`](Self::PARAMETERS) announced; unknown names and
    /// malformed values have been refused before.
    fn parse_parameter(
        options: &mut Self::Options,
        parameter: &Parameter<'_>,
        log: &Log<'_>,
    ) -> Result;

    /// Says which filesystem `source` (what `mount` was given as device) names.
    fn identify(
        options: &mut Self::Options,
        source: Option<&CStr>,
        log: &Log<'_>,
    ) -> Result<Self::Identity>;

    /// Whether a mount that wants `wanted` is to share the superblock that was made for `existing`.
    ///
    /// Atomic context: under a spinlock of the VFS. Must not sleep.
    fn is_same(existing: &Self::Identity, wanted: &Self::Identity) -> bool;

    /// Opens the filesystem and describes the superblock.
    fn fill_super(
        sb: &SuperBlock<Self, New>,
        options: &mut Self::Options,
        identity: &Self::Identity,
        flags: MountFlags,
        log: &Log<'_>,
    ) -> Result<Self::Data>;

    /// The root directory.
    fn root(sb: &SuperBlock<Self>) -> Result<InodeRef<'_, Self>>;

    /// Changes options of a mounted filesystem (`mount -o remount`). `flags` are the ones wanted.
    ///
    /// A filesystem that refuses to become writable returns `EROFS` when `!flags.is_read_only()`.
    fn reconfigure(
        _sb: &SuperBlock<Self>,
        _options: &mut Self::Options,
        _flags: MountFlags,
        _log: &Log<'_>,
    ) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Space and inodes in use.
    fn statfs(sb: &SuperBlock<Self>, inode: &inode::Inode<Self>) -> Result<FsStat>;

    /// Prints the options for `/proc/mounts`, each with a comma in front: `,name` or `,name=value`.
    fn show_options(_sb: &SuperBlock<Self>, _out: &mut dyn fmt::Write) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Prints the first field of `/proc/mounts`. Without it, what `mount` was given is shown.
    fn show_device_name(_sb: &SuperBlock<Self>, _out: &mut dyn fmt::Write) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Makes everything durable; with `wait`, returns only when it is (`sync(2)`, unmount).
    fn sync(_sb: &SuperBlock<Self>, _wait: bool) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Before the filesystem is frozen (`fsfreeze`, snapshots of the device): makes everything durable, and changes nothing from its
    /// return to [`thaw`](Self::thaw). Processes that would write through the VFS are held back by it.
    fn freeze(_sb: &SuperBlock<Self>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// After [`freeze`](Self::freeze): changes are possible again.
    fn thaw(_sb: &SuperBlock<Self>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Deletes an inode without links that nobody uses any more: its last user is gone. Its pages are gone, too. What goes wrong is
    /// the filesystem's to report, and to do later.
    fn delete(_inode: &inode::Inode<Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Writes what only the VFS's fields of the inode know: times that were put off (`lazytime`). With `wait` for a caller who
    /// wants them durable, which is done separately.
    fn write_inode(_inode: &inode::Inode<Self>, _wait: bool) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called at unmount after the last inode is gone and before [`Data`](Self::Data) is dropped.
    fn put_super(_sb: &SuperBlock<Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// Properties of a filesystem type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TypeFlags(pub(super) u32);

impl TypeFlags {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// Owners are only ever read and written through the VFS's setters: idmapped mounts may be made.
    pub const ALLOW_IDMAP: Self = Self(crate::bindings::FS_ALLOW_IDMAP);
    /// Blocks larger than a page are possible.
    pub const LARGE_BLOCKS: Self = Self(crate::bindings::FS_LBS);
    /// The mount is frozen when the machine is suspended.
    pub const POWER_FREEZE: Self = Self(crate::bindings::FS_POWER_FREEZE);

    /// Both sets of flags.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
