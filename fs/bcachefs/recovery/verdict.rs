// SPDX-License-Identifier: GPL-2.0
//! Whether a filesystem can be written.

use bcachefs_format::{sb::MemberState, version::Access, BtreeId};

use crate::{
    btree::Btree,
    journal::start::BTREE_ROOTS_MAX,
    sb::{Devices, Super},
    util::{
        error::{Error, Result},
        log::Log,
    },
};

/// Refuses what the superblock or the set of devices rule out. Says why in `log`.
pub fn check_superblock(sup: &Super, devices: &Devices, log: &dyn Log) -> Result {
    let refuse = |error: Error, why: core::fmt::Arguments<'_>| {
        log.error(format_args!("{sup}: cannot be mounted read-write: {why}"));
        Err(error)
    };
    let access = sup
        .version
        .access(sup.version_min)
        .and(sup.features.access(sup.clean));
    if let Access::ReadOnly(why) | Access::Refused(why) = access {
        return refuse(Error::SuperVersion, format_args!("{why} (version {})", sup.version));
    }
    if sup.raw()?.version_upgrade_complete() < sup.version {
        return refuse(
            Error::SuperVersion,
            format_args!("an upgrade to version {} was not completed", sup.version),
        );
    }
    let sb = sup.raw()?;
    for (dev, member) in sb.members().iter() {
        if member.state() == MemberState::RW && devices.get(dev).is_none() {
            return refuse(
                Error::DeviceMissing,
                format_args!("member {dev} ({}) is missing", member.uuid),
            );
        }
    }
    if !devices.iter().any(|d| !d.journal.is_empty() && d.member.state() == MemberState::RW) {
        return refuse(Error::JournalTooSmall, format_args!("no device has a journal"));
    }
    if let Some(ext) = sb.ext() {
        let [low, high] = ext.recovery_passes_required;
        if low.get() != 0 || high.get() != 0 {
            return refuse(
                Error::Unsupported,
                format_args!(
                    "it has to be repaired first (passes {:#x}): run fsck",
                    low.get()
                ),
            );
        }
        if ext.btrees_lost_data.get() != 0 {
            return refuse(Error::BtreeRootMissing, format_args!("btrees have lost data: run fsck"));
        }
    }
    if sup.flags.has_topology_errors() != 0 {
        return refuse(Error::BtreeTopology, format_args!("btrees are damaged: run fsck"));
    }
    Ok(())
}

/// Refuses a filesystem whose btrees cannot be changed. Says why in `log`.
pub fn check_btrees(sup: &Super, btree: &Btree, log: &dyn Log) -> Result {
    for id in (0..BTREE_ROOTS_MAX as u8).map(BtreeId) {
        if btree.root_is_lost(id) {
            log.error(format_args!("{sup}: cannot be mounted read-write: the root of btree {id} is lost"));
            return Err(Error::BtreeRootMissing);
        }
        if id.0 > BtreeId::MAX.0 && btree.journal_keys().max_level(id).is_some() {
            log.error(format_args!(
                "{sup}: cannot be mounted read-write: the journal has keys of a btree that this version does not know ({id})"
            ));
            return Err(Error::Unsupported);
        }
    }
    Ok(())
}
