// SPDX-License-Identifier: GPL-2.0
//! Mounting.

use kernel::{prelude::*, str::CString, sync::Arc};

use super::{Filesystem, Options, Request};
use crate::{
    btree::{self, Btree},
    fs_info,
    journal::{self, read::Damage},
    sb::{self, policy::ErrorAction},
    snapshots::SnapshotTable,
    util::{
        counters::Counters,
        error::{Error, Result},
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

/// Opens the filesystem on the devices of `request`. Nothing is written to them. May sleep for long.
///
/// What goes wrong is explained in `log` (before the filesystem is known) or in the kernel log.
pub fn mount(
    request: &Request,
    options: Options,
    access: Access,
    log: &dyn Log,
) -> Result<Arc<Filesystem>> {
    if access == Access::ReadWrite {
        log.error(format_args!(
            "only read-only mounts are supported yet: use -o ro"
        ));
        return Err(Error::DeviceReadOnlyNeeded);
    }
    let (sup, devices) = sb::open(request.paths(), &options.policy, log)?;
    let devices = Arc::new(devices, GFP_KERNEL)?;
    let counters = Arc::new(Counters::new(sup.counters()), GFP_KERNEL)?;

    let errors = options.errors.unwrap_or(sup.error_action());
    let damage = match errors {
        ErrorAction::Continue => Damage::UseRest,
        _ => Damage::Refuse,
    };
    let start = journal::read::read(&sup, &devices, damage)?;
    let summary = journal::Summary::new(&start);
    if options.verbose {
        fs_info!(sup, "{summary}");
    }

    let config = btree::Config {
        node_sectors: u32::from(sup.btree_node_sectors),
        block_sectors: sup.block_sectors,
        magic: sup.bset_magic(),
        version: sup.version.0,
        version_min: sup.version_min.0,
        name: CString::try_from_fmt(core::format_args!("{sup}"))?,
    };
    let btree = Btree::new(config, devices.clone(), start, counters.clone())?;
    let snapshots = SnapshotTable::read(&btree).inspect_err(|_| btree.shutdown())?;
    btree.set_ancestry(snapshots.clone());

    let fs = Filesystem {
        sup,
        devices,
        options,
        counters,
        journal: summary,
        btree,
        snapshots,
    };
    fs_info!(fs, "mounted read-only");
    Ok(Arc::new(fs, GFP_KERNEL)?)
}
