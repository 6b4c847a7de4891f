// SPDX-License-Identifier: GPL-2.0
//! From superblock and journal to the state a mount starts from.

use bcachefs_format::{jset::Jset, Checked, Invalid};
use kernel::prelude::*;

use super::{
    gather::Gather,
    range::{self, Range},
    scan::{Located, Scan},
    start::RingStart,
    window::ReadAhead,
    Blacklist, JournalKeys, StartState,
};
use crate::{
    fs_err, fs_info, fs_warn,
    sb::{device::IoErrorKind, Device, Devices, Super},
    util::{
        checksum::Checksums,
        error::{Error, Result},
    },
};

/// What to do when the journal is damaged.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Damage {
    /// Refuse to mount.
    Refuse,
    /// Report it and use what is left.
    UseRest,
}

/// Reads the start state: from the clean section if the filesystem was shut down cleanly, from the journal
/// otherwise. Writes nothing. May sleep for long; ends early on a signal.
pub fn read(sup: &Super, devices: &Devices, damage: Damage) -> Result<StartState> {
    let blacklist = Blacklist::new(sup.blacklist()?);
    if sup.clean {
        from_clean_section(sup, devices, blacklist, damage)
    } else {
        from_journal(sup, devices, blacklist, damage)
    }
}

#[inline(never)]
fn from_clean_section(
    sup: &Super,
    devices: &Devices,
    blacklist: Blacklist,
    damage: Damage,
) -> Result<StartState> {
    let sb = sup.raw()?;
    let Some(clean) = sb.clean() else {
        fs_err!(sup, "marked clean, but the superblock has no clean section");
        return Err(Error::CleanSectionMissing);
    };
    let mut gather = Gather::new()?;
    let mut problems = Problems::new(sup, damage);
    for entry in clean.entries() {
        match entry {
            Ok(entry) => gather.add(clean.journal_seq(), &entry, &mut |e| {
                problems.add(format_args!("clean section: {e}"))
            })?,
            Err(e) => problems.add(format_args!("clean section: {e}")),
        }
    }
    problems.verdict(Error::MetadataInvalid)?;
    Ok(StartState {
        roots: gather.roots,
        keys: JournalKeys::empty(),
        blacklist,
        key_version: gather.key_version,
        clocks: gather.clocks,
        next_seq: clean.journal_seq().saturating_add(1),
        replayed: None,
        rings: recorded_rings(sup, devices)?,
    })
}

#[inline(never)]
fn from_journal(
    sup: &Super,
    devices: &Devices,
    blacklist: Blacklist,
    damage: Damage,
) -> Result<StartState> {
    let mut problems = Problems::new(sup, damage);
    let mut scan = Scan::new(sup, devices, &blacklist)?;
    scan.read_needed()?;
    let range = choose_range(sup, &mut scan, &blacklist, &mut problems)?;
    fs_info!(
        sup,
        "not shut down cleanly: laying journal entries {}..={} over the btrees, dropping {} newer ones",
        range.first,
        range.last,
        range.newest - range.last
    );

    let mut gather = Gather::new()?;
    replay(sup, devices, &mut scan, &range, &blacklist, &mut gather, &mut problems)?;
    problems.verdict(Error::JournalMissing)?;

    let rings = scan.rings(range.newest)?;
    let mut more = gather.blacklisted;
    more.push(range.dropped(), GFP_KERNEL)?;
    let blacklist = blacklist.with(&more)?;
    Ok(StartState {
        roots: gather.roots,
        keys: gather.keys.finish()?,
        blacklist,
        key_version: gather.key_version,
        clocks: gather.clocks,
        next_seq: range.next_seq(),
        replayed: Some((range.first, range.last)),
        rings,
    })
}

/// Where the journals go on according to the members. Nothing in them counts after a clean shutdown.
fn recorded_rings(sup: &Super, devices: &Devices) -> Result<KVec<RingStart>> {
    let mut rings = KVec::new();
    for device in devices.iter() {
        let nr: u64 = device.journal.iter().fold(0, |n, r| n.saturating_add(r.1));
        let bucket = device.member.last_journal_bucket.get();
        let used = device.member.last_journal_bucket_offset.get();
        let mut ring = RingStart::new(device.index);
        if u64::from(bucket) < nr {
            ring.bucket = bucket;
            // What cannot be is as good as full.
            let sectors = u32::from(device.bucket_sectors);
            let block = u32::from(sup.block_sectors.max(1));
            ring.used = used.checked_next_multiple_of(block).unwrap_or(sectors).min(sectors);
        }
        rings.push(ring, GFP_KERNEL)?;
    }
    Ok(rings)
}

/// Chooses what to replay, and makes sure that nothing of it is missing without good reason.
#[inline(never)]
fn choose_range(
    sup: &Super,
    scan: &mut Scan<'_>,
    blacklist: &Blacklist,
    problems: &mut Problems<'_>,
) -> Result<Range> {
    let mut all_read = false;
    loop {
        let candidates = scan.candidates()?;
        let range = range::choose(&candidates);
        let mut gaps = 0u64;
        if let Some(range) = &range {
            let excused = |seq| blacklist.range_from(seq);
            range::missing(range, &candidates, excused, |_, _| gaps += 1);
        }
        let sound = range.is_some_and(|r| r.bad <= 1) && gaps == 0;
        if !sound && !all_read {
            all_read = true;
            if scan.read_all()? {
                continue;
            }
        }
        let Some(range) = range else {
            return Err(nothing_found(sup, scan, candidates.is_empty()));
        };
        if range.bad > 1 {
            problems.add(format_args!(
                "{} journal entries after {} have bad checksums",
                range.bad, range.last
            ));
        }
        let excused = |seq| blacklist.range_from(seq);
        range::missing(&range, &candidates, excused, |first, last| {
            problems.add(format_args!(
                "journal entries {first}..={last} are missing, {}..={} are needed",
                range.first, range.last
            ))
        });
        return Ok(range);
    }
}

#[inline(never)]
fn nothing_found(sup: &Super, scan: &Scan<'_>, empty: bool) -> Error {
    if scan.had_read_errors() {
        fs_err!(sup, "not shut down cleanly, and the journal cannot be read");
        Error::JournalRead
    } else if empty {
        fs_err!(sup, "not shut down cleanly, but the journal is empty");
        Error::JournalNoEntries
    } else {
        fs_err!(sup, "not shut down cleanly, and no journal entry is one to start from");
        Error::JournalNoFlush
    }
}

/// Reads the entries of the range once more, in order, and takes in their records.
#[inline(never)]
fn replay(
    sup: &Super,
    devices: &Devices,
    scan: &mut Scan<'_>,
    range: &Range,
    blacklist: &Blacklist,
    gather: &mut Gather,
    problems: &mut Problems<'_>,
) -> Result {
    let magic = sup.jset_magic();
    let (found, window) = scan.found();
    let mut wanted = None;
    for l in found {
        if !l.good || !range.contains(l.seq) || blacklist.contains(l.seq) {
            continue;
        }
        // Good copies of one entry follow one another; the first that can be read is enough.
        match wanted {
            Some((seq, true)) if seq == l.seq => continue,
            Some((seq, false)) if seq != l.seq => problems.unreadable(seq),
            _ => {}
        }
        wanted = Some((l.seq, false));
        let Some(device) = devices.get(l.device) else {
            continue;
        };
        let device: &Device = device;
        let words = window.get(
            device,
            l.bucket_sector,
            usize::from(device.bucket_sectors) << 9,
            l.at as usize,
            l.bytes as usize,
            ReadAhead::Yes,
        );
        let Some(jset) = words.ok().and_then(|words| same_again(device, l, words, magic)) else {
            continue;
        };
        wanted = Some((l.seq, true));
        for entry in jset.entries() {
            let mut report = |e: &Invalid| {
                problems.add(format_args!("journal entry {} on {device}: {e}", l.seq))
            };
            match entry {
                Ok(entry) => gather.add(l.seq, &entry, &mut report)?,
                Err(e) => report(&e),
            }
        }
    }
    if let Some((seq, false)) = wanted {
        problems.unreadable(seq);
    }
    Ok(())
}

/// The entry, if it is still the one that was found.
fn same_again<'w>(
    device: &Device,
    l: &Located,
    words: &'w [u64],
    magic: u64,
) -> Option<Checked<Jset<'w>>> {
    let jset = Jset::new(words).ok()?;
    let same = jset.peek().seq() == l.seq && jset.verify(&Checksums).is_ok();
    if !same {
        device.count_error(IoErrorKind::Checksum);
        return None;
    }
    jset.validate(magic).ok()
}

/// Counts and reports what is wrong, and decides in the end whether it may be lived with.
struct Problems<'a> {
    sup: &'a Super,
    damage: Damage,
    count: u32,
}

impl<'a> Problems<'a> {
    /// Lines reported before it gets too much.
    const LINES_MAX: u32 = 20;

    fn new(sup: &'a Super, damage: Damage) -> Self {
        Problems {
            sup,
            damage,
            count: 0,
        }
    }

    fn add(&mut self, what: core::fmt::Arguments<'_>) {
        self.count = self.count.saturating_add(1);
        if self.count <= Self::LINES_MAX {
            fs_err!(self.sup, "{what}");
        }
    }

    fn unreadable(&mut self, seq: u64) {
        self.add(format_args!(
            "journal entry {seq} could be read once, but not a second time"
        ));
    }

    fn verdict(&self, error: Error) -> Result {
        if self.count == 0 {
            return Ok(());
        }
        match self.damage {
            Damage::Refuse => {
                fs_err!(
                    self.sup,
                    "not mounting ({} problems found); -o errors=continue uses what is left",
                    self.count
                );
                Err(error)
            }
            Damage::UseRest => {
                fs_warn!(
                    self.sup,
                    "using what is left ({} problems found): recent changes may be lost",
                    self.count
                );
                Ok(())
            }
        }
    }
}
