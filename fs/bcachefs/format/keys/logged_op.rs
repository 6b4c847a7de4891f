// SPDX-License-Identifier: GPL-2.0
//! Operations that take several transactions, to be finished after a crash. The key is
//! `0 : number : 0`.

use core::fmt;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bkey::KeyRef;
use crate::error::Invalid;
use crate::keys::layout::{assert_layout, build_struct, read_fixed, BuildError};

/// Shortest value of both types.
const SIZE_MIN: usize = 24;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskTruncate {
    subvol: U32,
    pad: U32,
    inum: U64,
    new_i_size: U64,
}

assert_layout!(DiskTruncate, 24, { subvol: 0, pad: 4, inum: 8, new_i_size: 16 });

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskFinsert {
    state: u8,
    pad: [u8; 3],
    subvol: U32,
    inum: U64,
    dst_offset: U64,
    src_offset: U64,
    pos: U64,
}

assert_layout!(DiskFinsert, 40, {
    state: 0, pad: 1, subvol: 4, inum: 8, dst_offset: 16, src_offset: 24, pos: 32,
});

/// A truncate under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LoggedOpTruncate {
    /// Subvolume of the file.
    pub subvol: u32,
    /// Inode number of the file.
    pub inum: u64,
    /// The size it is to get, in bytes.
    pub new_i_size: u64,
}

impl LoggedOpTruncate {
    /// Reads the value of a key of type `logged_op_truncate`.
    pub fn parse(key: KeyRef<'_>) -> Result<Self, Invalid> {
        let raw: DiskTruncate = read_fixed(key.value_bytes(), SIZE_MIN)?;
        Ok(Self {
            subvol: raw.subvol.get(),
            inum: raw.inum.get(),
            new_i_size: raw.new_i_size.get(),
        })
    }

    /// Writes the value; returns the words used.
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        build_struct(
            &DiskTruncate {
                subvol: U32::new(self.subvol),
                pad: U32::new(0),
                inum: U64::new(self.inum),
                new_i_size: U64::new(self.new_i_size),
            },
            out,
        )
    }
}

impl fmt::Display for LoggedOpTruncate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "subvol {} inum {} new_i_size {}",
            self.subvol, self.inum, self.new_i_size
        )
    }
}

/// How far an insert or collapse of a range has come. Open.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FinsertState(pub u8);

impl FinsertState {
    /// Nothing has been done yet.
    pub const START: Self = Self(0);
    /// Extents are being shifted.
    pub const SHIFT_EXTENTS: Self = Self(1);
    /// All extents have been shifted.
    pub const FINISH: Self = Self(2);
}

impl fmt::Display for FinsertState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::START => f.write_str("start"),
            Self::SHIFT_EXTENTS => f.write_str("shift_extents"),
            Self::FINISH => f.write_str("finish"),
            Self(n) => write!(f, "unknown({n})"),
        }
    }
}

/// An insert or collapse of a range under way. Offsets in sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LoggedOpFinsert {
    /// How far it has come.
    pub state: FinsertState,
    /// Subvolume of the file.
    pub subvol: u32,
    /// Inode number of the file.
    pub inum: u64,
    /// Where the extents go; above the source for an insert, below it for a collapse.
    pub dst_offset: u64,
    /// Where the extents come from.
    pub src_offset: u64,
    /// Where shifting goes on.
    pub pos: u64,
}

impl LoggedOpFinsert {
    /// Reads the value of a key of type `logged_op_finsert`.
    pub fn parse(key: KeyRef<'_>) -> Result<Self, Invalid> {
        let raw: DiskFinsert = read_fixed(key.value_bytes(), SIZE_MIN)?;
        Ok(Self {
            state: FinsertState(raw.state),
            subvol: raw.subvol.get(),
            inum: raw.inum.get(),
            dst_offset: raw.dst_offset.get(),
            src_offset: raw.src_offset.get(),
            pos: raw.pos.get(),
        })
    }

    /// Writes the value; returns the words used.
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        build_struct(
            &DiskFinsert {
                state: self.state.0,
                pad: [0; 3],
                subvol: U32::new(self.subvol),
                inum: U64::new(self.inum),
                dst_offset: U64::new(self.dst_offset),
                src_offset: U64::new(self.src_offset),
                pos: U64::new(self.pos),
            },
            out,
        )
    }
}

impl fmt::Display for LoggedOpFinsert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "state {} subvol {} inum {} dst_offset {} src_offset {} pos {}",
            self.state, self.subvol, self.inum, self.dst_offset, self.src_offset, self.pos
        )
    }
}
