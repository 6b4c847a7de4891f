// SPDX-License-Identifier: GPL-2.0
//! Changing attributes: owner, permissions, times, flags.

use bcachefs_format::keys::inode::{Inode as Key, InodeFlags, InodeOpt, Mode};
use kfs::vfs::inode::{Changes, FileAttributes, TimeUpdate};

use super::{
    flags, mount, stored,
    update::{change, transact, Fields, COMMIT_ALWAYS},
    Inode,
};
use crate::{
    fs::acl,
    util::error::{Error, Result},
    vfs::file,
};

/// Changes what `changes` says. Sleeps.
pub(super) fn set(inode: &Inode, changes: &Changes) -> Result {
    if let Some(size) = changes.size {
        file::set_size(inode, size)?;
    }
    let (mount, info) = (mount(inode), inode.data());
    let time = |time: Option<_>| time.map(|t| stored(mount, t));
    let (atime, mtime, ctime) = (time(changes.atime), time(changes.mtime), time(changes.ctime));
    let mut fields = Fields::NONE;
    let table = [
        (changes.mode.is_some(), Fields::MODE),
        (changes.uid.is_some() || changes.gid.is_some(), Fields::OWNER),
        (atime.is_some(), Fields::ATIME),
        (mtime.is_some(), Fields::MTIME),
        (ctime.is_some(), Fields::CTIME),
    ];
    for (_, field) in table.iter().filter(|(on, _)| *on) {
        fields = fields.and(*field);
    }
    transact(inode, COMMIT_ALWAYS, fields, &mut |t, edited| {
        let key = &mut edited.key;
        if let Some(mode) = changes.mode {
            key.mode = with_permissions(key, mode);
        }
        key.uid = changes.uid.unwrap_or(key.uid);
        key.gid = changes.gid.unwrap_or(key.gid);
        key.atime = atime.unwrap_or(key.atime);
        key.mtime = mtime.unwrap_or(key.mtime);
        key.ctime = ctime.unwrap_or(key.ctime);
        match changes.mode {
            Some(mode) => acl::follow_mode(t, info.id.inum, edited.snapshot, &info.hash, mode),
            None => Ok(()),
        }
    })?;
    if changes.mode.is_some() {
        inode.forget_acl();
    }
    Ok(())
}

/// The mode of `key`, with the permissions of `mode`.
pub(in crate::vfs) fn with_permissions(key: &Key, mode: u16) -> Mode {
    Mode(key.mode.0 & !0o7777 | mode & 0o7777)
}

/// Writes times that the VFS has just changed. Sleeps.
pub(super) fn write_times(inode: &Inode, update: TimeUpdate) -> Result {
    let (access, modification) = match update {
        TimeUpdate::Access => (true, false),
        TimeUpdate::Modification => (false, true),
    };
    write_selected(inode, access, modification)
}

/// Writes the times that the VFS alone knows (`lazytime`). Sleeps.
pub(in crate::vfs) fn write_all_times(inode: &Inode) -> Result {
    let (mount, key) = (mount(inode), inode.data().key());
    let times = [inode.atime(), inode.mtime(), inode.ctime()].map(|t| stored(mount, t));
    if times == [key.atime, key.mtime, key.ctime] {
        return Ok(());
    }
    write_selected(inode, true, true)
}

/// Somebody else may have set a time and not told the VFS yet: then the key is newer than what is known of it in memory, and its
/// time stays.
fn write_selected(inode: &Inode, access: bool, modification: bool) -> Result {
    let mount = mount(inode);
    let newest = |time, key: &mut i64, known: i64| {
        if *key == known {
            *key = stored(mount, time);
        }
    };
    change(inode, Fields::NONE, |key| {
        let known = inode.data().key();
        if access {
            newest(inode.atime(), &mut key.atime, known.atime);
        }
        if modification {
            newest(inode.mtime(), &mut key.mtime, known.mtime);
            newest(inode.ctime(), &mut key.ctime, known.ctime);
        }
    })?;
    Ok(())
}

/// The flags of an inode, as ioctls report them.
pub(super) fn flags_of(inode: &Inode) -> FileAttributes {
    let key = inode.data().key();
    FileAttributes {
        flags: flags(&key),
        nodump: key.flags.contains(InodeFlags::NODUMP),
        project_inherit: key.options.is_explicit(InodeOpt::Project),
        project: key.options.get(InodeOpt::Project).unwrap_or(0),
    }
}

/// Changes the flags of an inode. Sleeps.
pub(super) fn set_flags(inode: &Inode, wanted: &FileAttributes) -> Result {
    let key = inode.data().key();
    if !key.mode.is_dir() && !key.mode.is_reg() {
        // As other filesystems: of special files and links there is only what is said of them already.
        if *wanted != flags_of(inode) {
            return Err(Error::Unsupported);
        }
        return Ok(());
    }
    if wanted.project == u32::MAX {
        return Err(Error::OptionValue);
    }
    let now = mount(inode).now(inode.super_block());
    change(inode, Fields::FLAGS.and(Fields::CTIME), |key| {
        let table = [
            (InodeFlags::SYNC, wanted.flags.sync),
            (InodeFlags::IMMUTABLE, wanted.flags.immutable),
            (InodeFlags::APPEND, wanted.flags.append),
            (InodeFlags::NOATIME, wanted.flags.noatime),
            (InodeFlags::NODUMP, wanted.nodump),
        ];
        for (flag, on) in table {
            key.flags = if on { key.flags.with(flag) } else { key.flags.without(flag) };
        }
        let project = InodeOpt::Project;
        if wanted.project != key.options.get(project).unwrap_or(0) {
            // It fits, as was checked.
            let _ = key.options.set(project, Some(wanted.project));
        }
        let bit = 1 << project as u16;
        key.options.fields_set &= !bit;
        if wanted.project_inherit {
            key.options.fields_set |= bit;
        }
        key.ctime = now;
    })?;
    Ok(())
}
