// SPDX-License-Identifier: GPL-2.0
//! Files in debugfs.
//!
//! They hold references to the parts they print, not to the filesystem as a whole, and print record by record, so
//! that a file may be as long as a btree.

use core::fmt::{self, Write as _};

use bcachefs_format::{
    keys::KeyText,
    sb::{print::ShowField, ReplicasEntry},
    BtreeId,
};
use kernel::{error::Result as KernelResult, prelude::*, str::CString, sync::Arc};
use kfs::show::{
    debugfs::{Dir, File, Records},
    Text,
};

use crate::{
    alloc::{
        check::{check_allocations, Report, Subject},
        Accounting, ReplicasStore,
    },
    btree::{
        show::{CacheFile, KeysFile, NodesFile},
        Btree,
    },
    init::Filesystem,
    journal::start::{BTREE_DEPTH_MAX, BTREE_ROOTS_MAX},
    sb::LiveSuper,
    util::error::{Error, Result},
};

/// The directory of one filesystem.
pub struct DebugFiles {
    _super: File<SuperFile>,
    _overlay: File<OverlayFile>,
    _cache: File<CacheFile>,
    _btree: File<BtreeFile>,
    _check: File<CheckFile>,
    _keys: KVec<File<KeysFile>>,
    _nodes: KVec<File<NodesFile>>,
}

impl DebugFiles {
    pub(super) fn new(fs: &Arc<Filesystem>, name: &CStr) -> Result<Self> {
        let dir = Dir::new(c"bcachefs").subdir(name);
        let btrees = dir.subdir(c"btrees");
        let (mut keys, mut nodes) = (KVec::new(), KVec::new());
        for id in (0..BTREE_ROOTS_MAX as u8).map(BtreeId) {
            let Some(name) = id.name() else { continue };
            let dir = btrees.subdir(&CString::try_from_fmt(core::format_args!("{name}"))?);
            let file = Arc::new(KeysFile::new(fs.btree.clone(), id), GFP_KERNEL)?;
            keys.push(dir.file(c"keys", file), GFP_KERNEL)?;
            let file = Arc::new(NodesFile::new(fs.btree.clone(), id), GFP_KERNEL)?;
            nodes.push(dir.file(c"nodes", file), GFP_KERNEL)?;
        }
        let btree = || fs.btree.clone();
        Ok(DebugFiles {
            _super: dir.file(c"super", Arc::new(SuperFile(fs.live.clone()), GFP_KERNEL)?),
            _overlay: dir.file(c"journal_overlay", Arc::new(OverlayFile(btree()), GFP_KERNEL)?),
            _cache: dir.file(c"cached_btree_nodes", Arc::new(CacheFile(btree()), GFP_KERNEL)?),
            _btree: dir.file(c"btree", Arc::new(BtreeFile(btree()), GFP_KERNEL)?),
            _check: dir.file(c"check_allocations", Arc::new(CheckFile(fs.clone()), GFP_KERNEL)?),
            _keys: keys,
            _nodes: nodes,
        })
    }
}

/// The superblock: its header, then a record for each field.
struct SuperFile(Arc<LiveSuper>);

impl Records for SuperFile {
    type Cursor = usize;

    fn open(&self) -> KernelResult<usize> {
        Ok(0)
    }

    fn next(&self, cursor: &mut usize, out: &mut Text) -> KernelResult<bool> {
        let nr = cursor.checked_sub(1);
        let printed = self.0.read_whole(|sb| {
            // What does not fit is cut off.
            let _ = match nr {
                None => write!(out, "{sb}"),
                Some(nr) => match sb.fields().map_while(core::result::Result::ok).nth(nr) {
                    None => return false,
                    Some(field) => write!(out, "\n{}", ShowField { sb: *sb, field }),
                },
            };
            true
        });
        *cursor += 1;
        printed.map_err(|e| e.errno())
    }
}

/// Keys of the journal that are laid over the btrees.
struct OverlayFile(Arc<Btree>);

/// Where a reader of the overlay is.
#[derive(Copy, Clone, Default)]
struct OverlayCursor {
    btree: u8,
    level: u8,
    key: usize,
}

impl Records for OverlayFile {
    type Cursor = OverlayCursor;

    fn open(&self) -> KernelResult<OverlayCursor> {
        Ok(OverlayCursor::default())
    }

    fn next(&self, at: &mut OverlayCursor, out: &mut Text) -> KernelResult<bool> {
        while usize::from(at.btree) < BTREE_ROOTS_MAX {
            let btree = BtreeId(at.btree);
            let keys = self.0.journal_keys().keys(btree, at.level);
            if let (Some(key), Some(seq)) = (keys.get(at.key), keys.seq(at.key)) {
                let _ = writeln!(out, "{btree} level {} seq {seq}: {}", at.level, KeyText(key));
                at.key += 1;
                return Ok(true);
            }
            at.key = 0;
            at.level += 1;
            if at.level == BTREE_DEPTH_MAX {
                at.level = 0;
                at.btree += 1;
            }
        }
        Ok(false)
    }
}

/// Roots, transactions, changes of shape in flight, and everything the btrees count: a record each.
struct BtreeFile(Arc<Btree>);

impl Records for BtreeFile {
    type Cursor = u8;

    fn open(&self) -> KernelResult<u8> {
        Ok(0)
    }

    fn next(&self, cursor: &mut u8, out: &mut Text) -> KernelResult<bool> {
        let _: fmt::Result = match *cursor {
            0 => writeln!(out, "{}", self.0.show_roots()),
            1 => writeln!(out, "{}", self.0.show_transactions()),
            2 => writeln!(out, "{}", self.0.show_updates()),
            3 => writeln!(out, "{}", &*self.0),
            _ => return Ok(false),
        };
        *cursor += 1;
        Ok(true)
    }
}

/// Whether what is recorded of buckets and space is right: reading it finds out.
struct CheckFile(Arc<Filesystem>);

/// The superblock of a filesystem that is only read.
struct ReadOnlySuper;

impl ReplicasStore for ReadOnlySuper {
    fn lists_replicas(&self, _: &ReplicasEntry<'_>) -> bool {
        false
    }

    fn mark_replicas(&self, _: &mut dyn Iterator<Item = ReplicasEntry<'_>>) -> Result {
        Err(Error::ReadOnly)
    }
}

impl CheckFile {
    #[inline(never)]
    fn check(&self) -> Result<Report> {
        let fs = &self.0;
        let accounting = Accounting::new(&fs.sup, Arc::new(ReadOnlySuper, GFP_KERNEL)?)?;
        accounting.read(&fs.btree)?;
        let subject = Subject::new(&fs.btree, &fs.sup, Some(&accounting))?;
        // The layout is that of the device the superblock was read from.
        let layout = |dev| {
            let header = fs.sup.raw().ok()?.header();
            let own = header.dev_idx == dev;
            own.then(|| KBox::new(header.layout, GFP_KERNEL).ok()).flatten()
        };
        check_allocations(subject, &fs.devices, layout)
    }
}

impl Records for CheckFile {
    type Cursor = bool;

    fn open(&self) -> KernelResult<bool> {
        Ok(false)
    }

    fn next(&self, done: &mut bool, out: &mut Text) -> KernelResult<bool> {
        if core::mem::replace(done, true) {
            return Ok(false);
        }
        let report = self.check().map_err(|e| e.errno())?;
        // What does not fit is cut off.
        let _ = writeln!(out, "{report}");
        Ok(true)
    }
}
