// SPDX-License-Identifier: GPL-2.0
//! Replicas: which combinations of devices hold data, and whether enough of them are there.

use core::fmt;

use super::field::FIELD_HEADER_BYTES;
use super::{Field, Members};
use crate::error::Invalid;
use crate::keys::data_type::DataType;
use crate::super_block::{SuperBlock, DEV_INVALID};

/// Beyond this many entries duplicates are not looked for: they do no harm, and finding them takes
/// time in the square of the number.
const DUPLICATE_SCAN_MAX: usize = 4096;

/// A combination of devices that holds data.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ReplicasEntry<'a> {
    /// The kind of data.
    pub data_type: DataType,
    /// How many of the devices are needed to read it; 0 for part of a stripe.
    pub nr_required: u8,
    /// The devices; [`DEV_INVALID`] for one that is gone.
    pub devs: &'a [u8],
}

impl ReplicasEntry<'_> {
    /// Whether two entries name the same devices, in whatever order, for the same kind of data.
    fn same_as(&self, other: &ReplicasEntry<'_>) -> bool {
        // With a fixed number of devices, each counted in both lists.
        let count = |devs: &[u8], dev: u8| devs.iter().filter(|d| **d == dev).count();
        self.data_type == other.data_type
            && self.nr_required == other.nr_required
            && self.devs.len() == other.devs.len()
            && (self.devs == other.devs
                || self
                    .devs
                    .iter()
                    .all(|d| count(self.devs, *d) == count(other.devs, *d)))
    }

    /// Whether the data can be had when only devices for which `online` holds are there. `failed`
    /// says whether a device is known not to be readable.
    pub fn availability(
        &self,
        online: impl Fn(u8) -> bool,
        failed: impl Fn(u8) -> bool,
    ) -> Availability {
        let nr_online = self.devs.iter().filter(|d| online(**d)).count();
        let written_off = |d: &u8| online(*d) || *d == DEV_INVALID || failed(*d);
        if self.data_type == DataType::CACHED || self.devs.iter().all(written_off) {
            Availability::Complete
        } else if nr_online < usize::from(self.nr_required) {
            Availability::Lost
        } else if nr_online < self.devs.len() {
            Availability::Degraded
        } else {
            Availability::Complete
        }
    }
}

/// Whether data can be had with the devices that are there; ordered from good to bad.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Availability {
    /// Everything is there, or known to be given up.
    Complete,
    /// Some replicas are missing.
    Degraded,
    /// Not enough replicas are there.
    Lost,
}

impl fmt::Display for ReplicasEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (required, nr) = (self.nr_required, self.devs.len());
        write!(f, "{}: {required}/{nr} {:?}", self.data_type, self.devs)
    }
}

/// The list of entries, of either field type.
#[derive(Copy, Clone, Debug, Default)]
pub struct Replicas<'a> {
    bytes: &'a [u8],
    has_required: bool,
}

impl<'a> Replicas<'a> {
    /// Of a field of type replicas.
    pub fn current(field: &Field<'a>) -> Self {
        Replicas {
            bytes: field.bytes(),
            has_required: true,
        }
    }

    /// Of a field of type replicas_v0, in which one device of each entry suffices.
    pub fn v0(field: &Field<'a>) -> Self {
        Replicas {
            bytes: field.bytes(),
            has_required: false,
        }
    }

    /// The entries. Ends at the first that does not fit.
    pub fn iter(&self) -> impl Iterator<Item = ReplicasEntry<'a>> {
        self.with_offsets().map_while(|(_, e)| e)
    }

    /// Offset in the field and entry; `None` in place of one that does not fit, then nothing more.
    fn with_offsets(&self) -> impl Iterator<Item = (usize, Option<ReplicasEntry<'a>>)> {
        let Replicas {
            bytes,
            has_required,
        } = *self;
        let mut at = FIELD_HEADER_BYTES;
        core::iter::from_fn(move || {
            let start = at;
            let rest = bytes.get(start..)?;
            if *rest.first()? == 0 {
                return None;
            }
            let parsed = match *rest {
                [data_type, nr, required, ref devs @ ..] if has_required => {
                    Some((data_type, nr, required, devs, 3))
                }
                [data_type, nr, ref devs @ ..] if !has_required => {
                    Some((data_type, nr, 1, devs, 2))
                }
                _ => None,
            };
            let entry = parsed.and_then(|(data_type, nr, nr_required, devs, header)| {
                at = start + header + usize::from(nr);
                Some(ReplicasEntry {
                    data_type: DataType(data_type),
                    nr_required,
                    devs: devs.get(..usize::from(nr))?,
                })
            });
            if entry.is_none() {
                at = bytes.len();
            }
            Some((start, entry))
        })
    }

    /// The worst availability over all entries, and the entry it is for.
    pub fn availability(
        &self,
        online: impl Fn(u8) -> bool,
        failed: impl Fn(u8) -> bool,
    ) -> Option<(Availability, ReplicasEntry<'a>)> {
        self.iter()
            .map(|e| (e.availability(&online, &failed), e))
            .max_by_key(|(a, _)| *a)
    }

    /// Checks the field. Errors count bytes from its start.
    pub fn validate(&self, sb: &SuperBlock<'_>) -> Result<(), Invalid> {
        let members = sb.members();
        for (at, entry) in self.with_offsets() {
            let Some(entry) = entry else {
                let len = self.bytes.len();
                let what = "replicas: entry extends past the end";
                return Err(Invalid::plain(what, at, len as u64, len as u64));
            };
            check_entry(&entry, &members).map_err(|e| e.within(at))?;
        }
        if self.iter().count() > DUPLICATE_SCAN_MAX {
            return Ok(());
        }
        for (i, (at, entry)) in self.with_offsets().enumerate() {
            let duplicate = |e: ReplicasEntry<'_>| entry.is_some_and(|x| x.same_as(&e));
            if let Some(j) = self.iter().take(i).position(duplicate) {
                let what = "replicas: two entries are the same";
                return Err(Invalid::plain(what, at, i as u64, j as u64));
            }
        }
        Ok(())
    }
}

fn check_entry(entry: &ReplicasEntry<'_>, members: &Members<'_>) -> Result<(), Invalid> {
    let (nr, required) = (entry.devs.len() as u64, u64::from(entry.nr_required));
    if nr == 0 {
        return Err(Invalid::plain("replicas: entry without devices", 1, 0, 1));
    }
    if required > 1 && required >= nr {
        let what = "replicas: entry requires all its devices or more";
        return Err(Invalid::plain(what, 2, required, nr));
    }
    let unknown = |d: &&u8| **d != DEV_INVALID && !members.exists(**d);
    match entry.devs.iter().find(unknown) {
        Some(dev) => {
            let what = "replicas: entry names a device that does not exist";
            Err(Invalid::plain(what, 3, (*dev).into(), members.nr().into()))
        }
        None => Ok(()),
    }
}

/// Writes `entries` as the payload of a replicas field (`has_required`) or a replicas_v0 field.
/// Returns the bytes used, `None` if they do not fit.
pub fn encode(
    entries: &[ReplicasEntry<'_>],
    has_required: bool,
    payload: &mut [u8],
) -> Option<usize> {
    payload.fill(0);
    let mut at = 0;
    for e in entries {
        let nr = u8::try_from(e.devs.len()).ok()?;
        let header = [e.data_type.0, nr, e.nr_required];
        let header = header.get(..if has_required { 3 } else { 2 })?;
        let end = at + header.len() + e.devs.len();
        let source = header.iter().chain(e.devs);
        for (to, from) in payload.get_mut(at..end)?.iter_mut().zip(source) {
            *to = *from;
        }
        at = end;
    }
    Some(at)
}
