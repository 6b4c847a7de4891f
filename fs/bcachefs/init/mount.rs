// SPDX-License-Identifier: GPL-2.0
//! Mounting.

use bcachefs_format::{checksum::CsumOpt, BtreeId};
use kernel::{prelude::*, str::CString, sync::Arc};

use kfs::block;

use super::{journal_client::FsJournalClient, Filesystem, Options, Request, Writing};
use crate::{
    btree::{self, Btree},
    fs_info,
    journal::{self, read::Damage, StartState},
    sb::{self, policy::ErrorAction, Devices, Super},
    snapshots::SnapshotTable,
    util::{
        counters::Counters,
        error::{Error, Result},
        io_clock::IoClocks,
        log::Log,
    },
};

/// What a mount may do to the devices.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

/// Whether this module writes filesystems at all. What is built of that is not to be trusted with anybody's data yet, so only
/// modules with tests inside do.
pub(super) const CAN_WRITE: bool = cfg!(bcachefs_tests);

/// Opens the filesystem on the devices of `request`. For reading only nothing is written to them. May sleep for long.
///
/// What goes wrong is explained in `log` (before the filesystem is known) or in the kernel log.
pub fn mount(
    request: &Request,
    options: Options,
    access: Access,
    log: &dyn Log,
) -> Result<Arc<Filesystem>> {
    if access == Access::ReadWrite && !CAN_WRITE {
        log.error(format_args!(
            "only read-only mounts are supported yet: use -o ro"
        ));
        return Err(Error::DeviceReadOnlyNeeded);
    }
    if access == Access::ReadWrite && (options.norecovery || options.nochanges) {
        log.error(format_args!(
            "with norecovery or nochanges only read-only mounts are possible: use -o ro"
        ));
        return Err(Error::DeviceReadOnlyNeeded);
    }
    let fs = open(request, options, access, log)?;
    match access {
        Access::ReadOnly => fs_info!(*fs, "mounted read-only"),
        Access::ReadWrite => {
            // If it fails, dropping the filesystem undoes what was done.
            fs.writing.go_read_write(log)?;
            fs_info!(*fs, "mounted read-write");
        }
    }
    Ok(fs)
}

/// The part of mounting that only reads.
// Not inline: nothing of its large frame is needed while the rest of the mount runs.
#[inline(never)]
fn open(
    request: &Request,
    options: Options,
    access: Access,
    log: &dyn Log,
) -> Result<Arc<Filesystem>> {
    let device_access = match access {
        Access::ReadOnly => block::Access::ReadOnly,
        Access::ReadWrite => block::Access::ReadWrite,
    };
    let opened = sb::open(request.paths(), device_access, &options.policy, log)?;
    let counters = Counters::new(opened.sup.counters())?;
    let devices = opened.devices.clone();
    let (sup, live) = opened.live(counters.clone(), options.nochanges)?;

    let mut start = start_state(&sup, &devices, &options, access, log)?;
    let summary = journal::Summary::new(&start);
    if options.verbose {
        fs_info!(*sup, "{summary}");
    }
    let for_journal = start.split_off()?;
    let clocks = Arc::new(IoClocks::new(start.clocks), GFP_KERNEL)?;
    let client = FsJournalClient::new(&start, live.clone(), clocks.clone())?;

    let config = btree::Config {
        node_sectors: u32::from(sup.btree_node_sectors),
        block_sectors: sup.block_sectors,
        magic: sup.bset_magic(),
        version: sup.version.0,
        version_min: sup.version_min.0,
        metadata_csum: CsumOpt(sup.flags.meta_csum_type() as u8)
            .sb_type()
            .ok_or(Error::SuperInvalid)?,
        name: CString::try_from_fmt(core::format_args!("{}", *sup))?,
    };
    let btree = Btree::new(config, devices.clone(), &mut start, counters.clone())?;
    if sup.flags.inodes_use_key_cache() != 0 {
        btree.cache_keys_of(BtreeId::INODES);
    }
    let snapshots = SnapshotTable::read(&btree).inspect_err(|_| btree.shutdown())?;
    btree.set_ancestry(snapshots.clone());
    let writing = Writing::new(
        sup.clone(),
        live.clone(),
        devices.clone(),
        btree.clone(),
        snapshots.clone(),
        counters.clone(),
        client,
        clocks,
        for_journal,
        &options,
    )
    .inspect_err(|_| btree.shutdown())?;

    let fs = init!(Filesystem {
        sup,
        live,
        devices,
        options,
        counters,
        journal: summary,
        btree,
        snapshots,
        writing,
    });
    Ok(Arc::init(fs, GFP_KERNEL)?)
}

/// What the journal or the clean section has to say; nothing, if the filesystem has never been initialised.
#[inline(never)]
fn start_state(
    sup: &Super,
    devices: &Devices,
    options: &Options,
    access: Access,
    log: &dyn Log,
) -> Result<KBox<StartState>> {
    if sup.flags.initialized() == 0 {
        if access == Access::ReadOnly {
            log.error(format_args!(
                "{sup}: has never been mounted read-write: there is nothing in it to be read"
            ));
            return Err(Error::NotInitialised);
        }
        return Ok(KBox::new(StartState::new()?, GFP_KERNEL)?);
    }
    let damage = match options.errors.unwrap_or(sup.error_action()) {
        ErrorAction::Continue if access == Access::ReadOnly => Damage::UseRest,
        _ => Damage::Refuse,
    };
    Ok(KBox::new(journal::read::read(sup, devices, damage)?, GFP_KERNEL)?)
}
