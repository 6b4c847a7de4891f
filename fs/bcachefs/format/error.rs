// SPDX-License-Identifier: GPL-2.0
//! What validation returns: which rule was broken, where, and with what value.
//!
//! [`ErrorId`] is the stable number under which the superblock counts an error; [`Invalid`] is the
//! description for a person. Both are plain values; printing is done through `Display` only.

use core::fmt;

/// The stable number of an error kind, as stored in the superblock.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorId(pub u16);

/// Defines the constants of [`ErrorId`] and the tables behind its printing.
macro_rules! error_ids {
    ($($nr:literal $konst:ident $name:literal $auto:literal;)*) => {
        #[allow(missing_docs)] // the name is the documentation
        impl ErrorId {
            $(pub const $konst: ErrorId = ErrorId($nr);)*
        }

        /// Name and whether the error is repaired without asking, by id.
        static TABLE: &[(u16, &str, bool)] = &[$(($nr, $name, $auto)),*];

        pub(super) fn lookup(id: u16) -> Option<(&'static str, bool)> {
            TABLE
                .get(usize::from(id))
                .filter(|e| e.0 == id)
                .map(|e| (e.1, e.2))
        }

        pub(super) const COUNT: u16 = TABLE.len() as u16;
    };
}

mod ids;

impl ErrorId {
    /// For rules that have no stable id (most superblock rules).
    pub const NONE: ErrorId = ErrorId(u16::MAX);

    /// Number of ids known to metadata version 1.13; valid ids are below it.
    pub const COUNT: u16 = ids::COUNT;

    /// The name of the id, if it is a known one.
    pub fn name(self) -> Option<&'static str> {
        ids::lookup(self.0).map(|e| e.0)
    }

    /// Whether errors of this kind are repaired without asking.
    pub fn autofix(self) -> bool {
        ids::lookup(self.0).is_some_and(|e| e.1)
    }
}

impl fmt::Display for ErrorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None if *self == Self::NONE => f.write_str("(no id)"),
            None => write!(f, "(unknown error {})", self.0),
        }
    }
}

impl fmt::Debug for ErrorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A broken rule: what, where, and the values involved.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Invalid {
    /// Stable id of the rule, or [`ErrorId::NONE`].
    pub id: ErrorId,
    /// The field and the rule it breaks, for a person.
    pub what: &'static str,
    /// Byte offset of the field inside the object that was validated.
    pub offset: usize,
    /// The value found.
    pub got: u64,
    /// The value, or the limit, that was expected.
    pub want: u64,
}

impl Invalid {
    /// A broken rule that has a stable id. `offset` is in bytes from the start of the object.
    pub const fn new(id: ErrorId, what: &'static str, offset: usize, got: u64, want: u64) -> Self {
        Invalid {
            id,
            what,
            offset,
            got,
            want,
        }
    }

    /// A broken rule without a stable id.
    pub const fn plain(what: &'static str, offset: usize, got: u64, want: u64) -> Self {
        Self::new(ErrorId::NONE, what, offset, got, want)
    }

    /// The same, with the offset counted from an enclosing object that holds this one at `base`.
    pub const fn within(mut self, base: usize) -> Self {
        self.offset = self.offset.saturating_add(base);
        self
    }

    /// The same, under the stable id `id`, unless it already has one.
    pub fn or_id(mut self, id: ErrorId) -> Self {
        if self.id == ErrorId::NONE {
            self.id = id;
        }
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (at byte {}: got {:#x}, want {:#x})",
            self.what, self.offset, self.got, self.want
        )?;
        if self.id != ErrorId::NONE {
            write!(f, " [{}]", self.id)?;
        }
        Ok(())
    }
}
