// SPDX-License-Identifier: GPL-2.0
//! How much of an extent is not where, or not as, its rebalance entry wants it.

use super::pointers::entries;
use crate::{
    sb::{device::MEMBERS_MAX, Super},
    util::error::Result,
};
use bcachefs_format::{
    keys::{compression::CompressionType, data_type::DataType, extent::Rebalance},
    sb::{
        options::{Target, TargetKind},
        Member, MemberState,
    },
    KeyRef, KeyType,
};
use kernel::prelude::*;

/// Groups nested deeper than this are not followed.
const DEPTH_MAX: usize = 32;

/// The members that targets stand for, as sets of bits.
pub struct Targets {
    groups: KVVec<u64>,
    /// Members that take file data.
    data: u64,
}

fn bit(dev: u8) -> u64 {
    match usize::from(dev) < MEMBERS_MAX {
        true => 1 << (dev & 63),
        false => 0,
    }
}

fn takes_data(member: &Member) -> bool {
    member.state() == MemberState::RW && member.data_allowed() >> DataType::USER.0 & 1 != 0
}

impl Targets {
    /// As the superblock has them. May sleep.
    pub fn new(sup: &Super) -> Result<Self> {
        let sb = sup.raw()?;
        let groups = sb.disk_groups();
        let mut sets = KVVec::from_elem(0u64, groups.entries().len(), GFP_KERNEL)?;
        let mut data = 0;
        for (dev, member) in sb.members().iter() {
            if takes_data(&member) {
                data |= bit(dev);
            }
            // A member of a group is one of those around it, too.
            let mut next = member.group().map(usize::from);
            for _ in 0..DEPTH_MAX {
                let Some(set) = next.and_then(|g| sets.get_mut(g)) else {
                    break;
                };
                *set |= bit(dev);
                next = next.and_then(|g| groups.get(g)).and_then(|g| g.parent());
            }
        }
        Ok(Targets { groups: sets, data })
    }

    /// Without groups; file data goes to the members in `data`.
    #[cfg(bcachefs_kunit)]
    pub(super) fn without_groups(data: u64) -> Self {
        Targets { groups: KVVec::new(), data }
    }

    /// The members of `target`, if it is one that file data can be moved to.
    fn members(&self, target: u16) -> Option<u64> {
        let set = match Target(target).kind() {
            TargetKind::None => return None,
            TargetKind::Dev(dev) => bit(dev),
            TargetKind::Group(group) => self.groups.get(usize::from(group)).copied()?,
        };
        (set & self.data != 0).then_some(set)
    }
}

/// Sectors of `key` that need work, if it is an extent that asks for some.
pub fn pending(key: KeyRef<'_>, targets: &Targets) -> u64 {
    if !matches!(key.key.key_type, KeyType::EXTENT | KeyType::REFLINK_V) {
        return 0;
    }
    let Some(entries) = entries(key, 0) else {
        return 0;
    };
    let Some(wanted) = entries.rebalance() else {
        return 0;
    };
    let dirty = || entries.decoded().filter(|p| p.is_dirty());
    let mut sectors = 0u64;
    if wanted.compression().0 != 0 {
        let done = entries.decoded().any(|p| {
            p.crc.compression == CompressionType::INCOMPRESSIBLE || p.ptr.unwritten()
        });
        if !done {
            let to = wanted.compression().to_type();
            sectors += dirty()
                .filter(|p| Some(p.crc.compression) != to)
                .map(|p| u64::from(p.crc.compressed_size))
                .sum::<u64>();
        }
    }
    if let Some(members) = targets.members(Rebalance::target(wanted)) {
        sectors += dirty()
            .filter(|p| members & bit(p.ptr.dev()) == 0)
            .map(|p| u64::from(p.crc.compressed_size))
            .sum::<u64>();
    }
    sectors
}

#[kernel::macros::kunit_tests(bcachefs_alloc_rebalance)]
mod tests {
    use super::*;
    use bcachefs_format::{
        keys::{
            compression::CompressionOpt,
            extent::{Crc, EntryWriter, Ptr},
        },
        Bkey, Bpos,
    };

    fn targets() -> Result<Targets> {
        let mut groups = KVVec::new();
        groups.push(0b0110, GFP_KERNEL)?;
        groups.push(0b1000, GFP_KERNEL)?;
        Ok(Targets { groups, data: 0b0111 })
    }

    fn pending_of(
        compression: CompressionType,
        wanted: Option<(u8, u16)>,
        unwritten: bool,
    ) -> Result<u64> {
        let mut words = [0u64; 16];
        let mut w = EntryWriter::new(&mut words);
        let crc = Crc { compression, compressed_size: 24, uncompressed_size: 128, ..Crc::none(128) };
        let write = |w: &mut EntryWriter<'_>| {
            w.crc(&crc)?;
            w.ptr(Ptr::new(0, 512, 0).with_unwritten(unwritten))?;
            w.ptr(Ptr::new(1, 512, 0).with_cached(true))?;
            w.ptr(Ptr::new(2, 512, 0).with_unwritten(unwritten))?;
            match wanted {
                Some((c, t)) => w.rebalance(Rebalance::new(CompressionOpt(c), t)).map(drop),
                None => Ok(()),
            }
        };
        write(&mut w).map_err(|_| crate::util::error::Error::ExtentInvalid)?;
        let n = w.finish().map_err(|_| crate::util::error::Error::ExtentInvalid)?;
        let key = Bkey {
            u64s: 5 + n as u8,
            key_type: KeyType::EXTENT,
            size: 128,
            ..Bkey::deleted(Bpos::new(4096, 128))
        };
        Ok(pending(KeyRef { key, value: &words[..n] }, &targets()?))
    }

    #[test]
    fn what_is_not_as_wanted() -> Result {
        let (lz4, zstd) = (CompressionType::LZ4, CompressionType::ZSTD);
        let table = [
            (lz4, None, false, 0),
            (lz4, Some((1, 0)), false, 0),
            (zstd, Some((1, 0)), false, 48),
            // An option's level does not matter.
            (zstd, Some((0x73, 0)), false, 0),
            (CompressionType::INCOMPRESSIBLE, Some((1, 0)), false, 0),
            (CompressionType::NONE, Some((1, 0)), true, 0),
            // Devices: target 1 is device 0, so the copy on 2 is out of place.
            (lz4, Some((0, 1)), false, 24),
            (lz4, Some((0, 2)), false, 48),
            // Groups: 1 and 2; 3, which takes no data; one that is not there.
            (lz4, Some((0, 257)), false, 24),
            (lz4, Some((0, 258)), false, 0),
            (lz4, Some((0, 259)), false, 0),
            (zstd, Some((1, 257)), false, 72),
        ];
        for (compression, wanted, unwritten, want) in table {
            assert_eq!(pending_of(compression, wanted, unwritten)?, want);
        }
        Ok(())
    }
}
