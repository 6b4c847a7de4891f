// SPDX-License-Identifier: GPL-2.0
//! Accounting: counters of what the filesystem holds.
//!
//! What is counted is packed into the 20 bytes of the key's position: a type byte, then a few bytes
//! of detail, then zeros. The value is one to three signed counters. The key's version says up to
//! where in the journal changes have been added in.

use core::fmt;

use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::bkey::{Bversion, KeyRef};
use crate::btree_id::BtreeId;
use crate::error::{ErrorId, Invalid};
use crate::keys::compression::CompressionType;
use crate::keys::data_type::DataType;
use crate::keys::layout::{too_small, BuildError, ValueWriter};
use crate::pos::{Bpos, DiskBpos};

mod replicas;

pub use replicas::{Replicas, DEVS_MAX};

/// Most counters of one key in version 1.13.
pub const ACCOUNTING_COUNTERS_MAX: usize = 3;
/// Bytes of a position.
const POS_BYTES: usize = size_of::<DiskBpos>();

/// What is counted: the meaning of a position in the accounting btree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccountingKey {
    /// Inodes, in all snapshots. Counters: inodes.
    NrInodes,
    /// Reservations for a number of replicas. Counters: sectors, not multiplied.
    PersistentReserved {
        /// How many replicas they are for.
        nr_replicas: u8,
    },
    /// Data on one set of devices. Counters: sectors on disk.
    Replicas(Replicas),
    /// Buckets of one type on one device. Counters: buckets, sectors in use, sectors fragmented.
    DevDataType {
        /// The device.
        dev: u8,
        /// The type.
        data_type: DataType,
    },
    /// Data of one compression. Counters: extents, sectors before, sectors after.
    Compression {
        /// The compression.
        compression: CompressionType,
    },
    /// Data in one snapshot. Counters: sectors on disk.
    Snapshot {
        /// The snapshot.
        id: u32,
    },
    /// Nodes of one btree. Counters: sectors on disk.
    Btree {
        /// The btree, as wide as it is stored.
        id: u32,
    },
    /// Data to be moved or compressed. Counters: sectors.
    RebalanceWork,
    /// Extents of one inode number. Counters: extents, sectors of keys, sectors on disk.
    Inum {
        /// The inode number.
        inum: u64,
    },
    /// Of a later version; kept.
    Unknown {
        /// Its type.
        kind: u8,
    },
}

impl AccountingKey {
    /// Reads a position. Bytes after the detail are not looked at.
    pub fn from_pos(pos: Bpos) -> Self {
        let disk = DiskBpos::from(pos);
        let bytes: [u8; POS_BYTES] = zerocopy::transmute!(disk);
        let [kind, rest @ ..] = bytes;
        let [a, b, c, d, e, f, g, h, ..] = rest;
        match kind {
            0 => Self::NrInodes,
            1 => Self::PersistentReserved { nr_replicas: a },
            2 => Self::Replicas(Replicas::from_bytes(&rest)),
            3 => Self::DevDataType {
                dev: a,
                data_type: DataType(b),
            },
            4 => Self::Compression {
                compression: CompressionType(a),
            },
            5 => Self::Snapshot {
                id: u32::from_le_bytes([a, b, c, d]),
            },
            6 => Self::Btree {
                id: u32::from_le_bytes([a, b, c, d]),
            },
            7 => Self::RebalanceWork,
            8 => Self::Inum {
                inum: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            },
            kind => Self::Unknown { kind },
        }
    }

    /// The type's number and how many bytes of the position it and its detail take.
    const fn kind(&self) -> (u8, usize) {
        match self {
            Self::NrInodes => (0, 1),
            Self::PersistentReserved { .. } => (1, 2),
            Self::Replicas(r) => (2, 4 + r.nr_devs as usize),
            Self::DevDataType { .. } => (3, 3),
            Self::Compression { .. } => (4, 2),
            Self::Snapshot { .. } => (5, 5),
            Self::Btree { .. } => (6, 5),
            Self::RebalanceWork => (7, 1),
            Self::Inum { .. } => (8, 9),
            Self::Unknown { kind } => (*kind, POS_BYTES),
        }
    }

    /// How many counters the type has; `None` if it is not known.
    pub const fn nr_counters(&self) -> Option<usize> {
        match self {
            Self::DevDataType { .. } | Self::Compression { .. } | Self::Inum { .. } => Some(3),
            Self::Unknown { .. } => None,
            _ => Some(1),
        }
    }

    /// The position; `None` for unknown types and for replicas on more devices than fit.
    pub fn to_pos(self) -> Option<Bpos> {
        let mut bytes = [0u8; POS_BYTES];
        let (kind, _) = self.kind();
        let (first, detail) = bytes.split_first_mut()?;
        *first = kind;
        let mut put = |from: &[u8]| {
            for (to, from) in detail.iter_mut().zip(from) {
                *to = *from;
            }
        };
        match self {
            Self::NrInodes | Self::RebalanceWork => {}
            Self::PersistentReserved { nr_replicas } => put(&[nr_replicas]),
            Self::Replicas(r) => put(&r.to_bytes()?),
            Self::DevDataType { dev, data_type } => put(&[dev, data_type.0]),
            Self::Compression { compression } => put(&[compression.0]),
            Self::Snapshot { id } | Self::Btree { id } => put(&id.to_le_bytes()),
            Self::Inum { inum } => put(&inum.to_le_bytes()),
            Self::Unknown { .. } => return None,
        }
        DiskBpos::read_from_bytes(&bytes).ok().map(Bpos::from)
    }
}

impl fmt::Display for AccountingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NrInodes => f.write_str("nr_inodes"),
            Self::PersistentReserved { nr_replicas } => {
                write!(f, "persistent_reserved replicas={nr_replicas}")
            }
            Self::Replicas(r) => write!(f, "replicas {r}"),
            Self::DevDataType { dev, data_type } => {
                write!(f, "dev_data_type dev={dev} data_type={data_type}")
            }
            Self::Compression { compression } => write!(f, "compression {compression}"),
            Self::Snapshot { id } => write!(f, "snapshot id={id}"),
            Self::Btree { id } => match u8::try_from(*id) {
                Ok(id) => write!(f, "btree {}", BtreeId(id)),
                Err(_) => write!(f, "btree {id}"),
            },
            Self::RebalanceWork => f.write_str("rebalance_work"),
            Self::Inum { inum } => write!(f, "inum {inum}"),
            Self::Unknown { kind } => write!(f, "unknown({kind})"),
        }
    }
}

/// A view of an accounting key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accounting<'a> {
    /// What is counted.
    pub what: AccountingKey,
    counters: &'a [u64],
}

impl<'a> Accounting<'a> {
    /// Reads a key of type `accounting`.
    pub fn parse(key: KeyRef<'a>) -> Result<Self, Invalid> {
        if key.value.is_empty() {
            return Err(too_small(0, 8));
        }
        Ok(Self {
            what: AccountingKey::from_pos(key.key.pos),
            counters: key.value,
        })
    }

    /// The counters; those of unknown types, too.
    pub fn counters(&self) -> impl Iterator<Item = i64> + 'a {
        self.counters.iter().map(|c| u64::from_le(*c) as i64)
    }

    /// Counter `n`; those not stored are 0.
    pub fn counter(&self, n: usize) -> i64 {
        self.counters.get(n).map_or(0, |c| u64::from_le(*c) as i64)
    }

    /// Whether all counters are 0, which means the same as no key.
    pub fn is_zero(&self) -> bool {
        self.counters.iter().all(|c| *c == 0)
    }

    /// Writes a value of these counters; returns the words used.
    pub fn build(counters: &[i64], out: &mut [u64]) -> Result<usize, BuildError> {
        if counters.is_empty() || counters.len() > ACCOUNTING_COUNTERS_MAX {
            return Err(BuildError::Unrepresentable("number of counters"));
        }
        let mut w = ValueWriter::new(out);
        w.bytes(counters.as_bytes())?;
        w.finish()
    }

    /// Checks a key of type `accounting`.
    pub(crate) fn validate(key: KeyRef<'_>) -> Result<(), Invalid> {
        if key.key.version == Bversion::ZERO {
            return Err(Invalid::new(
                ErrorId::ACCOUNTING_KEY_VERSION_0,
                "accounting key without version",
                0,
                0,
                1,
            ));
        }
        let a = Accounting::parse(key)?;
        if let AccountingKey::Replicas(r) = &a.what {
            r.validate()?;
        }
        // Unknown types have all bytes to themselves. The check is left out for inode numbers,
        // too: writers of this version never made it.
        let (_, used) = match a.what {
            AccountingKey::Inum { .. } => (0, POS_BYTES),
            _ => a.what.kind(),
        };
        let disk = DiskBpos::from(key.key.pos);
        let junk = disk.as_bytes().iter().skip(used).find(|b| **b != 0);
        match junk {
            Some(b) => Err(Invalid::new(
                ErrorId::ACCOUNTING_KEY_JUNK_AT_END,
                "bytes after what an accounting key counts not zero",
                used,
                u64::from(*b),
                0,
            )),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Accounting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.what)?;
        for c in self.counters() {
            write!(f, " {c}")?;
        }
        Ok(())
    }
}
