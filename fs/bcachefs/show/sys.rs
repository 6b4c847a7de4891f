// SPDX-License-Identifier: GPL-2.0
//! Files in sysfs.

use core::fmt;

use bcachefs_format::SuperBlock;
use kernel::{c_str, prelude::*, str::CString, sync::Arc};
use kfs::show::sysfs::Dir;

use crate::{
    init::{Filesystem, Phase},
    sb::{device::IoErrorKind, Device},
    util::{counters::Counter, error::Result},
};

/// The directory of one filesystem.
pub struct SysFiles {
    _dirs: KVec<Dir>,
}

impl SysFiles {
    pub(super) fn new(fs: &Arc<Filesystem>, name: &CStr) -> Result<Self> {
        let mut dirs = KVec::new();
        let top = Dir::in_fs(c_str!("bcachefs"))?.subdir(name)?;
        top_files(&top, fs)?;
        for (name, fill) in [
            (c_str!("internal"), internal as fn(&Dir, &Arc<Filesystem>) -> Result),
            (c_str!("counters"), counters),
            (c_str!("options"), options),
        ] {
            let dir = top.subdir(name)?;
            fill(&dir, fs)?;
            dirs.push(dir, GFP_KERNEL)?;
        }
        for device in fs.devices.iter() {
            let name = CString::try_from_fmt(core::format_args!("dev-{}", device.index))?;
            let dir = top.subdir(&name)?;
            device_files(&dir, fs, device)?;
            dirs.push(dir, GFP_KERNEL)?;
        }
        // Last in, first dropped does not matter: a directory is removed with its last reference.
        dirs.push(top, GFP_KERNEL)?;
        Ok(SysFiles { _dirs: dirs })
    }
}

/// A file that prints something of the filesystem.
fn file<F>(dir: &Dir, name: &'static CStr, fs: &Arc<Filesystem>, print: F) -> Result
where
    F: Fn(&Filesystem, &mut dyn fmt::Write) -> fmt::Result + Send + Sync + 'static,
{
    let fs = fs.clone();
    dir.read_only(name, move |out| print(&fs, out))?;
    Ok(())
}

fn top_files(dir: &Dir, fs: &Arc<Filesystem>) -> Result {
    #[cfg(bcachefs_tests)]
    perf_test(dir, fs)?;
    file(dir, c_str!("errors"), fs, |fs, out| {
        let print = |sb: &SuperBlock<'_>| {
            sb.errors()
                .entries()
                .iter()
                .try_for_each(|e| writeln!(out, "{:<56} {:>12}", e.id(), e.count()))
        };
        fs.live.read(print).unwrap_or(Ok(()))
    })
}

/// Runs a test in the mounted filesystem: `NAME ARGUMENT...`. The result is in the kernel log.
#[cfg(bcachefs_tests)]
fn perf_test(dir: &Dir, fs: &Arc<Filesystem>) -> Result {
    let fs = fs.clone();
    dir.read_write(
        c_str!("perf_test"),
        |_| Ok(()),
        move |text| crate::tests::command(&fs, text).map_err(|e| e.errno()),
    )?;
    Ok(())
}

fn internal(dir: &Dir, fs: &Arc<Filesystem>) -> Result {
    file(dir, c_str!("flags"), fs, |fs, out| {
        out.write_str("started")?;
        if fs.sup.clean {
            out.write_str(",clean_recovery")?;
        }
        if fs.writing.has_failed() {
            out.write_str(",error")?;
        }
        writeln!(out, ",{}", fs.writing.phase())
    })?;
    let sync_fs = fs.clone();
    dir.read_write(
        c_str!("trigger_journal_commit"),
        |_| Ok(()),
        move |_| sync_fs.writing.sync(true).map_err(|e| e.errno()),
    )?;
    file(dir, c_str!("journal_debug"), fs, |fs, out| {
        writeln!(out, "{}", fs.journal)
    })?;
    file(dir, c_str!("btree_cache"), fs, |fs, out| {
        writeln!(out, "{}", &*fs.btree)
    })
}

fn counters(dir: &Dir, fs: &Arc<Filesystem>) -> Result {
    for counter in Counter::all() {
        file(dir, counter.c_name(), fs, move |fs, out| {
            writeln!(out, "since mount:               {}", fs.counters.since_mount(counter))?;
            writeln!(out, "since filesystem creation: {}", fs.counters.total(counter))
        })?;
    }
    Ok(())
}

/// One file for each option of the superblock.
macro_rules! option_files {
    ($dir:ident, $fs:ident: $($name:ident)*) => {
        $(
            file($dir, c_str!(stringify!($name)), $fs, |fs, out| {
                match fs.sup.raw().and_then(|sb| Ok(sb.options()?)) {
                    Ok(options) => writeln!(out, "{}", Shown(&options.$name)),
                    Err(_) => Ok(()),
                }
            })?;
        )*
    };
}

fn options(dir: &Dir, fs: &Arc<Filesystem>) -> Result {
    option_files! { dir, fs:
        block_size btree_node_size metadata_replicas data_replicas
        metadata_replicas_required data_replicas_required encoded_extent_max metadata_checksum
        data_checksum compression background_compression str_hash metadata_target
        foreground_target background_target promote_target erasure_code
        shard_inode_numbers inodes_use_key_cache gc_reserve_percent gc_reserve_bytes
        root_reserve_percent wide_macs acl usrquota grpquota prjquota journal_flush_delay
        journal_flush_disabled journal_reclaim_delay journal_transaction_names
        allocator_stuck_timeout version_upgrade nocow promote_whole_extents
    }
    file(dir, c_str!("errors"), fs, |fs, out| {
        writeln!(out, "{}", fs.options.errors.unwrap_or(fs.sup.error_action()))
    })?;
    file(dir, c_str!("degraded"), fs, |fs, out| {
        writeln!(out, "{}", Shown(&(fs.options.policy.degraded != Default::default())))
    })?;
    file(dir, c_str!("verbose"), fs, |fs, out| {
        writeln!(out, "{}", Shown(&fs.options.verbose))
    })?;
    file(dir, c_str!("read_only"), fs, |fs, out| {
        writeln!(out, "{}", u8::from(fs.writing.phase() != Phase::ReadWrite))
    })
}

/// Prints booleans as sysfs does, everything else as it prints itself.
struct Shown<'a, T: ?Sized>(&'a T);

impl<T: fmt::Display + ?Sized> fmt::Display for Shown<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn device_files(dir: &Dir, fs: &Arc<Filesystem>, device: &Arc<Device>) -> Result {
    let file = |name, print: fn(&Device, &mut dyn fmt::Write) -> fmt::Result| -> Result {
        let device = device.clone();
        dir.read_only(name, move |out| print(&device, out))?;
        Ok(())
    };
    file(c_str!("uuid"), |d, out| writeln!(out, "{}", d.member.uuid))?;
    file(c_str!("bucket_size"), |d, out| {
        writeln!(out, "{}", u32::from(d.bucket_sectors) << 9)
    })?;
    file(c_str!("first_bucket"), |d, out| writeln!(out, "{}", d.first_bucket))?;
    file(c_str!("nbuckets"), |d, out| writeln!(out, "{}", d.nbuckets))?;
    file(c_str!("durability"), |d, out| writeln!(out, "{}", d.member.durability()))?;
    file(c_str!("discard"), |d, out| {
        writeln!(out, "{}", u8::from(d.member.discard()))
    })?;
    file(c_str!("state"), |d, out| writeln!(out, "{}", d.member.state()))?;
    file(c_str!("io_errors"), io_errors)?;
    file(c_str!("io_done"), |d, out| {
        let stats = d.bdev.stats();
        writeln!(out, "read:\n{:<12}: {:>12}", "bytes", stats.read_bytes)?;
        writeln!(out, "{:<12}: {:>12}", "requests", stats.reads)
    })?;
    file(c_str!("io_latency_read"), |d, out| {
        let stats = d.bdev.stats();
        let mean = stats.read_ns.checked_div(stats.reads).unwrap_or(0);
        writeln!(out, "mean {mean} ns\nmax  {} ns", stats.read_ns_max)
    })?;
    let (label_fs, index) = (fs.clone(), device.index);
    dir.read_only(c_str!("label"), move |out| label(&label_fs, index, out))?;
    dir.link(c_str!("block"), &device.bdev)?;
    Ok(())
}

fn io_errors(d: &Device, out: &mut dyn fmt::Write) -> fmt::Result {
    let kinds = [
        ("read", IoErrorKind::Read),
        ("write", IoErrorKind::Write),
        ("checksum", IoErrorKind::Checksum),
    ];
    writeln!(out, "IO errors since filesystem creation")?;
    for ((name, kind), stored) in kinds.iter().zip(d.member.errors) {
        writeln!(out, "  {name:<10}{}", stored.get().saturating_add(d.errors(*kind)))?;
    }
    writeln!(out, "IO errors since mount")?;
    kinds
        .iter()
        .try_for_each(|(name, kind)| writeln!(out, "  {name:<10}{}", d.errors(*kind)))
}

fn label(fs: &Filesystem, index: u8, out: &mut dyn fmt::Write) -> fmt::Result {
    let Ok(sb) = fs.sup.raw() else { return Ok(()) };
    match sb.members().get(index).and_then(|m| m.group()) {
        Some(group) => writeln!(out, "{}", sb.disk_groups().path(group.into())),
        None => writeln!(out, "(none)"),
    }
}
