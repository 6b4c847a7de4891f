// SPDX-License-Identifier: GPL-2.0
//! What a mount for writing brings up to date before anybody else changes anything.

use crate::{
    alloc::mark,
    btree::Btree,
    sb::{Devices, LiveSuper},
    util::error::Result,
};
use bcachefs_format::sb::MemberState;

/// Makes sure that the buckets of superblocks and journals are recorded as what they are, and that free space of every device is
/// recorded. Reads only, where that is so already. Sleeps.
pub fn run(live: &LiveSuper, devices: &Devices, btree: &Btree) -> Result {
    let writable = || devices.iter().filter(|d| d.member.state() == MemberState::RW);
    for device in writable() {
        let layout = live.layout(device.index)?;
        mark::mark_device(btree, &layout, device)?;
    }
    for device in writable() {
        if !live.freespace_initialized(device.index) {
            mark::init_freespace(btree, device)?;
            live.set_freespace_initialized(device.index)?;
        }
    }
    Ok(())
}
