// SPDX-License-Identifier: GPL-2.0
//! How much space is in use, from the accounting btree.
//!
//! Only the counters that the answer needs are looked up, by their exact positions: a few for each
//! device, however large the filesystem is.

use bcachefs_format::{
    bkey::KeyType,
    btree_id::BtreeId,
    keys::{
        accounting::{Accounting, AccountingKey},
        data_type::DataType,
        reservation::REPLICAS_MAX,
    },
    sb::{MemberState, Options},
};

use super::reserves::{capacity, gc_reserve, Geometry};
use crate::{
    btree::{Attempt, TransError},
    sb::{Device, Devices},
};

/// What is not there for users.
const HIDDEN: [DataType; 2] = [DataType::SB, DataType::JOURNAL];

/// What cannot be dropped when space is needed.
const USED: [DataType; 3] = [DataType::BTREE, DataType::USER, DataType::PARITY];

/// Base-2 logarithm of the part that reservations are taken to need in addition.
const RESERVE_SHIFT: u32 = 6;

/// Space and inodes, in sectors and numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// What users can have altogether.
    pub capacity: u64,
    /// What is in use or promised.
    pub used: u64,
    /// Number of inodes.
    pub inodes: u64,
}

/// What the counters say, before it is related to the capacity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counted {
    /// Sectors that are not there for users.
    pub hidden: u64,
    /// Sectors that cannot be dropped.
    pub data: u64,
    /// Sectors promised.
    pub reserved: u64,
    /// Inodes.
    pub inodes: u64,
}

impl Usage {
    /// Free space in sectors.
    pub fn free(&self) -> u64 {
        self.capacity - self.used.min(self.capacity)
    }

    /// What can be reserved of the free space, in sectors.
    pub fn available(&self) -> u64 {
        // Reserving n sectors counts as n * (1 + 1/2^shift).
        let (part, whole) = (1 << RESERVE_SHIFT, (1 << RESERVE_SHIFT) + 1);
        let free = self.free();
        free / whole * part + free % whole * part / whole
    }

    /// Relates counters to the space there is.
    pub(super) fn new(capacity: u64, counted: Counted) -> Self {
        let capacity = capacity.saturating_sub(counted.hidden);
        let reserved = counted.reserved.min(capacity);
        let reserved = reserved.saturating_add(reserved >> RESERVE_SHIFT);
        Usage {
            capacity,
            used: counted.data.saturating_add(reserved).min(capacity),
            inodes: counted.inodes,
        }
    }
}

/// Usage of the filesystem, which has these options. May sleep.
pub fn usage(
    t: &mut Attempt<'_>,
    devices: &Devices,
    options: &Options,
) -> Result<Usage, TransError> {
    let mut counted = Counted {
        inodes: counter(t, AccountingKey::NrInodes, 0)?,
        ..Counted::default()
    };
    for nr_replicas in 1..=REPLICAS_MAX {
        let sectors = counter(t, AccountingKey::PersistentReserved { nr_replicas }, 0)?;
        let sectors = sectors.saturating_mul(u64::from(nr_replicas));
        counted.reserved = counted.reserved.saturating_add(sectors);
    }
    for device in devices.iter() {
        for (types, sum) in [
            (&HIDDEN[..], &mut counted.hidden),
            (&USED[..], &mut counted.data),
        ] {
            for &data_type in types {
                *sum = sum.saturating_add(device_sectors(t, device, data_type)?);
            }
        }
    }

    let spaces = devices
        .iter()
        .filter(|d| d.member.state() == MemberState::RW)
        .map(|d| {
            let geometry = Geometry {
                nbuckets: d.nbuckets,
                first_bucket: d.first_bucket,
                bucket_sectors: d.bucket_sectors.into(),
                node_sectors: options.btree_node_size.max(1).into(),
            };
            geometry.capacity()
        });
    let (bytes, percent) = (options.gc_reserve_bytes, options.gc_reserve_percent);
    let capacity = capacity(spaces, |total| gc_reserve(total, bytes, percent));
    Ok(Usage::new(capacity, counted))
}

/// Sectors used for `data_type` on a device; whole buckets of what is hidden.
fn device_sectors(
    t: &mut Attempt<'_>,
    device: &Device,
    data_type: DataType,
) -> Result<u64, TransError> {
    let what = AccountingKey::DevDataType {
        dev: device.index,
        data_type,
    };
    if HIDDEN.contains(&data_type) {
        return Ok(device.bucket_start(counter(t, what, 0)?));
    }
    counter(t, what, 1)
}

/// Counter number `index` of `what`; 0 if it is not there, or negative.
fn counter(t: &mut Attempt<'_>, what: AccountingKey, index: usize) -> Result<u64, TransError> {
    let Some(pos) = what.to_pos() else {
        return Ok(0);
    };
    let value = match t.get(BtreeId::ACCOUNTING, pos)? {
        Some(key) if key.key.key_type == KeyType::ACCOUNTING => {
            Accounting::parse(key).map_or(0, |a| a.counter(index))
        }
        _ => 0,
    };
    Ok(u64::try_from(value).unwrap_or(0))
}

#[kernel::macros::kunit_tests(bcachefs_alloc_accounting)]
mod tests {
    use super::*;

    fn counted(hidden: u64, data: u64, reserved: u64) -> Counted {
        Counted {
            hidden,
            data,
            reserved,
            inodes: 3,
        }
    }

    #[test]
    fn usage_stays_within_capacity() {
        let u = Usage::new(1000, counted(100, 200, 64));
        assert_eq!((u.capacity, u.used, u.free()), (900, 265, 635));
        assert_eq!(u.available(), 625);
        let full = Usage::new(1000, counted(100, 5000, u64::MAX));
        assert_eq!((full.used, full.free(), full.available()), (900, 0, 0));
        assert_eq!(Usage::new(10, counted(100, 0, 0)).capacity, 0);
    }
}
