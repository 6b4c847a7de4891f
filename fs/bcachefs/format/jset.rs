// SPDX-License-Identifier: GPL-2.0
//! Journal entries ("jsets") as written to the journal: a header and a list of records.
//!
//! [`JsetPeek`] looks at a header alone, to find out how much to read; [`Jset::open`] frames and
//! verifies a whole entry; the records are read through [`entry::Entries`], which the clean section of the
//! superblock uses as well.

pub mod build;
pub mod entry;

use core::fmt;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::check::{Checked, Unchecked};
use crate::checksum::{Checksummer, CryptPiece, Csum, CsumType, Nonce};
use crate::error::{ErrorId, Invalid};
use crate::version::Version;

pub use build::{JsetBuilder, JsetError, NewJset};
pub use entry::{Entries, Entry, EntryType, RawEntry};

/// The header of a journal entry as stored (56 bytes).
#[derive(
    Copy,
    Clone,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(C)]
pub struct DiskJset {
    /// Checksum of everything after it.
    pub csum: Csum,
    /// Made from the filesystem's UUID, see [`crate::magic::jset_magic`].
    pub magic: U64,
    /// Sequence number.
    pub seq: U64,
    /// Metadata version when it was written.
    pub version: U32,
    /// Bits 0..4 checksum type, 4 big endian, 5 no flush.
    pub flags: U32,
    /// Words of records.
    pub u64s: U32,
    /// Unused. Encryption starts here.
    pub read_clock: U16,
    /// Unused.
    pub write_clock: U16,
    /// Oldest sequence number replay needs; meaningless without a flush.
    pub last_seq: U64,
}

/// Bytes of a journal entry's header.
pub const JSET_HEADER_BYTES: usize = core::mem::size_of::<DiskJset>();
/// The longest journal entry, in bytes.
pub const JSET_BYTES_MAX: usize = 4 << 20;

const CSUM_BYTES: usize = core::mem::size_of::<Csum>();
const ENCRYPTED_AT: usize = core::mem::offset_of!(DiskJset, read_clock);
const LAST_SEQ_AT: usize = core::mem::offset_of!(DiskJset, last_seq);

const _: () = {
    assert!(JSET_HEADER_BYTES == 56);
    assert!(core::mem::offset_of!(DiskJset, magic) == 16);
    assert!(core::mem::offset_of!(DiskJset, u64s) == 40);
    assert!(ENCRYPTED_AT == 44);
    assert!(LAST_SEQ_AT == 48);
};

impl DiskJset {
    const BIG_ENDIAN: u32 = 1 << 4;
    const NO_FLUSH: u32 = 1 << 5;

    /// Type of the checksum.
    pub fn csum_type(&self) -> CsumType {
        CsumType((self.flags.get() & 0xf) as u8)
    }

    /// Whether the entry is big-endian; never on a filesystem we read.
    pub fn is_big_endian(&self) -> bool {
        self.flags.get() & Self::BIG_ENDIAN != 0
    }

    /// Whether the entry was written without flushing the device caches before it.
    pub fn is_no_flush(&self) -> bool {
        self.flags.get() & Self::NO_FLUSH != 0
    }

    /// Bytes of header and records.
    pub fn bytes(&self) -> usize {
        // 32 bits of words are below 2^36 bytes.
        JSET_HEADER_BYTES + self.u64s.get() as usize * 8
    }

    /// What checksum and encryption start from.
    pub fn nonce(&self) -> Nonce {
        Nonce::journal(self.seq.get())
    }

    /// The encrypted bytes, if the checksum type is a MAC.
    pub fn crypt_piece(&self) -> Option<CryptPiece> {
        self.csum_type().is_mac().then(|| CryptPiece {
            bytes: ENCRYPTED_AT..self.bytes(),
            nonce: self.nonce(),
        })
    }
}

/// What a look at a block of the journal tells.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum JsetPeek {
    /// No journal entry of this filesystem starts here.
    Nothing,
    /// An entry with this sequence number and total length in bytes starts here.
    Entry {
        /// Sequence number.
        seq: u64,
        /// Bytes of header and records.
        bytes: usize,
    },
}

impl JsetPeek {
    /// Looks at the start of `words`, one block at least. `room` is the number of bytes to the end of
    /// the bucket. Errors: an unsupported version, or an entry longer than it may be.
    pub fn new(words: &[u64], magic: u64, room: usize) -> Result<Self, Invalid> {
        let Ok((header, _)) = DiskJset::ref_from_prefix(words.as_bytes()) else {
            return Ok(JsetPeek::Nothing);
        };
        if header.magic.get() != magic {
            return Ok(JsetPeek::Nothing);
        }
        let version = Version::from_u32(header.version.get());
        if !version.is_some_and(Version::is_compatible) {
            return Err(Invalid::new(
                ErrorId::JSET_UNSUPPORTED_VERSION,
                "journal entry has an unsupported version",
                32,
                header.version.get().into(),
                Version::CURRENT.0.into(),
            ));
        }
        let bytes = header.bytes();
        let limit = room.min(JSET_BYTES_MAX);
        if bytes > limit {
            return Err(Invalid::new(
                ErrorId::JSET_PAST_BUCKET_END,
                "journal entry extends past the end of its bucket",
                40,
                bytes as u64,
                limit as u64,
            ));
        }
        Ok(JsetPeek::Entry {
            seq: header.seq.get(),
            bytes,
        })
    }
}

/// A whole journal entry in memory.
#[derive(Copy, Clone, Debug)]
pub struct Jset<'a> {
    header: &'a DiskJset,
    bytes: &'a [u8],
    entries: &'a [u64],
}

impl<'a> Jset<'a> {
    /// Frames the entry at the start of `words`, which may be longer.
    pub fn new(words: &'a [u64]) -> Result<Unchecked<Self>, Invalid> {
        let short = |want: usize| {
            Invalid::new(
                ErrorId::JSET_PAST_BUCKET_END,
                "journal entry is cut off",
                0,
                words.len() as u64 * 8,
                want as u64,
            )
        };
        let all = words.as_bytes();
        let (header, _) = DiskJset::ref_from_prefix(all).map_err(|_| short(JSET_HEADER_BYTES))?;
        let total = header.bytes();
        let bytes = all.get(..total).ok_or_else(|| short(total))?;
        let entries = words
            .get(JSET_HEADER_BYTES / 8..total / 8)
            .ok_or_else(|| short(total))?;
        Ok(Unchecked::new(Jset {
            header,
            bytes,
            entries,
        }))
    }

    /// The header.
    pub const fn header(&self) -> &'a DiskJset {
        self.header
    }

    /// Sequence number.
    pub fn seq(&self) -> u64 {
        self.header.seq.get()
    }

    /// Oldest sequence number that replay needs, if this entry can say so: `None` without a flush. A
    /// number above the entry's own is corruption and counts as the entry's own.
    pub fn last_seq(&self) -> Option<u64> {
        (!self.header.is_no_flush()).then(|| self.header.last_seq.get().min(self.seq()))
    }

    /// Bytes of header and records.
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The records.
    pub const fn entries(&self) -> Entries<'a> {
        Entries::new(self.entries)
    }

    /// Whether two copies of an entry are the same bytes.
    pub fn same_as(&self, other: &Jset<'_>) -> bool {
        self.bytes == other.bytes
    }
}

impl<'a> Unchecked<Jset<'a>> {
    /// Verifies the checksum. An encrypted entry has to be decrypted after this and before
    /// [`Unchecked::validate`]; see [`DiskJset::crypt_piece`].
    pub fn verify<C: Checksummer + ?Sized>(&self, csum: &C) -> Result<(), Invalid> {
        let jset = self.peek();
        let csum_type = jset.header.csum_type();
        let covered = jset.bytes.get(CSUM_BYTES..).unwrap_or(&[]);
        let stored = &jset.header.csum;
        csum.verify(csum_type, jset.header.nonce(), covered, stored)
            .map_err(|e| {
                let unknown = Invalid::new(
                    ErrorId::JSET_UNKNOWN_CSUM,
                    "journal entry checksum type cannot be computed",
                    36,
                    0,
                    0,
                );
                let wrong = Invalid::plain("journal entry checksum is wrong", 0, 0, 0);
                e.describe(csum_type, stored, unknown, wrong)
            })
    }

    /// Checks the header of a verified entry. Records are checked one by one when they are read: a
    /// bad one does not spoil the others. `last_seq` above `seq` is accepted, see
    /// [`Jset::last_seq`] and [`Jset::check_last_seq`].
    pub fn validate(self, magic: u64) -> Result<Checked<Jset<'a>>, Invalid> {
        let jset = self.into_inner();
        let header = jset.header;
        if header.magic.get() != magic {
            let (got, what) = (header.magic.get(), "journal entry magic is wrong");
            return Err(Invalid::plain(what, 16, got, magic));
        }
        let version = Version::from_u32(header.version.get());
        if !version.is_some_and(Version::is_compatible) || header.is_big_endian() {
            return Err(Invalid::new(
                ErrorId::JSET_UNSUPPORTED_VERSION,
                "journal entry has an unsupported version or byte order",
                32,
                header.version.get().into(),
                Version::CURRENT.0.into(),
            ));
        }
        if version.is_some_and(Version::needs_key_compat) {
            return Err(Invalid::new(
                ErrorId::JSET_UNSUPPORTED_VERSION,
                "journal entry is from before version 0.12, whose keys are not understood",
                32,
                header.version.get().into(),
                Version::SNAPSHOT.0.into(),
            ));
        }
        if !header.csum_type().is_known() {
            return Err(Invalid::new(
                ErrorId::JSET_UNKNOWN_CSUM,
                "journal entry has an unknown checksum type",
                36,
                header.csum_type().0.into(),
                CsumType::XXHASH.0.into(),
            ));
        }
        if header.bytes() > JSET_BYTES_MAX {
            let (got, what) = (header.bytes() as u64, "journal entry is too long");
            return Err(Invalid::plain(what, 40, got, JSET_BYTES_MAX as u64));
        }
        Ok(Checked::new(jset))
    }
}

impl Jset<'_> {
    /// Reports a `last_seq` above the entry's own sequence number.
    pub fn check_last_seq(&self) -> Result<(), Invalid> {
        let last_seq = self.header.last_seq.get();
        if self.header.is_no_flush() || last_seq <= self.seq() {
            return Ok(());
        }
        Err(Invalid::new(
            ErrorId::JSET_LAST_SEQ_NEWER_THAN_SEQ,
            "journal entry's last_seq is above its own",
            LAST_SEQ_AT,
            last_seq,
            self.seq(),
        ))
    }
}

impl fmt::Display for Jset<'_> {
    /// The header in one line; the records print themselves.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let h = self.header;
        write!(
            f,
            "seq {} last_seq {} flush {} bytes {} version {} csum {}",
            self.seq(),
            h.last_seq.get(),
            u8::from(!h.is_no_flush()),
            self.bytes(),
            h.version.get(),
            h.csum_type()
        )
    }
}
