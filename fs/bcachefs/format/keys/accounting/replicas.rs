// SPDX-License-Identifier: GPL-2.0
//! Sets of devices that data is on, as accounting positions hold them.

use core::fmt;

use crate::error::{ErrorId, Invalid};
use crate::keys::data_type::DataType;

/// Devices that fit in a position.
pub const DEVS_MAX: usize = 16;

/// A set of devices for one type of data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Replicas {
    /// The type of data.
    pub data_type: DataType,
    /// Number of devices, as stored; more than [`DEVS_MAX`] is not valid.
    pub nr_devs: u8,
    /// How many of the devices are needed to have the data: 1, or more for stripes.
    pub nr_required: u8,
    devs: [u8; DEVS_MAX],
}

impl Replicas {
    /// A set for data of which any one device is enough. The devices are to be ascending. `None`
    /// if there are more than fit.
    pub fn new(data_type: DataType, nr_required: u8, devs: &[u8]) -> Option<Self> {
        let mut new = Self {
            data_type,
            nr_devs: u8::try_from(devs.len()).ok()?,
            nr_required,
            devs: [0; DEVS_MAX],
        };
        new.devs.get_mut(..devs.len())?.copy_from_slice(devs);
        Some(new)
    }

    /// The devices.
    pub fn devs(&self) -> &[u8] {
        self.devs
            .get(..usize::from(self.nr_devs))
            .unwrap_or(&self.devs)
    }

    /// Reads what follows the type byte of a position.
    pub(super) fn from_bytes(bytes: &[u8; 3 + DEVS_MAX]) -> Self {
        let [data_type, nr_devs, nr_required, devs @ ..] = *bytes;
        Self {
            data_type: DataType(data_type),
            nr_devs,
            nr_required,
            devs,
        }
    }

    /// What follows the type byte of a position. `None` if there are more devices than fit.
    pub(super) fn to_bytes(self) -> Option<[u8; 3 + DEVS_MAX]> {
        let mut bytes = [0; 3 + DEVS_MAX];
        let [data_type, nr_devs, nr_required, devs @ ..] = &mut bytes;
        *data_type = self.data_type.0;
        *nr_devs = self.nr_devs;
        *nr_required = self.nr_required;
        let used = usize::from(self.nr_devs);
        devs.get_mut(..used)?
            .copy_from_slice(self.devs.get(..used)?);
        Some(bytes)
    }

    /// Checks the numbers and the order of the devices.
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let nr = usize::from(self.nr_devs);
        if nr == 0 || nr > DEVS_MAX {
            return Err(Invalid::new(
                ErrorId::ACCOUNTING_KEY_REPLICAS_NR_DEVS_0,
                "number of devices of an accounting key out of range",
                2,
                self.nr_devs.into(),
                DEVS_MAX as u64,
            ));
        }
        if self.nr_required > self.nr_devs
            || (self.nr_required > 1 && self.nr_required == self.nr_devs)
        {
            return Err(Invalid::new(
                ErrorId::ACCOUNTING_KEY_REPLICAS_NR_REQUIRED_BAD,
                "number of devices needed of an accounting key out of range",
                3,
                self.nr_required.into(),
                self.nr_devs.into(),
            ));
        }
        if !self.devs().is_sorted_by(|a, b| a < b) {
            return Err(Invalid::new(
                ErrorId::ACCOUNTING_KEY_REPLICAS_DEVS_UNSORTED,
                "devices of an accounting key not in order",
                4,
                0,
                0,
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}/{} [",
            self.data_type, self.nr_required, self.nr_devs
        )?;
        let mut sep = "";
        for d in self.devs() {
            write!(f, "{sep}{d}")?;
            sep = " ";
        }
        f.write_str("]")
    }
}
