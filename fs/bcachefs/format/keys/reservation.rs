// SPDX-License-Identifier: GPL-2.0
//! Reservations: space promised to a range of a file, with no data yet. Reads as zeros.

use core::fmt;

use zerocopy::byteorder::little_endian::U32;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bkey::KeyRef;
use crate::error::{ErrorId, Invalid};
use crate::keys::layout::{assert_layout, build_struct, read_fixed, BuildError};

/// Most replicas a filesystem can be told to keep.
pub const REPLICAS_MAX: u8 = 4;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskReservation {
    generation: U32,
    nr_replicas: u8,
    pad: [u8; 3],
}

assert_layout!(DiskReservation, 8, { generation: 0, nr_replicas: 4, pad: 5 });

/// A reservation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reservation {
    /// 0 in version 1.13.
    pub generation: u32,
    /// How many copies space is reserved for.
    pub nr_replicas: u8,
}

impl Reservation {
    /// Reads the value of a key of type `reservation`.
    pub fn parse(key: KeyRef<'_>) -> Result<Self, Invalid> {
        let raw: DiskReservation = read_fixed(key.value_bytes(), size_of::<DiskReservation>())?;
        Ok(Self {
            generation: raw.generation.get(),
            nr_replicas: raw.nr_replicas,
        })
    }

    /// Writes the value; returns the words used.
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        build_struct(
            &DiskReservation {
                generation: U32::new(self.generation),
                nr_replicas: self.nr_replicas,
                pad: [0; 3],
            },
            out,
        )
    }

    /// Checks the value of a key of type `reservation`.
    pub(crate) fn validate(key: KeyRef<'_>) -> Result<(), Invalid> {
        let r = Self::parse(key)?;
        if !(1..=REPLICAS_MAX).contains(&r.nr_replicas) {
            return Err(Invalid::new(
                ErrorId::RESERVATION_KEY_NR_REPLICAS_INVALID,
                "number of replicas of a reservation out of range",
                4,
                u64::from(r.nr_replicas),
                u64::from(REPLICAS_MAX),
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "generation {} replicas {}",
            self.generation, self.nr_replicas
        )
    }
}
