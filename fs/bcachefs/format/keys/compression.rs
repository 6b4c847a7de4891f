// SPDX-License-Identifier: GPL-2.0
//! Codes for compression: the type stored with data, and the option that asks for one.

use core::fmt;

/// How the data behind a pointer is compressed. Open: unknown codes are kept, and refused by the
/// validators.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CompressionType(pub u8);

impl CompressionType {
    /// Stored raw.
    pub const NONE: Self = Self(0);
    /// A legacy lz4 framing, only ever read.
    pub const LZ4_OLD: Self = Self(1);
    /// A zlib (deflate) stream.
    pub const GZIP: Self = Self(2);
    /// An lz4 block.
    pub const LZ4: Self = Self(3);
    /// A length word and a zstd frame.
    pub const ZSTD: Self = Self(4);
    /// Stored raw, because compression was tried and did not pay.
    pub const INCOMPRESSIBLE: Self = Self(5);

    /// Whether the code is defined.
    pub const fn is_known(self) -> bool {
        self.0 <= Self::INCOMPRESSIBLE.0
    }

    /// Whether what is on disk differs from the data.
    pub const fn is_compressed(self) -> bool {
        self.0 != Self::NONE.0 && self.0 != Self::INCOMPRESSIBLE.0
    }
}

impl fmt::Display for CompressionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NONE => f.write_str("none"),
            Self::LZ4_OLD => f.write_str("lz4_old"),
            Self::GZIP => f.write_str("gzip"),
            Self::LZ4 => f.write_str("lz4"),
            Self::ZSTD => f.write_str("zstd"),
            Self::INCOMPRESSIBLE => f.write_str("incompressible"),
            Self(n) => write!(f, "unknown({n})"),
        }
    }
}

/// A compression option: algorithm in the low half (0 none, 1 lz4, 2 gzip, 3 zstd), level in the
/// high half (0: the algorithm's default).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct CompressionOpt(pub u8);

impl CompressionOpt {
    /// No compression.
    pub const NONE: Self = Self(0);

    /// The algorithm's number.
    pub const fn algorithm(self) -> u8 {
        self.0 & 15
    }

    /// The level, 0 for the default.
    pub const fn level(self) -> u8 {
        self.0 >> 4
    }

    /// Whether the option is defined: a known algorithm, and no level without one.
    pub const fn is_valid(self) -> bool {
        self.algorithm() < 4 && (self.algorithm() != 0 || self.level() == 0)
    }

    /// The type that data written under this option gets; `None` if the option is not valid.
    pub const fn to_type(self) -> Option<CompressionType> {
        match self.algorithm() {
            0 => Some(CompressionType::NONE),
            1 => Some(CompressionType::LZ4),
            2 => Some(CompressionType::GZIP),
            3 => Some(CompressionType::ZSTD),
            _ => None,
        }
    }
}

impl fmt::Display for CompressionOpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.algorithm() {
            0 => f.write_str("none")?,
            1 => f.write_str("lz4")?,
            2 => f.write_str("gzip")?,
            3 => f.write_str("zstd")?,
            n => write!(f, "unknown({n})")?,
        }
        if self.level() != 0 {
            write!(f, ":{}", self.level())?;
        }
        Ok(())
    }
}
