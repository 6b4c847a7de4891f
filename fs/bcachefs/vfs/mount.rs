// SPDX-License-Identifier: GPL-2.0
//! The file system type: mount options, superblocks, statfs.

use bcachefs_format::{
    features::Features,
    keys::inode::{time::UnixTime, TimeBase},
    sb::options::StrHashOpt,
};
use kernel::{
    error::Result,
    fmt,
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, SetOnce,
    },
};
use kfs::vfs::{
    self,
    context::{Log, MountFlags, MountPurpose},
    export,
    FileSystem, TypeFlags,
    parameters::{Parameter, Spec, Value},
    stat::FsStat,
    super_block::{New, SuperBlock},
    xattr::Prefix,
    Inode, InodeRef,
};

use super::{
    export::Handles,
    inode::{self, InodeInfo},
    option_xattr::{Effective, Explicit},
    xattr::{Security, Trusted, User},
};
use crate::{
    alloc::accounting::{self, Usage},
    data::{write::Parts, Reader, Writer},
    fs::{dirent, inode::Numbers, InodeId},
    init::{self, Access, Filesystem, Options, Request},
    show::Show,
    util::{error::Error, log},
};

/// What `statfs` reports as the type.
const MAGIC: u64 = 0xca45_1a4e;

/// Bytes read ahead for each device.
const READAHEAD_PER_DEVICE: usize = 256 << 10;

/// Devices beyond which there is no more reading ahead.
const READAHEAD_DEVICES_MAX: usize = 8;

/// What any file's data may need.
const DATA_FEATURES: Features = Features(
    Features::INLINE_DATA.0 | Features::REFLINK.0 | Features::REFLINK_INLINE_DATA.0,
);

/// The file system type.
pub struct Bcachefs;

/// What a superblock holds.
pub struct Mount {
    /// What it shows of itself; goes first, as it refers to the rest.
    _show: Show,
    /// The filesystem.
    pub fs: Arc<Filesystem>,
    /// Reads its file data.
    pub reader: Arc<Reader>,
    /// Writes it; there once the filesystem has been read-write.
    writer: SetOnce<Arc<Writer>>,
    /// How times are stored in it.
    pub times: TimeBase,
    /// Numbers for new inodes.
    pub numbers: Numbers,
    /// How names are hashed in new inodes.
    pub str_hash: StrHashOpt,
    /// Features that the superblock is known to name.
    features: Atomic<u64>,
}

/// Options being collected for a mount or a remount.
pub struct Collected {
    options: Options,
    purpose: Purpose,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Purpose {
    Mount,
    Remount,
}

/// Messages of a mount in progress, on their way to the process that mounts.
struct MountLog<'a, 'b>(&'a Log<'b>);

impl log::Log for MountLog<'_, '_> {
    fn line(&self, severity: log::Severity, text: fmt::Arguments<'_>) {
        match severity {
            log::Severity::Error => self.0.error(text),
            log::Severity::Warning => self.0.warn(text),
            log::Severity::Info => self.0.info(text),
        }
    }
}

#[vtable]
impl FileSystem for Bcachefs {
    type Data = KBox<Mount>;
    type InodeData = InodeInfo;
    type InodeKey = InodeId;
    type Options = Collected;
    type Identity = Request;

    const NAME: &'static CStr = c"bcachefs";
    const FLAGS: TypeFlags = TypeFlags::ALLOW_IDMAP.and(TypeFlags::LARGE_BLOCKS);
    const PARAMETERS: &'static [Spec] = &[Spec::any()];
    const XATTR: &'static [Prefix<Self>] = &[
        Prefix::of::<User>(),
        Prefix::of::<Trusted>(),
        Prefix::of::<Security>(),
        Prefix::of::<Explicit>(),
        Prefix::of::<Effective>(),
        Prefix::END,
    ];
    const EXPORT: Option<export::Table<Self>> = Some(export::Table::new::<Handles>());

    fn hash(key: &InodeId) -> u64 {
        // The inode cache mixes the bits.
        key.inum ^ u64::from(key.subvol) << 40
    }

    fn new_options(purpose: MountPurpose<'_, Self>) -> Result<Collected> {
        Ok(match purpose {
            MountPurpose::Mount => Collected {
                options: Options::default(),
                purpose: Purpose::Mount,
            },
            MountPurpose::Reconfigure(sb) => Collected {
                options: sb.data().fs.options,
                purpose: Purpose::Remount,
            },
        })
    }

    fn parse_parameter(
        collected: &mut Collected,
        parameter: &Parameter<'_>,
        log: &Log<'_>,
    ) -> Result {
        let text = match parameter.value {
            Value::Raw(text) => text,
            _ => None,
        };
        let name = parameter.name;
        collected
            .options
            .parse(name, text, &MountLog(log))
            .map_err(Error::errno)?;
        if collected.purpose == Purpose::Remount {
            log.warn(fmt!("option '{name}' has no effect on a mounted filesystem"));
        }
        Ok(())
    }

    fn identify(_: &mut Collected, source: Option<&CStr>, log: &Log<'_>) -> Result<Request> {
        Request::new(source.unwrap_or(c""), &MountLog(log)).map_err(Error::errno)
    }

    fn is_same(existing: &Request, wanted: &Request) -> bool {
        existing.covers(wanted)
    }

    fn fill_super(
        sb: &SuperBlock<Self, New>,
        collected: &mut Collected,
        request: &Request,
        flags: MountFlags,
        log: &Log<'_>,
    ) -> Result<KBox<Mount>> {
        let access = if flags.is_read_only() {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        };
        let fs = init::mount(request, collected.options, access, &MountLog(log))
            .map_err(Error::errno)?;
        let mount = Mount::new(fs).map_err(Error::errno)?;
        let sup = &mount.fs.sup;
        if access == Access::ReadWrite {
            mount.start_writer().map_err(Error::errno)?;
            log.warn(fmt!("read-write mounts are for tests: what is written may be lost"));
        }

        sb.set_magic(MAGIC);
        sb.set_block_size(sup.block_bytes())?;
        sb.set_max_bytes(vfs::MAX_FILE_POSITION);
        sb.set_uuid(&sup.user_uuid.0);
        sb.set_readahead(readahead_bytes(&mount.fs));
        let per_second = i64::from(1_000_000_000 / mount.times.granularity().max(1)).max(1);
        sb.set_time(
            mount.times.granularity(),
            i64::MIN / per_second + 1,
            i64::MAX / per_second,
        );
        if sup.posix_acl() && !mount.fs.options.noacl {
            sb.enable_acl();
        }
        Ok(mount)
    }

    fn root(sb: &SuperBlock<Self>) -> Result<InodeRef<'_, Self>> {
        inode::get(sb, InodeId::ROOT).map_err(Error::errno)
    }

    fn reconfigure(
        sb: &SuperBlock<Self>,
        _: &mut Collected,
        flags: MountFlags,
        log: &Log<'_>,
    ) -> Result {
        let mount = sb.data();
        let writing = &mount.fs.writing;
        match flags.is_read_only() {
            true => writing.go_read_only(),
            false => writing
                .go_read_write(&MountLog(log))
                .and_then(|()| mount.start_writer()),
        }
        .map_err(Error::errno)
    }

    fn sync(sb: &SuperBlock<Self>, wait: bool) -> Result {
        sb.data().fs.writing.sync(wait).map_err(Error::errno)
    }

    fn freeze(sb: &SuperBlock<Self>) -> Result {
        sb.data().fs.writing.freeze().map_err(Error::errno)
    }

    fn thaw(sb: &SuperBlock<Self>) -> Result {
        let writing = &sb.data().fs.writing;
        writing.thaw(&log::KernelLog).map_err(Error::errno)
    }

    fn delete(inode: &Inode<Self>) {
        inode::unused::delete(inode);
    }

    fn write_inode(inode: &Inode<Self>, _: bool) -> Result {
        inode::unused::write_times(inode).map_err(Error::errno)
    }

    fn statfs(sb: &SuperBlock<Self>, _: &Inode<Self>) -> Result<FsStat> {
        let fs = &sb.data().fs;
        let usage = usage(fs).map_err(Error::errno)?;
        let block_sectors = u64::from(fs.sup.block_sectors.max(1));
        // As many inodes as the free space could hold, at 64 bytes each.
        let more = usage.free().saturating_mul(8);
        Ok(FsStat {
            magic: MAGIC,
            block_size: fs.sup.block_bytes(),
            blocks: usage.capacity / block_sectors,
            blocks_free: usage.free() / block_sectors,
            blocks_available: usage.available() / block_sectors,
            files: usage.inodes.saturating_add(more),
            files_free: more,
            id: fold_uuid(&fs.sup.user_uuid.0),
            name_length: dirent::edit::NEW_NAME_MAX as u32,
        })
    }

    fn show_options(sb: &SuperBlock<Self>, out: &mut dyn fmt::Write) -> Result {
        let options = sb.data().fs.options;
        out.write_fmt(format_args!("{options}"))
            .map_err(|_| ENOMEM)
    }

    fn put_super(sb: &SuperBlock<Self>) {
        // Reads hold on to the btree, which is shut down when the filesystem is dropped.
        sb.data().reader.wait_idle();
        if let Ok(writer) = sb.data().writer() {
            writer.wait_idle();
        }
    }
}

impl Mount {
    #[inline(never)]
    fn new(fs: Arc<Filesystem>) -> crate::util::error::Result<KBox<Mount>> {
        let name = kernel::str::CString::try_from_fmt(format_args!("{}", *fs.sup))?;
        let encoded_max = fs.sup.encoded_extent_max_sectors as usize * 512;
        let reader = Reader::new(
            name,
            fs.btree.clone(),
            fs.devices.clone(),
            fs.counters.clone(),
            encoded_max,
        )?;
        let times = fs.sup.times();
        let (numbers, str_hash) = for_new_inodes(&fs)?;
        let show = Show::new(&fs)?;
        let mount = Mount {
            _show: show,
            fs,
            reader,
            writer: SetOnce::new(),
            times,
            numbers,
            str_hash,
            features: Atomic::new(0),
        };
        Ok(KBox::new(mount, GFP_KERNEL)?)
    }
}

/// What new inodes get their numbers from, and how names are hashed in them.
#[inline(never)]
fn for_new_inodes(fs: &Filesystem) -> crate::util::error::Result<(Numbers, StrHashOpt)> {
    let options = fs.sup.raw()?.options()?;
    Ok((Numbers::new(&options)?, options.str_hash))
}

impl Mount {
    /// The time of now, as keys have it.
    pub(super) fn now(&self, sb: &SuperBlock<Bcachefs>) -> i64 {
        let now = sb.now();
        self.times.from_unix(UnixTime { secs: now.seconds, nanos: now.nanoseconds })
    }

    /// What writes file data.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`] if the filesystem has never been read-write.
    pub(super) fn writer(&self) -> crate::util::error::Result<&Arc<Writer>> {
        self.writer.as_ref().ok_or(Error::ReadOnly)
    }

    /// Makes what writes file data, if it is not there. The filesystem has just become read-write; nobody else does this at the same
    /// time. Sleeps.
    fn start_writer(&self) -> crate::util::error::Result {
        if self.writer.as_ref().is_some() {
            return Ok(());
        }
        self.require(DATA_FEATURES)?;
        let fs = &self.fs;
        let allocator = fs.writing.allocator().ok_or(Error::ReadOnly)?;
        self.reader.watch(allocator);
        let writer = Writer::new(Parts {
            name: kernel::str::CString::try_from_fmt(format_args!("{}", *fs.sup))?,
            sup: fs.sup.clone(),
            btree: fs.btree.clone(),
            devices: fs.devices.clone(),
            counters: fs.counters.clone(),
            clocks: fs.writing.clocks.clone(),
            allocator: allocator.clone(),
            copygc: fs.writing.copygc().ok_or(Error::ReadOnly)?.clone(),
        })?;
        self.writer.populate(writer);
        Ok(())
    }

    /// Has the superblock name `features` before they are used. Sleeps; it is written if it does not name them yet.
    pub(super) fn require(&self, features: Features) -> crate::util::error::Result {
        if self.features.load(Relaxed) & features.0 == features.0 {
            return Ok(());
        }
        if !self.fs.live.read(|sb| sb.features().contains(features))? {
            self.fs.live.change(|image| image.edit_features(features, Features(0)))?;
        }
        // Who forgets what another one has just found out looks it up again.
        self.features.store(self.features.load(Relaxed) | features.0, Relaxed);
        Ok(())
    }
}

/// How far to read ahead: what keeps every device busy, in whole extents.
fn readahead_bytes(fs: &Filesystem) -> usize {
    let extent = fs.sup.encoded_extent_max_sectors as usize * 512;
    let devices = fs.devices.iter().count().clamp(1, READAHEAD_DEVICES_MAX);
    (READAHEAD_PER_DEVICE * devices).max(2 * extent)
}

/// Space in use.
fn usage(fs: &Filesystem) -> crate::util::error::Result<Usage> {
    if let Some(allocator) = fs.writing.allocator() {
        return Ok(allocator.usage());
    }
    let options = fs.sup.raw()?.options()?;
    fs.btree
        .run(|t| accounting::usage(t, &fs.devices, &options))
}

/// A UUID as 64 bits: one half over the other.
fn fold_uuid(uuid: &[u8; 16]) -> u64 {
    let (low, high) = uuid.split_at(8);
    let word = |half: &[u8]| half.iter().rev().fold(0, |w, b| w << 8 | u64::from(*b));
    word(low) ^ word(high)
}
