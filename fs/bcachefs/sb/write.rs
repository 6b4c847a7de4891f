// SPDX-License-Identifier: GPL-2.0
//! Writing superblocks to the devices.
//!
//! Copies are written one after the other, each on all devices before the next one on any: whenever it ends, every device has
//! a valid copy, old or new. Before that the first copy is read back, to notice writes that the device lost, and others who
//! write to the same devices.

use bcachefs_format::{
    sb::MemberState,
    super_block::{probe, DiskSb, SbLimits, SuperBlock},
    Invalid, Uuid,
};
use kernel::{page::PAGE_SIZE, prelude::*};
use kfs::block::{IoBuf, WriteFlags};

use super::{device::IoErrorKind, live::State, own::OwnParts, Device, LiveSuper, SbImage};
use crate::{
    fs_err, fs_warn,
    util::error::{Error, Result},
};

/// A device on the way.
struct Target<'a> {
    device: &'a Device,
    /// Its index among the parts.
    nr: usize,
    buf: IoBuf,
    /// Everything went well so far.
    ok: bool,
}

/// Writes `next` to all devices that are present and notes in `state` what they have now. Sleeps.
pub(super) fn write(live: &LiveSuper, state: &mut State, next: &SbImage) -> Result {
    let sb = next.view()?;
    let mut targets = KVec::new();
    for (nr, own) in state.own.iter().enumerate() {
        let Some(device) = live.devices.get(own.index) else {
            continue;
        };
        let bytes = own.composed_u64s(&sb) * 8;
        let block = device.bdev.logical_block_bytes() as usize;
        let mut buf = IoBuf::new(bytes.next_multiple_of(block), GFP_KERNEL)?;
        check(live, device, own, &sb, &mut buf)?;
        targets.push(
            Target {
                device,
                nr,
                buf,
                ok: true,
            },
            GFP_KERNEL,
        )?;
    }
    for target in &targets {
        if let Some(own) = state.own.get(target.nr) {
            read_back(live, target.device, own, &sb.header().uuid)?;
        }
    }
    write_copies(live, &state.own, &sb, &mut targets)?;
    for target in targets.iter().filter(|t| t.ok) {
        if let Some(own) = state.own.get_mut(target.nr) {
            own.seq = sb.header().seq.get();
        }
    }
    enough(live, &sb, &targets)
}

/// Makes sure that what is to be written to `device` obeys the rules and has room.
fn check(
    live: &LiveSuper,
    device: &Device,
    own: &OwnParts,
    sb: &SuperBlock<'_>,
    buf: &mut IoBuf,
) -> Result {
    let bytes = own
        .compose(sb, 0, buf.as_words_mut())
        .map_err(|e| {
            fs_err!(live, "{device}: {e}");
            Error::SuperFull
        })?;
    let words = buf.as_words().get(..bytes / 8).unwrap_or(&[]);
    let limits = SbLimits {
        logical_block_bytes: device.bdev.logical_block_bytes(),
        block_bytes_max: PAGE_SIZE as u32,
    };
    match SuperBlock::frame(words).and_then(|sb| sb.validate(&limits)) {
        Ok(_) => Ok(()),
        Err(e) => {
            fs_err!(live, "{device}: superblock to be written is not valid: {e}");
            Err(Error::SuperInvalid)
        }
    }
}

/// Makes sure that the device has what was written to it last.
fn read_back(live: &LiveSuper, device: &Device, own: &OwnParts, uuid: &Uuid) -> Result {
    let Some(sector) = own.layout.copies().next() else {
        return Ok(());
    };
    let bytes = own.layout.copy_sectors().saturating_mul(512);
    let block = device.bdev.logical_block_bytes() as usize;
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(16 << 10);
    let mut buf = IoBuf::new(bytes.next_multiple_of(block), GFP_KERNEL)?;
    let len = buf.len().min(bytes.next_multiple_of(block));
    if let Err(e) = device.bdev.read_sync(sector, &mut buf, 0..len) {
        device.count_error(IoErrorKind::Read);
        fs_err!(live, "reading the superblock back: {e}");
        return Err(Error::SuperWrite);
    }
    // The header is enough, and the checksum not needed: a copy that was damaged before is about to be replaced.
    let header = probe(buf.as_words()).and_then(|_| {
        DiskSb::ref_from_prefix(buf.as_bytes())
            .map(|(header, _)| header)
            .map_err(|_| Invalid::plain("superblock is cut off", 0, 0, 0))
    });
    let header = match header {
        Ok(header) => header,
        Err(e) => {
            fs_warn!(live, "{device}: the superblock at sector {sector} is damaged and will be replaced: {e}");
            return Ok(());
        }
    };
    if header.uuid != *uuid {
        fs_err!(live, "{device}: somebody else has made another filesystem on it");
        return Err(Error::SuperStale);
    }
    let seq = header.seq.get();
    if seq == own.seq {
        return Ok(());
    }
    let what = match seq < own.seq {
        true => "a write of the superblock was lost",
        false => "somebody else has changed the superblock",
    };
    fs_err!(live, "{device}: {what}: sequence number {seq}, should be {}", own.seq);
    Err(Error::SuperStale)
}

fn write_copies(
    live: &LiveSuper,
    own: &[OwnParts],
    sb: &SuperBlock<'_>,
    targets: &mut [Target<'_>],
) -> Result {
    let most = own.iter().map(|o| o.layout.copies().count()).max();
    for copy in 0..most.unwrap_or(0) {
        for target in targets.iter_mut().filter(|t| t.ok) {
            let Some(own) = own.get(target.nr) else {
                continue;
            };
            let Some(sector) = own.layout.copies().nth(copy) else {
                continue;
            };
            let bytes = own
                .compose(sb, sector, target.buf.as_words_mut())
                .map_err(|_| Error::SuperFull)?;
            let block = target.device.bdev.logical_block_bytes() as usize;
            let len = bytes.next_multiple_of(block);
            if let Some(rest) = target.buf.as_bytes_mut().get_mut(bytes..len) {
                rest.fill(0);
            }
            // What the superblock speaks of is durable before it is.
            let flags = WriteFlags::PREFLUSH | WriteFlags::FUA | WriteFlags::META;
            let written = target.device.bdev.write_sync(sector, &target.buf, 0..len, flags);
            if let Err(e) = written {
                target.device.count_error(IoErrorKind::Write);
                fs_err!(live, "writing the superblock: {e}");
                target.ok = false;
            }
        }
    }
    Ok(())
}

/// Whether the filesystem could be mounted from the devices that were written.
fn enough(live: &LiveSuper, sb: &SuperBlock<'_>, targets: &[Target<'_>]) -> Result {
    let written = |dev: u8| targets.iter().any(|t| t.ok && t.device.index == dev);
    if targets.iter().all(|t| !t.ok) {
        return Err(Error::SuperWrite);
    }
    let members = sb.members();
    let failed = |dev: u8| {
        members
            .get(dev)
            .is_none_or(|m| !m.exists() || m.state() == MemberState::FAILED)
    };
    for entry in sb.replicas().iter() {
        // Devices that were not there before are not to blame now.
        let before = entry.availability(|d| live.devices.get(d).is_some(), failed);
        if entry.availability(written, failed) > before {
            fs_err!(live, "too few devices could be written: {entry}");
            return Err(Error::SuperWrite);
        }
    }
    Ok(())
}
