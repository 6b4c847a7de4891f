// SPDX-License-Identifier: GPL-2.0
//! Which devices a target stands for.

use super::device_set::DeviceSet;
use crate::util::error::Result;
use bcachefs_format::{
    sb::{
        options::{Target, TargetKind},
        Member,
    },
    SuperBlock,
};
use kernel::prelude::*;

/// Labels nested deeper than this are not followed.
const DEPTH_MAX: usize = 32;

/// The devices of each disk group, those of groups inside it included.
pub(super) struct Targets {
    groups: KVVec<DeviceSet>,
}

impl Targets {
    /// As the superblock says. May sleep.
    pub(super) fn new(sb: &SuperBlock<'_>) -> Result<Self> {
        let groups = sb.disk_groups();
        let mut sets = KVVec::from_elem(DeviceSet::NONE, groups.entries().len(), GFP_KERNEL)?;
        for (dev, member) in sb.members().iter() {
            let mut next = member.group().map(usize::from);
            for _ in 0..DEPTH_MAX {
                let Some(group) = next else { break };
                let Some(set) = sets.get_mut(group) else { break };
                set.add(dev);
                next = groups.get(group).and_then(|g| g.parent());
            }
        }
        Ok(Targets { groups: sets })
    }

    /// Without groups.
    #[cfg(bcachefs_kunit)]
    pub(super) fn none() -> Self {
        Targets { groups: KVVec::new() }
    }

    /// The devices of `target`; `None` if it is none, or does not exist: all will do then.
    pub(super) fn devices(&self, target: Target) -> Option<DeviceSet> {
        match target.kind() {
            TargetKind::None => None,
            TargetKind::Dev(dev) => Some(DeviceSet::one(dev)),
            TargetKind::Group(group) => self.groups.get(usize::from(group)).copied(),
        }
    }
}

/// Whether data of type `data_type` may be put on a member. Types that have no bit of their own go where user data goes.
pub(super) fn allows(member: &Member, data_type: bcachefs_format::keys::data_type::DataType) -> bool {
    use bcachefs_format::keys::data_type::DataType;
    let bit = match data_type {
        DataType::SB | DataType::JOURNAL | DataType::BTREE => data_type.0,
        _ => DataType::USER.0,
    };
    member.data_allowed() >> bit & 1 != 0
}
