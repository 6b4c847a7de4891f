// SPDX-License-Identifier: GPL-2.0
//! The variable-length fields that follow the fixed part of an inode.
//!
//! The fields come in one fixed order; how many are stored is part of the flags, and the others are
//! zero. Times count as 96 bits wide: two numbers, of which the second is always 0. The list of the
//! two older generations has size and sectors after the times, and lacks `nocow`.

use crate::error::{ErrorId, Invalid};
use crate::keys::inode::Inode;
use crate::keys::layout::{BuildError, ValueWriter};
use crate::keys::varint;

/// How the numbers are encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Encoding {
    /// As in [`varint`].
    Varint,
    /// The encoding of the first generation: the leading zero bits of the first byte give the
    /// length, the rest is the number, most significant byte first.
    Prefixed,
}

/// Which list of fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum List {
    /// With size and sectors.
    V2,
    /// The current one.
    V3,
}

/// Reads fields one after the other.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u32,
    encoding: Encoding,
}

impl Cursor<'_> {
    fn error(&self, what: &'static str, got: u64, want: u64) -> Invalid {
        Invalid::new(ErrorId::INODE_UNPACK_ERROR, what, self.at, got, want)
    }

    fn number(&mut self) -> Result<u64, Invalid> {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let (v, len) = match self.encoding {
            Encoding::Varint => varint::decode(rest),
            Encoding::Prefixed => decode_prefixed(rest),
        }
        .ok_or_else(|| self.error("inode field cut off", rest.len() as u64, 1))?;
        self.at += len;
        Ok(v)
    }

    /// The next field of at most `max`; 0 once all stored ones have been read.
    fn field(&mut self, max: u64) -> Result<u64, Invalid> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(0);
        };
        self.left = left;
        let v = self.number()?;
        if v > max {
            return Err(self.error("inode field out of range", v, max));
        }
        Ok(v)
    }

    fn u8(&mut self) -> Result<u8, Invalid> {
        self.field(u8::MAX.into()).map(|v| v as u8)
    }

    fn u16(&mut self) -> Result<u16, Invalid> {
        self.field(u16::MAX.into()).map(|v| v as u16)
    }

    fn u32(&mut self) -> Result<u32, Invalid> {
        self.field(u32::MAX.into()).map(|v| v as u32)
    }

    fn u64(&mut self) -> Result<u64, Invalid> {
        self.field(u64::MAX)
    }

    fn time(&mut self) -> Result<i64, Invalid> {
        if self.left == 0 {
            return Ok(0);
        }
        let lo = self.u64()?;
        // The old encoding stores wide numbers in one piece and refuses what exceeds 64 bits.
        if self.encoding == Encoding::Varint {
            let hi = self.number()?;
            if hi != 0 {
                return Err(self.error("inode time beyond 64 bits", hi, 0));
            }
        }
        Ok(lo as i64)
    }
}

/// Decodes the first `nr` fields of a list from `bytes[at..]` into `inode`.
pub(super) fn decode(
    inode: &mut Inode,
    bytes: &[u8],
    at: usize,
    nr: u32,
    list: List,
    encoding: Encoding,
) -> Result<(), Invalid> {
    let mut c = Cursor {
        bytes,
        at,
        left: nr,
        encoding,
    };
    inode.atime = c.time()?;
    inode.ctime = c.time()?;
    inode.mtime = c.time()?;
    inode.otime = c.time()?;
    if list == List::V2 {
        inode.size = c.u64()?;
        inode.sectors = c.u64()?;
    }
    inode.uid = c.u32()?;
    inode.gid = c.u32()?;
    inode.nlink = c.u32()?;
    inode.generation = c.u32()?;
    inode.dev = c.u32()?;
    let o = &mut inode.options;
    o.data_checksum = c.u8()?;
    o.compression = c.u8()?;
    o.project = c.u32()?;
    o.background_compression = c.u8()?;
    o.data_replicas = c.u8()?;
    o.promote_target = c.u16()?;
    o.foreground_target = c.u16()?;
    o.background_target = c.u16()?;
    o.erasure_code = c.u16()?;
    o.fields_set = c.u16()?;
    inode.dir = c.u64()?;
    inode.dir_offset = c.u64()?;
    inode.subvol = c.u32()?;
    inode.parent_subvol = c.u32()?;
    if list == List::V3 {
        inode.options.nocow = c.u8()?;
    }
    Ok(())
}

/// Number of fields in the current list.
pub(super) const NR_FIELDS: usize = 24;
/// How many of them are times, at the front.
const NR_TIMES: usize = 4;

/// The fields of the current list, in order.
fn values(inode: &Inode) -> [u64; NR_FIELDS] {
    let o = &inode.options;
    [
        inode.atime as u64,
        inode.ctime as u64,
        inode.mtime as u64,
        inode.otime as u64,
        inode.uid.into(),
        inode.gid.into(),
        inode.nlink.into(),
        inode.generation.into(),
        inode.dev.into(),
        o.data_checksum.into(),
        o.compression.into(),
        o.project.into(),
        o.background_compression.into(),
        o.data_replicas.into(),
        o.promote_target.into(),
        o.foreground_target.into(),
        o.background_target.into(),
        o.erasure_code.into(),
        o.fields_set.into(),
        inode.dir,
        inode.dir_offset,
        inode.subvol.into(),
        inode.parent_subvol.into(),
        o.nocow.into(),
    ]
}

/// How many fields have to be stored: zeros at the end are left out.
pub(super) fn count(inode: &Inode) -> u32 {
    let last = values(inode).iter().rposition(|v| *v != 0);
    last.map_or(0, |i| i as u32 + 1)
}

/// Appends the first `nr` fields of the current list.
pub(super) fn encode(inode: &Inode, nr: u32, out: &mut ValueWriter<'_>) -> Result<(), BuildError> {
    for (i, v) in values(inode).into_iter().enumerate().take(nr as usize) {
        put(v, out)?;
        if i < NR_TIMES {
            put(0, out)?;
        }
    }
    Ok(())
}

fn put(v: u64, out: &mut ValueWriter<'_>) -> Result<(), BuildError> {
    let (bytes, len) = varint::encode(v);
    out.bytes(bytes.get(..len).unwrap_or(&bytes))
}

/// Decodes one number of the oldest encoding; returns it and its length.
fn decode_prefixed(bytes: &[u8]) -> Option<(u64, usize)> {
    const LENGTHS: [usize; 8] = [1, 2, 3, 4, 6, 8, 10, 13];
    let first = *bytes.first()?;
    let zeros = first.leading_zeros();
    let len = *LENGTHS.get(zeros as usize)?;
    let mut v: u128 = u128::from(first ^ (0x80 >> zeros));
    for b in bytes.get(1..len)? {
        v = (v << 8) | u128::from(*b);
    }
    u64::try_from(v).ok().map(|v| (v, len))
}
