// SPDX-License-Identifier: GPL-2.0
//! What is to be mounted: the devices that were named.

use kernel::{prelude::*, str::CString};
use kfs::block::{lookup, DeviceNumber};

use crate::{
    sb::device::MEMBERS_MAX,
    util::{
        error::{Error, Result},
        log::Log,
    },
};

/// Devices named by the user, without repetition. At least one.
pub struct Request {
    sources: KVec<(CString, DeviceNumber)>,
}

impl Request {
    /// Splits `source`, device paths with colons between them, and finds out which block devices they
    /// are. Opens nothing. May sleep.
    ///
    /// # Errors
    ///
    /// [`Error::NoSource`], [`Error::TooManySources`], [`Error::DeviceTwice`], or what looking up a path says.
    pub fn new(source: &CStr, log: &dyn Log) -> Result<Self> {
        let mut sources = KVec::new();
        for path in source.to_bytes().split(|b| *b == b':') {
            if path.is_empty() {
                continue;
            }
            if sources.len() == MEMBERS_MAX {
                log.error(format_args!("more than {MEMBERS_MAX} devices named"));
                return Err(Error::TooManySources);
            }
            let path = c_string(path)?;
            let number = lookup(&path).map_err(|e| {
                log.error(format_args!("{path:?}: cannot be used as a block device: {e:?}"));
                Error::from(e)
            })?;
            if sources.iter().any(|(_, other)| *other == number) {
                log.error(format_args!("{path:?}: named twice"));
                return Err(Error::DeviceTwice);
            }
            sources.push((path, number), GFP_KERNEL)?;
        }
        if sources.is_empty() {
            log.error(format_args!("no device named"));
            return Err(Error::NoSource);
        }
        Ok(Request { sources })
    }

    /// Whether all devices named in `other` are named here, too: a filesystem mounted from here is the
    /// one that is wanted there. Any context.
    pub fn covers(&self, other: &Request) -> bool {
        other
            .sources
            .iter()
            .all(|(_, wanted)| self.sources.iter().any(|(_, have)| have == wanted))
    }

    /// The paths in the order given.
    pub fn paths(&self) -> impl Iterator<Item = &CStr> {
        self.sources.iter().map(|(path, _)| &**path)
    }
}

fn c_string(bytes: &[u8]) -> Result<CString> {
    let text = core::str::from_utf8(bytes).map_err(|_| Error::DeviceOpen)?;
    Ok(CString::try_from_fmt(core::format_args!("{text}"))?)
}
