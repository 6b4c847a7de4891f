// SPDX-License-Identifier: GPL-2.0
//! Which superblock to believe: between the copies on one device, and between devices.
//!
//! Between copies the rule is to take the first that is good, not the newest: [`copies_to_try`] gives
//! the order. Between devices the newest counts: [`Choice`] collects what the devices say and
//! [`Choice::accepts`] tells which of them belong to the filesystem.

use core::fmt;

use super::layout::DiskLayout;
use super::{Member, Members};
use crate::magic::Uuid;
use crate::super_block::SuperBlock;
use crate::version::Version;

/// The sectors to look for a superblock, after the one at `tried` was no good.
pub fn copies_to_try(layout: &DiskLayout, tried: u64) -> impl Iterator<Item = u64> + '_ {
    layout.copies().filter(move |sector| *sector != tried)
}

/// What matters of a device's superblock when comparing it with those of others.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Internal UUID of the filesystem.
    pub uuid: Uuid,
    /// Block size in sectors.
    pub block_size: u16,
    /// Metadata version.
    pub version: Version,
    /// Sequence number.
    pub seq: u64,
    /// When it was written.
    pub write_time: u64,
    /// The device's member index.
    pub dev_idx: u8,
}

impl Identity {
    /// Of a superblock.
    pub fn of(sb: &SuperBlock<'_>) -> Self {
        let h = sb.header();
        Identity {
            uuid: h.uuid,
            block_size: h.block_size.get(),
            version: sb.version(),
            seq: h.seq.get(),
            write_time: h.write_time.get(),
            dev_idx: h.dev_idx,
        }
    }

    /// Whether this superblock is to be preferred to `other`: written later.
    pub fn is_newer_than(&self, other: &Identity) -> bool {
        (self.seq, self.write_time) > (other.seq, other.write_time)
    }
}

/// Index of the superblock to believe; the first of equals. `None` if there are none.
pub fn best<I: IntoIterator<Item = Identity>>(devices: I) -> Option<usize> {
    let mut best: Option<(usize, Identity)> = None;
    for (i, id) in devices.into_iter().enumerate() {
        if best.is_none_or(|(_, b)| id.is_newer_than(&b)) {
            best = Some((i, id));
        }
    }
    best.map(|(i, _)| i)
}

/// Why a device is not part of the filesystem that another one describes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Rejected {
    /// It belongs to another filesystem.
    OtherFilesystem,
    /// The block sizes differ.
    BlockSize {
        /// The device's, in sectors.
        got: u16,
        /// The filesystem's, in sectors.
        want: u16,
    },
    /// It was removed from the filesystem; it can be left out.
    Removed,
    /// Both superblocks are of the same sequence number but not of the same time: they were written
    /// apart.
    SplitBrainSameSeq,
    /// It was written, at this sequence number, without the others knowing: they believe its last
    /// one to be lower.
    SplitBrainAhead {
        /// The device's own sequence number.
        got: u64,
        /// What the others believe.
        want: u64,
    },
    /// Another device has the same index.
    Duplicate,
}

impl Rejected {
    /// Whether the rest of the filesystem can be used without the device, as it does not belong to it
    /// any more.
    pub const fn can_be_left_out(self) -> bool {
        !matches!(
            self,
            Rejected::OtherFilesystem | Rejected::BlockSize { .. } | Rejected::Duplicate
        )
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejected::OtherFilesystem => f.write_str("device belongs to another filesystem"),
            Rejected::BlockSize { got, want } => {
                write!(f, "device has block size {got} sectors, not {want}")
            }
            Rejected::Removed => f.write_str("device was removed from the filesystem"),
            Rejected::SplitBrainSameSeq => {
                f.write_str("split brain: device was written apart from the others")
            }
            Rejected::SplitBrainAhead { got, want } => write!(
                f,
                "split brain: device was last written at {got}, the others know of {want}"
            ),
            Rejected::Duplicate => f.write_str("another device has the same member index"),
        }
    }
}

/// The superblock that was chosen, to measure the other devices against.
#[derive(Copy, Clone, Debug)]
pub struct Choice<'a> {
    identity: Identity,
    members: Members<'a>,
}

impl<'a> Choice<'a> {
    /// With `sb` as the one to believe, see [`best`].
    pub fn new(sb: &SuperBlock<'a>) -> Self {
        Choice {
            identity: Identity::of(sb),
            members: sb.members(),
        }
    }

    /// Checks that the device whose superblock says `id` is part of the filesystem.
    pub fn accepts(&self, id: &Identity) -> Result<Member, Rejected> {
        let best = &self.identity;
        if id.uuid != best.uuid {
            return Err(Rejected::OtherFilesystem);
        }
        if id.block_size != best.block_size {
            return Err(Rejected::BlockSize {
                got: id.block_size,
                want: best.block_size,
            });
        }
        let member = self.members.device(id.dev_idx).ok_or(Rejected::Removed)?;
        if id.version >= Version::MEMBER_SEQ && best.version >= Version::MEMBER_SEQ {
            if id.seq == best.seq && id.write_time != best.write_time {
                return Err(Rejected::SplitBrainSameSeq);
            }
            let known = member.seq.get();
            if known != 0 && known < id.seq {
                return Err(Rejected::SplitBrainAhead {
                    got: id.seq,
                    want: known,
                });
            }
        }
        Ok(member)
    }

    /// The members that have to be there but for which `present` does not hold.
    pub fn missing(&self, present: impl Fn(u8) -> bool + 'a) -> impl Iterator<Item = u8> + 'a {
        self.members
            .iter()
            .filter(move |(dev, m)| m.state().is_needed() && !present(*dev))
            .map(|(dev, _)| dev)
    }
}
