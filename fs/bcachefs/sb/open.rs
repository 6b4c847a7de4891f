// SPDX-License-Identifier: GPL-2.0
//! From device paths to a filesystem's superblock and members.

use bcachefs_format::{
    sb::{
        choose::{self, Choice, Identity, Rejected},
        replicas::Availability,
        MemberState,
    },
    super_block::SuperBlock,
    version::Access,
};
use kernel::{prelude::*, sync::Arc};
use kfs::block;

use super::{
    own::{self, OwnParts},
    policy::{Degraded, Policy},
    read::{self, Found},
    Device, Devices, LiveSuper, Super,
};
use crate::util::{
    counters::Counters,
    error::{Error, Result},
    log::Log,
};

/// A filesystem whose superblocks have been read.
pub struct Opened {
    /// What holds for all of it.
    pub sup: Arc<Super>,
    /// The members that are present.
    pub devices: Arc<Devices>,
    own: KVec<OwnParts>,
}

impl Opened {
    /// The superblock as it changes from now on; with `nochanges` on the devices it never does. May sleep.
    pub fn live(self, counters: Arc<Counters>, nochanges: bool) -> Result<(Arc<Super>, Arc<LiveSuper>)> {
        let live = LiveSuper::new(&self.sup, self.devices, self.own, counters, nochanges)?;
        Ok((self.sup, live))
    }
}

/// Opens the devices at `paths` and reads what they say about the filesystem on them. May sleep. What is wrong, if anything, is
/// explained in `log`.
pub fn open<'p>(
    paths: impl Iterator<Item = &'p CStr>,
    access: block::Access,
    policy: &Policy,
    log: &dyn Log,
) -> Result<Opened> {
    let mut found: KVec<Found> = KVec::new();
    for path in paths {
        found.push(read::read(path, access, policy.sector, log)?, GFP_KERNEL)?;
    }
    let mut identities: KVec<Identity> = KVec::new();
    for f in &found {
        identities.push(Identity::of(&f.sb()?), GFP_KERNEL)?;
    }
    let best = choose::best(identities.iter().copied()).and_then(|i| found.get(i));
    let best = best.ok_or(Error::NoSource)?;
    let best_sb = best.sb()?;
    check_supported(best, &best_sb, log)?;

    let mut devices = Devices::new()?;
    let mut own = KVec::new();
    let choice = Choice::new(&best_sb);
    for (f, identity) in found.iter().zip(&identities) {
        if belongs(&choice, best, f, identity, policy, log)? {
            own.push(add(&mut devices, &best_sb, f, log)?, GFP_KERNEL)?;
        }
    }
    check_members(&devices, best, &best_sb, policy, log)?;
    check_replicas(&devices, best, &best_sb, policy, log)?;
    if let Access::ReadOnly(why) = best_sb.version().access(best_sb.version_min()) {
        let name = best.bdev.name();
        log.info(format_args!("{name}: {why}: can only be read"));
    }

    let mut words = KVVec::new();
    words.extend_from_slice(best_sb.words(), GFP_KERNEL)?;
    Ok(Opened {
        sup: Arc::new(Super::new(words)?, GFP_KERNEL)?,
        devices: Arc::new(devices, GFP_KERNEL)?,
        own,
    })
}

/// Whether this implementation can read the filesystem at all.
fn check_supported(best: &Found, sb: &SuperBlock<'_>, log: &dyn Log) -> Result {
    let name = best.bdev.name();
    if sb.flags().encryption_type() != 0 {
        log.error(format_args!(
            "{name}: the filesystem is encrypted, which is not supported yet"
        ));
        return Err(Error::SuperEncrypted);
    }
    let refused = |what: &str, why: &str, got: &dyn core::fmt::Display| {
        log.error(format_args!("{name}: {why} ({what} {got})"));
    };
    if let Access::Refused(why) = sb.version().access(sb.version_min()) {
        refused("version", why, &sb.version());
        refused("oldest version", why, &sb.version_min());
        return Err(Error::SuperVersion);
    }
    if let Access::Refused(why) = sb.features().access(sb.is_clean()) {
        refused("features", why, &sb.features());
        return Err(Error::SuperFeature);
    }
    Ok(())
}

/// Whether `f` is a current member of the filesystem that `best` describes. `false` if it is to be left
/// out.
fn belongs(
    choice: &Choice<'_>,
    best: &Found,
    f: &Found,
    identity: &Identity,
    policy: &Policy,
    log: &dyn Log,
) -> Result<bool> {
    let (name, best_name) = (f.bdev.name(), best.bdev.name());
    let rejected = match choice.accepts(identity) {
        Ok(_) => return Ok(true),
        Err(rejected) => rejected,
    };
    let split = matches!(
        rejected,
        Rejected::SplitBrainSameSeq | Rejected::SplitBrainAhead { .. }
    );
    if split && policy.no_splitbrain_check {
        log.warn(format_args!("{name}: {rejected}: used nevertheless"));
        return Ok(true);
    }
    if rejected.can_be_left_out() {
        log.warn(format_args!(
            "{name}: {rejected} (by the superblock on {best_name}): left out"
        ));
        return Ok(false);
    }
    log.error(format_args!(
        "{name}: {rejected}: it is of {}, {best_name} of {}",
        f.sb()?.header().user_uuid,
        best.sb()?.header().user_uuid
    ));
    Err(Error::SuperMismatch)
}

fn add(
    devices: &mut Devices,
    best: &SuperBlock<'_>,
    f: &Found,
    log: &dyn Log,
) -> Result<OwnParts> {
    let name = f.bdev.name();
    let sb = f.sb()?;
    let index = sb.header().dev_idx;
    let member = best.members().get(index).ok_or(Error::SuperMismatch)?;
    let mut journal = KVVec::new();
    for range in sb.journal_buckets().ranges() {
        journal.push((range.start, range.nr), GFP_KERNEL)?;
    }
    let sectors = member.sectors();
    let device = Device::new(index, f.bdev.clone(), member, journal);
    if let Err(Error::DeviceTooSmall) = device {
        log.error(format_args!(
            "{name}: has {} sectors, its superblock says {sectors}",
            f.bdev.size_sectors()
        ));
    }
    let mut device = device?;
    let new = best.flags().initialized() == 0 && f.bdev.access() == block::Access::ReadWrite;
    // Also where entries may not be written: that can change, and other implementations add a journal if there is none.
    if new && device.journal.is_empty() && device.member.state() == MemberState::RW {
        device.journal = own::plan_journal(&device, &sb.header().layout)?;
    }
    let parts = OwnParts::new(&sb, &device.journal)?;
    if !devices.add(device.into()) {
        log.error(format_args!(
            "{name}: is member {index}, and so is another device: one is a copy of the other"
        ));
        return Err(Error::DeviceTwice);
    }
    Ok(parts)
}

/// Makes sure that no member is missing, unless the user accepts that.
fn check_members(
    devices: &Devices,
    best: &Found,
    sb: &SuperBlock<'_>,
    policy: &Policy,
    log: &dyn Log,
) -> Result {
    let name = best.bdev.name();
    let mut missing = 0u32;
    for index in Choice::new(sb).missing(|index| devices.get(index).is_some()) {
        missing += 1;
        let uuid = sb.members().get(index).map(|m| m.uuid).unwrap_or_default();
        if policy.degraded == Degraded::No {
            log.error(format_args!("{name}: member {index} ({uuid}) is missing"));
        } else {
            log.warn(format_args!("{name}: mounting without member {index} ({uuid})"));
        }
    }
    if missing != 0 && policy.degraded == Degraded::No {
        log.error(format_args!(
            "{name}: {missing} devices of the filesystem missing: name them all, with colons between them, or mount with -o degraded"
        ));
        return Err(Error::DeviceMissing);
    }
    Ok(())
}

/// Makes sure that of everything that must be there enough copies are.
fn check_replicas(
    devices: &Devices,
    best: &Found,
    sb: &SuperBlock<'_>,
    policy: &Policy,
    log: &dyn Log,
) -> Result {
    let name = best.bdev.name();
    let members = sb.members();
    let online = |index| devices.get(index).is_some();
    let failed = |index| {
        members
            .get(index)
            .is_none_or(|m| !m.exists() || m.state() == MemberState::FAILED)
    };
    let mut worst = Availability::Complete;
    for entry in sb.replicas().iter() {
        let availability = entry.availability(online, failed);
        worst = worst.max(availability);
        let accepted = match availability {
            Availability::Complete => true,
            Availability::Degraded => policy.degraded >= Degraded::Yes,
            Availability::Lost => policy.degraded >= Degraded::Very,
        };
        if !accepted {
            log.error(format_args!(
                "{name}: not enough devices for replicas {entry}: {}",
                match availability {
                    Availability::Lost => "no copy",
                    _ => "fewer copies than there should be",
                }
            ));
        }
    }
    match (worst, policy.degraded) {
        (Availability::Complete, _)
        | (Availability::Degraded, Degraded::Yes)
        | (_, Degraded::Very) => Ok(()),
        (Availability::Degraded, _) => Err(Error::DeviceMissing),
        (Availability::Lost, _) => {
            log.error(format_args!(
                "{name}: the devices present do not hold a copy of everything; -o very_degraded mounts anyway"
            ));
            Err(Error::ReplicasMissing)
        }
    }
}
