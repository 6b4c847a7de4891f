// SPDX-License-Identifier: GPL-2.0
//! The allocator as the btrees see it.

use super::{
    allocator::Allocator,
    device_set::DeviceSet,
    request::AllocRequest,
    write_points::WritePointSpec,
};
use crate::{
    btree::{
        space::{NodePlace, Shortage, Space, SpaceError, REPLICAS_MAX},
        Attempt, TransError,
    },
    util::{error::Result, watermark::Watermark},
};
use bcachefs_format::keys::data_type::DataType;
use kernel::{prelude::*, sync::Arc};

struct BtreeSpace(Arc<Allocator>);

/// What the btrees ask for space. May sleep.
pub fn btree_space(allocator: &Arc<Allocator>) -> Result<Arc<dyn Space>> {
    let space: Arc<dyn Space> = Arc::new(BtreeSpace(allocator.clone()), GFP_KERNEL)?;
    Ok(space)
}

impl Space for BtreeSpace {
    fn reserve(&self, sectors: u64, how: Shortage) -> Result<u64> {
        self.0.reserve(sectors, how)
    }

    fn unreserve(&self, sectors: u64) {
        self.0.reservations.unreserve(sectors);
    }

    fn committed(&self, delta: i64, reserved: u64) {
        self.0.reservations.committed(delta, reserved);
    }

    fn node_place(
        &self,
        t: &mut Attempt<'_>,
        replicas: u8,
        watermark: Watermark,
    ) -> core::result::Result<core::result::Result<NodePlace, SpaceError>, TransError> {
        let config = &self.0.config;
        let sectors = u32::from(config.node_sectors);
        let req = AllocRequest {
            point: WritePointSpec::Btree,
            data_type: DataType::BTREE,
            sectors,
            sectors_min: sectors,
            replicas,
            required: replicas.min(config.metadata_required),
            target: config.metadata_target,
            only_target: false,
            have: DeviceSet::NONE,
            watermark,
        };
        let p = match Allocator::alloc_sectors(&self.0, t, &req)? {
            Ok(placed) => placed,
            Err(e) => return Ok(Err(e)),
        };
        // Before any key refers to the node. Mostly they are marked, as such places are preferred.
        let mut places = [(0, 0, 0); REPLICAS_MAX];
        for (place, ptr) in places.iter_mut().zip(p.ptrs) {
            *place = (ptr.dev(), ptr.offset(), sectors);
        }
        let places = places.get(..p.nr.into()).unwrap_or(&[]);
        if !self.0.are_marked(places) {
            let client = &self.0.shared.client;
            if let Err(e) = t.unlocked(|| client.mark_btree_nodes(places))? {
                return Ok(Err(SpaceError::Failed(e)));
            }
        }
        Ok(Ok(NodePlace { ptrs: p.ptrs, nr: p.nr, open: p.open }))
    }

    fn release(&self, ids: &[u16]) {
        self.0.release(ids);
    }

    fn metadata_replicas(&self) -> u8 {
        self.0.config.metadata_replicas
    }
}
