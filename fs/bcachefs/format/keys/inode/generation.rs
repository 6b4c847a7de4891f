// SPDX-License-Identifier: GPL-2.0
//! What is left at the number of a deleted inode: the generation the next user of the number gets.
//! It also hides versions of the inode in ancestor snapshots.

use core::fmt;

use zerocopy::byteorder::little_endian::U32;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bkey::KeyRef;
use crate::error::{ErrorId, Invalid};
use crate::keys::layout::{assert_layout, build_struct, read_fixed, BuildError};

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskInodeGeneration {
    generation: U32,
    pad: U32,
}

assert_layout!(DiskInodeGeneration, 8, { generation: 0, pad: 4 });

/// The value of an `inode_generation` key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InodeGeneration {
    /// Generation for the next inode with this number.
    pub generation: u32,
}

impl InodeGeneration {
    /// Reads the value of a key of type `inode_generation`.
    pub fn parse(key: KeyRef<'_>) -> Result<Self, Invalid> {
        let raw: DiskInodeGeneration =
            read_fixed(key.value_bytes(), size_of::<DiskInodeGeneration>())?;
        Ok(Self {
            generation: raw.generation.get(),
        })
    }

    /// Writes the value; returns the words used.
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        build_struct(
            &DiskInodeGeneration {
                generation: U32::new(self.generation),
                pad: U32::new(0),
            },
            out,
        )
    }

    /// Checks a key of type `inode_generation`.
    pub(crate) fn validate(key: KeyRef<'_>) -> Result<(), Invalid> {
        if key.key.pos.inode != 0 {
            return Err(Invalid::new(
                ErrorId::INODE_POS_INODE_NONZERO,
                "inode key outside 0:number",
                0,
                key.key.pos.inode,
                0,
            ));
        }
        Self::parse(key).map(drop)
    }
}

impl fmt::Display for InodeGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}", self.generation)
    }
}
