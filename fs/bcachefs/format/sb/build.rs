// SPDX-License-Identifier: GPL-2.0
//! Making a superblock: a header, then fields one after the other.

use core::fmt;

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::field::{Field, FieldType};
use crate::checksum::{Checksummer, Csum, CsumType, Nonce};
use crate::super_block::{DiskSb, SB_HEADER_BYTES};

/// Why a superblock could not be made.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum SbFull {
    /// The buffer is full.
    NoSpace,
    /// The superblock would be longer than its layout allows.
    OverLimit,
    /// The checksum type cannot be computed, or is one that superblocks do not use.
    Checksum(CsumType),
}

impl fmt::Display for SbFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SbFull::NoSpace => f.write_str("no room for the superblock"),
            SbFull::OverLimit => f.write_str("superblock longer than its layout allows"),
            SbFull::Checksum(t) => write!(f, "cannot compute checksum type {t}"),
        }
    }
}

const HEADER_U64S: usize = SB_HEADER_BYTES / 8;

/// Makes a superblock in a caller's buffer.
#[derive(Debug)]
pub struct SbBuilder<'a> {
    words: &'a mut [u64],
    used: usize,
}

impl<'a> SbBuilder<'a> {
    /// Starts a superblock at the start of `words`, with the fixed part `header`; its length and
    /// checksum are filled in at the end.
    pub fn new(words: &'a mut [u64], header: &DiskSb) -> Result<Self, SbFull> {
        let room = words.get_mut(..HEADER_U64S).ok_or(SbFull::NoSpace)?;
        room.as_mut_bytes().copy_from_slice(header.as_bytes());
        Ok(SbBuilder {
            words,
            used: HEADER_U64S,
        })
    }

    /// Adds a field with room for `u64s` words of payload, which are zero to begin with.
    pub fn field(&mut self, field_type: FieldType, u64s: usize) -> Result<&mut [u64], SbFull> {
        let total = u64s.checked_add(1).ok_or(SbFull::NoSpace)?;
        let count = u32::try_from(total).map_err(|_| SbFull::NoSpace)?;
        let end = self.used.checked_add(total).ok_or(SbFull::NoSpace)?;
        let room = self.words.get_mut(self.used..end).ok_or(SbFull::NoSpace)?;
        self.used = end;
        let (head, payload) = room.split_first_mut().ok_or(SbFull::NoSpace)?;
        *head = Field::header_word(field_type, count);
        payload.fill(0);
        Ok(payload)
    }

    /// Adds a field as it was read from another superblock.
    pub fn copy_field(&mut self, field: &Field<'_>) -> Result<(), SbFull> {
        let source = field.payload();
        let payload = self.field(field.field_type, source.len())?;
        for (to, from) in payload.iter_mut().zip(source) {
            *to = *from;
        }
        Ok(())
    }

    /// Sets length, position and checksum for the copy at sector `offset`. Returns the length in bytes.
    pub fn finish<C: Checksummer + ?Sized>(
        &mut self,
        offset: u64,
        csum_type: CsumType,
        csum: &C,
    ) -> Result<usize, SbFull> {
        let bytes = self.used * 8;
        let all = self.words.as_mut_bytes();
        let all = all.get_mut(..bytes).ok_or(SbFull::NoSpace)?;
        let (header, _) = DiskSb::mut_from_prefix(all).map_err(|_| SbFull::NoSpace)?;
        if bytes as u64 > header.layout.copy_sectors() * 512 {
            return Err(SbFull::OverLimit);
        }
        let fields = u32::try_from(self.used - HEADER_U64S).map_err(|_| SbFull::OverLimit)?;
        header.u64s = U32::new(fields);
        header.offset.set(offset);
        let mut flags = header.flags();
        flags.set_csum_type(csum_type.0.into());
        for (to, from) in header.flags.iter_mut().zip(flags.0) {
            to.set(from);
        }
        if csum_type.is_mac() {
            return Err(SbFull::Checksum(csum_type));
        }
        let (stored, covered) = all
            .split_at_mut_checked(core::mem::size_of::<Csum>())
            .ok_or(SbFull::NoSpace)?;
        let value = csum
            .checksum(csum_type, Nonce::NONE, covered)
            .ok_or(SbFull::Checksum(csum_type))?;
        stored.copy_from_slice(value.as_bytes());
        Ok(bytes)
    }
}
