// SPDX-License-Identifier: GPL-2.0
//! File types and permissions.

use core::fmt;

/// The bits of a mode that are the file type.
pub const S_IFMT: u16 = 0o170000;
/// File type of a directory, as in a mode.
pub const S_IFDIR: u16 = 0o040000;

/// A POSIX file mode: type in the top four bits, permissions below.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Mode(pub u16);

impl Mode {
    /// The file type; open, like the number it comes from.
    pub const fn file_type(self) -> FileType {
        FileType((self.0 >> 12) as u8)
    }

    /// Permissions with the set-id and sticky bits.
    pub const fn permissions(self) -> u16 {
        self.0 & !S_IFMT
    }

    /// Whether this is a directory.
    pub const fn is_dir(self) -> bool {
        self.file_type().0 == FileType::DIR.0
    }

    /// Whether this is a regular file.
    pub const fn is_reg(self) -> bool {
        self.file_type().0 == FileType::REG.0
    }

    /// Whether this is a symbolic link.
    pub const fn is_lnk(self) -> bool {
        self.file_type().0 == FileType::LNK.0
    }

    /// Whether this is a character or block device.
    pub const fn is_device(self) -> bool {
        matches!(self.file_type(), FileType::CHR | FileType::BLK)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:o}", self.0)
    }
}

/// A file type as directory entries store it: bits 12..16 of a mode, or the mark of a subvolume.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FileType(pub u8);

impl FileType {
    /// Named pipe.
    pub const FIFO: Self = Self(1);
    /// Character device.
    pub const CHR: Self = Self(2);
    /// Directory.
    pub const DIR: Self = Self(4);
    /// Block device.
    pub const BLK: Self = Self(6);
    /// Regular file.
    pub const REG: Self = Self(8);
    /// Symbolic link.
    pub const LNK: Self = Self(10);
    /// Socket.
    pub const SOCK: Self = Self(12);
    /// The root of a subvolume; to users, a directory.
    pub const SUBVOL: Self = Self(16);

    /// Whether an inode can have this type.
    pub const fn is_inode_type(self) -> bool {
        matches!(
            self,
            Self::FIFO | Self::CHR | Self::DIR | Self::BLK | Self::REG | Self::LNK | Self::SOCK
        )
    }

    /// The type bits of a mode of this type.
    pub const fn to_mode(self) -> Mode {
        match self {
            Self::SUBVOL => Mode(S_IFDIR),
            Self(t) => Mode(((t & 15) as u16) << 12),
        }
    }

    /// The type as users see it: subvolumes are directories.
    pub const fn user_visible(self) -> Self {
        match self {
            Self::SUBVOL => Self::DIR,
            other => other,
        }
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::FIFO => f.write_str("fifo"),
            Self::CHR => f.write_str("chr"),
            Self::DIR => f.write_str("dir"),
            Self::BLK => f.write_str("blk"),
            Self::REG => f.write_str("reg"),
            Self::LNK => f.write_str("lnk"),
            Self::SOCK => f.write_str("sock"),
            Self::SUBVOL => f.write_str("subvol"),
            Self(t) => write!(f, "unknown({t})"),
        }
    }
}
