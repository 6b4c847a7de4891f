// SPDX-License-Identifier: GPL-2.0

//! A small read-only filesystem, in memory, that uses every part of the kernel layer's VFS side; `rust/tests/run` mounts it
//! and looks at it from user space.
//!
//! ```text
//! mount -t kfs_example DEVICE DIR
//!
//! 1 /               4 device     the contents of DEVICE, read by it straight into the destination
//!                   5 pattern    3 MiB and 123 bytes; of each 192 KiB the first 128 are data, then 64 of hole
//!                   6 link       -> dir/small
//!                   7 fifo, 8 null (1:3), 9 socket
//!                   2 dir/       10 small "hello\n", with a hard link in /: hard
//!                   3 many/      f00000 … f04999: empty files 100000 …
//!                  11 damaged    reads fail with EIO
//! ```

#![forbid(unsafe_code)]

mod attributes;
mod contents;
mod names;

use self::{
    attributes::{Handles, TrustedXattr, UserXattr},
    contents::Contents,
    names::{Entries, Operations},
};
use kernel::{fmt, prelude::*, str::CString, sync::Arc};
use kfs::{
    block::{Access, BioSet, BlockDevice, SECTOR_SIZE},
    vfs::{
        export, file,
        inode::{self, Flags, Kind},
        iomap,
        parameters::{Parameter, Spec, Value},
        stat::FsStat,
        super_block::New,
        xattr, FileSystem, Inode, InodeEntry, InodeRef, Log, MountFlags, MountPurpose, Registration,
        SuperBlock, Timestamp,
    },
};

module! {
    type: Example,
    name: "kfs_example",
    authors: ["The bcachefs-rust developers"],
    description: "Test of the kernel layer",
    license: "GPL",
    alias: ["fs-kfs_example"],
}

struct Example {
    _registration: Registration<ExampleFs>,
}

impl kernel::Module for Example {
    fn init(module: &'static ThisModule) -> Result<Self> {
        Ok(Self { _registration: Registration::new(module)? })
    }
}

struct ExampleFs;

/// What a mount keeps.
struct Mounted {
    device: Arc<BlockDevice>,
    bios: Arc<BioSet>,
    delay: u32,
}

#[derive(Default)]
struct Options {
    delay: u32,
}

/// What an inode keeps: its entry in [`NODES`], or an empty file.
struct Node {
    number: u64,
    birth: Timestamp,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Directory(&'static [(&'static str, u64)]),
    Many,
    Device,
    Pattern,
    Small,
    Damaged,
    Empty,
    Link(&'static str),
    Fifo,
    Null,
    Socket,
}

const MANY: u64 = 100_000;
const MANY_COUNT: u64 = 5000;
const SMALL: &[u8] = b"hello\n";
const BLOCK: u64 = 4096;
const STRIPE: u64 = 192 << 10;
const DATA: u64 = 128 << 10;
const PATTERN_SIZE: u64 = (3 << 20) + 123;
const EPOCH: i64 = 1_700_000_000;

const ROOT: &[(&str, u64)] = &[
    ("device", 4),
    ("pattern", 5),
    ("link", 6),
    ("fifo", 7),
    ("null", 8),
    ("socket", 9),
    ("dir", 2),
    ("many", 3),
    ("hard", 10),
    ("damaged", 11),
];

fn node_type(number: u64) -> Option<Type> {
    Some(match number {
        1 => Type::Directory(ROOT),
        2 => Type::Directory(&[("small", 10)]),
        3 => Type::Many,
        4 => Type::Device,
        5 => Type::Pattern,
        6 => Type::Link("dir/small"),
        7 => Type::Fifo,
        8 => Type::Null,
        9 => Type::Socket,
        10 => Type::Small,
        11 => Type::Damaged,
        n if (MANY..MANY + MANY_COUNT).contains(&n) => Type::Empty,
        _ => return None,
    })
}

fn open(sb: &SuperBlock<ExampleFs>, number: u64) -> Result<InodeRef<'_, ExampleFs>> {
    let mut new = match sb.inode(number)? {
        InodeEntry::Cached(inode) => return Ok(inode),
        InodeEntry::New(new) => new,
    };
    let of_type = node_type(number).ok_or(ENOENT)?;
    let time = Timestamp { seconds: EPOCH + number as i64, nanoseconds: number as u32 };
    new.set_number(number);
    new.set_owner(1000 + (number % 7) as u32, 100);
    new.set_times(time, time, time);
    new.set_generation(number as u32 ^ 0x5555);
    if number != 10 && number != 2 {
        new.set_no_acl();
    }
    let inode = inode::Table::new::<Operations>();
    let regular = || Kind::Regular {
        inode,
        file: file::Table::iomap::<Contents>(),
        mapping: iomap::Table::new::<Contents>(),
    };
    let directory = || Kind::Directory { inode, file: file::Table::directory::<Entries>() };
    let (permissions, links, size, kind) = match of_type {
        Type::Directory(_) | Type::Many => (0o755, 2, 4096, directory()),
        Type::Device => (0o644, 1, sb.data().device.size_sectors() * SECTOR_SIZE as u64, regular()),
        Type::Pattern => (0o640, 1, PATTERN_SIZE, regular()),
        Type::Small => (0o4755, 2, SMALL.len() as u64, regular()),
        Type::Damaged => (0o644, 1, 1 << 20, regular()),
        Type::Empty => (0o600, 1, 0, regular()),
        Type::Link(target) => (0o777, 1, target.len() as u64, Kind::Symlink { inode }),
        Type::Fifo => (0o600, 1, 0, Kind::Fifo { inode }),
        Type::Null => (0o666, 1, 0, Kind::CharDevice { inode, major: 1, minor: 3 }),
        Type::Socket => (0o600, 1, 0, Kind::Socket { inode }),
    };
    new.set_permissions(permissions);
    new.set_links(links);
    new.set_size(size);
    new.set_blocks(size.div_ceil(SECTOR_SIZE as u64));
    new.set_flags(Flags { noatime: number == 5, immutable: number == 10, ..Flags::default() });
    let birth = Timestamp { seconds: EPOCH, nanoseconds: 42 };
    Ok(new.finish(kind, Node { number, birth }))
}

#[vtable]
impl FileSystem for ExampleFs {
    type Data = Arc<Mounted>;
    type InodeData = Node;
    type InodeKey = u64;
    type Options = Options;
    type Identity = CString;

    const NAME: &'static CStr = c"kfs_example";
    const PARAMETERS: &'static [Spec] =
        &[Spec::u32("delay"), Spec::flag("fail"), Spec::choice("mood", &["good", "bad"])];
    const XATTR: &'static [xattr::Prefix<Self>] = &[
        xattr::Prefix::of::<UserXattr>(),
        xattr::Prefix::of::<TrustedXattr>(),
        xattr::Prefix::END,
    ];
    const EXPORT: Option<export::Table<Self>> = Some(export::Table::new::<Handles>());

    fn hash(key: &u64) -> u64 {
        *key
    }

    fn new_options(purpose: MountPurpose<'_, Self>) -> Result<Options> {
        Ok(match purpose {
            MountPurpose::Mount => Options::default(),
            MountPurpose::Reconfigure(sb) => Options { delay: sb.data().delay },
        })
    }

    fn parse_parameter(options: &mut Options, parameter: &Parameter<'_>, log: &Log<'_>) -> Result {
        match (parameter.name, parameter.value) {
            ("delay", Value::U32(delay)) => options.delay = delay,
            ("mood", Value::Choice(0)) => {}
            (name, _) => return Err(log.invalid(fmt!("{name}: not today"))),
        }
        Ok(())
    }

    fn identify(_: &mut Options, source: Option<&CStr>, log: &Log<'_>) -> Result<CString> {
        let source = source.ok_or_else(|| log.invalid(fmt!("no device given")))?;
        CString::try_from_fmt(fmt!("{}", source))
    }

    fn is_same(existing: &CString, wanted: &CString) -> bool {
        existing.to_bytes() == wanted.to_bytes()
    }

    fn fill_super(
        sb: &SuperBlock<Self, New>,
        options: &mut Options,
        identity: &CString,
        flags: MountFlags,
        log: &Log<'_>,
    ) -> Result<Arc<Mounted>> {
        if !flags.is_read_only() {
            log.warn(fmt!("mounting read-only"));
        }
        sb.force_read_only();
        sb.set_magic(0x4b46_5321);
        sb.set_block_size(BLOCK as u32)?;
        sb.set_max_bytes(i64::MAX as u64);
        sb.set_time(1, i64::MIN, i64::MAX);
        sb.set_uuid(&[7; 16]);
        sb.enable_acl();
        let device = BlockDevice::open(identity, Access::ReadOnly)
            .inspect_err(|e| log.error(fmt!("cannot open {}: {:?}", &**identity, e)))?;
        sb.set_name(device.name().as_str());
        let mounted = Mounted { device, bios: BioSet::new(16)?, delay: options.delay };
        Ok(Arc::new(mounted, GFP_KERNEL)?)
    }

    fn root(sb: &SuperBlock<Self>) -> Result<InodeRef<'_, Self>> {
        open(sb, 1)
    }

    fn reconfigure(
        _: &SuperBlock<Self>,
        options: &mut Options,
        _: MountFlags,
        log: &Log<'_>,
    ) -> Result {
        if options.delay > 1000 {
            return Err(log.invalid(fmt!("a delay of {} is too long", options.delay)));
        }
        Ok(())
    }

    fn statfs(sb: &SuperBlock<Self>, _: &Inode<Self>) -> Result<FsStat> {
        Ok(FsStat {
            magic: 0x4b46_5321,
            block_size: BLOCK as u32,
            blocks: sb.data().device.size_sectors() / 8,
            blocks_free: 10,
            blocks_available: 9,
            files: 5011,
            files_free: 0,
            id: 0x1234_5678_9abc_def0,
            name_length: 255,
        })
    }

    fn show_options(sb: &SuperBlock<Self>, out: &mut dyn fmt::Write) -> Result {
        write!(out, ",delay={}", sb.data().delay).map_err(|_| EIO)
    }
}
