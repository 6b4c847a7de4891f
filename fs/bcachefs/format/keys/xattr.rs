// SPDX-License-Identifier: GPL-2.0
//! Extended attributes.
//!
//! The key is `inode : offset : snapshot`, placed by hash like a directory entry. The value is the
//! kind of name (its prefix), the lengths, the name without prefix, and the content. POSIX ACLs are
//! attributes of their own kinds with no name ([`acl`](crate::keys::acl)).

use core::fmt;

use zerocopy::byteorder::little_endian::U16;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bkey::KeyRef;
use crate::error::{ErrorId, Invalid};
use crate::keys::acl::Acl;
use crate::keys::layout::{assert_layout, too_small, view, BuildError, ValueWriter};
use crate::keys::text::Name;

/// The fixed part.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct DiskXattr {
    xattr_type: u8,
    name_len: u8,
    val_len: U16,
}

assert_layout!(DiskXattr, 4, { xattr_type: 0, name_len: 1, val_len: 2 });

/// Longest name and content together that fit in a key, in bytes.
pub const XATTR_SPACE_MAX: usize = 250 * 8 - size_of::<DiskXattr>();

/// Which names an attribute belongs to. Open: others are refused by the validators.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct XattrType(pub u8);

impl XattrType {
    /// `user.*`
    pub const USER: Self = Self(0);
    /// The access ACL; no name.
    pub const POSIX_ACL_ACCESS: Self = Self(1);
    /// The default ACL of a directory; no name.
    pub const POSIX_ACL_DEFAULT: Self = Self(2);
    /// `trusted.*`
    pub const TRUSTED: Self = Self(3);
    /// `security.*`
    pub const SECURITY: Self = Self(4);

    /// What stands before the stored name; for ACLs, which store none, the whole name. `None` if
    /// the type is not known.
    pub const fn prefix(self) -> Option<&'static str> {
        Some(match self {
            Self::USER => "user.",
            Self::POSIX_ACL_ACCESS => "system.posix_acl_access",
            Self::POSIX_ACL_DEFAULT => "system.posix_acl_default",
            Self::TRUSTED => "trusted.",
            Self::SECURITY => "security.",
            _ => return None,
        })
    }

    /// Whether attributes of this type are ACLs.
    pub const fn is_acl(self) -> bool {
        matches!(self, Self::POSIX_ACL_ACCESS | Self::POSIX_ACL_DEFAULT)
    }

    /// Splits a full name into its type and the name to store. `None` if no type fits.
    pub fn split(full: &[u8]) -> Option<(Self, &[u8])> {
        [
            Self::USER,
            Self::POSIX_ACL_ACCESS,
            Self::POSIX_ACL_DEFAULT,
            Self::TRUSTED,
            Self::SECURITY,
        ]
        .into_iter()
        .find_map(|t| {
            let name = full.strip_prefix(t.prefix()?.as_bytes())?;
            // An ACL has nothing after its name, everything else something.
            (t.is_acl() == name.is_empty()).then_some((t, name))
        })
    }
}

/// A view of an extended attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Xattr<'a> {
    /// Which names it belongs to.
    pub xattr_type: XattrType,
    /// Name without prefix; empty for ACLs.
    pub name: &'a [u8],
    /// Content.
    pub value: &'a [u8],
}

impl<'a> Xattr<'a> {
    /// Reads the value of a key of type `xattr`.
    pub fn parse(key: KeyRef<'a>) -> Result<Self, Invalid> {
        let bytes = key.value_bytes();
        let Some((raw, after)) = view::<DiskXattr>(bytes) else {
            return Err(too_small(bytes.len(), 8));
        };
        let name_len = usize::from(raw.name_len);
        let val_len = usize::from(raw.val_len.get());
        let parts = after
            .split_at_checked(name_len)
            .and_then(|(name, rest)| Some((name, rest.get(..val_len)?)));
        let Some((name, value)) = parts else {
            return Err(Invalid::new(
                ErrorId::XATTR_VAL_SIZE_TOO_SMALL,
                "name and content longer than the value",
                1,
                (name_len + val_len) as u64,
                after.len() as u64,
            ));
        };
        Ok(Self {
            xattr_type: XattrType(raw.xattr_type),
            name,
            value,
        })
    }

    /// The content as an ACL; `None` if the attribute is not one.
    pub fn acl(&self) -> Option<Result<Acl<'a>, Invalid>> {
        self.xattr_type.is_acl().then(|| Acl::parse(self.value))
    }

    /// Writes the value; returns the words used.
    pub fn build(&self, out: &mut [u64]) -> Result<usize, BuildError> {
        let name_len = u8::try_from(self.name.len())
            .map_err(|_| BuildError::Unrepresentable("name of the attribute"))?;
        let val_len = u16::try_from(self.value.len())
            .map_err(|_| BuildError::Unrepresentable("content of the attribute"))?;
        let mut w = ValueWriter::new(out);
        w.put(&DiskXattr {
            xattr_type: self.xattr_type.0,
            name_len,
            val_len: U16::new(val_len),
        })?;
        w.bytes(self.name)?;
        w.bytes(self.value)?;
        w.finish()
    }

    /// Checks a key of type `xattr`.
    pub(crate) fn validate(key: KeyRef<'_>) -> Result<(), Invalid> {
        let x = Xattr::parse(key)?;
        let used = size_of::<DiskXattr>() + x.name.len() + x.value.len();
        // Some writers rounded up with four bytes to spare.
        let most = (used + 4).div_ceil(8);
        if key.value.len() > most {
            return Err(Invalid::new(
                ErrorId::XATTR_VAL_SIZE_TOO_BIG,
                "value longer than name and content need",
                1,
                key.value.len() as u64,
                most as u64,
            ));
        }
        if x.xattr_type.prefix().is_none() {
            return Err(Invalid::new(
                ErrorId::XATTR_INVALID_TYPE,
                "unknown type of attribute",
                0,
                x.xattr_type.0.into(),
                XattrType::SECURITY.0.into(),
            ));
        }
        if x.name.contains(&0) {
            return Err(Invalid::new(
                ErrorId::XATTR_NAME_INVALID_CHARS,
                "zero byte in the name of an attribute",
                size_of::<DiskXattr>(),
                0,
                1,
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Xattr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.xattr_type.prefix() {
            Some(prefix) => f.write_str(prefix)?,
            None => write!(f, "(unknown type {})", self.xattr_type.0)?,
        }
        write!(f, "{}:", Name(self.name))?;
        match self.acl() {
            Some(Ok(acl)) => acl.fmt(f),
            _ => Name(self.value).fmt(f),
        }
    }
}
